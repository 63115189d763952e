import math
from typing import get_args

import numpy as np
import pytest
import torch

from vwm.config import ErrorDef
from vwm.model.losses import absolute_error, decoded_angle, error_loss
from vwm.model.task import Trials

KINDS: tuple[ErrorDef, ...] = get_args(ErrorDef)


def one_trial(angle: list[float], present: list[bool]) -> Trials:
    theta = torch.tensor([angle], dtype=torch.float64)
    shown = torch.tensor([present])
    return Trials(shown.sum(1), shown, theta, theta)


def readout_at(angles: list[float], lengths: list[float]) -> torch.Tensor:
    """A read-out of one location over time: [steps, 1, 1, 2]."""
    pairs = [
        [length * math.cos(angle), length * math.sin(angle)] for angle, length in zip(angles, lengths, strict=True)
    ]
    return torch.tensor(pairs, dtype=torch.float64)[:, None, None, :]


def test_an_item_near_pi_is_decoded_from_the_average_pair_not_from_averaged_angles():
    trials = one_trial([math.pi - 0.01], [True])
    readout = readout_at([math.pi - 0.1, -math.pi + 0.1], [1.0, 1.0])  # the two angles average to 0
    assert abs(abs(decoded_angle(readout).item()) - math.pi) < 1e-12
    assert absolute_error(readout, trials).item() == pytest.approx(0.01)


@pytest.mark.parametrize("target", [-math.pi, -math.pi + 1e-9, math.pi - 1e-9])
def test_decoding_at_plus_and_minus_pi(target: float):
    trials = one_trial([target], [True])
    for angle in (math.pi, -math.pi, math.pi - 1e-6, -math.pi + 1e-6):
        assert absolute_error(readout_at([angle], [2.0]), trials).item() < 2e-6


def test_losses_by_hand():
    """Two steps of unequal length, so that the average pair and the average direction differ."""
    target, angles, lengths = 0.4, [0.9, 1.3], [2.0, 0.5]
    u = np.array([math.cos(target), math.sin(target)])
    steps = np.array([[length * math.cos(a), length * math.sin(a)] for a, length in zip(angles, lengths, strict=True)])
    mean = steps.mean(0)
    direction = (steps / np.linalg.norm(steps, axis=1, keepdims=True)).mean(0)
    delta = math.acos(u @ direction)
    expected = {
        "l2": np.sum((u - mean) ** 2),
        "sqrtl2": 10 * math.sqrt(np.linalg.norm(u - mean)),
        "rad": delta,
        "exp": -10 * math.exp(-3 * delta / math.pi),
        "norml2": np.linalg.norm(u - direction),
    }
    readout, trials = readout_at(angles, lengths), one_trial([target], [True])
    assert set(expected) == set(KINDS)
    for kind in KINDS:
        assert error_loss(kind, readout, trials).item() == pytest.approx(expected[kind], rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_only_shown_items_count_and_each_equally(kind: ErrorDef):
    random = torch.Generator().manual_seed(0)
    readout = torch.randn((4, 1, 3, 2), generator=random, dtype=torch.float64)
    angle = [0.5, -1.0, 2.0]
    each = [error_loss(kind, readout[:, :, i : i + 1], one_trial([angle[i]], [True])).item() for i in range(3)]
    both = error_loss(kind, readout, one_trial(angle, [True, False, True])).item()
    assert both == pytest.approx((each[0] + each[2]) / 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("angle", [0.0, 1.234, math.pi])
@pytest.mark.parametrize("opposite", [False, True])
def test_gradients_are_finite_at_an_error_of_zero_and_of_pi(
    kind: ErrorDef, dtype: torch.dtype, angle: float, opposite: bool
):
    decoded = angle + math.pi * opposite
    readout = readout_at([decoded, decoded], [1.0, 1.0]).to(dtype).requires_grad_()
    loss = error_loss(kind, readout, one_trial([angle], [True])).sum()
    loss.backward()
    assert loss.isfinite()
    assert readout.grad is not None
    assert readout.grad.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("trials_last", [False, True])
def test_gradients_are_those_of_finite_differences(kind: ErrorDef, trials_last: bool):
    """Whichever of its dimensions a read-out has next to each other in memory."""
    rng = torch.Generator().manual_seed(0)
    readout = torch.randn((4, 2, 3, 2, 2), generator=rng, dtype=torch.float64)
    if trials_last:
        readout = readout.movedim(2, -1).contiguous().movedim(-1, 2)
    angle = torch.rand((2, 3, 2), generator=rng, dtype=torch.float64)
    present = torch.tensor([[[True, True], [True, False], [False, True]]] * 2)
    trials = Trials(present.sum(-1), present, angle, angle)
    assert torch.autograd.gradcheck(lambda u: error_loss(kind, u, trials), readout.requires_grad_())


def test_a_silent_read_out_has_finite_gradients():
    for kind in KINDS:
        readout = torch.zeros((3, 1, 1, 2), requires_grad=True)
        error_loss(kind, readout, one_trial([0.3], [True])).sum().backward()
        assert readout.grad is not None
        assert readout.grad.isfinite().all()


def test_the_reported_error_is_the_mean_over_a_trial_of_wrapped_errors():
    trials = one_trial([3.0, 0.0, 0.0], [True, True, False])
    readout = torch.tensor([[[[math.cos(-3.0), math.sin(-3.0)], [0.0, 2.0], [1.0, 5.0]]]], dtype=torch.float64)
    expected = ((2 * math.pi - 6.0) + math.pi / 2) / 2
    assert absolute_error(readout, trials).item() == pytest.approx(expected)


def test_chance_is_half_pi():
    generator = torch.Generator().manual_seed(1)
    theta = torch.rand((100_000, 1), generator=generator, dtype=torch.float64) * 2 * math.pi - math.pi
    shown = torch.ones_like(theta, dtype=torch.bool)
    trials = Trials(shown.sum(1), shown, theta, theta)
    readout = torch.randn((1, 100_000, 1, 2), generator=generator, dtype=torch.float64)
    assert absolute_error(readout, trials).mean().item() == pytest.approx(math.pi / 2, abs=0.02)
