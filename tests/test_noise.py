import math

import numpy as np
import pytest
import torch
from scipy.special import gammainc, gammaincinv
from scipy.stats import norm

from vwm.config import GammaSampler, ModelParams, SpikeNoiseType
from vwm.model.noise import strength, transmitted, transmitted_by_torch
from vwm.model.variates import draw_keys

DRAWS = 400_000


def params(kind: SpikeNoiseType, k: float, sampler: GammaSampler = "quantile") -> ModelParams:
    return ModelParams(spike_noise_type=kind, spike_noise_factor=k, gamma_sampler=sampler)


class Transmit(torch.autograd.Function):
    """Transmitted rates with their slopes, as the recurrence uses the two."""

    @staticmethod
    def forward(ctx, params: ModelParams, rates: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        spread = torch.tensor(strength(params), dtype=rates.dtype)
        if params.gamma_sampler == "torch":
            value, slope = transmitted_by_torch(params.spike_noise_type, rates, spread, generator)
        else:
            value, slope = transmitted(params.spike_noise_type, rates[None], draw_keys(1, generator), spread)
            value, slope = value[0], slope[0]
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):
        return None, gradient * ctx.saved_tensors[0], None


def transmit(params: ModelParams, rates: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    drawn: torch.Tensor = Transmit.apply(params, rates, generator)
    return drawn


def moments(kind: SpikeNoiseType, k: float, rate: float) -> tuple[float, float]:
    """Mean and variance by the closed forms; a Gaussian that is cut at 0 has those of the rectified normal."""
    dt = 10.0
    if kind == "gamma":
        return rate, rate * k**2 * 1000 / dt
    if kind == "csnr":
        return rate, rate**2 / (5 * (dt / 1000) / k**2)
    sd = k * math.sqrt(1000 * rate / dt) if kind == "gauss" else 15 * k
    z = rate / sd
    mean = rate * norm.cdf(z) + sd * norm.pdf(z)
    return mean, (rate**2 + sd**2) * norm.cdf(z) + rate * sd * norm.pdf(z) - mean**2


@pytest.mark.parametrize("kind", ["gamma", "gauss", "puregauss", "csnr"])
@pytest.mark.parametrize("k", [0.05, 0.3])
@pytest.mark.parametrize("rate", [0.5, 5.0, 40.0])
def test_mean_and_variance_of_every_kind(kind: SpikeNoiseType, k: float, rate: float):
    generator = torch.Generator().manual_seed(3)
    drawn = transmit(params(kind, k), torch.full((DRAWS,), rate, dtype=torch.float64), generator).numpy()
    mean, variance = moments(kind, k, rate)
    assert drawn.min() >= 0
    assert abs(drawn.mean() - mean) < 5 * math.sqrt(variance / DRAWS)
    fourth = ((drawn - drawn.mean()) ** 4).mean()
    assert abs(drawn.var() - variance) < 5 * math.sqrt((fourth - variance**2) / DRAWS)


def test_csnr_equals_gamma_at_five_hertz():
    np.testing.assert_allclose(moments("csnr", 0.2, 5.0), moments("gamma", 0.2, 5.0))
    rate = torch.full((1000,), 5.0, dtype=torch.float64)
    gamma, csnr = (transmit(params(kind, 0.2), rate, torch.Generator().manual_seed(1)) for kind in ("gamma", "csnr"))
    torch.testing.assert_close(gamma, csnr)


# The quantile sampler gives the slope of the quantile from shape 1 on, which is a rate of 1 Hz here.
@pytest.mark.parametrize(
    ("sampler", "rate"),
    [("torch", rate) for rate in (0.02, 0.5, 3.0, 20.0, 60.0)] + [("quantile", rate) for rate in (3.0, 20.0, 60.0)],
)
def test_gradient_of_gamma_is_the_slope_of_its_quantile(sampler: GammaSampler, rate: float):
    k, dt = 0.1, 10.0
    rates = torch.full((2000,), rate, dtype=torch.float64, requires_grad=True)
    drawn = transmit(params("gamma", k, sampler), rates, torch.Generator().manual_seed(5))
    drawn.sum().backward()
    assert rates.grad is not None
    precision = dt / 1000 / k**2
    shape, z = rate * precision, drawn.detach().numpy() * precision
    u, step = gammainc(shape, z), 1e-5 * shape
    # Draws so far out that the quantile function runs out of digits tell nothing.
    inside = (u > 1e-4) & (u < 1 - 1e-4)
    slope = (gammaincinv(shape + step, u) - gammaincinv(shape - step, u)) / (2 * step)
    np.testing.assert_allclose(rates.grad.numpy()[inside], slope[inside], rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("kind", ["gauss", "puregauss", "csnr"])
def test_gradients_of_the_other_kinds_agree_with_differences(kind: SpikeNoiseType):
    def drawn(rates: torch.Tensor) -> torch.Tensor:
        return transmit(params(kind, 0.2), rates, torch.Generator().manual_seed(9))

    rates = torch.linspace(0.5, 50, 200, dtype=torch.float64).requires_grad_()
    value = drawn(rates)
    value.sum().backward()
    assert rates.grad is not None
    step = 1e-6
    with torch.no_grad():
        slope = (drawn(rates + step) - drawn(rates - step)) / (2 * step)
    torch.testing.assert_close(rates.grad, slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["gamma", "gauss", "puregauss", "csnr"])
def test_a_rate_of_zero_has_finite_draws_and_gradients(kind: SpikeNoiseType):
    rates = torch.zeros(1000, requires_grad=True)
    drawn = transmit(params(kind, 0.05), rates, torch.Generator().manual_seed(0))
    drawn.sum().backward()
    assert drawn.isfinite().all()
    assert rates.grad is not None
    assert rates.grad.isfinite().all()


def test_gamma_is_refreshed_at_every_draw():
    generator = torch.Generator().manual_seed(0)
    rates = torch.full((50,), 10.0)
    first, second = transmit(params("gamma", 0.1), rates, generator), transmit(params("gamma", 0.1), rates, generator)
    assert (first != second).all()
