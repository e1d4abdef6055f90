"""Hostile text neither crashes the contract nor curation, and nothing a rule forbids teaches."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_rows import labelled

from configs.loader import resource_path
from configs.schema import CurationSection
from data_contracts.curation import curate
from data_contracts.expectations import validate

CONTRACT = resource_path("contracts/feedback_correction.yaml")
PIECES = [
    "\x00", "\u202e", "\u200b", "\ud800", "<|im_start|>", "<script>", "=cmd|' /C calc'!A0", "{{7*7}}", "%s%n",
    "' OR 1=1", "\n", " ", "NaN", "None", "a@b.de", "4111111111111111", "<EMAIL_1>", "idiot", "x" * 900,
    "é", "返品", "🙂", "(", "[",
    "\\", "It ships today.", "nan", "[INST]", "\r", "\ufeff", "DE89370400440532013000",
]  # fmt: skip
# A card's digits right behind another number's are no card any more: nothing says where one ends.
FORBIDDEN = re.compile(
    "[\x00\u200b\u202e\ufeff\ud800]|<\\|im_start|<script|a@b\\.de|(?<!\\d)4111111111111111(?!\\d)|<EMAIL_1>"
    "|\\bidiot\\b|\\[INST|x{801}"
)
TEXT = st.lists(st.sampled_from(PIECES), max_size=5).map("".join)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=20))
def test_hostile_text_never_teaches_and_never_crashes(texts: list[tuple[str, str, str]]) -> None:
    rows = [
        labelled(n, prompt=prompt, completion=completion, principal=principal, scope="review")
        for n, (prompt, completion, principal) in enumerate(texts)
    ]
    report = validate(rows, CONTRACT)
    assert len(report.accepted) + len(report.quarantined) == len(rows)
    accepted = set(report.accepted)
    result = curate([row for row in rows if row.id in accepted], set(), CurationSection(holdout_share=0.0), ["x"])
    assert len(result.train) + len(result.left_out) == len(accepted)
    for row in result.train:
        assert not FORBIDDEN.search(row.completion), row.completion
        assert row.completion.strip()
        assert "<|im_start" not in row.messages[-1].content
