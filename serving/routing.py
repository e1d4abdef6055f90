"""Which arm answers a principal: pure functions of the serving pointer.

A principal's bucket is SHA-256(salt, principal) cut to 32 bits. The canary owns the prefix [0, share * 2^32), so a
ramp only ever adds principals to it and never moves one back. The salt is new for each rollout.
"""

from __future__ import annotations

import hashlib
from typing import Literal, NamedTuple

from data_contracts.records import Arm, RoutePointer

BUCKETS = 1 << 32
ArmName = Literal["champion", "canary"]


class Choice(NamedTuple):
    """The arm of one request, and that arm's share of traffic when it was routed."""

    name: ArmName
    arm: Arm
    share: float


def bucket(salt: str, principal: str) -> int:
    """A principal's fixed place in [0, 2^32) for one salt."""
    digest = hashlib.sha256(f"{salt}\0{principal}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4], "big")


def choose(pointer: RoutePointer, principal: str) -> Choice:
    """The arm this principal is served by under this pointer; the same answer in every gateway process."""
    canary, share = pointer.canary, pointer.canary_share
    if canary is None:
        return Choice("champion", pointer.champion, 1.0)
    if bucket(pointer.salt, principal) < int(share * BUCKETS):
        return Choice("canary", canary, share)
    return Choice("champion", pointer.champion, 1.0 - share)


def without_canary(pointer: RoutePointer) -> RoutePointer:
    """The same pointer with everybody on the champion (a canary taken back before the next champion is loaded)."""
    return pointer.model_copy(update={"canary": None, "canary_share": 0.0, "rollout_id": None})
