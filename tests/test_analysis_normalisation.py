"""Weights of populations whose normalisation is known."""

import numpy as np
import pytest
import torch

from tests.conftest import tiny
from vwm.analysis import normalisation
from vwm.analysis.normalisation import Result, fit_weights, weights_of_set_size
from vwm.behaviour.responses import Responses
from vwm.config import Configuration
from vwm.errors import UserError
from vwm.model.network import Network


def population(sets: int, n: int, units: int = 50) -> np.ndarray:
    """Responses to items alone, [sets, n, units], each summing to 1 over units."""
    drawn = np.random.default_rng(0).exponential(size=(sets, n, units))
    shares: np.ndarray = drawn / drawn.sum(axis=2, keepdims=True)
    return shares


def divided(drive: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Responses d/(σ + Σd) to all items together, and to each alone."""
    both = drive.sum(axis=1)
    return both / (sigma + both.sum(axis=1, keepdims=True)), drive / (sigma + drive.sum(axis=2, keepdims=True))


@pytest.mark.parametrize("sigma", [0.0, 0.5, 3.0, 1e6])
@pytest.mark.parametrize("n", [2, 5])
def test_weights_of_divisive_normalisation(sigma: float, n: int):
    """All drives sum to 1, so a response is divided by σ + n instead of σ + 1: Σw = n(σ + 1)/(σ + n)."""
    together, alone = divided(population(30, n), sigma)
    fit = fit_weights(together, alone)
    expected = (sigma + 1) / (sigma + n)
    np.testing.assert_allclose(fit.weights, expected)
    np.testing.assert_allclose(fit.r_squared, 1)
    np.testing.assert_allclose(fit.suppression, (1 - expected) / (1 + expected))


def test_unequal_weights_are_told_apart():
    alone = population(20, 2)
    fit = fit_weights(0.9 * alone[:, 0] + 0.2 * alone[:, 1], alone)
    np.testing.assert_allclose(fit.weights, np.tile([0.9, 0.2], (20, 1)))


def test_what_no_weight_explains_is_left_in_r_squared():
    """A part of the response in units where no item alone has any."""
    alone = np.concatenate([population(20, 2), np.zeros((20, 2, 1))], axis=2)
    together = alone.sum(axis=1)
    size = np.sum(together**2, axis=1)
    together[:, -1] = np.sqrt(size / 3)
    np.testing.assert_allclose(fit_weights(together, alone).r_squared, 0.75)


@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
def test_strength_is_the_exponent(strength: float):
    sizes = [2, 4, 8]
    fits = [fit_weights(alone.sum(axis=1) * n**-strength, alone) for n in sizes for alone in [population(10, n)]]
    result = Result(sizes, {"delay": fits}, {1: 10.0, 2: 5.0, 4: 2.0, 8: 1.0})
    assert result.strength("delay") == pytest.approx(strength)
    summary = result.summary()
    assert summary["information_ratio"] == pytest.approx([0.5, 0.2, 0.1])
    assert summary["phases"]["delay"]["gain"] == pytest.approx([n**-strength for n in sizes])


def test_a_network_with_units_of_their_own_for_each_location_adds_up():
    configuration = Configuration.model_validate(tiny(model_params__num_neurons=15))
    network = Network(configuration.model_params, torch.Generator().manual_seed(2), torch.float64)
    with torch.no_grad():
        network.recurrent.zero_()
        mask = torch.kron(torch.eye(3), torch.ones(5, 3))  # units × channels, location by location
        network.input.mul_(mask)
    for n in (2, 3):
        for fit in weights_of_set_size(network, n, torch.Generator().manual_seed(0), 20).values():
            np.testing.assert_allclose(fit.weights, 1)
            np.testing.assert_allclose(fit.suppression, 0, atol=1e-12)


def responses() -> Responses:
    set_size = np.repeat([1, 2, 3], 200)
    zeros = np.zeros(600)
    errors = np.random.default_rng(0).vonmises(0, 5, 600)
    return Responses("run", np.arange(600), set_size, zeros, errors, zeros[:, None])


def test_the_whole_analysis_gives_every_number_its_meaning():
    configuration = Configuration.model_validate(tiny())
    network = Network(configuration.model_params, torch.Generator().manual_seed(2))
    result = normalisation.analyse(network, configuration, responses())
    summary = result.summary()
    names = set(summary) | {name for phase in summary["phases"].values() for name in phase}
    assert names - {"phases"} == set(normalisation.DEFINITIONS)
    assert list(summary["phases"]) == ["stimulus", "delay", "read-out"]
    for phase in summary["phases"].values():
        for value, (low, high) in zip(phase["weight_sum"], phase["weight_sum_interval"], strict=True):
            assert low <= value <= high
    assert list(normalisation.plot(result)) == [""]


def test_a_network_of_one_item_is_refused():
    configuration = Configuration.model_validate(tiny(model_params__item_num=[1]))
    network = Network(configuration.model_params, torch.Generator().manual_seed(2))
    with pytest.raises(UserError, match="two items or more"):
        normalisation.analyse(network, configuration, responses())
