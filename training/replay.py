"""Replay: the base's own greedy answers to varied prompts, generated in a process of their own and cached.

Run as `python -m training.replay --job JOB.json`; prints JSON lines like the trainer. An answer is kept under the
digest of (base, prompt, decoding), so a later round asks the base only for prompts it has not answered yet.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from configs.errors import TrainingError
from data_contracts.digests import digest
from data_contracts.records import Message
from models.jobs import JobStopped, run_job, serve_job, write_json

Progress = Callable[[int, int], None]


def _key(base_digest: str, prompt: Sequence[Message], max_new_tokens: int) -> str:
    return digest([base_digest, [m.model_dump() for m in prompt], "greedy, whole sentences", max_new_tokens])


def _cached(cache_dir: Path, key: str) -> str | None:
    path = cache_dir / f"{key}.json"
    if not path.is_file():
        return None
    answer: str = json.loads(path.read_text(encoding="utf-8"))["answer"]
    os.utime(path)  # retention goes by its last use
    return answer


def answer_prompts(
    *,
    base_path: Path,
    base_digest: str,
    prompts: Sequence[Sequence[Message]],
    max_new_tokens: int,
    batch: int,
    cache_dir: Path,
    work_dir: Path,
    threads: int = 0,
    progress: Progress | None = None,
) -> list[str]:
    """The base's answers, in the order of `prompts`; one that was cut off ends at its last whole sentence.

    Args:
        base_path: folder of the base model.
        base_digest: its digest, part of every cache key.
        prompts: conversations that end with a user message.
        max_new_tokens: longest answer, in tokens.
        batch: prompts in one forward pass.
        cache_dir: where answers are kept.
        work_dir: for the job file.
        threads: CPU threads; 0 leaves torch's choice.
        progress: called with (answered, asked).

    Raises:
        TrainingError: the generating process ended without an answer for every prompt.
    """
    cache_dir.mkdir(parents=True, exist_ok=True)
    keys = [_key(base_digest, prompt, max_new_tokens) for prompt in prompts]
    known = {key: _cached(cache_dir, key) for key in keys}
    missing = [i for i, key in enumerate(keys) if known[key] is None]
    if missing:
        job = {
            "base_path": str(base_path),
            "prompts": [[m.model_dump() for m in prompts[i]] for i in missing],
            "keys": [keys[i] for i in missing],
            "max_new_tokens": max_new_tokens,
            "batch": batch,
            "cache_dir": str(cache_dir),
            "threads": threads,
        }

        def on_event(event: dict[str, Any]) -> None:
            if progress is not None and event.get("event") == "progress":
                progress(int(event["done"]), int(event["total"]))

        run_job("training.replay", job, work_dir, on_event)
        known = {key: _cached(cache_dir, key) for key in keys}
    lost = [key for key, answer in known.items() if answer is None]
    if lost:
        raise TrainingError(
            "replay answers are missing", where=cache_dir, expected=len(keys), found=len(keys) - len(lost)
        )
    return [str(known[key]) for key in keys]


def whole_sentences(answer: str) -> str:
    """An answer that was cut off, up to the end of its last whole sentence or line; empty if it has none.

    A completion is taught with its end of turn: half a sentence would teach the model to stop half way.
    """
    ends = [match.end() for match in re.finditer(r"[.!?][\"')\]]*(?=\s)|[^\n](?=\n)", answer)]
    return answer[: ends[-1]] if ends else ""


def _answer(job: dict[str, Any], emit: Callable[[dict[str, Any]], None], stop: threading.Event) -> dict[str, Any]:
    """The child's work: answer in chunks, and keep each chunk as soon as it is there."""
    from models.generate import generate
    from models.loading import load_base, set_threads
    from models.prompts import completion_ids

    set_threads(int(job["threads"]))
    model, tokenizer = load_base(Path(job["base_path"]))
    total, size = len(job["prompts"]), 2 * int(job["batch"])
    for start in range(0, total, size):
        if stop.is_set():
            raise JobStopped
        answers = generate(
            model,
            tokenizer,
            job["prompts"][start : start + size],
            max_new_tokens=int(job["max_new_tokens"]),
            batch=int(job["batch"]),
            adapter=None,
        )
        for key, answer in zip(job["keys"][start : start + size], answers, strict=True):
            cut = len(completion_ids(tokenizer, answer)) > int(job["max_new_tokens"])
            write_json(Path(job["cache_dir"]) / f"{key}.json", {"answer": whole_sentences(answer) if cut else answer})
        emit({"event": "progress", "done": min(total, start + size), "total": total})
    return {"event": "done", "answers": total}


if __name__ == "__main__":
    raise SystemExit(serve_job(_answer))
