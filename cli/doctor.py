"""What `tidemill doctor` examines: profile, space, base model, store, audit log, processes, servers, requests."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from configs.errors import TidemillError
from configs.loader import cache_dir, load_config, resource_path, suite_place
from configs.paths import StateDir
from configs.schema import Config

MIN_FREE_GB = 5.0


@dataclass(frozen=True)
class Finding:
    """One thing examined; `state` is `ok`, `note` or `wrong`."""

    what: str
    state: str
    found: str
    fix: str = ""

    def as_dict(self) -> dict[str, str]:
        """For the table and for `--json`."""
        return asdict(self)


def examine(profile: str, state: str | None) -> list[Finding]:
    """Examine everything; a check that itself fails is a finding."""
    try:
        config = load_config(profile, {"state_dir": state} if state else None)
    except TidemillError as error:
        return [Finding("profile", "wrong", error.message, error.fix or str(error))]
    findings = [Finding("profile", "ok", config.profile)]
    checks: list[Callable[[Config], Iterator[Finding]]] = [_files, _suites, _contracts, _space, _base, _privacy, _store]
    checks.append(_stack)
    for check in checks:
        try:
            findings += list(check(config))
        except TidemillError as error:
            findings.append(Finding(check.__name__.strip("_"), "wrong", str(error), error.fix or ""))
    return findings


def _files(config: Config) -> Iterator[Finding]:
    for relative in (*config.ingest.by_kind().values(), config.replay.prompts):
        yield Finding("file", "ok", str(resource_path(relative)))


def _suites(config: Config) -> Iterator[Finding]:
    from evaluation.suites import load_suites
    from flows.suites import refuse_unfit

    found = load_suites(suite_place(relative) for relative in config.evaluation.anchors)
    refuse_unfit({name: suite.items for name, suite in found.items()}, config)
    for suite in found.values():
        frozen = f"frozen as version {suite.version}" if suite.version else "not frozen"
        yield Finding("suite", "ok", f"{suite.name}: {suite.size} items, {frozen}")


def _contracts(config: Config) -> Iterator[Finding]:
    from data_contracts.contract import load_contract
    from data_contracts.contract_kinds import check_kind

    for kind, relative in config.ingest.by_kind().items():
        path = resource_path(relative)
        contract = load_contract(path)
        check_kind(kind, contract, path)
        yield Finding("contract", "ok", f"{kind}: {contract.name}")


def _space(config: Config) -> Iterator[Finding]:
    root = StateDir.of(config).root
    existing = next(p for p in (root, *root.parents) if p.exists())
    free = shutil.disk_usage(existing).free / 1e9
    state = "ok" if free >= MIN_FREE_GB else "wrong"
    yield Finding("disk", state, f"{free:.1f} GB free at {existing}", "" if state == "ok" else "free some space")


def _base(config: Config) -> Iterator[Finding]:
    from models.cache import is_cached

    for name, reference in (("base model", config.model.base), ("embedder", config.model.embedder)):
        if is_cached(reference, cache_dir(config)):
            yield Finding(name, "ok", reference)
        else:
            yield Finding(name, "note", f"{reference} is not in the cache", "it is fetched at first use")


def _privacy(config: Config) -> Iterator[Finding]:
    from importlib.util import find_spec

    if config.training.privacy is not None and find_spec("opacus") is None:
        yield Finding("privacy", "wrong", "opacus is not installed", 'pip install "tidemill[privacy]"')


def _store(config: Config) -> Iterator[Finding]:
    from store import audit, erasure, requests
    from store.engine import Store

    state = StateDir.of(config)
    if config.store.url is None and not state.database.exists():
        yield Finding("store", "note", "not made yet", "`tidemill up` makes it")
        return
    store = Store.open(state.store_url(config), create=False)
    try:
        with store.read() as conn:
            yield Finding("store", "ok", store.dialect)
            yield Finding("audit log", "ok", f"{audit.verify(conn)} entries, chain unbroken")
            dead = requests.expired(conn, config.model.name)
            waiting = erasure.open_jobs(conn)
        if dead is not None:
            yield Finding("retrain", "note", f"{dead.title}: its run died", "the watch schedule starts it again")
        for job in waiting:
            left = "settles" if "retrain" in job.steps else f"{len(job.steps)} steps done"
            yield Finding("erasure", "note", f"{job.id} of {job.pseudonym}: {left}", "the watch schedule ends it")
    finally:
        store.close()


def _stack(config: Config) -> Iterator[Finding]:
    from cli.processes import is_alive, tail
    from cli.stack import read_stack

    known = read_stack(StateDir.of(config))
    if known is None:
        yield Finding("stack", "note", "not running", "`tidemill up` starts it")
        return
    info, children = known
    for child in children:
        if is_alive(child):
            yield Finding(child.name, "ok", f"process {child.pid}")
        else:
            yield Finding(child.name, "wrong", f"ended: {tail(child.log, 2)}", f"read {Path(child.log)}; down, then up")
    yield from _servers({"gateway": info.gateway_url, "mlflow": info.mlflow_url, "prefect": info.prefect_api_url})


def _servers(urls: dict[str, str]) -> Iterator[Finding]:
    import httpx

    for name, url in urls.items():
        try:
            ok = httpx.get(f"{url}/health", timeout=5.0).is_success
        except httpx.HTTPError:
            ok = False
        yield Finding(f"{name} answers", "ok" if ok else "wrong", url, "" if ok else f"is {name} up? read its log")
