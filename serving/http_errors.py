"""Errors as OpenAI's clients expect them: {"error": {message, type, param, code}}."""

from __future__ import annotations

import functools
import json
import logging
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from configs.errors import ConflictError, InputError, NotFoundError, StoreError, TidemillError, UnavailableError

logger = logging.getLogger(__name__)
Handler = Callable[[Request], Awaitable[Response]]


class AuthError(TidemillError):
    """The caller showed no accepted key, or is not on this machine where none is configured."""

    code = "invalid_api_key"


class ReviewerError(TidemillError):
    """The caller's key may not review."""

    code = "insufficient_permissions"


_STATUS: tuple[tuple[type[TidemillError], int], ...] = (
    (AuthError, 401),
    (ReviewerError, 403),
    (NotFoundError, 404),
    (InputError, 400),
    (ConflictError, 409),
    (UnavailableError, 503),
    (StoreError, 503),
)


def input_error(message: str, code: str, **facts: Any) -> InputError:
    """An InputError with a code of its own."""
    error = InputError(message, **facts)
    error.code = code
    return error


def status_of(error: TidemillError) -> int:
    """HTTP status of an error."""
    if error.code == "body_too_large":
        return 413
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def error_body(error: TidemillError) -> dict[str, Any]:
    """The JSON body of an error; `param` is the field or id it is about."""
    kinds = {401: "authentication_error", 403: "permission_error"}
    status = status_of(error)
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": str(error), "type": kind, "param": error.where, "code": error.code}}


def error_response(error: TidemillError) -> JSONResponse:
    """The response of an error; 503 asks to come back in a second."""
    status = status_of(error)
    return JSONResponse(error_body(error), status, {"Retry-After": "1"} if status == 503 else None)


def plain_error(status: int, message: str, code: str) -> JSONResponse:
    """A response for what has no exception of ours (unknown path, wrong method)."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": code}}, status)


def unexpected(error: BaseException) -> TidemillError:
    """A 500 for a fault of ours. The log gets type and code lines only: an exception's text may quote a user's."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("unexpected %s\n%s", type(error).__name__, frames)
    internal = TidemillError("the gateway failed on this request")
    internal.code = "internal_error"
    return internal


def guarded(handler: Handler) -> Handler:
    """A route whose exceptions become OpenAI-style errors."""

    @functools.wraps(handler)
    async def wrapped(request: Request) -> Response:
        try:
            return await handler(request)
        except TidemillError as error:
            return error_response(error)
        except Exception as error:
            return error_response(unexpected(error))

    return wrapped


async def read_json(request: Request, limit: int) -> dict[str, Any]:
    """The request's body as a JSON object.

    Raises:
        InputError: too large, not UTF-8 JSON (with line and column), or not an object.
    """
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise input_error("the body is too large", "body_too_large", expected=f"at most {limit} bytes")
    try:
        data = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise input_error("the body is not UTF-8", "invalid_json", where=f"byte {error.start}") from None
    except RecursionError:
        raise input_error("the body is nested too deeply", "invalid_json") from None
    except json.JSONDecodeError as error:
        raise input_error(
            "the body is not valid JSON",
            "invalid_json",
            where=f"line {error.lineno} column {error.colno}",
            expected="a JSON object",
            found=error.msg,
        ) from None
    except ValueError:  # Python's limit on the digits of an integer
        raise input_error("the body holds a number with too many digits", "invalid_json") from None
    if not isinstance(data, dict):
        raise input_error("the body must be a JSON object", "invalid_json", found=type(data).__name__)
    return data


def _no_constant(name: str) -> Any:
    raise json.JSONDecodeError(f"{name} is not JSON", "", 0)
