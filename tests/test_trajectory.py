import pytest
import torch

from tests.conftest import tiny
from tests.plain_recurrence import simulate_plainly
from vwm.config import Configuration
from vwm.model.network import Network
from vwm.model.task import Trials, draw_trials, input_code
from vwm.model.trajectory import estimates, euler_step, rates_of_steps, spikes


def network_and_trials(**changes: object) -> tuple[Network, Trials]:
    params = Configuration.model_validate(tiny(**changes)).model_params
    generator = torch.Generator().manual_seed(3)
    network = Network(params, generator, torch.float64)
    return network, draw_trials(params, torch.tensor([1, 2, 3] * 4), generator, torch.float64)


@pytest.mark.parametrize("kind", ["gamma", "gauss", "puregauss", "csnr"])
def test_rates_with_noise_are_those_of_the_oracle(kind: str):
    network, trials = network_and_trials(model_params__spike_noise_type=kind)
    expected, mean_rate, _ = simulate_plainly(network, trials, torch.Generator().manual_seed(5))
    found = torch.stack(list(rates_of_steps(network, trials, torch.Generator().manual_seed(5))))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.mean(dim=(0, 2)), mean_rate)


def test_rates_without_noise_are_those_of_a_network_that_has_none():
    network, trials = network_and_trials()
    found = torch.stack(list(rates_of_steps(network, trials, None)))
    silent, _ = network_and_trials(model_params__spike_noise_factor=0.0)
    expected, _, readout = simulate_plainly(silent, trials, torch.Generator())
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(estimates(silent, found[-1]), readout[-1])
    drive = input_code(network.params, trials) @ network.input.T
    again = euler_step(network, found[1], found[1], drive)
    torch.testing.assert_close(again, found[2])


@pytest.mark.parametrize("sampler", ["auto", "torch"])
def test_noise_can_be_held_whatever_the_sampler_of_training(sampler: str):
    """The same words give the same rates, and a little other angles little other rates, step for step."""
    network, trials = network_and_trials(model_params__gamma_sampler=sampler)
    quantile, _ = network_and_trials(model_params__gamma_sampler="quantile")
    moved = Trials(trials.set_size, trials.present, trials.angle, trials.encoded + 1e-6)
    rates, same, near = (
        torch.stack(list(rates_of_steps(one, shown, torch.Generator().manual_seed(5))))
        for one, shown in ((network, trials), (quantile, trials), (network, moved))
    )
    assert torch.equal(rates, same)
    assert 0 < float((near - rates).abs().max()) < 1e-2


def test_spikes_have_the_mean_and_the_variance_of_the_noise():
    network, _ = network_and_trials()
    rates = torch.full((20_000, 16), 7.0, dtype=torch.float64)
    sent = spikes(network, rates, torch.Generator().manual_seed(0))
    k, dt = network.params.spike_noise_factor, network.params.dt
    assert float(sent.mean()) == pytest.approx(7, rel=2e-3)
    assert float(sent.var()) == pytest.approx(7 * k**2 * 1000 / dt, rel=2e-2)
    silent, _ = network_and_trials(model_params__spike_noise_factor=0.0)
    assert torch.equal(spikes(silent, rates, torch.Generator()), rates)
