"""From a profile's or a command's words to a source."""

from __future__ import annotations

from configs.errors import InputError
from configs.schema import SourceSection
from data_contracts.sources.base import Defaults, Source
from data_contracts.sources.files import Container, FileSource
from data_contracts.sources.formats.registry import NAMES

FORMATS = ("auto", *NAMES, "parquet", "csv", "mlflow")
_CONTAINERS: dict[str, Container] = {"jsonl": "jsonl", "parquet": "parquet", "csv": "csv"}


def open_source(section: SourceSection) -> Source:
    """A source of the profile, to be read again and again."""
    if section.kind == "mlflow":
        from data_contracts.sources.mlflow_traces import NAMES as USUAL
        from data_contracts.sources.mlflow_traces import MlflowSource

        return MlflowSource(
            section.uri or "",
            section.experiment or "",
            lookback_days=section.lookback_days,
            sweep_every_s=section.sweep_s,
            defaults=Defaults(section.principal, section.scope, "mlflow"),
            names={**USUAL, **section.assessments},
        )
    return file_source(section.path or "", section.kind, section.principal, section.scope, follow=True)


def file_source(
    url: str, format: str, principal: str, scope: str, *, follow: bool = False, trust_scope: bool = False
) -> FileSource:
    """Files in one of `FORMATS`; `parquet` and `csv` say how, and their columns say what.

    With `trust_scope` rows may say themselves that they are of scope `review`.

    Raises:
        InputError: no such format.
    """
    if format not in FORMATS or format == "mlflow":
        raise InputError("no such format", where="--format", expected=", ".join(FORMATS), found=format)
    columns = format in ("parquet", "csv")
    return FileSource(
        url,
        "auto" if columns else format,
        _CONTAINERS.get(format, "auto"),
        Defaults(principal, scope, "import", trust_scope),
        follow=follow,
    )
