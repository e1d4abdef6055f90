from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from serving_helpers import BASE_DIGEST, make_adapter

from configs.schema import ServingSection
from data_contracts.records import Arm
from serving.engines.transformers_engine import TransformersEngine


@pytest.fixture(scope="session")
def adapters(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Arm]:
    """Three adapters on the tiny base."""
    root = tmp_path_factory.mktemp("adapters")
    return [make_adapter(tiny_base, root, number) for number in (1, 2, 3)]


@pytest.fixture
def engine(tiny_base: Path) -> Iterator[TransformersEngine]:
    settings = ServingSection(max_batch=4, batch_wait_ms=2, max_prompt_tokens=200)
    made = TransformersEngine(tiny_base, base_digest=BASE_DIGEST, settings=settings, threads=1)
    yield made
    made.close()
