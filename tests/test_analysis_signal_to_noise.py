"""Signal, noise and information of populations whose answer is known."""

import numpy as np
import pytest
import torch
from scipy.special import i0, i1
from scipy.stats import gamma as gamma_law
from scipy.stats import norm

from tests.conftest import tiny
from vwm.analysis import fisher, signal_to_noise
from vwm.analysis.signal_to_noise import behavioural_information, measure_powers
from vwm.behaviour.responses import Responses
from vwm.config import Configuration
from vwm.errors import UserError
from vwm.model.network import Network
from vwm.model.noise import strength
from vwm.model.task import Trials, draw_trials
from vwm.model.trajectory import rates_of_steps


def make(**changes: object) -> tuple[Configuration, Network]:
    configuration = Configuration.model_validate(tiny(**changes))
    return configuration, Network(configuration.model_params, torch.Generator().manual_seed(2), torch.float64)


def without_recurrence(network: Network) -> Network:
    with torch.no_grad():
        network.recurrent.zero_()
    return network


@pytest.mark.parametrize("rate", [0.3, 2.0, 25.0])
@pytest.mark.parametrize("kind", ["gamma", "csnr", "gauss", "puregauss"])
def test_the_information_of_a_draw_is_the_variance_of_its_score(kind: str, rate: float):
    """By sampling, with the law's own density differentiated by steps of the rate."""
    configuration, _ = make(model_params__spike_noise_type=kind, model_params__spike_noise_factor=0.3)
    params = configuration.model_params
    number = strength(params)
    laws = {
        "gamma": lambda r: gamma_law(r * number, scale=1 / number),
        "csnr": lambda r: gamma_law(number, scale=r / number),
        "gauss": lambda r: norm(r, number * np.sqrt(r)),
        "puregauss": lambda r: norm(r, number),
    }
    law, step = laws[kind], 1e-4 * rate
    drawn = law(rate).rvs(400_000, random_state=np.random.default_rng(0))
    score = (law(rate + step).logpdf(drawn) - law(rate - step).logpdf(drawn)) / (2 * step)
    found = float(fisher.information_of_a_draw(params, torch.tensor(rate, dtype=torch.float64)))
    assert found == pytest.approx(np.mean(score**2), rel=0.02)
    linear = float(fisher.linear_information_of_a_draw(params, torch.tensor(rate, dtype=torch.float64)))
    assert linear == pytest.approx(1 / np.var(drawn), rel=0.05)
    assert linear <= found * (1 + 1e-9)


def test_the_bound_of_a_population_without_recurrence():
    """Rates then have no noise and decay after the stimulus, so that every slope is in closed form."""
    configuration, network = make(model_params__max_item_num=1, model_params__item_num=[1], model_params__ILC_noise=0)
    network, params = without_recurrence(network), configuration.model_params
    of_any, of_linear = fisher.bounds(network, 1, 50, torch.Generator().manual_seed(4))
    angle = _angles(network, 50)
    leak = (params.dt / network.tau).numpy()
    code = np.array([[1 / np.sqrt(2), 1 / np.sqrt(6)], [-1 / np.sqrt(2), 1 / np.sqrt(6)], [0, -2 / np.sqrt(6)]])
    shape = np.stack([np.cos(angle), np.sin(angle)])
    weights = network.input.detach().numpy() * params.input_strength
    x = weights @ (1 + code @ shape)
    slope_of_x = weights @ code @ np.stack([-shape[1], shape[0]])
    slope_of_phi = 0.14 * 30 * (1 - np.tanh(0.14 * x - 4.2) ** 2) * slope_of_x
    phi, rest = (30 * (1 + np.tanh(0.14 * drive - 4.2)) for drive in (x, 0.0))
    steps = params.stimulus_steps
    before = rest * (1 - (1 - leak) ** steps.start)[:, None]
    expected, linear, number = np.zeros(50), np.zeros(50), strength(params)
    for step in range(params.steps - params.decode_steps, params.steps):
        held = (1 - leak)[:, None] ** len(steps)
        left = (1 - leak)[:, None] ** (step + 1 - steps.stop)
        rates = rest + (phi + (before - phi) * held - rest) * left
        slope = slope_of_phi * (1 - held) * left
        draw = fisher.information_of_a_draw(params, torch.from_numpy(rates)).numpy()
        assert draw == pytest.approx(number**2 * _trigamma(rates * number), rel=1e-6)
        expected += (draw * slope**2).sum(axis=0)
        linear += (number / rates * slope**2).sum(axis=0)
    np.testing.assert_allclose(of_any, expected, rtol=1e-4)
    np.testing.assert_allclose(of_linear, linear, rtol=1e-4)


def test_linear_information_of_normal_populations():
    """Correlated normal responses whose mean moves: μ′ᵀΣ⁻¹μ′, with no bias at few samples."""
    rng = np.random.default_rng(0)
    units, repeats = 20, 40
    factor = rng.normal(size=(units, units)) / 3 + np.eye(units)
    slope = rng.normal(size=units)
    expected = slope @ np.linalg.solve(factor @ factor.T, slope)
    found = []
    for _ in range(600):
        first, second = rng.normal(size=(2, repeats, units)) @ factor.T
        found.append(fisher._unbiased_information(first - slope * 0.1, second + slope * 0.1))
    assert np.mean(found) == pytest.approx(expected, abs=4 * np.std(found) / np.sqrt(600))
    assert np.std(found) / np.sqrt(600) < 0.05 * expected


def test_linear_information_of_a_population_without_recurrence():
    """Steps are then independent, with variance r/λ each, and decay by the same factor where τ is one."""
    configuration, network = make(
        **{"model_params__max_item_num": 1, "model_params__item_num": [1], "model_params__ILC_noise": 0},
        model_params__tau_min=100,
        model_params__tau_max=100,
        model_params__spike_noise_factor=0.02,
    )
    network, params = without_recurrence(network), configuration.model_params
    found = fisher.linear_information(network, 1, 12, 1500, torch.Generator().manual_seed(4))
    trials = draw_trials(params, torch.ones(12, dtype=torch.long), torch.Generator().manual_seed(4), torch.float64)
    lower, upper = (
        torch.stack(list(rates_of_steps(network, Trials(trials.set_size, trials.present, moved, moved), None)))
        for moved in (trials.angle - 0.1, trials.angle + 0.1)
    )
    decode = slice(params.steps - params.decode_steps, None)
    slope = ((upper - lower)[decode].mean(0) / 0.2).numpy()
    variance = ((upper + lower)[decode].mean(0) / 2 / strength(params) / params.decode_steps).numpy()
    expected = np.sum(slope**2 / variance, axis=1)
    # The slope of each of 16 units has the sampling variance 2 v/(T·0.2²), which gives J this SD.
    of_slope = 2 / (1500 * 0.2**2)
    sd = np.sqrt(4 * expected * of_slope + 2 * 16 * of_slope**2)
    assert (np.abs(found - expected) < 4 * sd).all()
    assert abs(found.mean() - expected.mean()) < 3 * np.sqrt(np.sum(sd**2)) / 12
    assert expected.mean() > 5


def _angles(network: Network, trials: int) -> np.ndarray:
    drawn = draw_trials(
        network.params, torch.ones(trials, dtype=torch.long), torch.Generator().manual_seed(4), torch.float64
    )
    return drawn.angle[:, 0].numpy()


def _trigamma(x: np.ndarray) -> np.ndarray:
    """The sum of 1/(x + m)², with the rest of the series by its integral."""
    terms = sum(1 / (x + m) ** 2 for m in range(2000))
    return terms + 1 / (x + 1999.5)


def test_signal_and_noise_of_a_population_without_recurrence():
    """Then û is F r with the variance Σ F² r k²/dt at every step, and steps are independent."""
    configuration, network = make(model_params__max_item_num=1, model_params__item_num=[1])
    network, params = without_recurrence(network), configuration.model_params
    sets = 30
    powers = measure_powers(network, 1, torch.Generator().manual_seed(4), sets, repeats=800)
    once = draw_trials(params, torch.ones(sets, dtype=torch.long), torch.Generator().manual_seed(4), torch.float64)
    rates = torch.stack(list(rates_of_steps(network, once, None)))[-params.decode_steps :]
    pair = rates @ network.readout.detach().T
    noise = (rates * params.fano_factor * 1000 / params.dt) @ network.readout.detach().square().sum(0)
    np.testing.assert_allclose(powers.signal, pair.square().sum(-1).mean(0), rtol=0.1)
    np.testing.assert_allclose(powers.noise, noise.mean(0), rtol=0.1)
    np.testing.assert_allclose(powers.averaged_signal, pair.mean(0).square().sum(-1), rtol=0.1)
    np.testing.assert_allclose(powers.averaged_noise, noise.mean(0) / params.decode_steps, rtol=0.15)
    np.testing.assert_allclose(powers.rates, rates.mean((0, 1)), rtol=1e-9)


def test_no_signal_gives_none_on_average():
    """A read-out of zeros plus noise would have |⟨û⟩|² > 0; what chance adds is taken off."""
    noise = torch.randn(400 * 10, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    signal, power = signal_to_noise._signal_and_noise(noise, 10)
    assert float(power.mean()) == pytest.approx(2, rel=0.05)
    # Without the correction it would be 2/10.
    assert abs(float(signal.mean())) < 0.02


@pytest.mark.parametrize("kappa", [0.5, 8.0, 300.0])
def test_the_information_of_responses_is_that_of_their_law(kappa: float):
    errors = np.random.default_rng(0).vonmises(0, kappa, 200_000)
    ratio = i1(kappa) / i0(kappa) if kappa < 500 else 1
    assert behavioural_information(errors) == pytest.approx(kappa * ratio, rel=0.02)


def responses_of(sizes: tuple[int, ...]) -> Responses:
    rng = np.random.default_rng(0)
    set_size = np.repeat(np.array(sizes), 300)
    zeros = np.zeros(len(set_size))
    return Responses(
        "run", np.arange(len(set_size)), set_size, zeros, rng.vonmises(0, 5, len(set_size)), zeros[:, None]
    )


def test_the_whole_analysis_gives_every_number_its_meaning():
    configuration, network = make()
    result = signal_to_noise.analyse(network, configuration, responses_of((1, 2, 3)))
    summary = result.summary()
    assert set(summary) == set(signal_to_noise.DEFINITIONS)
    average, interval = summary["snr_of_the_average"], summary["snr_of_the_average_interval"]
    assert (interval[:, 0] <= average).all()
    assert (average <= interval[:, 1]).all()
    assert (summary["efficiency"] == summary["information_behavioural"] / summary["linear_information"]).all()
    assert list(signal_to_noise.plot(result)) == [""]


def test_a_network_without_noise_is_refused():
    configuration, network = make(model_params__spike_noise_factor=0.0)
    with pytest.raises(UserError, match="spike_noise_factor is 0"):
        signal_to_noise.analyse(network, configuration, responses_of((1,)))


def test_silent_units_tell_nothing_and_spoil_nothing():
    """Units of any scale, and units that are 0 in every trial, of which the covariance alone would be singular."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(500, 4)), rng.normal(0.1, 1, size=(500, 4))
    alone = fisher._unbiased_information(first, second)
    scale = np.array([1e-30, 1, 1e6, 3])
    silent = np.zeros((500, 2))
    together = [np.concatenate([scale * sample, silent], axis=1) for sample in (first, second)]
    assert fisher._unbiased_information(*together) == pytest.approx(alone)
    assert fisher._unbiased_information(silent, silent) == 0
