"""How large the demo is: the full one fits 15 minutes on two cores, the short one 5."""

from __future__ import annotations

from dataclasses import dataclass, field

from cli.demo.customers import Extras
from cli.demo.story import Size


@dataclass(frozen=True)
class Script:
    """Numbers of the story."""

    acts: tuple[int, ...]
    things: int
    """Things of act 1."""
    sizes: dict[int, Size]
    """Act -> questions of each thing that teach and that are held out."""
    crowd: int
    """Customers."""
    earlier: int
    """Imported earlier interactions: the drift reference."""
    extras: Extras
    """Wrong, rude, private and repeated corrections of act 1."""
    new_extras: Extras = field(default_factory=lambda: Extras(2, 1, 1, 1, 2))
    """The same of act 2."""
    chat_share: float = 0.12
    """Small talk among all requests."""
    new_share: float = 0.30
    """Share of act 2's new topic among all requests."""
    seed: int = 7
    retrain_limit_s: float = 900.0
    canary_limit_s: float = 300.0
    drift_limit_s: float = 300.0


FULL = Script(
    acts=(1, 2, 3),
    things=12,
    sizes={1: Size(12, 6), 2: Size(14, 8)},
    crowd=330,
    earlier=600,
    extras=Extras(),
)
SHORT = Script(
    acts=(1, 3),
    things=5,
    sizes={1: Size(12, 5)},
    crowd=200,
    earlier=100,
    extras=Extras(wrong=4, rude=2, private_questions=2, private_corrections=1, twice=3),
)
