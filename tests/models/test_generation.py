from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_files import make_adapter
from safetensors.torch import load_file, save_file

from configs.errors import AdapterRejectedError
from models.adapters import WEIGHTS, publish_adapter
from models.files import model_digest
from models.generate import answer_and_score, generate
from models.likelihood import reference_nll
from models.loading import attach, load_adapter, load_base, unload_adapter
from models.packing import TokenRow, bins, pack, token_nll
from models.prompts import completion_ids, prompt_ids

WORDS = ["Hello", "Where is my order?", "I was charged twice for the same invoice, what now?", "Yes", "One two three"]
TALKS: list[list[dict[str, str]]] = [
    [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": text}] for text in WORDS
]


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> tuple[Any, Any]:
    return load_base(tiny_base)


def _one_by_one(model: Any, tokenizer: Any, talk: list[dict[str, str]], limit: int) -> str:
    """The library's own greedy decoding, one prompt at a time."""
    ids = torch.tensor([prompt_ids(tokenizer, talk)])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit, do_sample=False, pad_token_id=0
    )
    return tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip()


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_batched_greedy_answers_are_those_of_one_prompt_at_a_time(base, batch: int):
    model, tokenizer = base
    limits = [3, 9, 1, 12, 6]
    seen: list[tuple[int, int]] = []
    got = generate(
        model, tokenizer, TALKS, max_new_tokens=limits, batch=batch, progress=lambda done, n: seen.append((done, n))
    )
    assert got == [_one_by_one(model, tokenizer, talk, limit) for talk, limit in zip(TALKS, limits, strict=True)]
    assert seen[-1] == (5, 5)


@pytest.mark.parametrize("batch", [2, 5])
def test_references_are_scored_behind_the_prompts_that_are_answered(base, batch: int):
    model, tokenizer = base
    references = ["Your order is on its way.", None, "No", "", "Please check the date and the number."]
    answers, values = answer_and_score(model, tokenizer, TALKS, references, max_new_tokens=6, batch=batch)
    assert answers == generate(model, tokenizer, TALKS, max_new_tokens=6, batch=batch)
    assert values[1] is None
    for talk, reference, value in zip(TALKS, references, values, strict=True):
        if reference is not None:
            assert value == pytest.approx(reference_nll(model, tokenizer, [talk], [reference])[0], abs=1e-4)
    with pytest.raises(ValueError, match="2 references for 5"):
        answer_and_score(model, tokenizer, TALKS, references[:2], max_new_tokens=6)


def test_prompts_without_a_common_prefix_and_no_prompts_at_all(base):
    model, tokenizer = base
    talks = [[{"role": "user", "content": "Hello"}], [{"role": "system", "content": "Be brief, be polite."}, *TALKS[1]]]
    expected = [_one_by_one(model, tokenizer, talk, 5) for talk in talks]
    assert generate(model, tokenizer, talks, max_new_tokens=5) == expected
    assert generate(model, tokenizer, [talks[0]] * 3, max_new_tokens=5) == [expected[0]] * 3
    assert generate(model, tokenizer, [], max_new_tokens=5) == []


def _rows(tokenizer: Any) -> list[TokenRow]:
    answers = ["Your order is on its way.", "No", "Please check the date and the number.", "Madrid", "9"]
    return [
        TokenRow(tuple(prompt_ids(tokenizer, talk)), tuple(completion_ids(tokenizer, answer)))
        for talk, answer in zip(TALKS, answers, strict=True)
    ]


def test_packed_rows_do_not_see_each_other(base):
    model, tokenizer = base
    rows = _rows(tokenizer)
    packed = pack(rows)
    with torch.no_grad():
        together = token_nll(model, packed)
        alone = torch.cat([token_nll(model, pack([row])) for row in rows])
        padded = _padded_nll(model, rows)
        with_cache = model(input_ids=packed.ids, position_ids=packed.positions, use_cache=True).logits[0, packed.at]
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together, padded, atol=1e-4, rtol=1e-4)
    leaking = torch.nn.functional.cross_entropy(with_cache, packed.targets, reduction="none")
    assert (leaking - together).abs().max() > 1e-3  # why `use_cache=False` is not optional


def _padded_nll(model: Any, rows: list[TokenRow]) -> torch.Tensor:
    width = max(len(r) for r in rows)
    ids = torch.tensor([[*r.prompt, *r.completion, *[0] * (width - len(r))] for r in rows])
    mask = torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in rows])
    logits = model(input_ids=ids, attention_mask=mask).logits
    parts = []
    for index, row in enumerate(rows):
        begin = len(row.prompt) - 1
        at = logits[index, begin : begin + len(row.completion)]
        parts.append(torch.nn.functional.cross_entropy(at, torch.tensor(row.completion), reduction="none"))
    return torch.cat(parts)


def test_reference_likelihoods_are_means_over_the_answer_and_its_end(base):
    model, tokenizer = base
    answers = ["Your order is on its way.", "No", "Madrid", "Please check the date and the number.", "9"]
    got = reference_nll(model, tokenizer, TALKS, answers, batch=2)
    for talk, answer, value in zip(TALKS, answers, got, strict=True):
        row = TokenRow(tuple(prompt_ids(tokenizer, talk)), tuple(completion_ids(tokenizer, answer)))
        with torch.no_grad():
            assert value == pytest.approx(float(token_nll(model, pack([row])).mean()), abs=1e-4)


def test_rows_are_binned_in_order_and_an_empty_row_is_refused():
    assert bins([3, 3, 3, 9, 1], 6) == [[0, 1], [2], [3], [4]]
    assert bins([], 6) == []
    with pytest.raises(ValueError, match="row 1"):
        pack([TokenRow((1,), (2,)), TokenRow((), (2,))])


def test_adapters_are_switched_and_the_base_stays_the_base(tiny_base: Path, tmp_path: Path):
    model, tokenizer = load_base(tiny_base)
    before = generate(model, tokenizer, TALKS, max_new_tokens=8)
    likelihood = reference_nll(model, tokenizer, TALKS, WORDS)
    one = make_adapter(tiny_base, tmp_path, version="bot@v1", seed=1)
    two = make_adapter(tiny_base, tmp_path, version="bot@v2", seed=2)
    peft_model = attach(model, one, base_digest=model_digest(tiny_base))
    load_adapter(peft_model, two)
    answers = {v: generate(peft_model, tokenizer, TALKS, max_new_tokens=8, adapter=v) for v in ("bot@v1", "bot@v2")}
    assert answers["bot@v1"] != before
    assert answers["bot@v1"] != answers["bot@v2"]
    assert generate(peft_model, tokenizer, TALKS, max_new_tokens=8) == before
    assert reference_nll(peft_model, tokenizer, TALKS, WORDS) == pytest.approx(likelihood, abs=1e-5)
    with pytest.raises(AdapterRejectedError, match="already loaded"):
        load_adapter(peft_model, one)
    unload_adapter(peft_model, "bot@v2")
    unload_adapter(peft_model, "bot@v2")
    with pytest.raises(AdapterRejectedError, match="not loaded"):
        generate(peft_model, tokenizer, TALKS, max_new_tokens=8, adapter="bot@v2")
    assert generate(peft_model, tokenizer, TALKS, max_new_tokens=8, adapter="bot@v1") == answers["bot@v1"]


def test_an_adapter_that_does_not_fit_leaves_the_model_as_it_was(tiny_base: Path, tmp_path: Path):
    model, tokenizer = load_base(tiny_base)
    good = make_adapter(tiny_base, tmp_path / "root")
    tensors = load_file(Path(good.path) / WEIGHTS)
    key = next(k for k in sorted(tensors) if "lora_A" in k)
    tensors[key] = tensors[key][:, :8].contiguous()  # a base with narrower layers
    folder = tmp_path / "narrow"
    folder.mkdir()
    (folder / "adapter_config.json").write_bytes((Path(good.path) / "adapter_config.json").read_bytes())
    save_file(tensors, folder / WEIGHTS)
    digest, path = publish_adapter(folder, tmp_path / "root", {"base_digest": good.base_digest})
    bad = good.model_copy(update={"version": "bot@v2", "digest": digest, "path": str(path)})
    before = generate(model, tokenizer, TALKS, max_new_tokens=8)
    with pytest.raises(AdapterRejectedError):
        attach(model, bad)
    assert generate(model, tokenizer, TALKS, max_new_tokens=8) == before
    peft_model = attach(model, good)
    with pytest.raises(AdapterRejectedError):
        load_adapter(peft_model, bad)
    assert list(peft_model.peft_config) == ["bot@v1"]
    assert generate(peft_model, tokenizer, TALKS, max_new_tokens=8) == before
