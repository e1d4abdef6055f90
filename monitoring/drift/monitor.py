"""The drift monitor: prompts in commit order in, named findings out; all it remembers is one JSON-able state.

    monitor = DriftMonitor(load_reference(folder, digest), config.drift, state)
    findings = monitor.observe(prompts, embeddings)
    state = monitor.state()

After a finding the region it named is known: its prompts are set aside and the tests start again, so one new topic is
one finding, until a new champion's reference makes it part of what is expected.
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from configs.errors import InputError
from configs.schema import DriftSection
from data_contracts.records import Record
from monitoring.drift import mix
from monitoring.drift.naming import EXAMPLES, Region, densest_region, distinguishing_terms
from monitoring.drift.novelty import nearest_distance, unit_hash, window_p_value
from monitoring.drift.reference import DriftReference, check_embeddings, fold

Test = Literal["novelty", "local_share", "novelty_window", "mix_shift"]
STATE_VERSION = 1
_FAMILY = {
    "novelty": "novelty",
    "novelty_window": "novelty",
    "local_share": "local_share",
    "mix_shift": "local_share",
}
_NOVEL_P = 0.15
"""Prompts with a p-value up to this may belong to a novel region."""
_FAR_P = 0.01
_TOGETHER = 0.5
"""Share of the far prompts that one region must hold for them to be one topic in the making."""
_WINDOW_RISK = 0.05
"""Expected false alarms of each window test in one average run length."""


class DriftFinding(Record):
    """What changed in the traffic against the frozen reference, with a name a person can read."""

    test: Test
    name: str
    """For example `new topic: gift card, redeem`."""
    detail: dict[str, Any]
    """JSON-able: title, named (False: what is new forms no group), examples (at most five prompts, nearest to the
    centre first), terms, prompts (in the region), share (of the recent prompts), statistic, threshold, prompts_seen
    (tested so far: within the quotas and not set aside), reference."""


class DriftMonitor:
    """Tests prompts against one reference.

    Args:
        reference: frozen, with its calibrated tests.
        config: `window`, `min_novel`, `max_per_principal`, `average_run_length`; the rest is frozen in the reference.
        state: from an earlier `state()`, or None to begin. A state of another reference begins anew.
    """

    def __init__(self, reference: DriftReference, config: DriftSection, state: dict[str, Any] | None = None) -> None:
        self.reference, self.config = reference, config
        if state is not None and state.get("version") not in (None, STATE_VERSION):
            raise InputError("drift state of another version", expected=STATE_VERSION, found=state.get("version"))
        fresh = state is None or state.get("reference") != reference.digest
        # A copy: the caller compares what it handed over with what is stored meanwhile.
        kept: dict[str, Any] = {} if fresh or state is None else copy.deepcopy(state)
        width = reference.embeddings.shape[1]
        self._seen = int(kept.get("seen", 0))
        self._log_s = float(kept.get("log_s", 0.0))
        self._sums = np.array(kept["sums"]) if "sums" in kept else reference.local.start()
        self._latched: dict[str, list[Any]] = {k: list(v) for k, v in kept.get("latched", {}).items()}
        self._texts: list[str] = list(kept.get("texts", []))
        self._p: list[float] = list(kept.get("p", []))
        self._cells: list[int] = list(kept.get("cells", []))
        self._recent = _unpack(kept.get("recent", ""), width)
        self._known: list[tuple[np.ndarray, float]] = [
            (_unpack(k["centre"], width)[0], float(k["radius"])) for k in kept.get("known", [])
        ]
        self._unnamed: set[str] = set(kept.get("unnamed", []))
        self._window = dict(kept.get("window", {"n": 0, "novel": 0, "cells": [0] * len(reference.local.centres)}))
        self._asked = int(kept.get("asked", 0))
        self._people: dict[str, int] = dict(kept.get("people", {}))
        self._texts_seen: set[str] = set(kept.get("people_texts", []))

    def state(self) -> dict[str, Any]:
        """Everything to go on from, JSON-able. Holds the texts of the last `window` prompts (redacted as stored)."""
        return {
            "version": STATE_VERSION,
            "reference": self.reference.digest,
            "seen": self._seen,
            "log_s": self._log_s,
            "sums": self._sums.tolist(),
            "latched": self._latched,
            "texts": self._texts,
            "p": self._p,
            "cells": self._cells,
            "recent": _pack(self._recent),
            "known": [{"centre": _pack(c[None]), "radius": r} for c, r in self._known],
            "unnamed": sorted(self._unnamed),
            "window": self._window,
            "asked": self._asked,
            "people": self._people,
            "people_texts": sorted(self._texts_seen),
        }

    def observe(
        self, prompts: Sequence[str], embeddings: np.ndarray, principals: Sequence[str] | None = None
    ) -> list[DriftFinding]:
        """Test the next prompts.

        Args:
            prompts: in the order they were committed.
            embeddings: (len(prompts), d), same embedder as the reference.
            principals: who asked; where given, a person counts at most `max_per_principal` times in `window` prompts
                asked, by whomever, and the same text once, as in the reference; what is set aside costs nothing.

        Raises:
            InputError: embeddings of another number or width, or not finite.
        """
        vectors = check_embeddings(embeddings, len(prompts))
        if len(prompts) == 0:
            return []
        if vectors.shape[1] != self.reference.embeddings.shape[1]:
            raise InputError(
                "embeddings of another width than the reference's",
                expected=self.reference.embeddings.shape[1],
                found=vectors.shape[1],
                fix="use the embedder the reference was built with, or delete the reference",
            )
        scores = nearest_distance(vectors, self.reference.embeddings, self.config.neighbours)
        cells = self.reference.local.cell(vectors)
        findings = []
        for i, prompt in enumerate(prompts):
            self._next_asked()
            if any(float(vectors[i] @ centre) >= radius for centre, radius in self._known):
                continue
            if principals is not None and not self._counts(principals[i], prompt):
                continue
            finding = self._one(prompt, vectors[i], float(scores[i]), int(cells[i]))
            if finding is not None:
                findings.append(finding)
        return findings

    def _next_asked(self) -> None:
        """One more prompt was asked. Quotas go by what was asked: a few people never fill a window with what counts."""
        if self._asked >= self.config.window:
            self._clear_quotas()
        self._asked += 1

    def _clear_quotas(self) -> None:
        self._asked, self._people, self._texts_seen = 0, {}, set()

    def _counts(self, principal: str, prompt: str) -> bool:
        """Whether this prompt of this person still counts."""
        who = f"{unit_hash('principal', principal):.12f}"
        what = f"{unit_hash('text', principal, fold(prompt)):.12f}"
        if what in self._texts_seen or self._people.get(who, 0) >= self.config.max_per_principal:
            return False
        self._people[who] = self._people.get(who, 0) + 1
        self._texts_seen.add(what)
        return True

    def _one(self, prompt: str, vector: np.ndarray, score: float, cell: int) -> DriftFinding | None:
        self._seen += 1
        reference = self.reference
        # Ties: the same text asked again breaks them differently, so the position is hashed too.
        p = reference.novelty.p_value(score, f"{self._seen}\0{prompt}")
        self._remember(prompt, vector, p, cell)
        self._log_s = reference.novelty.step(self._log_s, p)
        self._sums = reference.local.step(self._sums, cell)
        if self._log_s >= reference.novelty.threshold:
            self._latched.setdefault("novelty", [self._seen, self._log_s])
        grown = int(np.argmax(self._sums.max(axis=1)))
        highest = float(self._sums[grown].max())
        if highest >= reference.local.threshold:
            self._latched.setdefault("local_share", [self._seen, highest, grown])
        return self._ripe() or self._close_window()

    def _remember(self, prompt: str, vector: np.ndarray, p: float, cell: int) -> None:
        keep = self.config.window - 1
        self._texts = [*self._texts[-keep:], prompt]
        self._p = [*self._p[-keep:], p]
        self._cells = [*self._cells[-keep:], cell]
        self._recent = np.vstack([self._recent[-keep:], vector[None]])
        self._window["n"] += 1
        self._window["novel"] += int(p <= 0.05)
        self._window["cells"][cell] += 1

    def _ripe(self) -> DriftFinding | None:
        """A finding of a sequential test that alarmed, once there is enough to name it (or it waited long enough)."""
        tests: tuple[Test, ...] = ("novelty", "local_share")
        for test in tests:
            if test not in self._latched:
                continue
            since, statistic = self._latched[test][:2]
            region = self._region(test)
            if region is not None and len(region.members) < self.config.min_novel:
                if not self._scattered(test, region) and self._seen - since < self.config.window // 3:
                    continue
                region = None
            if region is None and test in self._unnamed:  # said once per reference; a region is still news
                self._start_again(None)
                continue
            limit = self.reference.novelty.threshold if test == "novelty" else self.reference.local.threshold
            return self._finding(test, region, statistic, limit)
        return None

    def _scattered(self, test: str, region: Region) -> bool:
        """Whether there is much that is new but no region holds it: waiting would not make one."""
        far = np.flatnonzero(np.asarray(self._p) <= _FAR_P)
        enough = test == "novelty" and len(far) >= self.config.min_novel // 2
        return enough and len(np.intersect1d(far, region.members)) < _TOGETHER * len(far)

    def _region(self, test: str) -> Region | None:
        if test == "novelty":
            candidates = np.flatnonzero(np.asarray(self._p) <= _NOVEL_P)
        else:
            candidates = np.flatnonzero(np.asarray(self._cells) == self._latched[test][2])
        return densest_region(self._recent, self.reference.embeddings, candidates)

    def _close_window(self) -> DriftFinding | None:
        """The window tests, when a window is full."""
        window, size = self._window, self.config.window
        if window["n"] < size:
            return None
        counts, novel = np.array(window["cells"]), int(window["novel"])
        self._restart_window()
        level = _WINDOW_RISK * size / self.config.average_run_length
        p = window_p_value(novel, size, len(self.reference.novelty.calibration))
        if p <= level:
            self._latched["novelty"] = [self._seen, p]
            return self._finding_of_window("novelty_window", p, level)
        if self._known:  # what is set aside took its neighbours along: the shares of the rest no longer compare
            return None
        value = float(mix.statistic(counts, self.reference.local.shares))
        p = mix.p_value(value, self.reference.mix_null)
        if p <= level:
            grown = int(np.argmax(counts - counts.sum() * self.reference.local.shares))
            self._latched["local_share"] = [self._seen, value, grown]
            return self._finding_of_window("mix_shift", p, level)
        return None

    def _finding_of_window(self, test: Test, p: float, level: float) -> DriftFinding | None:
        region = self._region(_FAMILY[test])
        if region is not None and len(region.members) < self.config.min_novel:
            region = None
        if region is None and _FAMILY[test] in self._unnamed:
            self._start_again(None)
            return None
        return self._finding(test, region, p, level)

    def _restart_window(self) -> None:
        self._window = {"n": 0, "novel": 0, "cells": [0] * len(self.reference.local.centres)}

    def _finding(self, test: Test, region: Region | None, statistic: float, threshold: float) -> DriftFinding:
        """Name what was found, set its region aside and start the tests again."""
        if region is None:
            order = np.argsort(self._p, kind="stable")[:EXAMPLES]
            members, terms = np.asarray(order), tuple[str, ...]()
            title = "unfamiliar prompts of many kinds" if test.startswith("novelty") else "the mix of topics changed"
            self._unnamed.add(_FAMILY[test])
        else:
            members = region.members
            terms = distinguishing_terms([self._texts[i] for i in members], self.reference.prompts)
            kind = {"novelty": "new topic", "novelty_window": "new topic"}.get(test, "a topic grew")
            title = f"{kind}: {', '.join(terms)}" if terms else kind
            self._known.append((region.centre, region.radius))
        detail = {
            "title": title,
            "named": region is not None,
            "examples": list(dict.fromkeys(self._texts[i] for i in members))[:EXAMPLES],
            "terms": list(terms),
            "prompts": 0 if region is None else len(members),
            "share": 0.0 if region is None else len(members) / len(self._texts),
            "statistic": statistic,
            "threshold": threshold,
            "prompts_seen": self._seen,
            "reference": self.reference.digest,
        }
        self._start_again(region)
        return DriftFinding(test=test, name=title, detail=detail)

    def _start_again(self, region: Region | None) -> None:
        """Set a region aside (or, without one, what was remembered) and start the tests again."""
        keep: list[int] = []
        if region is not None:
            keep = np.flatnonzero(self._recent @ region.centre < region.radius).tolist()
        self._texts = [self._texts[i] for i in keep]
        self._p = [self._p[i] for i in keep]
        self._cells = [self._cells[i] for i in keep]
        self._recent = self._recent[np.array(keep, dtype=int)]
        self._log_s, self._sums, self._latched = 0.0, self.reference.local.start(), {}
        self._restart_window()
        self._clear_quotas()


def _pack(vectors: np.ndarray) -> str:
    return base64.b64encode(np.asarray(vectors, dtype="<f2").tobytes()).decode()


def _unpack(text: str, width: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype="<f2").reshape(-1, width).astype(np.float32)
