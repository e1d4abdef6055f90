"""Names and addresses: no pattern finds them, a language model does.

`PresidioNer` uses Presidio with a spaCy model that is installed; it never downloads one. `KnownNames` finds names it
was given: a list of one's own people, and the double for tests.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

from data_contracts.redaction.entities import Found

_ENTITIES = {"PERSON": "PERSON", "LOCATION": "ADDRESS", "GPE": "ADDRESS", "LOC": "ADDRESS", "FAC": "ADDRESS"}
"""Presidio's and spaCy's names, and ours."""


class NerBackend(Protocol):
    """Finds PERSON and ADDRESS in a text. Shared by threads."""

    def find(self, text: str) -> list[Found]:
        """The values by place, none overlapping."""


class KnownNames:
    """Finds what it was given, as whole words, in any case: `KnownNames({"Ann Miller": "PERSON"})`."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._entity = {" ".join(name.split()).casefold(): entity for name, entity in names.items()}
        longest_first = sorted(self._entity, key=lambda name: (-len(name), name))
        words = "|".join(r"\s+".join(map(re.escape, name.split())) for name in longest_first)
        self._pattern = re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.I) if words else None

    def find(self, text: str) -> list[Found]:
        """The given names in the text."""
        found = []
        for match in self._pattern.finditer(text) if self._pattern else ():
            value = " ".join(match[0].split()).casefold()
            if value in self._entity:
                found.append(Found(match.start(), match.end(), self._entity[value], value))
        return found


class PresidioNer:
    """Presidio's spaCy recogniser, PERSON and LOCATION only: everything with a structure is found without it.

    Args:
        model: name of an installed spaCy model with entities, for example `en_core_web_sm`.
        language: its language code.
        threshold: least score.

    Raises:
        ConfigError: Presidio, spaCy or the model is not installed; says what to install.
    """

    def __init__(self, model: str = "en_core_web_sm", language: str = "en", threshold: float = 0.5) -> None:
        from configs.errors import ConfigError

        try:
            import spacy.util
            from presidio_analyzer.nlp_engine import SpacyNlpEngine
            from presidio_analyzer.predefined_recognizers import SpacyRecognizer
        except ImportError as error:
            raise ConfigError(
                "names and addresses need Presidio and spaCy",
                where="redaction.ner",
                expected="presidio-analyzer and spacy installed",
                found=str(error),
                fix="pip install 'tidemill[ner]', then the spaCy model; or set `redaction.ner: off`",
            ) from error
        if not spacy.util.is_package(model):
            raise ConfigError(
                "names and addresses need a spaCy model",
                where="redaction.ner_model",
                expected=f"the package {model} installed; it is never downloaded by itself",
                found="no such package",
                fix=f"python -m spacy download {model}; or set `redaction.ner: off`",
            )
        self._engine: Any = SpacyNlpEngine(models=[{"lang_code": language, "model_name": model}])
        self._engine.load()
        self._recognizer: Any = SpacyRecognizer(supported_language=language)
        self._language, self._threshold = language, threshold

    def find(self, text: str) -> list[Found]:
        """Persons and places in the text."""
        artifacts = self._engine.process_text(text, self._language)
        hits = self._recognizer.analyze(text, ["PERSON", "LOCATION"], artifacts)
        return [
            Found(
                hit.start, hit.end, _ENTITIES[hit.entity_type], " ".join(text[hit.start : hit.end].split()).casefold()
            )
            for hit in sorted(hits, key=lambda hit: (hit.start, -hit.end))
            if hit.score >= self._threshold and hit.entity_type in _ENTITIES
        ]
