"""Who is held out for ever, and on which side of the exam a prompt stands."""

from __future__ import annotations

import hashlib

from configs.curation import CurationSection


def is_held_out(principal: str, config: CurationSection) -> bool:
    """True if this principal's rows measure and never train: SHA-256(salt, principal) below the share."""
    value = hashlib.sha256(f"{config.holdout_salt}\0{principal}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(value[:8], "big") < config.holdout_share * 2**64
