"""From token ids to text pieces: whole characters only, and nothing from a stop string on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

REPLACEMENT = "�"


class StopScanner:
    """Passes text through up to the first stop string, holding back what might be the start of one.

    Concatenated, the pieces are the text before the earliest stop string, however it was cut into pushes.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(s for s in stops if s)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """Text that is safe to send now; sets `stopped` when a stop string was found."""
        if self.stopped:
            return ""
        self._held += text
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            out, self._held = self._held[: min(found)], ""
            return out
        keep = max((self._overlap(stop) for stop in self._stops), default=0)
        cut = len(self._held) - keep
        out, self._held = self._held[:cut], self._held[cut:]
        return out

    def flush(self) -> str:
        """What was held back, at the end of the text."""
        out, self._held = self._held, ""
        return "" if self.stopped else out

    def _overlap(self, stop: str) -> int:
        """Length of the longest end of the held text that is a proper beginning of `stop`."""
        for size in range(min(len(stop) - 1, len(self._held)), 0, -1):
            if self._held.endswith(stop[:size]):
                return size
        return 0


class Detokenizer:
    """Decodes ids one by one; bytes of an unfinished character wait for the rest.

    Args:
        decode: ids -> text, special tokens skipped.
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._start = 0
        self._sent = 0

    def push(self, token: int) -> str:
        """The text this token completes; empty while a character is unfinished."""
        self._ids.append(token)
        before = self._decode(self._ids[self._start : self._sent])
        after = self._decode(self._ids[self._start :])
        if after.endswith(REPLACEMENT) and len(self._ids) - self._sent < 8:
            return ""
        return self._take(before, after)

    def flush(self) -> str:
        """The rest, unfinished characters as replacement characters."""
        before = self._decode(self._ids[self._start : self._sent])
        return self._take(before, self._decode(self._ids[self._start :]))

    def _take(self, before: str, after: str) -> str:
        # The window starts at the previous piece: tokenizers that put a space before a word need the word before it.
        self._start, self._sent = self._sent, len(self._ids)
        return after[len(before) :]
