"""Label Studio's JSON: a list of tasks, each with its `data` and `annotations` (labelstud.io, task format).

Read from an export: answers written into a `TextArea` (a correction, or a comment, by the control's name), `Choices`
good or bad (a thumb), `Rating` of 1 to 5, `Pairwise` (a preference of two fields). Cancelled annotations say nothing;
predictions are a model's, not a person's. The labeller's e-mail, name or number is the principal.

Written as tasks for its import: what is exported without feedback is there to be labelled, and joins what we served by
`data.request_id` when it comes back. A labelling configuration that fits:

    <View>
      <Paragraphs name="chat" value="$messages" layout="dialogue" nameKey="role" textKey="content"/>
      <Text name="answer" value="$answer"/>
      <Choices name="thumb" toName="answer"><Choice value="good"/><Choice value="bad"/></Choices>
      <TextArea name="correction" toName="answer"/>
    </View>
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from configs.errors import InputError
from data_contracts.records import Feedback, FeedbackKind, Interaction
from data_contracts.sources.formats.annotated import (
    chosen_word,
    fields_of,
    groups,
    line_of,
    preference_of,
    written,
)
from data_contracts.sources.formats.base import Format, RawLine, Rendered, Row

_HELD = tuple(kind for kind in FeedbackKind if kind is not FeedbackKind.INCIDENT)


def _matches(row: Row) -> bool:
    return isinstance(row.get("data"), Mapping) and "fields" not in row


def _parse(row: Row) -> list[RawLine]:
    data, annotations = row.get("data"), row.get("annotations") or []
    if not isinstance(data, Mapping):
        raise InputError("`data`: an object expected", found=type(data).__name__)
    if not isinstance(annotations, list):
        raise InputError("`annotations`: a list expected", found=type(annotations).__name__)
    said: list[dict[str, Any]] = []
    skipped: list[str] = []
    for n, annotation in enumerate(annotations):
        if not isinstance(annotation, Mapping):
            raise InputError(f"`annotations.{n}`: an object expected", found=type(annotation).__name__)
        if annotation.get("was_cancelled"):
            skipped.append("label-studio: cancelled")
            continue
        _annotation(annotation, f"annotations.{n}", data, said, skipped)
    if not said:
        return [{"skipped": skipped or ["label-studio: not labelled"]}]
    more = {
        name: data[key]
        for name, key in (("id", "request_id"), ("principal", "principal"))
        if isinstance(data.get(key), str)
    }
    return [{**line_of(data, said, **more), "skipped": skipped}]


def _annotation(
    annotation: Mapping[str, Any], where: str, data: Mapping[str, Any], said: list[dict[str, Any]], skipped: list[str]
) -> None:
    regions = annotation.get("result")
    if not isinstance(regions, list):
        raise InputError(f"`{where}.result`: a list expected", found=type(regions).__name__)
    about: dict[str, Any] = {}
    if (principal := _who(annotation.get("completed_by"))) is not None:
        about["principal"] = principal
    if annotation.get("created_at"):
        about["created_at"] = annotation["created_at"]
    for n, region in enumerate(regions):
        if not isinstance(region, Mapping) or not isinstance(region.get("value"), Mapping):
            raise InputError(f"`{where}.result.{n}`: an object with a `value` expected", found=type(region).__name__)
        found = _region(str(region.get("type")), str(region.get("from_name")), region["value"], data)
        if found is None:
            control = f"{str(region.get('type'))[:20]} `{str(region.get('from_name'))[:40]}`"
            skipped.append(f"label-studio: {control} is not understood")
            continue
        meta = region.get("meta")
        ours = {k: meta[k] for k in ("principal", "scope", "source") if k in meta} if isinstance(meta, Mapping) else {}
        said.append({**found, **about, **ours})


def _region(kind: str, name: str, value: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any] | None:
    if kind == "textarea":
        text = value.get("text")
        parts: list[Any] = text if isinstance(text, list) else [text]
        if not all(isinstance(part, str) for part in parts):
            raise InputError("`value.text`: text expected", found=type(text).__name__)
        return written(name, "\n".join(parts))
    if kind == "choices":
        choices = value.get("choices")
        one = choices[0] if isinstance(choices, list) and len(choices) == 1 else None
        return chosen_word(name, one) if isinstance(one, str) else None
    if kind == "rating":
        return {"kind": "rating", "rating": value.get("rating")}
    if kind == "pairwise":
        return preference_of(data, value.get("selected"))
    return None


def _who(by: Any) -> str | None:
    """The labeller: Label Studio gives a number, an e-mail, or an object with both."""
    if isinstance(by, Mapping):
        by = by.get("email") or by.get("username") or by.get("id")
    if isinstance(by, bool) or not isinstance(by, (int, str)):
        return None
    return f"label-studio-{by}" if isinstance(by, int) else by


def _render(interaction: Interaction, said: Sequence[Feedback], _kind: FeedbackKind) -> Rendered:
    made = Rendered()
    held = [one for one in said if one.kind in _HELD]
    if len(said) > len(held):
        made.left_out["label-studio: incidents"] += len(said) - len(held)
    if said and not held:
        return made
    for pair, together in groups(held):
        data = {
            **fields_of(interaction, pair),
            "request_id": interaction.id,
            "principal": interaction.principal,
        }
        annotations = [_annotated(one, n) for n, one in enumerate(together)]
        made.rows.append({"data": data, "annotations": annotations} if annotations else {"data": data})
    return made


def _annotated(said: Feedback, n: int) -> dict[str, Any]:
    forms: dict[FeedbackKind, tuple[str, str, dict[str, Any]]] = {
        FeedbackKind.CORRECTION: ("correction", "textarea", {"text": [said.text]}),
        FeedbackKind.COMMENT: ("comment", "textarea", {"text": [said.text]}),
        FeedbackKind.THUMB: ("thumb", "choices", {"choices": ["good" if said.thumb == 1 else "bad"]}),
        FeedbackKind.RATING: ("rating", "rating", {"rating": said.rating}),
        FeedbackKind.PREFERENCE: ("preference", "pairwise", {"selected": "left"}),
    }
    name, kind, value = forms[said.kind]
    # Label Studio takes only accounts of its own as `completed_by`: who said it goes with the answer.
    meta = {"principal": said.principal, "scope": said.scope, "source": said.source}
    to = ["answer_a", "answer_b"] if said.kind is FeedbackKind.PREFERENCE else "answer"
    result = {"id": f"r{n}", "from_name": name, "to_name": to, "type": kind, "value": value, "meta": meta}
    return {"result": [result], "created_at": said.created_at.isoformat()}


LABEL_STUDIO = Format("label-studio", _matches, _parse, _render, container="json", holds=_HELD, bare=True)
