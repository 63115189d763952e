import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy.optimize import brentq

from tests.conftest import tiny
from tests.plain_recurrence import simulate_plainly
from vwm.analysis import fixed_points
from vwm.analysis.drift import drift_and_diffusion, one_item_trials
from vwm.analysis.fixed_points import _plane_angles, _principal
from vwm.analysis.phase_search import search_phase
from vwm.analysis.results import write_result
from vwm.behaviour.circular import wrap
from vwm.config import Configuration, ModelParams
from vwm.errors import UserError
from vwm.model.network import Network
from vwm.model.task import draw_trials


def network_of(configuration: Configuration, dtype: torch.dtype = torch.float32) -> Network:
    return Network(configuration.model_params, torch.Generator().manual_seed(2), dtype)


def test_the_flow_takes_states_to_the_points_on_their_side():
    """Two units that excite themselves, so that each is low or high whatever the other does."""
    configuration = Configuration(
        model_params=ModelParams(num_neurons=2, max_item_num=1, item_num=(1,), dales_law=False, spike_noise_factor=0)
    )
    network = network_of(configuration)
    with torch.no_grad():
        network.recurrent.copy_(torch.eye(2))

    def balance(r: float) -> float:
        return 30 * (1 + math.tanh(0.14 * r - 4.2)) - r

    low, middle, high = (brentq(balance, a, b) for a, b in ((0, 1), (10, 45), (50, 60)))
    generator = torch.Generator().manual_seed(0)
    trials = draw_trials(configuration.model_params, torch.tensor([1, 1]), generator)
    states = 60 * torch.rand(2, 40, 2, generator=generator, dtype=torch.float64)
    result = search_phase(network, configuration, trials, states, "fpf_delay", generator)

    summary = result.summary()
    assert summary["unique"] == 9
    assert summary["stable"] == 4
    assert summary["unstable_modes"] == {"0": 4, "1": 4, "2": 1}
    assert summary["basins"]["points_reached"] == 4
    points = result.found.points.numpy()[result.basin[:80]]
    expected = np.where(states.flatten(0, 1).numpy() > middle, high, low)
    np.testing.assert_allclose(points, expected, atol=1e-8)
    pair = points @ network.readout.detach().double().numpy().T
    decoded = result.decoded[result.basin[:80], 0]
    np.testing.assert_allclose(wrap(decoded - np.arctan2(pair[:, 1], pair[:, 0])), 0, atol=1e-5)


def test_under_a_stimulus_every_trial_has_points_of_its_own():
    """Without recurrence a rate goes to φ(B u), whatever it was."""
    configuration = Configuration.model_validate(tiny())
    network = network_of(configuration)
    with torch.no_grad():
        network.recurrent.zero_()
    generator = torch.Generator().manual_seed(0)
    trials = draw_trials(configuration.model_params, torch.tensor([1, 2, 3]), generator)
    states = 60 * torch.rand(3, 5, 16, generator=generator, dtype=torch.float64)
    found = search_phase(network, configuration, trials, states, "fpf_stimuli", generator).found
    assert found.group.tolist() == [0, 1, 2]
    np.testing.assert_allclose(found.points, 30 * (1 + np.tanh(0.14 * found.inputs.numpy() - 4.2)), atol=1e-9)
    slowest = -1 / found.eigenvalues.real[:, 0]
    np.testing.assert_allclose(slowest, float(network.tau.max()), rtol=1e-6)


def test_drift_without_recurrence_is_that_of_a_decay_and_there_is_no_diffusion():
    configuration = Configuration.model_validate(tiny(model_params__tau_min=100, model_params__tau_max=100))
    params = configuration.model_params
    network = network_of(configuration, torch.float64)
    with torch.no_grad():
        network.recurrent.zero_()
    drift = drift_and_diffusion(network, torch.Generator().manual_seed(0), angles=8, repeats=3)
    shown = torch.from_numpy(drift.shown)
    rates, _, _ = simulate_plainly(network, one_item_trials(params, shown), torch.Generator().manual_seed(1))
    # After the stimulus all rates fall by the same factor a step towards φ(0).
    last = rates[params.stimulus_steps.stop - 1]
    rest = 30 * (1 + math.tanh(-4.2))
    for step in range(len(drift.time)):
        left = rest + (last - rest) * (1 - params.dt / 100) ** step
        pair = (left @ network.readout.T).view(3, 8, 3, 2)
        for place in range(3):
            expected = torch.atan2(pair[place, :, place, 1], pair[place, :, place, 0]).detach().numpy()
            np.testing.assert_allclose(wrap(drift.held[step, place] - expected), 0, atol=1e-9)
    assert drift.variance_slope == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(drift.spread, 0, atol=1e-20)
    bias = np.mean(wrap(drift.held - drift.shown) ** 2, axis=(1, 2))
    np.testing.assert_allclose(drift.squared_error, bias)
    np.testing.assert_allclose(drift.foretold, bias, atol=1e-12)
    # At rest nothing of the stimulus is left: one angle a location.
    assert drift.attractors() == [1, 1, 1]


def test_spread_is_the_variance_of_noisy_trials():
    configuration = Configuration.model_validate(tiny(model_params__max_item_num=1, model_params__item_num=[1]))
    network = network_of(configuration, torch.float64)
    repeats = 400
    drift = drift_and_diffusion(network, torch.Generator().manual_seed(0), angles=4, repeats=repeats)
    trials = one_item_trials(configuration.model_params, torch.from_numpy(drift.shown), 4000)
    rates, _, _ = simulate_plainly(network, trials, torch.Generator().manual_seed(1))
    pair = rates[configuration.model_params.stimulus_steps.stop - 1 :].detach() @ network.readout.detach().T
    angle = torch.atan2(pair[..., 1], pair[..., 0]).view(len(drift.time), 4, 4000).numpy()
    expected = wrap(angle - drift.held[:, 0, :, None]).var(axis=2).mean(axis=1)
    np.testing.assert_allclose(drift.spread, expected, rtol=0.15)
    measured = np.mean(wrap(angle - drift.shown[:, None]) ** 2, axis=(1, 2))
    np.testing.assert_allclose(drift.squared_error, measured, rtol=0.1)
    # Least squares go through the mean of what they are fitted to, and at their slope leave nothing to be gained.
    fitted = (drift.time >= drift.fitted[0]) & (drift.time <= drift.fitted[1])
    left = (drift.spread - drift.variance_offset - drift.variance_slope * drift.time / 1000)[fitted]
    assert left.mean() == pytest.approx(0, abs=1e-9)
    assert np.dot(left, drift.time[fitted]) == pytest.approx(0, abs=1e-6)


def test_planes_and_components():
    axes = np.eye(5)
    np.testing.assert_allclose(_plane_angles(axes[:, :2], axes[:, :2] @ np.array([[1, 2], [0, 3.0]])), 0, atol=1e-5)
    np.testing.assert_allclose(_plane_angles(axes[:, :2], axes[:, 2:4]), 90)
    tilted = np.stack([axes[:, 0], np.cos(0.3) * axes[:, 1] + np.sin(0.3) * axes[:, 2]], axis=1)
    np.testing.assert_allclose(_plane_angles(axes[:, :2], tilted), [0, np.degrees(0.3)], atol=1e-5)
    states = np.random.default_rng(0).normal(size=(4000, 5)) * np.array([3, 0, 2, 0, 1]) + 7
    components, explained = _principal(states)
    np.testing.assert_allclose(explained, np.array([9, 4, 1]) / 14, atol=0.02)
    np.testing.assert_allclose(np.abs(components[[0, 2, 4]]), np.eye(3), atol=0.05)


@pytest.mark.parametrize("phases", [["fpf_NoFps"], ["fpf_init", "fpf_stimuli", "fpf_delay", "fpf_decode"]])
def test_every_file_is_written_and_says_what_its_numbers_mean(tmp_path: Path, phases: list[str]):
    configuration = Configuration.model_validate(
        tiny() | {"fpf_params": {"fpf_names": phases, "fpf_trials": 3, "fpf_N_init": 2}}
    )
    network = network_of(configuration)
    result = fixed_points.analyse(network, configuration)
    folder = tmp_path / "my 'run'" / "analysis"
    folder.parent.mkdir()
    drawn = fixed_points.plot(result)
    written = write_result(folder, "fixed_points", "abc", "0", fixed_points.DEFINITIONS, result, drawn)
    assert sorted(written) == sorted(folder.iterdir())
    content = yaml.safe_load((folder / "fixed_points.yaml").read_text())
    assert list(content["result"]["phases"]) == [name for name in phases if name != "fpf_NoFps"]
    assert ("eigenvalues" in drawn) == (phases != ["fpf_NoFps"])

    def names(tree: dict[str, object]) -> set[str]:
        return set(tree) | {name for value in tree.values() if isinstance(value, dict) for name in names(value)}

    explained = set(content["definitions"])
    for phase in content["result"]["phases"].values():
        assert {"starts", "converged", "unique", "stable", "slow_points", "basins"} <= set(phase) & explained
        # Every start is a root's or a slow point's.
        assert phase["converged"] + phase["slow_points"] == sum(phase["starts"].values())
    assert set(content["result"]["memory_of_one_item"]) <= explained
    with np.load(folder / "fixed_points.npz", allow_pickle=False) as arrays:
        assert np.isfinite(arrays["drift_held"]).all()
    assert str(fixed_points.analyse(network, configuration).summary()) == str(result.summary())


@pytest.mark.parametrize(
    ("search", "pictures"),
    [
        ({"fpf_names": ["fpf_delay"]}, ["trajectories"]),
        ({"fpf_names": ["fpf_NoFps"]}, ["trajectories"]),
        ({"fpf_names": ["fpf_NoFps", "fpf_delay"]}, ["trajectories", "trajectories_alone"]),
        ({"fpf_names": ["fpf_NoFps", "fpf_delay"], "fpf_pca_bool": False}, []),
    ],
)
def test_the_configuration_says_which_pictures_in_principal_components_there_are(
    search: dict[str, object], pictures: list[str]
):
    """Trajectories are lines, fixed points are scattered."""
    configuration = Configuration.model_validate(tiny() | {"fpf_params": {"fpf_trials": 3, "fpf_N_init": 2, **search}})
    result = fixed_points.analyse(network_of(configuration), configuration)
    drawn = fixed_points.plot(result)
    assert [name for name in drawn if "trajectories" in name] == pictures
    for name in pictures:
        has_points = name == "trajectories" and search["fpf_names"] != ["fpf_NoFps"]
        flat, deep, *_ = drawn[name].axes
        for panel in (flat, deep):
            assert len(panel.lines) > 0
            assert bool(panel.collections) == has_points


def test_weights_that_are_not_finite_are_refused():
    configuration = Configuration.model_validate(tiny())
    network = network_of(configuration)
    with torch.no_grad():
        network.recurrent[0, 0] = math.nan
    with pytest.raises(UserError, match="1 of 256 numbers of 'recurrent' are NaN"):
        fixed_points.analyse(network, configuration)


def test_the_configuration_bounds_the_iterations_of_a_search():
    found = {}
    for most in (1, 200):
        search = {"fpf_names": ["fpf_delay"], "fpf_trials": 4, "fpf_N_init": 3, "fpf_hps": {"max_iters": most}}
        configuration = Configuration.model_validate(tiny() | {"fpf_params": search})
        (phase,) = fixed_points.analyse(network_of(configuration), configuration).summary()["phases"].values()
        found[most] = phase["converged"]
    assert found[1] < found[200]
