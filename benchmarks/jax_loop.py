"""The same network in JAX, as a user of that library would write it: lax.scan over the steps, jit, jax.grad, Adam.

JAX is no package of this project: without it the row of the benchmark is left out, and that is said.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from vwm.config import Configuration
from vwm.model.network import Network
from vwm.model.task import draw_trials, equal_shares, input_code


def jax_iteration(configuration: Configuration) -> Callable[[], object]:
    """An iteration with jax.random's own variates: trials, steps, loss, gradients, update and constraints.

    Raises:
        ImportError: JAX is not installed.
    """
    import jax
    import jax.numpy as jnp
    from jax import lax

    params, training = configuration.model_params, configuration.training_params
    network = Network(params, torch.Generator().manual_seed(0))
    weights = {name: jnp.asarray(getattr(network, name).detach().numpy()) for name in ("recurrent", "input", "readout")}
    sign, alpha = jnp.asarray(network.sign.numpy()), jnp.asarray((params.dt / network.tau).numpy())
    k, rate = params.spike_noise_factor, params.dt / 1000
    first_decode = params.steps - params.decode_steps
    is_shown = np.zeros(params.steps, dtype=np.float32)
    is_shown[params.stimulus_steps.start : params.stimulus_steps.stop] = 1

    def transmit(rates: Any, key: Any) -> Any:
        if k == 0:
            return rates
        if params.spike_noise_type == "gamma":
            return jax.random.gamma(key, rates * rate / k**2 + 1e-6) * k**2 / rate
        noise = jax.random.normal(key, rates.shape)
        return jax.nn.relu(rates + k * jnp.sqrt(jnp.abs(rates) / rate + 1e-10) * noise)

    def loss_of(weights: Any, code: Any, target: Any, present: Any, key: Any) -> Any:
        drive_of_input = code @ weights["input"].T
        signed = (weights["recurrent"] * sign).T

        def step(rates: Any, at: Any) -> Any:
            shown, key = at
            drive = transmit(rates, key) @ signed + shown * drive_of_input
            goal = params.saturation_firing_rate / 2 * (1 + jnp.tanh(0.14 * drive - 4.2))
            rates = rates + alpha * (goal - rates)
            return rates, rates

        keys = jax.random.split(key, params.steps + 1)
        start = jnp.zeros((code.shape[0], params.num_neurons))
        _, rates = lax.scan(step, start, (is_shown, keys[:-1]))
        sent = transmit(rates[first_decode:], keys[-1])
        readout = (sent @ weights["readout"].T).reshape(params.decode_steps, -1, params.max_item_num, 2)
        direction = (readout / jnp.linalg.norm(readout, axis=-1, keepdims=True)).mean(0)
        error = jnp.arccos(jnp.clip((direction * target).sum(-1), -1 + 1e-6, 1 - 1e-6))
        mean = ((error * present).sum(1) / present.sum(1)).mean()
        return training.lambda_err * mean + training.lambda_reg * rates.mean()

    def update(weights: Any, first: Any, second: Any, count: Any, *batch: Any) -> Any:
        loss, slope = jax.value_and_grad(loss_of)(weights, *batch)
        moved = {}
        for name, value in weights.items():
            first[name] = 0.9 * first[name] + 0.1 * slope[name]
            second[name] = 0.999 * second[name] + 0.001 * slope[name] ** 2
            bias = (first[name] / (1 - 0.9**count), second[name] / (1 - 0.999**count))
            value -= training.eta * bias[0] / (jnp.sqrt(bias[1]) + 1e-8)
            moved[name] = value if name == "readout" else jax.nn.relu(value)
        return moved, first, second, loss

    compiled = jax.jit(update)
    zeros = {name: jnp.zeros_like(value) for name, value in weights.items()}
    state = [weights, zeros, dict(zeros)]
    key, generator = jax.random.key(0), torch.Generator().manual_seed(0)
    set_size = equal_shares(params.item_num, training.num_trials)
    count = 0

    def iterate() -> None:
        nonlocal count
        count += 1
        trials = draw_trials(params, set_size, generator)
        batch = [input_code(params, trials), trials.target, trials.present]
        arrays = [jnp.asarray(np.asarray(tensor, dtype=np.float32)) for tensor in batch]
        *state[:], loss = compiled(*state, float(count), *arrays, jax.random.fold_in(key, count))
        loss.block_until_ready()

    return iterate
