"""The privacy ledger, on both databases."""

from __future__ import annotations

import pytest
from store_samples import MODEL, correction, interaction

from configs.errors import ConflictError
from data_contracts.records import Incident, Message, PrivacyCharge, PrivacyMechanism, utc_now
from store import audit, feedback, incidents, interactions, privacy
from store.engine import Store


def charge(number: int, model: str = MODEL) -> PrivacyCharge:
    run = PrivacyMechanism(
        people=100, sample_rate=0.1, steps=20, noise_multiplier=1.1 + number / 7, max_grad_norm=1.0, epsilon=1 / 3,
        delta=1e-5, accountant="rdp", library="opacus 1.6.0",
    )  # fmt: skip
    return PrivacyCharge(
        id=f"{model}{number}".rjust(64, "0"), model=model, request_id="r", snapshot="s" * 64, mechanism=run,
        total_epsilon=number / 3, total_delta=1e-5, at=utc_now(),
    )  # fmt: skip


def test_charges_are_kept_in_order_and_audited(store: Store) -> None:
    with store.write() as conn:
        privacy.append(conn, charge(1, "other"), after=[])
        privacy.append(conn, charge(1), after=[])
        privacy.append(conn, charge(2), after=[charge(1).id])
    with store.read() as conn:
        kept = privacy.charges(conn, MODEL)
        assert [one.id for one in kept] == [charge(1).id, charge(2).id]
        assert kept[1].mechanism == charge(2).mechanism  # to the last bit: totals are counted from it
        assert privacy.charges(conn, "nobody") == []
        assert audit.verify(conn) == 3
        newest = audit.entries(conn, 1)[0]
    assert (newest.action, newest.subject, newest.detail["charge"]) == ("privacy.charged", MODEL, charge(2).id)


def test_a_charge_that_was_counted_from_an_older_ledger_is_refused(store: Store) -> None:
    with store.write() as conn:
        privacy.append(conn, charge(1), after=[])
    for number, after in ((2, []), (1, []), (2, ["0" * 64])):
        with pytest.raises(ConflictError, match="has grown"), store.write() as conn:
            privacy.append(conn, charge(number), after=after)
    with store.read() as conn:
        assert len(privacy.charges(conn, MODEL)) == 1
        assert audit.verify(conn) == 1


def test_whose_words_a_row_is_made_of(store: Store) -> None:
    incident = Incident(
        id="i1", model=MODEL, interaction_id="q1", title="t", messages=(Message(role="user", content="x"),), answer="a",
        required="b", opened_at=utc_now(), opened_by="rita",
    )  # fmt: skip
    with store.write() as conn:
        interactions.insert(conn, [interaction("q1", principal="ann")])
        said = [correction("f1", "q1", principal="bob"), correction("f2", "q1", principal="rita", scope="review")]
        feedback.insert(conn, [(MODEL, one) for one in [*said, correction("f3", "q-not-here", principal="cy")]])
        incidents.insert(conn, incident)
        incidents.insert(conn, incident.model_copy(update={"id": "i2", "interaction_id": None}))
    with store.read() as conn:
        found = privacy.voices(conn, ["f1", "f2", "f3", "f4"])
        askers = privacy.incident_askers(conn, ["i1", "i2", "i3"])
    assert found == {
        "f1": privacy.Voices("ann", "bob"),
        "f2": privacy.Voices("ann", "rita"),
        "f3": privacy.Voices("", "cy"),
    }
    assert askers == {"i1": "ann", "i2": ""}
