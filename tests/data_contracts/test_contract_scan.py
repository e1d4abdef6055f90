"""The fast pass never overlooks a row, and what comes out is what Great Expectations says of every row."""

from __future__ import annotations

import re
import warnings
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from configs.errors import ContractError
from configs.loader import resource_path
from data_contracts import expectations
from data_contracts.contract import Contract, Rule, load_contract
from data_contracts.contract_columns import COLUMNS, arrow_type
from data_contracts.contract_rules import EXPECTATIONS, check_kwargs, pattern
from data_contracts.contract_scan import Scanner
from data_contracts.expectations import Judge, validate_table
from data_contracts.regex_bounds import bounds, one_engine

SHIPPED = [
    text
    for rule in load_contract(resource_path("contracts/feedback_correction.yaml")).rules
    for text in [rule.kwargs.get("regex")]
    if text
]
PATTERNS = [
    *SHIPPED,
    r"\w\b", r"\bfoo\b", r"(?i)k", r"(?i)i$", r"^a", r"a$", r"(?m)^a$", r"\Aa\Z", r"(?s)a.b", r"a.b", r"[^a]",
    r"(?i)[^k]",
    r"\d{2,3}", r"\D", r"\s\S", r"\W", r"(?<!x)a(?!b)", r"(?=.*\d)a", r"(a|b)\1", r"(?P<q>['\"]).*(?P=q)",
    r"(?:ab){2,}",
    r"a{0,5}b", r"x{1,1500}", r"(?>a+)b", r"a++b", r"ba{,2}c", r"(a)?(?(1)b|c)", r"(?i)straße", r"[\u0130-\u0140]",
    r"(?i)[é-ö]",
    r"(?a)\w+é", r"(?x) a \s b # comment", r"", r"^$", r"\Z", r"$", r"[ſK]", r"(?i)s", r"(?i)idiot", "é", r"\x00",
    r"\n$",
    r"(?:a|\b)b", r"(?:(?=a)|b)c?", r"(?i:K)a", r"a(?-i:B)", r"\.", r"[\w.]+@[\w.]+", r"(?i)\bdamn\b.*$",
]  # fmt: skip
PIECES = [
    "a", "b", "ab", "aabb", "k", "K", "\u212a", "s", "\u017f", "S", "i", "I", "\u0130", "\u0131", "é", "É", "ß",
    "STRASSE",
    "foo", "foo bar", "xab", "\n", "\r", "\x0b", "\x1c", "\x85", "\xa0", "\u3000", " ", "", "12",
    "\u0661\u0662\u0663", "_",
    "idiot", "\u0130diot", "damn", "a@b.de", "4111 1111 1111 1111", "<EMAIL_1>", "<|im_end|>", "<script>", "\x00",
    "\u200b",
    "返品は45日以内", "🙂", "'q'", '"', "x" * 1600, "straße", "\U0001d7d8" * 14, "a\nb", "c", ".", "ba{,2}c",
]  # fmt: skip
TEXT = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=4).map("".join),
    st.text(st.characters(codec="utf-8"), max_size=12),
)
START = datetime(2026, 1, 1, tzinfo=UTC)


def rules() -> tuple[Rule, ...]:
    """Every supported expectation, each with several arguments."""
    found: list[tuple[str, dict[str, Any]]] = []
    for text in PATTERNS:
        found.append(("values_to_match_regex", {"column": "answer", "regex": text}))
        found.append(("values_to_not_match_regex", {"column": "completion", "regex": text}))
    some = [PATTERNS[i : i + 3] for i in range(0, len(PATTERNS), 9)]
    for texts in some:
        found.append(("values_to_match_regex_list", {"column": "answer", "regex_list": texts}))
        found.append(("values_to_match_regex_list", {"column": "answer", "regex_list": texts, "match_on": "all"}))
        found.append(("values_to_not_match_regex_list", {"column": "answer", "regex_list": texts}))
    for column in ("answer", "turns", "repeats_answer", "created_at"):
        found += [(name, {"column": column}) for name in ("values_to_be_null", "values_to_not_be_null")]
        found.append(("values_to_be_unique", {"column": column}))
    for name in ("values_to_be_in_set", "values_to_not_be_in_set"):
        found.append((name, {"column": "answer", "value_set": ["a", "é", ""]}))
        found.append((name, {"column": "turns", "value_set": [1, 2**53 - 1]}))
        found.append((name, {"column": "repeats_answer", "value_set": [False]}))
    moment = (START + timedelta(hours=3)).isoformat()
    for strict in ({}, {"strict_min": True}, {"strict_max": True}, {"strict_min": True, "strict_max": True}):
        found.append(("values_to_be_between", {"column": "turns", "min_value": 0, "max_value": 2**53 - 1, **strict}))
        found.append(("values_to_be_between", {"column": "created_at", "max_value": moment, **strict}))
        found.append(("value_lengths_to_be_between", {"column": "answer", "min_value": 1, "max_value": 3, **strict}))
    found.append(("values_to_be_between", {"column": "turns", "min_value": 2}))
    found.append(("value_lengths_to_be_between", {"column": "answer", "max_value": 5}))
    found.append(("value_lengths_to_equal", {"column": "answer", "value": 2}))
    for ignore in ({}, {"ignore_row_if": "either_value_is_missing"}, {"ignore_row_if": "neither"}):
        for one, other in (("answer", "completion"), ("turns", "completion_words")):
            pair = {"column_A": one, "column_B": other, **ignore}
            found.append(("pair_values_to_be_equal", pair))
            found.append(("pair_values_a_to_be_greater_than_b", pair))
            found.append(("pair_values_a_to_be_greater_than_b", {**pair, "or_equal": True}))
    return tuple(
        Rule(f"r{n}", f"expect_column_{name}", check_kwargs(f"expect_column_{name}", kwargs, f"r{n}"))
        for n, (name, kwargs) in enumerate(found)
    )


ALL = Contract("all 1", "0" * 64, rules())
ROW = st.fixed_dictionaries(
    {
        "answer": st.none() | TEXT,
        "completion": st.none() | TEXT,
        "turns": st.none() | st.sampled_from([0, 1, 2, 5, 2**53 - 1, 2**53, 2**53 + 1, -(2**63), 2**63 - 1]),
        "completion_words": st.none() | st.sampled_from([0, 1, 2**53, 2**53 + 1]),
        "repeats_answer": st.none() | st.booleans(),
        "created_at": st.none() | st.integers(0, 6).map(lambda h: START + timedelta(hours=h)),
    }
)


def table(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    names = Scanner(ALL).columns
    return pa.RecordBatch.from_pydict({n: pa.array([r[n] for r in rows], arrow_type(COLUMNS[n])) for n in names})


def test_every_supported_expectation_is_here() -> None:
    assert {rule.expectation for rule in ALL.rules} == set(EXPECTATIONS)


# No shrinking: each try costs Great Expectations a second.
@settings(max_examples=2, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(st.lists(ROW, min_size=20, max_size=80))
def test_suspects_hold_all_that_great_expectations_refuses_and_verdicts_are_its_own(rows: list[dict[str, Any]]) -> None:
    batch = table(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        truth = Judge(ALL.rules).broken(pa.Table.from_batches([batch]), np.arange(len(rows)))
    suspects = Scanner(ALL).suspects(batch)
    for rule in ALL.rules:
        if rule.name in suspects:
            overlooked = set(truth[rule.name]) - set(np.flatnonzero(suspects[rule.name]))
            assert not overlooked, (rule, [rows[i] for i in overlooked])
    halves = [batch.slice(0, len(rows) // 2), batch.slice(len(rows) // 2)]
    verdict = validate_table(halves, ALL, seed=0)
    for rule in ALL.rules:
        assert verdict.broken[rule.name].tolist() == truth[rule.name].tolist(), rule


EVERY_CHARACTER = [chr(code) for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF]


@pytest.mark.parametrize(
    "text",
    [r"\w", r"\W", r"\d", r"\D", r"\s", r"\S", ".", r"(?s).", r"(?i)[a-z]", r"(?i)[^a-z]", r"(?i)k", r"(?i)i", r"(?i)s",
     r"(?i)[^k]", r"(?i)é", r"(?i)[\u0130-\u0140]", r"(?i)[^\u0130-\u0140]", r"(?i)[ſ]", r"(?i)K", r"[^\W\d_]",
     r"(?a)\w",
     r"(?i)[^\w]", r"(?i)[Z-a]", r"(?i)[^\x00-\x7f]", r"(?i)µ", "^$", "$", r"a?$"],
)  # fmt: skip
def test_bounds_hold_for_every_character(text: str) -> None:
    found = bounds(text)
    array = pa.array(EVERY_CHARACTER)
    python = np.array([re.search(text, c) is not None for c in EVERY_CHARACTER])
    wide, narrow = (
        pc.match_substring_regex(array, p).to_numpy(zero_copy_only=False) for p in (found.wide, found.narrow)
    )
    assert not (python & ~wide).any()
    assert not (narrow & ~python).any()
    try:
        native = pc.match_substring_regex(array, text).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        return
    assert not (native & ~wide).any()
    assert not (narrow & ~native).any()


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PATTERNS), st.lists(TEXT, min_size=1, max_size=20))
def test_bounds_hold_for_texts(text: str, texts: list[str]) -> None:
    found = bounds(text)
    python = np.array([re.search(text, t) is not None for t in texts])
    wide, narrow = (
        pc.match_substring_regex(pa.array(texts), p).to_numpy(zero_copy_only=False) for p in (found.wide, found.narrow)
    )
    assert not (python & ~wide).any(), texts
    assert not (narrow & ~python).any(), texts


def test_a_pattern_whose_engine_would_hang_on_other_rows_is_pinned_to_one() -> None:
    assert one_engine("(?i)idiot") == "(?i)idiot"
    assert one_engine(r"(?i)idiot$") == r"(?i)idiot$(?=)"
    assert one_engine("a++b") == "a++b(?=)"
    assert one_engine(r"(?<!a)b$") == r"(?<!a)b$"
    assert one_engine("a{,3}") == "a{,3}(?=)"
    assert one_engine(r"(?a)\w") == r"(?a)\w(?=)"
    assert one_engine(r"a\Z") == r"a\Z"
    assert pattern(r"a\d$") == r"a\d$"


def one_rule(expectation: str, column: str, severity: Any = "error", **kwargs: Any) -> Contract:
    rule = Rule("only", f"expect_column_{expectation}", {"column": column, **kwargs}, severity)
    return Contract("one 1", "0" * 64, (rule,))


def test_repeats_are_found_across_batches_and_hash_collisions_told_apart() -> None:
    contract = one_rule("values_to_be_unique", "id")
    ids = [f"id-{n}" for n in range(5000)] + ["id-7", None, None, "id-4999"]
    batches = [pa.RecordBatch.from_pydict({"id": pa.array(ids[i : i + 700], pa.string())}) for i in range(0, 5004, 700)]
    verdict = validate_table(batches, contract)
    assert verdict.broken["only"].tolist() == [7, 4999, 5000, 5003]
    assert verdict.rows == 5004


def test_a_fast_pass_that_overlooks_a_row_is_an_error_not_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    contract = one_rule("values_to_not_match_regex", "completion", regex="bad")
    batch = pa.RecordBatch.from_pydict({"completion": ["good", "bad"]})
    assert validate_table([batch], contract).broken["only"].tolist() == [1]
    monkeypatch.setattr(Scanner, "suspects", lambda self, batch: {"only": np.zeros(len(batch), dtype=bool)})
    with pytest.raises(ContractError, match="overlooked"):
        validate_table([batch], contract)


def test_a_missing_or_wrongly_typed_column_is_an_error() -> None:
    contract = one_rule("values_to_not_match_regex", "completion", regex="bad")
    with pytest.raises(ContractError, match="missing"):
        validate_table([pa.RecordBatch.from_pydict({"answer": ["x"]})], contract)
    with pytest.raises(ContractError, match="another type"):
        validate_table([pa.RecordBatch.from_pydict({"completion": [1]})], contract)


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())], ids=str
)
def test_text_may_come_in_any_of_arrows_types(kind: pa.DataType) -> None:
    contract = one_rule("values_to_not_match_regex", "completion", regex="bad")
    values = pa.array(["good", "bad", None, "bad"]).cast(kind)
    assert validate_table([pa.RecordBatch.from_arrays([values], ["completion"])], contract).broken["only"].tolist() == [
        1,
        3,
    ]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()], ids=str)
def test_bytes_that_are_no_utf8_are_refused_row_by_row(kind: pa.DataType) -> None:
    binary = pa.large_binary() if kind == pa.large_string() else pa.binary()
    texts = pa.array([b"good", b"b\xffd", None, b"bad"], binary)
    raw = pa.Array.from_buffers(kind, 4, texts.buffers())
    contract = one_rule("values_to_not_match_regex", "completion", regex="bad")
    verdict = validate_table([pa.RecordBatch.from_arrays([raw], ["completion"])], contract)
    assert verdict.broken[expectations.TEXT_ENCODING].tolist() == [1]
    assert verdict.broken["only"].tolist() == [3]
    assert verdict.refused().tolist() == [False, True, False, True]


def test_severities_of_a_table() -> None:
    batch = pa.RecordBatch.from_pydict({"completion": ["good", "bad"]})
    for severity, refused in (("warning", [False, False]), ("error", [False, True]), ("critical", [True, True])):
        contract = one_rule("values_to_not_match_regex", "completion", severity, regex="bad")
        assert validate_table([batch], contract).refused().tolist() == refused, severity


def test_no_batches_and_empty_batches_have_an_empty_verdict() -> None:
    contract = one_rule("values_to_be_unique", "id")
    assert validate_table([], contract).rows == 0
    assert validate_table([pa.RecordBatch.from_pydict({"id": pa.array([], pa.string())})], contract).rows == 0
