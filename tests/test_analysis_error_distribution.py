from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy.special import i0, i1

from tests.conftest import tiny
from tests.plain_recurrence import simulate_plainly
from vwm.analysis import error_distribution
from vwm.analysis.error_distribution import SEED, course_of_error
from vwm.analysis.results import write_result
from vwm.behaviour.circular import wrap
from vwm.behaviour.responses import Responses, read_run
from vwm.config import Configuration
from vwm.model.network import Network
from vwm.model.task import draw_trials


def network_of(configuration: Configuration) -> Network:
    return Network(configuration.model_params, torch.Generator().manual_seed(2), torch.float64)


def write_responses(path: Path, w: float, kappa: float, sizes: tuple[int, ...], trials: int) -> Responses:
    """Responses of a two-component mixture at every set size."""
    rng = np.random.default_rng(0)
    set_size = np.repeat(np.array(sizes, dtype=np.int16), trials)
    shown = np.arange(3) < set_size[:, None]
    target = rng.uniform(-np.pi, np.pi, shown.shape)
    guessed = rng.random(shown.shape) > w
    error = np.where(guessed, rng.uniform(-np.pi, np.pi, shown.shape), rng.vonmises(0, kappa, shown.shape))
    response = wrap(target + error)
    np.savez(
        path, set_size=set_size, target=np.where(shown, target, np.nan), response=np.where(shown, response, np.nan)
    )
    return read_run(path, "run")


def test_a_mixture_is_found_again_and_told_with_its_sds(tmp_path: Path):
    configuration = Configuration.model_validate(tiny())
    responses = write_responses(tmp_path / "responses.npz", 0.7, 12.0, (1, 3), 4000)
    result = error_distribution.analyse(network_of(configuration), configuration, responses)
    summary = result.summary()
    assert summary["set_size"] == [1, 3]
    assert summary["w"] == pytest.approx([0.7, 0.7], abs=0.03)
    assert summary["uniform_weight"] == pytest.approx([0.3, 0.3], abs=0.03)
    # SD of the von Mises, and of all errors: R is w times that of the von Mises.
    length = i1(12.0) / i0(12.0)
    assert summary["sd"] == pytest.approx([np.sqrt(-2 * np.log(length))] * 2, rel=0.05)
    expected = np.sqrt(-2 * np.log(0.7 * length))
    assert summary["circular_sd"] == pytest.approx([expected] * 2, rel=0.05)
    assert summary["sd_ratio"] == pytest.approx(np.array(summary["sd"]) / np.array(summary["circular_sd"]))
    for value, (low, high) in zip(summary["circular_variance"], summary["circular_variance_interval"], strict=True):
        assert low < value < high
    # The histogram is a density, and the mixture tells it up to the noise of counting.
    width = np.diff(result.edges)
    np.testing.assert_allclose(result.density @ width, 1)
    share = result.density[1] * width
    noise = np.sqrt(np.mean(share * (1 - share) / 12000)) / width[0]
    assert summary["mixture_misfit"][1] == pytest.approx(noise, rel=0.3)


def test_what_a_mixture_does_not_tell_is_seen(tmp_path: Path):
    """Errors away from the target, as a bias makes them, are in no mixture around it."""
    configuration = Configuration.model_validate(tiny())
    responses = write_responses(tmp_path / "responses.npz", 1.0, 12.0, (1,), 4000)
    biased = Responses(**(vars(responses) | {"response": wrap(responses.response + 0.5)}))
    network = network_of(configuration)
    plain, moved = (
        error_distribution.analyse(network, configuration, some).summary()["mixture_misfit"][0]
        for some in (responses, biased)
    )
    assert moved > 5 * plain


def test_the_course_of_the_error_is_that_of_the_states():
    configuration = Configuration.model_validate(tiny(model_params__spike_noise_factor=0.0))
    network = network_of(configuration)
    found = course_of_error(network, [1, 3], trials_of_each=50)
    for column, n in enumerate([1, 3]):
        generator = torch.Generator().manual_seed(SEED)
        trials = draw_trials(network.params, torch.full((50,), n), generator, torch.float64)
        rates, _, _ = simulate_plainly(network, trials, generator)
        pair = (rates.detach() @ network.readout.detach().T).view(*rates.shape[:2], 3, 2).numpy()
        error = np.abs(wrap(np.arctan2(pair[..., 1], pair[..., 0]) - trials.angle.numpy()))
        shown = trials.present.numpy()
        expected = np.where(shown, error, 0).sum(axis=2) / n
        np.testing.assert_allclose(found[:, column], expected.mean(axis=1), rtol=1e-9)


def test_every_number_is_written_with_its_meaning(tmp_path: Path):
    configuration = Configuration.model_validate(tiny())
    responses = write_responses(tmp_path / "responses.npz", 0.5, 5.0, (1, 2, 3), 200)
    result = error_distribution.analyse(network_of(configuration), configuration, responses)
    definitions = error_distribution.DEFINITIONS
    written = write_result(
        tmp_path / "analysis", "error_distribution", "abc", "0", definitions, result, error_distribution.plot(result)
    )
    assert sorted(written) == sorted((tmp_path / "analysis").iterdir())
    content = yaml.safe_load(written[0].read_text())
    assert set(content["result"]) == set(content["definitions"])
    assert content["result"]["p_n"][0] is None  # one item has no non-target
