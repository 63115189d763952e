"""The exponent of error over set size: closed form, coverage of its interval, and what cannot be fitted."""

import numpy as np
import pandas as pd
import pytest

from vwm.behaviour import power_law

SIZES = np.array([1, 2, 4, 8])


def table(exponents: np.ndarray, scale: float = 0.1) -> pd.DataFrame:
    return pd.DataFrame(
        {"responder": f"r{number}", "set_size": n, "circular_variance": scale * n**exponent}
        for number, exponent in enumerate(exponents)
        for n in SIZES
    )


def test_a_power_law_is_found_exactly() -> None:
    fit = power_law.fit(table(np.array([1.0, 1.2, 1.7])))
    assert fit.exponent == pytest.approx(1.3)
    assert fit.scale == pytest.approx(0.1)
    assert (fit.n_responders, fit.set_sizes, fit.measure) == (3, (1, 2, 4, 8), "circular_variance")
    assert 1.0 - 1e-9 < fit.low < 1.3 < fit.high < 1.7 + 1e-9


def test_published_means_of_people_grow_by_this_power() -> None:
    """Bays (2014): variance at 1, 2, 4 and 8 items. The slope of a regression, written out."""
    variance = np.array([0.1168, 0.2582, 0.7284, 1.7999])
    x, y = np.log2(SIZES), np.log2(variance)
    slope = np.sum((x - x.mean()) * (y - y.mean())) / np.sum((x - x.mean()) ** 2)
    people = pd.DataFrame({"responder": "mean", "set_size": SIZES, "circular_variance": variance})
    assert power_law.fit(people).exponent == pytest.approx(slope)
    assert slope == pytest.approx(1.33, abs=0.01)


@pytest.mark.parametrize("count", [4, 5, 8, 20])
def test_the_interval_covers_the_mean_of_the_population(count: int) -> None:
    rng = np.random.default_rng(count)
    covered = 0
    for seed in range(300):
        fit = power_law.fit(table(rng.normal(1.3, 0.2, count)), seed=seed)
        covered += fit.low < 1.3 < fit.high
    # 95 % of 300 ± 3 standard errors, and a little less with the four or five seeds of a usual sweep.
    assert 0.95 - 0.04 - 0.12 / count < covered / 300 <= 0.99


def test_only_set_sizes_that_all_have_are_used() -> None:
    rows = table(np.array([1.0, 2.0, 3.0]))
    rows = rows[~((rows["responder"] == "r1") & (rows["set_size"] == 8))]
    assert power_law.fit(rows).set_sizes == (1, 2, 4)
    with pytest.raises(ValueError, match="two set sizes"):
        power_law.fit(rows[(rows["responder"] == "r1") | (rows["set_size"] == 1)].query("set_size < 2"))


def test_two_responders_have_no_interval() -> None:
    fit = power_law.fit(table(np.array([1.0, 2.0])))
    assert np.isnan([fit.low, fit.high]).all()


@pytest.mark.parametrize("value", [0.0, -1.0, np.inf])
def test_what_has_no_logarithm_is_refused(value: float) -> None:
    rows = table(np.array([1.0, 2.0, 3.0]))
    rows.loc[2, "circular_variance"] = value
    with pytest.raises(ValueError, match="above 0 and finite"):
        power_law.fit(rows)
