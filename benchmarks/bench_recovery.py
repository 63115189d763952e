"""Recovery by the three-component mixture: bias, spread and coverage of the intervals over 200 simulated data sets.

Usage: python -m benchmarks.bench_recovery

The grid: five swap rates × two rates of guesses × two precisions × two set sizes × five data sets each. A data set has
as many responses as a subject of a usual experiment gives at one set size.
"""

import itertools

import numpy as np
import pandas as pd

from tests.simulated import swapping
from vwm.behaviour.mixture import fit_three_component, intervals

RESPONSES = 300
SWAP_RATES = (0.0, 0.05, 0.1, 0.2, 0.3)
GUESS_RATES = (0.05, 0.3)
KAPPAS = (5.0, 20.0)
SET_SIZES = (3, 6)
REPEATS = 5


def main() -> None:
    rng = np.random.default_rng(0)
    rows = []
    grid = itertools.product(SWAP_RATES, GUESS_RATES, KAPPAS, SET_SIZES, range(REPEATS))
    for p_n, p_u, kappa, set_size, _ in grid:
        truth = {"p_t": 1 - p_n - p_u, "p_n": p_n, "p_u": p_u, "kappa": kappa}
        errors, others = swapping(truth["p_t"], p_n, kappa, set_size, RESPONSES, rng)
        fit = fit_three_component(errors, others)
        found = intervals(errors, others, fit)
        for name, true in truth.items():
            low, high = found[name]
            estimate = getattr(fit, name)
            off = np.log(estimate / true) if name == "kappa" else estimate - true
            covered = low <= true * (1 + 1e-9) and true <= high * (1 + 1e-9)
            rows.append({"parameter": name, "true p_n": p_n, "off": off, "covered": covered, "flagged": fit.flag != ""})
    table = pd.DataFrame(rows)
    print(f"{len(table) // 4} data sets of {RESPONSES} responses; kappa's bias and spread are of its logarithm")
    for keys in (["parameter"], ["parameter", "true p_n"]):
        groups = table.groupby(keys, sort=False)
        summary = groups["off"].agg(["count", "mean", "std"])
        summary["standard error"] = summary["std"] / np.sqrt(summary["count"])
        summary["coverage of 95 %"] = groups["covered"].mean()
        summary["flagged"] = groups["flagged"].mean()
        if "true p_n" in keys:
            summary = summary.loc[["p_n"]]
        print(
            summary.rename(columns={"count": "data sets", "mean": "bias", "std": "spread"}).round(4).to_string(), "\n"
        )


if __name__ == "__main__":
    main()
