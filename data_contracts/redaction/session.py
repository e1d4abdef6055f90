"""Texts and conversations with placeholders in the place of what is personal."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from data_contracts.redaction.entities import ENTITIES, PLACEHOLDER, Found
from data_contracts.redaction.ner import NerBackend
from data_contracts.redaction.policy import RedactionPolicy
from data_contracts.redaction.scan import find, merge

MAX_PASSES = 8
"""Most looks at one text. A replacement can end one value where another begins; more than two looks are rare."""

_M = TypeVar("_M")


class RedactionSession:
    """The placeholders of one conversation: the same value has the same placeholder in every text it redacts."""

    def __init__(self, redactor: Redactor | None = None) -> None:
        self._redactor = redactor or Redactor()
        self._known: dict[tuple[str, str], str] = {}
        self._last: dict[str, int] = {}

    def reserve(self, text: str) -> None:
        """Keep the numbers of placeholders already in `text` from being given to other values."""
        if "<" in text:
            for found in PLACEHOLDER.finditer(text):
                if len(found[2]) <= 6:
                    self._last[found[1]] = max(self._last.get(found[1], 0), int(found[2]))

    def redact(self, text: str) -> tuple[str, dict[str, int]]:
        """The text without personal data and secrets, and how many values were replaced, by entity."""
        self.reserve(text)
        counts: dict[str, int] = {}
        for _ in range(MAX_PASSES):
            hits = self._redactor.find(text)
            if not hits:
                break
            more = self._redactor.looks_again or any(_may_uncover(text, hit) for hit in hits)
            pieces: list[str] = []
            at = 0
            for hit in hits:
                pieces += (text[at : hit.start], self._placeholder(hit))
                at = hit.end
                counts[hit.entity] = counts.get(hit.entity, 0) + 1
            pieces.append(text[at:])
            text = "".join(pieces)
            if not more:
                break
        return text, dict(sorted(counts.items()))

    def _placeholder(self, hit: Found) -> str:
        key = (hit.entity, hit.value)
        known = self._known.get(key)
        if known is None:
            known = self._redactor.keyed(hit)
            if known is None:
                number = self._last[hit.entity] = self._last.get(hit.entity, 0) + 1
                known = f"<{hit.entity}_{number}>"
            self._known[key] = known
        return known


class Redactor:
    """Redacts texts and conversations. Holds no state between calls, so threads may share one.

    Args:
        key: this installation's secret, needed for `pseudonym` and for a policy that pseudonymises.
        policy: what happens to each entity; everything is masked by default.
        ner: finds PERSON and ADDRESS; without one they are not looked for.

    Raises:
        ValueError: the policy pseudonymises and there is no key.
    """

    def __init__(
        self, key: bytes | None = None, *, policy: RedactionPolicy | None = None, ner: NerBackend | None = None
    ) -> None:
        self.policy = policy or RedactionPolicy()
        if self.policy.needs_key and not key:
            raise ValueError("a redaction policy that pseudonymises needs the installation's key")
        self._key = key
        self._ner = ner
        self.looks_again = ner is not None
        """A model may see more in a text that it has seen redacted."""
        self._kept = {entity for entity in ENTITIES if self.policy.action(entity) == "keep"}

    def session(self) -> RedactionSession:
        """Placeholders for one conversation, to redact its messages and its answer consistently."""
        return RedactionSession(self)

    def find(self, text: str) -> list[Found]:
        """What would be replaced, by place: to show it to its writer before anything is sent."""
        hits = find(text)
        if self._ner is not None and text:
            standing = [Found(m.start(), m.end(), "", "") for m in PLACEHOLDER.finditer(text)]
            named = merge(len(text), standing, hits, self._ner.find(text))
            hits = [hit for hit in named if hit.entity]
        return [hit for hit in hits if hit.entity not in self._kept] if self._kept else hits

    def redact(self, text: str) -> tuple[str, dict[str, int]]:
        """The text with placeholders, and how many values were replaced, by entity."""
        return RedactionSession(self).redact(text)

    def redact_messages(
        self, messages: Sequence[_M], session: RedactionSession | None = None
    ) -> tuple[list[_M], dict[str, int]]:
        """A conversation with placeholders that are consistent over all its messages.

        Args:
            messages: mappings with a `content` string, or pydantic records with a `content` field.
            session: to go on with the same placeholders afterwards (for the answer).

        Returns:
            copies of the same kind, in the same order, and the number of replaced values by entity.
        """
        session = session or RedactionSession(self)
        contents = [_content(message) for message in messages]
        for content in contents:
            session.reserve(content)
        out: list[_M] = []
        total: dict[str, int] = {}
        for message, content in zip(messages, contents, strict=True):
            text, counts = session.redact(content)
            out.append(message if text == content else _with_content(message, text))
            for entity, count in counts.items():
                total[entity] = total.get(entity, 0) + count
        return out, dict(sorted(total.items()))

    def pseudonym(self, value: str) -> str:
        """A keyed stand-in for a principal or an id: `p-` and 96 bits of HMAC-SHA256; needs the key.

        Raises:
            ValueError: the redactor was made without a key.
        """
        return "p-" + self._mac(value)[:24]

    def keyed(self, hit: Found) -> str | None:
        """The placeholder of a value whose entity is pseudonymised, the same everywhere; None for other entities."""
        if self.policy.action(hit.entity) != "pseudonymise":
            return None
        return f"<{hit.entity}_{self._mac(f'redaction/{hit.entity}/{hit.value}')[:16]}>"

    def _mac(self, value: str) -> str:
        if self._key is None:
            raise ValueError("a pseudonym needs the installation's key")
        return hmac.new(self._key, value.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


_QUIET = frozenset(" \n\t.,;:!?()\"'")
_DIGIT = re.compile(r"\d")


def _may_uncover(text: str, hit: Found) -> bool:
    """True if a value could begin or end where this one is taken out.

    That takes something that touches it, a digit so near that both were read as one run, or behind it a number that a
    word before it had called an order: a placeholder ends what is read of the words around a number.
    """
    before, after = text[max(0, hit.start - 4) : hit.start], text[hit.end : hit.end + 64]
    if (before and before[-1] not in _QUIET) or (after and after[0] not in _QUIET):
        return True
    if len(after) > 1 and not after[0].isspace() and after[1] not in _QUIET:
        return True  # ".miller@example.com" behind a key
    if not before.isascii() or _DIGIT.search(before) or _DIGIT.search(after[:4]):
        return True
    return len(_DIGIT.findall(after)) >= 6


def _content(message: Any) -> str:
    content = message["content"] if isinstance(message, Mapping) else message.content
    if not isinstance(content, str):
        raise TypeError(f"a message's content is text, not {type(content).__name__}")
    return content


def _with_content(message: _M, text: str) -> _M:
    if isinstance(message, Mapping):
        return {**message, "content": text}  # type: ignore[return-value]
    return message.model_copy(update={"content": text})  # type: ignore[attr-defined,no-any-return]
