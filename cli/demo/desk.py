"""Watching the loop: the demo never starts a retrain or moves traffic, it reads the store and says what it sees."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

import store.drift
import store.requests
import store.rollouts
import store.snapshots
import store.steps
import store.versions
from cli.demo.customers import Visit
from cli.demo.narrator import Bar, Narrator
from cli.demo.talk import Customers, Tally
from cli.stack import StackInfo
from configs.errors import DemoError, StoreError
from data_contracts.records import OPEN_REQUEST_STATUSES, OPEN_ROLLOUT_STATES, RetrainRequest, Rollout, Step
from flows.context import Context

T = TypeVar("T")
POLL_S = 0.7

STEPS = {
    "ingest": "collecting the feedback",
    "validate": "checking every row against the data contract",
    "snapshot": "curating, and letting the base answer the replay prompts",
    "track": "opening the MLflow run",
    "pin_reference": "noting what preferences are measured against",
    "train": "training a LoRA adapter",
    "pin_champion": "noting what serves now",
    "pin_best": "noting the best version accepted so far",
    "sweep": "trying the adapter at several strengths",
    "evaluate": "asking base, champion and candidate the same questions",
    "gate": "deciding",
    "register": "registering the version in MLflow",
    "begin_rollout": "asking for a canary",
    "await_rollout": "waiting for the canary's verdict",
}
"""Step of the ledger -> what it does."""


@dataclass
class Desk:
    """Where one looks from: the store, the servers' URLs, the narrator."""

    context: Context
    info: StackInfo
    narrator: Narrator

    @property
    def model(self) -> str:
        return self.context.model

    # --- facts ---------------------------------------------------------------------------------

    def request(self, number: int) -> RetrainRequest | None:
        """The retrain people call #number."""
        with self.context.store.read() as conn:
            found = store.requests.list_requests(conn, self.model, limit=200)
        return next((r for r in found if r.number == number), None)

    def steps(self, request: RetrainRequest) -> dict[str, Step]:
        """The ledger of a retrain, by step."""
        with self.context.store.read() as conn:
            return {step.name: step for step in store.steps.list_steps(conn, request.id)}

    def rollout(self, rollout_id: str) -> Rollout | None:
        """One rollout."""
        with self.context.store.read() as conn:
            return store.rollouts.get(conn, rollout_id)

    def rollout_of(self, request: RetrainRequest) -> Rollout | None:
        """The rollout a retrain asked for."""
        with self.context.store.read() as conn:
            return store.rollouts.by_request(conn, request.id)

    def rollout_history(self, rollout_id: str) -> tuple[int, dict[str, Any], list[Any]]:
        """Watermark, evidence and history of a rollout."""
        with self.context.store.read() as conn:
            return store.rollouts.state(conn, rollout_id)

    def findings(self) -> list[store.drift.FindingRow]:
        """Drift alarms, newest first."""
        with self.context.store.read() as conn:
            return store.drift.findings(conn, self.model)

    def reference_champion(self) -> str | None:
        """The champion the frozen drift reference belongs to."""
        with self.context.store.read() as conn:
            known = store.drift.state(conn, self.model)
        return None if known is None else str(known[2].get("champion", ""))

    # --- waiting -------------------------------------------------------------------------------

    def wait(
        self, what: str, look: Callable[[], T | None], limit_s: float, bar: Bar | None = None, note: str = ""
    ) -> T:
        """Look until there is something to see.

        Raises:
            DemoError: `limit_s` seconds went by.
        """
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            try:
                found = look()
            except StoreError:  # tolerated: a busy database; the next look tries again
                found = None
            if found is not None:
                return found
            if bar is not None:
                bar.update(note=note)
            time.sleep(POLL_S)
        raise DemoError(
            "the story did not go on", where=what, expected=f"within {limit_s:.0f} s", found="nothing happened"
        )

    def follow_retrain(self, number: int, limit_s: float) -> tuple[RetrainRequest, Rollout]:
        """Tell a retrain from its request to its canary.

        Raises:
            DemoError: it ended without a canary, or did not get so far in `limit_s` seconds.
        """
        said: set[str] = set()
        with self.narrator.bar(f"retrain #{number}", total=100) as bar:

            def look() -> tuple[RetrainRequest, Rollout] | None:
                request = self.request(number)
                if request is None:
                    return None
                self._tell(request, said, bar)
                if request.status not in OPEN_REQUEST_STATUSES and "begin_rollout" not in said:
                    raise DemoError(
                        f"{request.title} ended without a canary",
                        where=request.id,
                        found=f"{request.outcome}: {request.detail}",
                    )
                rollout = self.rollout_of(request) if "begin_rollout" in said else None
                return (request, rollout) if rollout is not None else None

            return self.wait(f"retrain #{number}", look, limit_s)

    def _tell(self, request: RetrainRequest, said: set[str], bar: Bar) -> None:
        claimed = ["claimed"] if request.status == "claimed" else []
        for key in [*(f"open:{n + 1}" for n in range(len(request.causes))), *claimed]:
            if key not in said:
                said.add(key)
                self._say_request(request, key)
        running = ""
        for name, step in self.steps(request).items():
            if step.status == "done" and name not in said:
                said.add(name)
                self._say_step(name, step.output or {})
            elif step.status == "running":
                running = name
        if running:
            percent, words = self._progress({"snapshot": "replay", "await_rollout": "rollout"}.get(running, running))
            bar.update(percent, f"{STEPS.get(running, running)}{words}", total=100)

    def _say_request(self, request: RetrainRequest, key: str) -> None:
        if key == "claimed":
            self.narrator.say(f"Prefect starts it: {request.title}.")
            if url := self._run_url(request):
                self.narrator.link("Prefect run", url)
            return
        cause = request.causes[int(key.removeprefix("open:")) - 1]
        if key == "open:1":
            self.narrator.say(f"Retrain #{request.number} is asked for, nobody pressed a button. Cause: {cause.title}.")
        else:
            self.narrator.say(f"Another cause joins retrain #{request.number}: {cause.title}.")

    def _say_step(self, name: str, out: dict[str, Any]) -> None:
        say = self.narrator.say
        if name == "validate":
            reasons = ", ".join(f"{reason} {n}" for reason, n in out.get("reasons", {}).items())
            say(f"Data contract: {out['accepted']} rows accepted, {out['quarantined']} quarantined ({reasons or '-'}).")
        elif name == "snapshot" and out.get("snapshot"):
            counts = ", ".join(f"{kind} {n}" for kind, n in out["snapshot"]["counts"].items())
            left = ", ".join(f"{reason} {n}" for reason, n in out.get("reasons", {}).items())
            say(f"Snapshot {out['snapshot']['digest'][:12]}: {counts}; left out: {left or 'nothing'}.")
        elif name == "track" and out.get("url"):
            self.narrator.link("MLflow run", out["url"])
        elif name == "train":
            made = out["artifact"]
            work = f"{made['steps']} steps on {made['tokens']} tokens"
            say(f"Adapter {made['digest'][:12]}: {work} in {made['seconds']:.0f} s.")
        elif name == "gate":
            say(f"Gate: {out['decision']['verdict']}.")
            for suite in out["decision"]["suites"]:
                self.narrator.line(
                    f"         {suite['suite']} against {suite['against']}: {suite['reference_mean']:.2f} -> "
                    f"{suite['candidate_mean']:.2f}; {suite['reason']}"
                )
            self.narrator.link("Report", out.get("report", ""))
        elif name == "register":
            version = out["version"]
            say(f"Registered in MLflow as version {version['number']}.")
            self.narrator.link("MLflow version", version.get("url") or self.info.mlflow_url)

    def _progress(self, bar: str) -> tuple[float | None, str]:
        """How far the Prefect server's newest progress artifact is, if it is the running step's; else nothing."""
        body = {"artifacts": {"type": {"any_": ["progress"]}}, "sort": "UPDATED_DESC", "limit": 1}
        found = self._prefect("artifacts/filter", body)
        words = str(found[0].get("description") or "") if found else ""
        if not words.startswith(f"{bar}: "):
            return None, ""
        try:
            return float(found[0]["data"]), words.removeprefix(bar)
        except (TypeError, ValueError):
            return None, ""

    def _run_url(self, request: RetrainRequest) -> str | None:
        name = f"retrain {request.model} #{request.number} "
        found = self._prefect("flow_runs/filter", {"flow_runs": {"name": {"like_": name}}, "limit": 1})
        return f"{self.info.prefect_ui_url}/runs/flow-run/{found[0]['id']}" if found else None

    def _prefect(self, route: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        try:
            response = httpx.post(f"{self.info.prefect_api_url}/{route}", json=body, timeout=5.0)
            return list(response.json()) if response.is_success else []
        except (httpx.HTTPError, ValueError):  # tolerated: only the story's decoration comes from here
            return []

    # --- canaries ------------------------------------------------------------------------------

    def follow_rollout(self, rollout: Rollout, limit_s: float) -> Rollout:
        """Tell a canary to its end.

        Raises:
            DemoError: it is still open after `limit_s` seconds.
        """
        stages = self.context.config.rollout.stages
        seen: set[tuple[str, int]] = set()

        def look() -> Rollout | None:
            now = self.rollout(rollout.id)
            if now is None:
                return None
            if now.state == "running" and (now.state, now.stage) not in seen:
                seen.add((now.state, now.stage))
                self.narrator.say(f"Canary: {now.candidate.version} answers {stages[now.stage]:.0%} of the customers.")
            return now if now.state not in OPEN_ROLLOUT_STATES else None

        ended = self.wait(f"canary of {rollout.candidate.version}", look, limit_s)
        self.narrator.say(f"{ended.candidate.version} is {ended.state.replace('_', ' ')}: {ended.reason}.")
        return ended

    @contextmanager
    def customers_talking(self, customers: Customers, visits: Iterable[Visit], label: str) -> Iterator[Tally]:
        """Customers talk in the background for the time of the block."""
        tally, stop, errors = Tally(), threading.Event(), list[Exception]()
        with self.narrator.bar(label) as bar:

            def run() -> None:
                try:
                    customers.talk(visits, tally, stop=stop, on_visit=lambda t: bar.update(note=_words(t)))
                except Exception as error:  # handed to the block's end
                    errors.append(error)

            thread = threading.Thread(target=run, name="customers", daemon=True)
            thread.start()
            try:
                yield tally
            finally:
                stop.set()
                thread.join(timeout=180)
        if errors:
            raise errors[0]


def _words(tally: Tally) -> str:
    parts = [f"{version}: {right} of {asked} right" for version, (asked, right) in sorted(tally.by_version.items())]
    return f"{tally.requests} requests; " + "; ".join(parts)
