"""Rows in a JSON Lines or Parquet file as batches for a contract; a row that cannot be read is named, never dropped."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import InputError
from data_contracts.contract import Contract
from data_contracts.contract_columns import COLUMNS, arrow_type, encodes
from data_contracts.contract_scan import columns_of
from data_contracts.overlap import answer_key

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_PER_BATCH = 10_000
MAX_LINE = 8 * 1024 * 1024
"""Bytes of one line."""
_PYTHON = {"string": str, "integer": int, "boolean": bool, "timestamp": datetime}


class RowsFile:
    """A file of rows, read once by `batches`; afterwards `unreadable`, `places` and `ids` are filled.

    A row is a JSON object (or a Parquet row) of columns by their names; `messages` (role, content) stands for `prompt`,
    `last_role` and `turns`; what can be derived is.
    """

    def __init__(self, path: Path, contract: Contract) -> None:
        self.path = path
        self.columns = columns_of(contract)
        self.unreadable: dict[int, str] = {}
        """Place -> what is wrong: such a row is refused whatever the rules say."""
        self.places: list[int] = []
        """Line (JSON Lines) or row number (Parquet) of each place, from 1."""
        self.ids: list[str] = []
        self._missing = set(self.columns)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows in batches.

        Raises:
            InputError: the file cannot be read, or no row has a column that the contract judges.
        """
        try:
            with self.path.open("rb") as handle:
                parquet = handle.read(4) == b"PAR1"
            yield from self._parquet() if parquet else self._json_lines()
        except OSError as error:
            raise InputError("the file cannot be read", where=self.path, found=error.strerror or error) from error
        if self.places and self._missing:
            raise InputError(
                "no row has a column that the contract judges",
                where=self.path,
                expected=", ".join(self.columns),
                found="without " + ", ".join(sorted(self._missing)),
            )

    def _json_lines(self) -> Iterator[pa.RecordBatch]:
        rows: list[dict[str, Any]] = []
        with self.path.open("rb") as handle:
            number = 0
            while raw := handle.readline(MAX_LINE + 1):
                number += 1
                whole = len(raw) <= MAX_LINE
                while not raw.endswith(b"\n") and not whole and raw:
                    raw = handle.readline(MAX_LINE)
                if whole and not raw.strip():
                    continue
                rows.append(self._row(number, _decoded(raw if whole else None)))
                if len(rows) == ROWS_PER_BATCH:
                    yield self._batch(rows)
                    rows = []
        if rows:
            yield self._batch(rows)

    def _parquet(self) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(self.path) as file:
                direct = set(self.columns) <= set(file.schema_arrow.names)
                number = 0
                for batch in file.iter_batches(batch_size=ROWS_PER_BATCH):
                    first, number = number, number + len(batch)
                    if direct:
                        self._missing.clear()
                        self.places += range(first + 1, number + 1)
                        known = "id" in batch.schema.names
                        self.ids += [_shown(v) for v in batch.column("id").to_pylist()] if known else [""] * len(batch)
                        yield batch
                    else:
                        rows = [self._row(first + i, row) for i, row in enumerate(batch.to_pylist(), 1)]
                        yield self._batch(rows)
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            raise InputError("not a Parquet file that can be read", where=self.path, found=error) from error

    def _row(self, number: int, found: Mapping[str, Any] | str) -> dict[str, Any]:
        """The columns of one row; nulls where a value cannot be taken, which is noted."""
        place = len(self.places)
        self.places.append(number)
        if isinstance(found, str):
            self.unreadable[place] = found
            self.ids.append("")
            return dict.fromkeys(self.columns)
        given = _derived(found)
        self.ids.append(_shown(given.get("id")))
        self._missing -= set(given)
        row = dict.fromkeys(self.columns)
        for name in self.columns:
            value, wanted = given.get(name), _PYTHON[COLUMNS[name]]
            if value is None:
                continue
            problem = _problem(value, wanted)
            if problem:
                self.unreadable.setdefault(place, f"{name}: {COLUMNS[name]} expected, {problem} found")
            else:
                row[name] = value
        return dict.fromkeys(self.columns) if place in self.unreadable else row

    def _batch(self, rows: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
        import pyarrow as pa

        arrays = {name: pa.array([row[name] for row in rows], arrow_type(COLUMNS[name])) for name in self.columns}
        return pa.RecordBatch.from_pydict(arrays)


def _shown(value: Any) -> str:
    return str(value)[:128] if isinstance(value, (str, int)) else ""


def _problem(value: Any, wanted: type) -> str:
    if type(value) is not wanted:
        return type(value).__name__
    if isinstance(value, str) and not encodes(value):
        return "half a surrogate pair"
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return "a number beyond 64 bits"
    if isinstance(value, datetime) and value.tzinfo is None:
        return "a moment without an offset"
    return ""


def _decoded(raw: bytes | None) -> Mapping[str, Any] | str:
    if raw is None:
        return f"the line is longer than {MAX_LINE} bytes"
    try:
        found = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return "not UTF-8"
    except RecursionError:
        return "nested too deeply"
    except ValueError:
        return "not valid JSON"
    return found if isinstance(found, dict) else f"a JSON object expected, {type(found).__name__} found"


def _derived(found: Mapping[str, Any]) -> dict[str, Any]:
    row = dict(found)
    messages = row.get("messages")
    if isinstance(messages, list) and all(isinstance(m, dict) for m in messages):
        asked = [m.get("content") for m in messages if m.get("role") == "user"]
        row.setdefault("prompt", asked[-1] if asked else "")
        row.setdefault("last_role", messages[-1].get("role") if messages else None)
        row.setdefault("turns", len(messages))
        said = [m.get("content") for m in messages]
        if all(isinstance(text, str) for text in said):
            row.setdefault("conversation", "\n".join(said))
    if "prompt" in row:
        row.setdefault("conversation", row["prompt"])
    completion, answer = row.get("completion"), row.get("answer")
    if isinstance(completion, str):
        row.setdefault("completion_words", len(completion.split()))
        if isinstance(answer, str):
            row.setdefault("repeats_answer", answer_key(completion) == answer_key(answer))
    others = row.get("paraphrases")
    if isinstance(others, list) and all(isinstance(text, str) for text in others):
        row["paraphrases"] = "\n".join(others)
        row.setdefault("paraphrase_count", len(others))
    moment = row.get("created_at")
    if isinstance(moment, str):
        with contextlib.suppress(ValueError):  # it stays text, and is named as such
            row["created_at"] = datetime.fromisoformat(moment)
    return row
