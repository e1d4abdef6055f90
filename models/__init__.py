"""What a model is on disk: references, cache, digests, checks before loading, loading, embeddings."""

import os

# Read by OpenMP when torch is first imported. With its default, threads spin at barriers, and two busy torch processes
# on the same cores (gateway and trainer) slow each other down twentyfold; waiting passively costs a few per cent.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
