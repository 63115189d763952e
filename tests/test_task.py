import math

import numpy as np
import pytest
import torch

from vwm.config import ModelParams
from vwm.model.task import Trials, draw_trials, equal_shares, input_code, wrap


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_equal_shares_give_the_left_over_to_the_first_set_sizes():
    sizes = equal_shares((1, 2, 4, 8), 30)
    counts = {n: int((sizes == n).sum()) for n in (1, 2, 4, 8)}
    assert counts == {1: 8, 2: 8, 4: 7, 8: 7}


def test_a_trial_shows_as_many_items_as_its_set_size_at_locations_drawn_without_bias():
    params = ModelParams(max_item_num=5, item_num=(2,))
    trials = draw_trials(params, torch.full((40_000,), 2), generator())
    assert (trials.present.sum(1) == 2).all()
    pairs = trials.present.double().T @ trials.present.double() / 40_000
    expected = np.full((5, 5), 0.1) + np.eye(5) * 0.3  # 2/5 on the diagonal, 1/10 for each of the ten pairs
    standard_error = math.sqrt(0.4 * 0.6 / 40_000)
    np.testing.assert_allclose(pairs.numpy(), expected, atol=5 * standard_error)


def test_angles_are_uniform_and_encoding_noise_has_its_standard_deviation():
    params = ModelParams(ILC_noise=0.3)
    trials = draw_trials(params, torch.full((20_000,), 10), generator(), torch.float64)
    angle = trials.angle.flatten().numpy()
    assert angle.min() >= -math.pi
    assert angle.max() < math.pi
    from scipy.stats import kstest, norm

    assert kstest((angle + math.pi) / (2 * math.pi), "uniform").pvalue > 1e-3
    difference = wrap(trials.encoded - trials.angle).flatten().numpy()
    assert kstest(difference / 0.3, norm.cdf).pvalue > 1e-3


def test_wrap_is_half_open():
    angles = torch.tensor([-math.pi, math.pi, 3 * math.pi, 0.5, -7.0], dtype=torch.float64)
    wrapped = wrap(angles)
    assert (wrapped >= -math.pi).all()
    assert (wrapped < math.pi).all()
    torch.testing.assert_close(wrapped.cos(), angles.cos())
    torch.testing.assert_close(wrapped.sin(), angles.sin())


@pytest.mark.parametrize("positive", [True, False])
def test_input_code_is_the_projection_on_the_axes_of_the_channels(positive: bool):
    params = ModelParams(max_item_num=3, item_num=(1, 2), positive_input=positive, input_strength=30.0)
    theta = torch.tensor([[0.3, -2.0, 1.1], [3.0, 0.0, -0.4]], dtype=torch.float64)
    present = torch.tensor([[True, False, True], [False, True, False]])
    code = input_code(params, Trials(present.sum(1), present, torch.zeros_like(theta), theta)).numpy()
    # The three axes are 120° apart and √(2/3) long; a channel is 1 + the projection of (cos, sin) on its axis.
    axes = np.deg2rad([30.0, 150.0, 270.0])
    for trial in range(2):
        for location in range(3):
            angle = theta[trial, location].item()
            expected = (
                1 + math.sqrt(2 / 3) * np.cos(angle - axes)
                if positive
                else np.array([math.cos(angle), math.sin(angle)])
            )
            expected = expected * present[trial, location].item() * 30 / 3
            width = len(expected)
            np.testing.assert_allclose(code[trial, location * width : (location + 1) * width], expected, atol=1e-12)
    if positive:
        assert code.min() >= 0


def test_phases_are_counted_in_steps():
    params = ModelParams()
    assert params.steps == 202
    assert params.stimulus_steps == range(2, 52)
    assert params.decode_steps == 50
    on = [t for t in range(params.steps) if params.T_init <= t * params.dt < params.T_init + params.T_stimi]
    assert on == list(params.stimulus_steps)
    read_out_from = int((params.T_init + params.T_stimi + params.T_delay) / params.dt)
    assert params.steps - params.decode_steps == read_out_from
