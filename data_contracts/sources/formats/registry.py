"""All formats by name, and which one some rows are in."""

from __future__ import annotations

from collections.abc import Sequence

from configs.errors import InputError
from data_contracts.sources.formats.alpaca import ALPACA
from data_contracts.sources.formats.argilla import ARGILLA
from data_contracts.sources.formats.base import Format, Row
from data_contracts.sources.formats.flat import FLAT
from data_contracts.sources.formats.label_studio import LABEL_STUDIO
from data_contracts.sources.formats.native import NATIVE
from data_contracts.sources.formats.openai import OPENAI_CHAT, OPENAI_DPO
from data_contracts.sources.formats.sharegpt import SHAREGPT
from data_contracts.sources.formats.trl import TRL

FORMATS: dict[str, Format] = {
    f.name: f for f in (NATIVE, OPENAI_CHAT, OPENAI_DPO, SHAREGPT, ALPACA, TRL, LABEL_STUDIO, ARGILLA, FLAT)
}
NAMES = tuple(name for name in FORMATS if name != FLAT.name)
"""Formats a user may name; the flat columns are what `parquet` and `csv` write."""


def detect(rows: Sequence[Row], where: str) -> Format:
    """The one format all of some rows are in.

    Args:
        rows: the first rows of a file that could be read.
        where: the file, for the message.

    Raises:
        InputError: none, or more than one.
    """
    columns = sorted({str(name)[:40] for row in rows for name in row})[:12]
    known = [row for row in rows if any(f.matches(row) for f in FORMATS.values())]
    if not known:
        raise InputError(
            "the format is not recognised",
            where=where,
            expected=", ".join(NAMES),
            found=("fields " + ", ".join(columns)) if rows else "no row that could be read",
            fix="name it with --format",
        )
    # A row that is none is a bad row; what the others are is what the file is.
    found = [f for f in FORMATS.values() if all(f.matches(row) for row in known)]
    if len(found) == 1:
        return found[0]
    some = found or [f for f in FORMATS.values() if any(f.matches(row) for row in known)]
    raise InputError(
        "the format is ambiguous",
        where=where,
        expected="fields of one format",
        found=" or ".join(f.name for f in some) + ": fields " + ", ".join(columns),
        fix="name it with --format",
    )
