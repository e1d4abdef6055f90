"""User text on a terminal: as text, with everything that could steer the terminal or hide shown as an escape."""

from __future__ import annotations

import unicodedata

_HIDDEN = frozenset(["Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"])


def visible(text: str) -> str:
    r"""Control, format (bidi, zero-width) and unassigned characters as `\x1b` or `\u202e`; line ends stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(char) for char in text.replace("\r\n", "\n"))


def _shown(char: str) -> str:
    if char == "\n" or unicodedata.category(char) not in _HIDDEN:
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def visible_line(text: str, most: int = 80) -> str:
    """One line of at most `most` characters."""
    line = visible(" ".join(text.split()))
    return line if len(line) <= most else line[: most - 3] + "..."


def indented(text: str, by: str = "    ") -> str:
    """Visible text, each line indented, so that none of it can pass for ours."""
    return "\n".join(by + line for line in visible(text).split("\n"))
