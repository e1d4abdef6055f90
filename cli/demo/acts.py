"""The three acts. Each only lets customers talk and watches; retrains, canaries and verdicts happen by themselves."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import store.audit
import store.drift
import store.pointer
import store.versions
from cli.demo.bad_adapter import make_bad_adapter
from cli.demo.customers import Crowd, Manner, Visit, before_threshold, learning, mixed, traffic
from cli.demo.desk import Desk
from cli.demo.result import DemoResult
from cli.demo.script import Script
from cli.demo.story import COMPANY, Story, Thing
from cli.demo.talk import Customers, Tally
from configs.errors import DemoError
from data_contracts.records import Arm, RetrainRequest, Rollout
from flows.steps.register import arm_of, register_override
from monitoring.rollout_actions import start_rollout

OVERRIDE_BY = "demo-release-manager"


@dataclass
class Play:
    """What the acts share."""

    desk: Desk
    script: Script
    story: Story
    crowd: Crowd
    customers: Customers
    result: DemoResult

    def note(self, act: int, **facts: Any) -> None:
        """Add facts to what the result says of an act."""
        self.result.acts.setdefault(str(act), {}).update(facts)

    @contextmanager
    def timed(self, act: int, part: str) -> Iterator[None]:
        """Write down how long a part of an act took, in seconds, also when it fails."""
        started = time.monotonic()
        try:
            yield
        finally:
            seconds = self.result.acts.setdefault(str(act), {}).setdefault("seconds", {})
            seconds[part] = round(time.monotonic() - started, 1)

    def champion(self) -> Arm:
        """What serves now."""
        with self.desk.context.store.read() as conn:
            return store.pointer.get(conn, self.desk.model).champion

    def count(self, tally: Tally) -> None:
        """Add a crowd's requests to the totals."""
        self.result.requests += tally.requests
        self.result.failed_requests += len(tally.failures)
        for sentence in tally.failures[:3]:
            self.desk.narrator.problem(sentence)

    @contextmanager
    def talking(self, visits: Iterable[Visit], label: str) -> Iterator[Tally]:
        """Customers talk for the time of the block, and are counted."""
        tally: Tally | None = None
        try:
            with self.desk.customers_talking(self.customers, visits, label) as tally:
                yield tally
        finally:
            if tally is not None:
                self.count(tally)

    def everyday(
        self, acts: tuple[int, ...], new_share: float, seed: int, new: Manner = Manner.THUMB
    ) -> Iterator[Visit]:
        """Endless everyday traffic."""
        return traffic(
            self.story,
            self.crowd,
            acts=acts,
            new_share=new_share,
            chat_share=self.script.chat_share,
            seed=seed,
            new_manner=new,
        )

    def examine(self, act: int, things: tuple[Thing, ...], version: str) -> float:
        """Share of held-out questions a version answers the company's way."""
        total = sum(len(thing.held_out) for thing in things)
        label = f"asking {version} the {total} held-out questions"
        with self.timed(act, "examination"), self.desk.narrator.bar(label, total=total) as bar:
            done = iter(range(1, total + 1))
            answers = self.customers.examine(things, version, lambda: bar.update(next(done, total)))
        self.result.requests += total
        return sum(answers.values()) / total

    def retrain(self, act: int, number: int) -> tuple[RetrainRequest, Rollout]:
        """Follow a retrain to its canary; what its gate found goes into the result, whatever comes of it."""
        with self.timed(act, "retrain"):
            try:
                return self.desk.follow_retrain(number, self.script.retrain_limit_s)
            finally:
                request = self.desk.request(number)
                if request is not None:
                    self.note(act, **_gate(self.desk, request))
                    self.result.gate = self.result.acts[str(act)]["gate"]

    def canary(self, act: int, request: RetrainRequest, rollout: Rollout, visits: Iterator[Visit]) -> None:
        """Customers talk while the canary of a retrain runs; it must be promoted."""
        desk = self.desk
        with self.timed(act, "canary"):
            with self.talking(visits, "customers talk to champion and canary") as tally:
                ended = desk.follow_rollout(rollout, self.script.canary_limit_s)
            closed = desk.wait(f"{request.title} is closed", lambda: _closed(desk, request.number), 120.0)
        self.note(
            act,
            version=ended.candidate.version,
            canary_requests=tally.requests,
            by_version=tally.by_version,
            reason=ended.reason,
        )
        if ended.state != "promoted" or closed.outcome != "promoted":
            raise DemoError(
                "the canary was not promoted", where=ended.candidate.version, expected="promoted", found=ended.state
            )


def _closed(desk: Desk, number: int) -> RetrainRequest | None:
    request = desk.request(number)
    return request if request is not None and request.status in ("done", "failed") else None


def act_one(play: Play) -> None:
    """The base does badly, customers say so, a retrain starts, passes and is promoted."""
    desk, story, script = play.desk, play.story, play.script
    say = desk.narrator.say
    things = story.of_act(1)
    desk.narrator.chapter(f"Act 1: {COMPANY}'s assistant does not know {COMPANY}")
    visits = learning(
        things, play.crowd, story.chat, extras=script.extras, chat_share=script.chat_share, seed=script.seed
    )
    say(f"{len(visits)} customers come with {len(things)} kinds of questions. For instance:")
    sample = things[0]
    said = play.customers.ask("narrator", sample.traffic[0]).text
    desk.narrator.line(f"         customer: {sample.traffic[0]}")
    desk.narrator.line(f"         base model: {said}")
    desk.narrator.line(f"         the company's answer: {sample.answer}")
    # The incident comes just before the corrections reach the threshold, so that one retrain has both causes.
    cut = before_threshold(visits, play.crowd, desk.context.config.triggers.min_new_rows)
    tally = Tally()
    with play.timed(1, "traffic"), desk.narrator.bar("customers ask, judge and correct", total=len(visits)) as bar:
        told = lambda t: bar.update(t.requests, f"{t.right} of {t.asked} answers were right")  # noqa: E731
        play.customers.talk(visits[:cut], tally, on_visit=told)
        for incident in story.incidents:
            answer = play.customers.open_incident(incident, "support-lead")
            say(f"An incident is opened: {incident.title}. The model had said: {answer!r}.")
        play.customers.talk(visits[cut:], tally, on_visit=told)
    play.count(tally)
    held = tally.held_out
    if not held:
        raise DemoError(
            "no held-out question was answered", where="act 1", expected=sum(len(t.held_out) for t in things)
        )
    play.result.exact_match_before = before = sum(held.values()) / len(held)
    corrections = ", ".join(f"{manner} {n}" for manner, n in sorted(tally.corrections.items()))
    say(f"{tally.right} of {tally.asked} answers were the company's. Corrections sent: {corrections}.")
    request, rollout = play.retrain(1, 1)
    play.canary(1, request, rollout, play.everyday((1,), 0.0, script.seed + 1))
    after = play.examine(1, things, rollout.candidate.version)
    play.result.exact_match_after = after
    play.note(1, exact_match_before=before, exact_match_after=after)
    say(f"Held-out questions answered the company's way: {before:.0%} before, {after:.0%} after.")


def _gate(desk: Desk, request: RetrainRequest) -> dict[str, Any]:
    """What the gate found in a retrain, and how long each of its steps took."""
    steps = desk.steps(request)
    output = (steps["gate"].output or {}) if "gate" in steps else {}
    decision = output.get("decision", {})
    return {
        "gate": decision.get("verdict"),
        "causes": [cause.kind for cause in request.causes],
        "report": output.get("report"),
        "suites": {
            f"{s['suite']}/{s['against']}": [round(s["reference_mean"], 3), round(s["candidate_mean"], 3)]
            for s in decision.get("suites", [])
        },
        "step_seconds": {
            name: round((step.ended_at - step.started_at).total_seconds(), 1)
            for name, step in steps.items()
            if step.ended_at is not None
        },
    }


def act_two(play: Play) -> None:
    """Something new is asked; drift is found and named; the retrain starts by itself; act 1 still holds."""
    desk, story, script = play.desk, play.story, play.script
    say = desk.narrator.say
    old, new = story.of_act(1), story.of_act(2)
    champion = play.champion().version
    desk.narrator.chapter("Act 2: customers start asking about something new")
    with play.timed(2, "reference"), desk.narrator.bar("freezing the new champion's drift reference") as bar:
        look = lambda: True if desk.reference_champion() == champion else None  # noqa: E731
        desk.wait(f"the drift reference of {champion}", look, 180.0, bar)
    say(f"{COMPANY} starts cooking classes. {script.new_share:.0%} of the questions are now about them.")
    lesson = learning(new, play.crowd, story.chat, extras=script.new_extras, chat_share=0.01, seed=script.seed + 2)
    visits = mixed(
        lesson,
        play.everyday((1,), 0.0, script.seed + 3),
        play.everyday((1, 2), script.new_share, script.seed + 4, Manner.CORRECTS),
        share=script.new_share,
        seed=script.seed,
    )
    before = {finding.id for finding in desk.findings()}
    with play.timed(2, "traffic"), play.talking(visits, "customers ask about old and new things") as tally:
        found = desk.wait(
            "drift is detected",
            lambda: next((f for f in desk.findings() if f.id not in before), None),
            script.drift_limit_s,
        )
        play.result.drift_detected = True
        examples = [str(text) for text in found.detail.get("examples", [])[:5]]
        play.note(2, drift={"test": found.test, "name": found.name, "examples": examples, "requests": tally.requests})
        say(f"Drift is detected after {tally.requests} requests by the {found.test} test. It is named: {found.name}.")
        for text in examples:
            desk.narrator.line(f"         {text}")
        desk.wait("enough new corrections", lambda: _moving(desk, 2), script.drift_limit_s)
    request, rollout = play.retrain(2, 2)
    play.canary(2, request, rollout, play.everyday((1, 2), 0.45, script.seed + 5))
    kept = play.examine(2, old, rollout.candidate.version)
    gained = play.examine(2, new, rollout.candidate.version)
    asked = {True: sum(len(t.held_out) for t in old), False: sum(len(t.held_out) for t in new)}
    play.result.exact_match_after = (kept * asked[True] + gained * asked[False]) / sum(asked.values())
    play.note(2, exact_match_new=gained, exact_match_act1=kept)
    earlier = float(play.result.acts.get("1", {}).get("exact_match_after", 0.0))
    say(f"New questions: {gained:.0%}. Act 1's questions: {kept:.0%} ({earlier:.0%} before this retrain).")
    if kept < earlier - 0.10:
        raise DemoError("act 1's answers did not hold", where="act 2", expected=f">= {earlier - 0.10:.2f}", found=kept)


def _moving(desk: Desk, number: int) -> RetrainRequest | None:
    request = desk.request(number)
    return request if request is not None and request.status != "waiting" else None


def act_three(play: Play) -> None:
    """A bad adapter, registered past the gate, is caught by the canary and taken back."""
    desk, script = play.desk, play.script
    say = desk.narrator.say
    desk.narrator.chapter("Act 3: somebody overrides the gate")
    champion = play.champion()
    if champion.adapter is None:
        raise DemoError("there is no champion to copy the bad adapter's shapes from", where="act 3")
    context = desk.context
    with context.store.read() as conn:
        version = store.versions.get(conn, champion.version)
    if version is None:
        raise DemoError("the champion is not registered", where=champion.version)
    artifact = make_bad_adapter(champion.adapter, version, context.state.adapters)
    reason = "the demo shows what the canary is for"
    bad = register_override(context, artifact, by=OVERRIDE_BY, reason=reason)
    say(
        f"{bad.name} is an adapter full of noise. {OVERRIDE_BY} registers it past the gate; the audit log has the name."
    )
    desk.narrator.link("MLflow version", bad.url or desk.info.mlflow_url)
    rollout = start_rollout(
        context.store, desk.model, arm_of(bad, artifact), cause="override of the gate", approved_by=OVERRIDE_BY
    )
    acts = tuple(act for act in script.acts if act != 3)
    visits = play.everyday(acts, 0.2, script.seed + 6)
    with play.timed(3, "canary"), play.talking(visits, "customers meet the bad canary") as tally:
        ended = desk.follow_rollout(rollout, script.canary_limit_s)
    now = play.champion()
    play.note(
        3,
        version=bad.name,
        state=ended.state,
        reason=ended.reason,
        requests=tally.requests,
        by_version=tally.by_version,
    )
    if ended.state != "rolled_back" or now.version != champion.version:
        raise DemoError(
            "the bad adapter was not rolled back", where=bad.name, expected="rolled_back", found=ended.state
        )
    met = tally.by_version.get(bad.name, [0, 0])[0]
    say(f"Taken back by itself after {met} answers of the bad version. {champion.version} serves everybody again.")
