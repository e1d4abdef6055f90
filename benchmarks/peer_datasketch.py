"""datasketch's MinHashLSH over texts, from text to answer; prints the seconds. Runs in an environment of its own.

python peer_datasketch.py TEXTS.json update|bulk SIMILARITY PERMUTATIONS
"""

import json
import re
import sys
import time
import unicodedata
from pathlib import Path

from datasketch import MinHash, MinHashLSH

WORD = re.compile(r"\w+")


def shingles(text: str) -> set[str]:
    """The word 3-shingles of ours."""
    words = WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return {" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2))}


def run(texts: list[str], way: str, similarity: float, permutations: int) -> float:
    """Seconds to find, for each text, whether an earlier one is near, and to insert it if not."""
    start = time.perf_counter()
    lsh = MinHashLSH(threshold=similarity, num_perm=permutations)
    sets = [[shingle.encode("utf8") for shingle in shingles(text)] for text in texts]
    hashes = MinHash.bulk(sets, num_perm=permutations) if way == "bulk" else None
    for i, found in enumerate(sets):
        if hashes is None:
            minhash = MinHash(num_perm=permutations)
            for shingle in found:
                minhash.update(shingle)
        else:
            minhash = hashes[i]
        if not lsh.query(minhash):
            lsh.insert(str(i), minhash)
    return time.perf_counter() - start


if __name__ == "__main__":
    print(run(json.loads(Path(sys.argv[1]).read_text()), sys.argv[2], float(sys.argv[3]), int(sys.argv[4])))
