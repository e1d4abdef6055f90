from pathlib import Path

import numpy as np
import pytest

from configs.errors import ModelUnavailableError
from models.embeddings import Embedder


def test_embeddings_have_length_one_and_do_not_depend_on_the_batch(tiny_base: Path):
    embedder = Embedder(tiny_base)
    texts = ["Where is my order?", "", "I was charged twice", "word " * 600, "Where is my order?"]
    together = embedder.encode(texts, batch=5)
    alone = np.concatenate([embedder.encode([text]) for text in texts])
    assert together.shape == (5, embedder.dimensions)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(together, alone, atol=1e-4)
    assert embedder.encode([]).shape == (0, embedder.dimensions)


def test_a_folder_without_a_model_is_refused(tmp_path: Path):
    with pytest.raises(ModelUnavailableError):
        Embedder(tmp_path)
