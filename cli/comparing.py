"""What `tidemill eval compare` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.models_named import bench_of, contestant, loaded_suites, prices_of, tools_of
from cli.progress import progress_bar
from configs.errors import ConfigError, InputError
from evaluation.comparison import compare
from evaluation.contest import Contestant, measure

if TYPE_CHECKING:
    from flows.context import Context


def system_prompts(given: Sequence[str]) -> dict[str, str]:
    """`NAME=FILE` options: name -> text of the file.

    Raises:
        InputError: another form, a name twice, a file that cannot be read or is empty.
    """
    found: dict[str, str] = {}
    for one in given:
        name, equals, path = one.partition("=")
        if not equals or not name or name in found:
            raise InputError("not a prompt", where="--prompt", expected="NAME=FILE, each name once", found=one)
        try:
            text = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError("the system prompt cannot be read", where=path, found=error) from error
        if not text:
            raise InputError("the system prompt is empty", where=path)
        found[name] = text
    return found


def contestants(
    context: Context, models: Sequence[str], prompts: dict[str, str], prices: Sequence[str]
) -> list[Contestant]:
    """Every model under every prompt; without prompts, as the gate asks: with the system messages of the items only."""
    priced = prices_of(prices)
    named = [contestant(context, model, priced) for model in models]
    names = [one.name for one in named]
    if len(names) < 2 and len(prompts) < 2:
        raise InputError(
            "nothing to compare with", where="--model", expected="two models or two prompts", found=names[0]
        )
    if len(set(names)) < len(names):
        raise InputError(
            "two models have the same name", where="--model", expected="NAME=MODEL", found=", ".join(names)
        )
    unknown = sorted(set(priced) - {one.name for one in named})
    if unknown:
        known = ", ".join(one.name for one in named)
        raise InputError("a price of a model that is not compared", where="--price", expected=known, found=unknown[0])
    if not prompts:
        return named
    return [replace(one, name=f"{one.name}, {name}", system=text) for one in named for name, text in prompts.items()]


def compare_models(
    context: Context,
    models: Sequence[str],
    suites: Sequence[str],
    prompts: Sequence[str],
    prices: Sequence[str],
    *,
    prefer: bool,
    resamples: int,
    quiet: bool,
) -> dict[str, Any]:
    """Measure all contestants, one after the other, and rank them.

    Raises:
        TidemillError: see `evaluation.contest.measure` and `evaluation.comparison.compare`.
    """
    if prefer and context.config.evaluation.judge is None:
        raise ConfigError(
            "a preference needs a judge model", where="evaluation.judge", fix="set url and model in the profile"
        )
    chosen = contestants(context, models, system_prompts(prompts), prices)
    loaded = loaded_suites(context, suites)
    tools = tools_of(context, loaded.values())
    with progress_bar(quiet=quiet) as draw:
        bench = bench_of(context, draw)
        measured = [measure(one, {n: s.items for n, s in loaded.items()}, bench, tools) for one in chosen]
    found = compare(measured, judge=tools.judge if prefer else None, resamples=resamples)
    used = tools.judge if tools.judge and tools.judge.use.requests + tools.judge.use.kept else None
    return {
        **found.as_dict(),
        "suites": [{"suite": s.name, "items": s.size, "digest": s.digest} for s in loaded.values()],
        "judge": used.use.as_dict(used.settings) if used else None,
    }


def _dollars(micro: int | None) -> str:
    return "-" if micro is None else f"{micro / 1e6:.6f}"


def standing_rows(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """The ranking for people; win rates, tokens and shares by suite are in the JSON."""
    rows = []
    for row in facts["rows"]:
        at = row["standing"]
        spread = "" if at["best_rank"] == at["worst_rank"] else f" ({at['best_rank']}-{at['worst_rank']})"
        rows.append(
            {
                "rank": f"{at['rank']}{spread}",
                "model": row["name"],
                "strength": f"{at['strength']:+.2f} [{at['low']:+.2f}, {at['high']:+.2f}]",
                "passed": f"{row['passed']} ({row['share']:.0%})",
                "s/answer": "-" if row["seconds_median"] is None else f"{row['seconds_median']:.2f}",
                "dollars": _dollars(row["micro_dollars"]),
            }
        )
    return rows


def pair_rows(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Preferences for people."""
    return [
        {
            "pair": name,
            "win rate": f"{pair['rate']:.0%} [{pair['low']:.0%}, {pair['high']:.0%}]",
            "won/tied/lost": f"{pair['wins']}/{pair['ties']}/{pair['losses']}",
        }
        for name, pair in facts["pairs"].items()
    ]
