"""The console page: whole, self-contained, and nothing in it runs."""

from __future__ import annotations

from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

from configs.schema import RolloutSection
from data_contracts.records import utc_now
from monitoring.canary import CanaryState, evidence
from serving.console.page import render

HOSTILE = "<script>alert(1)</script>\"'&"


def view() -> dict[str, Any]:
    config = RolloutSection()
    state = CanaryState.new(config)
    state.assign("canary", 0.2)
    state.bad("thumbs_down", "canary", 0.2)
    figures = evidence(state, config)
    point = {"log10_e": dict.fromkeys(figures["metrics"], 0.3), "promotion_log10_e": -0.1}
    rollout = {"candidate": HOSTILE, "state": "running", "cause": HOSTILE, "approved_by": HOSTILE, "reason": HOSTILE}
    finding = SimpleNamespace(at=utc_now(), test=HOSTILE, name=HOSTILE, detail={"examples": [HOSTILE, 5]})
    return {
        "model": HOSTILE,
        "pointer": {"revision": 3, "champion": HOSTILE, "canary": HOSTILE, "canary_share": 0.25},
        "rollout": rollout,
        "evidence": figures,
        "history": [point, point, point],
        "rollouts": [rollout],
        "versions": [{"name": HOSTILE, "gate": HOSTILE, "approved_by": None}],
        "gateways": [{"id": HOSTILE, "revision": 3, "loaded": [HOSTILE], "error": HOSTILE}],
        "drift": [finding],
    }


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, list[tuple[str, str | None]]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, attrs))


def test_everything_is_escaped_and_nothing_is_loaded() -> None:
    page = render(view(), {"status": "ok", "error": HOSTILE})
    tags = Tags()
    tags.feed(page)
    names = {tag for tag, _ in tags.seen}
    assert "script" not in names
    assert {"svg", "polyline", "table"} <= names
    attributes = {name for _, attrs in tags.seen for name, _ in attrs}
    assert not {"src", "href", "onload"} & attributes
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#x27;&amp;") >= 10


def test_an_empty_store_has_a_page_too() -> None:
    empty = {**view(), "rollout": None, "evidence": None, "history": [], "rollouts": [], "versions": [], "drift": []}
    page = render({**empty, "gateways": []}, {"status": "loading"})
    assert "None so far." in page
    assert "None found." in page
