"""How often does the canary's decision go wrong, and how fast is it right? Simulated traffic, no model.

    python benchmarks/canary_sim.py [--runs 1000] [--seed 0]

Progress goes to stderr; the last line of stdout is one JSON object with the figures and the bars they must meet.
Every false-alarm figure is under continuous looking (after each bad event), so it is also valid for any rarer look.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from monitoring.sequential import LOG_WEIGHTS, RATIOS, EProcess

ALPHA = 0.05
STAGES = (0.01, 0.05, 0.10, 0.25, 0.50)
METRICS = 6
"""K of the default profile."""


def log_e_paths(x: np.ndarray, q: np.ndarray, *, r0: float = 1.0, mirrored: bool = False) -> np.ndarray:
    """log E after each bad event.

    Args:
        x: (runs, events) 1 where the event is the canary's; q: (runs, events) the canary's share, or a scalar array.
    """
    q = np.broadcast_to(q, x.shape)
    base = np.log(q * r0 + 1 - q)
    total = np.full(x.shape, -np.inf)
    for ratio, weight in zip(RATIOS, LOG_WEIGHTS, strict=True):
        r = 1 / ratio if mirrored else ratio
        steps = x * math.log(r) + base - np.log(q * r0 * r + 1 - q)
        np.logaddexp(total, weight + np.cumsum(steps, axis=1), out=total)
    return total


def self_check(rng: np.random.Generator) -> None:
    """The vectorised form above is the product's `EProcess`, to rounding."""
    for mirrored, r0 in ((False, 1.0), (True, 1.3)):
        x, q = rng.random((3, 40)) < 0.3, rng.uniform(0.01, 0.6, (3, 40))
        paths = log_e_paths(x, q, r0=r0, mirrored=mirrored)
        for row in range(3):
            process = EProcess(r0, mirrored)
            for t in range(40):
                process.update(bool(x[row, t]), float(q[row, t]))
            assert abs(process.log_e - paths[row, -1]) < 1e-8, "the simulation left the product behind"


def independent_events(
    rng: np.random.Generator, runs: int, horizon: int, q: float, champion: float, canary: float
) -> tuple[np.ndarray, np.ndarray]:
    """Bad events of `horizon` requests by as many users: (x, request number; inf past the end)."""
    rate = q * canary + (1 - q) * champion
    events = int(horizon * rate + 6 * math.sqrt(horizon * rate) + 20)
    at = np.cumsum(rng.geometric(rate, (runs, events)), axis=1).astype(float)
    at[at > horizon] = np.inf
    return rng.random((runs, events)) < q * canary / rate, at


def first_reached(paths: np.ndarray, at: np.ndarray, threshold: float) -> np.ndarray:
    """(runs,) number of the request at which log E first reached the threshold, inf if never."""
    reached = (paths >= threshold) & np.isfinite(at)
    first = np.argmax(reached, axis=1)
    rows = np.arange(len(paths))
    return np.where(reached[rows, first], at[rows, first], np.inf)


@dataclass(frozen=True)
class World:
    """Clustered users under a ramp, with a base rate that drifts by half over the stream."""

    users: int = 600
    requests: int = 8000
    rate: float = 0.05
    drift: float = 1.6
    """The base rate ends at `rate * drift` (5 -> 8 %)."""
    ratio: float = 1.0
    """The canary's rate over the champion's."""
    stages: tuple[float, ...] = STAGES
    """Canary shares, each for an equal part of the stream."""
    concentration: float = 2.0
    """Beta concentration of the users' own rates: small is strongly clustered."""


def user_stream(rng: np.random.Generator, world: World) -> tuple[np.ndarray, ...]:
    """One stream: (user, q, on canary, bad) per request. Activity is heavy-tailed, assignment sticky, q ramps."""
    activity = rng.pareto(1.2, world.users) + 0.2
    user = rng.choice(world.users, world.requests, p=activity / activity.sum())
    q = np.repeat(world.stages, math.ceil(world.requests / len(world.stages)))[: world.requests]
    canary = rng.random(world.users)[user] < q
    own = rng.beta(world.rate * world.concentration, (1 - world.rate) * world.concentration, world.users) / world.rate
    base = world.rate * np.linspace(1, world.drift, world.requests)
    p = np.minimum(0.98, base * own[user] * np.where(canary, world.ratio, 1.0))
    return user, q, canary, rng.random(world.requests) < p


def at_risk(user: np.ndarray, q: np.ndarray, canary: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """`CanaryState.at_risk_share` for the first bad events `keep` of one stream."""
    first = np.zeros(len(user), dtype=bool)
    first[np.unique(user, return_index=True)[1]] = True
    left = []
    for arm in (canary, ~canary):
        users, bad = np.cumsum(first & arm)[keep], np.cumsum(arm[keep]) - arm[keep]
        left.append((np.maximum(0, users - bad) + 1) / (users + 1))
    shrink = np.minimum(1.0, left[0] / left[1])
    return q[keep] * shrink / (q[keep] * shrink + 1 - q[keep])


def stacked(rows: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ragged (x, q) rows to (x, q, at), padded with uninformative events."""
    width = max(1, max(len(x) for x, _ in rows))
    x, q, at = np.zeros((len(rows), width)), np.full((len(rows), width), 1e-12), np.full((len(rows), width), np.inf)
    for i, (xs, qs) in enumerate(rows):
        x[i, : len(xs)], q[i, : len(xs)], at[i, : len(xs)] = xs, qs, np.arange(len(xs))
    return x, q, at


def user_events(
    rng: np.random.Generator, runs: int, world: World, count: str, *, corrected: bool = False
) -> tuple[np.ndarray, ...]:
    """Events of `runs` streams as (x, q, at). `count`: "rollout" (a user's first bad event), "arm" (per arm),
    "request" (all bad events) or "assignment" (a user's first request); `corrected` gives q among users at risk."""
    rows = []
    for _ in range(runs):
        user, q, canary, bad = user_stream(rng, world)
        keep = np.arange(len(user)) if count == "assignment" else np.flatnonzero(bad)
        if count == "arm":
            keep = np.sort(keep[np.unique(user[keep] * 2 + canary[keep], return_index=True)[1]])
        elif count != "request":
            keep = np.sort(keep[np.unique(user[keep], return_index=True)[1]])
        rows.append((canary[keep], at_risk(user, q, canary, keep) if corrected else q[keep]))
    return stacked(rows)


def share_reached(x: np.ndarray, q: np.ndarray, at: np.ndarray, threshold: float, **test: float | bool) -> float:
    """Share of runs whose log E ever reached the threshold."""
    return float(np.isfinite(first_reached(log_e_paths(x, q, **test), at, threshold)).mean())  # type: ignore[arg-type]


def fixed_rules(rng: np.random.Generator, runs: int) -> dict[str, float]:
    """What people do without a sequential test: false alarms of two common rules, looking every 50 requests."""
    n, alarms_z, alarms_ratio = 20_000, 0, 0
    q = np.repeat(STAGES, n // len(STAGES))
    p = np.linspace(0.05, 0.08, n)
    for _ in range(runs):
        canary, bad = rng.random(n) < q, rng.random(n) < p
        look = np.arange(49, n, 50)
        nc, bc = np.cumsum(canary)[look], np.cumsum(canary & bad)[look]
        nh, bh = (look + 1) - nc, np.cumsum(bad)[look] - bc
        ok = (nc >= 30) & (bc + bh > 0)
        pc, ph, pool = bc / np.maximum(nc, 1), bh / nh, (bc + bh) / (look + 1)
        z = (pc - ph) / np.sqrt(np.maximum(pool * (1 - pool), 1e-9) * (1 / np.maximum(nc, 1) + 1 / nh))
        alarms_z += bool(np.any(ok & (z > 1.645)))
        alarms_ratio += bool(np.any((nc >= 100) & (pc > 1.2 * ph)))
    return {"naive_z_false_alarms": alarms_z / runs, "ratio_rule_false_alarms": alarms_ratio / runs}


def speed(rng: np.random.Generator, runs: int) -> dict[str, float]:
    """Medians of total requests until the right decision, at 10/90 and in the promotion examples."""
    figures = {}
    one, six = math.log(1 / ALPHA), math.log(METRICS / ALPHA)
    for name, rate in (("5_to_8", 0.08), ("5_to_15", 0.15)):
        x, at = independent_events(rng, runs, 40_000 if rate == 0.08 else 6000, 0.10, 0.05, rate)
        paths = log_e_paths(x, np.asarray(0.10))
        figures[f"rollback_requests_{name}_k1"] = float(np.median(first_reached(paths, at, one)))
        figures[f"rollback_requests_{name}_k6"] = float(np.median(first_reached(paths, at, six)))
    for q in (0.01, 0.05):
        x, at = independent_events(rng, runs, int(200 / q), q, 0.01, 0.30)
        total = first_reached(log_e_paths(x, np.asarray(q)), at, six)
        figures[f"gross_canary_requests_at_{q:.0%}_k6"] = float(np.median(total) * q)
    for name, q, champion, canary in (("90_to_10", 0.25, 0.9, 0.1), ("30_to_12", 0.25, 0.3, 0.12)):
        x, at = independent_events(rng, runs, 4000, q, champion, canary)
        total = first_reached(log_e_paths(x, np.asarray(q), r0=1.3, mirrored=True), at, one)
        figures[f"promote_requests_{name}"] = float(np.median(total))
        figures[f"promote_requests_{name}_p99"] = float(np.quantile(total, 0.99))
    x, at = independent_events(rng, runs, 4000, 0.05, 0.1, 0.9)
    figures["rollback_requests_10_to_90_at_5%_k6"] = float(
        np.median(first_reached(log_e_paths(x, np.asarray(0.05)), at, six))
    )
    return figures


def errors(rng: np.random.Generator, runs: int, say: Callable[[str], None]) -> dict[str, float]:
    """How often a healthy canary is rolled back, and one at the margin promoted."""
    one, six = math.log(1 / ALPHA), math.log(METRICS / ALPHA)
    figures = {}
    for q in (0.5, 0.1):
        x, at = independent_events(rng, runs, 20_000, q, 0.05, 0.05)
        figures[f"false_rollback_independent_at_{q:.0%}"] = share_reached(x, np.asarray(q), at, one)
        x, at = independent_events(rng, runs, 20_000, q, 0.05, 0.065)
        figures[f"wrong_promotion_independent_at_{q:.0%}"] = share_reached(
            x, np.asarray(q), at, one, r0=1.3, mirrored=True
        )
    say("independent users done")
    streams = max(200, runs // 2)
    any_of_six = np.zeros(streams, dtype=bool)
    for rate in (0.05, 0.01, 0.03, 0.005, 0.04, 0.05):
        x, q, at = user_events(rng, streams, World(rate=rate), "rollout")
        any_of_six |= np.isfinite(first_reached(log_e_paths(x, q), at, six))
    figures["false_rollback_clustered_ramp_k6"] = float(any_of_six.mean())
    say("six metrics, clustered users, ramp and drift done")
    for count in ("rollout", "arm", "request"):
        x, q, at = user_events(rng, streams, World(), count)
        figures[f"false_rollback_clustered_ramp_per_{count}_k1"] = share_reached(x, q, at, one)
    for name, world in (
        ("clustered", World(ratio=1.3)),
        ("clustered_few_users", World(ratio=1.3, users=150)),
        ("users_used_up", World(ratio=1.3, rate=0.6, drift=1.0, concentration=20.0, stages=(0.5,))),
        ("clustered_users_used_up", World(ratio=1.3, rate=0.3, drift=1.2, stages=(0.5,))),
    ):
        for suffix, corrected in (("", True), ("_uncorrected", False)):
            x, q, at = user_events(rng, streams, world, "rollout", corrected=corrected)
            figures[f"wrong_promotion_{name}{suffix}"] = share_reached(x, q, at, one, r0=1.3, mirrored=True)
    say("margin done")
    for name, count in (("", "assignment"), ("_per_request", "request")):
        world = World() if count == "assignment" else World(rate=0.9, drift=1.0, concentration=1e6)
        x, q, at = user_events(rng, streams, world, count)
        both = np.logaddexp(log_e_paths(x, q), log_e_paths(x, q, mirrored=True)) - math.log(2)
        figures[f"srm_false_stop{name}"] = float(np.isfinite(first_reached(both, at, math.log(1000))).mean())
    return figures


BARS: dict[str, float] = {
    "false_rollback_independent_at_10%": 0.05,
    "false_rollback_clustered_ramp_per_rollout_k1": 0.05,
    "false_rollback_clustered_ramp_k6": 0.05,
    "wrong_promotion_independent_at_10%": 0.05,
    "wrong_promotion_clustered": 0.05,
    "wrong_promotion_clustered_few_users": 0.05,
    "wrong_promotion_users_used_up": 0.05,
    "rollback_requests_5_to_8_k1": 5000,
    "rollback_requests_5_to_15_k1": 700,
    "rollback_requests_5_to_8_k6": 9500,
    "rollback_requests_5_to_15_k6": 1050,
    "gross_canary_requests_at_1%_k6": 15,
    "gross_canary_requests_at_5%_k6": 15,
}
"""Figure -> most it may be."""


def main() -> int:
    """Run everything; exit code 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.perf_counter()

    def say(text: str) -> None:
        print(f"[{time.perf_counter() - started:5.1f} s] {text}", file=sys.stderr, flush=True)

    rng = np.random.default_rng(options.seed)
    self_check(rng)
    figures = speed(rng, options.runs)
    say("speed done")
    figures |= fixed_rules(rng, max(100, options.runs // 4))
    say("fixed rules done")
    figures |= errors(rng, options.runs, say)
    missed = sorted(name for name, bar in BARS.items() if not figures[name] <= bar)
    rounded = {name: round(value, 4) for name, value in figures.items()}
    seconds = round(time.perf_counter() - started, 1)
    print(
        json.dumps(
            {"benchmark": "canary", "runs": options.runs, **rounded, "bars": BARS, "missed": missed, "seconds": seconds}
        )
    )
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
