"""The gateway's HTTP face. It imports neither Prefect nor MLflow: serving and rolling back need only the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from configs.paths import StateDir
from configs.schema import Config
from data_contracts.records import BASE_VERSION
from serving.auth import check_caller
from serving.chat import chat_completions
from serving.console.page import CONTENT_SECURITY_POLICY, render
from serving.engines.base import Engine
from serving.feedback_api import post_feedback, post_incident
from serving.gateway import Gateway
from serving.http_errors import guarded, plain_error
from serving.views import console_view, rollout_view
from store.engine import Store

Route = Callable[[Gateway, Request], Awaitable[Response]]


def create_app(
    config: Config,
    state: StateDir,
    *,
    engine: Engine | None = None,
    store: Store | None = None,
    controller: bool = True,
) -> FastAPI:
    """The gateway as an ASGI application.

    Args:
        config: the resolved profile.
        state: its state directory.
        engine: what generates; default the in-process engine on the configured base, loaded in the background.
        store: an open store, left open at the end; default the profile's, opened here.
        controller: run the rollout controller beside the gateway.

    Raises:
        StoreError: the store cannot be opened.
    """
    opened = store if store is not None else Store.open(state.store_url(config))
    gateway = Gateway(
        config=config, state=state, store=opened, owns_store=store is None, with_controller=controller, engine=engine
    )

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        gateway.start()
        try:
            yield
        finally:
            await asyncio.to_thread(gateway.close)

    app = FastAPI(title="Tidemill gateway", lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None)
    app.state.gateway = gateway
    routes: list[tuple[str, str, Route]] = [
        ("POST", "/v1/chat/completions", chat_completions),
        ("GET", "/v1/models", _models),
        ("POST", "/feedback", post_feedback),
        ("POST", "/incidents", post_incident),
        ("GET", "/rollout", _rollout),
        ("GET", "/metrics", _metrics),
        ("GET", "/", _console),
    ]
    for method, path, route in routes:
        app.add_route(path, guarded(_behind_key(gateway, route)), methods=[method])
    # Health needs no key: whoever restarts the process must be able to ask.
    app.add_route("/health", guarded(_with(gateway, _health)), methods=["GET"])
    app.add_exception_handler(HTTPException, _http_exception)
    return app


def _with(gateway: Gateway, route: Route) -> Callable[[Request], Awaitable[Response]]:
    async def handler(request: Request) -> Response:
        return await route(gateway, request)

    return handler


def _behind_key(gateway: Gateway, route: Route) -> Callable[[Request], Awaitable[Response]]:
    async def handler(request: Request) -> Response:
        check_caller(request, gateway.config.serving)
        return await route(gateway, request)

    return handler


async def _http_exception(_request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 500)
    code = {404: "unknown_url", 405: "method_not_allowed"}.get(status, "http_error")
    return plain_error(status, str(getattr(error, "detail", "error")), code)


async def _health(gateway: Gateway, _request: Request) -> Response:
    status, body = gateway.health()
    return JSONResponse(body, status)


async def _models(gateway: Gateway, _request: Request) -> Response:
    """The product model, and the versions that are loaded and can be pinned."""
    loaded = sorted(gateway.engine.loaded()) if gateway.engine else []
    names = [gateway.model, *(v for v in loaded if v != BASE_VERSION), *([BASE_VERSION] if loaded else [])]
    data: list[dict[str, Any]] = [
        {"id": name, "object": "model", "created": 0, "owned_by": "tidemill", "parent": gateway.config.model.base}
        for name in names
    ]
    return JSONResponse({"object": "list", "data": data})


async def _rollout(gateway: Gateway, _request: Request) -> Response:
    view = await asyncio.to_thread(rollout_view, gateway.store, gateway.model, gateway.config.rollout)
    return JSONResponse(view)


async def _metrics(gateway: Gateway, _request: Request) -> Response:
    pointer = gateway.router.pointer if gateway.router else None
    gauges = {
        "tidemill_queue": float(gateway.engine.queued() if gateway.engine else 0),
        "tidemill_in_flight": float(gateway.router.in_flight if gateway.router else 0),
        "tidemill_route_revision": float(pointer.revision if pointer else -1),
        "tidemill_canary_share": pointer.canary_share if pointer else 0.0,
    }
    return PlainTextResponse(gateway.metrics.render(gauges), media_type="text/plain; version=0.0.4")


async def _console(gateway: Gateway, _request: Request) -> Response:
    view = await asyncio.to_thread(console_view, gateway.store, gateway.model, gateway.config.rollout)
    headers = {"content-security-policy": CONTENT_SECURITY_POLICY, "x-content-type-options": "nosniff"}
    return HTMLResponse(render(view, gateway.health()[1]), headers=headers)
