"""Personal data and secrets out of text, before it is stored, sent or trained on. Standard library only.

E-mail addresses, telephone numbers, payment cards, IBANs, national numbers, IP addresses, keys and tokens, and
credentials in URLs become placeholders such as `<EMAIL_1>`; names and addresses too where a named-entity backend is
given. Inside one conversation the same value always gets the same placeholder, so the text still makes sense; nothing
leads back from a placeholder to its value.

    from data_contracts.redaction import Redactor

    text, counts = Redactor().redact("write to ann@example.com")     # "write to <EMAIL_1>", {"EMAIL": 1}
    messages, counts = Redactor().redact_messages([{"role": "user", "content": "..."}])
    hits = Redactor().find(text)                                     # places, to show before sending

Redacting twice changes nothing: placeholders are never touched, and a new value takes the next free number. Time is
linear in the text's length. Files: entities, checks (check digits), disguise (Unicode), network, keys, named, national,
phones, context (what words call a number), numbers, scan (which detectors run), policy, ner, session (the API).
"""

from data_contracts.redaction.checks import IBAN_LENGTHS, iban_is_valid, luhn
from data_contracts.redaction.entities import (
    ENTITIES,
    PLACEHOLDER,
    STRUCTURED,
    Found,
    contains_placeholder,
    placeholder_entities,
)
from data_contracts.redaction.ner import KnownNames, NerBackend, PresidioNer
from data_contracts.redaction.policy import Action, RedactionPolicy
from data_contracts.redaction.session import MAX_PASSES, RedactionSession, Redactor
from data_contracts.redaction.setup import RedactionSettings, redactor_for

__all__ = [
    "ENTITIES",
    "IBAN_LENGTHS",
    "MAX_PASSES",
    "PLACEHOLDER",
    "STRUCTURED",
    "Action",
    "Found",
    "KnownNames",
    "NerBackend",
    "PresidioNer",
    "RedactionPolicy",
    "RedactionSession",
    "RedactionSettings",
    "Redactor",
    "contains_placeholder",
    "iban_is_valid",
    "luhn",
    "placeholder_entities",
    "redactor_for",
]
