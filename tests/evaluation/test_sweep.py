"""Several strengths of one adapter: loaded once, asked once, and the same answers as if each had been loaded alone."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[1] / "models"))
from adapter_files import make_adapter

from configs.errors import AdapterRejectedError, EvaluationError
from data_contracts.records import AdapterRef, EvalItem, Message
from evaluation.launch import evaluation_job
from evaluation.loaded import LocalModels
from evaluation.runner import Role, run
from evaluation.sweep import run_candidates, sweep
from models.adapters import CONFIG, publish_adapter
from models.files import model_digest
from training.scales import publish_scaled

NO_CHAMPION: dict[Role, AdapterRef | None] = {"base": None, "champion": None}


def items(count: int = 4) -> list[EvalItem]:
    return [
        EvalItem(
            id=f"x{n}",
            suite="anchors",
            messages=(Message(role="user", content=f"Where is order {n}?"),),
            reference="It is on its way.",
            max_new_tokens=4,
        )
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def scaled(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, AdapterRef]:
    root = tmp_path_factory.mktemp("scaled")
    trained = make_adapter(tiny_base, root, scale=0.05)
    made = publish_scaled(trained, root, (0.3, 0.7, 1.0))
    return {f"{s:g}": trained.model_copy(update={"digest": d, "path": str(p)}) for s, (d, p) in made.items()}


def test_each_strength_answers_as_if_it_were_loaded_alone(
    tiny_base: Path, scaled: dict[str, AdapterRef], tmp_path: Path
) -> None:
    base = model_digest(tiny_base)
    suites = {"anchors": items(), "empty": []}
    events: list[dict[str, Any]] = []
    swept = run_candidates(
        tiny_base, base, NO_CHAMPION, scaled, suites, batch=2, cache_dir=tmp_path / "swept", progress=events.append
    )
    assert list(swept) == ["0.3", "0.7", "1"]
    by_base = [e for e in events if e["model"] == "base"]
    assert {e["candidate"] for e in by_base} == {"0.3"}, "the base is asked once"
    assert [e["number"] for e in events if e["model"] == "candidate"] == [1, 2, 3]
    likelihoods = set()
    for name, ref in scaled.items():
        alone = run(
            tiny_base,
            base,
            {"base": None, "champion": None, "candidate": ref},
            suites,
            batch=2,
            cache_dir=tmp_path / name,
        )
        assert alone.scores == swept[name].scores, "bit for bit"
        assert swept[name].candidate_digest == ref.digest
        likelihoods.add(alone.scores["anchors"]["candidate"].items[0].nll)
    assert len(likelihoods) == 3
    again: list[dict[str, Any]] = []
    assert run_candidates(
        Path("gone"), base, NO_CHAMPION, scaled, suites, cache_dir=tmp_path / "swept", progress=again.append
    )
    assert again == [], "a sweep that was killed asks nothing twice"


def test_strengths_share_one_set_of_weights_and_others_do_not(
    tiny_base: Path, scaled: dict[str, AdapterRef], tmp_path: Path
) -> None:
    loaded = LocalModels(tiny_base, model_digest(tiny_base), 64)
    names = [loaded.use(scaled[name])[2] for name in ("0.3", "1", "0.7", "0.3")]
    assert len(set(names)) == 1
    model = loaded.use(scaled["0.7"])[0]
    assert list(model.peft_config) == [names[0]]
    alpha = json.loads((Path(scaled["0.7"].path) / CONFIG).read_text())["lora_alpha"]
    layer = model.get_submodule("base_model.model.model.layers.0.self_attn.q_proj")
    assert layer.scaling[names[0]] == alpha / 4
    other = make_adapter(tiny_base, tmp_path, version="other", seed=2, scale=0.05)
    assert loaded.use(other)[2] != names[0]
    assert layer.scaling[names[0]] == alpha / 4, "another adapter's strength is not touched"
    forged = scaled["1"].model_copy(update={"digest": "0" * 64})
    with pytest.raises(AdapterRejectedError):
        loaded.use(forged)


def test_rank_stabilised_adapters_and_those_with_an_alpha_for_each_layer(
    tiny_base: Path, scaled: dict[str, AdapterRef], tmp_path: Path
) -> None:
    def variant(name: str, **changes: Any) -> AdapterRef:
        folder = tmp_path / name
        folder.mkdir()
        config = json.loads((Path(scaled["1"].path) / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps({**config, **changes}))
        (folder / "adapter_model.safetensors").write_bytes(
            (Path(scaled["1"].path) / "adapter_model.safetensors").read_bytes()
        )
        digest, path = publish_adapter(folder, tmp_path, {"base_digest": scaled["1"].base_digest})
        return scaled["1"].model_copy(update={"digest": digest, "path": str(path)})

    loaded = LocalModels(tiny_base, scaled["1"].base_digest, 64)
    stable = variant("stable", use_rslora=True)
    half = publish_scaled(stable, tmp_path, (0.5,))[0.5]
    one = loaded.use(stable)[2]
    model, _, name = loaded.use(stable.model_copy(update={"digest": half[0], "path": str(half[1])}))
    assert name == one
    layer = model.get_submodule("base_model.model.model.layers.0.self_attn.q_proj")
    assert layer.scaling[name] == 4.0 / 2.0, "alpha 8, half of it, over the root of rank 4"
    patterned = [variant(f"p{n}", alpha_pattern={"q_proj": n}, lora_alpha=n) for n in (2, 4)]
    assert loaded.use(patterned[0])[2] != loaded.use(patterned[1])[2], "no single strength: each is loaded"
    with pytest.raises(AdapterRejectedError, match="one scale"):
        publish_scaled(patterned[0], tmp_path, (0.5,))


def test_the_sweeps_process_answers_and_fails_clearly(
    tiny_base: Path, scaled: dict[str, AdapterRef], tmp_path: Path
) -> None:
    job = evaluation_job(
        base_path=tiny_base,
        base_digest=model_digest(tiny_base),
        models={"base": None, "champion": None},
        suites={"anchors": items()},
        cache_dir=tmp_path / "cache",
        batch=4,
    )
    refs = {name: ref.model_dump(mode="json") for name, ref in scaled.items()}
    whole = {**job, "candidates": refs, "report_path": str(tmp_path / "reports.json")}
    done = sweep(whole, lambda _: None, threading.Event())
    assert set(json.loads(Path(done["report_path"]).read_text())) == set(scaled)
    with pytest.raises(EvaluationError, match="lacks a key"):
        sweep(job, lambda _: None, threading.Event())
    with pytest.raises(EvaluationError, match="no candidate"):
        sweep({**whole, "candidates": {}}, lambda _: None, threading.Event())
