"""Interactions and their feedback as JSON Lines, in and out: the format `jsonl` with nothing to choose.

Importing a file twice changes nothing, as what is missing of ids is derived from the line. Everything is redacted on
its way in. The line itself is described in `formats.native`.
"""

from __future__ import annotations

from pathlib import Path

from configs.schema import Config
from data_contracts.redaction import redactor_for
from data_contracts.sources.base import Defaults
from data_contracts.sources.export import export
from data_contracts.sources.files import FileSource
from data_contracts.sources.ingest import ImportReport, ingest
from store.engine import Store


def import_jsonl(store: Store, config: Config, path: Path, key: bytes, *, trust_scope: bool = False) -> ImportReport:
    """Import a file; each bad line is named with its number and the good ones are kept.

    Args:
        store: where to.
        config: for the model's name; a line that names another model is an error.
        path: UTF-8, one JSON object a line; blank lines are skipped.
        key: the installation's secret. Ids it did not make become ids derived from them.
        trust_scope: whether a line may say itself that it is of scope `review`; for own exports.

    Raises:
        InputError: the file cannot be read.
    """
    return ingest(
        store,
        config.model.name,
        key,
        FileSource(str(path), "jsonl", "jsonl", Defaults(trust_scope=trust_scope)),
        redactor=redactor_for(config.redaction, key),
    )


def export_jsonl(store: Store, config: Config, out: Path) -> int:
    """Write the model's interactions with their feedback, oldest first, and return the number of lines.

    The file appears whole or not at all. Salts stay in the store: without them an erased row cannot be recognised.

    Raises:
        InputError: the file cannot be written.
    """
    return export(store, config.model.name, str(out)).rows
