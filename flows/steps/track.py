"""Open the tracking run of a retrain. Without a tracking server the retrain goes on; only `register` needs it."""

from __future__ import annotations

from configs.errors import NotFoundError, RegistryError
from flows.ledger import Output
from flows.run import Run
from training.code import code_commit


def track(run: Run) -> Output:
    """Start a run in the registry's experiment with the parameters and digests of this retrain."""
    snapshot = run.snapshot
    params = {key: str(value) for key, value in run.section("training").items()}
    tags = {
        "tidemill.request": run.request_id,
        "tidemill.dataset_digest": snapshot.digest,
        "tidemill.contract_digest": snapshot.contract_digest,
        "tidemill.base_digest": snapshot.base_digest,
        "tidemill.code_commit": code_commit(),
    }
    try:
        run.tracking = run.context.registry.start_run(run.ledger.request.title, params, tags)
    except RegistryError as error:
        run.observer.log(f"No tracking run: {error}")
        return {"run_id": "", "url": ""}
    try:
        run.tracking.log_dataset(snapshot)
    except RegistryError as error:
        # The digest is among the run's tags too; a missing dataset input is no reason to go without live metrics.
        run.observer.log(f"The dataset is not listed with the run: {error}")
    run.observer.log(f"Live metrics: {run.tracking.run_url}")
    return {"run_id": run.tracking.run_id, "url": run.tracking.run_url}


def resume_tracking(run: Run) -> None:
    """Go on with the tracking run an earlier attempt opened."""
    run_id = run.outputs["track"].get("run_id")
    if run.tracking is None and run_id:
        try:
            run.tracking = run.context.registry.open_run(run_id)
        except (RegistryError, NotFoundError) as error:
            run.observer.log(f"The tracking run cannot be resumed: {error}")
