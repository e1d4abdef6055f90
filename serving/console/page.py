"""The gateway's page at GET /: what is serving, the rollout's evidence over time, drift, versions. One self-contained
HTML document without scripts; every value is escaped, and a policy forbids it to load or run anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
REFRESH_S = 5
_STYLE = """
:root{color-scheme:light dark;--line:#8886;--good:#1a7f37;--bad:#c62828;--warn:#b26a00;--soft:#8882}
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:1rem}
h1{font-size:1.4rem;margin:.2rem 0}h2{font-size:1.05rem;margin:1.6rem 0 .4rem}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.25rem .6rem .25rem 0;vertical-align:top}
th{font-weight:600}tr+tr td{border-top:1px solid var(--line)}
.big{font-size:1.15rem}.muted{opacity:.7}.good{color:var(--good)}.bad{color:var(--bad)}.warn{color:var(--warn)}
.bar{display:flex;height:1.1rem;border-radius:.3rem;overflow:hidden;background:var(--soft)}
.bar i{background:var(--warn)}svg{width:100%;height:auto}.scroll{overflow-x:auto}
@media(prefers-color-scheme:dark){:root{--good:#4cc36a;--bad:#ff7b72;--warn:#e3a73b}}
"""
_STATE_CLASS = {"promoted": "good", "rolled_back": "bad", "running": "warn", "pending": "warn"}
_COLOURS = ("#c62828", "#1565c0", "#6a1b9a", "#00838f", "#ef6c00", "#558b2f", "#ad1457", "#4e342e")


def render(view: Mapping[str, Any], health: Mapping[str, Any]) -> str:
    """The page for a `serving.views.console_view` and the body of GET /health."""
    model = escape(str(view["model"]))
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width,initial-scale=1">',
        f'<meta http-equiv=refresh content="{REFRESH_S}">',
        f"<title>{model} - Tidemill</title><style>{_STYLE}</style></head><body>",
        f"<h1>{model}</h1>",
        _serving(view["pointer"], health),
        _rollout(view),
        _drift(view["drift"]),
        _past(view["rollouts"]),
        _versions(view["versions"]),
        _gateways(view["gateways"]),
        "</body></html>",
    ]
    return "".join(parts)


def _serving(pointer: Mapping[str, Any], health: Mapping[str, Any]) -> str:
    share = float(pointer["canary_share"])
    status = str(health.get("status"))
    kind = "good" if status == "ok" else "bad"
    text = f"<p class=big>Serving <b>{escape(str(pointer['champion']))}</b>"
    if pointer["canary"]:
        text += f", and <b>{escape(str(pointer['canary']))}</b> to {share:.0%} of users"
    text += f"</p><p>Gateway: <b class={kind}>{escape(status)}</b>, route revision {int(pointer['revision'])}</p>"
    if health.get("error"):
        text += f"<p class=bad>{escape(str(health['error']))}</p>"
    return text + f'<div class=bar role=img aria-label="canary share"><i style="width:{share * 100:.1f}%"></i></div>'


def _rollout(view: Mapping[str, Any]) -> str:
    rollout, figures = view["rollout"], view["evidence"]
    if rollout is None:
        return "<h2>Rollout</h2><p class=muted>None so far.</p>"
    state = str(rollout["state"])
    text = (
        f"<h2>Rollout of {escape(str(rollout['candidate']))}: "
        f"<span class={_STATE_CLASS.get(state, 'muted')}>{escape(state.replace('_', ' '))}</span></h2>"
        f"<p>Cause: {escape(str(rollout['cause'] or '-'))}. Approved by {escape(str(rollout['approved_by']))}.</p>"
    )
    if rollout["reason"]:
        text += f"<p>{escape(str(rollout['reason']))}</p>"
    if figures is None:
        return text
    rows = [
        (
            metric,
            f"{m['log10_e']:.2f}",
            f"{m['canary_users_bad']} / {m['champion_users_bad']}",
            "-" if m["upper"] is None else f"{m['upper']:.1%}",
            "-" if m["slo"] is None else f"{m['slo']:.1%}",
        )
        for metric, m in figures["metrics"].items()
    ]
    text += _table(("bad event", "log10 e", "users canary / champion", "canary rate, upper bound", "SLO"), rows)
    matured = figures["matured"]
    text += (
        f"<p>Rolled back when a log10 e reaches {figures['rollback_at_log10_e']:.2f}; promoted when "
        f"{escape(str(figures['decision_metric']))} reaches {figures['promote_at_log10_e']:.2f} on the promotion test "
        f"(now {figures['promotion_log10_e']:.2f}) and every upper bound is below its SLO. "
        f"{int(matured['canary'])} canary and {int(matured['champion'])} champion requests have matured.</p>"
    )
    return text + _chart(view["history"], figures)


def _chart(history: Sequence[Mapping[str, Any]], figures: Mapping[str, Any]) -> str:
    """Lines of log10 e over the points of the history, with the two thresholds."""
    if len(history) < 2:
        return ""
    series: dict[str, list[float]] = {f"promote: {figures['decision_metric']}": []}
    for point in history:
        series[next(iter(series))].append(float(point["promotion_log10_e"]))
        for metric, value in point["log10_e"].items():
            series.setdefault(metric, []).append(float(value))
    series = {name: values for name, values in series.items() if len(values) == len(history)}
    limits = {"rollback": figures["rollback_at_log10_e"], "promote": figures["promote_at_log10_e"]}
    low = min(-1.0, *(min(v) for v in series.values()))
    high = max(*limits.values(), *(max(v) for v in series.values())) + 0.3
    width, height, left = 720, 240, 40

    def y(value: float) -> float:
        return 10 + (high - value) / (high - low) * (height - 30)

    parts = [f'<svg viewBox="0 0 {width} {height + 16 * len(series)}" role=img aria-label="evidence over time">']
    for name, limit in limits.items():
        at = y(limit)
        parts.append(
            f'<line x1="{left}" x2="{width}" y1="{at:.1f}" y2="{at:.1f}" stroke="currentColor" stroke-dasharray="4 4"/>'
            f'<text x="{width}" y="{at - 3:.1f}" text-anchor="end" font-size="11" fill="currentColor">{name}</text>'
        )
    for tick in range(int(low), int(high) + 1):
        parts.append(
            f'<text x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor="end" font-size="11" fill="currentColor">'
            f"{tick}</text>"
        )
    step = (width - left) / (len(history) - 1)
    for place, (name, values) in enumerate(series.items()):
        colour = "#2e7d32" if place == 0 else _COLOURS[(place - 1) % len(_COLOURS)]
        points = " ".join(f"{left + i * step:.1f},{y(v):.1f}" for i, v in enumerate(values))
        below = height + 16 * place
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8"/>'
            f'<rect x="{left}" y="{below - 8}" width="14" height="4" fill="{colour}"/>'
            f'<text x="{left + 20}" y="{below - 2}" font-size="12" fill="currentColor">{escape(name)}</text>'
        )
    return "".join(parts) + "</svg>"


def _drift(findings: Iterable[Any]) -> str:
    text = "<h2>Drift</h2>"
    rows = []
    for finding in findings:
        examples = finding.detail.get("examples")
        shown = "; ".join(str(e) for e in examples[:3]) if isinstance(examples, (list, tuple)) else ""
        rows.append((f"{finding.at:%Y-%m-%d %H:%M} UTC", finding.test, finding.name, shown))
    return text + (_table(("when", "test", "what", "examples"), rows) if rows else "<p class=muted>None found.</p>")


def _past(rollouts: Sequence[Mapping[str, Any]]) -> str:
    rows = [(r["candidate"], str(r["state"]).replace("_", " "), r["cause"], r["reason"]) for r in rollouts]
    return "<h2>Rollouts</h2>" + _table(("candidate", "state", "cause", "reason"), rows) if rows else ""


def _versions(versions: Sequence[Mapping[str, Any]]) -> str:
    rows = [(v["name"], v["gate"], v["approved_by"]) for v in versions]
    return "<h2>Versions</h2>" + _table(("version", "gate", "approved by"), rows) if rows else ""


def _gateways(gateways: Sequence[Mapping[str, Any]]) -> str:
    rows = [(g["id"], g["revision"], ", ".join(g["loaded"]), g["error"]) for g in gateways]
    return "<h2>Gateways</h2>" + _table(("id", "revision", "loaded", "error"), rows) if rows else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    top = "".join(f"<th>{escape(h)}</th>" for h in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class=scroll><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
