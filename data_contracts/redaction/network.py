"""E-mail addresses, IP addresses, credentials in URLs."""

from __future__ import annotations

import ipaddress
import re

from data_contracts.redaction.entities import Found

_CREDENTIALS = re.compile(r"(?<=://)[^\s/@:<>]{0,256}:[^\s/<>]{1,256}(?=@)")
# An address is read from its @: forwards the domain, backwards (in the reversed text before it) the mailbox.
_DOMAIN = re.compile(
    r"(?:[^\W_](?:[\w\-]{0,61}[^\W_])?\.){1,8}(?:[xX][nN]--[\w\-]{1,58}[^\W_]|[^\W\d_](?:[^\W\d_]{1,62}))"
)
_MAILBOX = re.compile(r"[\w%+\-](?:[\w.%+\-]|['!#$&^~](?=\w)){0,253}")
_AT = "at|ät|arroba|arobase|chiocciola"
_DOT = "dot|punkt|punto|point|ponto|punt"
"""How people say the sign and the dots of an address; each ` at ` must pass `may_be_spoken`, too."""
_SPOKEN_AT = re.compile(
    rf"[ ]?[\[({{<][ ]?(?:{_AT}|@)[ ]?[\])}}>][ ]?|(?<=\w)\(a\)(?=\w)|%40"
    r"|[ ](?:at|ät)[ ](?=[\w\-]{1,63}[ ](?:dot|punkt)[ ])"
    rf"|[ ](?:arroba|arobase|chiocciola)[ ](?=[\w\-]{{1,63}}[ ](?:{_DOT})[ ])",
    re.I,
)
_SPOKEN_DOMAIN = re.compile(
    rf"[\w\-]{{1,63}}(?:(?:\.|[ ]?[\[({{<][ ]?(?:{_DOT}|\.)[ ]?[\])}}>][ ]?|[ ](?:{_DOT})[ ])[\w\-]{{1,63}}){{1,6}}",
    re.I,
)
_BETWEEN = re.compile(rf"[\s\[\](){{}}<>]+|(?<![\w\-])(?:{_DOT})(?![\w\-])", re.I)
_BRACKETED = re.compile(rb"[\[({<] ?(?:a?t|a|@|arroba|arobase|chiocciola) ?[\])}>]")
_IPV4 = re.compile(r"(?<![\w.])(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})(?!\w|\.\d)")
_IPV4_GOES_ON = re.compile(r"\w|\.\d")
_IPV6 = re.compile(
    r"(?<![\w:.])(?=[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:)[0-9A-Fa-f:]{3,39}(?:\.\d{1,3}){0,3}(?:%\w{1,15})?(?![\w:])"
)
_NO_ADDRESS = re.compile(
    r"(?:version|release|firmware|build|driver|update|patch|section|chapter|kernel|\bv|\bver|§)[\s.:#]{0,2}$", re.I
)
"""What stands before four numbers that are no address."""


def credentials(text: str) -> list[Found]:
    """`user:password` of a URL."""
    return [Found(m.start(), m.end(), "CREDENTIALS", m[0]) for m in _CREDENTIALS.finditer(text)]


def emails(text: str) -> list[Found]:
    """Addresses around each @."""
    found: list[Found] = []
    at = text.find("@")
    while at != -1:
        domain = _DOMAIN.match(text, at + 1)
        if domain is not None:
            mailbox = _MAILBOX.match(text[max(0, at - 254) : at][::-1])
            if mailbox is not None:
                local = mailbox[0][::-1].lstrip(".")
                # git@host:path is a place to clone from, the same for everybody.
                if not (local == "git" and text[domain.end() : domain.end() + 1] == ":"):
                    start, end = at - len(local), domain.end()
                    found.append(Found(start, end, "EMAIL", text[start:end].casefold()))
        at = text.find("@", at + 1)
    return found


def spoken_emails(text: str) -> list[Found]:
    """Addresses written so that no machine should find them: `ann (at) example.com`, `ann at example dot com`."""
    found = []
    for anchor in _SPOKEN_AT.finditer(text):
        domain = _SPOKEN_DOMAIN.match(text, anchor.end())
        mailbox = _MAILBOX.match(text[max(0, anchor.start() - 254) : anchor.start()][::-1])
        if domain is None or mailbox is None:
            continue
        name = _BETWEEN.sub(lambda m: "." if m[0].isalpha() else "", domain[0].casefold())
        if not re.fullmatch(r"[^\W\d_]{2,}", name.rpartition(".")[2]):
            continue
        local = mailbox[0][::-1].lstrip(".")
        start = anchor.start() - len(local)
        found.append(Found(start, domain.end(), "EMAIL", f"{local.casefold()}@{name}"))
    return found


def ipv6(text: str) -> list[Found]:
    """IPv6 addresses with a digit in them (`a::b` is C++)."""
    found = []
    for match in _IPV6.finditer(text):
        value = match[0]
        while value.endswith(":") and not value.endswith("::"):
            value = value[:-1]
        if not any(map(str.isdigit, value)):
            continue
        try:
            address = ipaddress.IPv6Address(value)
        except ValueError:
            continue
        found.append(Found(match.start(), match.start() + len(value), "IP", str(address)))
    return found


def ipv4(text: str, start: int, end: int) -> list[Found]:
    """IPv4 addresses inside `start:end`, versions and numbered sections left out."""
    found = []
    for match in _IPV4.finditer(text, start, end):
        if _IPV4_GOES_ON.match(text, match.end()):
            continue
        parts = [int(part) for part in match.groups()]
        if max(parts) > 255 or _NO_ADDRESS.search(text, max(0, match.start() - 16), match.start()):
            continue
        found.append(Found(match.start(), match.end(), "IP", ".".join(map(str, parts))))
    return found


def may_be_spoken(low: bytes) -> bool:
    """True if the lower-case ASCII of a text holds `%40`, ` at ` with a dot that could belong to it, or `(at)`."""
    if b" dot " in low and (b" at " in low or b" t " in low):
        return True
    if b" arroba " in low or (b"%" in low and b"%40" in low):
        return True
    return (b"(" in low or b"[" in low or b"{" in low or b"<" in low) and _BRACKETED.search(low) is not None
