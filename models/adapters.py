"""An adapter on disk: published atomically, and checked before anything loads it."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from configs.errors import AdapterRejectedError
from configs.limits import MAX_RANK
from data_contracts.digests import file_digest, tree_digest
from data_contracts.records import AdapterRef
from data_contracts.snapshot_files import fsync
from models.files import chat_template_digest, remote_code_keys, tokenizer_digest
from models.jobs import write_json

CONFIG, WEIGHTS, MANIFEST = "adapter_config.json", "adapter_model.safetensors", "manifest.json"
_REQUIRED = frozenset({CONFIG, WEIGHTS, MANIFEST})
CARD, README = "training_card.json", "README.md"
_DESCRIBING = frozenset({CARD, README})
_ALLOWED = _REQUIRED | _DESCRIBING
MAX_ABS = 1e3
"""No weight of a sane LoRA is near this; a larger one is damage or an attack."""
_KEY = re.compile(r"base_model\.model\.(?P<layer>[A-Za-z0-9_.]+)\.lora_(?P<side>[AB])\.weight")
_MODULE = re.compile(r"[A-Za-z0-9_]+")

# Keys of a LoRA configuration that may hold anything checked below; every other key must be empty or at its default.
_FREE_KEYS = frozenset(
    {"alpha_pattern", "base_model_name_or_path", "bias", "fan_in_fan_out", "inference_mode", "init_lora_weights"}
    | {"lora_alpha", "lora_dropout", "megatron_core", "peft_type", "peft_version", "qalora_group_size", "r"}
    | {"rank_pattern", "revision", "target_modules", "task_type", "use_rslora"}
)


def _reject(message: str, where: object, *, expected: object = None, found: object = None) -> AdapterRejectedError:
    return AdapterRejectedError(
        message, where=where, expected=expected, found=found, fix="do not serve it; train or fetch the adapter again"
    )


def adapter_digest(folder: Path) -> str:
    """Digest over weights and configuration: what the adapter is.

    Not over the manifest, nor over the training card and README that it names by their own digests: they say how long
    training took and with which commit, and the same weights are the same adapter.

    Raises:
        AdapterRejectedError: a symbolic link.
    """
    try:
        return tree_digest(folder, exclude=_DESCRIBING | {MANIFEST})
    except ValueError as error:
        raise _reject("an adapter holds plain files only", folder, found=error) from error


def _check_names(folder: Path) -> None:
    if not folder.is_dir() or folder.is_symlink():
        raise _reject("no adapter here", folder, expected="a folder", found="none or a symbolic link")
    entries = {path.name: path for path in folder.iterdir()}
    odd = sorted(
        name for name, path in entries.items() if path.is_symlink() or not path.is_file() or name not in _ALLOWED
    )
    missing = sorted(_REQUIRED - entries.keys())
    if odd or missing:
        raise _reject(
            "an adapter holds exactly its configuration, its weights and its manifest",
            folder,
            expected=", ".join(sorted(_REQUIRED)),
            found=f"unexpected {', '.join(odd)}" if odd else f"missing {', '.join(missing)}",
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _reject("not valid JSON", path, found=error) from error
    if not isinstance(value, dict):
        raise _reject("not a JSON object", path, found=type(value).__name__)
    return value


def _check_config(path: Path, max_rank: int) -> dict[str, Any]:
    config = _read_json(path)
    if keys := remote_code_keys(config):
        raise _reject("an adapter that brings its own code is refused", path, found=", ".join(keys))
    odd = sorted(key for key, value in config.items() if key not in _FREE_KEYS and value)
    if odd:  # DoRA, modules_to_save, layer_replication ... would change more than the base plus a low-rank term
        raise _reject("only plain LoRA is served", path, found=", ".join(f"{k}={config[k]!r}" for k in odd))
    wanted = {"peft_type": ("LORA",), "task_type": ("CAUSAL_LM",), "bias": ("none",), "fan_in_fan_out": (False, None)}
    for key, values in {**wanted, "init_lora_weights": (True, False)}.items():
        if config.get(key, values[-1]) not in values:
            raise _reject(f"`{key}` is not allowed", path, expected=values[0], found=repr(config[key]))
    modules = config.get("target_modules")
    if not isinstance(modules, list) or not modules or not all(_MODULE.fullmatch(str(m)) for m in modules):
        raise _reject("`target_modules` is a list of layer names", path, found=repr(modules))
    ranks = [config.get("r"), *dict(config.get("rank_pattern") or {}).values()]
    if not all(isinstance(rank, int) and 1 <= rank <= max_rank for rank in ranks):
        raise _reject("the rank is out of bounds", path, expected=f"1 to {max_rank}", found=ranks)
    return config


def _check_tensors(path: Path, config: dict[str, Any]) -> None:
    import torch
    from safetensors import SafetensorError, safe_open

    largest = max([config["r"], *dict(config.get("rank_pattern") or {}).values()])
    sides: dict[str, set[str]] = {}
    try:
        with safe_open(path, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118 - not a mapping
                match = _KEY.fullmatch(key)
                if match is None or match["layer"].rsplit(".", 1)[-1] not in config["target_modules"]:
                    raise _reject("a tensor that is no LoRA weight of the targeted layers", path, found=key)
                tensor = tensors.get_tensor(key)
                rank = tensor.shape[0 if match["side"] == "A" else -1] if tensor.dim() == 2 else 0
                if not tensor.is_floating_point() or not 1 <= rank <= largest:
                    raise _reject(
                        "a tensor of another kind than the configuration says",
                        f"{path}: {key}",
                        expected=f"two dimensions, rank at most {largest}",
                        found=f"{tuple(tensor.shape)} {tensor.dtype}",
                    )
                if not bool(torch.isfinite(tensor).all()) or float(tensor.abs().max()) > MAX_ABS:
                    raise _reject(
                        "a weight is not finite or far too large",
                        f"{path}: {key}",
                        expected=f"finite, at most {MAX_ABS:g}",
                        found=float(tensor.abs().max()),
                    )
                sides.setdefault(match["layer"], set()).add(match["side"])
    except (SafetensorError, OSError) as error:
        raise _reject("not a readable safetensors file", path, found=error) from error
    half = sorted(layer for layer, both in sides.items() if both != {"A", "B"})
    if half or not sides:
        raise _reject("every layer has lora_A and lora_B", path, found=half[0] if half else "no tensors")


def _check_described(folder: Path, manifest: dict[str, Any]) -> None:
    """Training card and README are those the manifest names, or none."""
    described = manifest.get("described") or {}
    for name in sorted(_DESCRIBING):
        found = file_digest(folder / name) if (folder / name).is_file() else None
        if found != described.get(name):
            raise _reject(
                "the description is not the one that was published",
                folder / name,
                expected=described.get(name) or "no such file",
                found=found or "none",
            )


def check_tokenizer(ref: AdapterRef, base: Path) -> None:
    """Refuse an adapter that learned with other tokens or another chat template than the base has here.

    A manifest without these digests (an adapter published before they were kept) leaves it to the base's own digest.

    Raises:
        AdapterRejectedError: names the digest that differs.
    """
    manifest = read_manifest(Path(ref.path))
    for name, what, digest_of in (
        ("tokenizer_digest", "another tokenizer", tokenizer_digest),
        ("chat_template_digest", "another chat template", chat_template_digest),
    ):
        if manifest.get(name) and manifest[name] != (found := digest_of(base)):
            raise _reject(f"trained with {what} than the base has", base, expected=manifest[name], found=found)


def check_adapter(
    ref: AdapterRef, *, max_rank: int = MAX_RANK, base_digest: str | None = None, tensors: bool = True
) -> dict[str, Any]:
    """Look at an adapter's files before any library loads them.

    Checked in this order: exactly the expected plain files; the digest; the manifest's base; the training card's
    digest; a plain LoRA configuration with no code and a bounded rank; tensors that are finite, bounded LoRA weights.

    Args:
        ref: where it is and what it must be.
        max_rank: largest rank the engine serves.
        base_digest: digest of the base it will be loaded on; None leaves that to the caller.
        tensors: False does not read the weights, for those who copy them and do not load them (and need no torch).

    Returns:
        The adapter's configuration (adapter_config.json).

    Raises:
        AdapterRejectedError: names the file, what was expected and what was found.
    """
    folder = Path(ref.path)
    _check_names(folder)
    found = adapter_digest(folder)
    if found != ref.digest:
        raise _reject("the files are not the ones that were registered", folder, expected=ref.digest, found=found)
    manifest = _read_json(folder / MANIFEST)
    if manifest.get("digest") != ref.digest:
        where = folder / MANIFEST
        raise _reject("the manifest is another adapter's", where, expected=ref.digest, found=manifest.get("digest"))
    wanted = base_digest if base_digest is not None else ref.base_digest
    for source, digest in (("manifest", manifest.get("base_digest")), ("reference", ref.base_digest)):
        if digest != wanted:
            raise _reject(f"trained on another base, says its {source}", folder, expected=wanted, found=digest)
    _check_described(folder, manifest)
    config = _check_config(folder / CONFIG, max_rank)
    if tensors:
        _check_tensors(folder / WEIGHTS, config)
    return config


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a published adapter (what `publish_adapter` was given, and `digest`)."""
    if not (folder / MANIFEST).is_file():
        raise _reject("no adapter here", folder, expected=MANIFEST, found="none")
    return _read_json(folder / MANIFEST)


def publish_adapter(tmp: Path, dest_root: Path, manifest: dict[str, Any]) -> tuple[str, Path]:
    """Move a finished adapter to `dest_root/<digest>`; a reader sees nothing or all of it.

    Args:
        tmp: a folder with the adapter's files, on the same file system; it is consumed.
        dest_root: the adapters' root; made when absent.
        manifest: JSON-ready facts (base_digest and so on); `digest`, and `described` with the digests of training card
            and README where there are any, are added. Written last.

    Returns:
        (digest, final folder). An adapter already published keeps its files and its manifest.
    """
    digest = adapter_digest(tmp)
    target = dest_root / digest
    dest_root.mkdir(parents=True, exist_ok=True)
    if (target / MANIFEST).is_file():
        shutil.rmtree(tmp)
        return digest, target
    for path in sorted(tmp.iterdir()):
        path.chmod(0o644)
        fsync(path)
    described = {name: file_digest(tmp / name) for name in sorted(_DESCRIBING) if (tmp / name).is_file()}
    write_json(tmp / MANIFEST, {**manifest, **({"described": described} if described else {}), "digest": digest})
    tmp.chmod(0o755)
    fsync(tmp)
    try:
        os.replace(tmp, target)
    except OSError:
        if not (target / MANIFEST).is_file():
            raise
        shutil.rmtree(tmp)  # somebody published the same adapter in between
    fsync(dest_root)
    return digest, target
