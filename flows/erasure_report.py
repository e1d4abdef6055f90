"""What is left of a retrain's report after an erasure: the verdict and its figures, no prompts and no answers."""

from __future__ import annotations

from html import escape

from data_contracts.records import GateDecision
from flows.context import Context
from store import requests, steps

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:1rem}"
    "table{border-collapse:collapse}th,td{text-align:left;padding:.25rem .8rem .25rem 0;border-top:1px solid #8886}"
)
_COLUMNS = ("suite", "against", "n", "reference", "candidate", "difference", "interval", "lost", "gained", "verdict")


def reduced_report(context: Context, request_id: str) -> str:
    """One self-contained HTML page from the ledger's figures."""
    with context.store.read() as conn:
        request = requests.get(conn, request_id)
        step = steps.get(conn, request_id, "gate")
    title = escape(request.title if request else f"retrain {request_id}")
    body = "<p>No verdict was recorded.</p>"
    if step is not None and step.output:
        decision = GateDecision.model_validate(step.output["decision"])
        rows = [
            (
                v.suite,
                v.against,
                v.n,
                f"{v.reference_mean:.3f}",
                f"{v.candidate_mean:.3f}",
                f"{v.difference:+.3f}",
                f"[{v.lower:+.3f}, {v.upper:+.3f}]",
                v.lost,
                v.gained,
                v.verdict,
            )
            for v in decision.suites
        ]
        body = f"<p><b>{escape(decision.verdict)}</b> ({escape(decision.objective)})</p><table><tr>"
        body += "".join(f"<th>{name}</th>" for name in _COLUMNS) + "</tr>"
        body += "".join("<tr>" + "".join(f"<td>{escape(str(c))}</td>" for c in row) + "</tr>" for row in rows)
        body += "</table>" + "".join(
            f"<p>{escape(f.title)}: {f.value:+.3f} [{f.lower:+.3f}, {f.upper:+.3f}], {escape(f.verdict)}</p>"
            for f in decision.findings
        )
        body += "".join(f"<p>{escape(reason)}</p>" for reason in decision.reasons)
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style></head>"
        f"<body><h1>{title}</h1><p>Prompts and answers were taken out of this report by an erasure; its figures are "
        f"those the decision was made on.</p>{body}</body></html>"
    )
