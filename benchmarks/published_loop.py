"""The baseline of the speed benchmarks: training as published implementations of this network write it.

Its habits are those of the published reference implementation (github.com/derek1909/vwm_rnn), written anew: autograd
records every step, the rates are written in place into one output tensor, every step is asserted to be finite, presence
is drawn trial by trial and carries a gradient, as the angles do, the read-out gets its noise for all steps at once, and
everything is scored again set size by set size, with values read one at a time. It is slow on purpose and must stay so:
it is what a user would otherwise run.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from vwm.config import Configuration
from vwm.model.network import Network
from vwm.model.task import Trials, equal_shares, input_code, wrap


class PublishedLoop:
    """A network, its optimiser and its training."""

    def __init__(self, configuration: Configuration, seed: int = 0, device: str = "cpu") -> None:
        self.configuration, self.device = configuration, torch.device(device)
        self.network = Network(configuration.model_params, torch.Generator().manual_seed(seed)).to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=configuration.training_params.eta)

    def _transmit(self, rates: Tensor) -> Tensor:
        params = self.configuration.model_params
        k = params.spike_noise_factor
        if k == 0:
            return rates
        if params.spike_noise_type == "gamma":
            rate = params.dt / 1000 / k**2
            shape = torch.clamp(rates * rate, min=1e-10)
            return torch.distributions.Gamma(shape, torch.full_like(shape, rate)).rsample()
        noise = k * torch.sqrt(rates * 1000 / params.dt + 1e-10) * torch.randn_like(rates)
        return torch.relu(rates + noise)

    def _activation(self, drive: Tensor) -> Tensor:
        saturation = self.configuration.model_params.saturation_firing_rate
        return saturation / 2 * (1 + torch.tanh(0.14 * drive - 4.2))

    def _groups(self, set_size: Tensor) -> list[tuple[int, slice]]:
        """Each set size with its trials, which are neighbours."""
        sizes, counts = torch.unique_consecutive(set_size, return_counts=True)
        stops = counts.cumsum(0).tolist()
        return [(int(size), slice(stop - int(n), stop)) for size, n, stop in zip(sizes, counts, stops, strict=True)]

    def _draw(self, set_size: Tensor) -> Trials:
        """Which locations show an item is drawn trial by trial, and written set size by set size."""
        locations, trials = self.configuration.model_params.max_item_num, len(set_size)
        present = torch.zeros(trials, locations, device=self.device, requires_grad=True)
        for size, rows in self._groups(set_size):
            shown = [torch.randperm(locations, device=self.device)[:size] for _ in range(rows.start, rows.stop)]
            written = present.clone()
            written[rows] = written[rows].scatter(1, torch.stack(shown), 1)
            present = written
        angle = (torch.rand(trials, locations, device=self.device) * 2 * torch.pi - torch.pi).requires_grad_()
        noise = self.configuration.model_params.ILC_noise * torch.randn(trials, locations, device=self.device)
        return Trials(set_size.to(self.device), present, angle, wrap(angle + noise))

    def _simulate(self, inputs: Tensor) -> Tensor:
        """Rates, [trials, steps, N], for an input [trials, steps, channels]."""
        params, network = self.configuration.model_params, self.network
        rates = torch.zeros(len(inputs), params.num_neurons, device=self.device)
        rates_out = torch.zeros(len(inputs), params.steps, params.num_neurons, device=self.device)
        weights = network.recurrent * network.sign
        for step in range(params.steps):
            assert torch.all(rates >= 0)
            assert torch.all(torch.isfinite(rates))
            drive = weights @ self._transmit(rates).T + network.input @ inputs[:, step].T
            rates = rates + params.dt * (-rates + self._activation(drive).T) / network.tau
            rates_out[:, step] = rates
        return rates_out

    def _score(self, rates: Tensor, trials: Trials) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Loss of the error and error in radians with the variances of both over trials, and the mean rate.

        Args:
            rates: [steps, trials, N].
            trials: they.
        """
        params, present = self.configuration.model_params, trials.present
        decoded = rates[params.steps - params.decode_steps :]
        heard = self._transmit(decoded.reshape(-1, params.num_neurons))
        readout = (self.network.readout @ heard.T).T.reshape(*decoded.shape[:2], -1, 2)
        target = torch.zeros(*present.shape, 2, device=self.device)
        for item in range(params.max_item_num):
            target[:, item, 0] = trials.angle[:, item].cos()
            target[:, item, 1] = trials.angle[:, item].sin()
        items = present.sum(1)
        if self.configuration.training_params.error_def == "l2":
            each = (readout.mean(0) - target).square().sum(-1)
        else:
            direction = (readout / readout.norm(dim=-1, keepdim=True)).mean(0)
            each = torch.acos((direction * target).sum(-1).clamp(-1 + 1e-6, 1 - 1e-6))
        loss = (each * present).sum(1) / items
        mean = readout.mean(0)
        wrapped = wrap(torch.atan2(mean[..., 1], mean[..., 0]) - trials.angle).abs()
        error = (wrapped * present).sum(1) / items
        return loss.mean(), loss.var(), error.mean(), error.var(), rates.abs().mean()

    def train(self) -> Iterator[list[float]]:
        """Trials, steps, loss, backward, update, and the scores at each set size, as often as the next is asked for.

        A generator, so that the variables of an iteration live until the next one overwrites them, as those of a
        training loop do.
        """
        params, training, network = self.configuration.model_params, self.configuration.training_params, self.network
        set_size = equal_shares(params.item_num, training.num_trials)
        on = torch.zeros(params.steps, 1, 1, device=self.device)
        on[params.stimulus_steps.start : params.stimulus_steps.stop] = 1
        while True:
            self.optimizer.zero_grad()
            trials = self._draw(set_size)
            inputs = (input_code(params, trials)[None] * on).transpose(0, 1)
            rates_out = self._simulate(inputs).transpose(0, 1)
            error, variance, angular, angular_variance, rate = self._score(rates_out, trials)
            loss = training.lambda_err * error + training.lambda_reg * rate
            loss.backward()
            self.optimizer.step()
            network.project()

            scores = [error.item(), variance.sqrt().item(), angular.item(), angular_variance.sqrt().item(), rate.item()]
            for _, rows in self._groups(set_size):
                of_size = Trials(*(each[rows] for each in (set_size, trials.present, trials.angle, trials.encoded)))
                error, variance, angular, angular_variance, rate = self._score(rates_out[:, rows], of_size)
                scores += [error.item(), variance.sqrt().item(), angular.item(), angular_variance.sqrt().item()]
                scores.append(rate.item())
            yield scores
