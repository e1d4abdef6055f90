"""Review items in Label Studio: the seam, its in-memory double, the labelling page, tasks out and annotations in.

Pushed items are lent to Label Studio as a whole for `review.label_studio_lease_s`, so that nobody gets them in the
terminal meanwhile. What comes back is one label per annotator and item, under the same rules as any other: nobody
judges words of their own, nobody twice, and where two differ a third person decides here.

User text goes into plain `Text` tags only, never into a tag that renders HTML.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from xml.sax.saxutils import quoteattr

from pydantic import BaseModel, ConfigDict, ValidationError

from configs.errors import InputError
from data_contracts.records import Record, ReviewAnswer, ReviewItem
from data_contracts.review.guidelines import Guideline, Guidelines

KEY = "tidemill_item"
NOTHING = "-"
"""Stands for an empty text: Label Studio wants every field of the page."""


class LabelStudio(Protocol):
    """What is used of a Label Studio server."""

    def find(self, title: str) -> int | None:
        """The id of the project of this title, or None."""
        ...

    def create(self, title: str, config: str, overlap: int) -> int:
        """Make a project with this labelling page, whose tasks want `overlap` annotators each; returns its id."""
        ...

    def import_tasks(self, project: int, tasks: Sequence[Mapping[str, Any]]) -> int:
        """Add tasks (`{"data": {...}}`); returns how many were added."""
        ...

    def export(self, project: int) -> list[dict[str, Any]]:
        """All annotated tasks with their annotations, as in the JSON export."""
        ...

    def items(self, project: int) -> dict[int, str]:
        """`{task id: review item id}` of all tasks pushed from here."""
        ...

    def remove(self, tasks: Sequence[int]) -> int:
        """Delete tasks with their annotations; returns how many were deleted."""
        ...


class MemoryLabelStudio:
    """The double: projects in memory, annotated by `annotate`."""

    def __init__(self) -> None:
        self.projects: list[dict[str, Any]] = []
        self._last = 0

    def find(self, title: str) -> int | None:
        """See LabelStudio."""
        return next((place for place, known in enumerate(self.projects, 1) if known["title"] == title), None)

    def create(self, title: str, config: str, overlap: int) -> int:
        """See LabelStudio."""
        self.projects.append({"title": title, "label_config": config, "maximum_annotations": overlap, "tasks": []})
        return len(self.projects)

    def _tasks(self, project: int) -> list[dict[str, Any]]:
        if not 1 <= project <= len(self.projects):
            raise InputError("Label Studio has no such project", where="project", found=project)
        tasks: list[dict[str, Any]] = self.projects[project - 1]["tasks"]
        return tasks

    def import_tasks(self, project: int, tasks: Sequence[Mapping[str, Any]]) -> int:
        """See LabelStudio."""
        known = self._tasks(project)
        for task in tasks:
            self._last += 1
            known.append({"id": self._last, "data": dict(task["data"]), "annotations": []})
        return len(tasks)

    def export(self, project: int) -> list[dict[str, Any]]:
        """See LabelStudio."""
        found: list[dict[str, Any]] = json.loads(json.dumps([t for t in self._tasks(project) if t["annotations"]]))
        return found

    def items(self, project: int) -> dict[int, str]:
        """See LabelStudio."""
        return {task["id"]: task["data"][KEY] for task in self._tasks(project) if KEY in task["data"]}

    def remove(self, tasks: Sequence[int]) -> int:
        """See LabelStudio."""
        removed = 0
        for project in self.projects:
            kept = [task for task in project["tasks"] if task["id"] not in tasks]
            removed += len(project["tasks"]) - len(kept)
            project["tasks"] = kept
        return removed

    def annotate(self, project: int, item: str, user: int, answer: ReviewAnswer, *, cancelled: bool = False) -> None:
        """Do what a person does in the browser."""
        for task in self._tasks(project):
            if task["data"][KEY] == item:
                number = len(task["annotations"]) + 1
                task["annotations"].append(
                    {"id": number, "completed_by": user, "was_cancelled": cancelled, "result": results(answer)}
                )
                return
        raise InputError("Label Studio has no such task", where=KEY, found=item)


# --- the page --------------------------------------------------------------------------------------


def page_config(guidelines: Guidelines) -> str:
    """The labelling page as Label Studio XML: the texts, the verdict, the right answer, severity and root cause."""

    def choices(name: str, words: Sequence[str], more: str = "") -> list[str]:
        lines = [f'  <Choices name="{name}" toName="conversation" choice="single" showInLine="true"{more}>']
        return [*lines, *(f"    <Choice value={quoteattr(word)}/>" for word in words), "  </Choices>"]

    def text(name: str, header: str) -> list[str]:
        return [f'  <Header value={quoteattr(header)} size="6"/>', f'  <Text name="{name}" value="${name}"/>']

    lines = [
        "<View>",
        '  <Header value="$heading" size="4"/>',
        '  <Text name="guideline" value="$guideline"/>',
        *text("conversation", "Conversation"),
        *text("answer", "The model answered"),
        *text("proposed", "Proposed answer"),
        *text("options", "Others proposed"),
        '  <Header value="Verdict" size="6"/>',
        *choices("verdict", ("accept", "reject", "correct"), ' required="true"'),
        '  <Header value="The right answer, in full; only with correct" size="6"/>',
        '  <TextArea name="text" toName="conversation" rows="4" maxSubmissions="1" editable="true"/>',
        '  <Header value="Severity and root cause; only of incidents" size="6"/>',
        *choices("severity", list(guidelines.severities)),
        *choices("root_cause", list(guidelines.root_causes)),
        '  <Header value="Note" size="6"/>',
        '  <TextArea name="note" toName="conversation" rows="2" maxSubmissions="1" editable="true"/>',
        "</View>",
    ]
    return "\n".join(lines) + "\n"


def task_of(item: ReviewItem, guideline: Guideline) -> dict[str, Any]:
    """One task; nothing in it tells a gold item from another."""
    payload = item.payload
    told = [guideline.text.strip(), *(f"{verdict}: {meaning}" for verdict, meaning in guideline.verdicts.items())]
    if item.reason:
        told.append(f"Held by rule {item.reason}.")
    said = [f"[{m.role}]\n{m.content}" for m in payload.messages]
    title = [f"[incident {payload.severity}]\n{payload.title}"] if payload.title else []
    data = {
        KEY: item.id,
        "heading": guideline.title,
        "guideline": "\n".join(told),
        "conversation": "\n\n".join([*title, *said]),
        "answer": payload.answer,
        "proposed": payload.proposed,
        "options": "\n\n".join(payload.options),
    }
    return {"data": {name: value or NOTHING for name, value in data.items()}}


def results(answer: ReviewAnswer) -> list[dict[str, Any]]:
    """An answer as Label Studio writes it."""
    found = []
    for name in ("verdict", "severity", "root_cause"):
        if getattr(answer, name):
            found.append(_result(name, "choices", [getattr(answer, name)]))
    for name in ("text", "note"):
        if getattr(answer, name):
            found.append(_result(name, "textarea", [getattr(answer, name)]))
    return found


def _result(name: str, kind: str, values: list[str]) -> dict[str, Any]:
    field = "text" if kind == "textarea" else kind
    return {"from_name": name, "to_name": "conversation", "type": kind, "value": {field: values}}


# --- what comes back -------------------------------------------------------------------------------


class _Loose(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _User(_Loose):
    id: int


class _Value(_Loose):
    choices: list[str] = []
    text: list[str] | str = []


class _Result(_Loose):
    from_name: str
    value: _Value


class _Annotation(_Loose):
    id: int | None = None
    completed_by: int | _User | None = None
    was_cancelled: bool | None = False
    result: list[_Result] = []


class _Task(_Loose):
    data: dict[str, Any]
    annotations: list[_Annotation] = []


class Annotated(Record):
    """One annotator's answer to one item."""

    item: str
    user: int
    answer: ReviewAnswer


def parse_export(tasks: Sequence[Any]) -> tuple[list[Annotated], list[str]]:
    """Answers of a JSON export, and what is wrong with the annotations that are none. Skipped tasks say nothing.

    The last answer of a person who annotated a task twice counts.
    """
    found: dict[tuple[str, int], Annotated] = {}
    errors: list[str] = []
    for place, raw in enumerate(tasks):
        try:
            task = _Task.model_validate(raw)
        except (ValidationError, RecursionError) as error:
            errors.append(f"task {place}: {_first(error)}")
            continue
        item = task.data.get(KEY)
        if not isinstance(item, str):
            errors.append(f"task {place}: no `{KEY}` in its data: not pushed from here")
            continue
        for number, annotation in enumerate(task.annotations):
            if annotation.was_cancelled:
                continue
            by = annotation.completed_by
            user = by.id if isinstance(by, _User) else by
            try:
                if user is None:
                    raise InputError("nobody completed it")
                found[item, user] = Annotated(item=item, user=user, answer=_answer(annotation))
            except (ValidationError, InputError) as error:
                errors.append(f"task {place}, annotation {number}: {_first(error)}")
    return list(found.values()), errors


def _answer(annotation: _Annotation) -> ReviewAnswer:
    said: dict[str, str] = {}
    for result in annotation.result:
        values = result.value.choices or result.value.text
        values = [values] if isinstance(values, str) else values
        if result.from_name in ReviewAnswer.model_fields and values:
            said[result.from_name] = "\n".join(values)
    # The page shows all fields for all items: what a verdict does not take is left behind, not refused.
    if said.get("verdict") != "correct":
        said.pop("text", None)
    return ReviewAnswer.model_validate(said)


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_input=False)[0]
        return f"`{'.'.join(str(part) for part in first['loc'])}`: {first['msg']}"
    return str(error) or type(error).__name__


MAX_FILE_BYTES = 512 * 1024 * 1024


def read_export(path: Path) -> list[Any]:
    """The tasks of an export file.

    Raises:
        InputError: it cannot be read, is too large, or is no JSON list.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError("the file is too large", where=path, expected=f"at most {MAX_FILE_BYTES} bytes")
        tasks = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError("the file cannot be read", where=path, found=error.strerror or error) from error
    except (ValueError, RecursionError) as error:
        found = type(error).__name__ if isinstance(error, RecursionError) else error
        raise InputError("not JSON", where=path, expected="Label Studio's JSON export", found=found) from error
    if not isinstance(tasks, list):
        raise InputError("not a list of tasks", where=path, expected="Label Studio's JSON export", found=type(tasks))
    return tasks
