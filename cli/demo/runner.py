"""`tidemill demo`: start the stack, play the acts, stop the stack, say what happened."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import time
from pathlib import Path

import store.audit
import store.quarantine
import store.requests
import store.rollouts
import store.snapshots
from cli import stack
from cli.demo.acts import Play, act_one, act_three, act_two
from cli.demo.customers import make_crowd
from cli.demo.desk import Desk
from cli.demo.memory import PeakMemory
from cli.demo.narrator import Narrator
from cli.demo.result import DemoResult
from cli.demo.script import FULL, SHORT, Script
from cli.demo.story import COMPANY, Story, earlier_lines, load_story
from cli.demo.talk import Customers
from configs.errors import DemoError, TidemillError
from configs.loader import load_config
from configs.paths import StateDir
from configs.schema import Config
from flows.context import Context, open_context

MARKER = "demo.json"
_ACTS = {1: act_one, 2: act_two, 3: act_three}


def fresh_state(state: StateDir) -> None:
    """An empty state directory; an earlier demo's is removed, anything else is left alone.

    Raises:
        DemoError: the folder holds something that no demo made, or an earlier demo still runs there.
    """
    root = state.root
    if root.exists() and any(root.iterdir()):
        if not (root / MARKER).is_file():
            raise DemoError(
                "the demo wants a state directory of its own",
                where=root,
                expected="an empty folder, or one an earlier demo made",
                found="other files",
                fix="set state_dir in the profile to another folder",
            )
        stack.stop(state)
        shutil.rmtree(root)
    root.mkdir(parents=True, exist_ok=True)
    (root / MARKER).write_text("{}\n", encoding="utf-8")


def import_earlier(context: Context, story: Story, script: Script, narrator: Narrator) -> None:
    """Write the earlier interactions as JSON lines and import them like anybody's logs."""
    from data_contracts.sources.jsonl import import_jsonl

    path = context.state.root / "earlier.jsonl"
    lines = earlier_lines(story, context.model, script.earlier, chat_share=script.chat_share)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    import_jsonl(context.store, context.config, path, context.state.key)
    narrator.say(
        f"{script.earlier} earlier interactions imported: what customers used to ask, the reference for drift."
    )


def _introduce(narrator: Narrator, config: Config, script: Script, info: stack.StackInfo) -> None:
    narrator.say("Everything runs. Have a look while the story goes on:")
    narrator.link("Gateway (OpenAI-compatible)", f"{info.gateway_url}/v1")
    narrator.link("Prefect", info.prefect_ui_url)
    narrator.link("MLflow", info.mlflow_url)
    slos = ", ".join(f"{name} {share:.0%}" for name, share in config.rollout.guardrails.items())
    stages = " -> ".join(f"{share:.0%}" for share in (*config.rollout.stages, 1.0))
    narrator.say(f"Sized for two cores, so loose: canary stages {stages}; SLOs {slos};")
    narrator.line(
        f"         anchors may lose at most {config.gate.anchors.margin:.0%} (margin), checked with power "
        f"{config.gate.power:.0%}; answers of at most {config.serving.default_max_tokens} tokens; "
        f"{script.crowd} customers, 8 at a time."
    )


def _totals(context: Context, result: DemoResult) -> None:
    """Counts from the store, not from what the demo believes it did."""
    with context.store.read() as conn:
        rollouts = store.rollouts.list_rollouts(conn, context.model)
        requests = store.requests.list_requests(conn, context.model)
        latest = store.snapshots.latest(conn, context.model)
        held = store.quarantine.list_rows(conn, context.model, status="held")
        result.audit_entries = store.audit.verify(conn)
    result.promoted_versions = sum(r.state == "promoted" for r in rollouts)
    result.rolled_back_versions = sum(r.state == "rolled_back" for r in rollouts)
    result.retrains = sum(r.attempt > 0 for r in requests)
    result.rows_accepted = latest.feedback_rows if latest else 0
    result.rows_quarantined = len(held)


def check_story(result: DemoResult, script: Script) -> None:
    """Add a sentence to `failures` for every part of the story that did not happen."""
    lessons = sum(act in (1, 2) for act in script.acts)
    before, after = result.exact_match_before, result.exact_match_after
    wanted = {
        "answers got better": before is not None and after is not None and after >= before + 0.5,
        f"{lessons} retrain(s) were started by triggers": result.retrains == lessons,
        f"{lessons} version(s) were promoted": result.promoted_versions == lessons,
        "1 version was rolled back": 3 not in script.acts or result.rolled_back_versions == 1,
        "drift was detected": 2 not in script.acts or result.drift_detected is True,
        "the gate passed": result.gate == "pass",
        "rows were accepted": result.rows_accepted > 0,
        "rows were quarantined": result.rows_quarantined > 0,
        "no request failed": result.failed_requests == 0,
    }
    result.failures += [f"did not happen: {sentence}" for sentence, happened in wanted.items() if not happened]


def _play(config: Config, state: StateDir, script: Script, narrator: Narrator, result: DemoResult) -> None:
    story = load_story(script.sizes, things=script.things, seed=script.seed)
    crowd = make_crowd(config.curation, script.crowd)
    narrator.chapter(f"{COMPANY}, a kitchenware shop with a support assistant")
    narrator.say("Starting Prefect, MLflow, the gateway and a worker.")
    with narrator.bar("starting the stack"):
        info = stack.start(config, state, say=narrator.say)
    context = open_context(load_config(str(state.resolved_config)))
    customers = Customers(info.gateway_url, context.model, seed=script.seed)
    try:
        _introduce(narrator, context.config, script, info)
        import_earlier(context, story, script, narrator)
        play = Play(Desk(context, info, narrator), script, story, crowd, customers, result)
        try:
            for act in script.acts:
                _ACTS[act](play)
        finally:
            _totals(context, result)
    finally:
        customers.close()
        context.store.close()


def run_demo(
    config: Config,
    state: StateDir,
    *,
    short: bool = False,
    out: Path | None = None,
    narrator: Narrator | None = None,
    script: Script | None = None,
) -> DemoResult:
    """Play the story once; print the table, and the JSON object as the last line of stdout.

    Args:
        config: the profile (`demo`, or `demo-short`).
        state: its state directory; emptied if an earlier demo made it.
        short: acts 1 and 3 on a small budget.
        out: also write the JSON there; default `demo-result.json` in the state directory.
        narrator: who tells the story; default the terminal.
        script: numbers of the story; default those of `short`.

    Returns:
        The figures; `exit_code` is not 0 if any part of the story did not happen.
    """
    narrator = narrator or Narrator()
    script = script or (SHORT if short else FULL)
    result = DemoResult(short=short)
    started = time.monotonic()
    logging.getLogger("mlflow").setLevel(logging.WARNING)  # its notes would break into the story
    fresh_state(state)
    with PeakMemory(state.stack_file) as memory:
        try:
            _play(config, state, script, narrator, result)
        except TidemillError as error:
            result.failures.append(str(error))
            narrator.problem(error.message)
            narrator.line(f"         logs: {state.logs}")
        finally:
            stack.stop(state)
    result.peak_rss_mb = memory.peak_mb
    result.wall_s = time.monotonic() - started
    check_story(result, script)
    _finish(result, narrator, out or state.root / "demo-result.json")
    return result


def _finish(result: DemoResult, narrator: Narrator, out: Path) -> None:
    narrator.table("What happened", result.rows())
    for sentence in result.failures:
        narrator.problem(f"not ok: {sentence}")
    text = json.dumps(result.as_dict(), ensure_ascii=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
