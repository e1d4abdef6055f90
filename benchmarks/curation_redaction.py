"""How much personal data does redaction find, what else does it take, and how fast is it?

    python benchmarks/curation_redaction.py [--seed 0] [--scale 1.0]

Texts are generated with known truth (`redaction_texts.py`; detectors and generator share no code). Recall: a planted
value counts as found if what was found of its kind covers all its letters and digits. Precision: of all found values
of a kind, also in texts without any, those that are the planted one. The peer is Presidio's AnalyzerEngine on the same
texts in the same run, alternating, in `.venvs/presidio`, which is made if it is not there. Progress goes to stderr; the
last line of stdout is one JSON object. All times are CPU seconds of one process.

The texts come in lots, each written after the one before it had been looked at. The last one is held out: no detector
was changed for it; its figures stand beside those of the others.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import redaction_texts
from redaction_texts import Sample

from data_contracts.redaction import Found, Redactor

ROOT = Path(__file__).resolve().parent.parent
PEER = "presidio-analyzer==2.2.366"
ROUNDS = 5
HELD_OUT = redaction_texts.PARTS[-1]
MIX = 0.10
"""Share of support messages with a value in them; the others hold order numbers, dates, prices and versions."""


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


# --- recall and precision ------------------------------------------------------------------------


def covers(sample: Sample, hit: Found) -> bool:
    """True if the hit is of the planted kind and no letter or digit of the value is left outside of it."""
    if hit.entity != sample.entity or hit.end <= sample.start or hit.start >= sample.end:
        return False
    left_over = (
        sample.text[sample.start : max(hit.start, sample.start)] + sample.text[min(hit.end, sample.end) : sample.end]
    )
    return not any(map(str.isalnum, left_over))


def accuracy(samples: list[Sample]) -> dict[str, dict[str, float]]:
    """Recall and precision by entity, and how many values there were."""
    redactor = Redactor()
    planted: Counter[str] = Counter()
    right: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for sample in samples:
        found = redactor.find(sample.text)
        hits = [covers(sample, hit) for hit in found]
        planted[sample.entity] += 1
        right[sample.entity] += any(hits)
        for hit, is_right in zip(found, hits, strict=True):
            wrong[hit.entity] += not is_right
    return {
        entity: {
            "n": planted[entity],
            "recall": round(right[entity] / planted[entity], 4),
            "precision": round(right[entity] / max(1, right[entity] + wrong[entity]), 4),
        }
        for entity in redaction_texts.ENTITIES
    }


def least(table: dict[str, dict[str, float]], what: str) -> float:
    """The smallest figure of any entity."""
    return min(row[what] for row in table.values())


# --- speed ---------------------------------------------------------------------------------------


def seconds(redactor: Redactor, texts: list[str]) -> float:
    """CPU time to redact them all: one thread that waits for nothing, so wall time would measure the neighbours."""
    start = time.process_time()
    for text in texts:
        redactor.redact(text)
    return time.process_time() - start


def megabytes_per_second(texts: list[str]) -> float:
    """Median over the rounds, of UTF-8."""
    size = sum(len(text.encode()) for text in texts) / 1e6
    redactor = Redactor()
    return size / statistics.median(seconds(redactor, texts) for _ in range(ROUNDS))


class Presidio:
    """The peer's process."""

    def __init__(self) -> None:
        python = ROOT / ".venvs" / "presidio" / "bin" / "python"
        if not python.exists():
            say(f"making {python.parents[1]} with {PEER}")
            subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
        if subprocess.run([str(python), "-c", "import presidio_analyzer"], capture_output=True).returncode:
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", PEER], check=True, stdout=sys.stderr)
        self._child = subprocess.Popen(
            [str(python), str(Path(__file__).with_name("redaction_peer.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.facts = self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise SystemExit("the peer ended: run benchmarks/redaction_peer.py in .venvs/presidio to see why")
        return dict(json.loads(line))

    def seconds(self, engine: str, texts: list[str]) -> float:
        """CPU time of its `default` engine, or of the one for more `countries`, measured in its process."""
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps([engine, texts]) + "\n")
        self._child.stdin.flush()
        return float(self._answer()["seconds"])

    def close(self) -> None:
        """End the process."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait(30)


def against_presidio(seed: int, scale: float) -> dict[str, Any]:
    """Median times on the same messages, alternating."""
    texts = redaction_texts.support_chat(seed + 1, max(0.01, 0.06 * scale), MIX)
    repeat = 10
    peer, redactor = Presidio(), Redactor()
    ours: list[float] = []
    theirs: dict[str, list[float]] = {"default": [], "countries": []}
    try:
        for number in range(ROUNDS):
            ours.append(seconds(redactor, texts * repeat) / repeat)
            for engine, times in theirs.items():
                times.append(peer.seconds(engine, texts))
            say(
                f"round {number + 1}: ours {ours[-1]:.4f} s, Presidio {theirs['default'][-1]:.3f} s, {len(texts)} texts"
            )
    finally:
        peer.close()
    size = sum(len(text.encode()) for text in texts) / 1e6
    took = {engine: statistics.median(times) for engine, times in theirs.items()}
    return {
        "speedup_vs_presidio": round(took["default"] / statistics.median(ours), 1),
        "speedup_vs_presidio_countries": round(took["countries"] / statistics.median(ours), 1),
        "presidio_mb_s": round(size / took["default"], 4),
        "presidio": {
            "version": PEER,
            **peer.facts,
            "note": "a blank spaCy pipeline: without a language model Presidio skips its slowest part"
            if peer.facts["pipeline"] == "blank"
            else "with the installed spaCy model",
        },
    }


def measure(seed: int, scale: float) -> dict[str, Any]:
    """All figures.

    Args:
        seed: of the generated texts.
        scale: 1.0 is 300 texts per entity and part, and 2 MB of chat.
    """
    samples = redaction_texts.labelled(seed, max(20, round(300 * scale)))
    say(f"{len(samples)} labelled texts")
    parts = {part: accuracy([s for s in samples if s.part == part]) for part in redaction_texts.PARTS}
    table = accuracy([s for s in samples if s.part != HELD_OUT])
    say("speed")
    mixed = redaction_texts.support_chat(seed, max(0.1, 2 * scale), MIX)
    every = redaction_texts.support_chat(seed, max(0.1, 1 * scale), 1.0)
    none = redaction_texts.support_chat(seed, max(0.1, 1 * scale), 0.0)
    return {
        "redaction_mb_s": round(megabytes_per_second(mixed), 2),
        "redaction_mb_s_value_in_every_message": round(megabytes_per_second(every), 2),
        "redaction_mb_s_no_value": round(megabytes_per_second(none), 2),
        "redaction_mix": f"{MIX:.0%} of messages hold one value; mean {sum(map(len, mixed)) // len(mixed)} characters",
        "redaction_load_average": round(os.getloadavg()[0], 1),
        "redaction_min_recall": least(table, "recall"),
        "redaction_min_precision": least(table, "precision"),
        "redaction_held_out_min_recall": least(parts[HELD_OUT], "recall"),
        "redaction_held_out_min_precision": least(parts[HELD_OUT], "precision"),
        "redaction_entities": table,
        "redaction_held_out": parts[HELD_OUT],
        **against_presidio(seed, scale),
    }


def main() -> None:
    """One JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0)
    given = parser.parse_args()
    print(json.dumps(measure(given.seed, given.scale)))


if __name__ == "__main__":
    main()
