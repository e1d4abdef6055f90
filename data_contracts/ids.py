"""Ids: UUIDv7 for everything; request ids carry a MAC so that feedback for a request never served is refused."""

from __future__ import annotations

import hashlib
import hmac
import os
import time
import uuid
from datetime import UTC, datetime

REQUEST_PREFIX = "chatcmpl-"
_MAC_HEX = 20


def new_id() -> str:
    """A UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, 74 random bits; sorts by time of creation."""
    millis = time.time_ns() // 1_000_000
    value = (millis & ((1 << 48) - 1)) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))


def _mac(key: bytes, model: str, ident: str) -> str:
    return hmac.new(key, f"{model}\0{ident}".encode(), hashlib.sha256).hexdigest()[:_MAC_HEX]


def new_request_id(key: bytes, model: str) -> str:
    """`chatcmpl-<uuid7 hex>-<mac>`; the MAC (80 bits of HMAC-SHA256) binds it to model and installation."""
    ident = uuid.UUID(new_id()).hex
    return f"{REQUEST_PREFIX}{ident}-{_mac(key, model, ident)}"


def derived_request_id(key: bytes, model: str, facts: bytes) -> str:
    """A request id made from `facts` (an imported line), the same each time; only this installation can make it."""
    ident = hmac.new(key, b"import\0" + facts, hashlib.sha256).hexdigest()[:32]
    return f"{REQUEST_PREFIX}{ident}-{_mac(key, model, ident)}"


def request_id_is_ours(key: bytes, model: str, request_id: str) -> bool:
    """True if `request_id` was made by `new_request_id` with this key for this model."""
    if not request_id.startswith(REQUEST_PREFIX):
        return False
    ident, _, mac = request_id[len(REQUEST_PREFIX) :].partition("-")
    return hmac.compare_digest(mac, _mac(key, model, ident))


UNNAMED = "anonymous"
"""Principal of feedback that names nobody."""
UNNAMED_CALLER = "anon:"
"""How the principals of requests begin that name nobody."""


def unnamed_caller(request_id: str) -> str:
    """Principal of a request that names neither a user nor a conversation: nobody but this request."""
    return f"{UNNAMED_CALLER}{request_id[-53:]}"


def is_the_asker(said_by: str, asked_by: str) -> bool:
    """True if feedback is from whoever made the request; where neither names anybody, from who knows the request's id.

    Args:
        said_by: the feedback's principal.
        asked_by: the interaction's principal; empty = unknown, which any principal may be.
    """
    return said_by == asked_by or not asked_by or (said_by == UNNAMED and asked_by.startswith(UNNAMED_CALLER))


def asked_at(request_id: str) -> datetime | None:
    """When a request id was made (it begins with a UUIDv7); None for one derived from an import."""
    ident = request_id.removeprefix(REQUEST_PREFIX).partition("-")[0]
    if len(ident) != 32 or ident[12] != "7":
        return None
    try:
        return datetime.fromtimestamp(int(ident[:12], 16) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None
