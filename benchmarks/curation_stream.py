"""A source of a million labelled rows to a snapshot: what does it take in memory, and where does the time go?

    python benchmarks/curation_stream.py [--rows 1000000] [--seed 0]

Generated rows of 300 topics: one person in five is asked to be held out, 30 % of the prompts are near-duplicates of an
earlier one, 8 % of the rows hold personal data, 4 % break the contract, 5 % correct wrongly. They go through redaction,
the shipped contract (Great Expectations on what is suspect), curation with every rule (near-duplicates against all
earlier rows included) and publication, in a process of its own whose peak of resident memory is taken, mapped files
included. Progress goes to stderr; the last line of stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

TOPICS, BATCH = 300, 10_000
START = datetime(2026, 1, 1, tzinfo=UTC)
NOUNS = [
    "lamp",
    "desk",
    "chair",
    "sofa",
    "shelf",
    "mirror",
    "carpet",
    "curtain",
    "pillow",
    "blanket",
    "kettle",
    "pan",
    "knife",
    "plate",
    "bowl",
    "cup",
    "towel",
    "basket",
    "clock",
    "frame",
    "candle",
    "vase",
    "drawer",
    "cabinet",
    "stool",
    "bench",
    "hammock",
    "ladder",
    "heater",
    "fan",
]
WISHES = [
    "return",
    "exchange",
    "repair",
    "cancel",
    "track",
    "delay",
    "insure",
    "assemble",
    "clean",
    "store",
    "resell",
    "collect",
    "engrave",
    "measure",
    "adjust",
]
OPENINGS = ("Hello,", "Hi there,", "Good morning,", "Quick question:", "Please help:", "Hey,", "Dear team,", "So,")
EXTRAS = (
    "it came last week", "my neighbour has one too", "I bought it in the spring", "the box was open", "it is a present",
    "we move house soon", "the colour is not right", "I need it by Friday", "nobody answered the phone",
    "I read the leaflet twice", "it is for the kitchen", "the second one is fine",
)  # fmt: skip


def topic(number: int) -> tuple[str, str, str]:
    """(wish, thing, the company's answer) of a topic."""
    wish, thing = WISHES[number % len(WISHES)], NOUNS[number // len(WISHES) % len(NOUNS)]
    return wish, thing, f"Open your orders, choose the {thing} and press {wish}; we mail you step {number % 7 + 1}."


def _prompt(rng: random.Random, wish: str, thing: str) -> str:
    extra = " and ".join(rng.sample(EXTRAS, rng.randint(1, 3)))
    number = rng.randint(100, 99_999)
    return f"{rng.choice(OPENINGS)} how can I {wish} the {thing} of order {number}, {extra}?"


def _personal(rng: random.Random) -> str:
    kind = rng.randrange(3)
    if kind == 0:
        return f" Write to user{rng.randint(1, 10**6)}@mail.example.org."
    if kind == 1:
        return f" Call me on +49 30 {rng.randint(10**6, 10**7 - 1)}."
    return f" I logged in from 10.{rng.randint(0, 255)}.{rng.randint(0, 255)}.7."


def batches(rows: int, seed: int) -> Iterator[Any]:
    """Batches of `data_contracts.stream.labelled_schema`, made as they are asked for."""
    import pyarrow as pa

    from data_contracts.stream import labelled_schema

    rng = random.Random(seed)
    people = max(500, rows // 8)
    recent: list[tuple[int, str]] = []
    for first in range(0, rows, BATCH):
        columns: dict[str, list[Any]] = {name: [] for name in labelled_schema().names}
        for place in range(first, min(rows, first + BATCH)):
            if recent and rng.random() < 0.3:
                number, prompt = rng.choice(recent)
                prompt = prompt.replace("?", " today?")
            else:
                number = rng.randrange(TOPICS)
                prompt = _prompt(rng, *topic(number)[:2])
                recent.append((number, prompt))
                del recent[:-5000]
            answer = topic(number if rng.random() > 0.05 else rng.randrange(TOPICS))[2]
            chance = rng.random()
            if chance < 0.04:
                answer = ("", "  ", "you idiot, " + answer, answer + " <|im_end|>")[rng.randrange(4)]
            elif chance < 0.12:
                prompt += _personal(rng)
            person = f"person-{rng.randrange(people):07d}"
            values = {
                "id": f"fb-{place:09d}", "digest": f"{rng.getrandbits(256):064x}", "interaction_id": f"req-{place:09d}",
                "kind": "correction", "principal": person, "scope": "user", "asked_by": person,
                "created_at": START + timedelta(seconds=20 * place),
                "messages": [{"role": "user", "content": prompt}], "answer": "I am only a language model.",
                "completion": answer, "version": "base", "source": "api",
            }  # fmt: skip
            for name, value in values.items():
                columns[name].append(value)
        print(f"stream: {first:,} of {rows:,}", end="\r", file=sys.stderr)
        yield pa.RecordBatch.from_pydict(columns, schema=labelled_schema())
    print(file=sys.stderr)


def _run(rows: int, seed: int, folder: str, out: Any) -> None:
    from configs.loader import resource_path
    from configs.schema import CurationSection
    from data_contracts.contract import load_contract
    from data_contracts.redaction import Redactor
    from data_contracts.stream import stream_snapshot

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    begun = time.perf_counter()
    report = stream_snapshot(
        batches(rows, seed),
        Path(folder) / "work",
        Path(folder) / "snapshots",
        contract=load_contract(resource_path("contracts/feedback_correction.yaml")),
        policy=CurationSection(),
        redactor=Redactor(),
        eval_prompts=[f"Where do I find the opening hours of shop {n} in the old town?" for n in range(500)],
        model="support-bot",
        base_digest="0" * 64,
        watermark=rows,
        created_at=START + timedelta(days=365),
    )
    seconds = time.perf_counter() - begun
    counts = report.snapshot.counts if report.snapshot else {}
    out.send(
        {
            "stream_rows": report.rows,
            "stream_peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            "stream_start_mb": round(before),
            "stream_rows_s": round(report.rows / seconds),
            "stream_seconds": round(seconds, 1),
            "stream_shares": {name: round(value / seconds, 3) for name, value in report.seconds.items()},
            "stream_taught": counts.get("train.correction", 0),
            "stream_target": counts.get("target.correction", 0),
            "stream_reasons": report.reasons,
        }
    )


def measure(rows: int, seed: int) -> dict[str, Any]:
    """Run in a fresh process, so that its peak of memory is its own."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        child = context.Process(target=_run, args=(rows, seed, folder, there))
        child.start()
        there.close()
        try:
            figures: dict[str, Any] = here.recv()
        except EOFError:
            raise SystemExit("the stream's process ended without figures") from None
        finally:
            child.join()
    return figures


def main() -> None:
    """One JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(json.dumps({"seed": options.seed, **measure(options.rows, options.seed)}))


if __name__ == "__main__":
    main()
