"""Reading a profile: YAML with `extends`, overrides, and one clear error for an unknown key."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from configs.errors import ConfigError
from configs.schema import Config, SourceSection

HERE = Path(__file__).parent


def shipped_profiles() -> dict[str, Path]:
    """Name -> path of the profiles that come with Tidemill."""
    return {path.stem: path for path in sorted(HERE.glob("*.yaml"))}


def profile_path(name_or_path: str) -> Path:
    """The file of a shipped profile or of the user's own.

    Raises:
        ConfigError: neither a shipped profile nor an existing file.
    """
    shipped = shipped_profiles()
    if name_or_path in shipped:
        return shipped[name_or_path]
    path = Path(name_or_path)
    if path.is_file():
        return path
    raise ConfigError(
        "no such profile",
        where=name_or_path,
        expected="a file, or one of " + ", ".join(shipped),
        fix="give a path to a YAML file or the name of a shipped profile",
    )


def resource_path(relative: str, config_dir: Path | None = None, *, folders: bool = False) -> Path:
    """A contract, prompt or suite file: an absolute path, beside the user's profile, or shipped.

    Args:
        relative: the path.
        config_dir: where the user's profile is.
        folders: a folder will do too.

    Raises:
        ConfigError: the file is in none of these places.
    """
    path = Path(relative)
    candidates = [path] if path.is_absolute() else [d / path for d in (config_dir, HERE) if d is not None]
    for candidate in candidates:
        if candidate.is_file() or (folders and candidate.is_dir()):
            return candidate
    raise ConfigError(
        "a file named in the configuration does not exist",
        where=relative,
        expected="a file at " + " or ".join(str(c) for c in candidates),
        fix="mend the path in the profile",
    )


def suite_place(relative: str, config_dir: Path | None = None) -> Path:
    """A suite file or a folder of suites, see `resource_path`."""
    return resource_path(relative, config_dir, folders=True)


def _merge(below: Mapping[str, Any], above: Mapping[str, Any], replace: frozenset[str]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        if key not in replace and isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _merge(merged[key], value, replace)
        else:
            merged[key] = value
    return merged


def _read(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    if path in seen:
        raise ConfigError("profiles extend each other in a circle", where=" -> ".join(p.name for p in (*seen, path)))
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ConfigError("not valid YAML", where=path, found=str(error).replace("\n", " ")) from error
    if not isinstance(data, dict):
        raise ConfigError("a profile is a mapping of sections", where=path, found=type(data).__name__)
    parent = data.pop("extends", None)
    if parent is None:
        return data
    beside = path.parent / str(parent)
    below = _read(beside if beside.is_file() else profile_path(str(parent)), (*seen, path))
    # `guardrails` is one decision, not a set of defaults: a profile that names it names all of it.
    return _merge(below, data, frozenset({"guardrails"}))


def _fields_at(location: tuple[Any, ...]) -> list[str]:
    model: Any = Config
    for part in location[:-1]:
        if isinstance(part, int):  # an item of a list of sections
            model = next(iter(get_args(model)), None)
            continue
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            return []
        model = field.annotation
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _explain(error: ValidationError, path: object) -> ConfigError:
    first = error.errors()[0]
    location = tuple(first["loc"])
    key = ".".join(str(part) for part in location)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _fields_at(location)
        close = difflib.get_close_matches(str(location[-1]), known, n=1)
        return ConfigError(
            f"unknown key `{key}`{more}",
            where=path,
            expected="one of " + ", ".join(known),
            found=location[-1],
            fix=f"did you mean `{close[0]}`?" if close else "remove the key",
        )
    return ConfigError(f"`{key}`: {first['msg']}{more}", where=path, found=repr(first.get("input")))


def build_config(data: Mapping[str, Any], where: object = "configuration") -> Config:
    """Validate plain data.

    Raises:
        ConfigError: an unknown key (with a suggestion) or a value of the wrong type.
    """
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise _explain(error, where) from error


def load_config(name_or_path: str = "default", overrides: Mapping[str, Any] | None = None) -> Config:
    """Read a profile.

    Args:
        name_or_path: a shipped profile's name or a YAML file.
        overrides: nested values that win over the file, for example {"serving": {"port": 0}}.

    Raises:
        ConfigError: no such profile, bad YAML, an unknown key or a bad value.
    """
    path = profile_path(name_or_path)
    data = _merge(_read(path), overrides or {}, frozenset({"guardrails"}))
    data.setdefault("profile", path.stem)
    return _with_absolute_files(build_config(data, path), path.parent)


def _with_absolute_files(config: Config, folder: Path) -> Config:
    """All files a profile names by absolute path, so that a resolved profile means the same everywhere."""
    found = {
        "ingest": {
            "contract": None,
            "contracts": {k: str(resource_path(p, folder)) for k, p in config.ingest.by_kind().items()},
            "sources": tuple(_with_absolute_path(source, folder) for source in config.ingest.sources),
        },
        "replay": {"prompts": str(resource_path(config.replay.prompts, folder))},
        "evaluation": {"anchors": tuple(str(suite_place(a, folder)) for a in config.evaluation.anchors)},
        "review": {"guidelines": str(resource_path(config.review.guidelines, folder))},
    }
    sections = {name: getattr(config, name).model_copy(update=update) for name, update in found.items()}
    return config.model_copy(update=sections)


def _with_absolute_path(source: SourceSection, folder: Path) -> SourceSection:
    if source.path is None or "://" in source.path:
        return source
    return source.model_copy(update={"path": str(folder.resolve() / Path(source.path).expanduser())})


def cache_dir(config: Config) -> Path:
    """Where converted models are kept (shared by all state directories of a user)."""
    if config.model.cache_dir:
        return Path(config.model.cache_dir).expanduser().resolve()
    if os.environ.get("TIDEMILL_CACHE"):
        return Path(os.environ["TIDEMILL_CACHE"]).expanduser().resolve()
    return Path.home() / ".cache" / "tidemill" / "models"
