"""A labeller in a process of its own: labels until nothing is left, then prints what it got (`item token` a line)."""

from __future__ import annotations

import sys

from data_contracts.records import ReviewAnswer
from store import review_leases, reviews
from store.engine import Store


def main(url: str, model: str, labeller: str) -> None:
    store = Store.open(url, create=False)
    while True:
        with store.write() as conn:
            lease = review_leases.lease_next(conn, model, labeller, lease_s=60)
        if lease is None:
            break
        with store.write() as conn:
            reviews.label(conn, lease.item, labeller, lease.token, ReviewAnswer(verdict="accept"))
            reviews.set_status(conn, lease.item, "done", "accept")
        sys.stdout.write(f"{lease.item} {lease.token}\n")
    store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
