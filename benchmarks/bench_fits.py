"""How fast mixtures are fitted: against scipy's generic optimiser on the same likelihood, and a whole sweep's cells.

Usage: python -m benchmarks.bench_fits

Times are of the processor, not of the clock, so that other work on the machine does not count; on two cores the cells
of a sweep take half of the sum. Both optimisers start from the same places of the same grid.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.optimize import minimize

from tests.simulated import swapping
from vwm.behaviour.circular import FloatArray
from vwm.behaviour.mixture import fit_mixture, fit_three_component
from vwm.behaviour.mixture_likelihood import one_minus_cos, relative_density

ERRORS = 10_000
STARTS = [(0.5, 0.9, 1.0), (0.8, 0.9, 2.5), (0.9, 0.9, 4.5)]  # share in memory, share of the target in it, ln κ
SWEEP_RUNS, SET_SIZES, TRIALS = 1000, range(1, 11), 2000
ROUNDS = 5


def seconds(fit: Callable[[], object]) -> float:
    """Median processor time of a fit."""
    times = []
    for _ in range(ROUNDS):
        before = time.process_time()
        fit()
        times.append(time.process_time() - before)
    return statistics.median(times)


def generic(errors: FloatArray, nontarget_errors: FloatArray | None) -> float:
    """The highest log-likelihood that L-BFGS-B with numerical derivatives finds from several starts."""
    d = one_minus_cos(errors)
    others = None if nontarget_errors is None else one_minus_cos(nontarget_errors)

    def loss(point: FloatArray) -> float:
        memory, at_target, kappa = point[0], point[1], float(np.exp(point[2]))
        near = relative_density(d, kappa)
        if others is not None:
            near = at_target * near + (1 - at_target) * relative_density(others, kappa).mean(axis=1)
        return -float(np.sum(np.log1p(memory * (near - 1))))

    share = (1.0, 1.0) if others is None else (0.0, 1.0)
    bounds = [(0, 1 - 1e-9), share, (np.log(1e-3), np.log(1e5))]
    found = [minimize(loss, start, method="L-BFGS-B", bounds=bounds) for start in STARTS]
    return max(-float(one.fun) for one in found) - errors.size * float(np.log(2 * np.pi))


def report(name: str, ours: Callable[[], float], theirs: Callable[[], float]) -> None:
    """Both times, their ratio, and whether the maximum found is as high."""
    short, long = seconds(ours), seconds(theirs)
    times = f"{1000 * short:5.1f} ms; generic optimiser {1000 * long:6.1f} ms, {long / short:4.1f} × as long"
    print(f"  {name:<17} {times}; log-likelihood above its: {ours() - theirs():.1e}")


def main() -> None:
    rng = np.random.default_rng(0)
    print(f"{ERRORS} errors, set size 4:")
    errors, others = swapping(0.7, 0.1, 8.0, 4, ERRORS, rng)
    report("two components", lambda: fit_mixture(errors).log_likelihood, lambda: generic(errors, None))
    report(
        "three components",
        lambda: fit_three_component(errors, others).log_likelihood,
        lambda: generic(errors, others),
    )
    total = {"two components": 0.0, "three components": 0.0}
    for n in SET_SIZES:
        sample = swapping(0.7, 0.1 if n > 1 else 0.0, 8.0, max(n, 2), TRIALS * n, rng)
        total["two components"] += seconds(partial(fit_mixture, sample[0]))
        if n > 1:
            total["three components"] += seconds(partial(fit_three_component, *sample))
    print(f"All cells of {SWEEP_RUNS} runs, {len(SET_SIZES)} set sizes of {TRIALS} trials, all items of a trial:")
    for name, of_one_run in (*total.items(), ("both", sum(total.values()))):
        print(f"  {name:<17} {SWEEP_RUNS * of_one_run / 2:5.0f} s on two cores")


if __name__ == "__main__":
    main()
