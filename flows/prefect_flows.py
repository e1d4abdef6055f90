"""The Prefect flows `retrain` and `watch`: thin wrappers of plain functions a test calls without Prefect."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import httpx
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.deployments import run_deployment
from prefect.events import emit_event
from prefect.events.worker import EventsWorker
from prefect.runtime import flow_run

from configs.errors import TidemillError
from data_contracts.records import Cause, RetrainRequest, utc_now
from flows import triggers
from flows.context import context_from_environment
from flows.ledger import Output
from flows.pipeline import Work, run_retrain
from flows.prefect_observer import PrefectObserver
from flows.watch import watch as watch_once
from store import requests

RETRAIN_DEPLOYMENT = "tidemill-retrain/retrain"
WATCH_DEPLOYMENT = "tidemill-watch/watch"


class PrefectScheduler:
    """The scheduler seam on a real Prefect server."""

    def available(self) -> bool:
        """Ask the API's health route."""
        url = os.environ.get("PREFECT_API_URL", "")
        try:
            return bool(url) and httpx.get(f"{url}/health", timeout=5.0).is_success
        except httpx.HTTPError:
            return False

    def emit(self, event: str, resource: str, payload: dict[str, str]) -> None:
        """Emit and wait until the event has left this process."""
        emit_event(event=event, resource={"prefect.resource.id": resource}, payload=payload)
        EventsWorker.instance().wait_until_empty()

    def start(self, request: RetrainRequest, key: str) -> str:
        """Create a run of the retrain deployment; the server returns the same run for the same key."""
        run = run_deployment(
            RETRAIN_DEPLOYMENT,
            parameters={"request_id": request.id},
            flow_run_name=request.title,
            idempotency_key=key,
            timeout=0,
        )
        return str(run.id)  # type: ignore[union-attr]


@task(name="step", task_run_name="{name}", retries=0, persist_result=False)
def _step_task(name: str, work: Any) -> Output:  # noqa: ARG001 - the name is the run's name
    result: Output = work()
    return result


def _as_task(name: str, work: Work) -> Output:
    # Called directly, never submitted: a submitted subprocess would outlive a cancelled run.
    return _step_task.with_options(name=name)(name, _Opaque(work))


@contextmanager
def quiet_errors() -> Iterator[None]:
    """Errors as Prefect may keep them: an error's `found`, and the text of a foreign one, may quote a person's words.

    The class stays, so that the retrain decides as before; the whole text is in the ledger, which an erasure reaches.
    """
    try:
        yield
    except TidemillError as error:
        raise type(error)(error.message, where=error.where, expected=error.expected, fix=error.fix) from None
    except Exception as error:
        raise RuntimeError(f"{type(error).__name__}; its text is in the retrain's step in the store") from None


class _Opaque:
    """A callable Prefect shows as its name instead of trying to serialise what it closes over."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def __call__(self) -> Output:
        with quiet_errors():
            return self._work()

    def __repr__(self) -> str:
        return "step"


def _run_name() -> str:
    request_id = flow_run.parameters.get("request_id")
    if not request_id:
        return f"retrain {flow_run.parameters.get('cause', 'schedule')}"
    context = context_from_environment()
    with context.store.read() as conn:
        request = requests.get(conn, request_id)
    return request.title if request else f"retrain {request_id}"


def _cancelled() -> bool:
    """True if the server says that this run is being cancelled, rather than its machine going down."""
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(UUID(str(flow_run.id))).state
    except Exception:  # tolerated: the server is away; then the retrain goes on elsewhere
        return False
    return state is not None and state.type in (StateType.CANCELLING, StateType.CANCELLED)


@flow(name="tidemill-retrain", flow_run_name=_run_name, validate_parameters=True)
def retrain(request_id: str | None = None, cause: str = "schedule") -> str:
    """Bring one retrain request to its end.

    Args:
        request_id: a request made by a trigger; None opens one (the calendar, or a person in the UI).
        cause: `schedule` or `manual`, for a request opened here.
    """
    context = context_from_environment()
    if request_id is None:
        request, _ = triggers.record(
            context,
            Cause(kind="manual" if cause == "manual" else "schedule", at=utc_now(), detail={"title": cause}),
        )
        _, reason = triggers.update(context)
        with context.store.read() as conn:
            current = requests.get(conn, request.id)
        if current is None or current.status != "ready":
            return f"waiting: {reason}"
        request_id = request.id
    observer = PrefectObserver(f"retrain-{request_id[-12:]}")
    with quiet_errors():
        return run_retrain(context, request_id, observer, wrap=_as_task, cancelled=_cancelled)


@flow(name="tidemill-watch", flow_run_name="watch")
def watch() -> dict[str, Any]:
    """Look at drift and triggers, deliver events, reconcile."""
    context = context_from_environment()
    with quiet_errors():
        result = watch_once(context, PrefectScheduler(), PrefectObserver("watch"))
    if result is None:
        return {"skipped": True}
    return {
        "drift": result.drift.state,
        "findings": [f.test for f in result.drift.findings],
        "request": result.request.title if result.request else None,
        "waiting_for": result.waiting_for,
        "events": result.events,
        "started": list(result.started),
    }
