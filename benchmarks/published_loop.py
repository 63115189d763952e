"""The baseline of the speed benchmarks: one iteration as published implementations of this network write it.

Autograd records every step, the rates are written in place into one output tensor, every step is asserted to be finite,
the input carries a gradient, and the errors are scored set size by set size with values read one at a time. It is slow
on purpose and must stay so: it is what a user would otherwise run.
"""

import torch
from torch import Tensor

from vwm.config import Configuration
from vwm.model.network import Network
from vwm.model.task import draw_trials, equal_shares, input_code, wrap


class PublishedLoop:
    """A network, its optimiser and one iteration of training."""

    def __init__(self, configuration: Configuration, seed: int = 0, device: str = "cpu") -> None:
        self.configuration, self.device = configuration, torch.device(device)
        self.generator = torch.Generator().manual_seed(seed)
        self.network = Network(configuration.model_params, self.generator).to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=configuration.training_params.eta)

    def _transmit(self, rates: Tensor) -> Tensor:
        params = self.configuration.model_params
        k = params.spike_noise_factor
        if k == 0:
            return rates
        if params.spike_noise_type == "gamma":
            rate = params.dt / 1000 / k**2
            shape = torch.full_like(rates, rate) * rates
            assert (shape >= 0).all()
            return torch.distributions.Gamma(shape + 1e-6, torch.full_like(rates, rate)).rsample()
        noise = torch.randn_like(rates)
        return torch.relu(rates + k * torch.sqrt(torch.abs(rates) * 1000 / params.dt + 1e-10) * noise)

    def _activation(self, drive: Tensor) -> Tensor:
        saturation = self.configuration.model_params.saturation_firing_rate
        return saturation / 2 * (1 + torch.tanh(0.14 * drive - 4.2))

    def iterate(self) -> list[float]:
        """Trials, steps, loss, backward, update, and the error at each set size."""
        params, training = self.configuration.model_params, self.configuration.training_params
        network, set_size = self.network, equal_shares(params.item_num, training.num_trials)
        trials = draw_trials(params, set_size, self.generator).to(self.device)
        set_size = trials.set_size
        code = input_code(params, trials)
        inputs = torch.zeros(len(set_size), params.steps, code.shape[1], device=self.device)
        inputs[:, params.stimulus_steps.start : params.stimulus_steps.stop] = code[:, None]
        inputs.requires_grad_(True)

        rates = torch.zeros(len(set_size), params.num_neurons, device=self.device)
        rates_out = torch.zeros(len(set_size), params.steps, params.num_neurons, device=self.device)
        readout_out = torch.zeros(len(set_size), params.decode_steps, 2 * params.max_item_num, device=self.device)
        for step in range(params.steps):
            weights = network.recurrent @ torch.diag(network.sign)
            drive = self._transmit(rates) @ weights.T + inputs[:, step] @ network.input.T
            rates = rates + params.dt / network.tau * (-rates + self._activation(drive))
            assert not torch.isnan(rates).any()
            assert not torch.isinf(rates).any()
            rates_out[:, step] = rates
        first_decode = params.steps - params.decode_steps
        for step in range(params.decode_steps):
            readout_out[:, step] = self._transmit(rates_out[:, first_decode + step]) @ network.readout.T

        readout = readout_out.view(len(set_size), params.decode_steps, params.max_item_num, 2)
        target, present = trials.target, trials.present
        direction = (readout / readout.norm(dim=-1, keepdim=True)).mean(1)
        delta = torch.acos((direction * target).sum(-1).clamp(-1 + 1e-6, 1 - 1e-6))
        if training.error_def == "l2":
            delta = (readout.mean(1) - target).square().sum(-1)
        error = ((delta * present).sum(1) / set_size).mean()
        loss = training.lambda_err * error + training.lambda_reg * rates_out.mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        network.project()

        errors = []
        with torch.no_grad():
            for size in params.item_num:
                rows = set_size == size
                mean = readout[rows].mean(1)
                wrapped = wrap(torch.atan2(mean[..., 1], mean[..., 0]) - trials.angle[rows]).abs()
                errors.append(((wrapped * present[rows]).sum(1) / size).mean().item())
                errors.append(((wrapped * present[rows]).sum(1) / size).std().item())
                errors.append(rates_out[rows].mean().item())
        return errors
