"""One retrain from its request to a promoted or rejected version: a claim, then steps in the ledger.

Nothing here knows Prefect: `flows.prefect_flows` passes a `wrap` that makes each step a task.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from configs.deciding import HOW
from configs.errors import (
    RegistryError,
    StaleTokenError,
    StoreError,
    TidemillError,
    UnavailableError,
    WorkerLostError,
)
from flows.best import pin_best
from flows.context import Context
from flows.ledger import Ledger, Output
from flows.observer import Observer
from flows.privacy import forget_key
from flows.run import Run
from flows.steps.evaluate import evaluate, pin_champion
from flows.steps.gate import gate
from flows.steps.ingest import ingest
from flows.steps.register import register
from flows.steps.rollout import await_rollout, begin_rollout
from flows.steps.snapshot import snapshot
from flows.steps.sweep import sweep
from flows.steps.track import resume_tracking, track
from flows.steps.train import pin_reference, train
from flows.steps.validate import validate_rows
from store import audit, requests, steps, versions

Work = Callable[[], Output]
Wrap = Callable[[str, Work], Output]

MAX_ATTEMPTS = 8
"""Attempts of a retrain that meets outages; the pause between them doubles from the lease to ten minutes."""
MAX_CLAIMS = 20
"""Claims of a retrain whose process dies each time, before it is given up."""
MAX_PAUSE_S = 600.0
SWEEP_SETTINGS = ("scales", "scale_gain_kept", "reduce_intruders")
"""Settings of the evaluation that say nothing where no scale is tried."""
# Worth another attempt: something outside was down. Everything else would fail the same way again.
RETRIABLE = (RegistryError, UnavailableError, StoreError, WorkerLostError)


def plain(_name: str, work: Work) -> Output:
    """Run a step as it is."""
    return work()


def _inputs(run: Run, name: str) -> dict[str, Any]:
    """Everything a step's output depends on (its digest decides whether an earlier output stands)."""
    out = run.outputs
    training = run.context.config.training
    thumbs = training.objectives.kto.model_dump(mode="json") if run.thumbs_teach else {}
    if name == "ingest":
        return {"request": run.request_id, **({"thumbs": True} if thumbs else {})}
    if name == "validate":
        return {"rows": out["ingest"]["digest"], "contract": run.changed("ingest")}
    if name == "snapshot":
        sections = {key: run.changed(key) for key in ("curation", "replay", "model")}
        more = {"thumbs": thumbs} if thumbs else {}
        return {"rows": out["ingest"]["digest"], "contract": out["validate"]["contract_digest"], **sections, **more}
    if name in ("track", "pin_champion", "pin_best", "pin_reference"):
        return {"request": run.request_id, "snapshot": run.snapshot.digest}
    if name == "train":
        against = {"reference": out["pin_reference"]} if "pin_reference" in out else {}
        settings = {key: value for key, value in run.changed("training").items() if key not in HOW}
        return {"snapshot": run.snapshot.digest, "training": settings, **against}
    chosen = {"choice": out["sweep"]["choice_digest"]} if "sweep" in out else {}
    if name in ("sweep", "evaluate"):
        # What was evaluated by an earlier version of Tidemill stands: settings of the sweep count where there is one.
        evaluation = run.changed("evaluation")
        if not run.context.config.evaluation.scales:
            evaluation = {key: value for key, value in evaluation.items() if key not in SWEEP_SETTINGS}
        pinned = {"champion": out["pin_champion"]["version"], "best": out["pin_best"]["version"]}
        about = {"snapshot": run.snapshot.digest, **pinned, "evaluation": evaluation}
        if name == "sweep":
            return {"adapter": run.trained.digest, **about, "gate": run.changed("gate")}
        return {"adapter": run.artifact.digest, **about, **chosen}
    if name == "gate":
        about = {"report": out["evaluate"]["path"], "gate": run.changed("gate")}
        return {"adapter": run.artifact.digest, **about, **chosen}
    return {"adapter": run.artifact.digest, "step": name}


def _step(run: Run, wrap: Wrap, name: str, work: Callable[[Run], Output]) -> Output:
    inputs = _inputs(run, name)
    output = wrap(name, lambda: run.ledger.step(name, inputs, lambda: work(run)))
    run.outputs[name] = output
    return output


def _steps(run: Run, wrap: Wrap) -> tuple[str, str]:
    """Do what is not proved done; return (outcome, detail).

    A retrain whose canary is out only waits for it: people are being answered by what was proved then, and other
    settings or another version of Tidemill since must not train, judge or register anything under its feet.
    """
    with run.context.store.read() as conn:
        done = steps.outputs(conn, run.request_id)
    if "begin_rollout" in done:
        run.outputs |= done
        forget_key(run)
        verdict = _step(run, wrap, "await_rollout", await_rollout)
        return str(verdict["state"]), str(verdict["reason"])
    _step(run, wrap, "ingest", ingest)
    _step(run, wrap, "validate", validate_rows)
    if not _step(run, wrap, "snapshot", snapshot)["trainable"]:
        return "no_data", "no row may teach; see the quarantine"
    _step(run, wrap, "track", track)
    resume_tracking(run)
    if run.context.config.training.objectives.reference == "champion":
        _step(run, wrap, "pin_reference", pin_reference)
    _step(run, wrap, "train", train)
    forget_key(run)
    same = _same_as(run)
    if same:
        return "unchanged", f"the adapter is that of {same}: the same rows and settings train the same weights"
    _step(run, wrap, "pin_champion", pin_champion)
    _step(run, wrap, "pin_best", pin_best)
    if run.context.config.evaluation.scales:
        _step(run, wrap, "sweep", sweep)
        same = _same_as(run)
        if same:
            return "unchanged", f"the adapter at the chosen strength is that of {same}"
    _step(run, wrap, "evaluate", evaluate)
    _step(run, wrap, "gate", gate)
    if not run.decision.accepted:
        outcome = "inconclusive" if run.decision.verdict == "inconclusive" else "blocked"
        return outcome, " ".join(run.decision.reasons)
    _step(run, wrap, "register", register)
    _step(run, wrap, "begin_rollout", begin_rollout)
    verdict = _step(run, wrap, "await_rollout", await_rollout)
    return str(verdict["state"]), str(verdict["reason"])


def _same_as(run: Run) -> str:
    """Name of a version of another retrain with this very adapter; a second canary of it would show nothing."""
    with run.context.store.read() as conn:
        found = versions.by_digest(conn, run.artifact.digest)
        if found is None or versions.request_of(conn, found.name) == run.request_id:
            return ""
    return found.name


def run_retrain(
    context: Context,
    request_id: str,
    observer: Observer,
    wrap: Wrap = plain,
    cancelled: Callable[[], bool] = lambda: False,
) -> str:
    """Claim a request and bring it to its end.

    Args:
        context: the installation.
        request_id: the request.
        observer: where progress is shown.
        wrap: makes each step a task of a scheduler.
        cancelled: asked when the process is told to stop: True if a person cancelled the run, False if its machine goes
            down and the retrain should go on elsewhere.

    Returns:
        The outcome (`promoted`, `rolled_back`, `blocked`, `inconclusive`, `unchanged`, `no_data`, ...), or
        `claimed elsewhere` when another run has the request or it is finished.

    Raises:
        TidemillError: the retrain failed; the request says why. An outage leaves the request to the reconcile schedule
            until `MAX_ATTEMPTS`.
    """
    ledger = Ledger.claim(context.store, request_id, context.config.stack.lease_s)
    if ledger is None:
        observer.log(f"Request {request_id} is not mine to do: claimed elsewhere, or finished.")
        return "claimed elsewhere"
    run = Run(context, ledger, observer)
    if ledger.request.attempt > MAX_CLAIMS:
        ledger.finish("error", f"its process died {ledger.request.attempt - 1} times; see the logs", failed=True)
        return "error"
    observer.log(f"{ledger.request.title}: attempt {ledger.request.attempt}, token {ledger.request.token}.")
    with ledger:
        try:
            outcome, detail = _steps(run, wrap)
        except StaleTokenError:
            raise
        except TidemillError as error:
            _close_tracking(run, "FAILED")
            if isinstance(error, RETRIABLE) and ledger.request.attempt < MAX_ATTEMPTS:
                _release(run)
            else:
                ledger.finish("error", str(error), failed=True)
            raise
        except Exception as error:
            if ledger.request.attempt < MAX_ATTEMPTS:
                _release(run)
            else:
                ledger.finish("error", f"{type(error).__name__}: {error}", failed=True)
            raise
        except BaseException:
            _stopped(run, cancelled)
            raise
        _close_tracking(run, "FINISHED")
        ledger.finish(outcome, detail)
    observer.log(f"{ledger.request.title}: {outcome}. {detail}")
    return outcome


def _release(run: Run) -> None:
    """Let the lease end after a pause that doubles with each attempt; then the reconcile schedule starts the next."""
    run.ledger.stop_renewing()
    pause = min(MAX_PAUSE_S, run.context.config.stack.lease_s * 2 ** (run.ledger.request.attempt - 1))
    with run.context.store.write() as conn:
        requests.renew(conn, run.request_id, run.ledger.request.token, pause)


def _stopped(run: Run, cancelled: Callable[[], bool]) -> None:
    """The process is told to stop: close a cancelled request, hand any other on at once."""
    _close_tracking(run, "FAILED")
    run.ledger.stop_renewing()
    with run.context.store.write() as conn:
        if cancelled():
            requests.cancel(conn, run.request_id)
            audit.append(conn, "prefect", "retrain.cancelled", run.request_id, {})
        else:
            requests.renew(conn, run.request_id, run.ledger.request.token, 0.0)


def _close_tracking(run: Run, status: Literal["FINISHED", "FAILED"]) -> None:
    if run.tracking is None:
        return
    try:
        run.tracking.finish(status)
    except RegistryError as error:
        run.observer.log(f"The tracking run could not be closed: {error}")
