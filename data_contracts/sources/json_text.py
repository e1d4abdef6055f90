"""JSON out of untrusted files, one value at a time: lines, or the items of one long array.

Refused: bytes that are not UTF-8, NaN, infinities and numbers beyond a double (1e999), a key given twice in one object
(readers disagree which counts), half surrogate pairs, nesting that would exhaust the stack, and values longer than
`MAX_VALUE`.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from configs.errors import InputError

MAX_VALUE = 4 * 1024 * 1024
"""Bytes of one line, characters of one item of an array."""
_CHUNK = 1 << 18
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_LONE = re.compile("[\ud800-\udfff]")
_SPACE = re.compile(r"[ \t\r\n\ufeff]*")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError("a number beyond the range of a double is not a JSON number")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key is given twice in one object")
    return made


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_refuse_constant, parse_float=_finite)


def loads(text: str) -> Any:
    """One JSON value of a text.

    Raises:
        ValueError: it is none.
        RecursionError: it is nested too deeply.
    """
    return _DECODER.decode(text)


def too_long() -> InputError:
    """The error for a value over the limit."""
    return InputError("the line is too long", expected=f"at most {MAX_VALUE} bytes")


def decode(raw: bytes | None) -> dict[str, Any]:
    """One JSON object.

    Args:
        raw: its bytes; None for a line that was too long to keep.

    Raises:
        InputError: says what is wrong with it, never what it holds.
    """
    if raw is None:
        raise too_long()
    try:
        text = raw.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise InputError("not UTF-8", found=f"byte {raw[error.start]:#04x} at position {error.start}") from error
    try:
        data = _DECODER.decode(text)
    except RecursionError as error:
        raise InputError("nested too deeply") from error
    except ValueError as error:
        raise InputError("not valid JSON", found=error) from None
    return checked(data, _HALF.search(text) is not None)


def checked(data: Any, escapes: bool) -> dict[str, Any]:
    """`data` if it is an object of real characters.

    Args:
        data: a decoded value.
        escapes: whether its text held escapes of surrogates; only then it can hold half of a pair.

    Raises:
        InputError: something else than an object, or half a surrogate pair.
    """
    if not isinstance(data, dict):
        raise InputError("a line is a JSON object", found=type(data).__name__)
    if escapes:
        try:
            lone = _LONE.search(json.dumps(data, ensure_ascii=False))
        except RecursionError as error:
            raise InputError("nested too deeply") from error
        if lone:
            raise InputError("a text holds half a surrogate pair, which is no character")
    return data


def text_lines(handle: BinaryIO, seen: Callable[[bytes], None] | None = None) -> Iterator[tuple[int, bytes | None]]:
    """`(length in bytes, line)` of every line with its line break, blank ones too; None for one that is too long.

    Args:
        handle: from where it stands.
        seen: called with all bytes in their order, also those of lines that are not kept.
    """
    while raw := handle.readline(MAX_VALUE + 1):
        size = len(raw)
        if seen is not None:
            seen(raw)
        if size <= MAX_VALUE:
            yield size, raw
            continue
        while raw and not raw.endswith(b"\n"):
            raw = handle.readline(MAX_VALUE)
            size += len(raw)
            if seen is not None:
                seen(raw)
        yield size, None


class _Window:
    """The part of a text that is in memory, where the next value begins in it, and on which line that is."""

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        # A wrong byte becomes half a surrogate pair, so that only the item that holds it is refused.
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self.text = ""
        self.at = 0
        self.line = 1
        self.ended = False

    def more(self) -> None:
        """Read on; what was passed is let go."""
        rest = self.text[self.at :]
        block = self._handle.read(max(_CHUNK, len(rest)))
        self.ended = not block
        self.text, self.at = rest + self._decoder.decode(block, final=self.ended), 0

    def move(self, end: int) -> str:
        """Go on at `end`; returns what was passed."""
        passed = self.text[self.at : end]
        self.line += passed.count("\n")
        self.at = end
        return passed

    def skip_space(self) -> str:
        """The next character that is no space, or nothing at the end."""
        while True:
            self.move(_SPACE.match(self.text, self.at).end())  # type: ignore[union-attr]
            if self.at < len(self.text):
                return self.text[self.at]
            if self.ended:
                return ""
            self.more()


def array_items(handle: BinaryIO) -> Iterator[tuple[int, dict[str, Any] | InputError]]:
    """`(line it begins on, item)` of a JSON array of objects, without ever holding the array.

    An item that is no JSON ends the reading, as nobody can tell where the next one begins; what is JSON but not usable
    (no object, wrong bytes) is one error and the reading goes on.
    """
    window = _Window(handle)
    if window.skip_space() != "[":
        yield window.line, InputError("not a JSON array", expected="[")
        return
    window.move(window.at + 1)
    first = True
    while (mark := window.skip_space()) != "]":
        if not first:
            if mark != ",":
                yield (
                    window.line,
                    InputError(
                        "the array is not closed", expected=", or ]", found="something else" if mark else "the end"
                    ),
                )
                return
            window.move(window.at + 1)
            window.skip_space()
        first = False
        line = window.line
        try:
            value, end = _item(window)
        except InputError as error:
            yield line, error
            return
        text = window.move(end)
        try:
            if not text.isascii() and _LONE.search(text):
                raise InputError("not UTF-8")
            yield line, checked(value, _HALF.search(text) is not None)
        except InputError as error:
            yield line, error
    window.move(window.at + 1)
    if window.skip_space():
        yield window.line, InputError("something follows the end of the array")


def _item(window: _Window) -> tuple[Any, int]:
    while True:
        try:
            value, end = _DECODER.raw_decode(window.text, window.at)
            # A number at the window's edge may go on.
            if end < len(window.text) or window.ended:
                return value, end
        except RecursionError as error:
            raise InputError("nested too deeply") from error
        except ValueError as error:
            if window.ended or "twice" in str(error) or "not a JSON number" in str(error):
                raise InputError("not valid JSON", found=str(error)) from None
        if len(window.text) - window.at > MAX_VALUE:
            raise InputError("an item is too long or not valid JSON", expected=f"at most {MAX_VALUE} characters")
        window.more()
