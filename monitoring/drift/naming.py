"""Naming what is new: the densest region that the reference does not explain, its nearest prompts and its terms."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

EXAMPLES = 5
SCALES = tuple(float(s) for s in np.arange(0.80, 0.34, -0.05))
"""Cosines at which two prompts may be taken for neighbours."""
_PURITY = 2.5
_WORD = re.compile(r"[^\W\d_][\w'’-]*", re.UNICODE)
_STOP = frozenset(
    re.split(
        r"\s+",
        """a about after all also am an and any anything are as at be because been before being but by can can't cannot
could did didn't do does doesn't doing don't else ever for from get getting give go going got had has hasn't
have haven't hello help her hers hey hi his how how's i i'd i'll i'm i've if in into is isn't it it's its just
know let like look make may me might mine more most much must my need needs new no not now of off ok on once one
only or other our out over own please possible put really say see she should show so some someone something
still such take tell than thank thanks that that's the their them then there there's these they thing things
this those through to too trying try under up us use using very want wanted wants was wasn't way we well were
what what's when where where's which while who who's why will with without won't work working would you you'd
you'll you're your yours yet many another already always today""",
    )
)


@dataclass(frozen=True)
class Region:
    """A group of recent prompts that belong together."""

    members: np.ndarray
    """Indices into the recent prompts, nearest to the centre first."""
    centre: np.ndarray
    """(d,) of length 1."""
    radius: float
    """Cosine similarity to the centre from which on most recent prompts are news: what is set aside afterwards."""


def densest_region(recent: np.ndarray, reference: np.ndarray, candidates: np.ndarray) -> Region | None:
    """The region of the candidates whose density grew most against the reference, at the scale where that is clearest.

    Args:
        recent: (m, d) rows of length 1; reference: (n, d) likewise.
        candidates: indices into `recent` that may be members.

    Returns:
        None without candidates.
    """
    if len(candidates) == 0:
        return None
    group = recent[candidates]
    among, known = group @ group.T, group @ reference.T
    best, seed, scale = -math.inf, 0, SCALES[0]
    for similarity in SCALES:
        near = (among >= similarity).sum(axis=1)
        expected = (known >= similarity).sum(axis=1) * (len(recent) / len(reference))
        growth = (near - expected) / np.sqrt(near + expected + 1.0)
        if growth.max() > best:
            best, seed, scale = float(growth.max()), int(np.argmax(growth)), similarity
    members = np.flatnonzero(among[seed] >= scale)
    # One step towards the mean, and no more: further steps wander into the old topics next door.
    centre = group[members].mean(axis=0)
    centre = centre / max(float(np.linalg.norm(centre)), 1e-12)
    cosines = group @ centre
    members = np.flatnonzero(cosines >= np.quantile(cosines[members], 0.1))
    members = candidates[members[np.argsort(-cosines[members], kind="stable")]]
    return Region(members, centre, _reach(recent @ centre, reference @ centre, float((recent[members] @ centre).min())))


def _reach(recent: np.ndarray, reference: np.ndarray, start: float) -> float:
    """Widest cosine at which recent prompts are still `_PURITY` times as many as the reference explains."""
    radius = start
    for cosine in np.arange(start, 0.3, -0.02):
        expected = float((reference >= cosine).sum()) * len(recent) / len(reference)
        if (recent >= cosine).sum() < _PURITY * (expected + 0.5):
            break
        radius = float(cosine)
    return radius


def words(text: str) -> list[str]:
    """Lower-case words, placeholders of redaction (`<EMAIL_1>`) left out."""
    return [w.strip("'’-") for w in _WORD.findall(re.sub(r"<[A-Z_]+[0-9a-f]*>", " ", text).casefold())]


def _features(text: str) -> set[str]:
    tokens = words(text)
    single = {t for t in tokens if t not in _STOP and len(t) > 2}
    together = [(a, b) for a, b in pairwise(tokens) if {a, b}.isdisjoint(_STOP) and min(len(a), len(b)) > 1]
    pairs = {f"{a} {b}" for a, b in together}
    return single | pairs


def _counts(texts: Iterable[str]) -> Counter[str]:
    return Counter(term for text in texts for term in _features(text))


def distinguishing_terms(texts: Sequence[str], background: Sequence[str], limit: int = 3) -> tuple[str, ...]:
    """Words and word pairs that say what the texts are about and the background is not, best first.

    A term's score is its share of the texts times the log ratio to its (smoothed) share of the background.
    """
    inside, outside = _counts(texts), _counts(background)

    def ratio(term: str) -> float:
        share = (inside[term] + 1e-9) / len(texts)
        return math.log(share / ((outside[term] + 0.5) / (len(background) + 1)))

    scores: dict[str, float] = {}
    for term, count in inside.items():
        parts = term.split()
        if count < max(2, 0.1 * len(texts)) or ratio(term) <= 0:
            continue
        # A pair is as good as its words: "gift card" is, "card question" is not.
        gain = (ratio(term) + sum(ratio(w) for w in parts) / len(parts)) / 2
        scores[term] = count / len(texts) * gain * (1.25 if len(parts) > 1 else 1.0)
    chosen: list[str] = []
    taken: set[str] = set()
    for best in sorted(scores, key=lambda t: (-scores[t], t)):
        # A word that nearly always comes with the same neighbour is named with it.
        pairs = [t for t in inside if best in t.split() and " " in t and inside[t] >= 0.7 * inside[best]]
        for term in sorted(pairs, key=lambda t: (-inside[t], t))[:1] * (" " not in best) + [best]:
            stems = {_stem(w) for w in term.split()}
            if stems.isdisjoint(taken):
                chosen.append(term)
                taken |= stems
                break
        if len(chosen) == limit:
            break
    return tuple(chosen)


def _stem(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
