"""`tidemill review` and `tidemill quarantine` as people meet them."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.review import label_loop
from cli.visible import indented, visible, visible_line
from data_contracts.records import Feedback, Incident, Interaction, Message, QuarantinedRow, ReviewAnswer, utc_now
from data_contracts.review.desk import Desk
from flows.context import Context, open_context
from flows.review_feed import feed
from store import audit, feedback, incidents, interactions, quarantine, reviews
from tests.data_contracts.label_studio_server import LEGACY, State, serving
from tests.flows.flow_samples import tiny_config

ROOT = Path(__file__).parents[2]
TIDEMILL = [sys.executable, "-m", "cli.main"]
NASTY = "<|im_end|>\x1b[2Jrun [bold]this[/bold]\u202ereversed"


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    settings = {"gold_share": 0.0, "sample_share": 0.0}
    opened = open_context(tiny_config(tmp_path / "state", review=settings))
    (tmp_path / "mine.yaml").write_text(
        f"extends: smoke\nstate_dir: {tmp_path / 'state'}\nreview: {json.dumps(settings)}\n", encoding="utf-8"
    )
    yield opened
    opened.store.close()


@pytest.fixture
def run(context: Context, tmp_path: Path) -> Any:
    def one(*arguments: str, code: int = 0, stdin: str = "") -> Any:
        command = [*TIDEMILL, *arguments, "--profile", str(tmp_path / "mine.yaml")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, input=stdin)
        assert done.returncode == code, done.stderr + done.stdout
        assert "Traceback" not in done.stderr
        return json.loads(done.stdout) if "--json" in arguments else done.stdout + done.stderr

    return one


def hold(context: Context, row: str, reason: str = "uncorroborated", text: str = "On Tuesday.") -> None:
    served = Interaction(
        id=f"req-{row}", created_at=utc_now(), model=context.model, principal=f"user-{row}", conversation=row,
        messages=(Message(role="user", content=f"When? {NASTY}"),), answer="Later.",
    )  # fmt: skip
    said = Feedback(
        id=row, interaction_id=served.id, kind="correction", created_at=utc_now(), principal=f"user-{row}", text=text
    )
    with context.store.write() as conn:
        interactions.insert(conn, [served])
        feedback.insert(conn, [(context.model, said)])
        quarantine.put(conn, context.model, [QuarantinedRow(row_id=row, digest="d" * 64, reason=reason)], None)


def status(context: Context) -> dict[str, str]:
    with context.store.read() as conn:
        return quarantine.statuses(conn, context.model)


def test_user_text_cannot_steer_the_terminal() -> None:
    assert visible(NASTY) == "<|im_end|>\\x1b[2Jrun [bold]this[/bold]\\u202ereversed"
    assert visible("a\r\nb\tc\x00\x9b") == "a\nb\\x09c\\x00\\x9b"
    assert visible("Grüße, 你好 👍") == "Grüße, 你好 👍"
    assert visible("\U000e0041") == "\\U000e0041"
    assert indented("one\ntoken: x") == "    one\n    token: x"
    assert visible_line("a  b\n" + "c" * 99, 10) == "a b ccc..."


def test_next_label_and_stats_in_one_go(context: Context, run: Any) -> None:
    hold(context, "row-1")
    assert run("review", "feed", "--json")["added"] == {"quarantine": 1}
    shown = run("review", "next", "--by", "bea")
    assert "May this correction teach the model?" in shown
    assert "\\x1b[2Jrun [bold]this[/bold]\\u202e" in shown
    assert "\x1b" not in shown
    task = run("review", "next", "--by", "bea", "--json")["task"]
    assert task["token"] in shown
    assert run("review", "next", "--by", "cem", "--json") == {"task": None}
    assert "Nothing waits" in run("review", "next", "--by", "cem")
    (row,) = run("review", "list", "--json")
    assert (row["status"], row["labels"], row["rule"]) == ("leased", "0/1", "uncorroborated")
    common = ("--by", "bea", "--token", task["token"])
    done = run(
        "review", "label", task["item"], "--verdict", "correct", "--text", "-", *common, "--json", stdin="Friday."
    )
    assert done == {"item": task["item"], "result": "recorded"}
    again = run("review", "label", task["item"], "--verdict", "correct", "--text", "Friday.", *common, "--json")
    assert again["result"] == "recorded before"
    assert status(context) == {"row-1": "dropped"}
    assert run("review", "stats", "--json")["labellers"]["bea"]["labels"] == 1
    assert "labeller bea" in run("review", "stats")
    assert run("review", "list", "--json") == []
    assert run("review", "list", "--status", "all", "--json")[0]["outcome"] == "correct"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("label", "rv-none", "--verdict", "accept", "--by", "bea", "--token", "t"), 4),
        (("label", "ITEM", "--verdict", "maybe", "--by", "bea", "--token", "t"), 3),
        (("label", "ITEM", "--verdict", "correct", "--by", "bea", "--token", "t"), 3),
        (("label", "ITEM", "--verdict", "accept", "--by", "bea", "--token", "stale"), 12),
        (("adjudicate", "ITEM", "--verdict", "accept", "--by", "bea", "--token", "t"), 11),
        (("next", "--by", " "), 3),
        (("show", "rv-none"), 4),
        (("gold", "add", "nowhere.jsonl", "--by", "ops"), 3),
    ],
)
def test_exit_codes_are_stable(context: Context, run: Any, arguments: tuple[str, ...], code: int) -> None:
    hold(context, "row-1")
    feed(context)
    with context.store.read() as conn:
        (item,) = reviews.list_items(conn, context.model)
    said = run("review", *(item.id if a == "ITEM" else a for a in arguments), code=code)
    assert "error:" in said


def test_an_adjudicator_decides_on_the_command_line(context: Context, run: Any) -> None:
    hold(context, "row-1", reason="conflict")
    feed(context)
    for who, verdict in (("bea", "accept"), ("cem", "reject")):
        task = run("review", "next", "--by", who, "--json")["task"]
        run("review", "label", task["item"], "--verdict", verdict, "--by", who, "--token", task["token"], "--json")
    text = run("review", "next", "--by", "dan", "--adjudicate")
    assert "label 1:" in text
    assert re.search(r"\b(bea|cem)\b", text) is None
    task = run("review", "next", "--by", "dan", "--adjudicate", "--json")["task"]
    run("review", "adjudicate", task["item"], "--verdict", "accept", "--by", "dan", "--token", task["token"])
    assert status(context) == {"row-1": "released"}
    facts = json.loads(run("review", "show", task["item"]))
    assert [label["labeller"] for label in facts["labels"]] == ["bea", "cem", "dan"]


def test_gold_from_a_file_keeps_the_good_lines_and_names_the_bad(context: Context, run: Any, tmp_path: Path) -> None:
    good = {"messages": [{"role": "user", "content": "2+2?"}], "proposed": "5", "expected": {"verdict": "reject"}}
    lines = [
        json.dumps(good), "{", json.dumps({**good, "expected": {"verdict": "no"}}), "", "[]",
        json.dumps({**good, "guideline": "poetry"}), json.dumps({**good, "extra": 1}), json.dumps(good),
        json.dumps({**good, "expected": {"verdict": "correct"}}),
    ]  # fmt: skip
    path = tmp_path / "gold.jsonl"
    path.write_bytes("\n".join(lines).encode() + b"\n\xff\xfe{}\n")
    report = run("review", "gold", "add", str(path), "--by", "lead", "--json", code=3)
    assert (report["gold"], report["rejected"]) == (1, 7)
    assert [error.split(":")[0] for error in report["errors"]] == [f"line {n}" for n in (2, 3, 5, 6, 7, 9, 10)]
    assert run("review", "list", "--json") == []
    assert [row["kind"] for row in run("review", "list", "--kind", "gold", "--json")] == ["gold"]
    assert run("review", "withdraw", report["ids"][0], "--by", "lead", "--json") == {"withdrawn": 1}


def test_quarantine_is_listed_shown_released_and_dropped(context: Context, run: Any) -> None:
    for row, reason in (("r1", "uncorroborated"), ("r2", "suspect.burst"), ("r3", "suspect.new"), ("r4", "cap")):
        hold(context, row, reason, text=f"Mail bob@example.com {NASTY}")
    feed(context)
    assert [row["row_id"] for row in run("quarantine", "list", "--json")] == ["r1", "r2", "r3", "r4"]
    assert [row["row_id"] for row in run("quarantine", "list", "--reason", "suspect.*", "--json")] == ["r2", "r3"]
    shown = run("quarantine", "show", "r1")
    assert "\\x1b[2J" in shown
    assert "<EMAIL_1>" in shown
    assert "bob@" not in shown + json.dumps(run("quarantine", "show", "r1", "--json"))
    who = ("--by", "ops", "--reason", "checked")
    assert run("quarantine", "release", "r1", *who, "--json")["released"] == 1
    assert run("quarantine", "show", "r1", "--json")["review_items"][0]["status"] == "withdrawn"
    run("quarantine", "drop", "--reason-code", "suspect.*", *who, code=3)
    assert status(context)["r2"] == "held"
    dropped = run("quarantine", "drop", "--reason-code", "suspect.*", "--yes", *who, "--json")
    assert (dropped["dropped"], dropped["rows"]) == (2, ["r2", "r3"])
    assert status(context) == {"r1": "released", "r2": "dropped", "r3": "dropped", "r4": "held"}
    assert [row["row_id"] for row in run("quarantine", "list", "--json")] == ["r4"]
    with context.store.write() as conn:  # the next retrain: the released row says what another says already
        again = QuarantinedRow(row_id="r1", digest="d" * 64, reason="duplicate")
        quarantine.put(conn, context.model, [again], "retrain-2")
    listed = run("quarantine", "list", "--json")
    assert [(row["row_id"], row["status"], row["reason"]) for row in listed] == [
        ("r1", "released", "duplicate"),
        ("r4", "held", "cap"),
    ]
    assert [row["row_id"] for row in run("quarantine", "list", "--status", "held", "--json")] == ["r4"]
    for arguments, code in (
        (("release", "r9", *who), 4), (("release", *who), 3), (("drop", "r4", "--reason-code", "cap", *who), 3),
        (("drop", "--reason-code", "nothing", "--yes", *who), 4), (("list", "--status", "lost"), 3),
        (("show", "r9"), 4), (("release", "r4", "--by", " ", "--reason", "x"), 3),
    ):  # fmt: skip
        assert "error:" in run("quarantine", *arguments, code=code)


def test_a_held_incident_is_shown_and_kept_values_are_not_masked(context: Context, run: Any, tmp_path: Path) -> None:
    with (tmp_path / "mine.yaml").open("a", encoding="utf-8") as profile:
        profile.write("redaction: {ip: keep}\n")
    incident = Incident(
        id="inc-1", model=context.model, title="Router", opened_by="ann", opened_at=utc_now(),
        messages=(Message(role="user", content=f"Where is 10.1.2.3? {NASTY}"),), answer="Nowhere.",
        required="Ask bob@example.com.", paraphrases=("Is it lost?",),
    )  # fmt: skip
    held = QuarantinedRow(row_id="inc-1", digest="d" * 64, reason="contract.prompt_without_template_tokens")
    with context.store.write() as conn:
        incidents.insert(conn, incident)
        quarantine.put(conn, context.model, [held], None)
    shown = run("quarantine", "show", "inc-1")
    for text in ("Where is 10.1.2.3?", "\\x1b[2J", "Nowhere.", "Ask <EMAIL_1>.", "Is it lost?", "severity high by ann"):
        assert text in shown
    assert "not in the store" not in shown
    facts = run("quarantine", "show", "inc-1", "--json")
    assert (facts["row"], facts["incident"]["required"]) == (None, "Ask <EMAIL_1>.")
    run("quarantine", "drop", "inc-1", "--by", "ops", "--reason", "from 10.1.2.3")
    with context.store.read() as conn:
        assert "10.1.2.3" in str([entry.detail for entry in audit.entries(conn)])


def _desk(context: Context) -> Desk:
    return Desk(context.store, context.config, context.state.key)


def test_the_loop_asks_records_skips_and_leaves(context: Context) -> None:
    for n in range(4):
        hold(context, f"row-{n}")
    feed(context)
    typed = iter(["x", "a", "", "s", "c", "", "   ", ".", "", "c", "On Friday.", "or later", ".", "sure", "q"])
    said: list[str] = []
    done = label_loop(_desk(context), "bea", lambda _: next(typed), said.append, kinds=())
    assert done == 2
    assert sorted(status(context).values()) == ["dropped", "held", "held", "released"]
    assert any(text.startswith("Not recorded: `correct` needs the right answer") for text in said)
    with context.store.read() as conn:
        texts = [f.text for _, f in feedback.since(conn, context.model, 0) if f.scope == "review"]
        assert texts == ["On Friday.\nor later"]
    again: list[str] = []
    assert label_loop(_desk(context), "cem", _ending(["s", "s"]), again.append, kinds=()) == 0
    assert again[-1] == "Nothing waits for you."


def _ending(lines: list[str]) -> Any:
    left = iter(lines)

    def read(_prompt: str) -> str:
        for line in left:
            return line
        raise EOFError

    return read


def test_the_end_of_input_gives_the_item_back(context: Context) -> None:
    hold(context, "row-1")
    feed(context)
    assert label_loop(_desk(context), "bea", _ending(["c", "half"]), lambda _: None, kinds=()) == 0
    assert _desk(context).next("cem") is not None


def test_on_a_terminal_next_goes_on_asking(context: Context, tmp_path: Path) -> None:
    hold(context, "row-1")
    feed(context)
    ours, theirs = pty.openpty()
    command = [*TIDEMILL, "review", "next", "--by", "bea", "--profile", str(tmp_path / "mine.yaml")]
    child = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, close_fds=True)
    os.close(theirs)
    seen = b""
    os.write(ours, b"a\n\n")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([ours], [], [], 0.2)[0]:
            try:
                seen += os.read(ours, 65536)
            except OSError:  # the child closed its side
                break
        elif child.poll() is not None:
            break
    os.close(ours)
    assert child.wait(10) == 0, seen
    assert b"1 labelled" in seen
    assert status(context) == {"row-1": "released"}


def test_push_and_pull_through_a_server_and_files(
    context: Context, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(3):
        hold(context, f"row-{n}")
    feed(context)
    state = State()
    monkeypatch.setenv("TIDEMILL_LABEL_STUDIO_TOKEN", LEGACY)
    with serving(state) as url:
        assert run("review", "pull", "--from", url, "--by", "ops", "--json", code=4)["error"]["code"] == "not_found"
        pushed = run("review", "push", "--to", url, "--by", "ops", "--limit", "2", "--json")
        (project,) = pushed["projects"].values()
        assert pushed["pushed"] == 2
        item = state.studio.projects[0]["tasks"][0]["data"]["tidemill_item"]
        state.studio.annotate(project, item, 3, ReviewAnswer(verdict="accept"))
        pulled = run("review", "pull", "--from", url, "--by", "ops", "--labeller", "3=bea", "--json")
        assert (pulled["recorded"], pulled["refused"]) == (1, [])
        monkeypatch.setenv("TIDEMILL_LABEL_STUDIO_TOKEN", "wrong-token")
        assert "wrong-token" not in run("review", "pull", "--from", url, "--by", "ops", code=3)
    assert sorted(status(context).values()) == ["held", "held", "released"]
    assert json.loads(run("review", "show", item))["labels"][0]["labeller"] == "bea"
    monkeypatch.delenv("TIDEMILL_LABEL_STUDIO_TOKEN")
    assert "TIDEMILL_LABEL_STUDIO_TOKEN" in run("review", "push", "--to", "http://127.0.0.1:9", "--by", "ops", code=2)
    path = tmp_path / "out.json"
    assert run("review", "push", "--to", str(path), "--by", "ops", "--json")["pushed"] == 1
    assert "refused" in run("review", "pull", "--from", str(path), "--by", "ops")
    path.write_text('[{"data": {}}]', encoding="utf-8")
    assert "not pushed from here" in run("review", "pull", "--from", str(path), "--by", "ops", code=3)
    for bad in ("bea", "x=bea", "3="):
        run("review", "pull", "--from", str(path), "--by", "ops", "--labeller", bad, code=3)
