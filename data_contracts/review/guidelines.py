"""What labellers are told, and the words they may use: one YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, StringConstraints, ValidationError

from configs.errors import ConfigError
from data_contracts.digests import digest
from data_contracts.records import Record, ReviewVerdict

Severity = Annotated[str, StringConstraints(pattern="^(low|medium|high|critical)$")]
Word = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
KINDS = ("quarantine", "conflict", "incident", "sample", "answer")


class Guideline(Record):
    """What is shown with one kind of item."""

    title: Text
    text: Text
    verdicts: dict[ReviewVerdict, Text]
    """What each verdict means here."""


class Guidelines(Record):
    """All kinds, and the vocabulary."""

    severities: Annotated[dict[Severity, Text], Field(min_length=1)]
    root_causes: Annotated[dict[Word, Text], Field(min_length=1)]
    kinds: dict[str, Guideline]

    @property
    def digest(self) -> str:
        """Which rules a label was made under."""
        return digest(self.model_dump(mode="json"))


def load_guidelines(path: Path | str) -> Guidelines:
    """Read the file.

    Raises:
        ConfigError: it is missing, no YAML, or lacks a kind or a verdict.
    """
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        found = Guidelines.model_validate(data)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError("the review guidelines cannot be read", where=path, found=error) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"`{place}`: {first['msg']}", where=path, expected="see configs/review/guidelines.yaml"
        ) from error
    for kind in KINDS:
        told = found.kinds.get(kind)
        missing = {"accept", "reject", "correct"} - set(told.verdicts) if told else {"everything"}
        if missing:
            raise ConfigError(
                "the review guidelines are incomplete",
                where=f"{path}: kinds.{kind}",
                expected="title, text, and verdicts accept, reject and correct",
                found="nothing" if told is None else "no " + ", ".join(sorted(missing)),
            )
    return found
