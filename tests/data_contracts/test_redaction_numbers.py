"""National numbers, telephone numbers and what only looks like them. Examples are the issuers' published ones."""

from __future__ import annotations

import pytest

from data_contracts.redaction import Redactor
from data_contracts.redaction.checks import luhn, mod11_10, verhoeff
from data_contracts.redaction.disguise import shown

REDACTOR = Redactor()


def entities(text: str) -> list[tuple[str, str]]:
    return [(hit.entity, text[hit.start : hit.end]) for hit in REDACTOR.find(text)]


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("SSN", "078-05-1120"),
        ("social security number", "078051120"),
        ("NINO", "AB 12 34 56 C"),
        ("NHS number", "943 476 5919"),
        ("Steuer-ID", "36 574 261 809"),
        ("Rentenversicherung", "65 180539 W 012"),
        ("NIR", "2 55 08 14 168 025 38"),
        ("DNI", "12345678Z"),
        ("NIE", "X-2482300-W"),
        ("codice fiscale", "RSSMRA85T10A562S"),
        ("codice fiscale", "RSS MRA 85T10 A562S"),
        ("personnummer", "811228+9874"),
        ("BSN", "111222333"),
        ("rijksregisternummer", "85.07.30-033.28"),
        ("PESEL", "44051401359"),
        ("personnummer", "811228-9874"),
        ("henkilötunnus", "131052-308T"),
        ("NIF", "123456789"),
        ("CPF", "390.533.447-05"),
        ("SIN", "046 454 286"),
        ("Aadhaar", "2341 2341 2346"),
        ("TFN", "123 456 782"),
        ("AHV", "756.9217.0769.85"),
        ("kimlik", "17291716060"),
        ("rodné číslo", "710319/2745"),
        ("CNP", "1630615123457"),
        ("isikukood", "36805280109"),
        ("AMKA", "01013099997"),
        ("ID number", "7503305044089"),
        ("身份证", "360426199101010071"),
        ("CURP", "BOXW310820HNERXN09"),
        ("RUT", "12.531.909-2"),
        ("PPS number, an id number", "6433435F"),
        ("NRIC", "S1234567D"),
    ],
)
def test_a_published_example_is_found_where_it_is_named(name: str, number: str) -> None:
    assert entities(f"My {name} is {number}, thanks.") == [("NATIONAL_ID", number)]


@pytest.mark.parametrize(
    "text",
    [
        "My Steuer-ID is 36 574 261 808",
        "My DNI is 12345678A",
        "My CPF is 390.533.447-06",
        "My codice fiscale is RSSMRA85T10A562T",
        "My Aadhaar is 2341 2341 2345",
        "My AHV is 756.9217.0769.84",
        "My SSN is 000-12-3456",
        "My PESEL is 44051401358",
        "My rijksregisternummer is 85.07.30-033.29",
    ],
)
def test_a_wrong_check_digit_is_no_number(text: str) -> None:
    assert entities(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "order number 111222333",
        "tracking number 2341 2341 2346",
        "invoice 123 456 782 of May",
        "at 1530819869573 ms",
        "2^37 = 252769138416246",
        "USPS 9400 1000 0000 0000 0000 00",
        "x = 0.4539578763621486",
        "version 10.0.19.1 and firmware 1.2.3.4",
        "npm install react@18.2.0",
        "git clone git@github.com:example/shop.git",
        "commit 356a192b7913b04c54574d18c28d46e6395428ab",
        "1 234 567,89 kr on 24.12.2025 10:30",
        "call at 12:30, it costs 1 234 567 EUR",
        "#562-3406390-2758083",
        "the key is patience and the secret is to wait 2 hours",
        "aa:bb:cc:dd:ee:ff at 10:30:45",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert entities(text) == []


@pytest.mark.parametrize(
    "number",
    [
        "+49 (0)30 1234567", "0049 30 1234567", "+1 (201) 555-0123 ext. 12", "011 44 20 7946 0958", "(555) 123-4567",
        "+7 (912) 345-67-89", "8 (912) 345-67-89", "+86-138-0013-8000", "(11) 98765-4321", "06 12 34 56 78",
        "090-1234-5678", "0664/1234567", "+971 50 123 4567", "612 34 56 78", "138 0013 8000",
    ],
)  # fmt: skip
def test_telephone_numbers_are_found_without_being_called_so(number: str) -> None:
    assert entities(f"Please use {number} then.") == [("PHONE", number)]


@pytest.mark.parametrize("number", ["612 345 678", "12 34 56 78", "9123 4567", "5551234567", "98765 43210"])
def test_short_numbers_need_a_word(number: str) -> None:
    assert entities(f"WhatsApp {number} please") == [("PHONE", number)]
    assert entities(f"parcel {number} please") == []


def test_writings_of_one_number_have_one_placeholder() -> None:
    text, _ = REDACTOR.redact("+49 (0)30 1234567, 0049 30 1234567 or +49 301234567")
    assert text == "<PHONE_1>, <PHONE_1> or <PHONE_1>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ann (at) example (dot) com", "<EMAIL_1>"),
        ("ann at example dot com", "<EMAIL_1>"),
        ("meet ann at the dot", "meet ann at the dot"),
        ("４１１１\u3000１１１１\u3000１１１１\u3000１１１１", "<CARD_1>"),
        ("card ٤١١١ ١١١١ ١١١١ ١١١١", "card <CARD_1>"),
        ("ghp_aB3\u200bcD4eF5gH6iJ7kL8mN9oP0qR1sT2uV3w", "<KEY_1>"),
        ("DE89\u200b3704\u200b0044\u200b0532\u200b0130\u200b00", "<IBAN_1>"),
        ("𝟺𝟷𝟷𝟷 𝟷𝟷𝟷𝟷 𝟷𝟷𝟷𝟷 𝟷𝟷𝟷𝟷", "<CARD_1>"),
        ("10\x00.0.0.1", "<IP_1>"),
        ("https://:s3cret99@host.example", "https://<CREDENTIALS_1>@host.example"),
        ("?api_key=aB3dE5fG7hJ9&page=2", "?api_key=<KEY_1>&page=2"),
        ("ＡＢＣ stays, Ａnn@example.com goes", "ＡＢＣ stays, <EMAIL_1> goes"),
    ],
)
def test_disguises(text: str, expected: str) -> None:
    assert REDACTOR.redact(text)[0] == expected


def test_what_a_reader_sees() -> None:
    assert [shown(c) for c in "\u200b\u0301\uff11\u0661\u00a0\u2013\uff41"] == ["", "", "1", "1", " ", "-", "a"]
    assert [shown(c) for c in "a1\u00e4\u4e2d\u2026\u2764"] == [None] * 6


def test_check_digits() -> None:
    assert luhn("4111111111111111")
    assert not luhn("4111111111111112")
    assert verhoeff("2363")
    assert not verhoeff("2364")
    assert mod11_10("36574261809")
    assert not mod11_10("36574261800")
