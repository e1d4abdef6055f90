"""A row is judged by the contract of its kind; what is refused is shown, escaped."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from labelled_rows import START, labelled

from configs.errors import ConfigError, ContractError
from configs.loader import build_config, load_config, resource_path
from data_contracts.contract import load_contract
from data_contracts.contract_columns import feedback_columns, incident_columns, labelled_columns
from data_contracts.contract_kinds import (
    NO_CONTRACT,
    OF_KIND,
    check_kind,
    judge_incidents,
    judge_kinds,
    judge_thumbs,
    together,
)
from data_contracts.contract_report import incident_texts, render_html, row_texts, rule_table, visible
from data_contracts.records import Feedback, FeedbackKind, Incident, Message

CONTRACTS = {kind: resource_path(path) for kind, path in build_config({}).ingest.by_kind().items()}


def incident(n: int = 0, **changes: Any) -> Incident:
    data: dict[str, Any] = {
        "id": f"inc{n}",
        "model": "support-bot",
        "interaction_id": None,
        "title": "wrong deadline",
        "messages": (Message(role="user", content="How long may I keep it?"),),
        "answer": "For ever.",
        "required": "45 days.",
        "paraphrases": ("How many days may I keep it?", "When must it be back?"),
        "opened_at": START,
        "opened_by": "mira",
    }
    return Incident(**{**data, **changes})


def thumb(n: int = 0, **changes: Any) -> Feedback:
    data: dict[str, Any] = {
        "id": f"t{n}", "interaction_id": f"i{n}", "kind": FeedbackKind.THUMB,
        "created_at": START + timedelta(minutes=n), "principal": f"user-{n}", "thumb": 1,
    }  # fmt: skip
    return Feedback(**{**data, **changes})


def test_each_kind_has_its_own_contract() -> None:
    rows = [
        labelled(0),
        labelled(1, kind=FeedbackKind.PREFERENCE),
        labelled(2, kind=FeedbackKind.PREFERENCE, answer=" "),
        labelled(3, answer=" "),
        labelled(4, kind=FeedbackKind.THUMB),
        labelled(5, kind=FeedbackKind.PREFERENCE, answer="ok <|im_end|>"),
        labelled(6, kind=FeedbackKind.PREFERENCE, answer="Write to <EMAIL_1>."),
        labelled(7, kind=FeedbackKind.PREFERENCE, answer="4111 1111 1111 1111, you idiot"),
        labelled(8, kind=FeedbackKind.PREFERENCE, answer="Find out yourself, you idiot."),
        labelled(9, kind=FeedbackKind.PREFERENCE, answer="a\u200bb"),
    ]
    contracts = {kind: CONTRACTS[kind] for kind in ("correction", "preference")}
    kinds = judge_kinds(rows, contracts)
    report = together(kinds, rows)
    assert report.accepted == ("f0", "f1", "f3", "f8"), "an answer may be rejected for its tone"
    found = {row.row_id: row.reason for row in report.quarantined}
    assert found == {
        "f2": "contract.answer_not_blank",
        "f4": NO_CONTRACT,
        "f5": "contract.answer_without_template_tokens",
        "f6": "contract.answer_without_redacted_data",
        "f7": "contract.answer_without_card_number",
        "f9": "contract.answer_without_hidden_characters",
    }
    assert report.contract == "feedback-correction 1.1.0, preference 1.1.0, none"
    assert together(judge_kinds(rows, contracts, released={"f4"}), rows).accepted == ("f0", "f1", "f3", "f4", "f8")


def test_thumbs_and_incidents_are_judged() -> None:
    verdict = judge_thumbs([thumb(0), thumb(1, thumb=None), thumb(2, principal="anonymous")], CONTRACTS["thumb"])
    assert verdict.report.accepted == ("t0",)
    assert verdict.report.reasons == {"contract.principal_not_anonymous": 1, "contract.thumb_required": 1}
    incidents = [
        incident(0),
        incident(1, required="Write to <EMAIL_1>."),
        incident(2, paraphrases=("a <|im_start|> b", "c")),
        incident(3, paraphrases=()),
        incident(4, required="\ud800"),
        incident(5, messages=()),
    ]
    verdict = judge_incidents(incidents, CONTRACTS["incident"])
    assert verdict.report.accepted == ("inc0", "inc3")
    assert verdict.counts["paraphrases_given"] == 1
    assert "inc1" not in verdict.report.quarantined[0].digest
    reasons = {row.row_id: row.reason for row in verdict.report.quarantined}
    assert reasons["inc4"] == "contract.text_encoding"
    assert reasons["inc5"] == "contract.last_role_required"


def test_an_earlier_turn_is_judged_too() -> None:
    turns = (
        Message(role="user", content="hi <|im_start|>system"),
        Message(role="assistant", content="Yes?"),
        Message(role="user", content="when do you open?"),
    )
    report = together(judge_kinds([labelled(0, messages=turns)], CONTRACTS), [labelled(0)])
    assert report.reasons == {"contract.conversation_without_template_tokens": 1}


def test_the_page_escapes_and_shows_hidden_characters() -> None:
    rows = [labelled(0), labelled(1, id="f<b>1", completion="<script>alert('x')</script> \u202edays")]
    kinds = [*judge_kinds(rows, CONTRACTS), judge_incidents([incident(0, required=" ")], CONTRACTS["incident"])]
    page = render_html(kinds, row_texts(rows) | incident_texts([incident(0)]), title="retrain <1>")
    assert "2 of 3 rows may not pass" in page
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "⟨202E⟩" in page
    assert "f&lt;b&gt;1" in page
    table = {(row["kind"], row["rule"]): row["rows"] for row in rule_table(kinds)}
    assert table[("correction", "completion_without_active_markup")] == 1
    assert table[("incident", "completion_not_blank")] == 1


def test_visible_text_is_short_and_plain() -> None:
    assert visible("a\x00\u200b\ud800b") == "a⟨0000⟩⟨200B⟩⟨D800⟩b"
    assert visible("x" * 1000).endswith("... (1,000 characters)")
    assert visible("") == "(empty)"


def test_contracts_are_named_by_kind(tmp_path: Path) -> None:
    assert set(CONTRACTS) == {"correction", "preference", "thumb", "incident"}
    own = tmp_path / "own.yaml"
    own.write_text(CONTRACTS["thumb"].read_text(encoding="utf-8"), encoding="utf-8")
    profile = tmp_path / "mine.yaml"
    profile.write_text("ingest: {contracts: {thumb: own.yaml}}\n", encoding="utf-8")
    found = load_config(str(profile)).ingest.by_kind()
    assert found["thumb"] == str(own)
    assert found["correction"] == str(CONTRACTS["correction"])
    profile.write_text("ingest: {contract: own.yaml}\n", encoding="utf-8")
    found = load_config(str(profile)).ingest.by_kind()
    assert found["correction"] == found["preference"] == str(own)
    assert found["incident"] == str(CONTRACTS["incident"])
    with pytest.raises(ConfigError, match="contracts"):
        build_config({"ingest": {"contracts": {"thmub": "x"}}})


def test_the_columns_of_a_kind_are_those_its_rows_have() -> None:
    assert OF_KIND["correction"] == OF_KIND["preference"] == labelled_columns(labelled(0)).keys()
    assert OF_KIND["thumb"] == feedback_columns(thumb()).keys()
    assert OF_KIND["incident"] == incident_columns(incident()).keys()
    assert set(OF_KIND) == set(CONTRACTS)


@pytest.mark.parametrize(
    ("kind", "other", "found"),
    [
        ("correction", "incident", "paraphrase_count, paraphrases, severity, title"),
        ("correction", "preference", "a rule that wants kind preference"),
        ("preference", "thumb", "thumb"),
        ("incident", "correction", "scope"),
    ],
)
def test_a_contract_of_another_kind_is_one_clear_error(kind: str, other: str, found: str) -> None:
    """Also where there is no row yet: it would be found at the first retrain that has one."""
    path = CONTRACTS[other]  # type: ignore[index]
    with pytest.raises(ContractError, match=f"not for rows of kind {kind}") as caught:
        check_kind(kind, load_contract(path), path)
    assert (caught.value.where, caught.value.found) == (f"ingest.contracts.{kind}: {path}", found)
    if kind == "incident":
        with pytest.raises(ContractError, match="not for rows"):
            judge_incidents([], path)
    else:
        with pytest.raises(ContractError, match="not for rows"):
            judge_kinds([], {kind: path})


def test_one_contract_may_be_for_corrections_and_preferences() -> None:
    for kind in ("correction", "preference"):
        check_kind(kind, load_contract(CONTRACTS["correction"]), CONTRACTS["correction"])
