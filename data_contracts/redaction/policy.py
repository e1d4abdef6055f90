"""What happens to each kind of value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from data_contracts.redaction.entities import ENTITIES, placeholder_entities

Action = Literal["mask", "pseudonymise", "drop_row", "keep"]
MAY_BE_KEPT = frozenset({"IP", "PERSON", "ADDRESS"})


@dataclass(frozen=True)
class RedactionPolicy:
    """An action per entity; what is not named is masked.

    `mask` puts `<EMAIL_1>`, consistent inside one conversation; `pseudonymise` puts `<EMAIL_` and 64 bits of an HMAC,
    the same in all conversations of one installation, and needs its key; `drop_row` masks, and the row may not teach;
    `keep` leaves the value where it is (IP, PERSON and ADDRESS only).

    Raises:
        ValueError: an entity or action that does not exist, or an entity that may not be kept.
    """

    actions: Mapping[str, Action] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for entity, action in self.actions.items():
            if entity not in ENTITIES:
                raise ValueError(f"redaction knows no entity `{entity}`; it knows {', '.join(ENTITIES)}")
            if action not in get_args(Action):
                raise ValueError(f"`{entity}` cannot be `{action}`; an action is one of {', '.join(get_args(Action))}")
            if action == "keep" and entity not in MAY_BE_KEPT:
                raise ValueError(f"`{entity}` may not be kept; only {', '.join(sorted(MAY_BE_KEPT))} may")

    def action(self, entity: str) -> Action:
        """What happens to values of this entity."""
        return self.actions.get(entity, "mask")

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the owner of the data should know about this policy."""
        return tuple(
            f"redaction keeps {entity}: personal data of this kind is stored and trained on"
            for entity in ENTITIES
            if self.action(entity) == "keep"
        )

    @property
    def needs_key(self) -> bool:
        """True if an entity is pseudonymised."""
        return "pseudonymise" in self.actions.values()

    def drop_reason(self, texts: Iterable[str]) -> str | None:
        """Why a row with these redacted texts may not teach: `redaction.card`, by the first such entity, else None."""
        dropped = {entity for entity, action in self.actions.items() if action == "drop_row"}
        if not dropped:
            return None
        there = set[str]().union(*map(placeholder_entities, texts)) & dropped
        return f"redaction.{min(there, key=ENTITIES.index).lower()}" if there else None
