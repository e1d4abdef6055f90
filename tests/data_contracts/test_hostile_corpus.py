"""The hostile corpus on its real way: JSON Lines -> store -> contract -> curation. None teaches, and clean rows do."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hostile_corpus import KEY, TOKENS, Line, clean_lines, evaluation_prompts, hostile_lines

from configs.loader import build_config, resource_path
from configs.schema import CurationSection
from data_contracts.contract_kinds import KindVerdict, judge_kinds, together
from data_contracts.contract_report import render_html, row_texts
from data_contracts.curation import CurationResult, curate
from data_contracts.overlap import prompt_key
from data_contracts.records import LabelledRow
from data_contracts.sources.jsonl import ImportReport, import_jsonl
from data_contracts.sources.store_source import StoreSource
from store.engine import Store

CONFIG = build_config({})


class Way:
    """What became of the lines of one file."""

    def __init__(self, lines: list[Line], folder: Path) -> None:
        path = folder / "rows.jsonl"
        path.write_bytes(b"\n".join(line.raw for line in lines) + b"\n")
        store = Store.open(f"sqlite:///{folder / 'store.db'}")
        try:
            self.imported: ImportReport = import_jsonl(store, CONFIG, path, KEY, trust_scope=True)
            self.rows: list[LabelledRow] = list(StoreSource(store).rows(CONFIG.model.name))
        finally:
            store.close()
        contracts = {kind: resource_path(relative) for kind, relative in CONFIG.ingest.by_kind().items()}
        self.kinds: list[KindVerdict] = judge_kinds(self.rows, contracts)
        self.report = together(self.kinds, self.rows)
        accepted = set(self.report.accepted)
        kept = [row for row in self.rows if row.id in accepted]
        policy = CurationSection(holdout_share=0.0)
        self.result: CurationResult = curate(kept, set(), policy, evaluation_prompts())


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Way:
    return Way(hostile_lines(), tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Way:
    return Way(clean_lines(), tmp_path_factory.mktemp("clean"))


def test_the_corpora_are_large_and_distinct() -> None:
    lines = hostile_lines()
    assert len(lines) >= 500
    assert len({line.raw for line in lines}) == len(lines)
    assert len({line.name for line in lines}) >= 40
    assert len({line.raw for line in clean_lines()}) >= 500


def test_no_hostile_row_teaches(hostile: Way) -> None:
    names = {line.id: line.name for line in hostile_lines()}
    taught = Counter(names[row.row_id] for row in hostile.result.train)
    assert not taught, [(names[r.row_id], r.messages[-1].content[:60], r.completion[:80]) for r in hostile.result.train]


def test_every_hostile_row_has_a_reason(hostile: Way) -> None:
    refused_lines = len(hostile.imported.errors)
    held, left_out = len(hostile.report.quarantined), len(hostile.result.left_out)
    assert refused_lines + held + left_out == len(hostile_lines())
    assert all(row.reason and row.detail for row in [*hostile.report.quarantined, *hostile.result.left_out])
    assert refused_lines >= 80
    assert held >= 400
    assert {"contaminated"} <= set(hostile.result.reasons)


def test_what_teaches_beside_hostile_rows_holds_nothing_forbidden(hostile: Way, clean: Way) -> None:
    """Checked without the contract's own patterns."""
    protected = {prompt_key(prompt) for prompt in evaluation_prompts()}
    for row in [*hostile.result.train, *clean.result.train]:
        everything = "\n".join([row.completion, *(m.content for m in row.messages)])
        assert not any(token.lower() in everything.lower() for token in TOKENS), row
        assert not {unicodedata.category(c) for c in row.completion.replace("\n", "")} & {"Cc", "Cs", "Co", "Cn"}, row
        assert "<script" not in row.completion.lower()
        assert row.completion.lstrip()[:1] not in "=@", row
        assert prompt_key(row.messages[-1].content) not in protected


def test_at_most_two_in_a_hundred_clean_rows_are_held_back(clean: Way) -> None:
    total = len(clean_lines())
    assert clean.imported.errors == ()
    assert len(clean.rows) == total
    held = [(row.row_id, row.detail) for row in clean.report.quarantined]
    assert len(held) <= 0.02 * total, held
    # Near-duplicates teach once; nothing else keeps a clean, reviewed row from teaching.
    others = [row for row in clean.result.left_out if row.reason != "duplicate"]
    assert len(held) + len(others) <= 0.02 * total, others
    assert len(clean.result.train) >= 500


def test_the_report_of_hostile_rows_is_inert_html(hostile: Way) -> None:
    page = render_html(hostile.kinds, row_texts(hostile.rows), title="<b>&\"'")
    assert len(page) < 2_000_000
    lowered = page.lower()
    assert not any(bad in lowered for bad in ("<script", "<img", "<iframe", "<svg", "<b>&", "<object", "<embed"))
    assert "http://" not in page.replace("http://x", "")
    assert not {c for c in page if unicodedata.category(c) in ("Cf", "Cs")}
    assert "completion_without_hidden_characters" in page
    assert page.index("may not pass") < page.index("<table>")


def test_no_accepted_answer_is_a_formula_in_a_spreadsheet(clean: Way, hostile: Way) -> None:
    accepted = set(clean.report.accepted) | set(hostile.report.accepted)
    out = io.StringIO()
    csv.writer(out).writerows([row.completion] for row in [*clean.rows, *hostile.rows] if row.id in accepted)
    for (cell,) in csv.reader(io.StringIO(out.getvalue())):
        assert not cell.lstrip().startswith(("=", "@", "\uff1d")), cell
