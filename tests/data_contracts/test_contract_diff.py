"""Breaking changes between two versions of a contract, one of each kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from configs.loader import resource_path
from data_contracts.contract import Contract, load_contract
from data_contracts.contract_diff import compare

HEAD = """
apiVersion: v3.1.0
kind: DataContract
id: t
version: 1.0.0
status: active
schema:
  - name: feedback
    properties:
      - name: id
        required: true
      - name: {column}
"""


@pytest.fixture
def made(tmp_path: Path) -> Callable[[str], Contract]:
    def make(body: str) -> Contract:
        column, _, rest = body.partition("|")
        path = tmp_path / "contract.yaml"
        path.write_text(HEAD.format(column=column) + (f"        {rest}\n" if rest else ""), encoding="utf-8")
        return load_contract(path)

    return make


def gx(kind: str, **kwargs: object) -> str:
    return (
        "quality: [{name: a, type: custom, engine: greatExpectations, "
        f"implementation: {{type: expect_column_{kind}, kwargs: {kwargs!r}}}}}]"
    )


def warns(severity: str) -> str:
    return f"quality: [{{name: a, severity: {severity}, metric: nullValues, mustBe: 0}}]"


LIST = "values_to_match_regex_list"
TIGHTER = [
    ("turns|required: false", "answer|required: false", "field removed"),
    ("answer|required: false", "answer|required: true", "rule added"),
    ("answer|required: false", "answer|unique: true", "rule added"),
    ("answer|logicalTypeOptions: {minLength: 1}", "answer|logicalTypeOptions: {minLength: 2}", "minimum raised"),
    ("answer|logicalTypeOptions: {maxLength: 9}", "answer|logicalTypeOptions: {maxLength: 8}", "maximum lowered"),
    ("turns|logicalTypeOptions: {minimum: 1}", "turns|logicalTypeOptions: {minimum: 2}", "minimum raised"),
    ("turns|logicalTypeOptions: {maximum: 9}", "turns|logicalTypeOptions: {exclusiveMaximum: 9}", "now excluded"),
    ("turns|logicalTypeOptions: {format: i32}", "turns|logicalTypeOptions: {format: i16}", "maximum lowered"),
    ("turns|logicalTypeOptions: {format: i16}", "turns|logicalTypeOptions: {format: u16}", "minimum raised"),
    ("answer|enum: [{value: a}, {value: b}]", "answer|enum: [{value: a}]", "values removed: 'b'"),
    ("answer|logicalTypeOptions: {pattern: a}", "answer|logicalTypeOptions: {pattern: b}", "pattern changed"),
    (f"answer|{warns('warning')}", f"answer|{warns('error')}", "severity raised"),
    (f"answer|{warns('error')}", f"answer|{warns('critical')}", "severity raised"),
    (
        f"answer|{gx('values_to_not_be_in_set', value_set=['a'])}",
        f"answer|{gx('values_to_not_be_in_set', value_set=['a', 'b'])}",
        "values added: 'b'",
    ),
    (f"answer|{gx(LIST, regex_list=['a', 'b'])}", f"answer|{gx(LIST, regex_list=['a'])}", "patterns removed"),
    (
        f"answer|{gx('values_to_not_match_regex_list', regex_list=['a'])}",
        f"answer|{gx('values_to_not_match_regex_list', regex_list=['a', 'b'])}",
        "patterns added",
    ),
    (
        f"answer|{gx(LIST, regex_list=['a', 'b'])}",
        f"answer|{gx(LIST, regex_list=['a', 'b'], match_on='all')}",
        "all of the patterns",
    ),
    (f"answer|{gx('values_to_be_null')}", f"answer|{gx('values_to_not_be_null')}", "another rule"),
    (f"answer|{gx('value_lengths_to_equal', value=2)}", f"answer|{gx('value_lengths_to_equal', value=3)}", "arguments"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "what"), TIGHTER)
def test_a_tighter_contract_breaks(made: Callable[[str], Contract], old: str, new: str, what: str) -> None:
    changes = compare(made(old), made(new))
    assert any(change.breaking and what in change.what for change in changes), changes
    assert changes[0].breaking


@pytest.mark.parametrize(
    ("tighter", "looser"), [(new, old) for old, new, what in TIGHTER if what not in ("field removed", "pattern changed",
     "another rule", "arguments")],
)  # fmt: skip
def test_a_looser_contract_does_not_break(made: Callable[[str], Contract], tighter: str, looser: str) -> None:
    # An integer format has two bounds: the other way round one of i16 and u16 is tighter too.
    if "u16" in tighter:
        return
    changes = compare(made(tighter), made(looser))
    assert changes
    assert not [change for change in changes if change.breaking]


def test_a_new_warning_or_name_or_field_does_not_break(made: Callable[[str], Contract]) -> None:
    assert [c.breaking for c in compare(made("answer"), made(f"answer|{warns('warning')}"))] == [False]
    renamed = compare(made("answer|required: true"), made(f"answer|{warns('error')}"))
    assert [(c.breaking, c.what) for c in renamed] == [(False, "rule renamed from answer_required")]


@pytest.mark.parametrize("name", ["feedback_correction", "preference", "thumb", "incident"])
def test_a_contract_does_not_differ_from_itself(name: str) -> None:
    contract = load_contract(resource_path(f"contracts/{name}.yaml"))
    assert compare(contract, contract) == []
