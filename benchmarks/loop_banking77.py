"""The whole loop on real text: 12 intents of Banking77, corrections through POST /feedback, the real retrain flow.

    make bench-loop            (or: python benchmarks/loop_banking77.py --seed 3)

Before: the base is asked messages of the test split it has never seen. Then 25 corrections an intent and held-out rows
go in over HTTP, the trigger starts the flow by itself, live traffic meets the canary, and the same test messages are
asked again. Messages of the test split are never fed back and never traffic.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from cli.stack import start, stop
from configs.loader import load_config
from configs.paths import StateDir
from configs.schema import Config
from data_contracts.curation import is_held_out
from data_contracts.records import OPEN_ROLLOUT_STATES, GateDecision
from store import pointer, requests, rollouts, steps, versions
from store.engine import Store

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data" / "banking77"
INTENTS, TRAIN_PER_INTENT, HELD_OUT_PER_INTENT, TEST_PER_INTENT = 12, 25, 8, 15
Pair = tuple[str, str]


def say(text: str) -> None:
    """Progress goes to stderr."""
    print(text, file=sys.stderr, flush=True)


def read_split(name: str) -> dict[str, list[str]]:
    """Intent -> messages."""
    found: dict[str, list[str]] = {}
    with (DATA / name).open(encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            found.setdefault(row["category"], []).append(row["text"].strip())
    return found


def label(intent: str) -> str:
    """What the assistant should say."""
    return intent.replace("_", " ")


class Bank:
    """The bank's customers, over HTTP."""

    def __init__(self, url: str, config: Config) -> None:
        self.config = config
        self.http = httpx.Client(base_url=url, timeout=180.0)

    def ask(self, message: str, user: str, model: str | None = None) -> tuple[str, str]:
        """(request id, answer)."""
        body = {
            "model": model or self.config.model.name,
            "messages": [{"role": "user", "content": message}],
            "user": user,
            "temperature": 0,
        }
        answer = self.http.post("/v1/chat/completions", json=body).raise_for_status().json()
        return answer["id"], answer["choices"][0]["message"]["content"].strip()

    def tell(self, items: Sequence[dict[str, Any]]) -> None:
        """Feedback."""
        self.http.post("/feedback", json={"items": list(items)}).raise_for_status()

    def correct(self, pair: Pair, user: str) -> None:
        """Ask, then say what the answer should have been."""
        request, answer = self.ask(pair[0], user)
        items: list[dict[str, Any]] = [{"request_id": request, "kind": "thumb", "thumb": -1, "user": user}]
        items.append({"request_id": request, "kind": "correction", "text": pair[1], "user": user})
        if answer != pair[1]:
            self.tell(items)

    def judge(self, pair: Pair, user: str) -> bool:
        """Ask as live traffic and give a thumb."""
        request, answer = self.ask(pair[0], user)
        good = answer.lower() == pair[1].lower()
        self.tell([{"request_id": request, "kind": "thumb", "thumb": 1 if good else -1, "user": user}])
        return good

    def exact_match(self, pairs: Sequence[Pair], model: str) -> float:
        """Share of unseen messages answered with the label, by one pinned version."""
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda pair: self.ask(pair[0], "examiner", model)[1], pairs))
        return sum(a.lower() == p[1].lower() for a, p in zip(answers, pairs, strict=True)) / len(pairs)


def principals(config: Config, held_out: bool) -> Iterator[str]:
    """Endless customer names that are (not) held out."""
    number = 0
    while True:
        name = f"customer-{number}"
        number += 1
        if is_held_out(name, config.curation) == held_out:
            yield name


class Traffic:
    """Customers who keep asking while the canary is open."""

    def __init__(self, bank: Bank, pairs: list[Pair], rng: random.Random) -> None:
        self.bank, self.pairs, self.rng = bank, pairs, rng
        self.stop = threading.Event()
        self.count = 0
        self.threads = [threading.Thread(target=self._run, args=(i,), daemon=True) for i in range(8)]

    def _run(self, lane: int) -> None:
        rng = random.Random(f"{self.rng.random()}-{lane}")
        while not self.stop.is_set():
            self.bank.judge(rng.choice(self.pairs), f"caller-{rng.randrange(4000)}")
            self.count += 1

    def __enter__(self) -> Traffic:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()


def wait_for_end(store: Store, model: str, bank: Bank, pairs: list[Pair], rng: random.Random, limit_s: float) -> Any:
    """Follow the request; while its rollout is open, keep customers talking. Returns the finished request."""
    deadline, last, traffic = time.monotonic() + limit_s, "", None
    try:
        while time.monotonic() < deadline:
            with store.read() as conn:
                found = requests.list_requests(conn, model, limit=1)
                done = [s.name for s in steps.list_steps(conn, found[0].id)] if found else []
                rollout = rollouts.current(conn, model)
            line = f"{found[0].status if found else 'no request yet'} {done[-1] if done else ''}"
            if line != last:
                say(f"  {line}")
                last = line
            if rollout is not None and rollout.state in OPEN_ROLLOUT_STATES and traffic is None:
                traffic = Traffic(bank, pairs, rng)
                traffic.__enter__()
            if found and found[0].status in ("done", "failed", "cancelled"):
                return found[0]
            time.sleep(1.0)
        raise TimeoutError(f"no end within {limit_s:.0f} s; last seen: {last}")
    finally:
        if traffic is not None:
            traffic.__exit__()


def flow_times(store: Store, request_id: str) -> dict[str, float]:
    """Seconds of each step, and `wall`: from the start of the first step to the end of the last."""
    with store.read() as conn:
        found = steps.list_steps(conn, request_id)
    seconds = {s.name: (s.ended_at - s.started_at).total_seconds() for s in found if s.ended_at}
    wall = (max(s.ended_at for s in found if s.ended_at) - min(s.started_at for s in found)).total_seconds()
    return {**{k: round(v, 1) for k, v in seconds.items()}, "wall": round(wall, 1)}


def run(seed: int, root: Path) -> dict[str, Any]:
    """One round; returns the figures."""
    rng = random.Random(seed)
    train, test = read_split("train.csv"), read_split("test.csv")
    intents = sorted(rng.sample(sorted(train), INTENTS))
    config = load_config(str(ROOT / "benchmarks" / "banking77.yaml"), {"state_dir": str(root)})
    taught: list[Pair] = []
    held_out: list[Pair] = []
    traffic: list[Pair] = []
    for intent in intents:
        messages = rng.sample(sorted(set(train[intent])), len(set(train[intent])))
        taught += [(m, label(intent)) for m in messages[:TRAIN_PER_INTENT]]
        held_out += [(m, label(intent)) for m in messages[TRAIN_PER_INTENT : TRAIN_PER_INTENT + HELD_OUT_PER_INTENT]]
        traffic += [(m, label(intent)) for m in messages[TRAIN_PER_INTENT + HELD_OUT_PER_INTENT :]]
    unseen = [(m, label(i)) for i in intents for m in rng.sample(sorted(set(test[i])), TEST_PER_INTENT)]
    say(f"Intents (seed {seed}): {', '.join(intents)}")
    state = StateDir.of(config)
    info = start(config, state, say=say)
    store = Store.open(state.store_url(config))
    try:
        return _round(config, info.gateway_url, store, rng, (taught, held_out, traffic, unseen))
    finally:
        stop(state)
        store.close()


def _round(
    config: Config,
    url: str,
    store: Store,
    rng: random.Random,
    data: tuple[list[Pair], list[Pair], list[Pair], list[Pair]],
) -> dict[str, Any]:
    taught, held_out, traffic, unseen = data
    bank, model = Bank(url, config), config.model.name
    before = bank.exact_match(unseen, "base")
    say(f"Before: exact match {before:.3f} on {len(unseen)} unseen messages.")
    work = [(p, u) for p, u in zip(held_out, principals(config, True), strict=False)]
    work += [(p, u) for p, u in zip(taught, principals(config, False), strict=False)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda item: bank.correct(*item), work))
    say(f"{len(work)} corrections sent; waiting for the trigger.")
    request = wait_for_end(store, model, bank, traffic, rng, limit_s=2400)
    with store.read() as conn:
        champion = pointer.get(conn, model).champion.version
        made = versions.list_versions(conn, model)
        promoted = [r for r in rollouts.list_rollouts(conn, model) if r.state == "promoted"]
        outputs = {s.name: s.output for s in steps.list_steps(conn, request.id)}
    say(f"Request ended: {request.outcome}. {request.detail}")
    after = bank.exact_match(unseen, champion)
    times = flow_times(store, request.id)
    decision = GateDecision.model_validate(outputs["gate"]["decision"])  # type: ignore[index]
    neither = times["wall"] - times.get("train", 0.0) - times.get("evaluate", 0.0)
    return {
        "exact_match_before": round(before, 4),
        "exact_match_after": round(after, 4),
        "unseen_messages": len(unseen),
        "gate": {
            "verdict": decision.verdict,
            "suites": [
                {"suite": s.suite, "against": s.against, "n": s.n, "difference": round(s.difference, 4),
                 "interval": [round(s.lower, 4), round(s.upper, 4)], "lost": s.lost, "gained": s.gained,
                 "verdict": s.verdict}
                for s in decision.suites
            ],
        },
        "outcome": request.outcome,
        "model_versions": len(made),
        "promotions": len(promoted),
        "orchestration_share": round(neither / times["wall"], 4),
        "step_seconds": times,
        "train_tok_s": round(outputs["train"]["artifact"]["tokens"] / outputs["train"]["artifact"]["seconds"], 1),  # type: ignore[index]
    }  # fmt: skip


def main() -> int:
    """Run and print the figures; exit 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--state", type=Path, help="keep the state here instead of a temporary folder")
    arguments = parser.parse_args()
    if not (DATA / "train.csv").is_file():
        print(json.dumps({"skipped": f"Banking77 is not at {DATA}"}))
        return 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-", ignore_cleanup_errors=True) as folder:
        figures = run(arguments.seed, arguments.state or Path(folder))
    figures |= {"seed": arguments.seed, "wall_s": round(time.monotonic() - began, 1)}
    print(json.dumps(figures))
    reached = figures["exact_match_after"] >= 0.85 and figures["outcome"] == "promoted"
    return 0 if reached and figures["orchestration_share"] <= 0.15 else 1


if __name__ == "__main__":
    raise SystemExit(main())
