"""The two-component mixture: recovery, an independent optimiser, 30-digit special functions, and people."""

from pathlib import Path

import mpmath
import numpy as np
import pandas as pd
import pytest
from scipy.optimize import Bounds, differential_evolution
from scipy.stats import vonmises

from vwm.behaviour.circular import FloatArray, wrap
from vwm.behaviour.mixture import fit_mixture, log_likelihood
from vwm.behaviour.mixture_likelihood import KAPPA_MAX, KAPPA_MIN
from vwm.behaviour.von_mises import fisher_information, sd_of_kappa

HUMAN = Path(__file__).parents[2] / "shared" / "data" / "human"


def simulate(w: float, kappa: float, count: int, seed: int = 0) -> FloatArray:
    rng = np.random.default_rng(seed)
    at_target = rng.random(count) < w
    return np.where(at_target, rng.vonmises(0, kappa, count), rng.uniform(-np.pi, np.pi, count))


@pytest.mark.parametrize("kappa", [0.0, 1e-3, 0.1, 1.0, 30.0, 700.0, 1e4, 1e5])
def test_sd_information_and_likelihood_agree_with_30_digit_arithmetic(kappa: float) -> None:
    errors = np.array([0.0, 1e-3, -0.02, 0.5, -3.1, np.pi])
    w = 0.8
    with mpmath.workdps(30):
        I0, I1 = mpmath.besseli(0, kappa), mpmath.besseli(1, kappa)
        exact_likelihood = mpmath.fsum(
            mpmath.log(w * mpmath.exp(kappa * mpmath.cos(e)) / (2 * mpmath.pi * I0) + (1 - w) / (2 * mpmath.pi))
            for e in map(float, errors)
        )
        exact_sd = float(mpmath.sqrt(-2 * mpmath.log(I1 / I0))) if kappa else np.inf
        exact_information = float(kappa * I1 / I0)
    assert log_likelihood(errors, w, kappa) == pytest.approx(float(exact_likelihood), rel=1e-12)
    assert float(sd_of_kappa(kappa)) == pytest.approx(exact_sd, rel=1e-9)
    assert float(fisher_information(kappa)) == pytest.approx(exact_information, rel=1e-12)


def test_an_impossible_error_has_no_likelihood_without_guesses() -> None:
    assert log_likelihood([3.0], 1.0, 1e5) == -np.inf


@pytest.mark.parametrize(
    ("w", "kappa"), [(0.95, 20.0), (0.6, 8.0), (0.3, 3.0), (0.9, 400.0), (0.5, 2e4), (0.1, 50.0), (1.0, 12.0)]
)
def test_recovers_what_was_simulated(w: float, kappa: float) -> None:
    """20,000 errors: the mean of ten fits lies within its standard errors of the truth, and none is far off."""
    fits = [fit_mixture(simulate(w, kappa, 20_000, seed)) for seed in range(10)]
    for found, true in (
        (np.array([fit.w for fit in fits]), w),
        (np.log([fit.kappa for fit in fits]), np.log(kappa)),
    ):
        assert found.mean() == pytest.approx(true, abs=4 * found.std(ddof=1) / np.sqrt(10) + 1e-3)
        assert np.all(np.abs(found - true) < 0.3)
    assert all(fit.flag == "" and fit.n == 20_000 for fit in fits)


@pytest.mark.parametrize(
    ("w", "kappa", "count"),
    [(0.9, 10.0, 2000), (0.4, 2.0, 500), (0.37, 6.0, 125), (0.8, 3000.0, 400), (0.05, 80.0, 3000), (0.7, 0.8, 1000)],
)
def test_a_generic_global_optimiser_finds_the_same_maximum(w: float, kappa: float, count: int) -> None:
    """scipy's differential evolution on the likelihood written with scipy's own von Mises."""
    errors = simulate(w, kappa, count, seed=1)

    def loss(point: FloatArray) -> float:
        density = point[0] * vonmises.pdf(errors, np.exp(point[1])) + (1 - point[0]) / (2 * np.pi)
        return -float(np.sum(np.log(np.maximum(density, 1e-300))))

    bounds = Bounds([0, np.log(KAPPA_MIN)], [1, np.log(KAPPA_MAX)])
    best = differential_evolution(loss, bounds, seed=0, tol=1e-10, popsize=20)
    fit = fit_mixture(errors)
    assert fit.log_likelihood == pytest.approx(-best.fun, abs=1e-5)
    assert fit.log_likelihood == pytest.approx(log_likelihood(errors, fit.w, fit.kappa), abs=1e-6)
    assert (fit.w, np.log(fit.kappa)) == pytest.approx(tuple(best.x), abs=5e-3)


def test_a_fit_does_not_depend_on_the_order_of_errors() -> None:
    errors = simulate(0.7, 9.0, 3000)
    assert fit_mixture(errors) == fit_mixture(errors[::-1])


def test_no_guess_is_no_guess() -> None:
    fit = fit_mixture(np.random.default_rng(0).vonmises(0, 30, 5000))
    assert fit.w == pytest.approx(1, abs=5e-3)
    assert fit.sd == pytest.approx(1 / np.sqrt(30), rel=0.05)
    assert fit.capacity(4) == 4 * fit.w


def test_guessing_is_flagged_about_as_often_as_it_should_be() -> None:
    flags = [fit_mixture(np.random.default_rng(seed).uniform(-np.pi, np.pi, 500)).flag for seed in range(60)]
    assert np.mean([flag == "not told apart from guessing" for flag in flags]) > 0.75


def test_kappa_at_its_upper_bound_is_flagged() -> None:
    fit = fit_mixture(np.random.default_rng(0).normal(0, 1e-4, 1000))
    assert fit.flag == "kappa at its upper bound"
    assert fit.kappa == pytest.approx(KAPPA_MAX)


@pytest.mark.parametrize("errors", [[0.0], [0.1, -0.1], [3.1] * 5])
def test_a_handful_of_errors_is_fitted_without_a_warning(errors: list[float]) -> None:
    fit = fit_mixture(errors)
    assert 0 <= fit.w <= 1
    assert KAPPA_MIN * 0.999 <= fit.kappa <= KAPPA_MAX * 1.001


def test_no_errors_is_no_sample() -> None:
    with pytest.raises(ValueError, match="no errors"):
        fit_mixture([])


# Means over subjects of published data, fitted one subject and set size at a time: n, w, SD in degrees, K.
ZHANG_LUCK = [(1, 0.993, 14.1, 0.99), (2, 0.946, 19.7, 1.89), (3, 0.836, 23.0, 2.51), (6, 0.373, 23.0, 2.24)]
BAYS = [(1, 0.988, 13.8, 0.99), (2, 0.917, 17.8, 1.83), (4, 0.723, 20.9, 2.89), (6, 0.580, 23.4, 3.48)]


@pytest.mark.parametrize(("file", "published"), [("zhang_luck2008_exp2", ZHANG_LUCK), ("bays2009_full", BAYS)])
def test_people(file: str, published: list[tuple[int, float, float, float]]) -> None:
    path = HUMAN / f"{file}.csv"
    if not path.exists():
        pytest.skip(f"the human data {file}.csv, which may not be distributed, is not in {HUMAN}")
    trials = pd.read_csv(path)
    errors = wrap(trials["response"].to_numpy() - trials["target"].to_numpy())
    for set_size, w, sd, capacity in published:
        fits = [
            fit_mixture(errors[(trials["set_size"] == set_size) & (trials["subject"] == subject)])
            for subject in trials["subject"].unique()
        ]
        assert np.mean([fit.w for fit in fits]) == pytest.approx(w, abs=6e-4)
        assert np.mean([np.degrees(fit.sd) for fit in fits]) == pytest.approx(sd, abs=0.06)
        assert np.mean([fit.capacity(set_size) for fit in fits]) == pytest.approx(capacity, abs=6e-3)
