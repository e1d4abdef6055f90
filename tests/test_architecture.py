"""Who may import whom, and the one-importer rule."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "configs", "data_contracts", "store", "models", "training", "evaluation", "registry_hooks", "serving",
    "monitoring", "flows", "cli",
}  # fmt: skip
LEAVES = {"configs", "data_contracts"}
LEAF_MODULES = {
    "records", "redaction", "digests", "ids", "overlap", "snapshots",
    "snapshot_files", "snapshot_publish", "snapshot_erasure", "snapshot_sets",
}  # fmt: skip
MIDDLE = LEAVES | {"store", "models"}
MAY_IMPORT = {
    "configs": {"configs"},
    "data_contracts": MIDDLE,
    "store": LEAVES | {"store"},
    "models": LEAVES | {"models"},
    "training": MIDDLE | {"training"},
    "evaluation": MIDDLE | {"evaluation"},
    "registry_hooks": MIDDLE | {"registry_hooks"},
    "monitoring": MIDDLE | {"monitoring"},
    "serving": MIDDLE | {"serving", "monitoring", "registry_hooks"},
    "flows": PACKAGES - {"serving", "cli"},
    "cli": PACKAGES,
}
ONE_IMPORTER = {
    "prefect": lambda p: p.parts[0] == "flows",
    "mlflow": lambda p: (
        p.as_posix() in {"registry_hooks/mlflow_registry.py", "data_contracts/sources/mlflow_traces.py"}
    ),
    "great_expectations": lambda p: p.as_posix() == "data_contracts/expectations.py",
    "opacus": lambda p: p.as_posix() == "training/privacy.py",
    "trl": lambda p: p.parts[0] == "training",
}


def sources() -> list[Path]:
    return [path.relative_to(ROOT) for package in sorted(PACKAGES) for path in sorted((ROOT / package).rglob("*.py"))]


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def top_level_imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def test_there_are_sources() -> None:
    assert len(sources()) > 60
    assert {p.parts[0] for p in sources()} == PACKAGES


@pytest.mark.parametrize("path", sources(), ids=str)
def test_a_module_imports_only_what_its_package_may(path: Path) -> None:
    package = path.parts[0]
    for name in imports(path):
        target = name.split(".")[0]
        if target in PACKAGES:
            assert target in MAY_IMPORT[package], f"{path} imports {name}"
            if target == "data_contracts" and package in {"store", "models", "training", "monitoring"}:
                assert name.split(".")[1] in LEAF_MODULES, f"{path} imports {name}: not a leaf of data_contracts"


@pytest.mark.parametrize("path", sources(), ids=str)
def test_each_outside_system_has_one_importer(path: Path) -> None:
    for name in imports(path):
        rule = ONE_IMPORTER.get(name.split(".")[0])
        assert rule is None or rule(path), f"{path} imports {name}"


@pytest.mark.parametrize("path", [p for p in sources() if p.parts[0] == "data_contracts"], ids=str)
def test_leaves_of_data_contracts_import_only_leaves(path: Path) -> None:
    if path.with_suffix("").parts[1] not in LEAF_MODULES:
        pytest.skip("not a leaf")
    for name in imports(path):
        parts = name.split(".")
        if parts[0] in PACKAGES:
            assert parts[0] in LEAVES
            assert parts[0] == "configs" or parts[1] in LEAF_MODULES


def test_redaction_imports_alone() -> None:
    """Standard library only; its one error and the named-entity backend are imported where they are needed."""
    files = [path for path in sources() if path.with_suffix("").parts[:2] == ("data_contracts", "redaction")]
    assert len(files) > 5
    for path in files:
        for name in top_level_imports(path):
            root = name.split(".")[0]
            assert root in sys.stdlib_module_names or name.startswith("data_contracts.redaction."), f"{path}: {name}"
