"""How soon is a new topic found, and how often is there a false alarm? Real text, real embeddings.

    python benchmarks/drift.py [--seeds 4] [--data ../shared/data/banking77]

Texts are the messages of Banking77 (77 intents of a bank's customers). Traffic is drawn with replacement, people at
random, so what is stationary is stationary by construction. Embeddings are computed once and kept in the model cache.
Progress goes to stderr; the last line of stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from configs.loader import cache_dir
from configs.schema import Config, DriftSection
from data_contracts.digests import digest
from monitoring.drift.monitor import DriftFinding, DriftMonitor
from monitoring.drift.reference import DriftReference, build_reference, select_prompts

ELSEWHERE = [
    f"{ask} {what}"
    for ask in ("how do I", "can you explain how to", "what is the best way to", "I'd like to learn to")
    for what in (
        "bake sourdough bread", "prune an apple tree", "train for a marathon", "knit a pair of socks",
        "tune a guitar by ear", "photograph the northern lights", "teach a puppy to sit", "solve a quadratic equation",
        "grow tomatoes on a balcony", "repair a bicycle puncture", "say good morning in Japanese", "paint a fence",
        "choose hiking boots", "make yoghurt at home", "play the Sicilian defence", "identify mushrooms in the woods",
    )
]  # fmt: skip
"""Prompts of another domain, written for this benchmark."""
NOVEL = "elsewhere"


@dataclass(frozen=True)
class Texts:
    """All messages with their intents and embeddings."""

    texts: list[str]
    labels: np.ndarray
    vectors: np.ndarray


def load_texts(folder: Path) -> Texts:
    """Banking77's messages, the other domain's prompts, and their embeddings (cached)."""
    texts, labels = list(ELSEWHERE), [NOVEL] * len(ELSEWHERE)
    for name in ("train.csv", "test.csv"):
        with (folder / name).open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                texts.append(row["text"].strip())
                labels.append(row["category"])
    from models.cache import resolve
    from models.embeddings import Embedder

    config = Config()
    model = resolve(config.model.embedder, cache_dir(config), say)
    kept = cache_dir(config) / "benchmarks" / f"{digest([texts, model.digest])}.npy"
    if not kept.exists():
        say(f"embedding {len(texts)} texts once (about two minutes on two cores)")
        vectors = Embedder(model.path).encode(texts)
        kept.parent.mkdir(parents=True, exist_ok=True)
        with kept.with_suffix(".part").open("wb") as file:
            np.save(file, vectors)
        kept.with_suffix(".part").replace(kept)
    return Texts(texts, np.array(labels), np.load(kept, allow_pickle=False))


@dataclass(frozen=True)
class World:
    """Traffic of some intents, with other intents that appear."""

    known: tuple[str, ...]
    new: tuple[str, ...]
    people: int
    mix: np.ndarray
    """Shares of the known intents."""


def make_world(data: Texts, seed: int, topics: int, new: int, people: int, elsewhere: bool = False) -> World:
    """A random choice of intents; shares from a Dirichlet."""
    rng = np.random.default_rng([seed, topics])
    names = rng.permutation(sorted(set(data.labels) - {NOVEL}))
    fresh = (NOVEL,) if elsewhere else tuple(names[:new])
    return World(tuple(names[new : new + topics]), fresh, people, rng.dirichlet(np.full(topics, 5.0)))


def draw(data: Texts, world: World, rng: np.random.Generator, count: int, share: float = 0.0) -> np.ndarray:
    """(count,) indices of messages; `share` of them of the new intents."""
    pools = {name: np.flatnonzero(data.labels == name) for name in (*world.known, *world.new)}
    topics = rng.choice(len(world.known), count, p=world.mix)
    names = [world.known[t] for t in topics]
    for i in np.flatnonzero(rng.random(count) < share):
        names[i] = world.new[rng.integers(len(world.new))]
    return np.array([rng.choice(pools[name]) for name in names])


def freeze(data: Texts, world: World, rng: np.random.Generator, prompts: int, config: DriftSection) -> DriftReference:
    """The reference of `prompts` stationary prompts."""
    index = draw(data, world, rng, prompts)
    rows = [(f"user-{rng.integers(world.people)}", data.texts[i]) for i in index]
    where = {text: i for (_, text), i in zip(rows, index, strict=True)}
    kept = select_prompts(rows, config)
    return build_reference(kept, data.vectors[[where[text] for _, text in kept]], config)


def observe(data: Texts, reference: DriftReference, config: DriftSection, index: np.ndarray) -> list[DriftFinding]:
    """What a fresh monitor finds in one stream."""
    return DriftMonitor(reference, config).observe([data.texts[i] for i in index], data.vectors[index])


@dataclass(frozen=True)
class Case:
    """One row of the result."""

    name: str
    topics: int
    prompts: int
    """Reference prompts (before selection)."""
    share: float
    """Of the new topic."""
    length: int
    stationary: int
    """Length of the stationary stream that goes with it."""
    new: int = 1
    elsewhere: bool = False


CASES = (
    Case("shop_600", topics=14, prompts=600, share=0.30, length=400, stationary=3000),
    Case("bank_new_intent", topics=76, prompts=4000, share=0.10, length=1500, stationary=20_000),
    Case("bank_three_intents", topics=74, prompts=4000, share=0.10, length=1500, stationary=0, new=3),
    Case("bank_other_domain", topics=76, prompts=4000, share=0.10, length=600, stationary=0, elsewhere=True),
)


def run(data: Texts, case: Case, seeds: int) -> dict[str, float]:
    """Detection delay, naming and false alarms of one case."""
    config = DriftSection()
    delays, named, findings, alarms = [], 0, 0, 0
    for seed in range(seeds):
        rng = np.random.default_rng([seed, len(case.name)])
        world = make_world(data, seed, case.topics, case.new, max(200, case.prompts // 3), case.elsewhere)
        reference = freeze(data, world, rng, case.prompts, config)
        index = draw(data, world, rng, case.length, case.share)
        found = observe(data, reference, config, index)
        delays.append(found[0].detail["prompts_seen"] if found else np.inf)
        findings += len(found)
        if found:
            label = {data.texts[i]: data.labels[i] for i in index}
            right = sum(label[text] in world.new for text in found[0].detail["examples"])
            named += right >= 0.8 * len(found[0].detail["examples"])
            say(f"{case.name} {seed}: {', '.join(world.new)} -> {found[0].name} after {delays[-1]}")
        else:
            say(f"{case.name} {seed}: {', '.join(world.new)} not found")
        if case.stationary:
            alarms += len(observe(data, reference, config, draw(data, world, rng, case.stationary)))
    hits = np.isfinite(delays)
    return {
        f"{case.name}_median_prompts": float(np.quantile(delays, 0.5, method="lower")) if hits.any() else -1.0,
        f"{case.name}_detected": float(hits.mean()),
        f"{case.name}_named": named / seeds,
        f"{case.name}_findings": findings / seeds,
        **(
            {f"{case.name}_false_alarms_per_20000": alarms * 20_000 / (seeds * case.stationary)}
            if case.stationary
            else {}
        ),
    }


def typos(data: Texts, seeds: int) -> dict[str, float]:
    """Alarms on traffic that is stationary but for a slip of the finger in a fifth of the messages (embedded anew)."""
    from models.cache import resolve
    from models.embeddings import Embedder

    config, setting = Config(), DriftSection()
    embedder = Embedder(resolve(config.model.embedder, cache_dir(config), say).path)
    alarms = 0
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 99])
        world = make_world(data, seed, 14, 1, 200)
        reference = freeze(data, world, rng, 600, setting)
        index = draw(data, world, rng, 1200)
        texts = [data.texts[i] for i in index]
        slipped = np.flatnonzero(rng.random(1200) < 0.2)
        for i in slipped:
            at = int(rng.integers(len(texts[i]) - 1))
            texts[i] = texts[i][:at] + texts[i][at + 1] + texts[i][at] + texts[i][at + 2 :]
        vectors = data.vectors[index].copy()
        vectors[slipped] = embedder.encode([texts[i] for i in slipped])
        found = DriftMonitor(reference, setting).observe(texts, vectors)
        alarms += len(found)
        say(f"typos {seed}: {[f.name for f in found]}")
    return {"typos_alarms_per_20000": alarms * 20_000 / (seeds * 1200)}


def say(text: str) -> None:
    """One line of progress."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Run all cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data" / "banking77")
    options = parser.parse_args()
    if not (options.data / "train.csv").exists():
        say(f"skipped: Banking77 is not at {options.data}; give its folder (train.csv, test.csv) with --data")
        print(json.dumps({"benchmark": "drift", "skipped": "Banking77 not found"}))
        return 0
    started = time.perf_counter()
    data = load_texts(options.data)
    figures: dict[str, float] = {}
    for case in CASES:
        figures |= run(data, case, options.seeds)
    figures |= typos(data, min(4, options.seeds))
    seconds = round(time.perf_counter() - started, 1)
    rounded = {name: round(value, 3) for name, value in figures.items()}
    print(json.dumps({"benchmark": "drift", "seeds": options.seeds, **rounded, "seconds": seconds}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
