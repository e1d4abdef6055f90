"""Fixtures shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with its own tokenizer and chat template (models.tiny, seed 0). Do not write into it."""
    from models.tiny import build_tiny_base

    return build_tiny_base(tmp_path_factory.mktemp("tiny-base"))
