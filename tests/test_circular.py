"""Circular statistics against astropy, 30-digit arithmetic, simulation and closed forms."""

from collections.abc import Callable

import mpmath
import numpy as np
import pytest
from astropy.stats import circmean, circmoment, circvar

from vwm.behaviour import circular
from vwm.behaviour.circular import FloatArray

SAMPLES: dict[str, Callable[[np.random.Generator], FloatArray]] = {
    "narrow": lambda rng: rng.normal(0.3, 1e-4, 200),
    "usual": lambda rng: rng.vonmises(-1.0, 5.0, 500),
    "around π": lambda rng: circular.wrap(rng.normal(np.pi, 0.4, 500)),
    "wide": lambda rng: rng.vonmises(2.0, 0.3, 500),
    "skewed": lambda rng: circular.wrap(rng.gamma(2.0, 0.3, 500)),
    "uniform": lambda rng: rng.uniform(-np.pi, np.pi, 500),
}


@pytest.fixture(params=SAMPLES)
def errors(request: pytest.FixtureRequest) -> FloatArray:
    return SAMPLES[request.param](np.random.default_rng(3))


def test_wrap_moves_by_whole_turns_into_the_half_open_interval() -> None:
    angles = np.array([0.0, 1.0, np.pi, -np.pi, 3 * np.pi, 7.0, -7.0, np.nextafter(-np.pi, -4), 1e-17])
    wrapped = circular.wrap(angles)
    assert np.all((wrapped >= -np.pi) & (wrapped < np.pi))
    np.testing.assert_allclose(np.exp(1j * wrapped), np.exp(1j * angles), atol=1e-14)


def test_agrees_with_astropy(errors: FloatArray) -> None:
    turns, length = circmoment(errors, p=1)
    assert circular.mean_direction(errors) == pytest.approx(float(circmean(errors)), abs=1e-12)
    assert circular.mean_direction(errors) == pytest.approx(float(turns), abs=1e-12)
    assert circular.resultant_length(errors) == pytest.approx(float(length), rel=1e-12)
    # astropy's circvar is the other convention, 1 − R.
    assert circular.one_minus_resultant(errors) == pytest.approx(float(circvar(errors)), rel=1e-9, abs=1e-15)
    assert circular.circular_variance(errors) == pytest.approx(-2 * np.log1p(-float(circvar(errors))), rel=1e-6)
    mu_2, rho_2 = circmoment(errors, p=2)
    kurtosis = (rho_2 * np.cos(mu_2 - 2 * turns) - length**4) / (1 - length) ** 2
    # With the narrow sample the plain formula has lost all its digits; 30-digit arithmetic tests that one below.
    if length < 0.999:
        assert circular.circular_kurtosis(errors) == pytest.approx(float(kurtosis), rel=1e-9)


def test_agrees_with_30_digit_arithmetic(errors: FloatArray) -> None:
    """The definitions of science, written down with no regard for cancellation."""
    with mpmath.workdps(30):
        exact = [mpmath.mpf(float(e)) for e in errors]
        m_1 = mpmath.fsum(mpmath.expj(e) for e in exact) / len(exact)
        m_2 = mpmath.fsum(mpmath.expj(2 * e) for e in exact) / len(exact)
        R = abs(m_1)
        variance = -2 * mpmath.log(R)
        kurtosis = (abs(m_2) * mpmath.cos(mpmath.arg(m_2) - 2 * mpmath.arg(m_1)) - R**4) / (1 - R) ** 2
        direction = mpmath.arg(m_1)
    assert circular.mean_direction(errors) == pytest.approx(float(direction), abs=1e-13)
    assert circular.resultant_length(errors) == pytest.approx(float(R), rel=1e-12)
    assert circular.circular_variance(errors) == pytest.approx(float(variance), rel=1e-10)
    assert circular.one_minus_resultant(errors) == pytest.approx(float(1 - R), rel=1e-10)
    assert circular.circular_sd(errors) == pytest.approx(float(mpmath.sqrt(variance)), rel=1e-10)
    assert circular.circular_kurtosis(errors) == pytest.approx(float(kurtosis), rel=1e-8, abs=1e-8)


def test_wrapped_normal_has_its_own_sd_and_no_kurtosis() -> None:
    # Quantiles of a normal at equal steps of probability, so that sampling plays no part.
    from scipy.stats import norm

    for sd in (0.05, 0.5, 1.0, 1.8):
        errors = circular.wrap(norm.ppf((np.arange(200_000) + 0.5) / 200_000) * sd)
        assert circular.circular_sd(errors) == pytest.approx(sd, rel=1e-3)
        assert circular.circular_kurtosis(errors) == pytest.approx(0, abs=0.01)


def test_mean_abs_error_takes_the_short_way_round() -> None:
    assert circular.mean_abs_error([np.pi - 0.1, -np.pi - 0.1, 0.2]) == pytest.approx((2 * (np.pi - 0.1) + 0.2) / 3)
    assert circular.mean_abs_error(np.linspace(-np.pi, np.pi, 100_001)) == pytest.approx(np.pi / 2, rel=1e-4)


@pytest.mark.parametrize("count", [20, 150, 1000])
def test_precision_of_uniform_responding_is_zero_on_average(count: int) -> None:
    draws = 1_000_000 // count
    rng = np.random.default_rng(count)
    plain = np.array([1 / circular.circular_sd(rng.uniform(-np.pi, np.pi, count)) for _ in range(draws)])
    # Rayleigh's law is exact for many errors only; for 20 it is off by about a hundredth of the value.
    tolerance = 4 * plain.std() / np.sqrt(draws) + 0.2 * circular.uniform_precision(count) / count
    assert circular.uniform_precision(count) == pytest.approx(plain.mean(), abs=tolerance)


@pytest.mark.parametrize("count", [2, 10, 150, 20_000, 10_000_000])
def test_uniform_expectation_agrees_with_30_digit_integration_over_the_squared_length(count: int) -> None:
    with mpmath.workdps(30):
        # u = N·R² ~ Exp(1) and SD² = ln(N/u). Beyond u = 90 there is nothing left to the last of 30 digits.
        edges = [0, *(u for u in (0.1, 1, 3, 10, 30, 90) if u < count), *([count] if count <= 90 else [])]
        exact = mpmath.quad(lambda u: mpmath.exp(-u) / mpmath.sqrt(mpmath.log(count / u)), edges)
    assert circular.uniform_precision(count) == pytest.approx(float(exact), rel=1e-7)


def test_precision_is_one_over_sd_less_chance() -> None:
    errors = np.random.default_rng(0).normal(0, 0.2, 5000)
    expected = 1 / circular.circular_sd(errors) - circular.uniform_precision(5000)
    assert circular.precision(errors) == pytest.approx(expected, rel=1e-12)
    assert expected == pytest.approx(5 - 0.33, rel=0.02)


def test_equal_errors() -> None:
    errors = np.full(10, 0.7)
    assert circular.circular_sd(errors) == pytest.approx(0, abs=1e-15)
    assert circular.resultant_length(errors) == 1
    assert circular.precision(errors) > 1e10


@pytest.mark.parametrize("kappa", [1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5])
def test_von_mises_errors_have_the_moments_of_30_digit_arithmetic(kappa: float) -> None:
    """Errors at equal steps of the von Mises's probability: its variance in both conventions and its kurtosis."""
    from scipy.stats import vonmises

    grid = np.linspace(-1, 1, 20_001) * min(np.pi, 12 / np.sqrt(kappa))
    errors = np.interp((np.arange(100_000) + 0.5) / 100_000, vonmises.cdf(grid, kappa), grid)
    with mpmath.workdps(30):
        bessel = [mpmath.besseli(order, kappa) for order in range(3)]
        R, rho_2 = bessel[1] / bessel[0], bessel[2] / bessel[0]
        variance, kurtosis = -2 * mpmath.log(R), (rho_2 - R**4) / (1 - R) ** 2
    assert circular.one_minus_resultant(errors) == pytest.approx(float(1 - R), rel=2e-3)
    assert circular.circular_variance(errors) == pytest.approx(float(variance), rel=2e-3)
    assert circular.circular_kurtosis(errors) == pytest.approx(float(kurtosis), rel=2e-3, abs=5e-3)


@pytest.mark.slow
def test_the_bootstrap_interval_covers_the_truth() -> None:
    """The circular variance of a wrapped normal is its σ²."""
    rng = np.random.default_rng(0)
    ends = [circular.bootstrap_interval(circular.circular_variance, rng.normal(0, 0.4, 150), i) for i in range(60)]
    covered = np.mean([low < 0.16 < high for low, high in ends])
    assert 0.86 <= covered <= 1.0  # 95 % less three standard errors
    assert all(low < high < 3 * low for low, high in ends)


def test_the_bootstrap_draws_trials_not_items() -> None:
    """Eight items of one trial with the same error are worth one error, not eight."""
    errors = np.random.default_rng(1).normal(0, 0.4, 60)
    alone = circular.bootstrap_interval(circular.circular_sd, errors, 0)
    together = circular.bootstrap_interval(circular.circular_sd, np.repeat(errors[:, None], 8, axis=1), 0)
    assert together == pytest.approx(alone, rel=1e-6)
    apart = circular.bootstrap_interval(circular.circular_sd, np.repeat(errors, 8), 0)
    assert (apart[1] - apart[0]) < 0.5 * (alone[1] - alone[0])


def test_the_bootstrap_of_equal_errors_has_no_width_and_one_trial_has_none() -> None:
    low, high = circular.bootstrap_interval(circular.circular_sd, np.full(10, 0.7), 0)
    assert low == high == pytest.approx(0, abs=1e-15)
    with pytest.raises(ValueError, match="two trials"):
        circular.bootstrap_interval(circular.circular_sd, [0.1], 0)


def test_no_errors_is_no_sample() -> None:
    with pytest.raises(ValueError, match="no errors"):
        circular.circular_sd([])
