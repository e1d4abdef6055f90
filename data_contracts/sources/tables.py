"""Rows out of CSV and Parquet files, and into them.

A spreadsheet runs a cell that begins with `=`, `+`, `-`, `@`, a tab or a carriage return as a formula (OWASP, CSV
injection): on the way out such a cell gets a `'` in front, on the way in it loses exactly that one again.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from configs.errors import InputError
from data_contracts.sources.base import schema
from data_contracts.sources.json_text import MAX_VALUE, checked, loads, text_lines, too_long

_FORMULA = re.compile(r"'*[=+\-@\t\r＝＋－＠]")
_NEUTRAL = re.compile(r"'+[=+\-@\t\r＝＋－＠]")
_LONE = re.compile("[\ud800-\udfff]")
MAX_GROUP = 1 << 30
"""Bytes of a Parquet row group, unpacked."""
_TOO_LONG = "\udfff\udffe"
"""Stands for a line that was too long to keep; no real text holds it."""
STRUCTURED = frozenset(
    {"messages", "conversations", "prompt", "completion", "chosen", "rejected", "history", "input", "preferred_output"}
    | {"non_preferred_output", "data", "annotations", "fields", "responses", "interaction", "feedback"}
    | {"interaction_messages", "interaction_flags"}
)
"""Columns whose cells may be JSON."""
_ALWAYS = frozenset({"interaction_messages", "interaction_flags"})


def neutralise(cell: str) -> str:
    """A cell no spreadsheet runs; `restore` gives back the text."""
    return "'" + cell if _FORMULA.match(cell) else cell


def restore(cell: str) -> str:
    """The text `neutralise` was given."""
    return cell[1:] if _NEUTRAL.match(cell) else cell


# --- CSV -----------------------------------------------------------------------------------------


def csv_rows(handle: BinaryIO) -> Iterator[tuple[int, dict[str, Any] | InputError]]:
    """`(line it ends on, row)` of a CSV file with a header; bad rows are one error each.

    Raises:
        InputError: the header cannot be used.
    """
    csv.field_size_limit(MAX_VALUE)
    reader = csv.reader(_decoded(handle), strict=True)
    header = _header(reader)
    ours = "interaction_messages" in header
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield reader.line_num, InputError("not valid CSV", found=error)
            continue
        if cells:
            try:
                yield reader.line_num, _row(header, cells, ours)
            except InputError as error:
                yield reader.line_num, error


def _decoded(handle: BinaryIO) -> Iterator[str]:
    for n, (_, raw) in enumerate(text_lines(handle)):
        if raw is None:
            yield f"{_TOO_LONG}\n"
        else:
            yield raw.decode("utf-8-sig" if n == 0 else "utf-8", "surrogateescape")


def _header(reader: Any) -> list[str]:
    try:
        header: list[str] = next(reader, [])
    except csv.Error as error:
        raise InputError("not valid CSV", found=error) from None
    if not header or any(_LONE.search(name) for name in header):
        raise InputError("a CSV file begins with the names of its columns", expected="a header in UTF-8")
    twice = {name for name in header if header.count(name) > 1}
    if twice:
        raise InputError("a column is given twice", found=", ".join(sorted(twice))[:200])
    return list(header)


def _row(header: list[str], cells: list[str], ours: bool) -> dict[str, Any]:
    if any(_TOO_LONG in cell for cell in cells):
        raise too_long()
    if any(_LONE.search(cell) for cell in cells if not cell.isascii()):
        raise InputError("not UTF-8")
    if len(cells) != len(header):
        raise InputError("the row is not as long as the header", expected=f"{len(header)} cells", found=len(cells))
    row: dict[str, Any] = {}
    for name, cell in zip(header, cells, strict=True):
        text = restore(cell) if ours else cell
        structured = name in _ALWAYS or (name in STRUCTURED and cell[:1] in ("[", "{"))
        row[name] = _json_cell(name, text) if structured and text else text
    return row


def _json_cell(name: str, text: str) -> Any:
    try:
        value = loads(text)
        checked({name: value}, "\\u" in text)
    except RecursionError as error:
        raise InputError(f"`{name}`: nested too deeply") from error
    except ValueError as error:
        if name in _ALWAYS:
            raise InputError(f"`{name}`: not valid JSON", found=error) from None
        return text  # a text that happens to begin with a bracket
    return value


class CsvWriter:
    """Rows of the flat format as CSV, every cell quoted, formulas neutralised."""

    def __init__(self, handle: BinaryIO) -> None:
        import io

        self._text = io.TextIOWrapper(handle, encoding="utf-8", newline="", write_through=True)
        self._names = flat_names()
        self._writer = csv.writer(self._text, quoting=csv.QUOTE_ALL, lineterminator="\n")
        self._writer.writerow(self._names)

    def write(self, row: Mapping[str, Any]) -> None:
        """Add one row."""
        self._writer.writerow([neutralise(_cell(row.get(name))) for name in self._names])

    def close(self) -> None:
        """Flush; the handle stays open."""
        self._text.flush()
        self._text.detach()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


# --- Parquet -------------------------------------------------------------------------------------


def flat_names() -> list[str]:
    """The columns of the flat format."""
    return [name for name in schema().names if name not in ("origin", "line")]


def parquet_rows(handle: BinaryIO, skip: int = 0) -> Iterator[tuple[int, dict[str, Any] | InputError]]:
    """`(row, values)` of a Parquet file from row `skip` + 1 on, a small batch in memory at a time.

    Raises:
        InputError: it is no Parquet file, or a part of it is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        file = pq.ParquetFile(handle)
        for n in range(file.num_row_groups):
            if file.metadata.row_group(n).total_byte_size > MAX_GROUP:
                raise ValueError(f"a row group of more than {MAX_GROUP >> 20} MB; write it with smaller ones")
        for batch in file.iter_batches(batch_size=256):
            if number + batch.num_rows <= skip:
                number += batch.num_rows
                continue
            for n, row in _parquet_batch(batch):
                if number + n > skip:
                    yield number + n, row
            number += batch.num_rows
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputError("not a Parquet file that can be read", found=str(error).split("\n")[0][:200]) from error


def _parquet_batch(batch: Any) -> Iterator[tuple[int, dict[str, Any] | InputError]]:
    try:
        rows: list[dict[str, Any] | InputError] = list(batch.to_pylist())
    except (UnicodeDecodeError, ValueError):
        # One column's text is not UTF-8: find out whose.
        rows = []
        for n in range(batch.num_rows):
            try:
                rows.append(batch.slice(n, 1).to_pylist()[0])
            except (UnicodeDecodeError, ValueError):
                rows.append(InputError("not UTF-8, or a value no text can show"))
    yield from enumerate(rows, 1)


class ParquetWriter:
    """Rows of the flat format as Parquet, in groups of 1,000."""

    def __init__(self, handle: BinaryIO) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._schema = pa.schema([schema().field(name) for name in flat_names()])
        self._writer = pq.ParquetWriter(handle, self._schema, compression="zstd")
        self._rows: list[Mapping[str, Any]] = []

    def write(self, row: Mapping[str, Any]) -> None:
        """Add one row."""
        self._rows.append(row)
        if len(self._rows) >= 1000:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []

    def close(self) -> None:
        """Write what is left and the footer."""
        self._flush()
        self._writer.close()
