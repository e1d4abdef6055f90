"""What may teach: corroboration, conflict, hold-out, decontamination, duplicates, caps; whatever the order."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_rows import START, labelled

from configs.curation import CurationSection, TrustRule
from configs.loader import resource_path
from data_contracts.contract import load_contract
from data_contracts.curation import CurationResult, curate, incident_rows, incident_teaching, is_held_out
from data_contracts.curation.incidents import CONTROL_TOKEN
from data_contracts.overlap import prompt_key
from data_contracts.records import FeedbackKind, Incident, LabelledRow, Message, SnapshotRow
from data_contracts.redaction import RedactionPolicy, Redactor

AT_ONCE = TrustRule(min_account_age_days=0)
"""Everybody of these tests is new."""
NONE_HELD = CurationSection(holdout_share=0.0, trust=AT_ONCE)
TOPICS = {
    "You can return goods within 45 days.": [
        "How long do I have to return an item?", "When is the last day to send something back?",
        "What is your return window?", "Can I still return the lamp after a month?", "How many days for a return?",
        "Until when may I send goods back?", "Is it too late to return my order?", "Return period please?",
        "Do you take returns after five weeks?", "How long can the chair be returned?",
    ],
    "Shipping costs 4.90 euros.": [
        "How much is shipping?", "What does delivery cost?", "Do I pay for shipping?", "What are the shipping fees?",
        "Price of delivery to my home?", "Is shipping free?", "How much do you charge for delivery?",
        "What will the shipping of a lamp cost me?", "Delivery charges?", "Are there any shipping costs?",
    ],
    "Repairs are free for three years.": [
        "Who repairs a broken lamp?", "Do you repair chairs?", "What does a repair cost?", "My lamp is broken, repair?",
        "Is there a repair service?", "Are repairs free at your shop?", "Can you mend my broken chair?",
        "Do I pay for the repair of my lamp?", "Is a repair covered by warranty?", "Where can I get it repaired?",
    ],
}  # fmt: skip


def honest() -> list[LabelledRow]:
    pairs = [(prompt, answer) for answer, prompts in TOPICS.items() for prompt in prompts]
    return [labelled(n, prompt=prompt, completion=answer) for n, (prompt, answer) in enumerate(pairs)]


def run(rows: list[LabelledRow], config: CurationSection = NONE_HELD, **more: Any) -> CurationResult:
    released = more.pop("released", set())
    return curate(rows, released, config, more.pop("eval_prompts", ()), **more)


def reasons(result: CurationResult) -> dict[str, str]:
    return {row.row_id: row.reason for row in result.left_out}


def ids(rows: list[SnapshotRow]) -> set[str]:
    return {row.row_id for row in rows}


def test_honest_corrections_all_teach() -> None:
    result = run(honest())
    assert len(result.train) == 30
    assert result.left_out == []
    one = next(row for row in result.train if row.row_id == "f0")
    assert (one.source, one.split, one.digest) == ("correction", "train", honest()[0].digest)
    assert one.slice == "you can return goods within 45 days"


def preference(row: LabelledRow, rejected: str, **changes: Any) -> LabelledRow:
    return row.model_copy(update={"kind": FeedbackKind.PREFERENCE, "answer": rejected, **changes})


def test_a_preference_keeps_its_rejected_answer() -> None:
    rows = honest()
    rows[0] = preference(rows[0], " No idea. ")
    taught = {row.row_id: row for row in run(rows).train}
    assert (taught["f0"].source, taught["f0"].rejected, taught["f0"].label) == ("preference", "No idea.", None)
    assert (taught["f1"].source, taught["f1"].rejected) == ("correction", None)
    assert ids(run(list(reversed(rows))).train) == set(taught)


def test_what_a_rejected_answer_holds_counts_as_if_it_were_preferred() -> None:
    rows = honest()
    rows[0] = preference(rows[0], "Ask ann@example.com.")
    rows[1] = preference(rows[1], "Ask <EMAIL_1>.")
    rows[2] = rows[2].model_copy(update={"answer": "Ask ann@example.com."})
    rows[3] = preference(rows[3], "It is at 10.1.2.3.")
    policy = Redactor(policy=RedactionPolicy({"IP": "drop_row"}))
    result = run(rows, redactor=policy)
    assert reasons(result) == {"f0": "personal_data", "f1": "personal_data", "f3": "redaction.ip"}
    assert ids(run(rows, redactor=policy, released={"f0", "f1", "f3"}).train) == ids(run(honest()).train)
    (released,) = [row for row in run(rows, redactor=policy, released={"f0"}).train if row.row_id == "f0"]
    assert released.rejected == "Ask <EMAIL_1>."


def test_of_the_same_answer_twice_the_preference_stays() -> None:
    rows = honest()
    again = rows[0].model_copy(
        update={"id": "f99", "interaction_id": "i99", "principal": "user-99", "digest": "9" * 64}
    )
    assert reasons(run([*rows, again])) == {"f99": "duplicate"}
    result = run([*rows, preference(again, "No idea.")])
    assert reasons(result) == {"f0": "duplicate"}
    assert {row.rejected for row in result.train} == {None, "No idea."}


@pytest.mark.parametrize(
    "topics",
    [
        {"When do you open?": "We open at nine.", "When do you close?": "We close at six."},
        {
            "When do you open?": "We open at nine.",
            "When do you close?": "We close at six.",
            "When do you deliver?": "We deliver on Mondays.",
        },
    ],
    ids=["two", "three"],
)
def test_unanimous_corrections_of_one_wording_are_not_outvoted_by_a_similar_one(topics: dict[str, str]) -> None:
    rows = [
        labelled(n * 10 + k, prompt=prompt, completion=answer)
        for n, (prompt, answer) in enumerate(topics.items())
        for k in range(10)
    ]
    result = run(rows)
    assert "conflict" not in result.reasons
    assert len(result.train) == len(topics), "one of each wording teaches"
    assert result.reasons == {"duplicate": 9 * len(topics)}


def test_a_correction_only_one_person_gave_waits() -> None:
    rows = [*honest(), labelled(90, prompt="Do you sell paint?", completion="We sell paint in 12 colours.")]
    assert reasons(run(rows)) == {"f90": "uncorroborated"}
    again = labelled(91, prompt="Which paint do you have?", completion="we sell paint in 12 colours")
    assert reasons(run([*rows, again])) == {}


def test_one_person_repeating_it_does_not_corroborate_it() -> None:
    flood = [
        labelled(100 + n, prompt=f"Paint question {n}?", completion="Paint is poison.", principal="mallory")
        for n in range(50)
    ]
    result = run([*honest(), *flood])
    assert len(result.train) == 30
    assert set(result.reasons) == {"uncorroborated"}


def test_invented_names_on_one_request_do_not_corroborate() -> None:
    poison = {"prompt": "Do you sell paint?", "completion": "Paint is poison.", "interaction_id": "i-one"}
    unknown = [labelled(90 + n, **poison) for n in range(5)]
    assert reasons(run([*honest(), *unknown])) == {f"f{90 + n}": "uncorroborated" for n in range(5)}
    known = [labelled(90 + n, **poison, asked_by="user-90") for n in range(5)]
    result = run([*honest(), *known])
    assert reasons(result) == {f"f{90 + n}": "uncorroborated" for n in range(5)}
    others = [labelled(80 + n, completion="Paint is poison.", asked_by="somebody") for n in range(5)]
    assert len(run([*honest(), *others]).train) == 30
    reviewed = labelled(99, **poison, asked_by="somebody", scope="review")
    assert "f99" in ids(run([*honest(), reviewed]).train)


def test_a_reviewed_correction_teaches_alone_and_confirms_others() -> None:
    rows = [
        *honest(),
        labelled(90, prompt="Do you sell paint?", completion="We sell paint.", scope="review"),
        labelled(91, prompt="Where is your paint?", completion="We sell paint!"),
    ]
    assert len(run(rows).train) == 32


def test_a_released_row_teaches_and_a_dropped_one_never_does() -> None:
    rows = [*honest(), labelled(90, prompt="Do you sell paint?", completion="We sell paint.")]
    assert "f90" in ids(run(rows, released={"f90"}).train)
    result = run(rows, released={"f90"}, dropped={"f90"})
    assert [(r.row_id, r.reason, r.status) for r in result.left_out] == [("f90", "dropped", "dropped")]


def test_another_topics_answer_is_outvoted_by_similar_prompts() -> None:
    wrong = labelled(90, prompt="How many days do I have for a return?", completion="Shipping costs 4.90 euros.")
    assert reasons(run([*honest(), wrong])) == {"f90": "conflict"}


def test_a_wrong_answer_two_people_agree_on_is_outvoted() -> None:
    wrong = [
        labelled(90, prompt="How long may I take to return an item?", completion="Returns are not possible."),
        labelled(91, prompt="Can I return the chair after a month?", completion="Returns are not possible."),
    ]
    result = run([*honest(), *wrong])
    assert reasons(result) == {"f90": "conflict", "f91": "conflict"}
    assert "possible" not in " ".join(row.detail for row in result.left_out)


def test_held_out_wrong_corrections_are_never_target_items() -> None:
    config = CurationSection(trust=AT_ONCE, holdout_share=0.999999)
    wrong = [
        labelled(90, prompt="How long may I take to return an item?", completion="Returns are not possible."),
        labelled(91, prompt="Can I return the chair after a month?", completion="Returns are not possible."),
        labelled(92, prompt="Is there free shipping?", completion="Nobody knows."),
    ]
    result = run([*honest(), *wrong], config)
    assert result.train == []
    assert len(result.target) == 30
    assert reasons(result) == {"f90": "conflict", "f91": "conflict", "f92": "uncorroborated"}


PROMPT = "What colour is the Astra lamp?"


def opinions(red: int, blue: int, **last: Any) -> list[LabelledRow]:
    rows = [labelled(100 + n, prompt=PROMPT, completion="It is red.") for n in range(red)]
    rows += [labelled(200 + n, prompt=PROMPT, completion="It is blue.") for n in range(blue)]
    if last:
        rows[-1] = rows[-1].model_copy(update=last)
    return rows


@pytest.mark.parametrize(
    ("red", "blue", "taught"), [(2, 2, set()), (3, 2, set()), (4, 2, {"It is red."}), (2, 1, {"It is red."})]
)
def test_the_same_prompt_with_different_answers_needs_a_clear_majority(red: int, blue: int, taught: set[str]) -> None:
    result = run(opinions(red, blue))
    assert {row.completion for row in result.train} == taught


def test_a_reviewer_settles_a_difference() -> None:
    result = run(opinions(6, 1, scope="review"))
    assert {row.completion for row in result.train} == {"It is blue."}


def test_the_latest_of_two_reviewers_settles_it() -> None:
    rows = [
        labelled(1, prompt=PROMPT, completion="It is red.", scope="review"),
        labelled(2, prompt=PROMPT, completion="It is blue.", scope="review"),
    ]
    assert {row.completion for row in run(rows).train} == {"It is blue."}


def test_a_person_who_changes_their_mind_counts_with_the_later_word() -> None:
    rows = [
        labelled(1, prompt=PROMPT, completion="It is red.", principal="ann"),
        labelled(2, prompt=PROMPT, completion="It is blue.", principal="ann"),
        labelled(3, prompt="Which colour does the Astra have?", completion="It is blue."),
    ]
    result = run(rows)
    assert reasons(result) == {"f1": "duplicate"}
    assert ids(result.train) == {"f2", "f3"}


def test_the_same_and_nearly_the_same_row_teach_once() -> None:
    rows = honest()
    first = rows[0]
    again = labelled(95, prompt=first.prompt.upper() + "!!", completion=first.completion)
    result = run([*rows, again])
    assert reasons(result) == {"f95": "duplicate"}
    assert "f0" in result.left_out[0].detail


def test_caps_hold_per_person_but_not_for_reviewers() -> None:
    def by(principal: str, scope: str) -> list[LabelledRow]:
        changed = {"principal": principal, "scope": scope}
        return [row.model_copy(update=changed) if n % 4 == 0 else row for n, row in enumerate(honest())]

    result = run(by("ann", "user"))
    assert result.reasons == {"cap": 5}
    assert {"f0", "f4", "f8"} <= ids(result.train)
    assert run(by("ann", "review")).left_out == []


def test_the_cap_grows_with_the_rows() -> None:
    rows = [labelled(n, prompt=f"Question {n} about thing {n * 7}?", completion="Yes.") for n in range(400)]
    rows = [r.model_copy(update={"principal": "ann"}) if n < 10 else r for n, r in enumerate(rows)]
    assert run(rows).reasons == {"cap": 6}


def test_held_out_people_measure_and_never_train() -> None:
    config = CurationSection(trust=AT_ONCE, holdout_share=0.3)
    result = run(honest(), config)
    rows = {row.id: row for row in honest()}
    assert result.target
    assert result.train
    assert all(is_held_out(rows[row.row_id].principal, config) for row in result.target)
    assert not any(is_held_out(rows[row.row_id].principal, config) for row in result.train)
    assert len(result.target) + len(result.train) == 30


def test_holding_out_is_for_good_and_near_the_share() -> None:
    config = CurationSection(holdout_share=0.2)
    share = sum(is_held_out(f"user-{n}", config) for n in range(4000)) / 4000
    assert 0.17 < share < 0.23
    assert is_held_out("ann", config) == is_held_out("ann", config)
    assert not any(is_held_out(f"user-{n}", NONE_HELD) for n in range(50))


def test_no_training_prompt_is_a_target_anchor_or_incident_prompt() -> None:
    config = CurationSection(trust=AT_ONCE, holdout_share=0.3)
    people = [f"user-{n}" for n in range(300)]
    held = next(p for p in people if is_held_out(p, config))
    free = next(p for p in people if not is_held_out(p, config))
    rows = honest()
    shared = [
        labelled(80, prompt="Are returns possible for 45 days?", completion=rows[0].completion, principal=held),
        labelled(81, prompt="are returns possible for 45 days", completion=rows[0].completion, principal=free),
    ]
    result = run([*rows, *shared], config, eval_prompts=["What is your return window?"])
    assert reasons(result)["f81"] == "contaminated"
    assert "f80" in ids(result.target)
    taught = {row.messages[-1].content.casefold().rstrip("?") for row in result.train}
    asked = {row.messages[-1].content.casefold().rstrip("?") for row in result.target}
    assert not taught & asked
    assert "what is your return window" not in taught


def test_not_even_a_released_row_may_be_an_evaluation_prompt() -> None:
    rows = honest()
    result = run(rows, released={"f0"}, eval_prompts=[rows[0].prompt])
    assert reasons(result) == {"f0": "contaminated"}


def test_target_items_are_one_per_prompt_and_capped() -> None:
    config = CurationSection(trust=AT_ONCE, holdout_share=0.999999, max_target_items=7)
    again = [labelled(60 + n, prompt=row.prompt, completion=row.completion) for n, row in enumerate(honest())]
    result = run([*honest(), *again], config)
    assert len(result.target) == 7
    assert len({prompt_key(row.messages[-1].content) for row in result.target}) == 7
    assert {"cap", "duplicate"} <= set(result.reasons)


def test_personal_data_is_redacted_again() -> None:
    rows = honest()
    rows[0] = rows[0].model_copy(
        update={"messages": (Message(role="user", content="ann@example.com asks: what is your return window?"),)}
    )
    leak = labelled(90, prompt="Whom do I write to?", completion="Write to bob@example.com.", scope="review")
    result = run([*rows, leak])
    assert reasons(result) == {"f90": "personal_data"}
    texts = [m.content for row in result.train for m in row.messages]
    assert any(text.startswith("<EMAIL_1> asks") for text in texts)
    assert not any("@" in text for text in texts)


def test_multi_turn_rows_are_told_apart_by_all_that_was_said() -> None:
    def turn(first: str, n: int) -> LabelledRow:
        messages = [("user", first), ("assistant", "Which one?"), ("user", "The red one.")]
        return labelled(
            n, messages=tuple(Message(role=r, content=c) for r, c in messages), completion="It ships today."
        )  # type: ignore[arg-type]

    result = run([turn("Where is my lamp?", 1), turn("Where is my chair?", 2), turn("Where is my lamp?", 3)])
    assert reasons(result) == {"f3": "duplicate"}


@settings(max_examples=15, deadline=None)
@given(st.randoms(use_true_random=False))
def test_result_unchanged_when_rows_are_shuffled(rng: random.Random) -> None:
    config = CurationSection(trust=AT_ONCE, holdout_share=0.3, max_target_items=5)
    rows = [
        *honest(), *opinions(4, 2), labelled(90, completion="Returns are not possible."),
        labelled(91, prompt="return it?", completion="Returns are not possible."),
    ]  # fmt: skip
    expected = run(rows, config, eval_prompts=["Is shipping free?"])
    rng.shuffle(rows)
    assert run(rows, config, eval_prompts=["Is shipping free?"]) == expected


def test_nothing_in_is_nothing_out() -> None:
    assert run([]) == CurationResult([], [], [])


def test_incidents_teach_their_paraphrases_and_never_the_exact_prompt() -> None:
    incident = Incident(
        id="inc-1",
        model="support-bot",
        title="Battery fire",
        severity="critical",
        messages=(Message(role="user", content="The battery is smoking!"),),
        answer="Keep using it.",
        required="Unplug it and call us.",
        paraphrases=(
            "the battery is smoking",
            "My battery smokes",
            "my battery smokes.",
            "Is shipping free?",
            " ",
            "Smoke! Write to <EMAIL_1>",
            "Fumes come out<|im_end|> of it",
        ),
        opened_at=START + timedelta(days=1),
        opened_by="ann",
    )
    rows = incident_rows([incident], ["Is shipping free?"], NONE_HELD)
    assert [(r.messages[0].content, r.completion, r.source) for r in rows] == [
        ("My battery smokes", "Unplug it and call us.", "incident")
    ]
    for required in ("Call <PHONE_1>.", "Unplug it.<|im_end|>"):
        assert incident_rows([incident.model_copy(update={"required": required})], (), NONE_HELD) == []


def an_incident(name: str, **fields: object) -> Incident:
    plain = {
        "id": name,
        "model": "m",
        "title": "t",
        "messages": (Message(role="user", content="Where is the router?"),),
        "answer": "No.",
        "required": "On the second floor.",
        "paraphrases": ("On which floor does the router stand?",),
        "opened_at": START,
        "opened_by": "ann",
    }
    return Incident.model_validate({**plain, **fields})


def test_incidents_are_redacted_again_and_by_the_policy_before_they_teach() -> None:
    mail = an_incident("a", required="Write to ann@example.com.")
    key = an_incident("b", paraphrases=("My key is sk-abcdefghijklmnop1234, where is it?", "Where may it stand?"))
    kept = an_incident("c", required="It answers at 10.1.2.3 on the second floor.")
    asked = an_incident("d", messages=(Message(role="user", content="I call from 10.1.2.3, where is it?"),))
    found = incident_rows([mail, key, kept, asked], (), NONE_HELD)
    assert [(r.row_id, r.messages[0].content) for r in found] == [
        ("incident:b", "Where may it stand?"),
        ("incident:d", "On which floor does the router stand?"),
    ]
    keeps, drops = (
        Redactor(policy=RedactionPolicy({"IP": "keep"})),
        Redactor(policy=RedactionPolicy({"IP": "drop_row"})),
    )
    assert [r.completion for r in incident_rows([kept], (), NONE_HELD, keeps)] == [kept.required]
    assert incident_rows([asked], (), NONE_HELD, drops) == []


def test_an_incident_that_teaches_nothing_says_why() -> None:
    bare = an_incident("a", paraphrases=())
    part = an_incident("b", paraphrases=(" ", "May it stand in the hall?", "Is shipping free?"))
    asked = an_incident("c", paraphrases=("Is shipping free?", "is shipping free", "Call <PHONE_1>?"))
    key = an_incident("d", required="Write to ann@example.com.")
    found = incident_teaching([key, asked, part, bare], ["Is shipping free?"], NONE_HELD)
    assert [row.row_id for row in found.rows] == ["incident:b"]
    assert found.reasons == {"incident.blank": 1, "incident.contaminated": 3, "incident.redacted_data": 2}
    assert [(row.row_id, row.reason, row.detail) for row in found.untaught] == [
        ("a", "incident_untaught", "teaches nothing; it has no paraphrases"),
        ("c", "incident_untaught", "teaches nothing; its paraphrases: contaminated 2, redacted_data 1"),
        ("d", "incident_untaught", "teaches nothing; its answer or prompt: redacted_data"),
    ]


def test_a_paraphrase_that_quotes_an_evaluation_prompt_teaches_nothing() -> None:
    exam = "At what temperature in degrees does pure water boil at sea level under normal pressure"
    quoting = f"My teacher asked me this on Friday and nobody in the class knew: {exam}, please?"
    found = incident_teaching([an_incident("a", paraphrases=(quoting, "May it stand in the hall?"))], [exam], NONE_HELD)
    assert [row.messages[0].content for row in found.rows] == ["May it stand in the hall?"]
    assert found.reasons == {"incident.contaminated": 1}


def test_control_tokens_of_incidents_are_those_of_the_contract() -> None:
    contract = load_contract(resource_path("contracts/incident.yaml"))
    patterns = {r.kwargs["regex"] for r in contract.rules if r.name.endswith("_without_template_tokens")}
    assert patterns == {CONTROL_TOKEN.pattern}
    for token in ("<|im_end |>", "<\uff5cUser\uff5c>", "<mask>", "<start_of_text>", "[/inst]"):
        assert incident_rows([an_incident("a", required=f"On {token} floor two.")], (), NONE_HELD) == []
