"""What `tidemill deploy` makes on a Prefect server: the work pool, two deployments and two automations.

Run as `python -m flows.deployments` with $TIDEMILL_CONFIG and $PREFECT_API_URL set. Idempotent: a repeat updates.
`prefect.yaml` says the same for `prefect deploy --all`.
"""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from prefect import deploy as prefect_deploy
from prefect import flow as prefect_flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.events import EventTrigger
from prefect.events.actions import ChangeFlowRunState, RunDeployment
from prefect.events.schemas.automations import AutomationCore, Posture
from prefect.exceptions import ObjectAlreadyExists

from configs.schema import Config
from flows.context import CONFIG_VARIABLE, context_from_environment
from flows.delivery import EVENT

ROOT = Path(__file__).resolve().parent.parent
RETRAIN_ON_EVENT = "tidemill: retrain on request"
MARK_CRASHED = "tidemill: mark silent runs crashed"


def _work_pool(client: SyncPrefectClient, name: str) -> None:
    try:
        client.create_work_pool(WorkPoolCreate(name=name, type="process"))
    except ObjectAlreadyExists:
        return


def _deployments(config: Config, environment: dict[str, str]) -> list[Any]:
    variables = {"env": environment}
    retrain = prefect_flow.from_source(source=str(ROOT), entrypoint="flows/prefect_flows.py:retrain")
    watch = prefect_flow.from_source(source=str(ROOT), entrypoint="flows/prefect_flows.py:watch")
    return [
        retrain.to_deployment(
            name="retrain",
            cron=config.stack.retrain_cron,
            parameters={"cause": "schedule"},
            description="One retrain: ingest, validate, snapshot, train, evaluate, gate, register, rollout.",
            tags=["tidemill", config.model.name],
            job_variables=variables,
        ),
        watch.to_deployment(
            name="watch",
            interval=timedelta(seconds=config.stack.watch_interval_s),
            description="Looks at drift and triggers, delivers events, starts what got lost.",
            tags=["tidemill", config.model.name],
            job_variables=variables,
        ),
    ]


def _automations(retrain_id: Any, config: Config) -> list[AutomationCore]:
    return [
        AutomationCore(
            name=RETRAIN_ON_EVENT,
            description="A request became ready: start the retrain deployment with its id.",
            trigger=EventTrigger(
                expect={EVENT},
                match={"prefect.resource.id": "tidemill.model.*"},
                for_each={"prefect.resource.id"},
                posture=Posture.Reactive,
                threshold=1,
                within=timedelta(seconds=0),
            ),
            actions=[
                RunDeployment(
                    source="selected",
                    deployment_id=retrain_id,
                    parameters={"request_id": "{{ event.payload.request_id }}", "cause": "event"},
                )
            ],
        ),
        AutomationCore(
            name=MARK_CRASHED,
            description="No heartbeat and no end for three heartbeats: the run's process is gone.",
            trigger=EventTrigger(
                after={"prefect.flow-run.heartbeat"},
                expect={
                    "prefect.flow-run.heartbeat",
                    "prefect.flow-run.Completed",
                    "prefect.flow-run.Failed",
                    "prefect.flow-run.Cancelled",
                    "prefect.flow-run.Crashed",
                },
                match={"prefect.resource.id": "prefect.flow-run.*"},
                match_related={"prefect.resource.id": f"prefect.deployment.{retrain_id}"},
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                threshold=1,
                within=timedelta(seconds=3 * config.stack.heartbeat_s),
            ),
            actions=[ChangeFlowRunState(state=StateType.CRASHED, message="No heartbeat: the process is gone.")],
        ),
    ]


def _ensure_automation(client: SyncPrefectClient, wanted: AutomationCore) -> None:
    """Keep an existing automation's id: recreating one loses its state."""
    found = client.read_automations_by_name(wanted.name)
    if found:
        client.update_automation(found[0].id, wanted)
        for extra in found[1:]:
            client.delete_automation(extra.id)
    else:
        client.create_automation(wanted)


def deploy(config: Config, config_path: Path) -> dict[str, str]:
    """Create or update everything; returns name -> id of the deployments.

    Args:
        config: the resolved profile.
        config_path: where it is; every run gets it as $TIDEMILL_CONFIG.
    """
    environment = {
        CONFIG_VARIABLE: str(config_path),
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(int(config.stack.heartbeat_s)),
    }
    with get_client(sync_client=True) as client:
        _work_pool(client, config.stack.work_pool)
        ids = prefect_deploy(
            *_deployments(config, environment),
            work_pool_name=config.stack.work_pool,
            build=False,
            push=False,
            print_next_steps_message=False,
            ignore_warnings=True,
        )
        for automation in _automations(ids[0], config):
            _ensure_automation(client, automation)
    return {"retrain": str(ids[0]), "watch": str(ids[1])}


if __name__ == "__main__":
    opened = context_from_environment()
    print(json.dumps(deploy(opened.config, Path(os.environ[CONFIG_VARIABLE]))))  # noqa: T201
