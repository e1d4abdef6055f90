"""How much memory and time does publishing a snapshot from a stream take?

    python benchmarks/snapshot_stream.py [--rows 1000000] [--seed 0]

Rows of about 60 words come in batches of 1,000, in random order, are published, verified, and 1,000 of them erased.
Memory is the peak of the process above what it held before the first row, imports included. Beside it the machine's
limit: writing and syncing as many bytes. Progress goes to stderr; the last line of stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_contracts.records import Message, SnapshotRow, utc_now
from data_contracts.snapshots import erase_rows, publish_stream, verify

BATCH = 1000


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def batches(rng: random.Random, rows: int) -> Iterator[list[SnapshotRow]]:
    """Rows in batches; ids count up, so what is random is their order by leaf."""
    words = [f"word{i}" for i in range(5000)]
    for start in range(0, rows, BATCH):
        made = []
        for n in range(start, min(start + BATCH, rows)):
            text = " ".join(rng.choices(words, k=50))
            made.append(
                SnapshotRow(
                    digest=hashlib.sha256(f"{n}".encode()).hexdigest(),
                    split="target" if n % 10 == 0 else "train",
                    source="correction",
                    messages=(Message(role="user", content=text),),
                    completion=" ".join(rng.choices(words, k=12)),
                    row_id=f"01890a5d-ac96-774b-bcce-{n:012x}",
                    slice=f"slice {n % 50}",
                )
            )
        yield made
        if (start // BATCH) % 200 == 0:
            say(f"{start} rows")


def peak_mb() -> float:
    """Most memory this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def publish(root: Path, rows: int, seed: int) -> Any:
    """Publish that many rows."""
    return publish_stream(
        root, batches(random.Random(seed), rows), model="bench", contract_digest="c" * 64, base_digest="b" * 64,
        watermark=rows, reasons={}, replay={}, created_at=utc_now(),
    )  # fmt: skip


def disk_mb_s(folder: Path, size: int) -> float:
    """Bytes written and synced, MB/s."""
    block = os.urandom(1 << 20)
    start = time.perf_counter()
    with (folder / "probe").open("wb") as file:
        for _ in range(max(1, size >> 20)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return max(size, 1 << 20) / 1e6 / (time.perf_counter() - start)


def measure(rows: int, seed: int) -> dict[str, Any]:
    """Publish, verify, erase."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        publish(root / "warm", 2000, seed)
        before = peak_mb()
        start = time.perf_counter()
        for _ in batches(random.Random(seed), rows):
            pass
        making = time.perf_counter() - start
        start = time.perf_counter()
        record = publish(root, rows, seed)
        seconds = time.perf_counter() - start - making
        extra = peak_mb() - before
        size = sum(path.stat().st_size for path in Path(record.path).iterdir())
        start = time.perf_counter()
        verify(record.path)
        verifying = time.perf_counter() - start
        start = time.perf_counter()
        erased = erase_rows(record.path, {f"01890a5d-ac96-774b-bcce-{n:012x}" for n in range(0, rows, rows // 1000)})
        erasing = time.perf_counter() - start
        limit = disk_mb_s(root, size)
    return {
        "rows": rows,
        "publish_s": round(seconds, 1),
        "publish_rows_s": round(rows / seconds),
        "extra_peak_mb": round(extra),
        "verify_s": round(verifying, 1),
        "erased": erased,
        "erase_s": round(erasing, 1),
        "size_mb": round(size / 1e6, 1),
        "disk_write_mb_s": round(limit),
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(json.dumps({"seed": options.seed, **measure(options.rows, options.seed)}))


if __name__ == "__main__":
    main()
