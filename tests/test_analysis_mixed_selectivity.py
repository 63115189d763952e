"""Selectivity of networks whose units see what they see by construction."""

import numpy as np
import pytest
import torch

from tests.conftest import tiny
from vwm.analysis import mixed_selectivity
from vwm.analysis.mean_rates import groups_of
from vwm.analysis.mixed_selectivity import Result, responses_at, tuning_curves
from vwm.config import Configuration
from vwm.errors import UserError
from vwm.model.network import Network

UNITS = 30


def network_with_inputs(mask: torch.Tensor, **changes: object) -> Network:
    """A network without recurrence in which units see the channels (location by location) of the mask."""
    changes = {"model_params__num_neurons": UNITS, "model_params__input_strength": 60, **changes}
    params = Configuration.model_validate(tiny(**changes)).model_params
    network = Network(params, torch.Generator().manual_seed(2), torch.float64)
    with torch.no_grad():
        network.recurrent.zero_()
        network.input.copy_(network.input.abs()[:, :3].repeat(1, 3) * mask)
    return network


def separate() -> torch.Tensor:
    """Units of their own for each location, inside both groups."""
    return torch.kron(torch.eye(3).repeat(2, 1), torch.ones(UNITS // 6, 3))


def test_units_of_one_location_are_pure():
    network = network_with_inputs(separate(), model_params__input_strength=120)
    places = torch.arange(3).repeat(2).repeat_interleave(UNITS // 6).numpy()
    for n in (1, 2, 3):
        for phase, found in responses_at(network, n, groups_of(network), torch.Generator().manual_seed(0)).items():
            tuned = found.is_selective & (found.vector_strength > 0.3)
            assert tuned.sum() >= 5
            np.testing.assert_array_equal(found.squared_strength.argmax(axis=1)[tuned], places[tuned], err_msg=phase)
            np.testing.assert_allclose(found.effective_items[tuned], 1, atol=0.1)
            np.testing.assert_allclose(found.interaction_share[tuned], 0, atol=1e-12)
            # A location's own units span two dimensions for the circle of its angles and one for its presence.
            assert 1 < found.dimension["excitatory"] < 9


def test_units_that_see_all_locations_alike_are_mixed():
    network = network_with_inputs(torch.ones(UNITS, 9), model_params__input_strength=35)
    for n in (2, 3):
        found = responses_at(network, n, groups_of(network), torch.Generator().manual_seed(0))["stimulus"]
        tuned = found.is_selective & (found.vector_strength > 0.2)
        assert tuned.sum() >= 5
        np.testing.assert_allclose(found.effective_items[tuned], 3, atol=0.4)
        assert (found.interaction_share[tuned] > 1e-3).all()  # the activation function is not linear


def test_vector_strength_of_samples_is_that_of_the_tuning_curve():
    network = network_with_inputs(separate())
    found = responses_at(network, 1, groups_of(network), torch.Generator().manual_seed(0))
    for phase, curves in tuning_curves(network).items():
        angle = np.arange(curves.shape[2]) * 2 * np.pi / curves.shape[2] - np.pi
        exact = np.abs(curves @ np.exp(1j * angle)) / curves.sum(axis=2)
        np.testing.assert_allclose(found[phase].vector_strength, exact.max(axis=1), atol=0.07)


def test_the_whole_analysis_gives_every_number_its_meaning():
    configuration = Configuration.model_validate(tiny())
    network = Network(configuration.model_params, torch.Generator().manual_seed(2))
    result = mixed_selectivity.analyse(network, configuration)
    summary = result.summary()
    names = {"set_size"}
    for phase in ("stimulus", "delay", "read-out"):
        for group in ("excitatory", "inhibitory"):
            measures = summary["phases"][phase][group]
            names |= set(measures)
            kinds = [measures[f"{kind}_share"] for kind in ("unselective", "pure", "linear_mixed", "nonlinear_mixed")]
            np.testing.assert_allclose(np.sum(kinds, axis=0), [np.nan, 1, 1])  # one item cannot be mixed with another
            for share, (low, high) in zip(
                measures["interaction_share"], measures["interaction_share_interval"], strict=True
            ):
                assert low <= share <= high
            assert measures["interaction_share"][0] == pytest.approx(0, abs=1e-9)
            assert measures["accuracy_item"] > 0.53
    assert names == set(mixed_selectivity.DEFINITIONS)
    assert len(result.columns()) == 16
    assert set(mixed_selectivity.plot(result)) == {"", "tuning"}


def test_units_that_are_not_told_apart_are_one_group():
    configuration = Configuration.model_validate(
        tiny(model_params__dales_law=False, model_params__item_num=[2], model_params__spike_noise_factor=0.0)
    )
    network = Network(configuration.model_params, torch.Generator().manual_seed(2))
    result = mixed_selectivity.analyse(network, configuration)
    assert isinstance(result, Result)
    assert list(result.groups) == ["all"]
    assert set(mixed_selectivity.plot(result)) == {"", "tuning"}


def test_a_network_of_one_item_is_refused():
    configuration = Configuration.model_validate(tiny(model_params__item_num=[1]))
    network = Network(configuration.model_params, torch.Generator().manual_seed(2))
    with pytest.raises(UserError, match="two items or more"):
        mixed_selectivity.analyse(network, configuration)
