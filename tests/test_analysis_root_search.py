"""Fixed points of systems whose answer is known."""

import math
from itertools import product

import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor

from vwm.analysis.adam_on_q import adam_on_q
from vwm.analysis.dynamics import NetworkFlow, settle
from vwm.analysis.root_search import FixedPoints, find_fixed_points
from vwm.config import ModelParams
from vwm.model.network import Network


class Inhibiting:
    """Two units that inhibit each other, dx = −x + tanh(−g y): roots at 0 and, for g > 1, ±(a, −a), a = tanh g a."""

    def velocity(self, states: Tensor, inputs: Tensor) -> Tensor:
        return -states + torch.tanh(-inputs * states.flip(1))

    def jacobian(self, states: Tensor, inputs: Tensor) -> Tensor:
        slope = -inputs * (1 - torch.tanh(-inputs * states.flip(1)) ** 2)
        swap = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=states.dtype)
        return slope[:, :, None] * swap - torch.eye(2, dtype=states.dtype)


class Bistable:
    """Units that do not know of each other, dx = x − x³: every coordinate is −1, 0 or 1, and 0 is unstable."""

    def velocity(self, states: Tensor, inputs: Tensor) -> Tensor:
        return states - states**3

    def jacobian(self, states: Tensor, inputs: Tensor) -> Tensor:
        return torch.diag_embed(1 - 3 * states**2)


class Spiral:
    """A linear pair of an excitatory and an inhibitory unit, dx = A x + u, with the eigenvalues −ε ± iω."""

    decay, frequency = 0.05, 1.0

    def __init__(self) -> None:
        self.matrix = torch.tensor([[-self.decay, -self.frequency], [self.frequency, -self.decay]], dtype=torch.float64)

    def velocity(self, states: Tensor, inputs: Tensor) -> Tensor:
        return states @ self.matrix.T + inputs

    def jacobian(self, states: Tensor, inputs: Tensor) -> Tensor:
        return self.matrix.expand(len(states), 2, 2)


class NoRoot:
    """dx = 1 + x²: q has its minimum at 0, where there is no fixed point; the ghost of a saddle-node."""

    def velocity(self, states: Tensor, inputs: Tensor) -> Tensor:
        return 1 + states**2

    def jacobian(self, states: Tensor, inputs: Tensor) -> Tensor:
        return 2 * states[:, :, None]


def starts_of(count: int, n: int, scale: float) -> Tensor:
    return scale * torch.randn(count, n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def nothing(starts: Tensor) -> tuple[Tensor, Tensor]:
    """No input, one group."""
    return torch.zeros(len(starts), 1, dtype=starts.dtype), torch.zeros(len(starts), dtype=torch.long)


def sorted_rows(points: Tensor) -> Tensor:
    return torch.tensor(sorted(points.tolist()), dtype=points.dtype)


def check_inhibiting(found: FixedPoints, tolerance: float) -> None:
    a = brentq(lambda x: math.tanh(2 * x) - x, 0.5, 1, xtol=1e-15)
    expected = torch.tensor([[-a, a], [0.0, 0.0], [a, -a]], dtype=torch.float64)
    torch.testing.assert_close(sorted_rows(found.points), expected, rtol=0, atol=tolerance)
    modes = {round(float(point[0])): int(n) for point, n in zip(found.points, found.unstable_modes, strict=True)}
    assert modes == {-1: 0, 0: 1, 1: 0}


def test_two_units_that_inhibit_each_other_have_three_points():
    starts = starts_of(60, 2, 1.5)
    inputs, group = torch.full((60, 1), 2.0, dtype=torch.float64), torch.zeros(60, dtype=torch.long)
    found = find_fixed_points(Inhibiting(), starts, inputs, group, dt=0.1)
    check_inhibiting(found, 1e-13)
    assert found.q.max() < 1e-28
    assert (found.reached >= 0).all()
    # At 0 the eigenvalues are −1 ± g.
    middle = found.eigenvalues[found.unstable_modes == 1][0]
    torch.testing.assert_close(middle.real, torch.tensor([1.0, -3.0], dtype=torch.float64))
    check_inhibiting(adam_on_q(Inhibiting(), starts, inputs, group, 0.1, learning_rate=0.05, max_iterations=3000), 1e-3)


def test_a_grid_of_nine_points():
    starts = starts_of(300, 2, 1.0)
    found = find_fixed_points(Bistable(), starts, *nothing(starts), dt=0.1)
    expected = torch.tensor(sorted(product([-1.0, 0.0, 1.0], repeat=2)), dtype=torch.float64)
    torch.testing.assert_close(sorted_rows(found.points.round(decimals=9) + 0.0), expected, rtol=0, atol=1e-9)
    for point, modes in zip(found.points, found.unstable_modes, strict=True):
        assert int(modes) == int((point.abs() < 0.5).sum())
    assert len(found.slow) == 0


def test_points_of_different_inputs_are_not_merged():
    starts = starts_of(40, 2, 1.5)
    group = torch.arange(40) % 2
    gains = torch.where(group == 0, 0.5, 2.0).double()[:, None]  # one fixed point below g = 1, three above
    found = find_fixed_points(Inhibiting(), starts, gains, group, dt=0.1)
    assert found.group.tolist() == [0, 1, 1, 1]
    assert (found.group[found.reached] == group).all()


def test_a_spiral_is_stable_in_the_flow_and_not_in_the_map_of_a_long_step():
    system, starts = Spiral(), starts_of(5, 2, 3.0)
    inputs = torch.tensor([[1.0, 2.0]], dtype=torch.float64).repeat(5, 1)
    # |1 + dt·λ|² = (1 − ε dt)² + (ω dt)² exceeds 1 for dt > 2ε/(ε² + ω²).
    longest = 2 * system.decay / (system.decay**2 + system.frequency**2)
    for dt, unstable in ((0.99 * longest, 0), (1.01 * longest, 2)):
        found = find_fixed_points(system, starts, inputs, torch.zeros(5, dtype=torch.long), dt=dt)
        expected = torch.linalg.solve(system.matrix, -inputs[0])
        torch.testing.assert_close(found.points, expected[None])
        assert found.unstable_modes.tolist() == [0]
        assert found.unstable_modes_of_map.tolist() == [unstable]
        assert sorted(found.eigenvalues[0].imag.tolist()) == pytest.approx([-1.0, 1.0])


def test_a_minimum_of_q_without_a_root_is_kept_apart():
    starts = starts_of(20, 1, 1.0)
    found = find_fixed_points(NoRoot(), starts, *nothing(starts), dt=1.0)
    assert len(found.points) == 0
    assert (found.reached == -1).all()
    assert len(found.slow) == 20
    torch.testing.assert_close(found.slow_q, torch.full((20,), 0.5, dtype=torch.float64), rtol=1e-2, atol=0)


def bistable_network() -> tuple[Network, float]:
    """Two rate units without τ differences, each exciting itself: r = φ(w r) has three solutions."""
    params = ModelParams(
        num_neurons=2, max_item_num=1, item_num=(1,), dales_law=False, saturation_firing_rate=60.0, spike_noise_factor=0
    )
    network = Network(params, torch.Generator().manual_seed(0))
    with torch.no_grad():
        network.recurrent.copy_(torch.eye(2))
    return network, 1.0


def test_a_bistable_rate_unit():
    network, weight = bistable_network()

    def balance(r: float) -> float:
        return 30 * (1 + math.tanh(0.14 * weight * r - 4.2)) - r

    roots = [brentq(balance, low, high, xtol=1e-14) for low, high in ((0, 1), (10, 45), (50, 60))]
    starts = 60 * torch.rand(200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    inputs, group = torch.zeros_like(starts), torch.zeros(200, dtype=torch.long)
    system = NetworkFlow(network)
    found = find_fixed_points(system, starts, inputs, group, dt=10.0)
    expected = torch.tensor(sorted(product(roots, repeat=2)), dtype=torch.float64)
    assert len(found.points) == 9
    for point in expected:
        assert float((found.points - point).abs().amax(1).min()) < 1e-10
    # The time constant of a mode is τ/(1 − φ'(x) w), with φ' = 0.14·30·(1 − tanh²).
    low = found.eigenvalues[(found.points.amax(1) < 1)][0].real
    slope = 0.14 * 30 * (1 - math.tanh(0.14 * roots[0] - 4.2) ** 2)
    rates = sorted(((slope - 1) / network.tau.double()).tolist(), reverse=True)
    assert low.tolist() == pytest.approx(rates, rel=1e-9)
    # The flow takes a start to the side of the middle root on which it is.
    ends = settle(system, starts, inputs, 10.0, 5000, 1e-12)
    expected = torch.tensor(roots, dtype=torch.float64)[torch.where(starts > roots[1], 2, 0)]
    torch.testing.assert_close(ends, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("saturation", [60.0, 0.0])
def test_the_jacobian_of_a_network_is_that_of_autograd(saturation: float):
    params = ModelParams(num_neurons=6, max_item_num=2, item_num=(1,), saturation_firing_rate=saturation)
    system = NetworkFlow(Network(params, torch.Generator().manual_seed(3)))
    states = 40 * torch.rand(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    inputs = 20 * torch.rand(4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for number in range(4):
        expected = torch.autograd.functional.jacobian(
            lambda x, number=number: system.velocity(x[None], inputs[number][None])[0], states[number]
        )
        torch.testing.assert_close(system.jacobian(states, inputs)[number], expected)
