"""Structure of weights that were made to have it."""

from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import tiny
from vwm.analysis import weights
from vwm.analysis.mean_rates import mean_rates
from vwm.analysis.weights import Result, shuffled_radii, sorted_units
from vwm.behaviour.circular import wrap
from vwm.config import Configuration
from vwm.errors import UserError
from vwm.model.network import Network
from vwm.model.task import Trials, input_code

UNITS = 40


def network_of(**changes: object) -> tuple[Network, Configuration]:
    changes = {"model_params__num_neurons": UNITS, "model_params__max_item_num": 1, **changes}
    changes = {"model_params__item_num": list(range(1, int(str(changes["model_params__max_item_num"])) + 1)), **changes}
    configuration = Configuration.model_validate(tiny(**changes))
    return Network(configuration.model_params, torch.Generator().manual_seed(0), torch.float64), configuration


def analysed(recurrent: np.ndarray, **changes: object) -> Result:
    """The weights of a network with these recurrent ones."""
    network, configuration = network_of(**changes)
    with torch.no_grad():
        network.recurrent.copy_(torch.from_numpy(recurrent))
    return weights.analyse(network, configuration)


def ring(network: Network) -> np.ndarray:
    """Read-out weights such that pairs of units in each group tell angles around the circle; returns the angles."""
    around = np.arange(UNITS // 4) * 2 * np.pi / (UNITS // 4) - np.pi
    angle = np.tile(np.repeat(around, 2), 2)
    with torch.no_grad():
        network.readout.copy_(torch.from_numpy(np.stack([np.cos(angle), np.sin(angle)])))
    return angle


def test_weights_by_difference_of_preferred_angle():
    """Weights 2 + cos(difference) from everyone to everyone: each block shows them, inhibition with its sign."""
    network, configuration = network_of()
    angle = ring(network)
    with torch.no_grad():
        network.recurrent.copy_(torch.from_numpy(2 + np.cos(angle[:, None] - angle)))
    result = weights.analyse(network, configuration)
    for name, block in result.blocks().items():
        source, _, target = name.partition("_to_")
        x, means = result.by_difference(block, result.groups[source], result.groups[target])
        sign = 1 if source == "excitatory" else -1
        # A bin of 30° holds one of the differences, which are 36° apart, or none.
        known = np.isfinite(means)
        assert known.sum() == UNITS // 4
        np.testing.assert_allclose(means[known], sign * (2 + np.cos(x[known])), atol=0.25)
        assert sign * means[np.argmin(np.abs(x))] == pytest.approx(3)
    angles = np.angle(result.preferred[:, 0])
    np.testing.assert_allclose(wrap(angles - angle), 0, atol=1e-12)
    assert (np.diff(angles[result.order][: UNITS // 2]) >= 0).all()


def test_units_are_sorted_by_group_then_location_then_angle():
    preferred = np.array([[1, 2j], [3, 1], [1, -2j], [0.1j, 0], [2, 5], [1, 0]])
    groups = {"excitatory": slice(0, 3), "inhibitory": slice(3, 6)}
    assert sorted_units(preferred, groups).tolist() == [1, 2, 0, 5, 3, 4]


def test_spectrum_of_a_matrix_of_rank_one():
    """All weights w: one eigenvalue, w times (excitatory − inhibitory) units, here 0 and with 30 to 10 half of N w."""
    result = analysed(np.full((UNITS, UNITS), 0.5))
    assert result.summary()["spectral_radius"] == pytest.approx(0, abs=1e-6)
    assert result.summary()["dimension_of_weights"] == pytest.approx(1)
    assert result.summary()["balance_of_weights"] == pytest.approx(1)
    result = analysed(np.full((UNITS, UNITS), 0.5), model_params__dales_law=False)
    assert result.summary()["spectral_radius"] == pytest.approx(UNITS / 2)
    assert result.summary()["spectral_abscissa"] == pytest.approx(UNITS / 2)
    assert result.summary()["balance_of_weights"] == 0
    assert list(result.blocks()) == ["all_to_all"]


def test_spectrum_of_an_orthogonal_matrix():
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(UNITS, UNITS)))[0]
    result = analysed(turn, model_params__dales_law=False)
    np.testing.assert_allclose(np.abs(result.eigenvalues), 1)
    assert result.summary()["dimension_of_weights"] == pytest.approx(UNITS)
    assert (np.diff(result.eigenvalues.real) <= 1e-12).all()


def test_shuffling_keeps_blocks_and_follows_the_circular_law():
    rng = np.random.default_rng(1)
    free = rng.normal(size=(200, 200)) / np.sqrt(200)
    assert shuffled_radii(free, {"all": slice(0, 200)}).mean() == pytest.approx(1, abs=0.1)
    blocks = np.kron(np.array([[3.0, -1.0], [2.0, -4.0]]), np.ones((5, 5)))  # nothing inside a block to shuffle
    radii = shuffled_radii(blocks, {"excitatory": slice(0, 5), "inhibitory": slice(5, 10)})
    np.testing.assert_allclose(radii, np.abs(np.linalg.eigvals(blocks)).max())


def test_balance_and_zeros_of_known_weights():
    recurrent = np.full((UNITS, UNITS), 2.0)
    recurrent[:, UNITS // 2 :] = 3.0
    recurrent[: UNITS // 2, 0] = 0.0  # one of 20 inputs to each excitatory unit
    result = analysed(recurrent)
    np.testing.assert_allclose(result.balance_of_weights(), np.repeat([60 / 38, 60 / 40], UNITS // 2))
    blocks = result.summary()["blocks"]
    assert blocks["excitatory_to_excitatory"]["zero_share"] == pytest.approx(1 / 20)
    assert blocks["inhibitory_to_excitatory"] == {"mean_weight": -3.0, "sd_weight": 0.0, "zero_share": 0.0}


def test_currents_are_weights_times_rates():
    network, configuration = network_of(model_params__max_item_num=3)
    result = weights.analyse(network, configuration)
    effective = (network.recurrent * network.sign).detach().numpy()
    total = result.excitation + result.inhibition
    assert total.shape == (3, 200, UNITS)
    # The sum of both is the recurrent drive, whatever the rates: linear in them, and so solved for here.
    rates = np.linalg.solve(effective, total.reshape(-1, UNITS).T).T
    assert rates.min() > -1e-6
    np.testing.assert_allclose(result.excitation.reshape(-1, UNITS), rates @ effective.clip(0).T, atol=1e-6)


def test_inhibition_that_copies_excitation_is_correlated_with_it():
    recurrent = np.tile(np.random.default_rng(2).uniform(0.1, 1, (UNITS, 1)), (1, UNITS))
    result = analysed(recurrent)
    over_units, _ = result.correlations(1)
    assert over_units == pytest.approx(1)


@pytest.mark.parametrize("positive", [True, False])
def test_what_the_input_tells_a_unit(positive: bool):
    """The drive of one item is offset + Re(conj(w) e^{iθ})."""
    network, configuration = network_of(model_params__positive_input=positive, model_params__max_item_num=2)
    result = weights.analyse(network, configuration)
    angle = torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None].expand(-1, 2)
    present = torch.tensor([[False, True]]).expand(7, -1)
    code = input_code(configuration.model_params, Trials(torch.ones(7), present, angle, angle))
    drive = (code @ network.input.detach().T).numpy()
    scale = configuration.model_params.input_strength / 2
    phase = np.exp(1j * angle[:, 1].numpy())
    expected = scale * np.real(np.conj(result.input_preferred[:, 1]) * phase[:, None])
    changed = drive - expected
    np.testing.assert_allclose(changed, np.broadcast_to(changed[0], changed.shape), atol=1e-9)
    assert mean_rates(network, Trials(torch.ones(7), present, angle, angle)).keys() == {"stimulus", "delay", "read-out"}


def test_every_number_has_its_meaning_and_figures_are_drawn():
    network, configuration = network_of(model_params__max_item_num=3)
    result = weights.analyse(network, configuration)
    summary: dict[str, Any] = result.summary()
    names = set(summary) - {"blocks", "currents"}
    for part in ("blocks", "currents"):
        names |= {name for of_one in summary[part].values() for name in of_one}
    assert names == set(weights.DEFINITIONS)
    assert set(weights.plot(result)) == {"", "matrices"}
    with torch.no_grad():
        network.recurrent[0, 0] = torch.nan
    with pytest.raises(UserError, match="NaN"):
        weights.analyse(network, configuration)
