"""What `tidemill review` shows, and the loop that labels one item after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cli.visible import indented, visible, visible_line
from configs.errors import InputError, TidemillError
from data_contracts.records import ReviewAnswer, ReviewItem, utc_now
from data_contracts.review.desk import Desk, Task
from data_contracts.review.stats import ReviewStats
from flows.context import Context
from store import review_leases, reviews
from store.reviews import Role

Read = Callable[[str], str]
"""Asks for one line; raises EOFError at the end."""
Say = Callable[[str], None]

VERDICTS = {"a": "accept", "r": "reject", "c": "correct"}


def desk_of(context: Context) -> Desk:
    """The queue of a context's model."""
    return Desk(context.store, context.config, context.state.key, context.redactor)


def task_text(task: Task) -> str:
    """An item for the terminal: guidelines first, then the texts, indented and with control characters shown."""
    lines = [f"== {task.guideline.title}", "", task.guideline.text.rstrip(), ""]
    lines += [f"  {verdict:8} {meaning}" for verdict, meaning in task.guideline.verdicts.items()]
    for name, words in (("severity", task.severities), ("root cause", task.root_causes)):
        if words:
            lines += ["", f"  {name}:"] + [f"    {word:18} {meaning}" for word, meaning in words.items()]
    lines += ["", f"-- item {task.item}" + (f", held by rule `{visible(task.reason)}`" if task.reason else "")]
    payload = task.payload
    if payload.title and task.kind == "answer":
        lines += ["", "judge it by:", indented(payload.title)]
    elif payload.title:
        lines += ["", "incident" + (f" ({payload.severity})" if payload.severity else "") + ":"]
        lines += [indented(payload.title)]
    for message in payload.messages:
        lines += ["", f"{message.role}:", indented(message.content)]
    for name, text in (("the model answered", payload.answer), ("proposed answer", payload.proposed)):
        if text:
            lines += ["", f"{name}:", indented(text)]
    for option in payload.options:
        lines += ["", "somebody else proposed:", indented(option)]
    for number, other in enumerate(task.others, 1):
        said = " ".join(word for word in (other.verdict, other.severity, other.root_cause) if word)
        lines += ["", f"label {number}: {said}"]
        lines += [indented(text) for text in (other.text, other.note) if text]
    return "\n".join(lines)


def _read_text(read: Read, say: Say) -> str:
    say("The right answer; end with a line that holds only a full stop:")
    lines: list[str] = []
    while (line := read("")) != ".":
        lines.append(line)
    return "\n".join(lines)


def _choice(read: Read, say: Say, name: str, words: dict[str, str]) -> str:
    while True:
        given = read(f"{name} [{'/'.join(words)}]: ").strip()
        if given in words:
            return given
        close = [word for word in words if given and word.startswith(given)]
        if len(close) == 1:
            return close[0]
        say(f"  one of: {', '.join(words)}")


def ask(task: Task, read: Read, say: Say) -> ReviewAnswer | str:
    """One answer from a person; `skip` or `quit` instead."""
    while True:
        given = read("[a]ccept [r]eject [c]orrect [s]kip [q]uit: ").strip().lower()[:1]
        if given in ("s", "q"):
            return "skip" if given == "s" else "quit"
        if given in VERDICTS:
            break
    verdict = VERDICTS[given]
    text = _read_text(read, say) if verdict == "correct" else ""
    severity = root_cause = ""
    if task.severities and verdict != "reject":
        severity = _choice(read, say, "severity", task.severities)
        root_cause = _choice(read, say, "root cause", task.root_causes)
    note = read("note (may be empty): ").strip()
    return ReviewAnswer.model_validate(
        {"verdict": verdict, "text": text, "severity": severity, "root_cause": root_cause, "note": note}
    )


def label_loop(desk: Desk, labeller: str, read: Read, say: Say, *, role: Role = "label", kinds: tuple[str, ...]) -> int:
    """Show, ask and record until nothing waits or the person leaves; returns how many were labelled."""
    done, skipped = 0, set[str]()
    while True:
        task = desk.next(labeller, role=role, kinds=kinds, exclude=skipped)
        if task is None:
            say("Nothing waits for you.")
            return done
        say("\n" + task_text(task) + "\n")
        try:
            answer = ask(task, read, say)
            if isinstance(answer, str):
                desk.give_back(task, labeller)
                skipped.add(task.item)
                if answer == "quit":
                    return done
                continue
            desk.label(task.item, labeller, task.token, answer, role=role)
            done += 1
        except EOFError:
            desk.give_back(task, labeller)
            return done
        except TidemillError as error:
            # Said, and the item comes again: the lease is still this person's, or somebody else's by now.
            say(f"Not recorded: {error}")
            if not isinstance(error, InputError):
                skipped.add(task.item)


def list_rows(context: Context, kinds: tuple[str, ...], statuses: tuple[str, ...]) -> list[dict[str, Any]]:
    """Items for the operator, gold only where asked for by its kind; no texts."""
    with context.store.read() as conn:
        found = reviews.list_items(conn, context.model, kinds=kinds, statuses=statuses)
        held = {lease.item: lease for lease in review_leases.live_leases(conn, context.model)}
        given = {item.id: len(reviews.labels_of(conn, item.id)) for item in found}
    return [
        {
            "item": item.id,
            "kind": item.kind,
            "about": visible_line(item.subject, 48),
            "rule": visible_line(item.reason, 40),
            "status": "leased" if item.id in held else item.status,
            "labels": f"{given[item.id]}/{'-' if item.kind == 'gold' else item.labels_wanted}",
            "outcome": item.outcome,
            "priority": item.priority,
            "age_h": round((utc_now() - item.created_at).total_seconds() / 3600, 1),
        }
        for item in found
        if item.kind != "gold" or "gold" in kinds
    ]


def item_facts(context: Context, id: str) -> dict[str, Any]:
    """One item with its labels, for the operator."""
    with context.store.read() as conn:
        item: ReviewItem = reviews.get(conn, id)
        given = reviews.labels_of(conn, id)
    return {**item.model_dump(mode="json"), "labels": [label.model_dump(mode="json") for label in given]}


def stats_rows(stats: ReviewStats) -> list[dict[str, Any]]:
    """Counts, then labellers, then rules."""

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    rows = [
        {"what": f"{kind} {status}", "n": n, "gold": "", "alpha": "", "units": ""}
        for kind, by_status in stats.counts.items()
        for status, n in by_status.items()
    ]
    for name, one in stats.labellers.items():
        gold = f"{one.gold_agreed}/{one.gold_total}"
        alpha, units = number(one.agreement.alpha), str(one.agreement.units)
        rows.append(
            {
                "what": f"labeller {visible_line(name, 40)}",
                "n": one.labels,
                "gold": gold,
                "alpha": alpha,
                "units": units,
            }
        )
    for rule, agreement in stats.rules.items():
        alpha, units = number(agreement.alpha), str(agreement.units)
        rows.append(
            {
                "what": f"rule {visible_line(rule, 40)}",
                "n": agreement.labels,
                "gold": "",
                "alpha": alpha,
                "units": units,
            }
        )
    return rows


def labeller_names(pairs: Sequence[str]) -> dict[int, str]:
    """`ID=NAME` options as a mapping.

    Raises:
        InputError: one has another form.
    """
    found = {}
    for pair in pairs:
        number, equals, name = pair.partition("=")
        if not equals or not number.strip().isdecimal() or not name.strip():
            raise InputError(
                "not a labeller", where="--labeller", expected="ID=NAME, for example 3=bea", found=ascii(pair)
            )
        found[int(number)] = name.strip()
    return found
