"""The private part of a training job: whose rows are whose, the key of the noise, and what the card says of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import TrainingError
from configs.privacy import PrivacySection
from configs.schema import TrainingSection
from data_contracts.digests import digest
from data_contracts.records import PrivacyMechanism, SnapshotRow
from training.data import TokenisedRows
from training.noise import SecretStream
from training.private_loop import PrivateRows, by_person

KEY, OWNERS = "privacy.key", "privacy.owners.json"
"""In the work folder, beside the checkpoint."""
NOT_COVERED = (
    "who is in the snapshot: curation compares people's rows with each other",
    "how many people, rows and tokens there are, by kind",
    "the gate's verdict, which is formed on the rows of held-out people",
    "the strength that `evaluation.scales` chooses, without noise, on the rows of held-out people",
    "how long the run and its steps took, which the times of progress and metrics tell",
    "whoever corrected somebody else's answer: the person protected is the one who asked",
    "somebody with several names, as one person",
)
"""What a private run's card says the guarantee does not reach."""


@dataclass(frozen=True)
class PrivateJob:
    """What a job says of privacy.

    Attributes:
        charge: id of the charge in the ledger.
        mechanism: what was paid for.
        owners: for each row of the split `train`, in order, the number of its person; None for a public one.
        key: the key of the noise.
    """

    charge: str
    mechanism: PrivacyMechanism
    owners: tuple[int | None, ...]
    key: bytes

    @classmethod
    def of(cls, data: dict[str, Any] | None, config: TrainingSection) -> PrivateJob | None:
        """Read it; None for a run without privacy.

        Raises:
            TrainingError: the job and its training section do not agree on privacy, or a file of it is missing.
        """
        if (data is None) != (config.privacy is None):
            raise TrainingError(
                "a private run is started by the retrain flow, which pays for it first",
                where="training.privacy",
                expected="a charge in the privacy ledger" if data is None else "a training section with `privacy`",
                found="none",
            )
        if data is None:
            return None
        try:
            owners = json.loads(Path(data["owners"]).read_text(encoding="utf-8"))
            mechanism = PrivacyMechanism.model_validate(data["mechanism"])
            return cls(str(data["charge"]), mechanism, tuple(owners), Path(data["key"]).read_bytes())
        except (KeyError, OSError, ValueError) as error:
            raise TrainingError(
                "the private part of a training job cannot be read", found=error, fix="run the retrain again"
            ) from error

    def fingerprint(self, plain: str) -> str:
        """Digest of everything that decides the outcome, from that of the job without its private part."""
        return digest([plain, self.charge, self.mechanism.model_dump(mode="json")])

    def stream(self, fingerprint: str) -> SecretStream:
        """The run's secret randomness."""
        return SecretStream(self.key, fingerprint)

    def rows(self, snapshot_rows: Sequence[SnapshotRow], tokenised: TokenisedRows) -> PrivateRows:
        """The tokenised rows by person.

        Raises:
            TrainingError: owners of another snapshot; or see `by_person`.
        """
        if len(self.owners) != len(snapshot_rows):
            raise TrainingError(
                "these are the owners of another snapshot's rows",
                where=OWNERS,
                expected=f"{len(snapshot_rows)} rows",
                found=f"{len(self.owners)} rows",
            )
        owner = dict(zip((row.digest for row in snapshot_rows), self.owners, strict=True))
        return by_person(tokenised.rows, [owner[one] for one in tokenised.digests], self.mechanism.people)

    def card(self, privacy: PrivacySection) -> dict[str, Any]:
        """What manifest and training card say."""
        return {
            "unit": "person",
            **self.mechanism.model_dump(mode="json"),
            "incidents": privacy.incidents,
            "charge": self.charge,
            "not_covered": list(NOT_COVERED),
        }
