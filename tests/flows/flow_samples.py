"""Data for the flow tests: a store with corrections of many customers, and a profile on the tiny model."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from configs.loader import load_config
from configs.schema import Config
from data_contracts.ids import new_id, new_request_id
from data_contracts.records import Feedback, FeedbackKind, Interaction, Message, utc_now
from store import feedback, interactions
from store.engine import Store

KEY = b"k" * 32
TOPICS = {
    "returns": ("You have sixty days to send it back.", "how do I send item {n} back to you"),
    "delivery": ("Parcels leave our mill every Tuesday.", "when does parcel {n} leave"),
    "payment": ("We take cards and bank transfer only.", "which ways can I pay order {n}"),
}


def tiny_config(state: Path, **overrides: Any) -> Config:
    """The smoke profile with a state directory of its own; everything small and permissive."""
    settings: dict[str, Any] = {
        "state_dir": str(state),
        "curation": {"holdout_share": 0.3, "corroborating_principals": 2, "trust": {"min_account_age_days": 0}},
        "triggers": {"min_new_rows": 10, "min_rows_any_cause": 5, "cooldown_s": 0},
        "drift": {"enabled": False},
        "stack": {"lease_s": 2.0},
        **overrides,
    }
    return load_config("smoke", settings)


def add_corrections(store: Store, model: str, *, per_topic: int = 16, offset: int = 0, at: Any = None) -> list[str]:
    """Each topic corrected by `per_topic` customers, one row each; returns the feedback ids."""
    now = at or utc_now()
    served, said = [], []
    for topic, (answer, question) in TOPICS.items():
        for n in range(offset, offset + per_topic):
            request_id = new_request_id(KEY, model)
            moment = now - timedelta(minutes=10) + timedelta(seconds=n)
            served.append(
                Interaction(
                    id=request_id,
                    created_at=moment,
                    model=model,
                    principal=f"{topic}-customer-{n}",
                    conversation=request_id,
                    messages=(Message(role="user", content=question.format(n=n)),),
                    answer="I do not know.",
                )
            )
            said.append(
                Feedback(
                    id=new_id(),
                    interaction_id=request_id,
                    kind=FeedbackKind.CORRECTION,
                    created_at=moment + timedelta(seconds=1),
                    principal=f"{topic}-customer-{n}",
                    text=answer,
                    salt=f"{n:032d}",
                )
            )
    with store.write() as conn:
        interactions.insert(conn, served)
        feedback.insert(conn, [(model, item) for item in said])
    return [item.id for item in said]


def add_thumbs(store: Store, model: str, names: list[str], **changes: Any) -> list[str]:
    """A thumb of each on an answer of their own; every third is down."""
    now, served, said = utc_now() - timedelta(minutes=5), [], []
    for n, name in enumerate(names):
        request_id = new_request_id(KEY, model)
        served.append(
            Interaction(
                id=request_id, created_at=now, model=model, principal=name, conversation=request_id,
                messages=(Message(role="user", content=f"what about lamp {n} of the winter list"),),
                answer=f"Lamp {n} is in stock.",
            )
        )  # fmt: skip
        data = {
            "id": new_id(), "interaction_id": request_id, "kind": FeedbackKind.THUMB, "created_at": now,
            "principal": name, "thumb": -1 if n % 3 == 2 else 1, "salt": f"{n:032d}",
        }  # fmt: skip
        said.append(Feedback(**{**data, **changes}))
    with store.write() as conn:
        interactions.insert(conn, served)
        feedback.insert(conn, [(model, one) for one in said])
    return [one.id for one in said]
