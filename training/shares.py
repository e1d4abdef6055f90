"""How the rows of a step are shared out among processes.

Pure arithmetic on rows that every process holds, so each works out all shares by itself and nothing is sent around.
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Any, TypeVar

from training.packing import split_step

S = TypeVar("S", bound=Sized)


def deal(kinds: Sequence[Sequence[Any]], count: int) -> list[list[list[Any]]]:
    """Share out the rows of a step: of each kind in turn, the longest first, to whom has the fewest tokens so far.

    (Graham, "Bounds on multiprocessing timing anomalies", 1969: the fullest share is at most 4/3 of the best.)
    Kinds are dealt one by one so that each is about even too: under FSDP all wait for each other within a kind.

    Args:
        kinds: the step's rows by what they minimise; a kind may be empty.
        count: shares; may be more than there are rows.

    Returns:
        For each kind, a share for each process. A single share holds the rows in their order.
    """
    if count == 1:
        return [[list(rows)] for rows in kinds]
    tokens = [0] * count
    dealt = []
    for rows in kinds:
        shares: list[list[Any]] = [[] for _ in range(count)]
        for row in sorted(rows, key=len, reverse=True):
            least = tokens.index(min(tokens))
            shares[least].append(row)
            tokens[least] += len(row)
        dealt.append(shares)
    return dealt


def groups_of(
    shares: Sequence[Sequence[S]], rank: int, max_tokens: int, *, lockstep: bool
) -> list[tuple[list[S], float]]:
    """What one process packs together, each group with the factor of its loss.

    Args:
        shares: of one kind, all processes'; not all empty.
        rank: whose groups.
        max_tokens: of one pack.
        lockstep: every process gets as many groups as the one with the most; those added hold the shortest row of all
            and count 0, for under FSDP a forward pass needs every process.
    """
    mine = [(group, 1.0) for group in split_step(shares[rank], max_tokens)]
    if lockstep:
        most = max(len(split_step(share, max_tokens)) for share in shares)
        shortest = min((row for share in shares for row in share), key=len)
        mine += [([shortest], 0.0)] * (most - len(mine))
    return mine
