"""Traces of an MLflow 3 server with what people assessed of them, as a source. Import only.

Read are assessments whose source is HUMAN and whose name is known (`NAMES`, or the profile's): feedback that is true or
false, a rating of 1 to 5, a corrected or expected answer, a comment; a rationale is a comment too. The question and the
answer are the inputs and outputs of the trace's root span. A trace whose `client_request_id` is a request id of ours
joins the request we served.

MLflow cannot be asked what was assessed since when, and people assess old traces. So the cursor is the set of
assessments that were seen, and every reading looks at all labelled traces of the last `lookback_days`; once in
`sweep_every_s` at those of all times, so that an assessment of a trace however old is late by that much at most. An
assessment that was changed is a new one.

Exporting back is left out: our rows are no traces of theirs, and an assessment needs its trace.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from configs.errors import InputError, SourceError
from data_contracts.digests import digest
from data_contracts.sources.base import Batch, Cursor, Defaults, RowError
from data_contracts.sources.formats.annotated import ANSWER, PROMPT, thumb_word
from data_contracts.sources.formats.base import messages_of, text_of
from data_contracts.sources.lines import Line, parse_line, to_batch

Kind = Literal["thumb", "rating", "correction", "comment"]
NAMES: dict[str, Kind] = {
    "thumbs": "thumb", "thumb": "thumb", "thumbs_up": "thumb", "user_feedback": "thumb", "feedback": "thumb",
    "rating": "rating", "user_rating": "rating",
    "correction": "correction", "corrected_answer": "correction",
    "expected_response": "correction", "expected_answer": "correction",
    "comment": "comment", "user_comment": "comment",
}  # fmt: skip
DEPTH = 8
"""Levels of objects that are looked through for a question or an answer."""
LEDGER = 200_000
"""Assessments a cursor remembers; beyond, those of the oldest traces are forgotten and come again at a sweep."""
_DEFAULTS = Defaults(source="mlflow")
_ENVIRONMENT = {
    # A server that is down must cost seconds, not minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}


@dataclass
class _State:
    """The cursor, taken apart."""

    seen: dict[str, int]
    """Assessments that were seen -> when their trace was (milliseconds)."""
    swept: int
    """When the last look through all times began."""
    sweep: tuple[int, int, int] | None
    """The one under way: when it began, the search it is at, and the time of the trace it is at."""

    @classmethod
    def of(cls, cursor: Cursor | None) -> _State:
        given = cursor or {}
        sweep = given.get("sweep")
        return cls(dict(given.get("seen", {})), int(given.get("swept", 0)), tuple(sweep) if sweep else None)

    def as_cursor(self) -> Cursor:
        made: Cursor = {"seen": dict(self.seen), "swept": self.swept}
        return {**made, "sweep": list(self.sweep)} if self.sweep else made


@dataclass
class _New:
    """What one page brought."""

    lines: list[tuple[str, int, Line]] = field(default_factory=list)
    errors: list[RowError] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class MlflowSource:
    """The assessed traces of one experiment."""

    uri: str
    """The tracking server's."""
    experiment: str
    """Its name."""
    lookback_days: float = 30.0
    sweep_every_s: float = 86_400.0
    defaults: Defaults = _DEFAULTS
    names: Mapping[str, Kind] = field(default_factory=lambda: NAMES)
    """Name of an assessment -> what it is."""
    page: int = 100
    """Traces a request asks for."""

    @property
    def name(self) -> str:
        return f"mlflow:{re.sub('//[^/@]*@', '//***@', self.uri)}/{self.experiment}"

    def read(self, cursor: Cursor | None = None) -> Iterator[Batch]:
        """New assessments with their traces, a page of traces at a time.

        Raises:
            SourceError: the server does not answer, or has no such experiment.
        """
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        now = int(time.time() * 1000)
        state = _State.of(cursor)
        with self._errors():
            client = MlflowClient(tracking_uri=self.uri)
            experiment = client.get_experiment_by_name(self.experiment)
        if experiment is None:
            raise SourceError("no such MLflow experiment", where=self.name, found=self.experiment)
        window = int(now - self.lookback_days * 86_400_000)
        # New traces first: what is said of them must not wait for a look through all of the past.
        for step in range(len(self._searches())):
            yield from self._look(client, experiment.experiment_id, step, window, state)
        if state.sweep is None and now - state.swept >= self.sweep_every_s * 1000:
            state.sweep = (now, 0, 0)
        while state.sweep is not None:
            began, step, since = state.sweep
            if step == len(self._searches()):
                state.sweep, state.swept = None, began
                break
            yield from self._look(client, experiment.experiment_id, step, since, state, sweeping=True)
            state.sweep = (began, step + 1, 0)
        state.seen = _trimmed(state.seen)
        if state.as_cursor() != (cursor or {}):
            yield Batch(to_batch([]), state.as_cursor())

    def _searches(self) -> list[str]:
        """One filter for each name: MLflow knows no OR."""
        wanted = [f"feedback.`{name}`" for name in self.names]
        return wanted + [f"expectation.`{name}`" for name, kind in self.names.items() if kind == "correction"]

    def _look(
        self, client: Any, experiment_id: str, step: int, since: int, state: _State, *, sweeping: bool = False
    ) -> Iterator[Batch]:
        """The labelled traces of one name since a time; a batch for each page that brings something new.

        A sweep goes from the oldest on and keeps its place; it also gives a batch every two seconds, so that a reader
        with little time can stop it and go on later.
        """
        token, last = None, time.monotonic()
        while True:
            with self._errors():
                page = client.search_traces(
                    locations=[experiment_id],
                    filter_string=f"{self._searches()[step]} IS NOT NULL AND trace.timestamp_ms >= {since}",
                    order_by=[f"timestamp_ms {'ASC' if sweeping else 'DESC'}"],
                    max_results=self.page,
                    page_token=token,
                    include_spans=False,
                )
            new = _New()
            before = len(state.seen)
            for trace in page:
                self._trace(client, trace.info, state.seen, new)
            if sweeping and page and state.sweep is not None:
                state.sweep = (state.sweep[0], step, int(page[-1].info.request_time))
            if len(state.seen) > before or (sweeping and time.monotonic() - last > 2.0):
                last = time.monotonic()
                yield Batch(to_batch(new.lines), state.as_cursor(), tuple(new.errors), dict(new.skipped))
            token = page.token
            if not token:
                return

    def _trace(self, client: Any, info: Any, seen: dict[str, int], found: _New) -> None:
        """Add what is new of one trace."""
        new = {key: a for a in info.assessments if (key := _key(a)) not in seen}
        if not new:
            return
        origin = f"{self.name}, trace {info.trace_id}"
        said: list[dict[str, Any]] = []
        for assessment in new.values():
            said += self._said(assessment, found.skipped)
        try:
            if said:
                served = self._served(client, info)
                found.lines.append((origin, 0, parse_line({"interaction": served, "feedback": said}, self.defaults)))
        except InputError as error:
            found.errors.append(RowError.of(origin, 0, error))
        seen.update((key, int(info.request_time)) for key in new)

    def _said(self, assessment: Any, skipped: Counter[str]) -> list[dict[str, Any]]:
        kind = self.names.get(assessment.name)
        if kind is None or assessment.issue is not None:
            skipped["mlflow: an assessment of another name"] += 1
            return []
        if assessment.valid is False:
            skipped["mlflow: overridden by a later one"] += 1
            return []
        if assessment.source.source_type != "HUMAN":
            skipped["mlflow: not a person's"] += 1
            return []
        what = _what(kind, assessment.value)
        if what is None:
            skipped[f"mlflow: a {kind} whose value is not understood"] += 1
            return []
        about: dict[str, Any] = {"created_at": _time(assessment.create_time_ms)}
        if assessment.source.source_id not in (None, "", "default"):
            about["principal"] = assessment.source.source_id
        made = [{**what, **about}]
        if assessment.rationale and assessment.rationale.strip() and kind != "comment":
            made.append({"kind": "comment", "text": assessment.rationale, **about})
        return made

    def _served(self, client: Any, info: Any) -> dict[str, Any]:
        with self._errors():
            trace = client.get_trace(info.trace_id, display=False)
        root = next((span for span in trace.data.spans if span.parent_id is None), None)
        if root is None:
            raise InputError("the trace has no root span")
        metadata = info.trace_metadata
        served: dict[str, Any] = {
            "id": info.client_request_id or info.trace_id,
            "created_at": _time(info.request_time),
            "messages": prompt_of(root.inputs),
            "answer": answer_of(root.outputs),
            "latency_ms": min(int(info.execution_duration or 0), 2**31 - 1),
        }
        if metadata.get("mlflow.trace.user"):
            served["principal"] = metadata["mlflow.trace.user"]
        if metadata.get("mlflow.trace.session"):
            served["conversation"] = metadata["mlflow.trace.session"]
        return {**served, **_tokens(metadata.get("mlflow.trace.tokenUsage"))}

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        from mlflow.exceptions import MlflowException
        from requests.exceptions import RequestException

        try:
            yield
        except (MlflowException, RequestException, OSError) as error:
            raise SourceError(
                "MLflow cannot be read now",
                where=self.name,
                found=re.sub("//[^/@ ]*@", "//***@", str(error).replace("\n", " "))[:300],
                fix="check that the server runs and answers",
            ) from error


def _key(assessment: Any) -> str:
    return digest([assessment.assessment_id, assessment.last_update_time_ms, assessment.valid])[:20]


def _trimmed(seen: dict[str, int]) -> dict[str, int]:
    if len(seen) <= LEDGER:
        return seen
    return dict(sorted(seen.items(), key=lambda one: one[1])[-LEDGER:])


def _tokens(usage: str | None) -> dict[str, int]:
    """Token counts, where the library that traced knew them."""
    try:
        found = json.loads(usage or "{}")
    except ValueError:
        return {}
    names = (("tokens_in", "input_tokens"), ("tokens_out", "output_tokens")) if isinstance(found, dict) else ()
    return {ours: found[theirs] for ours, theirs in names if isinstance(found.get(theirs), int)}


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _what(kind: Kind, value: Any) -> dict[str, Any] | None:
    if kind in ("correction", "comment"):
        return {"kind": kind, "text": value} if isinstance(value, str) and value.strip() else None
    if kind == "rating":
        # Never int() of an infinity.
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return {"kind": "rating", "rating": value} if isinstance(value, int) and not isinstance(value, bool) else None
    if isinstance(value, (bool, int, float)):
        return {"kind": "thumb", "thumb": 1 if value > 0 else -1} if value in (-1, 0, 1) else None
    return thumb_word(value) if isinstance(value, str) else None


# --- what a trace asked and answered ---------------------------------------------------------------

_SPEAKERS = {"human": "user", "ai": "assistant"}


def prompt_of(inputs: Any, depth: int = DEPTH) -> list[dict[str, str]]:
    """The messages in a root span's inputs: OpenAI's or LangChain's, or a question.

    Raises:
        InputError: there are none that are understood.
    """
    if isinstance(inputs, str):
        return [{"role": "user", "content": inputs}]
    if isinstance(inputs, list):
        return messages_of([_named(message) for message in inputs], "inputs")
    if isinstance(inputs, Mapping) and depth:
        if isinstance(inputs.get("messages"), list):
            return prompt_of(inputs["messages"])
        for name in PROMPT:
            if isinstance(inputs.get(name), (str, list)):
                return prompt_of(inputs[name], depth - 1)
        if len(inputs) == 1:
            return prompt_of(next(iter(inputs.values())), depth - 1)
        nested = [value for value in inputs.values() if isinstance(value, Mapping) and "messages" in value]
        if len(nested) == 1:
            return prompt_of(nested[0], depth - 1)
    raise InputError(
        "`inputs`: no question found",
        expected="`messages`, or one of " + ", ".join(PROMPT),
        found=type(inputs).__name__,
    )


def _named(message: Any) -> Any:
    if isinstance(message, Mapping) and "role" not in message and "type" in message:
        return {**message, "role": _SPEAKERS.get(message["type"], message["type"])}
    return message


def answer_of(outputs: Any, depth: int = DEPTH) -> str:
    """The answer in a root span's outputs: OpenAI's or LangChain's, or a text.

    Raises:
        InputError: there is none that is understood.
    """
    if isinstance(outputs, str):
        return outputs
    if isinstance(outputs, list) and outputs and depth:
        return text_of(outputs, "outputs") if _is_part(outputs[0]) else answer_of(outputs[-1], depth - 1)
    if isinstance(outputs, Mapping) and depth:
        for name in ("choices", "message", "content", "messages", *ANSWER):
            if outputs.get(name):
                return answer_of(outputs[name], depth - 1)
        if len(outputs) == 1:
            return answer_of(next(iter(outputs.values())), depth - 1)
    raise InputError(
        "`outputs`: no answer found", expected="a text, or a chat completion", found=type(outputs).__name__
    )


def _is_part(value: Any) -> bool:
    return isinstance(value, Mapping) and value.get("type") == "text"
