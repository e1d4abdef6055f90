"""How well and how fast are near-duplicates found, and what does a thousand more cost? Beside datasketch.

    python benchmarks/curation_neardup.py [--seed 0] [--scale 1.0] [--data ../shared/data/banking77]

100,000 texts: generated support messages and, where the folder is there, those of Banking77; two in five are edits of
another (words swapped, mistyped, put in, left out, halves exchanged, the tail cut off). The truth is by construction:
an edit is a positive if its Jaccard similarity of word 3-shingles with its original is at least the threshold (0.7), a
negative below 0.6, and is thrown away in between; the similarity is computed by other code than the one measured
(data_contracts.overlap). The later one of a pair is the one to be found. `found` counts only if the name is the pair's.

datasketch runs in a virtual environment of its own on a part of the same texts, from text to answer like ours; its time
is extrapolated linearly. Once as its documentation has it (`update` for every shingle), once with `MinHash.bulk`.
Progress goes to stderr; the last line of stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from data_contracts.neardup import NearDuplicateIndex
from data_contracts.overlap import jaccard, shingles

SIMILARITY = 0.7
CLEARLY_BELOW = 0.6
PERMUTATIONS = 128
PEER = Path(__file__).with_name("peer_datasketch.py")
ROOT = Path(__file__).resolve().parent.parent

OPENERS = (
    "hi there",
    "hello",
    "good morning",
    "dear team",
    "hey",
    "hi support",
    "to whom it may concern",
    "hello again",
)
PROBLEMS = (
    "my order {n} of a {w} has not arrived", "the {w} i bought for {n} euros stopped working after {k} days",
    "i was charged {n} twice for the same {w}", "the app says {w} error {n} whenever i open the {w} page",
    "your courier left the parcel {n} at the {w} next door", "i cannot sign in to my {w} account since {k} days ago",
    "the refund of {n} for my {w} is still missing", "please change the address of order {n} to {w} street {k}",
)  # fmt: skip
ASKS = (
    "can you tell me what to do now", "please send me a new one as soon as you can", "i would like my money back",
    "who can help me with this", "please call me on {n}", "when will this be solved", "thank you for your help",
)  # fmt: skip


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def make_texts(rng: random.Random, count: int) -> list[str]:
    """Support messages of 20 to 60 words: set phrases with details, and free words of a Zipf-like vocabulary."""
    consonants, vowels = "bcdfghjklmnprstvz", "aeiou"
    vocabulary = ["".join(rng.choice(part) for part in (consonants, vowels) * (1 + i % 3)) for i in range(6000)]
    weights = [1 / (rank + 20) for rank in range(len(vocabulary))]
    words = rng.choices(vocabulary, weights, k=count * 36)
    texts = []
    for i in range(count):
        own = words[i * 36 : i * 36 + 12 + rng.randrange(24)]
        facts = {"n": rng.randrange(10**6), "k": rng.randrange(2, 60), "w": own[0]}
        middle = [rng.choice(PROBLEMS).format(**facts), " ".join(own[1:])]
        texts.append(". ".join([rng.choice(OPENERS), *middle, rng.choice(ASKS).format(**facts)]).capitalize() + ".")
    return texts


def banking_texts(folder: Path | None) -> list[str]:
    """Distinct messages of Banking77 that are not near each other already; none where the folder is not there."""
    if folder is None or not folder.is_dir():
        say("Banking77 is not here; generated texts only")
        return []
    found = []
    for name in ("train.csv", "test.csv"):
        with (folder / name).open(encoding="utf-8", newline="") as file:
            found += [row["text"].strip() for row in csv.DictReader(file)]
    kept = exact_matches(found, CLEARLY_BELOW)
    return [text for text, match in zip(found, kept, strict=True) if match is None]


def exact_matches(texts: Sequence[str], similarity: float) -> list[int | None]:
    """By brute force over shared shingles: the earliest survivor at or above the similarity, per text."""
    sets = [shingles(text) for text in texts]
    holders: dict[str, list[int]] = {}
    answers: list[int | None] = []
    for i, own in enumerate(sets):
        shared: dict[int, int] = {}
        for shingle in own:
            for other in holders.get(shingle, ()):
                shared[other] = shared.get(other, 0) + 1
        near = (j for j, n in shared.items() if n / (len(own) + len(sets[j]) - n) >= similarity - 1e-9)
        answers.append(min(near, default=None))
        if answers[-1] is None:
            for shingle in own:
                holders.setdefault(shingle, []).append(i)
    return answers


def edit(rng: random.Random, text: str) -> str:
    """One to four edits."""
    words = text.split()
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        at = rng.randrange(len(words))
        kind = rng.randrange(7)
        if kind == 0 and at + 1 < len(words):
            words[at], words[at + 1] = words[at + 1], words[at]
        elif kind == 1 and len(words[at]) > 2:
            cut = rng.randrange(1, len(words[at]))
            words[at] = words[at][:cut] + rng.choice("aeiourst") + words[at][cut:]
        elif kind == 2:
            words.insert(at, rng.choice(("really", "please", "again", "today", "still")))
        elif kind == 3 and len(words) > 4:
            del words[at]
        elif kind == 4:
            words = words[len(words) // 2 :] + words[: len(words) // 2]
        elif kind == 5 and len(words) > 8:
            del words[-rng.randrange(1, len(words) // 4) :]
        else:
            words = [*words, *rng.choice(("thanks", "thank you", "regards", "asap!")).split()]
    changed = " ".join(words)
    return changed.upper() if rng.random() < 0.1 else changed


def plant(rng: random.Random, originals: list[str], count: int) -> tuple[list[str], dict[int, int]]:
    """(texts in random order, {place of the later: place of the earlier} of the positives); one edit an original."""
    made: list[tuple[int, str, bool]] = [(i, text, False) for i, text in enumerate(originals)]
    for source in rng.sample(range(len(originals)), len(originals)):
        if len(made) >= count:
            break
        changed = edit(rng, originals[source])
        true = jaccard(shingles(originals[source]), shingles(changed))
        if true >= SIMILARITY:
            made.append((source, changed, True))
        elif true < CLEARLY_BELOW:
            made.append((len(made) + len(originals), changed, False))
    rng.shuffle(made)
    positive = {source for source, _, planted in made if planted}
    first: dict[int, int] = {}
    pairs: dict[int, int] = {}
    for place, (source, _, _) in enumerate(made):
        if source in positive:
            if source in first:
                pairs[place] = first[source]
            first.setdefault(source, place)
    return [text for _, text, _ in made], pairs


def quality(texts: list[str], pairs: dict[int, int]) -> dict[str, Any]:
    """Recall and precision against the planted truth."""
    answers = NearDuplicateIndex(SIMILARITY, permutations=PERMUTATIONS).add_all(
        list(map(str, range(len(texts)))), texts
    )
    found = {place: int(name) for place, name in enumerate(answers) if name is not None}
    right = sum(pairs.get(place) == name for place, name in found.items())
    return {
        "neardup_recall": round(right / len(pairs), 5),
        "neardup_precision": round(right / len(found), 5),
        "texts": len(texts),
        "positives": len(pairs),
        "reported": len(found),
    }


def timed(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of one call by a clock."""
    start = clock()
    work()
    return clock() - start


def peer_python() -> Path | None:
    """The peer's own environment, made at first use; None if it cannot be installed."""
    folder = ROOT / ".venvs" / "datasketch"
    python = folder / "bin" / "python"
    if not (folder / ".installed").exists():
        say("installing datasketch into .venvs/datasketch")
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        done = subprocess.run([python, "-m", "pip", "install", "-q", "datasketch==2.0.0"], stdout=sys.stderr)
        if done.returncode:
            return None
        (folder / ".installed").touch()
    return python


def beside_datasketch(texts: list[str], peer_texts: int, rounds: int) -> dict[str, Any]:
    """Ours on all texts and datasketch on some, alternating; seconds per text, medians."""
    python = peer_python()
    names = list(map(str, range(len(texts))))
    ours: list[float] = []
    theirs: dict[str, list[float]] = {"update": [], "bulk": []}
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "texts.json"
        part.write_text(json.dumps(texts[:peer_texts]), encoding="utf-8")
        for _ in range(rounds):
            index = NearDuplicateIndex(SIMILARITY, permutations=PERMUTATIONS)
            ours.append(timed(lambda index=index: index.add_all(names, texts)) / len(texts))
            for way in theirs if python else ():
                command = [python, PEER, part, way, str(SIMILARITY), str(PERMUTATIONS)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                theirs[way].append(float(done.stdout) / peer_texts)
                say(f"ours {ours[-1] * 1e6:.1f} us a text, datasketch ({way}) {theirs[way][-1] * 1e6:.0f}")
    mine = statistics.median(ours)
    result: dict[str, Any] = {"us_per_text": round(mine * 1e6, 2), "datasketch_texts": peer_texts}
    if python is None:
        return {**result, "speedup_vs_datasketch": None}
    per = {way: statistics.median(values) for way, values in theirs.items()}
    return {
        **result,
        "datasketch_us_per_text": round(per["update"] * 1e6, 1),
        "datasketch_bulk_us_per_text": round(per["bulk"] * 1e6, 1),
        "speedup_vs_datasketch": round(per["update"] / mine, 1),
        "speedup_vs_datasketch_bulk": round(per["bulk"] / mine, 1),
    }


def incremental(rng: random.Random, known: int, more: int, rounds: int) -> dict[str, Any]:
    """A rebuild of `known` rows (saved) against opening it, adding `more` and saving that."""
    say(f"building an index of {known} texts")
    texts = make_texts(rng, known)
    folder = Path(tempfile.mkdtemp())
    try:
        start = time.perf_counter()
        index = NearDuplicateIndex(SIMILARITY, permutations=PERMUTATIONS)
        index.add_all([f"k{i}" for i in range(known)], texts)
        index.save(folder)
        rebuild = time.perf_counter() - start
        del index
        seconds = []
        for turn in range(rounds):
            fresh = make_texts(rng, more)
            # A tenth of what comes is known already.
            fresh[: more // 10] = [edit(rng, text) for text in rng.sample(texts, more // 10)]
            start = time.perf_counter()
            index = NearDuplicateIndex.load(folder)
            index.add_all([f"m{turn}.{i}" for i in range(more)], fresh)
            index.save(folder)
            seconds.append(time.perf_counter() - start)
        size = sum(path.stat().st_size for path in folder.iterdir())
    finally:
        shutil.rmtree(folder)
    say(f"rebuild {rebuild:.2f} s, additions {[round(s, 3) for s in seconds]}")
    return {
        "incremental_share": round(statistics.median(seconds) / rebuild, 5),
        "incremental_share_worst": round(max(seconds) / rebuild, 5),
        "incremental_known": known,
        "rebuild_s": round(rebuild, 2),
        "index_mb": round(size / 1e6, 1),
    }


def alike(rng: random.Random, count: int) -> list[str]:
    """A crowd: half are one text with a word changed, half fill a form whose texts stay just below the similarity."""
    base = make_texts(rng, 1)[0].split()
    words = [f"detail{i}" for i in range(5000)]
    texts = []
    for i in range(count):
        if i % 2:
            own = list(base)
            own[rng.randrange(len(own))] = rng.choice(words)
            texts.append(" ".join(own))
        else:
            texts.append(
                f"my order {rng.randrange(10**6)} of a {rng.choice(words)} has not arrived and i have been waiting for "
                f"it since the day we talked about {rng.choice(words)} please tell me where it is now because i need "
                f"it at home before the end of {rng.choice(words)} at the very latest and nobody answers the telephone"
            )
    return texts


def self_similar(rng: random.Random, count: int, rounds: int) -> dict[str, Any]:
    """CPU time of twice the rows over that of the rows, where nearly all share their buckets; recall against truth."""
    texts = alike(rng, 2 * count)
    names = list(map(str, range(len(texts))))
    seconds: dict[int, list[float]] = {count: [], 2 * count: []}
    for _ in range(rounds):
        for size in seconds:
            index = NearDuplicateIndex(SIMILARITY, permutations=PERMUTATIONS)
            # CPU seconds: a ratio of two times, which whatever else runs on the machine must not decide.
            used = timed(lambda i=index, n=size: i.add_all(names[:n], texts[:n]), time.process_time)
            seconds[size].append(used)
    one, two = (statistics.median(values) for values in seconds.values())
    sample = texts[: min(len(texts), 4000)]
    truth = exact_matches(sample, SIMILARITY)
    got = NearDuplicateIndex(SIMILARITY, permutations=PERMUTATIONS).add_all(names[: len(sample)], sample)
    positives = [i for i, match in enumerate(truth) if match is not None]
    say(f"self-similar: {count} in {one:.2f} s, {2 * count} in {two:.2f} s")
    return {
        "selfsimilar_growth": round(two / one, 3),
        "selfsimilar_rows": 2 * count,
        "selfsimilar_us_per_text": round(two / (2 * count) * 1e6, 1),
        "selfsimilar_recall": round(sum(got[i] is not None for i in positives) / len(positives), 5),
        "selfsimilar_survivors_share": round(1 - len(positives) / len(sample), 3),
    }


def measure(seed: int, scale: float, data: Path | None = None) -> dict[str, Any]:
    """All figures; `scale` 1.0 is 100,000 texts, 1,000,000 known ones and 40,000 self-similar ones."""
    rng = random.Random(seed)
    count = max(2000, round(100_000 * scale))
    banking = banking_texts(data)[: count // 8]
    originals = [*banking, *make_texts(rng, round(count * 0.62) - len(banking))]
    texts, pairs = plant(rng, originals, count)
    say(f"{len(texts)} texts ({len(banking)} of Banking77), {len(pairs)} positives")
    return {
        **quality(texts, pairs),
        "banking77_texts": len(banking),
        **beside_datasketch(texts, max(500, round(10_000 * min(scale, 1.0))), 3),
        **incremental(rng, max(20_000, round(1_000_000 * scale)), 1000, 5),
        **self_similar(rng, max(2000, round(20_000 * scale)), 3),
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "banking77")
    options = parser.parse_args()
    print(json.dumps({"seed": options.seed, **measure(options.seed, options.scale, options.data)}))


if __name__ == "__main__":
    main()
