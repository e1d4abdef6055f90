"""The training card: what an adapter was made of and how, in `training_card.json` and, for people, `README.md`.

No text of any user is in it: digests, counts, settings and figures only. It lies beside the weights, is named by its
digest in the manifest and checked before loading, but is no part of the adapter's own digest: the same weights trained
in another number of seconds are the same adapter.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.adapters import CARD, README

VERSION = 1


def training_card(
    *,
    base: dict[str, Any],
    data: dict[str, Any],
    settings: dict[str, Any],
    seed: int,
    code_commit: str,
    result: dict[str, Any],
    privacy: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The card as data.

    Args:
        base: reference, digest, licence, tokenizer_digest and chat_template_digest.
        data: the snapshot's digests and counts.
        settings: the training section.
        seed: of order and initial weights.
        code_commit: of Tidemill.
        result: steps, tokens, seconds and metrics.
        privacy: what a private run guarantees and what not (`training.private_job`); left out if empty.
    """
    return {
        "card": VERSION,
        "base": base,
        "data": data,
        "training": settings,
        "seed": seed,
        "code_commit": code_commit,
        "result": result,
        **({"privacy": privacy} if privacy else {}),
    }


def _table(values: dict[str, Any]) -> str:
    lines = ["| | |", "|---|---|"]
    for name, value in values.items():
        shown = f"{value:.6g}" if isinstance(value, float) else json.dumps(value) if isinstance(value, dict) else value
        lines.append(f"| {name} | {str(shown).replace('|', chr(92) + '|')} |")
    return "\n".join(lines)


def _named(derived: dict[str, Any]) -> dict[str, Any]:
    return {name: ", ".join(map(str, one)) if isinstance(one, list) else one for name, one in derived.items()}


def _privacy(facts: dict[str, Any]) -> str:
    """What the guarantee says, in a sentence, its figures, and what it does not cover."""
    outside = " Incidents are outside it." if facts["incidents"] == "public" else ""
    figures = {key: value for key, value in facts.items() if key != "not_covered"}
    return (
        "## Privacy\n\n"
        f"Differentially private by person, epsilon {facts['epsilon']:.4g} at delta {facts['delta']:.2g}: "
        f"leaving all rows of any one person out of the training rows would have made no outcome more than e^epsilon "
        f"times as likely or as unlikely, but for a chance of delta.{outside} Losses are those of public rows, tokens "
        f"those expected.\n\n"
        f"{_table(figures)}\n\nNot covered: {'; '.join(facts['not_covered'])}.\n\n"
    )


def readme(card: dict[str, Any]) -> str:
    """The card for people, with the front matter that model hubs read."""
    base, data, result = card["base"], card["data"], card["result"]
    front = f"---\nbase_model: {json.dumps(base['reference'])}\nlibrary_name: peft\ntags: [lora, tidemill]\n---\n"
    figures = {**{key: value for key, value in result.items() if key != "metrics"}, **result["metrics"]}
    return (
        f"{front}\n# LoRA adapter of {base['reference']}\n\n"
        f"Licence of the base: {base['licence']}. An adapter is a derived work of its base.\n\n"
        f"Load it on this base only; Tidemill checks the digests below first.\n\n"
        f"## Base\n\n{_table(base)}\n\n## Data\n\n{_table(data)}\n\n## Training\n\n"
        f"{_table({**card['training'], 'seed': card['seed'], 'code commit': card['code_commit'] or 'unknown'})}\n\n"
        f"{_privacy(card['privacy']) if 'privacy' in card else ''}"
        + (f"## Privacy\n\n{card['privacy_not_claimed']}\n\n" if "privacy_not_claimed" in card else "")
        + f"## Result\n\n{_table(figures)}\n"
        + (f"\n## Made from another adapter\n\n{_table(_named(card['derived']))}\n" if "derived" in card else "")
    )


def derived_card(folder: Path, derived: dict[str, Any]) -> dict[str, Any] | None:
    """The card of an adapter made from the one in `folder` without training; None where that has none.

    Args:
        derived: parents and how it was made, for example {"parents": [digest], "scale": 0.7}.
    """
    path = folder / CARD
    return {**json.loads(path.read_text(encoding="utf-8")), "derived": derived} if path.is_file() else None


def soup_card(folders: Sequence[Path], derived: dict[str, Any]) -> dict[str, Any] | None:
    """The card of the mean of several adapters of one base; None where one of them has none.

    Args:
        folders: the parents', named by their digests.
        derived: parents, weights and what was cut off.

    Of the parents' settings it holds those that are alike. It claims no privacy: somebody may be in several parents'
    rows, and what that adds up to is not in their cards.
    """
    if not all((folder / CARD).is_file() for folder in folders):
        return None
    cards = {folder.name[:12]: json.loads((folder / CARD).read_text(encoding="utf-8")) for folder in folders}
    first, *others = cards.values()
    settings = {
        key: value
        for key, value in first["training"].items()
        if key != "privacy" and all(key in card["training"] and card["training"][key] == value for card in others)
    }
    not_claimed = _not_claimed(cards)
    return {
        "card": VERSION,
        "base": first["base"],
        "data": {name: card["data"] for name, card in cards.items()},
        "training": settings,
        "seed": {name: card["seed"] for name, card in cards.items()},
        "code_commit": ", ".join(sorted({card["code_commit"] for card in cards.values() if card["code_commit"]})),
        "result": {"metrics": {name: card["result"] for name, card in cards.items()}},
        "derived": derived,
        **({"privacy_not_claimed": not_claimed} if not_claimed else {}),
    }


def _not_claimed(cards: dict[str, dict[str, Any]]) -> str:
    """What a soup's card says where its parents' cards speak of privacy; empty where none does."""
    private = {name: card["privacy"] for name, card in cards.items() if "privacy" in card}
    if not private and not any("privacy_not_claimed" in card for card in cards.values()):
        return ""
    if len(private) < len(cards):
        plain = ", ".join(name for name in cards if name not in private)
        return f"No differential privacy is claimed: the card of {plain} claims none."
    each = ", ".join(f"{name} epsilon {p['epsilon']:.4g} at delta {p['delta']:.2g}" for name, p in private.items())
    return (
        f"Each parent is differentially private by person ({each}). None of these is claimed for their mean: it "
        "depends on all of their runs, and whoever is in the rows of several loses more. What all retrains together "
        "spent is in the ledger (`tidemill train privacy`)."
    )


def write_card(folder: Path, card: dict[str, Any]) -> None:
    """Write both files into an adapter's folder before it is published."""
    text = json.dumps(card, indent=1, sort_keys=True, ensure_ascii=False, default=str)
    (folder / CARD).write_text(text + "\n", encoding="utf-8")
    (folder / README).write_text(readme(card), encoding="utf-8")
