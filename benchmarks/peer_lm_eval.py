"""lm-eval's Hugging Face model on log-likelihood requests, in an environment of its own.

python peer_lm_eval.py MODEL_FOLDER REQUESTS.json: answers each line `[batch size, number of requests]` on stdin with
one JSON line, seconds and the summed log-likelihoods. Requests are [context, continuation] as token ids: given texts,
lm-eval moves white space at a context's end into the continuation, here the template's line break, and counts it.
Started by `evaluation_speed.py`.
"""

import json
import sys
import time
from pathlib import Path


def main() -> None:
    """Load once, then answer lines."""
    from lm_eval.models.huggingface import HFLM

    pairs = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    model = HFLM(pretrained=sys.argv[1], device="cpu", dtype="float32", batch_size=1)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        batch, count = json.loads(line)
        model.batch_size_per_gpu = batch
        requests = [(("", ""), context, continuation) for context, continuation in pairs[:count]]
        start = time.perf_counter()
        values = [float(total) for total, _ in model._loglikelihood_tokens(requests, disable_tqdm=True)]
        print(json.dumps({"seconds": time.perf_counter() - start, "values": values}), flush=True)


if __name__ == "__main__":
    main()
