"""Which code made an artifact."""

from __future__ import annotations

import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@cache
def code_commit() -> str:
    """The git commit of the checkout (with `+dirty` if files differ), else the installed version."""
    root = Path(__file__).resolve().parent.parent
    if (root / ".git").exists():
        try:
            commit = subprocess.run(
                ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10
            ).stdout.strip()
            status = subprocess.run(
                ["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no"],
                capture_output=True,
                text=True,
                check=True,
                timeout=10,
            ).stdout
            return commit + ("+dirty" if status.strip() else "")
        except (OSError, subprocess.SubprocessError):
            pass  # tolerated: no git on a production machine; the version says enough
    try:
        return "v" + version("tidemill")
    except PackageNotFoundError:
        return "unknown"
