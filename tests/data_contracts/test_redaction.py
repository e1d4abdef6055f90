"""Redaction: recall per entity, precision on ordinary text, idempotence, consistency, linear time, a lonely import."""

from __future__ import annotations

import random
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.records import Message
from data_contracts.redaction import (
    IBAN_LENGTHS,
    PLACEHOLDER,
    RedactionSession,
    Redactor,
    contains_placeholder,
    iban_is_valid,
    luhn,
)

REDACTOR = Redactor()


def redact(text: str) -> str:
    return REDACTOR.redact(text)[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to ann@example.com.", "write to <EMAIL_1>."),
        ("Bob.o'neil+x@ex-ample.co.uk or bob.o'neil+x@ex-ample.co.uk", "<EMAIL_1> or <EMAIL_1>"),
        ("'ann@example.com'", "'<EMAIL_1>'"),
        ("user@münchen.de", "<EMAIL_1>"),
        ("call +49 (0)30 1234-567 now", "call <PHONE_1> now"),
        ("call (+49 30 1234567)", "call (<PHONE_1>)"),
        ("call 030/1234567, 020 7946 0958", "call <PHONE_1>, <PHONE_2>"),
        ("call (555) 123-4567 or 555-123-4567", "call <PHONE_1> or <PHONE_1>"),
        ("01 23 45 67 89", "<PHONE_1>"),
        ("card 4111 1111 1111 1111!", "card <CARD_1>!"),
        ("order 12 4111-1111-1111-1111 5", "order 12 <CARD_1> 5"),
        ("378282246310005", "<CARD_1>"),
        ("IBAN DE89 3704 0044 0532 0130 00 please", "IBAN <IBAN_1> please"),
        ("gb82west12345698765432", "<IBAN_1>"),
        ("from 192.168.0.1.", "from <IP_1>."),
        ("from 2001:db8::8a2e:370:7334: yes", "from <IP_1>: yes"),
        ("https://user:s3cret@host.example/x", "https://<CREDENTIALS_1>@host.example/x"),
        ("my key is sk-abcdefghijklmnop1234", "my key is <KEY_1>"),
        ("AKIAIOSFODNN7EXAMPLE", "<KEY_1>"),
        ("password: hunter2!", "password: <KEY_1>"),
        ("Bearer abcdef123456789", "Bearer <KEY_1>"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "<KEY_1>"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----", "<KEY_1>"),
        ("AbCdEf0123456789GhIjKlMnOpQrStUv9x", "<KEY_1>"),
        ("card 4111\u00a01111\u00a01111\u00a01111!", "card <CARD_1>!"),
        ("card 4111/1111/1111/1111!", "card <CARD_1>!"),
        ("to ann\uff20example.com", "to <EMAIL_1>"),
        ("to an\u200bn@exam\u200dple.com", "to <EMAIL_1>"),
        ("auf\u00adl\u00f6sen by ann@example.com", "auf\u00adl\u00f6sen by <EMAIL_1>"),
        ("call 0171/23 45 67 89", "call <PHONE_1>"),
        ("call 098765 43210 now", "call <PHONE_1> now"),
        ("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "<KEY_1>"),
    ],
)
def test_values_become_placeholders(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "You can return goods within 45 days, 1,234.56 EUR, version 1.2.3.",
        "on 01.02.2024 at 10:30, 2024-01-02, from 1999-2000, open 24/7",
        "order 123456789012345, invoice 2024-000123, EAN 4006381333931",
        "password: please choose one with a letter",
        "use std::vector or a::b, ratio 1:2:3",
        "chatcmpl-0190f0e0aaaa7bbb8cccddddeeeeffff-0123456789abcdef0123",
        "request 0190f0e0-aaaa-7bbb-8ccc-ddddeeeeffff",
        "@channel see you @ noon",
        "https://example.com/help/returns-and-refunds-for-large-orders-in-2024",
        "heart \u2764\u200d\U0001f525 at @noon, \uff20 and auf\u00adl\u00f6sen",
        "see /usr/lib/python3/dist-packages/numpy/core or 24/7 from 01/02/2024",
        "https://example.com/Shop/Lamps2024/NewModels/Astra7/Details1",
        "4111 1111 1111 1112 fails its check digit",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert REDACTOR.redact(text) == (text, {})


def test_counts_are_by_entity() -> None:
    assert REDACTOR.redact("a@b.de and c@d.de from 10.0.0.1")[1] == {"EMAIL": 2, "IP": 1}


def test_one_conversation_uses_the_same_placeholder_for_the_same_value() -> None:
    session = REDACTOR.session()
    messages, counts = REDACTOR.redact_messages(
        [
            Message(role="user", content="I am ann@example.com"),
            Message(role="assistant", content="Hello ANN@example.com, or is it bob@example.com?"),
            Message(role="user", content="Nothing personal here"),
        ],
        session,
    )
    assert [m.content for m in messages] == [
        "I am <EMAIL_1>",
        "Hello <EMAIL_1>, or is it <EMAIL_2>?",
        "Nothing personal here",
    ]
    assert counts == {"EMAIL": 3}
    assert session.redact("Mail went to bob@example.com")[0] == "Mail went to <EMAIL_2>"


def test_plain_mappings_keep_their_other_keys_and_the_input_is_unchanged() -> None:
    given_messages = [{"role": "user", "content": "a@b.de", "name": "x"}]
    out, _ = REDACTOR.redact_messages(given_messages)
    assert out == [{"role": "user", "content": "<EMAIL_1>", "name": "x"}]
    assert given_messages[0]["content"] == "a@b.de"


def test_a_new_value_never_takes_the_number_of_a_placeholder_already_there() -> None:
    assert redact("earlier <EMAIL_1>, now c@d.de") == "earlier <EMAIL_1>, now <EMAIL_2>"


def test_sessions_are_separate() -> None:
    RedactionSession().redact("a@b.de")
    assert RedactionSession().redact("c@d.de")[0] == "<EMAIL_1>"


_PIECES = st.sampled_from(
    [
        "ann@example.com",
        "\u200b",
        "\uff20",
        "\u00a0",
        "/",
        "+49 30 1234567",
        "4111 1111 1111 1111",
        "DE89370400440532013000",
        "10.0.0.1",
        "::1",
        "https://u:p@h.de",
        "sk-abcdefghijklmnop1234",
        "password=",
        "hunter22",
        "<EMAIL_1>",
        "<PHONE_3>",
        " ",
        "@",
        ".",
        "-",
        "0",
        "17",
        "1.2.",
        ":",
        "<",
        ">",
        "_",
        "x",
        "AbC9",
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(_PIECES, max_size=14).map("".join)))
def test_redacting_twice_changes_nothing(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


def _planted(rng: random.Random) -> list[tuple[str, str]]:
    def digits(n: int) -> str:
        return "".join(rng.choice("0123456789") for _ in range(n))

    def card() -> str:
        body = "4" + digits(14)
        return next(body + d for d in "0123456789" if luhn(body + d))

    def iban() -> str:
        country = rng.choice(["DE", "FR", "ES", "AT", "BE"])
        bban = digits(IBAN_LENGTHS[country] - 4)
        check = next(f"{c:02d}" for c in range(2, 99) if iban_is_valid(f"{country}{c:02d}{bban}"))
        return f"{country}{check}{bban}"

    number, pan = iban(), card()
    name = "".join(rng.choice("abcdefghijklmnop") for _ in range(6))
    return [
        ("EMAIL", f"{name}.{digits(2)}@{name}.example.org"),
        ("PHONE", f"+{rng.choice(['1', '44', '49', '33'])} {rng.randint(100, 999)} {digits(7)}"),
        ("CARD", " ".join(pan[i : i + 4] for i in range(0, 16, 4))),
        ("IBAN", " ".join(number[i : i + 4] for i in range(0, len(number), 4))),
        ("IP", ".".join(str(rng.randint(0, 255)) for _ in range(4))),
        ("KEY", "ghp_" + "".join(rng.choice("abcXYZ0123456789") for _ in range(36))),
    ]


def test_planted_values_are_found() -> None:
    rng = random.Random(7)
    for _ in range(200):
        for entity, value in _planted(rng):
            text, counts = REDACTOR.redact(f"Hello, it is about {value}, thank you.")
            assert counts == {entity: 1}, (value, text)
            assert text == f"Hello, it is about <{entity}_1>, thank you."


@pytest.mark.parametrize(
    "piece",
    ["1 ", "a@", "a.b.", "eyJ", "1.2.3.4.", "::1", "password is ", "-----BEGIN PRIVATE KEY-----", "+1", "0", "DE89",
     "://a:", "A1b2-", "x", "a'", "(0", "<EMAIL_1>", "a\u200b", "\uff20a.", "1/", "0171/23 ", "a (at) ",
     "a at b dot ", "4111 ", "12 34 56 ", "AB 12 34 56 ", "X-1", "password: a1b2c3 ", "\u0660", "00 ", "+1 2 3 ",
     "1-1-1-1-", "order 1234567 ", "call 612345678 ", "a@b.co ", "1.1.1.1 ", "e\u0301", "sk-a1", "http://a:b@",
     "\u2460", "AA00", "token=", "\u06f1\u06f2 ", "\u200d\u2764", "1234567 phone ", "12345678Z"],
)  # fmt: skip
def test_time_is_linear_in_the_length(piece: str) -> None:
    text = (piece * 60_000)[:60_000]
    start = time.process_time()
    REDACTOR.redact(text)
    assert time.process_time() - start < 2.0


def test_placeholder_detection() -> None:
    assert contains_placeholder("see <EMAIL_12>")
    assert not contains_placeholder("a < b and <EMAIL> or <b_1>")
    assert PLACEHOLDER.fullmatch("<IBAN_3>")


def test_pseudonyms_need_the_key() -> None:
    one = Redactor(b"k" * 32)
    assert one.pseudonym("ann") == one.pseudonym("ann") != one.pseudonym("bob")
    assert one.pseudonym("ann") != Redactor(b"l" * 32).pseudonym("ann")
    with pytest.raises(ValueError, match="key"):
        REDACTOR.pseudonym("ann")


def test_it_imports_alone() -> None:
    code = (
        "import sys; import data_contracts.redaction; "
        "print(sorted({m.split('.')[0] for m in sys.modules} & "
        "{'pydantic', 'torch', 'sqlalchemy', 'store', 'pandas', 'numpy', 'configs'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
