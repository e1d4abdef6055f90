"""Adapters with a visible effect, registered versions, and a real gateway on a thread."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

import store.versions
from configs.loader import build_config
from configs.paths import StateDir
from configs.schema import Config
from data_contracts.records import AdapterRef, Arm, Message, ModelVersion
from store.engine import Store

MODEL = "support-bot"
BASE_DIGEST = "b" * 64


def user(text: str, system: str | None = None) -> tuple[Message, ...]:
    head = (Message(role="system", content=system),) if system else ()
    return (*head, Message(role="user", content=text))


def make_adapter(base: Path, root: Path, number: int, *, base_digest: str = BASE_DIGEST, scale: float = 0.6) -> Arm:
    """A LoRA adapter with random weights, large enough to change every answer."""
    import torch
    from peft import LoraConfig, get_peft_model

    from models.adapters import publish_adapter
    from models.loading import load_base

    model, _ = load_base(base)
    targets = ["q_proj", "v_proj", "o_proj", "down_proj"]
    wrapped = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM"))
    generator = torch.Generator().manual_seed(number)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * scale
    tmp = root / f"tmp-{number}"
    wrapped.save_pretrained(tmp)
    for extra in tmp.iterdir():
        if extra.name not in ("adapter_config.json", "adapter_model.safetensors"):
            extra.unlink()
    digest, path = publish_adapter(tmp, root, {"base_digest": base_digest})
    version = f"{MODEL}@v{number}"
    return Arm(
        version=version, adapter=AdapterRef(version=version, digest=digest, path=str(path), base_digest=base_digest)
    )


def fake_arm(number: int) -> Arm:
    """An arm for the echo engine: no files behind it."""
    version = f"{MODEL}@v{number}"
    ref = AdapterRef(version=version, digest=f"{number:064x}", path="/nowhere", base_digest=BASE_DIGEST)
    return Arm(version=version, adapter=ref)


def register(opened: Store, arm: Arm, approved_by: str = "gate") -> Arm:
    assert arm.adapter is not None
    version = ModelVersion(
        model=MODEL,
        number=int(arm.version.rpartition("@v")[2]),
        adapter_digest=arm.adapter.digest,
        base_digest=arm.adapter.base_digest,
        dataset_digest="d" * 64,
        config_digest="c" * 64,
        code_commit="abc",
        gate="pass",
    )
    with opened.write() as conn:
        store.versions.insert(conn, version, adapter_path=arm.adapter.path, request_id=None, approved_by=approved_by)
    return arm


def config_for(tmp_path: Path, **sections: dict[str, Any]) -> Config:
    serving = {"pointer_poll_s": 0.1, "batch_wait_ms": 2, **sections.pop("serving", {})}
    model = {"name": MODEL, **sections.pop("model", {})}
    return build_config({"state_dir": str(tmp_path / "state"), "serving": serving, "model": model, **sections})


@dataclass
class Running:
    """A gateway that answers on a real port."""

    url: str
    app: Any
    store: Store
    config: Config

    @property
    def gateway(self) -> Any:
        return self.app.state.gateway

    def ask(self, text: str, client: httpx.Client | None = None, **more: Any) -> httpx.Response:
        body = {"model": MODEL, "messages": [{"role": "user", "content": text}], **more}
        post = client.post if client else httpx.post
        return post(f"{self.url}/v1/chat/completions", json=body, timeout=30)


@contextlib.contextmanager
def running(config: Config, engine: Any, *, controller: bool = False, opened: Store | None = None) -> Iterator[Running]:
    """Start the application under uvicorn on a thread, wait until it is healthy, stop it at the end."""
    import uvicorn

    from serving.app import create_app
    from serving.main import listen

    state = StateDir.of(config)
    database = opened or Store.open(state.store_url(config))
    app = create_app(config, state, engine=engine, store=database, controller=controller)
    bound = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=5))
    thread = threading.Thread(target=lambda: server.run(sockets=[bound]), daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    try:
        wait_for(lambda: httpx.get(f"{url}/health").status_code == 200, 60)
        yield Running(url, app, database, config)
    finally:
        server.should_exit = True
        thread.join(30)
        bound.close()
        if opened is None:
            database.close()


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError(f"did not happen within {seconds} s")
