"""Models and suites as the command line names them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import InputError, NotFoundError
from configs.loader import HERE, suite_place

if TYPE_CHECKING:
    from data_contracts.records import AdapterRef
    from evaluation.contest import Bench, Contestant, Prices, Progress
    from evaluation.scorers.base import Tools
    from evaluation.suites import Suite
    from flows.context import Context

KINDS = "base, a version (support-bot@v3), an adapter's folder, or openai:URL#MODEL"


def find_suites(names: Iterable[str], anchors: Iterable[str]) -> list[Path]:
    """Suites by path (files and folders), by the name of one of the profile's, or of one that is shipped.

    Raises:
        NotFoundError: none of these.
    """
    from evaluation.suites import suite_files

    given = [path for place in anchors for path in suite_files(suite_place(place))]
    shipped = suite_files(HERE / "suites")
    if not (wanted := list(names)):
        return given
    found = []
    for name in wanted:
        if Path(name).exists():
            found += suite_files(Path(name))
            continue
        by_name = [path for path in (*given, *shipped) if path.stem == name]
        if not by_name:
            known = sorted({path.stem for path in (*given, *shipped)})
            raise NotFoundError("no such suite", where=name, expected=f"a file, or one of {', '.join(known)}")
        found.append(by_name[0])
    return found


def loaded_suites(context: Context, names: Iterable[str]) -> dict[str, Suite]:
    """Suites by name, linted and held to their locks."""
    from evaluation.suites import load_suites

    return load_suites(find_suites(names, context.config.evaluation.anchors))


def _adapter(context: Context, name: str) -> AdapterRef:
    from data_contracts.records import AdapterRef
    from models.adapters import read_manifest
    from store import versions

    with context.store.read() as conn:
        ref = versions.adapter_ref(conn, name)
        known = [version.name for version in versions.list_versions(conn, context.model)]
    if ref is not None:
        return ref
    folder = Path(name)
    if not folder.is_dir():
        expected = KINDS + (f"; versions: {', '.join(known[:5])}" if known else "; there is no version yet")
        raise NotFoundError("no such model", where="--model", expected=expected, found=name)
    facts = read_manifest(folder)
    return AdapterRef(
        version=f"folder-{str(facts.get('digest'))[:12]}",
        digest=str(facts.get("digest")),
        path=str(folder.resolve()),
        base_digest=str(facts.get("base_digest")),
    )


def contestant(context: Context, given: str, prices: dict[str, Prices] | None = None) -> Contestant:
    """`[NAME=]MODEL`: the base, a version, an adapter's folder or an endpoint (`openai:URL#MODEL`).

    Raises:
        NotFoundError: no such model.
        InputError: an endpoint without address or model.
    """
    from evaluation.contest import Contestant
    from evaluation.endpoint import Endpoint

    name, equals, spec = given.partition("=")
    if not equals or not name or "/" in name or ":" in name:  # an address may hold = too
        name, spec = given, given
    price = (prices or {}).get(name)
    if spec.startswith("openai:"):
        url, hash_sign, model = spec.removeprefix("openai:").rpartition("#")
        if not hash_sign or not model or not url.startswith(("http://", "https://")):
            raise InputError(
                "not an endpoint", where="--model", expected="openai:http://HOST:PORT/v1#MODEL", found=given
            )
        return Contestant(name, endpoint=Endpoint(url, model), prices=price)
    if spec == "base":
        return Contestant(name, prices=price)
    return Contestant(name, adapter=_adapter(context, spec), prices=price)


def bench_of(context: Context, progress: Progress) -> Bench:
    """Where this installation runs models and keeps answers: the gate's cache, so nothing is asked twice."""
    from evaluation.contest import Bench

    def base() -> tuple[Path, str]:
        found = context.base()
        return found.path, found.digest

    folder = context.state.cache / "evaluation"
    config = context.config
    return Bench(base, folder, batch=config.evaluation.batch, progress=progress, threads=config.model.threads)


def tools_of(context: Context, suites: Iterable[Suite]) -> Tools:
    """What the scorers of these suites may use."""
    from evaluation.tools import make_tools
    from flows.suites import scoring_tools

    told = scoring_tools(context, {suite.name: suite.items for suite in suites})
    return make_tools(**told, cache_dir=context.state.cache / "evaluation")


def prices_of(given: Iterable[str]) -> dict[str, Prices]:
    """`NAME=PROMPT,ANSWER` options, dollars per million tokens.

    Raises:
        InputError: another form, or a price below 0.
    """
    from decimal import Decimal, InvalidOperation

    from evaluation.contest import Prices

    found = {}
    for one in given:
        name, _, amounts = one.rpartition("=")
        try:
            prompt, answer = (Decimal(amount) for amount in amounts.split(","))
            if not name or not (prompt.is_finite() and answer.is_finite()) or min(prompt, answer) < 0:
                raise ValueError
        except (ValueError, InvalidOperation) as error:
            expected = "NAME=PROMPT,ANSWER in dollars per million tokens, for example base=0.10,0.40"
            raise InputError("not a price", where="--price", expected=expected, found=one) from error
        found[name] = Prices(prompt, answer)
    return found
