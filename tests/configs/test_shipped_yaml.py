"""Every YAML file that ships is read by its own class, and the list is not empty."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import cli.demo
import configs
from configs.errors import ConfigError
from configs.loader import build_config, load_config, resource_path, shipped_profiles

ROOT = Path(configs.__file__).parent
PROFILES = shipped_profiles()
CONTRACTS = sorted((ROOT / "contracts").glob("*.yaml"))
GUIDELINES = sorted((ROOT / "review").glob("*.yaml"))
SUITES = sorted((ROOT / "suites").glob("*.y*ml"))
STORY = sorted((Path(cli.demo.__file__).parent / "story").glob("*.yaml"))


def test_the_lists_are_not_empty() -> None:
    assert set(PROFILES) >= {"default", "demo", "demo-short", "smoke", "gpu"}
    assert CONTRACTS
    assert GUIDELINES
    assert SUITES
    assert {p.name for p in STORY} == {"things.yaml", "chat.yaml", "incidents.yaml"}


def test_no_yaml_is_left_out() -> None:
    known = {*PROFILES.values(), *CONTRACTS, *GUIDELINES, *SUITES}
    assert set(ROOT.rglob("*.y*ml")) == known


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_a_profile_loads_as_a_config_under_its_own_name(name: str) -> None:
    config = load_config(name)
    assert config.profile == name
    for relative in (
        *config.ingest.by_kind().values(),
        config.replay.prompts,
        config.review.guidelines,
        *config.evaluation.anchors,
    ):
        assert resource_path(relative).stat().st_size > 0


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_a_profile_has_no_key_twice(name: str) -> None:
    class Strict(yaml.SafeLoader):
        pass

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[object, object]:
        keys = [loader.construct_object(key) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"{name}: {keys}"
        return {loader.construct_object(k): loader.construct_object(v, deep=True) for k, v in node.value}

    Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    assert yaml.load(PROFILES[name].read_text(encoding="utf-8"), Strict)  # noqa: S506 - a subclass of SafeLoader


@pytest.mark.parametrize("path", CONTRACTS, ids=lambda p: p.stem)
def test_a_contract_loads(path: Path) -> None:
    from data_contracts.contract import load_contract

    assert load_contract(path).rules


@pytest.mark.parametrize("path", STORY, ids=lambda p: p.stem)
def test_the_storys_files_are_lists(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), list)


@pytest.mark.parametrize("path", SUITES, ids=lambda p: p.name)
def test_a_suite_loads_and_is_frozen(path: Path) -> None:
    from evaluation.suites import open_suite

    assert open_suite(path).version == 1


def test_the_short_anchors_are_some_of_the_anchors() -> None:
    def lines(name: str) -> list[str]:
        return resource_path(f"suites/{name}.jsonl").read_text(encoding="utf-8").splitlines()

    short, full = lines("anchors-short"), lines("anchors")
    assert 60 <= len(short) == len(set(short)) < len(full)
    assert set(short) <= set(full), "anchors.jsonl changed: take the changed lines over into anchors-short.jsonl"


@pytest.mark.parametrize("path", GUIDELINES, ids=lambda p: p.name)
def test_review_guidelines_load(path: Path) -> None:
    from data_contracts.review.guidelines import load_guidelines

    assert load_guidelines(path).kinds


@pytest.mark.parametrize("pattern", ["contaminated", "con*", "*"])
def test_no_evaluation_prompt_comes_to_review(pattern: str) -> None:
    with pytest.raises(ConfigError, match="no verdict lets an evaluation prompt teach"):
        build_config({"review": {"reasons": ["conflict", pattern]}})


def test_the_salt_of_who_is_held_out_is_not_empty() -> None:
    with pytest.raises(ConfigError, match="holdout_salt"):
        build_config({"curation": {"holdout_salt": ""}})
