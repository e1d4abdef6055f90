"""What a model is on disk: references, cache, digests, checks before loading, loading, embeddings."""
