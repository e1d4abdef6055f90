"""Submits rows for ever and prints each id once it is acknowledged; the test kills it.

python writer_child.py URL
"""

import sys
from concurrent.futures import Future

from store_samples import MODEL, correction, interaction

from store.engine import Store
from store.writer import GroupCommitWriter


def main(url: str) -> None:
    writer = GroupCommitWriter(Store.open(url), delay_ms=1, max_rows=32)
    waiting: list[tuple[str, Future]] = []
    n = 0
    while True:
        n += 1
        waiting.append((f"i{n}", writer.submit_interaction(interaction(f"i{n}"))))
        waiting.append((f"f{n}", writer.submit_feedback(MODEL, correction(f"f{n}", f"i{n}"))))
        if len(waiting) >= 64:
            for ident, future in waiting:
                future.result()
                print(ident, flush=True)
            waiting = []


if __name__ == "__main__":
    main(sys.argv[1])
