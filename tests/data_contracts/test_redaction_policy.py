"""An action per entity, keyed pseudonyms, names from a backend, and what the configuration says."""

from __future__ import annotations

import logging

import pytest
from labelled_rows import labelled

from configs.errors import ConfigError
from configs.schema import Config, CurationSection, RedactionSection
from data_contracts.curation import curate
from data_contracts.redaction import (
    ENTITIES,
    PLACEHOLDER,
    KnownNames,
    PresidioNer,
    RedactionPolicy,
    Redactor,
    redactor_for,
)

KEY = b"k" * 32


def test_pseudonyms_are_the_same_in_all_conversations_and_differ_by_key() -> None:
    policy = RedactionPolicy({"EMAIL": "pseudonymise"})
    text = "to ann@example.com, Ann@Example.com and bob@example.com, call +49 30 1234567"
    out, counts = Redactor(KEY, policy=policy).redact(text)
    first, again, other = (m[0] for m in PLACEHOLDER.finditer(out) if m[1] == "EMAIL")
    assert first == again != other
    assert "<PHONE_1>" in out
    assert counts == {"EMAIL": 3, "PHONE": 1}
    assert first in Redactor(KEY, policy=policy).redact("ann@example.com again")[0]
    assert first not in Redactor(b"l" * 32, policy=policy).redact(text)[0]
    assert Redactor(KEY, policy=policy).redact(out) == (out, {})


def test_pseudonyms_need_a_key() -> None:
    with pytest.raises(ValueError, match="key"):
        Redactor(policy=RedactionPolicy({"EMAIL": "pseudonymise"}))


def test_what_is_kept_stays_and_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="tidemill.redaction"):
        redactor = redactor_for(RedactionSection(ip="keep"), KEY)
    assert redactor.redact("10.0.0.1 of a@b.de") == ("10.0.0.1 of <EMAIL_1>", {"EMAIL": 1})
    assert "IP" in caplog.text


@pytest.mark.parametrize(
    ("actions", "message"),
    [({"EMAIL": "keep"}, "may not be kept"), ({"MAIL": "mask"}, "knows no entity"), ({"EMAIL": "hide"}, "cannot be")],
)
def test_a_policy_that_cannot_be(actions: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RedactionPolicy(actions)  # type: ignore[arg-type]


def test_drop_row_masks_and_names_a_reason() -> None:
    policy = RedactionPolicy({"CARD": "drop_row", "IBAN": "drop_row"})
    text, _ = Redactor(policy=policy).redact("card 4111 1111 1111 1111")
    assert text == "card <CARD_1>"
    assert policy.drop_reason(["hello", text]) == "redaction.card"
    assert policy.drop_reason(["<EMAIL_1>"]) is None
    assert RedactionPolicy().drop_reason([text]) is None


def test_a_dropped_row_does_not_teach_until_somebody_releases_it() -> None:
    rows = [labelled(n, scope="review") for n in range(4)]
    message = rows[0].messages[-1].model_copy(update={"content": "My card 4111 1111 1111 1111 is blocked, what now?"})
    rows[0] = rows[0].model_copy(update={"messages": (*rows[0].messages[:-1], message)})
    redactor = Redactor(policy=RedactionPolicy({"CARD": "drop_row"}))
    result = curate(rows, set(), CurationSection(), [], redactor=redactor)
    assert {row.row_id: row.reason for row in result.left_out} == {rows[0].id: "redaction.card"}
    released = curate(rows, {rows[0].id}, CurationSection(), [], redactor=redactor)
    taught = {row.row_id: row for row in released.train}
    assert "<CARD_1>" in taught[rows[0].id].messages[-1].content
    assert not curate(rows, set(), CurationSection(), []).left_out


def test_the_defaults_mask_everything_and_look_for_no_names() -> None:
    section = Config().redaction
    assert set(section.actions) == set(ENTITIES)
    assert set(section.actions.values()) == {"mask"}
    assert redactor_for(section).redact("Ann Miller, a@b.de") == ("Ann Miller, <EMAIL_1>", {"EMAIL": 1})


def test_only_some_entities_may_be_kept_by_configuration() -> None:
    with pytest.raises(ValueError, match="email"):
        RedactionSection.model_validate({"email": "keep"})


def test_names_from_a_backend_are_consistent_and_do_not_touch_placeholders() -> None:
    names = KnownNames({"Ann Miller": "PERSON", "12 High Street": "ADDRESS", "EMAIL": "PERSON"})
    session = Redactor(ner=names).session()
    assert session.redact("ann  miller lives at 12 High Street")[0] == "<PERSON_1> lives at <ADDRESS_1>"
    assert session.redact("Ann Miller, ann@example.com")[0] == "<PERSON_1>, <EMAIL_1>"
    assert session.redact("<EMAIL_1> of Annika Miller")[0] == "<EMAIL_1> of Annika Miller"


def test_a_structured_value_goes_before_a_name() -> None:
    redactor = Redactor(ner=KnownNames({"ann": "PERSON"}))
    assert redactor.redact("ann@example.com, Ann")[0] == "<EMAIL_1>, <PERSON_1>"


def test_a_missing_model_is_one_error_that_says_what_to_install() -> None:
    with pytest.raises(ConfigError) as caught:
        PresidioNer("xx_no_such_model")
    assert "redaction" in str(caught.value)
    assert "install" in str(caught.value)
    assert caught.value.fix is not None
    with pytest.raises(ConfigError):
        redactor_for(RedactionSection(ner="presidio", ner_model="xx_no_such_model"))
