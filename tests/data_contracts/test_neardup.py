"""The near-duplicate index against brute force, in every process the same, on disk, and among texts that look alike."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import StoreError
from data_contracts.neardup import NearDuplicateIndex
from data_contracts.neardup_segment import Limits
from data_contracts.neardup_sketch import Bands, band_keys, choose_bands, permutations_of, shingle_sets
from data_contracts.overlap import jaccard, shingles


def made(seed: int, count: int, vocabulary: int = 3000) -> list[str]:
    """Texts of 5 to 60 words; a third are edits of an earlier one."""
    rng = random.Random(seed)
    words = [f"w{i}" for i in range(vocabulary)]
    texts: list[str] = []
    for _ in range(count):
        if texts and rng.random() < 0.3:
            own = rng.choice(texts).split()
            for _ in range(rng.randint(0, 3)):
                own[rng.randrange(len(own))] = rng.choice(words)
            texts.append(" ".join(own))
        else:
            texts.append(" ".join(rng.choices(words, k=rng.randint(5, 60))))
    return texts


def forms(seed: int, count: int) -> list[str]:
    """A filled-in form: all texts share most of their words; one in ten repeats an earlier one."""
    rng = random.Random(seed)
    texts: list[str] = []
    for i in range(count):
        if i > 100 and i % 10 == 0:
            texts.append(texts[rng.randrange(i)] + " bye")
        else:
            a, b, c = (f"d{rng.randrange(4000)}" for _ in range(3))
            texts.append(
                f"my order {i} of {a} has not arrived since {b} and i have been waiting for it to come please tell me "
                f"where it is now because i need it by {c} at the latest thank you"
            )
    return texts


def names(texts: Sequence[str], start: int = 0) -> list[str]:
    return [f"n{start + i}" for i in range(len(texts))]


def truth(texts: Sequence[str], similarity: float) -> list[str | None]:
    """By brute force: the earliest survivor at or above the similarity."""
    sets = [shingles(text) for text in texts]
    holders: dict[str, list[int]] = {}
    answers: list[str | None] = []
    for i, own in enumerate(sets):
        shared: dict[int, int] = {}
        for shingle in own:
            for j in holders.get(shingle, ()):
                shared[j] = shared.get(j, 0) + 1
        near = [j for j in shared if jaccard(own, sets[j]) >= similarity - 1e-9]
        answers.append(f"n{min(near)}" if near else None)
        if not near:
            for shingle in own:
                holders.setdefault(shingle, []).append(i)
    return answers


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.7, 0.9, 0.98, 1.0])
def test_it_finds_what_brute_force_finds(similarity: float) -> None:
    texts = made(1, 2000)
    expected = truth(texts, similarity)
    got = NearDuplicateIndex(similarity).add_all(names(texts), texts)
    found = sum(e is not None and g is not None for e, g in zip(expected, got, strict=True))
    assert found >= 0.98 * sum(e is not None for e in expected) > 10
    # Whatever is reported is true, and nothing else.
    for text, known in zip(texts, got, strict=True):
        assert known is None or jaccard(shingles(text), shingles(texts[int(known[1:])])) >= similarity - 1e-9
    assert sum(e == g for e, g in zip(expected, got, strict=True)) >= 0.99 * len(texts)


@pytest.mark.parametrize("similarity", [0.75, 0.8])
def test_among_texts_that_all_look_alike_it_finds_what_brute_force_finds(similarity: float) -> None:
    texts = forms(2, 1500)
    expected = truth(texts, similarity)
    index = NearDuplicateIndex(similarity)
    got = index.add_all(names(texts), texts)
    found = sum(e is not None and g is not None for e, g in zip(expected, got, strict=True))
    assert found >= 0.99 * sum(e is not None for e in expected) > 100
    # The set is one that fills buckets, so the cap was in force.
    assert any(len(segment.crowded) for segment in index._segments)


def test_the_cap_costs_no_recall() -> None:
    """The rows a full bucket refuses are found by their rarest shingles: any cap gives the answers of no cap."""
    texts = forms(3, 2500)
    answers = []
    for cap in (1, 8, 10**9):
        index = NearDuplicateIndex(0.75, limits=Limits(cap, 10**9))
        # In parts, so that parts are matched, built and merged under the cap.
        got: list[str | None] = []
        for start in range(0, len(texts), 400):
            got += index.add_all(names(texts[start : start + 400], start), texts[start : start + 400])
        answers.append(got)
    uncapped = [known is not None for known in answers[2]]
    for got in answers[:2]:
        assert [known is not None for known in got] == uncapped
    assert sum(uncapped) > 200


def test_texts_that_all_look_alike_do_not_cost_the_square() -> None:
    texts = forms(4, 16_000)
    seconds = []
    for count in (4000, 16_000):
        index = NearDuplicateIndex(0.75)
        start = time.perf_counter()
        index.add_all(names(texts[:count]), texts[:count])
        seconds.append(time.perf_counter() - start)
    # Four times the rows; the square would be sixteen times.
    assert seconds[1] <= 9 * seconds[0]


def test_a_flood_of_one_text_stays_one_known_row() -> None:
    rng = random.Random(5)
    base = made(6, 1)[0].split() + [f"more{i}" for i in range(40)]
    texts = [" ".join(base)]
    for _ in range(20_000):
        own = list(base)
        own[rng.randrange(len(own))] = f"x{rng.randrange(5000)}"
        texts.append(" ".join(own))
    index = NearDuplicateIndex(0.7)
    start = time.perf_counter()
    got = index.add_all(names(texts), texts)
    assert got[0] is None
    assert set(got[1:]) == {"n0"}
    assert len(index) == 1
    assert time.perf_counter() - start < 10


def test_the_answers_do_not_depend_on_how_the_rows_are_cut_into_calls() -> None:
    texts = made(7, 3000)
    whole = NearDuplicateIndex(0.6).add_all(names(texts), texts)
    index = NearDuplicateIndex(0.6)
    pieces: list[str | None] = []
    for start, stop in itertools.pairwise([0, 1, 2, 50, 700, 1500, 1500, 3000]):
        pieces += index.add_all(names(texts[start:stop], start), texts[start:stop])
    assert pieces == whole
    assert len(index) == sum(known is None for known in whole)


def test_the_same_in_another_process_with_another_hash_seed_and_zone() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from test_neardup import made, names;"
        "from data_contracts.neardup import NearDuplicateIndex; t = made(8, 800);"
        "print(NearDuplicateIndex(0.6).add_all(names(t), t))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code, str(Path(__file__).parent)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": zone},
        ).stdout.strip()
        for seed, zone in (("1", "Asia/Tokyo"), ("2", "America/Lima"))
    }
    texts = made(8, 800)
    assert outputs == {str(NearDuplicateIndex(0.6).add_all(names(texts), texts))}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=80), max_size=8))
def test_the_shingles_are_those_of_overlap(texts: list[str]) -> None:
    sets = shingle_sets(texts) if texts else None
    for i, text in enumerate(texts):
        assert sets is not None
        assert sets.sizes[i] == len(shingles(text))
    for i, j in itertools.combinations(range(len(texts)), 2):
        if not any(c.isalnum() or c == "_" for c in texts[i] + texts[j]):
            continue
        assert sets is not None
        own, other = (set(sets.values[sets.offsets[k] : sets.offsets[k + 1]].tolist()) for k in (i, j))
        assert (own == other) == (shingles(texts[i]) == shingles(texts[j]))


def test_texts_without_words_are_told_apart() -> None:
    texts = ["👍", "👎", " 👍 ", "", "???", "  "]
    assert NearDuplicateIndex(0.7).add_all(names(texts), texts) == [None, None, "n0", None, None, "n3"]


def test_case_width_and_punctuation_do_not_count() -> None:
    texts = [
        "Où est ma CARTE bleue ?",
        "ou est ma carte bleue",
        "où est, ma carte... bleue!",
        "ＷＨＥＲＥ is my card",
        "where is my card",
    ]
    assert NearDuplicateIndex(0.9).add_all(names(texts), texts) == [None, None, "n0", None, "n3"]


def test_hostile_texts_are_only_texts() -> None:
    bomb = "a " * 200_000
    texts = [
        bomb,
        "\ud800 lone",
        "x" * 1_000_000,
        "\0\0",
        "‮evil‬ text here now",
        bomb + "b",
        " ".join(map(str, range(50_000))),
    ]
    got = NearDuplicateIndex(0.5).add_all(names(texts), texts)
    assert got[:5] == [None] * 5
    # {a a a} and {a a a, a a b}
    assert got[5] == "n0"


def test_minhash_keys_agree_as_often_as_their_theory_says() -> None:
    rng = np.random.default_rng(9)
    pairs, size = 3000, 40
    texts = []
    for _ in range(pairs):
        shared = [f"s{v}" for v in rng.integers(0, 10**9, size)]
        # Runs of fresh words at the end leave a known part of the shingles in common.
        texts += [" ".join([*shared, *(f"e{v}" for v in rng.integers(0, 10**9, 8))]) for _ in range(2)]
    sets = shingle_sets(texts)
    true = jaccard(shingles(texts[0]), shingles(texts[1]))
    for width in (1, 3):
        keys = band_keys(sets, Bands(128 // width, width), permutations_of(1, 128))
        agree = (keys[:, ::2] == keys[:, 1::2]).mean()
        assert agree == pytest.approx(true**width, abs=0.01)


def test_bands_find_pairs_at_the_similarity() -> None:
    for similarity in (0.2, 0.5, 0.7, 0.8, 0.9, 0.98, 1.0):
        bands = choose_bands(similarity)
        assert bands.recall(similarity) >= 0.985
        assert bands.number * bands.width <= 128


@pytest.mark.parametrize("similarity", [0, -1, 1.01, float("nan")])
def test_a_similarity_that_is_none_is_refused(similarity: float) -> None:
    with pytest.raises(ValueError, match="similarity must be in"):
        NearDuplicateIndex(similarity)


def test_names_and_texts_must_pair() -> None:
    with pytest.raises(ValueError, match="as many names as texts"):
        NearDuplicateIndex(0.5).add_all(["a"], [])
    assert NearDuplicateIndex(0.5).add_all([], []) == []


# --- on disk -------------------------------------------------------------------------------------


def test_saved_and_loaded_it_goes_on_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    texts = made(10, 3000)
    whole = NearDuplicateIndex(0.6, seed=4).add_all(names(texts), texts)
    NearDuplicateIndex(0.6, seed=4).save(tmp_path / "index")
    got: list[str | None] = []
    for start in range(0, 3000, 250):
        index = NearDuplicateIndex.load(tmp_path / "index")
        got += index.add_all(names(texts[start : start + 250], start), texts[start : start + 250])
        index.save(tmp_path / "index")
    assert got == whole
    index = NearDuplicateIndex.load(tmp_path / "index")
    assert (index.similarity, index.seed, len(index)) == (0.6, 4, sum(known is None for known in whole))
    assert all(isinstance(s.sets.values.base, np.memmap | memoryview | np.ndarray) for s in index._segments)


def test_saving_again_writes_only_what_is_new(tmp_path: Path) -> None:
    texts = made(11, 6000)
    index = NearDuplicateIndex(0.6)
    index.add_all(names(texts[:5000]), texts[:5000])
    index.save(tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("part-*")}
    index.add_all(names(texts[5000:], 5000), texts[5000:])
    index.save(tmp_path)
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("part-*")}
    assert before.items() <= after.items()
    assert len(after) == 2


def test_two_savers_do_not_overwrite_each_other(tmp_path: Path) -> None:
    NearDuplicateIndex(0.6).save(tmp_path)
    one, two = NearDuplicateIndex.load(tmp_path), NearDuplicateIndex.load(tmp_path)
    one.add_all(["a"], ["one two three four"])
    two.add_all(["b"], ["five six seven eight"])
    one.save(tmp_path)
    with pytest.raises(StoreError, match="another near-duplicate index is saved here"):
        two.save(tmp_path)
    with pytest.raises(StoreError, match="another near-duplicate index"):
        NearDuplicateIndex(0.7).save(tmp_path)
    assert NearDuplicateIndex.load(tmp_path).add_all(["c"], ["one two three four"]) == ["a"]


def test_what_is_no_index_or_damaged_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no near-duplicate index here"):
        NearDuplicateIndex.load(tmp_path)
    index = NearDuplicateIndex(0.6)
    index.add_all(["a"], ["one two three four"])
    index.save(tmp_path)
    part = next(tmp_path.glob("part-*"))
    whole = part.read_bytes()
    for damaged in (whole[:-64], b"", whole[:8] + b"!" + whole[9:], (1 << 60).to_bytes(8, "little") + whole[8:]):
        part.write_bytes(damaged)
        with pytest.raises(StoreError, match="cannot be read"):
            NearDuplicateIndex.load(tmp_path)
    part.unlink()
    with pytest.raises(StoreError, match="cannot be read"):
        NearDuplicateIndex.load(tmp_path)
    data = json.loads((tmp_path / "index.json").read_text())
    for changed in ({"parts": ["../x"]}, {"settings": {"similarity": 0.6}}, {"format": 99}, {"rows": None}):
        (tmp_path / "index.json").write_text(json.dumps({**data, **changed}))
        with pytest.raises(StoreError, match="cannot be read"):
            NearDuplicateIndex.load(tmp_path)
    (tmp_path / "index.json").write_text("[1]")
    with pytest.raises(StoreError, match="cannot be read"):
        NearDuplicateIndex.load(tmp_path)


def test_what_is_forgotten_leaves_memory_and_folder(tmp_path: Path) -> None:
    texts = ["the very first question of all", "another thing entirely, my friend", "and here is a third one to keep"]
    index = NearDuplicateIndex(0.7)
    index.add_all(["ada-1", "bob-1", "ada-2"], texts)
    index.save(tmp_path)
    assert index.forget({"ada-1", "ada-2", "nobody"}) == 2
    index.save(tmp_path)
    assert all(b"ada" not in path.read_bytes() for path in tmp_path.iterdir())
    again = NearDuplicateIndex.load(tmp_path)
    assert len(again) == 1
    assert again.add_all(["x", "y", "z"], texts) == [None, "bob-1", None]
    assert again.forget(frozenset()) == 0


def test_forgetting_in_a_crowd_keeps_the_others_findable() -> None:
    texts = forms(12, 1500)
    index = NearDuplicateIndex(0.75)
    known = [
        name for name, match in zip(names(texts), index.add_all(names(texts), texts), strict=True) if match is None
    ]
    gone = set(known[::2])
    assert index.forget(gone) == len(gone)
    kept = [name for name in known if name not in gone]
    copies = [texts[int(name[1:])] for name in kept]
    answers = index.add_all([f"again-{name}" for name in kept], copies)
    # A survivor may be near an earlier one only if it had been forgotten; so each finds itself or an earlier survivor.
    assert all(answer is not None for answer in answers)
    assert sum(answer == name for answer, name in zip(answers, kept, strict=True)) >= 0.99 * len(kept)


_SAVE = (
    "import sys; sys.path.insert(0, sys.argv[2]); from test_neardup import made, names\n"
    "from data_contracts.neardup import NearDuplicateIndex\n"
    "index = NearDuplicateIndex.load(sys.argv[1]); t = made(13, 4000); index.add_all(names(t), t)\n"
    "print('go', flush=True)\n"
    "while True:\n    index._files = [None] * len(index._files); index.save(sys.argv[1])\n"
)


def test_killed_while_saving_it_is_the_old_or_the_new(tmp_path: Path) -> None:
    texts = made(13, 4000)
    for wait in (0.0, 0.003, 0.01, 0.03):
        folder = tmp_path / str(wait)
        index = NearDuplicateIndex(0.6)
        index.add_all(["first"], texts[:1])
        index.save(folder)
        command = [sys.executable, "-c", _SAVE, str(folder), str(Path(__file__).parent)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"go\n"
        time.sleep(wait)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        after = NearDuplicateIndex.load(folder)
        assert after.add_all(["again"], texts[:1]) == ["first"]
        after.save(folder)
        # What the killed process left unlisted is gone.
        assert len(list(folder.glob("part-*"))) == len(after._segments)


def test_looking_up_finds_the_same_and_adds_nothing() -> None:
    known, asked = made(1, 400), made(1, 400)[:200] + made(2, 200)
    index = NearDuplicateIndex(0.7)
    index.add_all(names(known), known)
    size = len(index)
    found = index.match_all(asked)
    again = index.match_all(asked)
    survivors = [text for text, answer in zip(known, truth(known, 0.7), strict=True) if answer is None]
    sets = [shingles(text) for text in survivors]
    expected = [any(jaccard(shingles(text), other) >= 0.7 for other in sets) for text in asked]
    assert (len(index), found) == (size, again)
    assert [name is not None for name in found] == expected
    assert sum(expected) >= 200
