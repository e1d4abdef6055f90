"""What a model said on an item, kept on disk: an unchanged model is never asked an unchanged item twice.

One JSON Lines file per model, named by its digest; one line per item, keyed by the item's digest and the
decoding's. Lines are appended whole, so two processes may write at once, and a line torn by a crash is ignored.
Scores are not kept: they are computed again from the answer, so a changed scorer needs no new answers.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from data_contracts.digests import digest

DECODING = digest(
    {"decoding": "greedy", "temperature": 0, "stop": "end of turn", "nll": "mean per token", "version": 1}
)

_TOOK = ("seconds", "prompt_tokens", "answer_tokens")


@dataclass(frozen=True)
class Output:
    """A model's raw result on one item.

    `nll` is that of the reference answer (None for patterns), `choice_nlls` of each choice in the item's order;
    both are means in nats per token. What answering took is kept beside it, where it is known: seconds (of a batch,
    each answer's share), tokens of the conversation and of the answer.
    """

    answer: str
    nll: float | None = None
    choice_nlls: tuple[float, ...] = ()
    seconds: float | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None


class AnswerCache:
    """Outputs of one model by item digest, all decoded in the same way."""

    def __init__(self, folder: Path, model_digest: str, decoding: str = DECODING) -> None:
        self._decoding = decoding
        self._path = folder / f"{model_digest}.jsonl"
        self._known: dict[str, Output] = {}
        if self._path.is_file():
            for line in self._path.read_text(encoding="utf-8", errors="replace").split("\n"):
                self._take(line)

    def _take(self, line: str) -> None:
        try:
            row = json.loads(line)
            if row["decoding"] == self._decoding:
                took = {name: row.get(name) for name in _TOOK}  # lines of earlier versions do not say
                self._known[row["item"]] = Output(row["answer"], row["nll"], tuple(row["choice_nlls"]), **took)
        except (ValueError, KeyError, TypeError):
            return  # a torn or foreign line: that item is simply asked again

    def get(self, item: str) -> Output | None:
        """The output for an item digest, or None."""
        return self._known.get(item)

    def put(self, rows: Iterable[tuple[str, Output]]) -> None:
        """Add outputs by item digest; on disk when this returns."""
        lines = []
        for item, output in rows:
            self._known[item] = output
            lines.append(
                json.dumps(
                    {
                        "item": item,
                        "decoding": self._decoding,
                        "answer": output.answer,
                        "nll": output.nll,
                        "choice_nlls": output.choice_nlls,
                        **{name: value for name in _TOOK if (value := getattr(output, name)) is not None},
                        "at": int(time.time()),  # by which retention goes
                    },
                    ensure_ascii=False,
                )
            )
        if not lines:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            # The leading newline separates from a torn last line; empty lines are ignored on reading.
            os.write(handle, ("\n" + "\n".join(lines) + "\n").encode("utf-8"))
            os.fsync(handle)
        finally:
            os.close(handle)
