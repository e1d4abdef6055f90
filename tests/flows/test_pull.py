"""The watch pulls from the profile's sources: late rows once, a source that is down reported and tried again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from configs.errors import ConfigError
from configs.loader import build_config, load_config
from data_contracts.sources.export import stored
from flows.context import Context, open_context
from flows.observer import PrintObserver
from flows.pull import pull
from flows.watch import watch
from store import feedback, sources
from tests.flows.flow_samples import tiny_config


class NoScheduler:
    """A scheduler that is down."""

    def available(self) -> bool:
        return False

    def emit(self, event: str, resource: str, payload: dict[str, str]) -> None:
        raise AssertionError(event)

    def start(self, request: Any, key: str) -> str:
        raise AssertionError(key)


def row(n: int) -> str:
    return json.dumps({"prompt": f"When do you open, case {n}?", "completion": f"At nine, case {n}."}) + "\n"


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@pytest.fixture
def context(tmp_path: Path, inbox: Path) -> Iterator[Context]:
    ingest = {
        "sources": [
            {"kind": "trl", "path": str(inbox), "principal": "desk", "scope": "review"},
            {"kind": "mlflow", "uri": "http://127.0.0.1:9", "experiment": "shop"},
            {"kind": "csv", "path": "nosuch://bucket/x.csv"},
        ]
    }
    opened = open_context(tiny_config(tmp_path / "state", ingest=ingest))
    yield opened
    opened.store.close()


def count(context: Context) -> int:
    return sum(len(said) for _, said in stored(context.store, context.model))


def test_a_pull_reads_on_and_a_source_that_is_down_stops_nothing(context: Context, inbox: Path) -> None:
    observer = PrintObserver(quiet=True)
    (inbox / "b.jsonl").write_text(row(1) + "{bad\n" + row(2))
    first = pull(context, observer)
    assert [(one.report is not None, bool(one.error)) for one in first] == [(True, False), (False, True), (False, True)]
    assert count(context) == 2
    assert any("1 rows rejected" in line for line in observer.lines)
    assert sum("failed (1 in a row), tried again" in line for line in observer.lines) == 2
    (inbox / "a.jsonl").write_text(row(3) + row(1))
    second = pull(context, observer)
    assert second[0].report is not None
    assert (second[0].report.feedback, second[0].report.repeated) == (1, 2)
    third = pull(context, observer)
    assert third[0].report is not None
    assert (third[0].report.feedback, third[0].report.repeated) == (0, 0)
    with context.store.read() as conn:
        known = {known.name: known for known in sources.every(conn, context.model)}
        (label, *_) = [one for _, one in feedback.since(conn, context.model, 0)]
    assert (label.principal, label.scope, label.source) == ("desk", "review", "trl")
    trl, mlflow = known[f"trl:{inbox}"], known["mlflow:http://127.0.0.1:9/shop"]
    assert (trl.error, trl.failures, trl.report["finished"]) == ("", 0, True)
    assert mlflow.failures == 3
    assert "MLflow cannot be read now" in mlflow.error
    assert "case 1" not in json.dumps([trl.cursor, trl.report])


class Tables(PrintObserver):
    """Keeps what would go to Prefect."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.rows: list[Any] = []

    def table(self, key: str, rows: Any, title: str) -> None:
        self.rows += [key, title, *rows]


def test_nothing_a_row_says_is_kept_or_shown(tmp_path: Path, inbox: Path) -> None:
    mail = "ann@example.com"
    ask = {"messages": [{"role": "user", "content": "Hi"}], "answer": "Hello"}
    rows: list[Any] = [{**ask, mail: 1}, {**ask, "model": mail}, {"interaction": ask, "feedback": [{mail: 1}]}]
    (inbox / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (inbox / "b.jsonl").write_text(json.dumps({"prompt": "x", "completion": "y"}) + "\n{bad\n")
    tasks = tmp_path / "tasks.json"
    region = {"type": mail, "from_name": mail, "value": {}}
    tasks.write_text(json.dumps([{"data": {"prompt": "x"}, "annotations": [{"result": [region]}]}]))
    twice = tmp_path / "x.csv"
    twice.write_text(f"{mail},{mail}\n1,2\n")
    paths = {"jsonl": inbox, "label-studio": tasks, "csv": twice}
    config = {"sources": [{"kind": kind, "path": str(path)} for kind, path in paths.items()]}
    context = open_context(tiny_config(tmp_path / "state", ingest=config))
    observer = Tables()
    pulled = pull(context, observer)
    with context.store.read() as conn:
        kept = [(row.report, row.error) for row in sources.every(conn, context.model)]
    context.store.close()
    assert mail not in json.dumps([observer.lines, observer.rows, kept, [one.error for one in pulled]])
    assert {"line": 1, "reason": "`<unknown key>`: Extra inputs are not permitted"} in observer.rows
    assert {"line": 2, "reason": "`model`: another model"} in observer.rows
    assert {"label-studio: not understood": 1} in [report.get("skipped") for report, _ in kept]


def test_a_crash_between_two_pulls_loses_nothing(context: Context, inbox: Path) -> None:
    (inbox / "a.jsonl").write_text(row(1))
    pull(context, PrintObserver(quiet=True))
    with context.store.write() as conn:
        # As if the machine had died with rows committed and an older cursor restored.
        sources.save_cursor(conn, context.model, f"trl:{inbox}", {})
    (inbox / "b.jsonl").write_text(row(2))
    pull(context, PrintObserver(quiet=True))
    assert count(context) == 2


def test_a_pull_stops_at_its_budget_and_goes_on_with_the_next(tmp_path: Path, inbox: Path) -> None:
    (inbox / "a.jsonl").write_text("".join(row(n) for n in range(1300)))
    source = {"kind": "trl", "path": str(inbox)}
    context = open_context(tiny_config(tmp_path / "state", ingest={"sources": [source], "pull_budget_s": 1e-9}))
    seen = []
    for _ in range(4):
        (one,) = pull(context, PrintObserver(quiet=True))
        assert one.report is not None
        seen.append((one.report.feedback, one.report.finished))
    assert seen[:2] == [(500, False), (500, False)]
    assert sum(n for n, _ in seen) == 1300 == count(context)
    context.store.close()


def test_the_watch_pulls_before_it_counts(context: Context, inbox: Path) -> None:
    (inbox / "a.jsonl").write_text("".join(row(n) for n in range(5)))
    result = watch(context, NoScheduler(), PrintObserver(quiet=True))
    assert result is not None
    assert [one.report is not None for one in result.pulled] == [True, False, False]
    assert count(context) == 5


# --- configuration -------------------------------------------------------------------------------


def test_a_relative_path_is_beside_the_profile_and_a_url_stays(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "extends: smoke\ningest:\n  sources:\n    - {kind: parquet, path: in/*.parquet}\n"
        "    - {kind: csv, path: 's3://bucket/x.csv'}\n"
    )
    config = load_config(str(path))
    assert [source.path for source in config.ingest.sources] == [f"{tmp_path}/in/*.parquet", "s3://bucket/x.csv"]


def test_a_source_that_is_named_twice_is_one_clear_error() -> None:
    one, other = {"kind": "csv", "path": "x"}, {"kind": "csv", "path": "y"}
    assert len(build_config({"ingest": {"sources": [one, other]}}).ingest.sources) == 2
    with pytest.raises(ConfigError, match="sources 0 and 2 are the same"):
        build_config({"ingest": {"sources": [one, other, {**one, "principal": "desk"}]}})


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"kind": "mlflow", "uri": "http://x"}, "expected `uri` and `experiment`"),
        ({"kind": "mlflow", "uri": "http://x", "experiment": "e", "path": "p"}, "no `path`"),
        ({"kind": "csv"}, "expected `path`"),
        ({"kind": "csv", "path": "x", "uri": "y"}, "expected `path`"),
        ({"kind": "word", "path": "x"}, "ingest.sources.0.kind"),
        ({"kind": "csv", "path": "x", "scope": "admin"}, "ingest.sources.0.scope"),
        ({"kind": "csv", "pth": "x"}, "did you mean `path`"),
        ({"kind": "mlflow", "uri": "u", "experiment": "e", "assessments": {"x": "y"}}, "assessments.x"),
    ],
)
def test_a_source_that_is_wrongly_set_is_one_clear_error(source: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_config({"ingest": {"sources": [source]}})
    assert words in str(caught.value)
