"""Who may call. With keys configured: a bearer token whose SHA-256 is listed. Without: callers on this machine only."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from urllib.parse import urlsplit

from fastapi import Request

from configs.schema import ServingSection
from serving.http_errors import AuthError, ReviewerError

_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


def check_caller(request: Request, settings: ServingSection) -> None:
    """Let the request pass.

    Raises:
        AuthError: no accepted key; or, where none is configured, a caller from elsewhere or a page of another site in
            a local browser (its `Host` or `Origin` gives it away).
    """
    if settings.api_keys:
        if not _listed(_bearer(request), (*settings.api_keys, *settings.review_keys)):
            raise AuthError("no accepted API key", where="Authorization", expected="Bearer <key>")
        return
    if not _loopback(request.client.host if request.client else None):
        raise AuthError(
            "without configured API keys only this machine may call",
            fix="set serving.api_keys to the SHA-256 digests of the keys to accept",
        )
    for header in ("host", "origin"):
        value = request.headers.get(header)
        if value is not None and not _local_name(value if header == "origin" else f"//{value}"):
            raise AuthError(
                "without configured API keys only pages and names of this machine may call",
                where=header,
                expected="localhost or a loopback address",
            )


def check_reviewer(request: Request, settings: ServingSection) -> None:
    """Let a reviewer's request pass: feedback with scope `review`, and incidents.

    Raises:
        ReviewerError: keys of any kind are configured, and this caller shows none of the reviewers'.
    """
    if (settings.api_keys or settings.review_keys) and not _listed(_bearer(request), settings.review_keys):
        raise ReviewerError("this needs a reviewer's key", where="Authorization")


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _listed(token: str, digests: tuple[str, ...]) -> bool:
    shown = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
    return bool(token) and any(hmac.compare_digest(shown, listed.lower()) for listed in digests)


def _loopback(host: str | None) -> bool:
    if host is None:  # a Unix socket: whoever can open it is on this machine
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _local_name(url: str) -> bool:
    try:
        return urlsplit(url).hostname in _LOCAL_NAMES
    except ValueError:
        return False
