"""The gamma variate without rejection, against scipy's gamma law."""

import numpy as np
import pytest
import torch
from scipy.special import digamma, gammainc, gammaincc
from scipy.stats import kstest

from benchmarks.fit_gamma_quantile import accuracy
from vwm.model.gamma import gamma_quantile

SHAPES = [1e-4, 1e-3, 1e-2, 0.1, 0.5, 0.99, 1.0, 1.3, 2.0, 5.0, 50.0, 1e3, 1e4]
DRAWS = 1_000_000


def drawn(shape: float, dtype: torch.dtype = torch.float32, draws: int = DRAWS) -> tuple[np.ndarray, np.ndarray]:
    """Values and slopes from torch's own normal and uniform numbers."""
    generator = torch.Generator().manual_seed(7)
    normal = torch.randn(draws, generator=generator, dtype=torch.float64).to(dtype)
    uniform = torch.rand(draws, generator=generator, dtype=torch.float64).clamp_min(2.0**-25).to(dtype)
    z, slope = gamma_quantile(normal, uniform, torch.full((draws,), shape, dtype=dtype))
    return z.double().numpy(), slope.double().numpy()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_law_and_moments(shape: float, dtype: torch.dtype) -> None:
    z, _ = drawn(shape, dtype)
    assert np.isfinite(z).all()
    assert z.min() >= 0
    noise = 5 / np.sqrt(DRAWS)
    assert abs(z.mean() / shape - 1) < noise / np.sqrt(shape) + 1e-4
    fourth = 3 + 6 / shape  # kurtosis of a gamma variate
    assert abs(z.var() / shape - 1) < noise * np.sqrt(fourth - 1) + 5e-4
    if shape >= 0.1:  # below, nearly all draws are 0 to any precision, and the tail says more
        assert kstest(z, lambda x: gammainc(shape, x)).statistic < 2 / np.sqrt(DRAWS) + 2e-4
    for point in (0.1, 1.0, 3.0):
        expected = gammaincc(shape, point)
        assert abs((z > point).mean() - expected) < 5 * np.sqrt(expected / DRAWS) + 2e-4 * min(1, shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_errors_are_as_small_as_stated(shape: float) -> None:
    error = accuracy(shape)
    assert error["KS"] < 8e-5
    assert max(abs(error[name]) for name in ("mean", "gradient of the mean", "of E exp(−tz)")) < 4e-5
    assert abs(error["variance"]) < 2e-4
    assert abs(error["beyond 1e-6"]) < 1 / 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_slope_gives_the_gradient_of_expectations(shape: float, dtype: torch.dtype) -> None:
    """d E[f(z)]/dα in closed form for f(z) = z, z², exp(−tz) and log z, against the mean of f'(z)·dz/dα."""
    z, slope = drawn(shape, dtype)
    assert np.isfinite(slope).all()

    def agrees(samples: np.ndarray, expected: float) -> None:
        assert abs(samples.mean() - expected) < 5 * samples.std() / np.sqrt(DRAWS) + 2e-4 * abs(expected)

    agrees(slope, 1.0)
    agrees(2 * z * slope, 2 * shape + 1)
    t = 1 / max(1.0, shape)
    agrees(t * np.exp(-t * z) * slope, np.log1p(t) * (1 + t) ** -shape)  # E exp(−tz) = (1 + t)^−α
    if shape >= 0.5:  # E[log z] = ψ(α); for smaller shapes log z has no use
        h = 1e-4 * shape
        agrees(slope / np.maximum(z, 1e-300), float((digamma(shape + h) - digamma(shape - h)) / (2 * h)))


def test_the_slope_is_the_derivative_of_the_value() -> None:
    generator = torch.Generator().manual_seed(0)
    shape = torch.logspace(-2, 4, 2000, dtype=torch.float64).requires_grad_()
    normal = torch.randn(2000, generator=generator, dtype=torch.float64)
    uniform = torch.rand(2000, generator=generator, dtype=torch.float64)
    z, slope = gamma_quantile(normal, uniform, shape)
    (derivative,) = torch.autograd.grad(z.sum(), shape)
    torch.testing.assert_close(slope, derivative, rtol=1e-9, atol=1e-12)


def test_it_grows_with_the_normal_variate() -> None:
    normal = torch.linspace(-6.3, 6.3, 4001, dtype=torch.float64)
    for shape in [shape for shape in SHAPES if shape >= 1]:
        z, _ = gamma_quantile(normal, torch.ones_like(normal), torch.full_like(normal, shape))
        assert (z.diff() > 0).all()
