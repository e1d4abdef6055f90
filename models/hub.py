"""Models from the hub: one commit, and only the files that make a model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from configs.errors import ModelUnavailableError
from models.files import MODEL_FILES, model_files
from models.references import HubRef


def fetch_hub(ref: HubRef, folder: Path, progress: Callable[[str], None]) -> None:
    """Copy the repository's safetensors, configuration and tokenizer at the pinned commit into `folder`.

    Raises:
        ModelUnavailableError: the hub does not answer, or does not have it, and it is not in the hub's local cache.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    progress(f"fetching {ref.name} at {ref.revision[:12]} from the model hub")
    try:
        snapshot = snapshot_download(ref.name, revision=ref.revision, allow_patterns=list(MODEL_FILES))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise ModelUnavailableError(
            "the model is not in the cache and the hub could not give it",
            where=str(ref),
            found=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            fix="check the name, the commit and the connection (HF_TOKEN for a gated model), or use a local folder",
        ) from error
    for path in model_files(Path(snapshot)):
        shutil.copyfile(path, folder / path.name)
