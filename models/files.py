"""Which files make a model, and which must never be loaded. Looked at before any library's loader runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from configs.errors import ModelUnavailableError
from data_contracts.digests import digest, file_digest

MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
)
"""Patterns of the files that are copied, downloaded and counted in a model's digest; nothing else matters."""

_TOKENIZER = frozenset(
    {"tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json"}
    | {"vocab.json", "vocab.txt", "merges.txt"}
)

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_REMOTE_CODE = frozenset({"auto_map", "custom_pipelines", "trust_remote_code"})


def model_files(folder: Path) -> list[Path]:
    """The files of `folder` that make the model, sorted by name."""
    return sorted({path for pattern in MODEL_FILES for path in folder.glob(pattern) if path.is_file()})


def model_digest(folder: Path) -> str:
    """SHA-256 over {name: file digest} of weights, configuration and tokenizer; README and licence do not count."""
    return digest({path.name: file_digest(path) for path in model_files(folder)})


def tokenizer_digest(folder: Path) -> str:
    """SHA-256 over {name: file digest} of the tokenizer's files, without a chat template in a file of its own."""
    return digest({path.name: file_digest(path) for path in model_files(folder) if path.name in _TOKENIZER})


def chat_template_digest(folder: Path) -> str:
    """SHA-256 of the chat template: of chat_template.jinja, else of the one in tokenizer_config.json; empty if none."""
    own = folder / "chat_template.jinja"
    if own.is_file():
        return digest(own.read_text(encoding="utf-8"))
    settings = folder / "tokenizer_config.json"
    found = json.loads(settings.read_text(encoding="utf-8")).get("chat_template") if settings.is_file() else None
    return digest(found) if found else ""


def remote_code_keys(value: Any, at: str = "") -> list[str]:
    """Paths of keys anywhere in a parsed configuration that would make a loader run code of the model's author."""
    if isinstance(value, dict):
        found = [f"{at}{key}" for key in value if key in _REMOTE_CODE]
        return found + [name for key, below in value.items() for name in remote_code_keys(below, f"{at}{key}.")]
    if isinstance(value, list):
        return [name for index, below in enumerate(value) for name in remote_code_keys(below, f"{at}{index}.")]
    return []


def check_model_files(folder: Path) -> None:
    """Refuse a folder that is no model, has only pickled weights, or wants to run code of its own.

    Raises:
        ModelUnavailableError: names the file and what to do.
    """
    if not (folder / "config.json").is_file():
        raise ModelUnavailableError(
            "no model here",
            where=folder,
            expected="config.json, *.safetensors and the tokenizer's files",
            found="no such folder" if not folder.is_dir() else "no config.json",
            fix="give a folder written by `save_pretrained`",
        )
    if not list(folder.glob("*.safetensors")):
        pickles = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLES)
        raise ModelUnavailableError(
            "pickled weights can run code when loaded and are refused" if pickles else "no weights here",
            where=folder,
            expected="*.safetensors",
            found=", ".join(pickles) or "none",
            fix="convert the weights to safetensors",
        )
    for path in sorted(folder.glob("*.json")):
        try:
            parsed = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ModelUnavailableError("not valid JSON", where=path, found=str(error)) from error
        keys = remote_code_keys(parsed)
        if keys:
            raise ModelUnavailableError(
                "a model that brings its own code is refused",
                where=path,
                expected="an architecture that transformers knows",
                found=", ".join(keys),
                fix="use a model whose configuration has no auto_map",
            )
