"""How much noise a private run needs, and what it and all runs before it spend: `opacus` counts.

The mechanism is DP-SGD (Abadi et al., arXiv 1607.00133) over people instead of rows: each step draws every person with
a fixed chance, clips the gradient of all their rows to a length C, and adds N(0, (sigma C)^2) to the sum. Accounting is
by Renyi divergences (Mironov et al., arXiv 1908.10530): an upper bound at every order, orders add up over steps and
over rounds, and nothing in it is a numerical approximation that could fail. The tighter PRV accountant would save 7 %
of the noise at some hundreds of people, a fifth at a hundred thousand (docs/decisions.md).
"""

from __future__ import annotations

import importlib.metadata
import math
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from configs.errors import PrivacyBudgetError, TrainingError
from configs.privacy import PrivacySection
from configs.schema import TrainingSection
from data_contracts.records import PrivacyCharge, PrivacyMechanism

ACCOUNTANT = "rdp"
ORDERS = (
    [1 + n / 10 for n in range(1, 41)]
    + [float(n) for n in range(6, 33)]
    + [2.0**n for n in range(6, 11)]
    + [1.5 * 2.0**n for n in range(5, 10)]
)
"""Any order gives a true bound; more of them, a tighter one."""
MOST_DELTA = 1e-5
_TOLERANCE = 0.002
"""Of epsilon, relative: how far below its target a run may stay."""
_MOST_NOISE = 1e4


def require_opacus() -> str:
    """Name and version of the accountant's library.

    Raises:
        TrainingError: it is not installed.
    """
    try:
        import opacus.accountants  # noqa: F401 - asked for here, used below
    except ImportError as error:
        raise TrainingError(
            "training under differential privacy needs opacus",
            where="training.privacy",
            expected="the extra `privacy`",
            found=error,
            fix='pip install "tidemill[privacy]"',
        ) from error
    return f"opacus {importlib.metadata.version('opacus')}"


def delta_for(people: int, privacy: PrivacySection) -> float:
    """The delta of a run.

    Raises:
        TrainingError: the configured one allows giving one of the people away.
    """
    if privacy.delta is None:
        return min(MOST_DELTA, 0.1 / people)
    if privacy.delta > 1 / people:
        raise TrainingError(
            "this delta protects nobody",
            where="training.privacy.delta",
            expected=f"at most 1 / people = {1 / people:.3g}; better a tenth of that",
            found=privacy.delta,
            fix="lower it, or leave it out",
        )
    return privacy.delta


def epsilon_of(runs: Sequence[PrivacyMechanism], delta: float) -> float:
    """Epsilon of several runs on the same people, composed, at `delta`; 0 without a run."""
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    steps: Counter[tuple[float, float]] = Counter()
    for run in runs:
        steps[run.noise_multiplier, run.sample_rate] += run.steps
    accountant.history = [(*of, count) for of, count in steps.items()]
    with _quiet():
        return max(0.0, float(accountant.get_epsilon(delta, alphas=ORDERS)))


def mechanism_for(people: int, config: TrainingSection) -> PrivacyMechanism:
    """The mechanism of a run over so many people, with the least noise that keeps it within its epsilon.

    Args:
        people: whose rows train, at least one.
        config: the training section, with `privacy`.

    Raises:
        TrainingError: opacus is not installed; a delta that protects nobody; an epsilon that no noise reaches.
    """
    privacy = config.privacy
    if privacy is None or people < 1:
        raise AssertionError("a private run needs its settings and people")
    library, delta = require_opacus(), delta_for(people, privacy)
    target = privacy.epsilon
    rate = min(1.0, privacy.people_per_step / people)
    steps = max(1, math.ceil(config.epochs / rate))
    from opacus.accountants.utils import get_noise_multiplier

    try:
        with _quiet():
            sigma = get_noise_multiplier(
                target_epsilon=target, target_delta=delta, sample_rate=rate, steps=steps, accountant=ACCOUNTANT,
                epsilon_tolerance=_TOLERANCE * target, alphas=ORDERS,
            )  # fmt: skip
    except ValueError as error:
        raise TrainingError(
            "no noise makes this run private enough",
            where="training.privacy.epsilon",
            found=f"{target} over {steps} steps ({error})",
            fix="raise epsilon, or train fewer epochs",
        ) from error
    found = PrivacyMechanism(
        people=people, sample_rate=rate, steps=steps, noise_multiplier=float(sigma),
        max_grad_norm=privacy.max_grad_norm, epsilon=target, delta=delta, accountant=ACCOUNTANT, library=library,
    )  # fmt: skip
    return found.model_copy(update={"epsilon": epsilon_of([found], delta)})


def total_with(spent: Sequence[PrivacyCharge], run: PrivacyMechanism) -> tuple[float, float]:
    """(epsilon, delta) of all runs so far and this one, for somebody who was in all of them.

    Delta is the smallest of them: at a larger one the same runs spend less.
    """
    delta = min([run.delta, *(charge.mechanism.delta for charge in spent)])
    return epsilon_of([*(charge.mechanism for charge in spent), run], delta), delta


def check_budget(spent: Sequence[PrivacyCharge], run: PrivacyMechanism, config: TrainingSection) -> tuple[float, float]:
    """`total_with`, if it is within the budget.

    Raises:
        PrivacyBudgetError: it is not; says what was spent, by which retrains, and what would still fit.
    """
    privacy = config.privacy
    if privacy is None:
        raise AssertionError("a budget is a setting of privacy")
    total, delta = total_with(spent, run)
    if total <= privacy.total_epsilon:
        return total, delta
    before = spent[-1].total_epsilon if spent else 0.0
    runs = ", ".join(f"{c.request_id} ({c.mechanism.epsilon:.3g})" for c in spent[-8:]) or "none"
    fits = _largest_that_fits(spent, run, privacy.total_epsilon)
    less = f"lower training.privacy.epsilon to {fits:.2g}; or " if fits else ""
    raise PrivacyBudgetError(
        "the privacy budget does not allow another retrain",
        where="training.privacy.total_epsilon",
        expected=f"at most {privacy.total_epsilon:g} over all retrains, at delta {delta:.2g}",
        found=f"{before:.4g} spent by {len(spent)} retrains ({runs}); {total:.4g} with this one of {run.epsilon:.3g}",
        fix=f"{less}keep serving the champion; or raise the budget, if those whose rows train were promised no less. "
        "`tidemill train privacy` lists the ledger; nothing of this retrain was trained",
    )


def _largest_that_fits(spent: Sequence[PrivacyCharge], run: PrivacyMechanism, limit: float) -> float:
    """The largest epsilon, down to two digits, of a run like this one with more noise that `limit` allows; or 0."""

    def noisier(sigma: float) -> PrivacyMechanism:
        return run.model_copy(update={"noise_multiplier": sigma})

    low = high = run.noise_multiplier
    while total_with(spent, noisier(high))[0] > limit:
        low, high = high, 2 * high
        if high > _MOST_NOISE:
            return 0.0
    while high - low > 0.005 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if total_with(spent, noisier(middle))[0] <= limit else (middle, high)
    epsilon = epsilon_of([noisier(high)], run.delta)
    digits = 10.0 ** (1 - math.floor(math.log10(epsilon))) if epsilon >= 0.01 else 0.0
    return math.floor(epsilon * digits) / digits if digits else 0.0


@contextmanager
def _quiet() -> Iterator[None]:
    """opacus warns where the best order is the largest asked for: the bound is true then, if not the tightest."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Optimal order is the")
        yield
