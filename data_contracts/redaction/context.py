"""What the words around a number call it."""

from __future__ import annotations

import re

BEFORE, AFTER = 48, 40
"""Characters that are read on each side. A placeholder ends them, so that redacting twice sees no more than once."""

_PLACEHOLDER_ENDS = re.compile(r"(?:<[A-Z]{2,11}(?:_[A-Z]{2})?_|\A[A-Z]{0,11}_?(?:[A-Z]{2}_)?)[0-9a-f]{0,16}>")
_PLACEHOLDER_BEGINS = re.compile(r"<(?=[A-Z]|\Z)")
_TOKEN = re.compile(r"[^\W\d_]+|#")
_WORDS = {
    "card": """
        card cards visa mastercard amex maestro credit debit karte carte tarjeta cartão cartao carta pan""",
    "id": """
        ssn nino nhs idnr tin tfn dni nif cpr hetu bsn sofi pesel contribuinte cpf fiscale aadhaar aadhar uidai avs
        kimlik curp cnp egn oib amka isikukood passport identidad cédula cedula insee burgerservicenummer nric pps
        steuernummer niss insz tckn oasi sofinummer persnr asmens jmbg""",
    "phone": """
        phone phones telephone mobile cell cellphone cellular tel fax hotline whatsapp telegram viber sms call calling
        ring dial téléphone tél portable joindre teléfono telefone telefono móvil movil celular ligue ligar cellulare
        rufnummer anrufen rückruf komórka mobiel gsm natel festnetz durchwahl erreichbar landline handset voicemail
        joignable rappeler rappelez contacto contactar tlf telemóvel telemovel zadzwoń dzwonić volat
        zavolejte bellen bel matkapuhelin kännykkä sími sđt cep звоните позвоните мобильный тел""",
    "other": """
        order orders invoice invoices ticket tickets tracking track parcel parcels package packages shipment case sku
        ean isbn gtin upc serial item items article articles product products customer customers commande facture colis
        pedido factura ordine fattura timestamp version versions build usps ups dhl fedex rma po ref reference
        transaction total sum revenue cost costs price point points amount quantity page line lines error code port room
        bytes ms imei part lot batch reservation booking # sprint model policy contract police vertrag vertragsnummer
        referenz barcode""",
}
_EXACT = {word: kind for kind, words in _WORDS.items() for word in words.split()}
_AS_WRITTEN = {"SIN", "NIE", "NIR", "RUT", "TC", "CF", "AHV", "NI", "NAS", "SS", "NN", "pnr", "Pnr", "fnr", "Fnr"}
"""Names of national numbers that are other words in small letters, or in capitals."""
_STEMS = {
    "telef": "phone", "handy": "phone", "mobil": "phone", "appel": "phone", "llama": "phone", "lláma": "phone",
    "chiam": "phone", "rappe": "phone", "telem": "phone", "puhel": "phone",
    "kunde": "other", "beste": "other", "auftr": "other", "rechn": "other", "sendu": "other",
    "kredi": "card", "karte": "card", "steue": "id", "sozia": "id", "rente": "id", "rijks": "id",
    "perso": "", "fødse": "id", "fodse": "id", "henki": "id", "samor": "id",
}  # fmt: skip
_LONG_STEMS = {"personnummer": "id", "personalnummer": "id", "personnr": "id"}
_PHRASES = {
    "card": "master card, american express",
    "id": """social security, social insurance, national insurance, national id, national identity,
        national identification, tax id, tax file, tax payer, tax identification, sécurité sociale, securite sociale,
        numéro national, numero national, registre national, rodné číslo, de sécu, assurance sociale""",
    "phone": "text me, reach me, reach us, contact me, contact number, my number, bel me",
}
_PAIRS: dict[tuple[str, ...], str] = {
    **{tuple(pair.split()): kind for kind, pairs in _PHRASES.items() for pair in pairs.split(",")},
    **{
        (word, number): "id"
        for word in ("identity", "identification", "id", "personal", "tax", "ni", "birth")
        for number in ("number", "no", "nr", "code", "card", "id")
    },
}
_SIGNS = {
    **dict.fromkeys(("身份证", "身分證", "マイナンバー", "주민등록", "आधार"), "id"),
    **dict.fromkeys(("телефон", "电话", "電話", "手机", "फ़ोन", "هاتف"), "phone"),
}
"""Words of scripts that are not cut into words by spaces, or are inflected."""


def calls(text: str, start: int, end: int) -> tuple[str, frozenset[str]]:
    """The kind of the word nearest before `start:end` (else the first after it), and all kinds around it.

    Kinds are `card`, `id`, `phone`, `other` (an order, a parcel, a price: only in the same sentence) and "" for none.
    """
    before = text[max(0, start - BEFORE) : start]
    if ">" in before or "<" in before:
        before = before[_last_placeholder(before) :]
    kinds = _kinds(before)
    if "other" in kinds:
        sentence = _kinds(before[_last_stop(before) :])
        kinds = [kind for kind in kinds if kind != "other"] if "other" not in sentence else kinds
    nearest = kinds[-1] if kinds else ""
    behind = _kinds(_PLACEHOLDER_BEGINS.split(text[end : end + AFTER], maxsplit=1)[0])
    if not nearest and behind and behind[0] != "other":
        nearest = behind[0]
    return nearest, frozenset(kinds + [kind for kind in behind if kind != "other"])


def _last_placeholder(text: str) -> int:
    """Where the last placeholder of a text ends that may begin in the middle of one; tags such as `<b>` are words."""
    ends = [match.end() for match in _PLACEHOLDER_ENDS.finditer(text)]
    return ends[-1] if ends else 0


def _last_stop(text: str) -> int:
    """Where the last sentence of the text begins; the stop of `no.` or `Nr.` ends none."""
    at = max(text.rfind("! "), text.rfind("? "), text.rfind("\n"))
    dot = text.rfind(". ")
    while dot > max(at, 2) and not text[dot - 3 : dot].isalnum():
        dot = text.rfind(". ", 0, dot)
    return max(at, dot if dot > 2 else -1) + 1


def _kinds(window: str) -> list[str]:
    """The kinds of the words of a window, in order."""
    out = []
    previous = ""
    for word in _TOKEN.findall(window):
        low = word.lower()
        kind = _PAIRS.get((previous, low)) or _EXACT.get(low)
        if kind is None:
            kind = _STEMS.get(low[:5]) or _LONG_STEMS.get(low) or ("id" if word in _AS_WRITTEN else None)
        if kind is None and len(low) > 8 and low.endswith(("karte", "kartennummer")):
            kind = "card"
        if kind:
            out.append(kind)
        previous = low
    if not window.isascii():
        out += [kind for sign, kind in _SIGNS.items() if sign in window]
    return out
