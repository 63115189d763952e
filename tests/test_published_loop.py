"""The baseline of the speed benchmarks simulates, trains and scores the network that vwm does."""

import pytest
import torch

from benchmarks.published_loop import PublishedLoop
from vwm.config import Configuration
from vwm.model.losses import error_loss
from vwm.model.network import Network, simulate
from vwm.model.task import Trials, equal_shares, input_code

SHORT = {"T_init": 20, "T_stimi": 50, "T_delay": 60, "T_decode": 40, "num_neurons": 12, "item_num": [1, 3]}


def loop_with(error_def: str = "rad", **change: object) -> PublishedLoop:
    settings = {"model_params": {**SHORT, **change}, "training_params": {"num_trials": 40, "error_def": error_def}}
    return PublishedLoop(Configuration.model_validate(settings), seed=3)


@pytest.mark.parametrize("error_def", ["rad", "l2"])
def test_without_noise_loss_and_gradients_are_those_of_vwm(error_def: str) -> None:
    loop = loop_with(error_def, spike_noise_factor=0.0)
    params, training = loop.configuration.model_params, loop.configuration.training_params
    torch.manual_seed(0)
    drawn = loop._draw(equal_shares(params.item_num, training.num_trials))
    assert torch.equal(drawn.present.sum(1), drawn.set_size.float())
    on = torch.zeros(params.steps, 1, 1)
    on[params.stimulus_steps.start : params.stimulus_steps.stop] = 1
    rates = loop._simulate((input_code(params, drawn)[None] * on).transpose(0, 1))
    error, *_, rate = loop._score(rates.transpose(0, 1), drawn)
    loss = error + 0.01 * rate
    loss.backward()

    network = Network(params, torch.Generator().manual_seed(3))
    trials = Trials(drawn.set_size, drawn.present.detach().bool(), drawn.angle.detach(), drawn.encoded.detach())
    simulation = simulate([network], [trials], [torch.Generator()])
    mean_rate = simulation.mean_rate.mean()
    expected = error_loss(training.error_def, simulation.readout[:, 0], trials).mean() + 0.01 * mean_rate
    expected.backward()
    assert rate.item() == pytest.approx(mean_rate.item(), rel=1e-5)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for mine, theirs in zip(network.parameters(), loop.network.parameters(), strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        assert (mine.grad - theirs.grad).norm() < 1e-4 * mine.grad.norm()


@pytest.mark.parametrize("kind", ["gamma", "gauss"])
def test_what_is_transmitted_has_the_mean_and_the_variance_of_the_noise(kind: str) -> None:
    loop = loop_with(spike_noise_type=kind, spike_noise_factor=0.1)
    torch.manual_seed(1)
    sent = loop._transmit(torch.full((1_000_000,), 30.0))
    variance = 0.1**2 * 30 * 1000 / loop.configuration.model_params.dt
    assert sent.mean().item() == pytest.approx(30, abs=0.03)
    assert sent.var().item() == pytest.approx(variance, rel=0.01)


def test_an_iteration_takes_a_step_and_scores_all_trials_and_each_set_size() -> None:
    loop = loop_with()
    before = [parameter.clone() for parameter in loop.network.parameters()]
    scores = next(loop.train())
    assert len(scores) == 5 * (1 + 2)
    assert all(torch.isfinite(torch.tensor(scores)))
    assert all(not torch.equal(old, new) for old, new in zip(before, loop.network.parameters(), strict=True))
