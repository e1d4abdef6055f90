"""The real openai client against a real gateway with a real (tiny) model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from serving_helpers import BASE_DIGEST, MODEL, Running, config_for, register, running, wait_for

import store.interactions
from data_contracts.records import Arm
from monitoring.rollout_actions import promote, start_rollout
from serving.engines.transformers_engine import TransformersEngine

MESSAGES = [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": "Where is it?"}]


@pytest.fixture
def gateway(tmp_path: Path, tiny_base: Path) -> Iterator[Running]:
    config = config_for(tmp_path, serving={"max_prompt_tokens": 100})
    engine = TransformersEngine(tiny_base, base_digest=BASE_DIGEST, settings=config.serving, threads=1)
    with running(config, engine, controller=True) as up:
        yield up


@pytest.fixture
def client(gateway: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_plain_and_streamed_answers_agree(gateway: Running, client: openai.OpenAI) -> None:
    plain = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=8, user="ann")
    assert plain.choices[0].finish_reason == "length"
    assert plain.usage is not None
    assert plain.usage.completion_tokens == 8
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=MESSAGES,
            max_tokens=8,
            user="ann",
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == plain.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert chunks[-1].usage == plain.usage
    assert all(c.usage is None for c in chunks[:-1])
    assert len({c.id for c in chunks}) == 1
    with gateway.store.read() as conn:
        row = store.interactions.get(conn, chunks[0].id)
    assert row is not None
    assert row.answer == text
    assert row.ttft_ms <= row.latency_ms


def test_models_and_errors_have_openais_classes(client: openai.OpenAI) -> None:
    assert [m.id for m in client.models.list()] == [MODEL, "base"]
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-9", messages=MESSAGES)
    assert missing.value.code == "model_not_found"
    long = [{"role": "user", "content": "word " * 300}]
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model=MODEL, messages=long, stream=stream)
        assert caught.value.code == "context_length_exceeded"


def test_a_promoted_adapter_answers(gateway: Running, client: openai.OpenAI, adapters: list[Arm]) -> None:
    before = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=8)
    arm = register(gateway.store, adapters[0])
    start_rollout(gateway.store, MODEL, arm, cause="test")
    promote(gateway.store, MODEL, "tester", "test")
    wait_for(lambda: httpx.get(f"{gateway.url}/health").json()["version"] == arm.version, 20)
    after = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=8)
    assert after.choices[0].message.content != before.choices[0].message.content
    assert after.system_fingerprint == arm.version
    pinned = client.chat.completions.create(model="base", messages=MESSAGES, max_tokens=8)
    assert pinned.choices[0].message.content == before.choices[0].message.content
