"""Near-duplicates, redaction, and a million rows from a source to a snapshot.

    python benchmarks/curation.py [--seed 0] [--scale 1.0]

Each part runs in a process of its own, one after the other; what they measure is said in curation_neardup.py,
curation_redaction.py and curation_stream.py. Progress goes to stderr; the last line of stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent


def part(name: str, *arguments: str) -> dict[str, Any]:
    """The figures of one part."""
    print(f"== {name}", file=sys.stderr)
    paths = os.pathsep.join([str(FOLDER.parent), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    done = subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py"), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )
    if done.returncode:
        raise SystemExit(f"{name} ended with exit code {done.returncode}")
    figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def main() -> None:
    """One JSON line with the figures of all parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="1.0 is the sizes the bars are for")
    options = parser.parse_args()
    seed, scale = ["--seed", str(options.seed)], ["--scale", str(options.scale)]
    print(
        json.dumps(
            {
                **part("curation_neardup", *seed, *scale),
                **part("curation_redaction", *seed, *scale),
                **part("curation_stream", *seed, "--rows", str(round(1_000_000 * options.scale))),
            }
        )
    )


if __name__ == "__main__":
    main()
