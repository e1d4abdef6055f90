"""What `tidemill train privacy` shows: the ledger of epsilon, and how much is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from store import privacy

if TYPE_CHECKING:
    from flows.context import Context


def ledger_facts(context: Context) -> dict[str, Any]:
    """Budget, what is spent of it and every charge, oldest first. Needs no opacus: totals stand in the ledger."""
    with context.store.read() as conn:
        charges = privacy.charges(conn, context.model)
    settings = context.config.training.privacy
    spent = charges[-1].total_epsilon if charges else 0.0
    budget = None if settings is None else settings.total_epsilon
    return {
        "model": context.model,
        "unit": "person",
        "total_epsilon": budget,
        "spent_epsilon": spent,
        "left_epsilon": None if budget is None else max(0.0, budget - spent),
        "delta": charges[-1].total_delta if charges else None,
        "charges": [charge.model_dump(mode="json") for charge in charges],
    }


def ledger_rows(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """One line a charge."""
    return [
        {
            "at": charge["at"][:19],
            "retrain": charge["request_id"],
            "people": charge["mechanism"]["people"],
            "noise": f"{charge['mechanism']['noise_multiplier']:.3g}",
            "rate": f"{charge['mechanism']['sample_rate']:.3g}",
            "steps": charge["mechanism"]["steps"],
            "epsilon": f"{charge['mechanism']['epsilon']:.4g}",
            "all so far": f"{charge['total_epsilon']:.4g}",
        }
        for charge in facts["charges"]
    ]


def ledger_title(facts: dict[str, Any]) -> str:
    """What is spent, of what."""
    budget = "no budget is set" if facts["total_epsilon"] is None else f"of {facts['total_epsilon']:g}"
    return f"privacy of {facts['model']}: epsilon {facts['spent_epsilon']:.4g} spent, {budget}"
