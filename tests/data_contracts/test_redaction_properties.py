"""What holds for every text: no crash, no growth, nothing planted survives, clean text stays as it is."""

from __future__ import annotations

import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.redaction import PLACEHOLDER, KnownNames, RedactionPolicy, Redactor

REDACTOR = Redactor()
_HIDDEN = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u0301\ufe0f\x00"
_VALUES = {
    "ann.miller@example.com": "EMAIL",
    "4111 1111 1111 1111": "CARD",
    "5500-0000-0000-0004": "CARD",
    "DE89 3704 0044 0532 0130 00": "IBAN",
    "+49 30 1234567": "PHONE",
    "192.168.17.250": "IP",
    "ghp_aB3cD4eF5gH6iJ7kL8mN9oP0qR1sT2uV3w": "KEY",
    "RSSMRA85T10A562S": "NATIONAL_ID",
    "078-05-1120": "NATIONAL_ID",
}
_WIDE = {code: code + 0xFEE0 for code in range(33, 127)}
_PIECES = st.sampled_from(
    [*_VALUES, *_HIDDEN, " ", " ", ".", ". ", "-", "/", "(", ")", "+", "@", ":", "<", ">", "_", "x", "0", "17",
        "1234567",
     "phone ", "my SSN ", "order ", "version ", "card ", "password=", "hunter22", "version 1.2.3.4", "612 345 678",
         "AbC9",
     "<EMAIL_1>", "<PHONE_3>", "<CARD_3f9a0c51d2e4b768>", "https://u:p@h.de", "\uff20", "\u0664", "\u2460", " (at) ",
     "123456782", "TFN ", "\n", "\u2013", "::1", "00", "011 ", "ext. 12", "€"]
)  # fmt: skip
_TEXTS = st.lists(_PIECES, max_size=16).map("".join)
_ANY = st.text(st.characters(exclude_categories=()), max_size=80)


@settings(max_examples=600, deadline=None)
@given(st.one_of(_TEXTS, _ANY))
def test_redacting_twice_changes_nothing(text: str) -> None:
    once, _ = REDACTOR.redact(text)
    assert REDACTOR.redact(once) == (once, {})


@settings(max_examples=300, deadline=None)
@given(st.one_of(_TEXTS, _ANY))
def test_what_is_found_is_in_the_text_and_does_not_overlap(text: str) -> None:
    at = 0
    for hit in REDACTOR.find(text):
        assert at <= hit.start < hit.end <= len(text)
        at = hit.end


@settings(max_examples=300, deadline=None)
@given(st.one_of(_TEXTS, _ANY))
def test_a_text_hardly_grows(text: str) -> None:
    assert len(REDACTOR.redact(text)[0]) <= 4 * len(text) + 16


@settings(max_examples=300, deadline=None)
@given(_TEXTS)
def test_only_values_are_replaced(text: str) -> None:
    """What stands between placeholders stands in the same order in the original."""
    out, _ = REDACTOR.redact(text)
    at = 0
    for piece in PLACEHOLDER.split(out)[::3]:
        found = text.find(piece, at)
        assert found >= at
        at = found + len(piece)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(_VALUES)), st.data())
def test_a_planted_value_never_survives_its_disguise(value: str, data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(1, len(value) - 1), max_size=4, unique=True))
    disguised = value
    for place in sorted(places, reverse=True):
        disguised = disguised[:place] + data.draw(st.sampled_from(_HIDDEN)) + disguised[place:]
    if data.draw(st.booleans()):
        disguised = disguised.translate(_WIDE)
    before, after = data.draw(st.sampled_from([("it is ", ", thanks"), ("", ""), ("(", ")"), ("Grüße, ", ".")]))
    out, counts = REDACTOR.redact(before + disguised + after)
    assert out == f"{before}<{_VALUES[value]}_1>{after}", (disguised, out)
    assert counts == {_VALUES[value]: 1}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(sorted(_VALUES)), min_size=2, max_size=6))
def test_one_value_has_one_placeholder_in_all_messages(values: list[str]) -> None:
    session = REDACTOR.session()
    stands_for = {}
    for value in values:
        placeholder = session.redact(f"it is {value}, ok")[0].removeprefix("it is ").removesuffix(", ok")
        assert PLACEHOLDER.fullmatch(placeholder)
        assert stands_for.setdefault(value, placeholder) == placeholder
    assert len(set(stands_for.values())) == len(stands_for)


_CLEAN = st.lists(
    st.sampled_from(
        ["hello", "Grüße", "naïve", "ＡＢＣ", "中文", "नमस्ते", "مرحبا", "❤\ufe0f\u200d🔥", "auf\u00adlösen", "e\u0301",
            "②", "½",
         "don’t", "(ok)", "24/7", "10:30", "1,299.00", "v2.4", "order 4471", "#12", "–", "…", "a_b", "x-y", "<b>",
             "50 %",
         "std::vector", "C#", "№5", "token", "password", "phone", "card"]
    ),
    max_size=14,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(_CLEAN, st.sampled_from([" ", "\n", ", ", "\u00a0", " \u2013 "]))
def test_clean_text_keeps_every_character(words: list[str], between: str) -> None:
    text = between.join(words)
    assert REDACTOR.redact(text) == (text, {})


@settings(max_examples=200, deadline=None)
@given(_TEXTS)
def test_pseudonyms_and_names_keep_the_same_promises(text: str) -> None:
    policy = RedactionPolicy(dict.fromkeys(("EMAIL", "PHONE", "CARD", "NATIONAL_ID"), "pseudonymise"))
    redactor = Redactor(b"k" * 32, policy=policy, ner=KnownNames({"hunter22": "PERSON"}))
    once, _ = redactor.redact(text)
    assert redactor.redact(once) == (once, {})
    assert redactor.redact(text)[0] == once


def test_characters_of_all_planes() -> None:
    text = "".join(map(chr, range(0x20, 0x11000))) + "".join(map(chr, range(0x1D400, 0x1D800)))
    out, _ = REDACTOR.redact(text)
    assert REDACTOR.redact(out)[0] == out
    assert unicodedata.is_normalized("NFC", "é")
