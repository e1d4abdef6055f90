"""Secrets that are called so: in many languages and layouts, and what only stands behind such a word."""

from __future__ import annotations

import pytest

from data_contracts.redaction import Redactor

REDACTOR = Redactor()


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("la password è Winter21", "Winter21"),
        ("contraseña: Winter21", "Winter21"),
        ("moje hasło to w1nter-21!", "w1nter-21!"),
        ("mitt lösenord är Winter21", "Winter21"),
        ("şifrem w1nter21", "w1nter21"),
        ("Пароль: Winter21", "Winter21"),
        ("パスワードはWinter21", "Winter21"),
        ("密码是Winter21", "Winter21"),
        ("password for the guest wifi: w1nter!2", "w1nter!2"),
        ("Kennwort (neu) lautet w1nter!2", "w1nter!2"),
        ("**Password:** Winter21", "Winter21"),
        ("| Password | Winter21 |", "Winter21"),
        ("<password>Winter21</password>", "Winter21"),
        ("Password:\nWinter21", "Winter21"),
        ("user mira, pw w1nter!2", "w1nter!2"),
        ("dbPassword=Winter21", "Winter21"),
        ("auth token 0123456789abcdef0123456789abcdef", "0123456789abcdef0123456789abcdef"),
        ("Authorization: token 0123456789abcdef", "0123456789abcdef"),
        ("Cookie: sessionid=a1b2c3d4e5f6a7b8c9d0; theme=dark", "a1b2c3d4e5f6a7b8c9d0"),
        ("İstanbul şifre: Winter21", "Winter21"),
        ("the password is: Sunshine99", "Sunshine99"),
        ("le mot de passe est : Soleil99", "Soleil99"),
        (r'{"body":"{\"api_key\":\"abcd1234efgh\"}"}', "abcd1234efgh"),
        (r"\"password\": \"hunter22x\"", "hunter22x"),
    ],
)
def test_what_is_called_a_secret_is_one(text: str, secret: str) -> None:
    assert [(hit.entity, text[hit.start : hit.end]) for hit in REDACTOR.find(text)] == [("KEY", secret)]


@pytest.mark.parametrize(
    "text",
    [
        "I forgot the password of Windows11 and of my iPhone14",
        "password reset: 2024-05-01 at 10:30",
        "password hash sha256 or bcrypt-12",
        "the password for order ORD-12345 is wrong",
        "the token expires: 10:30pm",
        "boarding pass: LH1234",
        "secret = base64.b64decode(config.value1) and token = rows[-1].value",
        "requires keyvault-secrets>=4.8.0, tokens = 21400000, --pass: #1d7a46",
        "two segments at the point where the dot is at its largest",
        "phone support since 2008-2010",
        "la password è sbagliata, versione 2.4.1",
        'integrity="sha384-oqVuAfXRKap7fdgcCY5uykM6R9GqQ8K1uxy9rx7HNQlGYl1kPzQho1wx4JwY8wC1"',
    ],
)
def test_what_stands_behind_such_a_word_need_not_be_one(text: str) -> None:
    assert REDACTOR.find(text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ann&#64;example.com or ann%40example.org", "<EMAIL_1> or <EMAIL_2>"),
        ("ann arroba example punto com", "<EMAIL_1>"),
        ("10[.]20[.]30[.]40 is bad", "<IP_1> is bad"),
        ("DE89&nbsp;3704&nbsp;0044&nbsp;0532&nbsp;0130&nbsp;00", "<IBAN_1>"),
        ("DE 89 3704 0044 0532 0130 00", "<IBAN_1>"),
        ("card 4111_1111_1111_1111", "card <CARD_1>"),
        ("https://wa.me/4917612345678", "https://wa.me/<PHONE_1>"),
        ("tel (21) 9 8765-4321", "tel <PHONE_1>"),
        ("NI number AB-12-34-56-C", "NI number <NATIONAL_ID_1>"),
        ("<b>SIN</b> 046-454-286", "<b>SIN</b> <NATIONAL_ID_1>"),
        ("my BSN: 11 1222 333", "my BSN: <NATIONAL_ID_1>"),
        ("ghp_aB3cD4eF5gH6iJ7kL8mN9oP0qR1sT2uV3wann.miller@example.com", "<KEY_1>.<EMAIL_1>"),
    ],
)
def test_other_spellings(text: str, expected: str) -> None:
    assert REDACTOR.redact(text)[0] == expected
