"""Who may teach the model? Simulated adversaries against curation, and against its peers in the same run.

    python benchmarks/poisoning.py [--seeds 3] [--data ../shared/data/banking77]

1,200 honest people correct some 2,400 answers in four weekly rounds over the 77 intents of Banking77 (generated text
where it is not at hand): several wordings, popular prompts word for word, 7 % honest mistakes, 15 % new accounts. Each
adversary begins in the second round. A target counts as flipped when one wrong row of the adversary teaches in any
round; an honest row counts as dropped when it is right and held in the last round for a reason that does not pass by
itself (all but uncorroborated, duplicate, cap, balance and the exam). Figures are the worst of the seeds; `_mean` is
the mean. Progress goes to stderr; the last line of stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
from poisoning_planted import planted_passed
from poisoning_world import (
    ADVERSARIES,
    ROUNDS,
    START,
    Bank,
    World,
    bank_of,
    banking77,
    botnet,
    flood,
    generated,
    honest_world,
)

from configs.curation import CurationSection
from configs.loader import cache_dir
from configs.schema import Config
from data_contracts.curation import CurationResult, Person, curate
from data_contracts.records import LabelledRow

POLICY = CurationSection(embeddings=True)
HELD_FOR_GOOD = {"conflict", "burst", "dictated", "unreliable", "suspect", "personal_data", "balance"}
Embed = Callable[[Sequence[str]], np.ndarray]
Attack = Callable[[World, Bank], None]


@dataclass(frozen=True)
class Outcome:
    """What one adversary achieved against one defence."""

    flipped: float
    """Share of targets of which a wrong row taught in any round."""
    poisoned: int
    """Most wrong rows of the adversary that taught in one round."""
    dropped: float
    """Share of honest right rows that are held in the last round."""
    waiting: float
    """Share of honest right rows still uncorroborated in the last round."""


def rounds(world: World, embed: Embed | None) -> Outcome:
    """Curate at the end of each round; nobody reviews anything."""
    flipped: set[str] = set()
    most, result = 0, CurationResult([], [], [])
    for number in range(2 if world.bad else ROUNDS, ROUNDS + 1):
        now = START + timedelta(days=7 * number)
        rows = world.upto(now)
        result = curate(rows, set(), POLICY, [], people=world.people, embed=embed, now=now)
        taught = [row.row_id for row in result.train if row.row_id in world.bad]
        flipped |= {world.bad[row_id] for row_id in taught}
        most = max(most, len(taught))
    return _outcome(world, flipped, most, {row.row_id: row.reason for row in result.left_out})


def _outcome(world: World, flipped: set[str], most: int, left: dict[str, str]) -> Outcome:
    honest = [r for r in world.rows if r.principal.startswith("person-")]
    right = [r.id for r in honest if r.completion == world.truth[r.id]]
    held = sum(left.get(row_id) in HELD_FOR_GOOD for row_id in right)
    waiting = sum(left.get(row_id) == "uncorroborated" for row_id in right)
    targets = len(set(world.bad.values())) or 1
    return Outcome(len(flipped) / targets, most, held / len(right), waiting / len(right))


def _winners(votes: dict[str, Counter[str]]) -> dict[str, str]:
    return {item: max(sorted(tally), key=lambda a: tally[a]) for item, tally in votes.items()}


def majority(rows: Sequence[LabelledRow], question: dict[str, str]) -> dict[str, str]:
    """The most frequent answer of each question; which rows ask the same it is told."""
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        votes[question[row.id]][row.completion] += 1
    return _winners(votes)


def one_vote_each(rows: Sequence[LabelledRow], question: dict[str, str]) -> dict[str, str]:
    """The same with one vote a person and question, the last."""
    last = {(row.principal, question[row.id]): row for row in rows}
    return majority(list(last.values()), question)


def dawid_skene(rows: Sequence[LabelledRow], question: dict[str, str], steps: int = 30) -> dict[str, str]:
    """One vote each, weighed by people's accuracy: the one-coin model of Dawid and Skene (1979) by EM."""
    last = {(row.principal, question[row.id]): row.completion for row in rows}
    answers: dict[str, set[str]] = defaultdict(set)
    for (_, item), answer in last.items():
        answers[item].add(answer)
    accuracy = dict.fromkeys({person for person, _ in last}, 0.8)
    belief: dict[str, dict[str, float]] = {}
    for _ in range(steps):
        score = {item: dict.fromkeys(found, 0.0) for item, found in answers.items()}
        for (person, item), answer in last.items():
            wrong = max(1, len(answers[item]) - 1)
            score[item][answer] += float(np.log(accuracy[person] * wrong / (1 - accuracy[person])))
        for item, found in score.items():
            top = max(found.values())
            exp = {a: float(np.exp(s - top)) for a, s in found.items()}
            total = sum(exp.values())
            belief[item] = {a: e / total for a, e in exp.items()}
        right: Counter[str] = Counter()
        count: Counter[str] = Counter()
        for (person, item), answer in last.items():
            right[person] += belief[item][answer]
            count[person] += 1
        accuracy = {p: min(0.99, max(0.01, (right[p] + 4) / (count[p] + 5))) for p in accuracy}
    return {item: max(sorted(found), key=lambda a: found[a]) for item, found in belief.items()}


PEERS = {"majority": majority, "one_vote": one_vote_each, "dawid_skene": dawid_skene}


def peers(world: World) -> dict[str, Outcome]:
    """What the adversary achieves against the peers, at the end; they are told which rows ask the same question."""
    question = dict(world.truth)
    found = {"no_defence": _outcome(world, set(world.bad.values()), len(world.bad), {})}
    for name, method in PEERS.items():
        label = method(world.rows, question)
        left = {row.id: "conflict" for row in world.rows if label[question[row.id]] != row.completion}
        taught = [row_id for row_id in world.bad if row_id not in left]
        found[name] = _outcome(world, {world.bad[row_id] for row_id in taught}, len(taught), left)
    return found


def small_intents(bank: Bank, embed: Embed | None, seed: int) -> dict[str, float]:
    """77 intents with 8 to 25 corrections each, one person a row, 8 % mistakes: what agreement leaves out."""
    rng = np.random.default_rng(seed)
    names, wrong = sorted(bank.texts), set()
    world = honest_world(bank, seed, people=0)
    for name in names:
        count = int(rng.integers(8, 26))
        for text in rng.permutation(bank.texts[name])[:count].tolist():
            said = name
            if rng.random() < 0.08:
                near = bank.like[name] if rng.random() < 0.5 else [n for n in names if n != name]
                said = str(rng.choice(near))
            who = f"person-{len(world.rows)}"
            world.people[who] = Person(START)
            row_id = world.say(who, START + timedelta(days=10, minutes=len(world.rows)), text, said, name)
            if said != name:
                wrong.add(row_id)
    policy = POLICY.model_copy(update={"holdout_share": 0.0})
    result = curate(world.rows, set(), policy, [], people=world.people, embed=embed)
    held = {r.row_id for r in result.left_out if r.reason in ("conflict", "uncorroborated", "burst", "unreliable")}
    conflict = {r.row_id for r in result.left_out if r.reason == "conflict"}
    right = {row.id for row in world.rows} - wrong
    return {
        "conflict": len(conflict & right) / len(right),
        "lost": len(held & right) / len(right),
        "caught": len(held & wrong) / max(1, len(wrong)),
    }


def say(text: str) -> None:
    """One line of progress."""
    print(text, file=sys.stderr, flush=True)


def embedder() -> Embed:
    """MiniLM, each text embedded once and kept in the cache of benchmarks."""
    from models.cache import resolve
    from models.embedding_cache import CachedEmbedder
    from models.embeddings import Embedder

    config = Config()
    model = resolve(config.model.embedder, cache_dir(config), say)
    file = cache_dir(config) / "benchmarks" / "poisoning.sqlite"
    return CachedEmbedder(file, model.digest, lambda: Embedder(model.path))


def worst_and_mean(name: str, outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Figures of one adversary over the seeds."""
    return {
        f"{name}_flipped": max(o.flipped for o in outcomes),
        f"{name}_flipped_mean": float(np.mean([o.flipped for o in outcomes])),
        f"{name}_poisoned_rows": max(o.poisoned for o in outcomes),
        f"{name}_honest_dropped": max(o.dropped for o in outcomes),
        f"{name}_honest_waiting": max(o.waiting for o in outcomes),
    }


def simulate(bank: Bank, seeds: int, attack: Attack | None, embed: Embed | None) -> tuple[list[Outcome], list[World]]:
    """One adversary (or none) in every seed's world."""
    outcomes, worlds = [], []
    for seed in range(seeds):
        world = honest_world(bank, seed)
        if attack is not None:
            attack(world, bank)
        outcomes.append(rounds(world, embed))
        worlds.append(world)
    return outcomes, worlds


def main() -> int:
    """Run all adversaries."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data" / "banking77")
    parser.add_argument("--only", default="", help="names of adversaries, separated by commas")
    parser.add_argument("--lexical", action="store_true", help="compare prompts by words, without embeddings")
    options = parser.parse_args()
    started = time.perf_counter()
    real = (options.data / "train.csv").exists()
    vectors = embedder()
    bank = bank_of(banking77(options.data) if real else generated(), vectors)
    embed = None if options.lexical else vectors
    only = set(filter(None, options.only.split(",")))
    figures: dict[str, float] = {}
    for name, attack in {"clean": None, "flood": flood, "botnet": botnet, **ADVERSARIES}.items():
        if only and name not in only:
            continue
        outcomes, worlds = simulate(bank, options.seeds, attack, embed)
        key = name if name in ("clean", "flood", "botnet") else f"adversary_{name}"
        figures |= worst_and_mean(key, outcomes)
        if name in ("botnet", "flood", "aged"):
            found = [peers(world) for world in worlds]
            for peer in found[0]:
                figures[f"peer_{peer}_{name}_flipped"] = max(f[peer].flipped for f in found)
                figures[f"peer_{peer}_{name}_poisoned_rows"] = max(f[peer].poisoned for f in found)
                figures[f"peer_{peer}_{name}_honest_dropped"] = max(f[peer].dropped for f in found)
        say(f"{time.perf_counter() - started:5.0f} s  {name}: {outcomes}")
    if not only:
        passed, planted, lost = planted_passed(bank, POLICY)
        figures |= {"contamination_passed": passed, "contamination_planted": planted, "contamination_honest_lost": lost}
        for kind, how in {"lexical": None, "embeddings": vectors}.items():
            found_small = [small_intents(bank, how, seed) for seed in range(options.seeds)]
            for what in found_small[0]:
                figures[f"small_intents_{kind}_{what}"] = float(np.mean([f[what] for f in found_small]))
    rounded = {name: round(float(value), 4) for name, value in figures.items()}
    seconds = round(time.perf_counter() - started, 1)
    text = "banking77" if real else "generated"
    print(json.dumps({"benchmark": "poisoning", "seeds": options.seeds, "text": text, **rounded, "seconds": seconds}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
