# ruff: noqa: E501
"""The report's section on the adapter's strength: gain against forgetting, the Pareto front, what was chosen.

One piece of HTML that `evaluation/report.py` puts into its page: autoescaped, no script, drawn with the page's own colours
(light and dark), the same figures as a table below.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from evaluation.choice import ScaleChoice, ScalePoint

STYLE = """
.front { display: grid; grid-template-columns: 3.5rem 1fr; gap: .25rem .5rem; font-size: .8125rem; color: var(--soft); }
.front svg { width: 100%; height: 15rem; overflow: visible; border-left: 1px solid var(--line); border-bottom: 1px solid var(--line); }
.front .y { position: relative; height: 15rem; }
.front .y span { position: absolute; right: 0; transform: translateY(50%); }
.front .x { grid-column: 2; position: relative; height: 1.2rem; }
.front .x span { position: absolute; transform: translateX(-50%); }
.front .unit { grid-column: 2; text-align: center; }
tr.chosen td { font-weight: 650; background: var(--track); }
"""

_SECTION = """
<section>
<h2>Gain against forgetting, by the adapter's strength</h2>
<p>{{ reason }}</p>
{% if rows %}
<p class="soft">Measured on the items that chose the strength; the verdict and the other results here are about the items that
did not (incidents: all of them). Strength 1 is the adapter as trained; at less, every weight's change is that much smaller.
Pareto front: no other candidate is as good in both and better in one.</p>
{% if marks %}
<div class="front"><div class="y">{% for t in y_ticks %}<span style="bottom: {{ t.at }}%">{{ t.text }}</span>{% endfor %}</div>
<svg role="img" aria-label="{{ label }}">
{% for a, b in segments %}<line x1="{{ a.x }}%" y1="{{ a.y }}%" x2="{{ b.x }}%" y2="{{ b.y }}%" stroke="var(--champion)" stroke-width="2"/>{% endfor %}
{% for m in marks %}{% if m.chosen %}<circle cx="{{ m.x }}%" cy="{{ m.y }}%" r="10" fill="none" stroke="var(--candidate)" stroke-width="2.5"/>{% endif %}
<circle cx="{{ m.x }}%" cy="{{ m.y }}%" r="5" stroke="var(--champion)" stroke-width="2" fill="{{ 'var(--champion)' if m.front else 'var(--card)' }}"><title>{{ m.title }}</title></circle>
<text x="{{ m.x }}%" y="{{ m.y }}%" dy="{{ m.dy }}" text-anchor="{{ m.anchor }}" font-size="12" fill="var(--ink)">{{ m.name }}</text>{% endfor %}
</svg><div class="x">{% for t in x_ticks %}<span style="left: {{ t.at }}%">{{ t.text }}</span>{% endfor %}</div>
<div class="unit">anchors lost against the champion, of {{ anchors }} → worse; up: gain on the target, points</div></div>
<p class="soft">● on the Pareto front &nbsp; ○ not on it &nbsp; <span style="color: var(--candidate)">◯</span> chosen</p>
{% endif %}
<div class="scroll"><table>
<thead><tr><th>strength</th><th>target</th><th>gain</th><th>anchors lost</th><th>gained</th><th>slack</th><th>within margins</th><th>front</th></tr></thead>
<tbody>{% for r in rows %}<tr{% if r.chosen %} class="chosen"{% endif %}><td><bdi>{{ r.name }}</bdi>{% if r.chosen %} (chosen){% endif %}</td><td>{{ r.target }}</td><td>{{ r.gain }}</td><td>{{ r.lost }}</td>
<td>{{ r.gained }}</td><td>{{ r.slack }}</td><td>{{ r.within }}</td><td>{{ r.front }}</td></tr>{% endfor %}</tbody>
</table></div>
<p class="soft">Slack: the least distance, in points, of an anchor suite's lower bound above its margin; below zero the gate's own
test would fail on this half.</p>
{% endif %}
</section>
"""


def _ticks(low: float, high: float, *, steps: tuple[float, ...]) -> list[float]:
    step = next((s for s in steps if (high - low) / s <= 6), steps[-1])
    return [round(i * step, 6) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _chart(points: Sequence[ScalePoint], chosen: str) -> dict[str, Any]:
    """Marks, front and ticks; positions in percent of the drawing, y from its top."""
    known = [(p, p.gain * 100) for p in points if p.gain is not None]
    if not known:
        return {"marks": []}
    right = max(1.0, *(p.lost for p, _ in known)) * 1.08
    low, high = min(0.0, *(g for _, g in known)), max(1.0, *(g for _, g in known))
    pad = (high - low) * 0.12
    low, high = low - pad, high + pad

    def x(lost: float) -> float:
        return round(3 + lost / right * 94, 2)

    def y(gain: float) -> float:
        return round((high - gain) / (high - low) * 100, 2)

    marks: list[dict[str, Any]] = [
        {
            "name": p.name,
            "x": x(p.lost),
            "y": y(gain),
            # Labels go above and below in turn: neighbours on a flat stretch would write over each other.
            "dy": -14 if number % 2 == 0 else 24,
            "anchor": "end" if x(p.lost) > 80 else "middle",
            "front": p.front,
            "chosen": p.name == chosen,
            "title": f"{p.name}: {gain:+.1f} points, {p.lost} lost",
        }
        for number, (p, gain) in enumerate(known)
    ]
    front = sorted((m for m in marks if m["front"]), key=lambda m: (m["x"], -m["y"]))
    return {
        "marks": marks,
        "segments": list(itertools.pairwise(front)),
        "x_ticks": [{"at": x(t), "text": f"{t:.0f}"} for t in _ticks(0, right, steps=(1, 2, 5, 10, 20, 50, 100, 500))],
        "y_ticks": [
            {"at": round(100 - y(t), 2), "text": f"{t:+.0f}" if t else "0"}
            for t in _ticks(low, high, steps=(1, 2, 5, 10, 20, 50))
        ],
        "label": "; ".join(m["title"] for m in marks),
    }


def _within(point: ScalePoint) -> str:
    if point.qualifies:
        return "yes"
    if not point.incidents_kept:
        return "no: loses incidents"
    return f"no: {'; '.join(point.blocked)}" if point.blocked else "no"


def scales_section(choice: ScaleChoice | None) -> str:
    """The section as HTML, safe to insert; empty in a retrain without a sweep."""
    from jinja2 import Environment, StrictUndefined

    if choice is None:
        return ""
    rows = [
        {
            "name": p.name,
            "target": "-" if p.target is None else f"{p.target * 100:.1f} %",
            "gain": "-" if p.gain is None else f"{p.gain * 100:+.1f}",
            "lost": p.lost,
            "gained": p.gained,
            "slack": f"{p.slack * 100:+.1f}",
            "within": _within(p),
            "front": "yes" if p.front else "",
            "chosen": p.name == choice.chosen,
        }
        for p in choice.points
    ]
    piece = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(_SECTION)
    anchors = choice.points[0].anchors if choice.points else 0
    return piece.render(reason=choice.reason, rows=rows, anchors=anchors, **_chart(choice.points, choice.chosen))
