"""What a contract found, as one self-contained HTML page and as a table. The template escapes all text."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from data_contracts.contract_kinds import KindVerdict
from data_contracts.records import Incident, LabelledRow

MAX_SAMPLES = 5
"""Offending rows shown of one rule."""
MAX_TEXT = 400
"""Characters shown of one text."""
MAX_NOTES = 50
Texts = Mapping[str, Mapping[str, str]]
"""Row id -> what is shown of it, label -> text."""


def row_texts(rows: Sequence[LabelledRow]) -> dict[str, dict[str, str]]:
    """What is shown of feedback rows."""
    return {row.id: {"prompt": row.prompt, "said": row.answer, "should say": row.completion} for row in rows}


def incident_texts(rows: Sequence[Incident]) -> dict[str, dict[str, str]]:
    """What is shown of incidents."""
    return {row.id: {"title": row.title, "must say": row.required} for row in rows}


def rule_table(kinds: Sequence[KindVerdict]) -> list[dict[str, Any]]:
    """One entry for each rule that some row breaks."""
    found = []
    for kind in kinds:
        severity = {rule.name: rule.severity for rule in kind.contract.rules} if kind.contract else {}
        for rule, count in kind.counts.items():
            if count:
                found.append({"kind": kind.kind, "rule": rule, "severity": severity.get(rule, "error"), "rows": count})
        if kind.contract is None and kind.report.rows:
            found.append({"kind": kind.kind, "rule": "no contract", "severity": "error", "rows": kind.report.rows})
    return found


def visible(text: str) -> str:
    """At most `MAX_TEXT` characters, with those that hide or turn text around shown by their code."""
    shown = []
    for character in text[:MAX_TEXT]:
        if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
            shown.append(character)
        else:
            shown.append(f"⟨{ord(character):04X}⟩")
    more = f" ... ({len(text):,} characters)" if len(text) > MAX_TEXT else ""
    return "".join(shown) + more or "(empty)"


def _samples(kind: KindVerdict, rule: str, texts: Texts) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for row in kind.report.quarantined:
        broken = row.detail.removeprefix("breaks ").split(", ")
        if rule in broken or (kind.contract is None and rule == ""):
            lines = [(label, visible(text)) for label, text in texts.get(row.row_id, {}).items()]
            found.append({"id": visible(row.row_id), "lines": lines})
            if len(found) == MAX_SAMPLES:
                break
    return found


def _rules(kind: KindVerdict, texts: Texts) -> list[dict[str, Any]]:
    known = {rule.name: rule for rule in kind.contract.rules} if kind.contract else {}
    found = []
    for name, count in kind.counts.items():
        if name not in known and not count:
            continue
        rule = known.get(name)
        found.append(
            {
                "name": name,
                "severity": rule.severity if rule else "error",
                "says": (rule.description or rule.expectation) if rule else "a text is not UTF-8",
                "count": count,
                "share": 100 * count / kind.report.rows if kind.report.rows else 0.0,
                "samples": _samples(kind, name, texts) if count else [],
            }
        )
    return sorted(found, key=lambda entry: -entry["count"])


def render_html(kinds: Sequence[KindVerdict], texts: Texts, *, title: str) -> str:
    """One HTML page: no script, no external resource, every text escaped.

    Args:
        kinds: from `contract_kinds`.
        texts: what is shown of the offending rows.
        title: what people call the run.
    """
    from jinja2 import Environment, StrictUndefined

    rows = sum(kind.report.rows for kind in kinds)
    held = sum(len(kind.report.quarantined) for kind in kinds)
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(PAGE)
    notes = [note for kind in kinds for note in kind.report.warnings]
    return page.render(
        title=title,
        word="Nothing to hold back" if not held else f"{held:,} of {rows:,} rows may not pass",
        rows=rows,
        accepted=rows - held,
        held=held,
        state="good" if not held else "held",
        kinds=[
            {
                "kind": kind.kind,
                "contract": kind.report.contract,
                "digest": kind.report.contract_digest[:12],
                "rows": kind.report.rows,
                "held": len(kind.report.quarantined),
                "rules": _rules(kind, texts),
            }
            for kind in kinds
        ],
        notes=[visible(note) for note in notes[:MAX_NOTES]],
        more_notes=max(0, len(notes) - MAX_NOTES),
    )


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}: contract</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<style>
:root { --bg: #fff; --fg: #1d2330; --dim: #667085; --line: #e3e6ec; --good: #1a7f4b; --held: #b54708; --bar: #f0b27a; }
@media (prefers-color-scheme: dark) {
  :root { --bg: #14171d; --fg: #e6e8ec; --dim: #98a1b2; --line: #2c323d; --good: #4cc38a; --held: #f5a35c;
    --bar: #8a5a2b; }
}
body { font: 15px/1.5 system-ui, sans-serif; background: var(--bg); color: var(--fg); margin: 2rem auto;
  max-width: 62rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h1.good { color: var(--good); } h1.held { color: var(--held); }
.dim { color: var(--dim); } table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
.bar { background: var(--bar); height: .5rem; min-width: 1px; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; margin: .1rem 0 .5rem; font-size: .85rem; }
details { margin: .2rem 0; }
</style></head><body>
<p class="dim">{{ title }}</p>
<h1 class="{{ state }}">{{ word }}</h1>
<p>{{ "{:,}".format(accepted) }} accepted, {{ "{:,}".format(held) }} held in quarantine.</p>
{% for kind in kinds %}
<h2>{{ kind.kind }}</h2>
<p class="dim">contract {{ kind.contract }}, digest {{ kind.digest }}; {{ "{:,}".format(kind.rows) }} rows,
{{ "{:,}".format(kind.held) }} held</p>
<table><tr><th>rule</th><th>severity</th><th>rows</th><th>share</th><th></th></tr>
{% for rule in kind.rules %}
<tr><td><b>{{ rule.name }}</b><br><span class="dim">{{ rule.says }}</span>
{% if rule.samples %}
<details><summary>examples</summary>
{% for sample in rule.samples %}
<p class="dim">row {{ sample.id }}</p>
{% for label, text in sample.lines %}
<span class="dim">{{ label }}</span><pre dir="auto">{{ text }}</pre>
{% endfor %}
{% endfor %}
</details>
{% endif %}
</td><td>{{ rule.severity }}</td><td class="n">{{ "{:,}".format(rule.count) }}</td>
<td class="n">{{ "%.2f" | format(rule.share) }} %</td>
<td style="width: 8rem">
{% if rule.count %}<div class="bar" style="width: {{ "%.1f" | format(rule.share) }}%"></div>{% endif %}
</td></tr>
{% endfor %}
</table>
{% endfor %}
{% if notes %}
<h2>Notes</h2><ul>
{% for note in notes %}
<li>{{ note }}</li>
{% endfor %}
</ul>
{% if more_notes %}<p class="dim">and {{ more_notes }} more</p>{% endif %}
{% endif %}
</body></html>
"""
