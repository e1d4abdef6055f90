"""What the words around a number call it."""

from __future__ import annotations

import re

BEFORE, AFTER = 48, 40
"""Characters that are read on each side. A placeholder ends them, so that redacting twice sees no more than once."""

_WORDS = re.compile(
    r"(?P<card>\b(?:cards?|visa|master\s?card|amex|american express|maestro|credit|debit|\w*karten?(?:nummer)?|carte|tarjeta|"
    r"cart[ãa]o|carta)\b)"
    r"|(?P<id>\b(?:ssn|social (?:security|insurance)|national (?:insurance|id|identity|identification)|ni (?:number|no)|nino|nhs|"
    r"steuer-?id\w*|steuer(?:liche )?identifikation\w*|idnr|tax (?:id|file|number|payer|identification)|"
    r"tin|tfn|(?-i:SIN|NIE|NIR|RUT|TC)|dni|nif|nie number|sozialversicherung\w*|rentenversicherung\w*|s[ée]curit[ée] sociale|insee|"
    r"num[ée]ro national|registre national|rijksregister\w*|documento (?:nacional )?de identidad|c[ée]dula|"
    r"identity (?:card|number|no|code)|identification (?:number|no|code)|(?:personal )?id (?:number|no|card|code)|personal (?:number|code)|"
    r"person(?:al)?nummer|samordningsnummer|f[øo]dselsnummer|cpr|henkil[öo]tunnus|hetu|bsn|burgerservicenummer|sofi-?nummer|pesel|"
    r"contribuinte|cpf|codice fiscale|cod\. ?fiscale|aadhaar|aadhar|uidai|ahv\w*|avs|kimlik|curp|cnp|egn|oib|amka|isikukood|"
    r"asmens kodas|rodn[ée] [čc][íi]slo|citizen service|my number card|birth number|passport)\b|身份证|身分證|マイナンバー|주민등록|आधार)"
    r"|(?P<phone>\b(?:phone|telephone|mobile|cell(?:phone)?|cellular|tel|fax|hotline|whats\s?app|telegram|viber|sms|"
    r"call(?: me| us| him| her| back|ing)?|ring me|text me|dial|reach (?:me|us)|contact (?:me|number)|my number|phone number|"
    r"telefon\w*|t[ée]l[ée]phone|t[ée]l|handy\w*|mobil\w*|rufnummer|anrufen|r[üu]ckruf|appele[zr]\w*|portable|joindre|"
    r"tel[ée]fono|tel[ée]fon\w*|tel[ée]fone|m[óo]vil|celular|ll[áa]m[ae]\w*|ligue|ligar|chiama\w*|cellulare|telefoon\w*|mobiel|bel me|"
    r"puhelin\w*|numer telefonu|kom[óo]rka)\b|телефон|电话|電話|手机|फ़ोन|هاتف)"
    r"|(?P<other>\b(?:orders?|order number|invoices?|tickets?|tracking|track|parcels?|packages?|shipments?|case|sku|ean|isbn|gtin|upc|"
    r"serial|items?|articles?|products?|customers?(?: no| number)?|kunden\w*|bestell\w*|auftrag\w*|rechnung\w*|sendung\w*|commande|"
    r"facture|colis|pedido|factura|ordine|fattura|timestamp|versions?|build|usps|ups|dhl|fedex|rma|po|ref|reference|transaction|"
    r"total|sum|revenue|costs?|price|points?|amount|quantity|page|lines?|error|code|port|room|bytes|ms|imei|part)\b|\#)",
    re.I,
)


def calls(text: str, start: int, end: int) -> tuple[str, frozenset[str]]:
    """The kind of the word nearest before `start:end` (else the first after it), and all kinds around it.

    Kinds are `card`, `id`, `phone`, `other` (an order, a parcel, a price ...) and "" for none.
    """
    before = text[max(0, start - BEFORE) : start]
    before = before[max(before.rfind(">"), before.rfind("<")) + 1 :]
    kinds = [match.lastgroup or "" for match in _WORDS.finditer(before)]
    nearest = kinds[-1] if kinds else ""
    after = text[end : end + AFTER].split("<", 1)[0]
    behind = [match.lastgroup or "" for match in _WORDS.finditer(after)]
    if not nearest and behind and behind[0] != "other":
        nearest = behind[0]
    return nearest, frozenset(kinds + [kind for kind in behind if kind != "other"])
