"""Adapters and requests for the tests of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_contracts.digests import digest, tree_digest
from data_contracts.records import AdapterArtifact, DatasetSnapshot, Message, SnapshotRow, utc_now
from data_contracts.snapshots import publish
from registry_hooks.registry import RegisterRequest


def artifact(tmp_path: Path, n: int = 1) -> AdapterArtifact:
    """A folder with an adapter's files and its record."""
    folder = tmp_path / f"adapter-{n}"
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (folder / "adapter_model.safetensors").write_bytes(bytes([n]) * 64)
    (folder / "manifest.json").write_text("{}")
    return AdapterArtifact(
        digest=digest([n, tree_digest(folder)]),
        path=str(folder),
        base_digest="b" * 64,
        dataset_digest=digest(["data", n]),
        config_digest="c" * 64,
        code_commit="abc123",
        rank=16,
        alpha=32.0,
        steps=10,
        tokens=1000,
        seconds=1.5,
    )


def wanted(made: AdapterArtifact, model: str = "support-bot", **more: Any) -> RegisterRequest:
    """A request to register an artifact."""
    return RegisterRequest(model=model, artifact=made, gate="pass", tags={"tidemill.request": "r1"}, **more)


def snapshot(tmp_path: Path, model: str, rows: int) -> DatasetSnapshot:
    """A published snapshot of that many rows."""
    return publish(
        tmp_path / "snapshots",
        [
            SnapshotRow(
                digest=digest(["row", n]),
                split="train",
                source="correction",
                messages=(Message(role="user", content=f"secret {n}"),),
                completion="Soon.",
                row_id=f"f{n}",
            )
            for n in range(rows)
        ],
        model=model,
        contract_digest="c" * 64,
        base_digest="b" * 64,
        watermark=41,
        reasons={"cap": 2},
        replay={},
        created_at=utc_now(),
        sources={"store": "41"},
        config_digest="d" * 64,
    )
