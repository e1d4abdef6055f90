"""One bound on an adapter's rank, wherever it is asked for."""

from __future__ import annotations

import inspect

import pytest
from pydantic import ValidationError

from configs import evaluation, schema, training
from configs.limits import MAX_RANK
from evaluation.launch import evaluation_job
from evaluation.loaded import LocalModels
from models.adapters import check_adapter
from models.loading import attach
from training.lora_weights import read_lora
from training.scales import soup


def test_no_rank_is_trained_that_would_not_be_loaded() -> None:
    assert schema.TrainingSection(rank=MAX_RANK).rank == MAX_RANK
    with pytest.raises(ValidationError, match="less than or equal to 64"):
        schema.TrainingSection(rank=MAX_RANK + 1)
    for asks in (evaluation_job, LocalModels, check_adapter, attach, read_lora, soup):
        assert inspect.signature(asks).parameters["max_rank"].default == MAX_RANK, asks


def test_the_schema_hands_on_the_sections_of_other_files() -> None:
    for home, name in ((training, "TrainingSection"), (training, "EarlyStopping"), (evaluation, "JudgeSection")):
        assert getattr(schema, name) is getattr(home, name)
    assert schema.Config().evaluation == evaluation.EvaluationSection()
