"""Options every command shares, and opening the installation a command works on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from configs.schema import Config
    from flows.context import Context

Profile = Annotated[str, typer.Option("--profile", "-p", help="A shipped profile's name or a YAML file.")]
StateOption = Annotated[str | None, typer.Option("--state", help="State directory; wins over the profile's.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Who = Annotated[str, typer.Option("--by", help="Who takes the responsibility; goes into the audit log.")]
Why = Annotated[str, typer.Option("--reason", help="Why; goes into the audit log.")]


def load(profile: str, state: str | None) -> Config:
    """The profile, with its state directory replaced if one is given."""
    from configs.loader import load_config

    return load_config(profile, {"state_dir": state} if state else None)


def resolved(profile: str, state: str | None) -> Config:
    """What a command works with: the running stack's resolved profile if there is one, else the profile."""
    from configs.loader import load_config
    from configs.paths import StateDir

    config = load(profile, state)
    written = StateDir.of(config).resolved_config
    return load_config(str(written)) if written.is_file() else config


@contextmanager
def opened(profile: str, state: str | None) -> Iterator[Context]:
    """The context of a command, see `resolved`; closed at the end."""
    from flows.context import open_context

    context = open_context(resolved(profile, state))
    try:
        yield context
    finally:
        context.store.close()
