"""The mixture with swaps: derivatives, an independent optimiser, recovery, intervals and flags."""

import numpy as np
import pytest
from scipy.optimize import Bounds, differential_evolution
from scipy.stats import chi2, vonmises

from tests.simulated import swapping
from vwm.behaviour.circular import FloatArray
from vwm.behaviour.mixture import ThreeComponentFit, fit_mixture, fit_three_component, intervals
from vwm.behaviour.mixture_likelihood import KAPPA_MAX, KAPPA_MIN, Likelihood, climb, one_minus_cos


def exact_log_likelihood(
    errors: FloatArray, nontarget_errors: FloatArray, p_t: float, p_n: float, kappa: float
) -> float:
    """The definition, with scipy's von Mises."""
    at_others = vonmises.pdf(nontarget_errors, kappa).mean(axis=1)
    density = p_t * vonmises.pdf(errors, kappa) + p_n * at_others + (1 - p_t - p_n) / (2 * np.pi)
    return float(np.sum(np.log(np.maximum(density, 1e-300))))


@pytest.mark.parametrize("kappa", [1e-3, 0.7, 8.0, 1e3, 1e5])
@pytest.mark.parametrize("order", [("p_u", "p_t", "p_n"), ("p_n", "p_t", "p_u"), ("p_t", "p_u", "p_n")])
def test_derivatives_are_those_of_the_value(kappa: float, order: tuple[str, str, str]) -> None:
    errors, others = swapping(0.6, 0.2, kappa, 4, 200, np.random.default_rng(0))
    likelihood = Likelihood(one_minus_cos(errors), one_minus_cos(others), np.linspace(0.5, 2, 200), order)
    point = np.array([0.3, 0.6, np.log(kappa) + 0.1])
    _, gradient, hessian = likelihood.derivatives(point)
    steps = 1e-5 * np.eye(3)
    around = [(likelihood.derivatives(point + step), likelihood.derivatives(point - step)) for step in steps]
    slopes = np.array([(above[0] - below[0]) / 2e-5 for above, below in around])
    curvatures = np.array([(above[1] - below[1]) / 2e-5 for above, below in around])
    scale = np.abs(gradient).max() + 1
    np.testing.assert_allclose(gradient, slopes, rtol=1e-6, atol=1e-6 * scale)
    np.testing.assert_allclose(hessian, curvatures, rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize(
    ("p_t", "p_n", "kappa", "set_size", "count"),
    [
        (0.7, 0.2, 10.0, 4, 300),
        pytest.param(0.4, 0.3, 3.0, 6, 1500, marks=pytest.mark.slow),
        (0.9, 0.0, 6.0, 3, 150),
        (0.3, 0.1, 300.0, 2, 500),
        (0.5, 0.5, 5.0, 2, 400),
        pytest.param(0.05, 0.6, 20.0, 8, 3000, marks=pytest.mark.slow),
    ],
)
def test_a_generic_global_optimiser_finds_the_same_maximum(
    p_t: float, p_n: float, kappa: float, set_size: int, count: int
) -> None:
    errors, others = swapping(p_t, p_n, kappa, set_size, count, np.random.default_rng(1))

    def loss(point: FloatArray) -> float:
        memory, at_target, log_kappa = point
        return -exact_log_likelihood(
            errors, others, memory * at_target, memory * (1 - at_target), float(np.exp(log_kappa))
        )

    bounds = Bounds([0, 0, np.log(KAPPA_MIN)], [1, 1, np.log(KAPPA_MAX)])
    best = differential_evolution(loss, bounds, seed=0, tol=1e-8, popsize=8)
    fit = fit_three_component(errors, others)
    assert fit.log_likelihood == pytest.approx(-best.fun, abs=1e-4)
    assert fit.log_likelihood == pytest.approx(
        exact_log_likelihood(errors, others, fit.p_t, fit.p_n, fit.kappa), abs=1e-5
    )
    found = (fit.p_t, fit.p_n, np.log(fit.kappa))
    assert found == pytest.approx((best.x[0] * best.x[1], best.x[0] * (1 - best.x[1]), best.x[2]), abs=3e-3)


def test_no_random_start_finds_a_higher_maximum_than_a_fit_that_is_not_flagged() -> None:
    """Data sets of all kinds, many of them hard: the climb from ten places at random, on the same likelihood."""
    rng = np.random.default_rng(11)
    unflagged = 0
    for _ in range(80):
        count, set_size = int(np.exp(rng.uniform(3, 8))), int(rng.integers(2, 9))
        p_t, p_n, _ = rng.dirichlet([1, 0.5, 1])
        errors, others = swapping(p_t, p_n, float(np.exp(rng.uniform(-1, 8))), set_size, count, rng)
        fit = fit_three_component(errors, others)
        likelihood = Likelihood(one_minus_cos(errors), one_minus_cos(others), np.ones(count))
        starts = [np.array([rng.random(), rng.random(), rng.uniform(-3, 10)]) for _ in range(10)]
        best = max(climb(likelihood, start).gain for start in starts) - count * np.log(2 * np.pi)
        assert fit.flag != "" or fit.log_likelihood > best - 1e-4
        unflagged += fit.flag == ""
    assert unflagged > 30


def test_recovers_what_was_simulated() -> None:
    """Forty data sets with different truths: the mean error of each parameter is within its own standard error."""
    rng = np.random.default_rng(2)
    off = []
    for _ in range(40):
        p_n, p_u, kappa, set_size = (
            rng.uniform(0.05, 0.3),
            rng.uniform(0.05, 0.4),
            rng.uniform(5, 40),
            rng.integers(2, 9),
        )
        fit = fit_three_component(*swapping(1 - p_n - p_u, p_n, kappa, int(set_size), 4000, rng))
        assert fit.flag == ""
        off.append((fit.p_t + p_n + p_u - 1, fit.p_n - p_n, fit.p_u - p_u, np.log(fit.kappa / kappa)))
    mean, sd = np.mean(off, axis=0), np.std(off, axis=0, ddof=1)
    assert np.all(np.abs(mean) < 3.5 * sd / np.sqrt(40))
    assert np.all(sd < [0.03, 0.02, 0.03, 0.15])


@pytest.mark.parametrize("kappa", [1e-3, 1e-2, 0.1, 1.0, 10.0, 1e2, 1e3, 1e4, 9e4])
def test_every_kappa_is_fitted_without_a_warning(kappa: float) -> None:
    errors, others = swapping(0.6, 0.2, kappa, 4, 1000, np.random.default_rng(10))
    fit = fit_three_component(errors, others)
    ends = intervals(errors, others, fit)
    assert np.isfinite(fit.log_likelihood)
    assert all(
        low <= getattr(fit, name) * (1 + 1e-9) and getattr(fit, name) <= high * (1 + 1e-9)
        for name, (low, high) in ends.items()
    )
    if kappa <= 0.1:
        assert fit.flag != ""
    if kappa >= 10:
        assert fit.flag == ""
        assert fit.kappa == pytest.approx(kappa, rel=0.25)
        assert (fit.p_t, fit.p_n) == pytest.approx((0.6, 0.2), abs=0.07)


def test_without_swaps_it_is_the_two_component_mixture() -> None:
    """Non-targets that no response is near to: the swap rate is zero and the rest is the other fit."""
    rng = np.random.default_rng(3)
    errors = np.concatenate([rng.normal(0, 0.2, 500), np.linspace(-1.4, 1.4, 100)])
    three, two = fit_three_component(errors, np.full((600, 1), np.pi)), fit_mixture(errors)
    assert three.p_n == 0
    assert (three.p_t, np.log(three.kappa)) == pytest.approx((two.w, np.log(two.kappa)), abs=1e-4)
    assert three.log_likelihood == pytest.approx(two.log_likelihood, abs=1e-6)


def test_places_where_no_item_was_shown_play_no_part() -> None:
    errors, others = swapping(0.6, 0.2, 8.0, 4, 500, np.random.default_rng(4))
    scattered = np.full((500, 9), np.nan)
    for row, places in enumerate(np.random.default_rng(5).permuted(np.tile(np.arange(9), (500, 1)), axis=1)[:, :3]):
        scattered[row, np.sort(places)] = others[row]
    assert fit_three_component(errors, scattered) == fit_three_component(errors, others)


def test_an_interval_ends_where_the_profile_falls_by_what_is_allowed() -> None:
    """The profile likelihood, by scipy's optimiser on scipy's density, at both ends of each interval."""
    errors, others = swapping(0.6, 0.15, 8.0, 3, 250, np.random.default_rng(6))
    fit = fit_three_component(errors, others)
    found = intervals(errors, others, fit)

    def profile(name: str, value: float) -> float:
        def loss(free: FloatArray) -> float:
            split, second = free
            if name == "kappa":
                p_t, p_n, kappa = second * (1 - split), second * split, value
            else:
                one, other = (1 - value) * (1 - split), (1 - value) * split
                p_t, p_n = {"p_t": (value, other), "p_n": (other, value), "p_u": (one, other)}[name]
                kappa = float(np.exp(second))
            return -exact_log_likelihood(errors, others, p_t, p_n, kappa)

        bounds = Bounds([0, 0], [1, 1]) if name == "kappa" else Bounds([0, -2], [1, 6])
        return -float(differential_evolution(loss, bounds, seed=0, tol=1e-8, popsize=10).fun)

    for name, ends in found.items():
        for end in ends:
            assert 2 * (fit.log_likelihood - profile(name, end)) == pytest.approx(chi2.ppf(0.95, 1), abs=2e-2)
    assert all(low < getattr(fit, name) < high for name, (low, high) in found.items())


def test_the_interval_of_a_swap_rate_of_zero_starts_at_zero() -> None:
    errors, others = swapping(0.8, 0.0, 10.0, 4, 200, np.random.default_rng(7))
    low, high = intervals(errors, others, fit_three_component(errors, others))["p_n"]
    assert low == 0
    assert 0.001 < high < 0.08


@pytest.mark.parametrize(
    ("p_t", "p_n", "kappa", "count", "reason"),
    [
        (0.02, 0.0, 8.0, 300, "not told apart from guessing"),
        (0.6, 0.2, 2.0, 60, "uncertain"),
        (0.9, 0.1, 0.5, 4000, "too flat"),
    ],
)
def test_what_cannot_be_identified_is_flagged(p_t: float, p_n: float, kappa: float, count: int, reason: str) -> None:
    rng = np.random.default_rng(8)
    flags = [fit_three_component(*swapping(p_t, p_n, kappa, 4, count, rng)).flag for _ in range(20)]
    assert sum(reason in flag for flag in flags) >= 12
    assert sum(flag != "" for flag in flags) >= 15


def test_flagged_fits_are_the_ones_that_are_far_off() -> None:
    """Few responses at a low precision: unflagged fits are near the truth, flagged ones several times as far."""
    rng = np.random.default_rng(9)
    fits: list[tuple[ThreeComponentFit, float, float]] = []
    for _ in range(150):
        p_t, kappa = rng.uniform(0.05, 0.9), np.exp(rng.uniform(0, 3))
        fits.append((fit_three_component(*swapping(p_t, 0.05, kappa, 4, 100, rng)), p_t, kappa))
    off = np.array([abs(np.log(fit.kappa / kappa)) for fit, _, kappa in fits])
    flagged = np.array([fit.flag != "" for fit, _, _ in fits])
    assert 0.2 < flagged.mean() < 0.9
    assert np.median(off[~flagged]) < 0.3
    assert np.mean(off[flagged]) > 3 * np.mean(off[~flagged])


@pytest.mark.parametrize(
    "nontarget_errors", [np.empty((3, 0)), np.full((3, 2), np.nan), [[1.0], [1.0], [np.nan]], [[1.0], [1.0]]]
)
def test_non_targets_are_needed(nontarget_errors: FloatArray) -> None:
    with pytest.raises(ValueError, match="non-targets are needed"):
        fit_three_component([0.1, 0.2, 0.3], nontarget_errors)
