"""The report: self-contained, escaped, verdict first; looked at in Chromium where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from eval_reports import flipped, report

from configs.loader import HERE
from configs.schema import GateSection, SuiteRule
from data_contracts.records import (
    AdapterArtifact,
    DatasetSnapshot,
    EvalItem,
    EvalReport,
    JudgeUsage,
    Message,
    SampledScores,
)
from evaluation.choice import ScaleChoice, ScalePoint, mark_front
from evaluation.gate import decide
from evaluation.report import render_html
from evaluation.rounds import Round
from evaluation.suites import load_suite

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
POLICY = GateSection(anchors=SuiteRule(kind="non_inferiority", margin=0.10), max_discordance=0.15, power=0.6)
HOSTILE = '<script>alert(1)</script> <img src=http://evil.example/x.png> \u202e {{ 7 * 7 }} & "quotes" \''


def example(kind: str) -> tuple[EvalReport, dict[str, list[EvalItem]]]:
    """A report of the demo's size: 130 anchors with their slices, 72 target items of 12 topics, 2 incidents."""
    anchors = load_suite(HERE / "suites" / "anchors.jsonl")
    n = len(anchors)
    base, good = flipped(n, 83, 7, 8)
    _, bad = flipped(n, 83, 34, 3)
    target_base = [1 if i % 12 == 0 else 0 for i in range(72)]
    target_good = [0 if i % 11 == 3 else 1 for i in range(72)]
    candidate = bad if kind == "block" else good
    suites = {
        "target": {"base": target_base, "champion": target_base, "candidate": target_good},
        "incidents": {"base": [0, 0], "champion": [0, 0], "candidate": [1, 1]},
        "anchors": {"base": base, "champion": base, "candidate": candidate},
    }
    if kind == "inconclusive":
        suites["anchors"] = {model: values[40:60] for model, values in suites["anchors"].items()}
    slices = {
        "target": {f"target-{i}": f"topic {i % 12 + 1}" for i in range(72)},
        "anchors": {f"anchors-{i}": anchors[i].slice for i in range(len(suites["anchors"]["base"]))},
    }
    items = {
        "anchors": [a.model_copy(update={"id": f"anchors-{i}"}) for i, a in enumerate(anchors)],
        "target": [
            EvalItem(
                id=f"target-{i}",
                suite="target",
                messages=(Message(role="user", content=f"Where is parcel {i}? {HOSTILE if i == 0 else ''}"),),
                reference="It is with the carrier.",
            )
            for i in range(72)
        ],
    }
    return report(suites, first_round=True, slices=slices), items


ARTIFACT = AdapterArtifact(
    digest="d" * 64,
    path="/x",
    base_digest="b" * 64,
    dataset_digest="e" * 64,
    config_digest="f" * 64,
    code_commit="0123456",
    rank=16,
    alpha=32.0,
    steps=60,
    tokens=21_400,
    seconds=143.2,
    metrics={"loss": 0.31},
    loss_curve=tuple(3.2 * 0.95**i + 0.2 + 0.1 * (i % 3) for i in range(60)),
)
SNAPSHOT = DatasetSnapshot(
    digest="e" * 64,
    path="/y",
    model="support-bot",
    created_at=NOW,
    contract_digest="c" * 64,
    base_digest="b" * 64,
    watermark=900,
    counts={"train.correction": 144, "train.replay": 72, "target.correction": 72},
    reasons={"uncorroborated": 9, "contract.completion_not_blank": 3, "duplicate": 21},
    row_ids=("a",),
    replay={"base": "b" * 64, "decoding": "greedy"},
)


def strengths(name: str = "1, intruders reduced") -> ScaleChoice:
    """A sweep of the size of the default list; `name` stands for a candidate that is not a scale."""
    figures = [("0.3", 0.3, 0.29, 0), ("0.5", 0.5, 0.61, 2), ("0.7", 0.7, 0.88, 3), ("0.85", 0.85, 0.9, 6)]
    figures += [("1", 1.0, 0.92, 9), (name, 1.0, 0.9, 9)]
    points = [
        ScalePoint(
            name=label,
            scale=scale,
            digest="d" * 64,
            target=gain,
            gain=gain,
            anchors=65,
            lost=lost,
            gained=2,
            slack=0.1 - lost / 60,
            incidents_kept=True,
        )
        for label, scale, gain, lost in figures
    ]
    return ScaleChoice(points=mark_front(points), chosen="0.7", reason=f"0.7 lost fewest {name}", gain_kept=0.95)


def page(kind: str, title: str = "retrain support-bot #1 - feedback", choice: ScaleChoice | None = None) -> str:
    found, items = example(kind)
    decision = decide(found, POLICY, "superiority", now=NOW)
    assert decision.verdict == kind
    return render_html(found, decision, artifact=ARTIFACT, snapshot=SNAPSHOT, title=title, items=items, choice=choice)


def test_the_report_says_what_judging_cost() -> None:
    scored, items = example("pass")
    used = JudgeUsage(requests=12, kept=3, prompt_tokens=2400, answer_tokens=90, order_flips=1, micro_dollars=1250)
    for judge, shown in ((None, False), (used, True)):
        one = scored.model_copy(update={"judge": judge, "seconds": 61.5})
        html = render_html(
            one, decide(one, POLICY, "superiority", now=NOW), artifact=None, snapshot=None, title="t", items=items
        )
        section = html[html.index("What it took") : html.index("Lineage and policy")]
        assert "61.5 s" in section
        assert ("12 requests, 2,400 + 90 tokens, $0.0013" in section) is shown
        assert ("kept from before" in section) is shown


def test_the_page_is_self_contained_and_small() -> None:
    html = page("pass", choice=strengths())
    assert len(html.encode()) < 2_000_000
    assert not re.search(r"<(script|link|img|iframe|object|embed|base)\b", html)
    assert not re.search(r"(src|href|action|url)\s*[=(]\s*[\"']?\s*(https?:)?//", html.replace(HOSTILE, ""))
    assert "default-src 'none'" in html


def test_the_loss_of_rows_held_out_is_drawn_beside_that_of_the_steps() -> None:
    assert "held-out" not in page("pass"), "early stopping was off"
    found, items = example("pass")
    stopped = ARTIFACT.model_copy(update={"held_out_curve": ((20, 2.0), (40, 1.25), (60, 1.5))})
    decision = decide(found, POLICY, "superiority", now=NOW)
    html = render_html(found, decision, artifact=stopped, snapshot=SNAPSHOT, title="x", items=items)
    (line,) = re.findall(r'class="held-out" points="([^"]+)"', html)
    points = [tuple(map(float, point.split(","))) for point in line.split()]
    assert [round(x, 2) for x, _ in points] == [32.2, 66.1, 100.0]
    assert points[1][1] > points[2][1] > points[0][1], "lower losses are further down"
    assert "best 1.25" in html


@pytest.mark.parametrize(("kind", "word"), [("pass", "Pass"), ("block", "Blocked"), ("inconclusive", "Inconclusive")])
def test_the_verdict_comes_first(kind: str, word: str) -> None:
    html = page(kind)
    assert html.index(f'class="verdict {kind}"') < html.index("Difference to the reference models")
    assert f"<title>{word}: " in html


def test_hostile_text_is_escaped_and_not_evaluated() -> None:
    html = page("pass", title=HOSTILE)
    assert "<script>" not in html
    assert "<img" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert "{{ 7 * 7 }}" in html
    assert "\u202e" not in re.sub(r"<(h1|title)>.*?</\1>", "", html, flags=re.DOTALL), (
        "no direction override in answers"
    )


def test_a_bare_report_renders() -> None:
    small = report({"target": {"base": [0], "champion": [0], "candidate": [1]}})
    decision = decide(small, POLICY, "superiority", now=NOW)
    html = render_html(small, decision, artifact=None, snapshot=None, title="bare")
    assert "Training" not in html
    named = decision.model_copy(update={"override_by": "<b>mallory</b>", "override_reason": "because"})
    assert "&lt;b&gt;mallory" in render_html(small, named, artifact=None, snapshot=None, title="bare")


def test_the_strengths_are_drawn_with_their_front_and_the_chosen_one() -> None:
    html = page("pass", choice=strengths())
    section = html[html.index("Gain against forgetting") : html.index("Share of items answered")]
    assert section.count("<circle") == 6 + 1, "each candidate, and a ring around the chosen one"
    assert section.count("<line") == 4, "five are on the front, joined by four lines"
    assert "0.7 (chosen)" in re.sub(r"<[^>]+>", "", section)
    assert "0.7: +88.0 points, 3 lost" in section
    assert "Gain against forgetting" not in page("pass")
    unseen = [p.model_copy(update={"gain": None, "target": None}) for p in strengths().points]
    blind = page("pass", choice=ScaleChoice(points=mark_front(unseen), chosen="0.7", reason="by the anchors alone"))
    assert "<table>" in blind
    assert 'class="front"' not in blind, "nothing to draw without a target"
    assert "as it was trained" in page("pass", choice=ScaleChoice(reason="The adapter goes as it was trained."))


def test_hostile_names_of_candidates_are_escaped() -> None:
    html = page("pass", choice=strengths(HOSTILE))
    assert "<script>" not in html
    assert "<img" not in html
    assert html.count("&lt;script&gt;alert(1)") >= 4


@pytest.mark.browser
@pytest.mark.parametrize(("scheme", "width"), [("light", 1100), ("dark", 1100), ("light", 390)])
def test_chromium_shows_it_without_console_errors(tmp_path: Path, scheme: str, width: int) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    source, picture = tmp_path / "report.html", tmp_path / "report.png"
    source.write_text(page("pass", choice=strengths()), encoding="utf-8")
    dark = ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    quiet = ["gpu", "quic", "background-networking", "component-update", "sync"]
    command = [chromium, "--headless", "--no-sandbox", "--no-first-run", "--hide-scrollbars", *dark]
    command += [f"--disable-{name}" for name in quiet]
    command += ["--enable-logging=stderr", "--log-level=0", f"--user-data-dir={tmp_path / 'profile'}"]
    command += [f"--window-size={width},1600", f"--screenshot={picture}", source.as_uri()]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert picture.is_file(), done.stderr[-2000:]
    assert "CONSOLE" not in done.stderr
    header = picture.read_bytes()[:24]
    assert int.from_bytes(header[16:20]) == width
    assert picture.stat().st_size > 20_000


def test_rounds_and_sampled_answers_are_shown_where_there_are_some():
    found, items = example("pass")
    sampled = SampledScores(
        k=4,
        temperature=0.7,
        n=72,
        champion_mean=0.1,
        candidate_mean=0.8,
        difference=0.7,
        lower=0.6,
        upper=0.8,
        unsure=0.2,
    )
    found = found.model_copy(update={"sampled": {"target": sampled}})
    rounds = [Round("#1", "<b>promoted", {"anchors": -0.12}), Round("#2", "this one: pass", {"anchors": 0.04})]
    decision = decide(found, POLICY, "superiority", now=NOW)
    html = render_html(found, decision, artifact=None, snapshot=None, title="x", items=items, rounds=rounds)
    assert '<td class="heat-3">-12.0</td>' in html
    assert '<td class="heat2">+4.0</td>' in html
    assert "&lt;b&gt;promoted" in html
    assert "4 answers to each item at temperature 0.7" in html
    assert "Forgetting over the rounds" not in render_html(found, decision, artifact=None, snapshot=None, title="x")


def test_the_page_stays_under_two_megabytes_whatever_is_flipped() -> None:
    base, after = flipped(400, 390, 200, 5)
    suites = {f"s{n}": {"base": base, "champion": base, "candidate": after} for n in range(8)}
    scored = report(suites, first_round=True)
    long = {
        name: [
            EvalItem(
                id=f"{name}-{i}", suite=name, messages=(Message(role="user", content="<" * 600),), reference="&" * 600
            )
            for i in range(400)
        ]
        for name in suites
    }
    html = render_html(
        scored, decide(scored, POLICY, "non_inferiority", now=NOW), artifact=None, snapshot=None, title="t", items=long
    )
    assert len(html.encode("utf-8")) < 2_000_000
    assert "more</p>" in html
