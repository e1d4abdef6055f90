"""A base model in memory, and adapters on it: only after their files were checked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from configs.errors import AdapterRejectedError, ConfigError, ModelUnavailableError
from configs.limits import MAX_RANK
from data_contracts.records import AdapterRef
from models.adapters import check_adapter, check_tokenizer
from models.files import check_model_files
from models.quiet import quiet


def set_threads(threads: int) -> None:
    """Give torch `threads` CPU threads in this process; 0 leaves its own choice."""
    import torch

    if threads > 0:
        torch.set_num_threads(threads)


def pick_device(device: str = "auto") -> str:
    """`cuda` where asked for or available, else `cpu`."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("no GPU here", where="training.device", expected="cuda", found="cpu", fix="set device: auto")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def _quantization(kind: str) -> Any:
    import importlib.util

    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            "a quantised base needs bitsandbytes, which is not installed",
            where=f"training.quantization: {kind}",
            expected="the extra `gpu`, on a CPU too",
            fix="pip install 'tidemill[gpu]', or set training.quantization: none",
        )
    import torch
    from transformers import BitsAndBytesConfig

    if kind == "nf4":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32,
        )
    return BitsAndBytesConfig(load_in_8bit=True)


def load_tokenizer(path: Path) -> Any:
    """The tokenizer of a base model; it pads on the left.

    Raises:
        ModelUnavailableError: files that must not or cannot be loaded, or no chat template.
    """
    from transformers import AutoTokenizer

    check_model_files(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise _does_not_load(path, error) from error
    if tokenizer.chat_template is None:
        raise ModelUnavailableError(
            "the tokenizer has no chat template",
            where=path,
            expected="an instruction-tuned model with chat_template.jinja or tokenizer_config.json: chat_template",
        )
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _does_not_load(path: Path, error: Exception) -> ModelUnavailableError:
    return ModelUnavailableError(
        "the base model does not load",
        where=path,
        found=f"{type(error).__name__}: {error}",
        fix="check that the folder is complete and that transformers knows the architecture",
    )


def load_base(
    path: Path, *, device: str = "auto", quantization: str = "none", in_host_memory: bool = False
) -> tuple[Any, Any]:
    """Load a base model and its tokenizer, ready for inference.

    fp32 on a CPU (without AMX bf16 gains nothing there), bf16 on a GPU that has it.

    Args:
        path: a folder of safetensors, see `models.cache.resolve`.
        device: auto, cpu or cuda.
        quantization: none, nf4 or int8 (the last two need bitsandbytes).
        in_host_memory: leave the weights there, in the device's precision, for whoever shards them.

    Returns:
        (model in eval mode with its parameters frozen, tokenizer).

    Raises:
        ModelUnavailableError: files that must not or cannot be loaded.
        ConfigError: no such device here, or no bitsandbytes.
    """
    import torch
    from transformers import AutoModelForCausalLM

    quiet()
    tokenizer = load_tokenizer(path)
    where = pick_device(device)
    placed = where if where == "cpu" else f"cuda:{torch.cuda.current_device()}"  # one of several processes has its own
    bf16 = where == "cuda" and torch.cuda.is_bf16_supported()
    options: dict[str, Any] = {"quantization_config": _quantization(quantization)} if quantization != "none" else {}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=torch.bfloat16 if bf16 else torch.float32,
            device_map=None if in_host_memory or (quantization == "none" and where == "cpu") else {"": placed},
            attn_implementation="sdpa",
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            **options,
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise _does_not_load(path, error) from error
    model.requires_grad_(False)
    return model.eval(), tokenizer


def _refuse_mismatch(ref: AdapterRef, missing: list[str], unexpected: list[str]) -> None:
    missing = [key for key in missing if "lora_" in key]
    if missing or unexpected:
        raise AdapterRejectedError(
            "the adapter's tensors do not fit the base",
            where=ref.path,
            expected=f"a tensor for {missing[0]}" if missing else "only tensors of the base's layers",
            found="none" if missing else unexpected[0],
            fix="train the adapter on this base",
        )


def _put(peft_model: Any, ref: AdapterRef) -> None:
    try:
        found = peft_model.load_adapter(ref.path, adapter_name=ref.version, is_trainable=False)
        _refuse_mismatch(ref, list(found.missing_keys), list(found.unexpected_keys))
    except (RuntimeError, ValueError, KeyError) as error:
        _drop(peft_model, ref.version)
        raise AdapterRejectedError(
            "the adapter does not fit the base", where=ref.path, found=str(error).splitlines()[0]
        ) from error
    except AdapterRejectedError:
        _drop(peft_model, ref.version)
        raise
    peft_model.eval()
    peft_model.requires_grad_(False)


def _drop(peft_model: Any, version: str) -> None:
    if version in peft_model.peft_config:
        peft_model.delete_adapter(version)


def _check_tokenizer(model: Any, ref: AdapterRef) -> None:
    folder = Path(str(getattr(model, "name_or_path", "")))  # where transformers says the model was loaded from
    if (folder / "config.json").is_file():
        check_tokenizer(ref, folder)


def attach(model: Any, ref: AdapterRef, *, max_rank: int = MAX_RANK, base_digest: str | None = None) -> Any:
    """Wrap a base model with its first adapter; the adapter's name in the result is `ref.version`.

    The base's layers are wrapped in place: keep the returned PeftModel and use `using_adapter` for the base.

    Raises:
        AdapterRejectedError: see `check_adapter` and `check_tokenizer`, or tensors that do not fit this base.
    """
    from peft import LoraConfig, PeftModel

    config = check_adapter(ref, max_rank=max_rank, base_digest=base_digest)
    _check_tokenizer(model, ref)
    names = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
    unknown = sorted(set(config["target_modules"]) - names)
    if unknown:
        raise AdapterRejectedError(
            "the adapter targets layers the base does not have", where=ref.path, found=", ".join(unknown)
        )
    wrapped = PeftModel(model, LoraConfig.from_pretrained(ref.path), adapter_name=ref.version)
    try:
        _put(wrapped, ref)
    except AdapterRejectedError:
        wrapped.unload()  # the base is usable as before
        raise
    return wrapped


def load_adapter(peft_model: Any, ref: AdapterRef, *, max_rank: int = MAX_RANK, base_digest: str | None = None) -> None:
    """Add one more adapter, named `ref.version`; the ones already there and the active one stay as they are.

    Raises:
        AdapterRejectedError: see `check_adapter` and `check_tokenizer`, or tensors that do not fit; nothing is changed
            then.
    """
    check_adapter(ref, max_rank=max_rank, base_digest=base_digest)
    _check_tokenizer(peft_model.get_base_model(), ref)
    if ref.version in peft_model.peft_config:
        raise AdapterRejectedError("an adapter of this version is already loaded", where=ref.version)
    _put(peft_model, ref)


def unload_adapter(peft_model: Any, version: str) -> None:
    """Forget an adapter; unknown versions are ignored. Not for the last one: keep it, or drop the whole model."""
    _drop(peft_model, version)


@contextmanager
def using_adapter(model: Any, adapter: str | None) -> Iterator[Any]:
    """The model as version `adapter` speaks within the block; None is the base (adapters disabled).

    Args:
        model: a plain model (then only None is allowed) or a PeftModel holding `adapter`.
    """
    config = getattr(model, "peft_config", None)
    if config is None:
        if adapter is not None:
            raise AdapterRejectedError("no adapter is loaded", where=adapter)
        yield model
    elif adapter is None:
        with model.disable_adapter():
            yield model
    else:
        if adapter not in config:
            raise AdapterRejectedError("this adapter is not loaded", where=adapter, expected=", ".join(config))
        before = model.active_adapter
        model.set_adapter(adapter)
        try:
            yield model
        finally:
            model.set_adapter(before)
