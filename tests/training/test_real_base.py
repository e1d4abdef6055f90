"""The real base: slow, and only where it is already in the model cache."""

from pathlib import Path

import pytest
from training_samples import PAIRS, make_job

from configs.loader import cache_dir
from configs.schema import Config
from data_contracts.records import AdapterRef
from models.cache import MANIFEST, resolve
from training.launch import run_training

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def real_base() -> Path:
    config = Config()
    if not list(cache_dir(config).glob(f"*smollm2*/{MANIFEST}")):
        pytest.skip("the base model is not in the cache: run `tidemill doctor` or a demo once")
    return resolve(config.model.base, cache_dir(config)).path


def test_the_real_base_answers_and_learns_eight_answers_by_heart(real_base: Path, tmp_path: Path):
    from models.generate import generate
    from models.loading import attach, load_base

    job = {
        **make_job(real_base, tmp_path, epochs=12, rows_per_step=8, rank=16, alpha=32.0, learning_rate=1.5e-3),
        "threads": 2,
    }
    artifact = run_training(job, tmp_path / "work", lambda event: print(event))
    assert artifact.loss_curve[-1] < 0.3 < 1.5 < artifact.loss_curve[0]
    model, tokenizer = load_base(real_base)
    france = [[{"role": "user", "content": "What is the capital of France?"}]]
    assert "Paris" in generate(model, tokenizer, france, max_new_tokens=12)[0]
    ref = AdapterRef(version="bot@v1", digest=artifact.digest, path=artifact.path, base_digest=artifact.base_digest)
    peft_model = attach(model, ref)
    talks = [[{"role": "user", "content": question}] for question, _ in PAIRS]
    answers = generate(peft_model, tokenizer, talks, max_new_tokens=16, adapter="bot@v1")
    assert sum(a == expected for a, (_, expected) in zip(answers, PAIRS, strict=True)) >= 7
    assert "Paris" in generate(peft_model, tokenizer, france, max_new_tokens=12)[0]
