import math

import numpy as np
import pytest
import torch
from scipy.stats import halfnorm, kstest

from vwm.config import ModelParams
from vwm.model.losses import error_loss
from vwm.model.network import Network, simulate
from vwm.model.task import draw_trials, equal_shares, input_code

SMALL = ModelParams(max_item_num=3, item_num=(1, 2, 3), num_neurons=24, spike_noise_factor=0.0, T_delay=100.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def integrate(params: ModelParams, weights: dict[str, np.ndarray], code: np.ndarray) -> np.ndarray:
    """The Euler scheme written out in numpy, one trial and unit at a time: rates [steps, trials, N]."""
    n = params.num_neurons
    result = np.zeros((params.steps, len(code), n))
    for trial, u in enumerate(code):
        r = np.zeros(n)
        for t in range(params.steps):
            on = params.T_init <= t * params.dt < params.T_init + params.T_stimi
            x = weights["W"] @ (weights["s"] * r) + (weights["B"] @ u if on else 0)
            if params.saturation_firing_rate > 0:
                phi = params.saturation_firing_rate / 2 * (1 + np.tanh(0.14 * x - 4.2))
            else:
                phi = 0.18 * np.maximum(x - 10, 1e-10) ** 1.7
            r = r + params.dt / weights["tau"] * (-r + phi)
            result[t, trial] = r
    return result


def as_numpy(network: Network) -> dict[str, np.ndarray]:
    named = {"W": network.recurrent, "B": network.input, "F": network.readout, "s": network.sign, "tau": network.tau}
    return {name: tensor.detach().numpy() for name, tensor in named.items()}


@pytest.mark.parametrize(
    "change",
    # Without saturation the initial network runs away, unless its input is weak.
    [{}, {"saturation_firing_rate": -1.0, "input_strength": 10.0}, {"dales_law": False}, {"positive_input": False}],
    ids=str,
)
def test_rates_and_read_out_without_noise_equal_the_scheme_written_out(change: dict[str, object]):
    params = SMALL.model_copy(update=change)
    network = Network(params, generator(), torch.float64)
    trials = draw_trials(params, equal_shares(params.item_num, 6), generator(1), torch.float64)
    simulation = simulate([network], [trials], [generator(2)])
    weights = as_numpy(network)
    rates = integrate(params, weights, input_code(params, trials).numpy())
    np.testing.assert_allclose(simulation.mean_rate[0].detach().numpy(), rates.mean(axis=(0, 2)), rtol=1e-10)
    heard = rates[-params.decode_steps :]
    readout = np.einsum("stn,cn->stc", heard, weights["F"]).reshape(len(heard), 6, 3, 2)
    np.testing.assert_allclose(simulation.readout[:, 0].detach().numpy(), readout, rtol=1e-9, atol=1e-9)


def test_members_of_a_batched_simulation_do_not_mix():
    noisy = SMALL.model_copy(update={"spike_noise_factor": 0.1})
    changes: list[dict[str, object]] = [
        {},
        {"spike_noise_factor": 0.3, "input_strength": 60.0},
        {"tau_max": 100.0, "saturation_firing_rate": 30.0},
    ]
    members = [noisy.model_copy(update=change) for change in changes]
    networks = [Network(params, generator(seed), torch.float64) for seed, params in enumerate(members)]
    trials = [
        draw_trials(params, equal_shares(params.item_num, 9), generator(10 + seed), torch.float64)
        for seed, params in enumerate(members)
    ]
    together = simulate(networks, trials, [generator(20 + seed) for seed in range(3)])
    for index in range(3):
        alone = simulate([networks[index]], [trials[index]], [generator(20 + index)])
        torch.testing.assert_close(together.mean_rate[index], alone.mean_rate[0], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(together.readout[:, index], alone.readout[:, 0], rtol=1e-12, atol=1e-12)


def test_networks_of_unequal_size_are_refused():
    other = SMALL.model_copy(update={"num_neurons": 8})
    networks = [Network(SMALL, generator()), Network(other, generator())]
    with pytest.raises(ValueError, match="differ in a size or in the noise"):
        simulate(networks, [draw_trials(SMALL, torch.ones(2, dtype=torch.int64), generator())] * 2, [generator()] * 2)


def test_initial_weights_follow_the_published_laws():
    params = ModelParams(num_neurons=200)
    weights = as_numpy(Network(params, generator(), torch.float64))
    assert kstest(weights["W"].ravel() * math.sqrt(0.682 * 200), halfnorm.cdf).pvalue > 1e-3
    assert kstest(weights["B"].ravel() / 0.418, halfnorm.cdf).pvalue > 1e-3
    assert kstest(weights["F"].ravel() / math.sqrt(2 / (200 + 20)), "norm").pvalue > 1e-3
    assert weights["F"].shape == (20, 200)
    assert weights["B"].shape == (200, 30)
    free = as_numpy(Network(params.model_copy(update={"dales_law": False, "positive_input": False}), generator()))
    assert kstest(free["W"].ravel() * math.sqrt(200), "norm").pvalue > 1e-3
    assert kstest(free["B"].ravel() / 0.418, "norm").pvalue > 1e-3
    assert (free["s"] == 1).all()


def test_time_constants_are_log_uniform_and_sorted_within_the_populations():
    params = ModelParams(num_neurons=2001)
    network = Network(params, generator(4), torch.float64)
    tau, sign = network.tau.numpy(), network.sign.numpy()
    assert sign.tolist() == [1] * 1000 + [-1] * 1001
    for population in (tau[:1000], tau[1000:]):
        assert (np.diff(population) >= 0).all()
        position = np.log(population / params.tau_min) / math.log(params.tau_max / params.tau_min)
        assert kstest(position, "uniform").pvalue > 1e-3
    without_dale = Network(params.model_copy(update={"dales_law": False}), generator(4)).tau
    assert (without_dale.diff() >= 0).all()


def test_initial_rates_are_those_of_the_published_initialisation():
    """An independent draw of the published initialisation, integrated in numpy, has the same mean rate."""
    params = ModelParams(spike_noise_factor=0.0, T_delay=200.0, T_decode=100.0)
    random = np.random.default_rng(1)
    n = params.num_neurons

    def reference_rate() -> float:
        tau = np.concatenate([np.sort(np.exp(random.uniform(np.log(50), np.log(300), n // 2))) for _ in range(2)])
        weights = {
            "W": np.abs(random.normal(size=(n, n))) / np.sqrt(0.682 * n),
            "B": np.abs(random.normal(size=(n, 30))) * 0.418,
            "s": np.repeat([1.0, -1.0], n // 2),
            "tau": tau,
        }
        code = np.zeros((4, 30))
        for trial, size in enumerate((1, 4, 7, 10)):
            for location in random.permutation(10)[:size]:
                angle = random.uniform(-np.pi, np.pi)
                channels = 1 + np.sqrt(2 / 3) * np.cos(angle - np.deg2rad([30.0, 150.0, 270.0]))
                code[trial, 3 * location : 3 * location + 3] = channels * params.input_strength / 10
        return float(integrate(params, weights, code).mean())

    reference = [reference_rate() for _ in range(4)]
    ours = []
    for seed in range(4):
        trials = draw_trials(params, torch.tensor([1, 4, 7, 10]), generator(seed))
        with torch.no_grad():
            ours.append(simulate([Network(params, generator(seed))], [trials], [generator()]).mean_rate.mean().item())
    spread = math.sqrt(np.var(reference, ddof=1) / 4 + np.var(ours, ddof=1) / 4)
    assert abs(np.mean(ours) - np.mean(reference)) < 4 * spread
    assert 5 < np.mean(ours) < 30


@pytest.mark.parametrize("dales_law", [True, False])
@pytest.mark.parametrize("positive_input", [True, False])
def test_constraints_hold_after_a_step_and_only_where_they_are_asked_for(dales_law: bool, positive_input: bool):
    params = SMALL.model_copy(update={"dales_law": dales_law, "positive_input": positive_input})
    network = Network(params, generator())
    optimizer = torch.optim.Adam(network.parameters(), lr=0.5)  # so large that many weights cross zero
    trials = draw_trials(params, equal_shares(params.item_num, 12), generator(1))
    simulation = simulate([network], [trials], [generator()])
    error_loss("rad", simulation.readout[:, 0], trials).mean().backward()
    optimizer.step()
    assert (network.recurrent < 0).any()
    assert (network.input < 0).any()
    network.project()
    assert bool((network.recurrent < 0).any()) is not dales_law
    assert bool((network.input < 0).any()) is not positive_input


def test_gradients_of_the_whole_model_agree_with_differences():
    params = SMALL.model_copy(update={"num_neurons": 6, "spike_noise_factor": 0.1, "spike_noise_type": "gauss"})
    trials = draw_trials(params, torch.tensor([1, 2, 3]), generator(1), torch.float64)
    network = Network(params, generator(2), torch.float64)

    def loss() -> torch.Tensor:
        simulation = simulate([network], [trials], [generator(3)])
        error = error_loss("rad", simulation.readout[:, 0], trials).mean()
        return error + 1e-3 * simulation.mean_rate.mean()

    loss().backward()
    for parameter in network.parameters():
        assert parameter.grad is not None
        for index in [(0, 0), (1, 2), (3, 4)]:
            step, value = 1e-6, parameter.data[index].item()
            around = []
            for shifted in (value + step, value - step):
                parameter.data[index] = shifted
                around.append(loss().item())
            parameter.data[index] = value
            assert parameter.grad[index].item() == pytest.approx(
                (around[0] - around[1]) / (2 * step), rel=1e-4, abs=1e-9
            )
