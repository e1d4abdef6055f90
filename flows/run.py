"""What a step is given: the claimed request, the outputs so far and where to show progress."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from data_contracts.records import AdapterArtifact, DatasetSnapshot, GateDecision, Incident, LabelledRow, ModelVersion
from flows.context import Context
from flows.files import read_records
from flows.ledger import Ledger, Output
from flows.observer import Observer
from store import incidents

if TYPE_CHECKING:
    from evaluation.choice import ScaleChoice
    from registry_hooks.registry import RunHandle


@dataclass
class Run:
    """One claimed retrain on its way."""

    context: Context
    ledger: Ledger
    observer: Observer
    outputs: dict[str, Output] = field(default_factory=dict)
    tracking: RunHandle | None = None

    @property
    def request_id(self) -> str:
        return self.ledger.request.id

    @property
    def work_dir(self) -> Path:
        return self.context.run_dir(self.request_id)

    @property
    def snapshot(self) -> DatasetSnapshot:
        return DatasetSnapshot.model_validate(self.outputs["snapshot"]["snapshot"])

    @property
    def objective(self) -> Literal["superiority", "non_inferiority"]:
        """What the gate asks of the target."""
        from evaluation.gate import objective_for

        return objective_for(cause.kind for cause in self.ledger.request.causes)

    @property
    def trained(self) -> AdapterArtifact:
        """The adapter as training left it."""
        return AdapterArtifact.model_validate(self.outputs["train"]["artifact"])

    @property
    def artifact(self) -> AdapterArtifact:
        """The candidate: the adapter as trained, or at the strength that was chosen."""
        return AdapterArtifact.model_validate(self.outputs.get("sweep", self.outputs["train"])["artifact"])

    @property
    def scale_choice(self) -> ScaleChoice | None:
        """What the sweep over the adapter's strength found; None in a retrain without one."""
        from evaluation.choice import ScaleChoice

        if "sweep" not in self.outputs:
            return None
        return ScaleChoice.model_validate_json(Path(self.outputs["sweep"]["path"]).read_text(encoding="utf-8"))

    @property
    def decision(self) -> GateDecision:
        return GateDecision.model_validate(self.outputs["gate"]["decision"])

    @property
    def version(self) -> ModelVersion:
        return ModelVersion.model_validate(self.outputs["register"]["version"])

    @property
    def thumbs_teach(self) -> bool:
        """Whether the profile gives thumbs a weight in training."""
        return self.context.config.training.objectives.kto.weight > 0

    @property
    def thumbs(self) -> list[LabelledRow]:
        """The thumbs that `ingest` pulled."""
        path = self.outputs["ingest"].get("thumbs_path")
        return read_records(Path(path), LabelledRow) if path else []

    @property
    def incidents(self) -> list[Incident]:
        """The incidents this retrain knows of, as pinned by `ingest`, without those the contract refused."""
        refused = self.outputs.get("validate", {}).get("incidents_refused", ())
        pinned = set(self.outputs["ingest"]["incidents"]) - set(refused)
        with self.context.store.read() as conn:
            return [i for i in incidents.all(conn, self.context.model) if i.id in pinned]

    def section(self, name: str) -> dict[str, Any]:
        """One section of the profile as plain data."""
        section: dict[str, Any] = getattr(self.context.config, name).model_dump(mode="json")
        return section

    def changed(self, name: str) -> dict[str, Any]:
        """What the profile sets in one section, for a step's input digest.

        Settings at their default are left out, so that a version of Tidemill with one more of them lets a retrain on
        its way keep what it has.
        """
        section: dict[str, Any] = getattr(self.context.config, name).model_dump(mode="json", exclude_defaults=True)
        return section
