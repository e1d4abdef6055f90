"""POST /v1/chat/completions: route, generate, record, answer; as one body or as server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from configs.errors import NotFoundError, StoreError, TidemillError, UnavailableError
from data_contracts.ids import UNNAMED_CALLER, new_request_id, unnamed_caller
from data_contracts.records import BASE_VERSION, Message
from serving.api_types import ChatRequest, parse
from serving.auth import check_reviewer
from serving.engines.base import Delta, GenerationRequest
from serving.gateway import Gateway
from serving.http_errors import error_body, read_json, status_of, unexpected
from serving.recording import Exchange
from serving.router import Route, Router


async def chat_completions(gateway: Gateway, request: Request) -> Response:
    """Answer one conversation.

    The response's id is the request id that feedback points to; `x-tidemill-version` and `x-tidemill-arm` say what
    answered.
    """
    body = parse(ChatRequest, await read_json(request, gateway.config.serving.max_body_bytes))
    engine, router = gateway.ready()
    request_id = new_request_id(gateway.key, gateway.model)
    principal = _principal(body, request_id)
    stack = contextlib.ExitStack()
    try:
        route = stack.enter_context(await _route(gateway, router, request, body.model, principal))
        exchange = Exchange(
            id=request_id,
            principal=principal,
            conversation=body.conversation or request_id,
            messages=_messages(gateway, body),
            route=route,
        )
        stream = _generate(gateway, engine.generate(_generation(gateway, body, exchange)), exchange)
        headers = {"x-tidemill-version": route.version, "x-tidemill-arm": route.arm, "x-request-id": request_id}
        if not body.stream:
            return await _whole(gateway, exchange, stream, headers)
        # The first piece decides between an HTTP error and a stream.
        first = await _first(gateway, exchange, stream)
        usage = bool(body.stream_options and body.stream_options.include_usage)
        events = _events(gateway, exchange, first, stream, usage, stack.pop_all())
        return StreamingResponse(
            events,
            media_type="text/event-stream",
            headers={**headers, "cache-control": "no-cache", "x-accel-buffering": "no"},
        )
    finally:
        stack.close()


def _principal(body: ChatRequest, request_id: str) -> str:
    """Who is asking: the caller's `user`, else their conversation, else this request alone."""
    if body.user is not None:
        return body.user
    return f"{UNNAMED_CALLER}{body.conversation}"[:128] if body.conversation else unnamed_caller(request_id)


def _messages(gateway: Gateway, body: ChatRequest) -> tuple[Message, ...]:
    messages = tuple(message.record() for message in body.messages)
    system = gateway.config.model.system_prompt
    if system and not any(message.role == "system" for message in messages):
        return (Message(role="system", content=system), *messages)
    return messages


def _generation(gateway: Gateway, body: ChatRequest, exchange: Exchange) -> GenerationRequest:
    settings = gateway.config.serving
    wanted = body.max_completion_tokens or body.max_tokens or settings.default_max_tokens
    return GenerationRequest(
        messages=exchange.messages,
        max_tokens=min(wanted, settings.max_tokens_limit),
        version=exchange.route.version,
        temperature=settings.default_temperature if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        stop=body.stops,
        seed=body.seed,
    )


async def _route(
    gateway: Gateway, router: Router, request: Request, model: str, principal: str
) -> AbstractContextManager[Route]:
    """The pointer's route for the product model; for reviewers a pinned one for `base` and `<model>@vN`."""
    if model == gateway.model:
        return router.route(principal)
    if model == BASE_VERSION or model.startswith(f"{gateway.model}@v"):
        # A version that was rolled back is still registered: only who reviews may ask it.
        check_reviewer(request, gateway.config.serving)
        with contextlib.suppress(NotFoundError):
            await asyncio.to_thread(router.ensure, model)
            return router.pinned(model)
    error = NotFoundError(
        "no such model",
        where="model",
        expected=f"`{gateway.model}`, `{gateway.model}@vN` of a registered version, or `base`",
        found=repr(model[:80]),
    )
    error.code = "model_not_found"
    raise error


async def _generate(gateway: Gateway, deltas: AsyncIterator[Delta], exchange: Exchange) -> AsyncIterator[Delta]:
    """The engine's deltas, noted in the exchange, within the time limit."""
    limit = gateway.config.serving.request_timeout_s
    try:
        # Not asyncio.timeout: a stream's first piece is read in another task than the rest.
        while exchange.last is None:
            delta = await asyncio.wait_for(anext(deltas), max(0.001, limit - exchange.seconds))
            exchange.add(delta)
            yield delta
    except TimeoutError:
        raise UnavailableError("the answer took too long", expected=f"at most {limit:g} s") from None
    finally:
        await deltas.aclose()  # type: ignore[attr-defined]


async def _whole(
    gateway: Gateway, exchange: Exchange, stream: AsyncIterator[Delta], headers: dict[str, str]
) -> Response:
    try:
        async for _ in stream:
            pass
    except Exception as error:
        raise await _failed(gateway, exchange, error) from None
    await _commit(gateway, exchange)
    _count(gateway, exchange, 200)
    last = exchange.last
    assert last is not None  # noqa: S101 - an engine's stream ends with its finished delta
    body = {
        "id": exchange.id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": gateway.model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": exchange.answer},
                "logprobs": None,
                "finish_reason": last.finish_reason,
            }
        ],
        "usage": _usage(last),
        "system_fingerprint": exchange.route.version,
    }
    return JSONResponse(body, headers=headers)


async def _first(gateway: Gateway, exchange: Exchange, stream: AsyncIterator[Delta]) -> Delta:
    try:
        return await anext(stream)
    except Exception as error:
        raise await _failed(gateway, exchange, error) from None


async def _events(
    gateway: Gateway,
    exchange: Exchange,
    first: Delta,
    stream: AsyncIterator[Delta],
    usage: bool,
    held: contextlib.ExitStack,
) -> AsyncIterator[bytes]:
    """Server-sent events; the interaction is durable before the last of them."""
    created = int(time.time())
    done = False

    def chunk(delta: dict[str, str] | None, finish: str | None = None, **more: Any) -> bytes:
        choices = [] if delta is None else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
        data = {
            "id": exchange.id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": gateway.model,
            "system_fingerprint": exchange.route.version,
            "choices": choices,
        }
        if usage:
            data["usage"] = None
        return _sse({**data, **more})

    with held:
        try:
            yield chunk({"role": "assistant", "content": ""})
            if first.text:
                yield chunk({"content": first.text})
            async for delta in stream:
                if delta.text:
                    yield chunk({"content": delta.text})
            last = exchange.last
            assert last is not None  # noqa: S101 - an engine's stream ends with its finished delta
            done = True
            await _commit(gateway, exchange)
            _count(gateway, exchange, 200)
            yield chunk({}, last.finish_reason)
            if usage:
                yield chunk(None, usage=_usage(last))
            yield b"data: [DONE]\n\n"
        except Exception as error:
            known = error if done and isinstance(error, TidemillError) else await _failed(gateway, exchange, error)
            done = True
            yield _sse(error_body(known))
        finally:
            if not done:
                # The caller went away. What was answered so far is recorded, but nobody waits for it.
                gateway.recorder.submit(exchange, ("cancelled",)).add_done_callback(_ignore)
                _count(gateway, exchange, 499)
            await stream.aclose()  # type: ignore[attr-defined]


def _ignore(done: asyncio.Future[None]) -> None:
    if not done.cancelled():
        done.exception()


def _sse(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n"


def _usage(last: Delta) -> dict[str, int]:
    return {
        "prompt_tokens": last.tokens_in,
        "completion_tokens": last.tokens_out,
        "total_tokens": last.tokens_in + last.tokens_out,
    }


async def _commit(gateway: Gateway, exchange: Exchange) -> None:
    """Make the interaction durable. Outside a rollout an answer is worth more than its record; inside, not.

    Raises:
        StoreError: it is part of a rollout's evidence and could not be committed.
    """
    try:
        await gateway.recorder.commit(exchange)
    except (TidemillError, TimeoutError) as error:
        gateway.metrics.count("tidemill_record_failures_total")
        if exchange.route.rollout_id is not None:
            _count(gateway, exchange, 503)
            raise StoreError("the answer could not be recorded", found=type(error).__name__) from None


async def _failed(gateway: Gateway, exchange: Exchange, error: Exception) -> TidemillError:
    """Record a request without an answer; a caller's own mistake is no evidence against the version."""
    known = error if isinstance(error, TidemillError) else unexpected(error)
    status = status_of(known)
    _count(gateway, exchange, status)
    if status >= 500 and not _refused_before_start(known):
        try:
            await gateway.recorder.commit(exchange, ("error",))
        except (TidemillError, TimeoutError):
            gateway.metrics.count("tidemill_record_failures_total")
    return known


def _refused_before_start(error: TidemillError) -> bool:
    """True where the queue was full: that says nothing about the version the request would have met."""
    return isinstance(error, UnavailableError) and error.code == "queue_full"


def _count(gateway: Gateway, exchange: Exchange, status: int) -> None:
    version, last = exchange.route.version, exchange.last
    gateway.metrics.count("tidemill_requests_total", version=version, arm=exchange.route.arm, code=str(status))
    if last is not None:
        gateway.metrics.count("tidemill_tokens_total", last.tokens_in, version=version, direction="in")
        gateway.metrics.count("tidemill_tokens_total", last.tokens_out, version=version, direction="out")
        gateway.metrics.observe_latency(version, exchange.seconds)
