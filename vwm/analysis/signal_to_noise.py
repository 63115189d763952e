"""Signal and noise of the decoded vector at each set size, and how much of what its spikes tell the network uses."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from vwm.analysis import fisher
from vwm.analysis.results import Column, Progress, refuse_bad_weights, unwatched
from vwm.behaviour import circular
from vwm.behaviour.circular import FloatArray
from vwm.behaviour.figures import CHANCE_STYLE, DISTINCT_COLOURS, INK, new_figure, plain_log_ticks, style
from vwm.behaviour.responses import Responses
from vwm.behaviour.von_mises import fisher_information
from vwm.config import Configuration
from vwm.errors import UserError
from vwm.model.network import Network
from vwm.model.task import Trials, draw_trials
from vwm.model.trajectory import estimates, rates_of_steps, spikes

SEED = 0
_STIMULUS_SETS, _REPEATS = 60, 40  # of each set size; repeats differ in noise alone
_TRIALS_OF_BOUND = 200
_SETS_OF_LINEAR = 8
_RESAMPLES = 2000
_COLUMNS = {  # of tables of many runs, with their units
    **{"snr_of_a_step": "dB", "snr_of_the_average": "dB", "linear_information": "1/rad²", "efficiency": "–"},
    **{"mean_rate_excitatory": "Hz", "mean_rate_inhibitory": "Hz"},
}


@dataclass(frozen=True)
class Powers:
    """Signal and noise of one set size; S stimulus sets.

    Attributes:
        signal, noise: [S], of the vector of one step, averaged over the steps of the read-out and the items.
        averaged_signal, averaged_noise: [S], of the vector averaged over the read-out, over the items.
        rates: [N], of each unit over the read-out and all trials, Hz.
    """

    signal: FloatArray
    noise: FloatArray
    averaged_signal: FloatArray
    averaged_noise: FloatArray
    rates: FloatArray


@dataclass(frozen=True)
class Result:
    """What was measured at each of K set sizes.

    Attributes:
        set_size: [K].
        powers: one a set size.
        bound, linear_bound: [K, trials], `fisher.bounds`, 1/rad².
        linear: [K, sets], `fisher.linear_information`, 1/rad².
        behavioural: [K], information of the responses, 1/rad².
        excitatory: how many units, the first ones, are excitatory.
    """

    set_size: NDArray[np.int64]
    powers: list[Powers]
    bound: FloatArray
    linear_bound: FloatArray
    linear: FloatArray
    behavioural: FloatArray
    excitatory: int

    def decibels(self) -> dict[str, FloatArray]:
        """[K, 3]: 10·log₁₀(signal/noise) with its 95 % interval, of a step and of the time average."""
        rng = np.random.default_rng(SEED)
        return {
            "snr_of_a_step": np.array([_decibels(p.signal, p.noise, rng) for p in self.powers]),
            "snr_of_the_average": np.array([_decibels(p.averaged_signal, p.averaged_noise, rng) for p in self.powers]),
        }

    def efficiency(self) -> FloatArray:
        """[K] behavioural information over what the best linear decoders get."""
        share: FloatArray = self.behavioural / self.linear.mean(axis=1)
        return share

    def mean_rates(self) -> tuple[FloatArray, FloatArray]:
        """[K] mean rates of excitatory and of inhibitory units in the read-out, Hz."""
        rates = np.array([p.rates for p in self.powers])
        inhibitory = rates[:, self.excitatory :]
        return rates[:, : self.excitatory].mean(axis=1), (
            inhibitory.mean(axis=1) if inhibitory.size else np.full(len(rates), np.nan)
        )

    def summary(self) -> dict[str, Any]:
        """The measures of ``DEFINITIONS``, a value a set size."""
        excitatory, inhibitory = self.mean_rates()
        shown: dict[str, Any] = {"set_size": self.set_size}
        for name, values in self.decibels().items():
            shown[name], shown[f"{name}_interval"] = values[:, 0], values[:, 1:]
        for name, values in (
            ("information_bound", self.bound),
            ("linear_information_bound", self.linear_bound),
            ("linear_information", self.linear),
        ):
            shown[name] = values.mean(axis=1)
            shown[f"{name}_se"] = values.std(axis=1, ddof=1) / np.sqrt(values.shape[1])
        shown["information_behavioural"] = self.behavioural
        shown["efficiency"] = self.efficiency()
        shown["mean_rate_excitatory"] = excitatory
        shown["mean_rate_inhibitory"] = [None if np.isnan(rate) else rate for rate in inhibitory]
        shown["silent_share"] = [float(np.mean(p.rates < 1)) for p in self.powers]
        if len(self.set_size) > 1:
            shown["exponent_of_linear_bound"] = _exponent(self.set_size, self.linear_bound.mean(axis=1))
            shown["exponent_of_behaviour"] = _exponent(self.set_size, self.behavioural)
        return shown

    def columns(self) -> dict[str, Column]:
        """Decibels, information, efficiency and rates by set size."""
        shown = self.summary()
        return {
            name: Column(DEFINITIONS[name], unit, dict(zip(self.set_size.tolist(), shown[name], strict=True)))
            for name, unit in _COLUMNS.items()
            if None not in list(shown[name])
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The powers [K, S], the rates [K, N] and the bound [K, trials]."""
        names = ("signal", "noise", "averaged_signal", "averaged_noise", "rates")
        arrays: dict[str, NDArray[Any]] = {name: np.array([getattr(p, name) for p in self.powers]) for name in names}
        return arrays | {
            "set_size": self.set_size,
            "information_bound": self.bound,
            "linear_information_bound": self.linear_bound,
        }


DEFINITIONS = {
    "set_size": "items shown on a trial",
    "snr_of_a_step": "10·log₁₀(signal/noise), dB, of û = F r̃ at one step of the read-out. One stimulus set is repeated "
    f"{_REPEATS} times with other spikes: noise is the variance |û − ⟨û⟩|² over repeats, signal |⟨û⟩|² less "
    f"noise/repeats, which chance adds to it. Both are averaged over steps, items and {_STIMULUS_SETS} stimulus sets "
    "before the ratio is taken",
    "snr_of_a_step_interval": "95 % percentile bootstrap interval over stimulus sets",
    "snr_of_the_average": "the same for û averaged over the read-out, which is what is decoded, dB",
    "snr_of_the_average_interval": "95 % percentile bootstrap interval over stimulus sets",
    "information_bound": "upper bound of the Fisher information about one item's angle in the spikes that the read-out "
    f"hears, 1/rad², mean over {_TRIALS_OF_BOUND} trials: Σ over steps and units of j(r)·(∂r/∂θ)², the network's own "
    "noise held; exact for gamma noise at any rate, j = λ²ψ′(rλ) with λ = dt/k²",
    "information_bound_se": "its standard error over trials, 1/rad²",
    "linear_information_bound": "the same with 1/variance in place of j: the bound of every read-out û = F r̃, 1/rad²",
    "linear_information_bound_se": "its standard error over trials, 1/rad²",
    "linear_information": "information of the spikes averaged over the read-out for the best linear decoder near an "
    f"angle, 1/rad², all noise and its correlations included, mean over {_SETS_OF_LINEAR} stimulus sets: μ′ᵀΣ⁻¹μ′ from "
    "two angles 0.2 rad apart, bias of sampling removed (Kanitscheider et al. 2015)",
    "linear_information_se": "its standard error over stimulus sets, 1/rad²",
    "information_behavioural": "J = κ·A(κ), 1/rad², of the von Mises with the resultant length R = A(κ) of the run's "
    "errors, guesses and bias included",
    "efficiency": "information_behavioural/linear_information",
    "mean_rate_excitatory": "mean rate of excitatory units in the read-out, Hz",
    "mean_rate_inhibitory": "mean rate of inhibitory units in the read-out, Hz; null without them",
    "silent_share": "share of units with a mean rate below 1 Hz in the read-out",
    "exponent_of_linear_bound": "slope of ln(linear_information_bound) over ln(set size): −1 if a fixed "
    "amount is shared out",
    "exponent_of_behaviour": "the same of information_behavioural",
}


def analyse(
    network: Network, configuration: Configuration, responses: Responses, progress: Progress = unwatched
) -> Result:
    """Measure signal, noise and information at the set sizes of the run's final evaluation.

    Raises:
        UserError: a weight is not finite, or there is no spike noise, without which noise is 0 and information endless.
    """
    refuse_bad_weights(network)
    params = configuration.model_params
    if params.spike_noise_factor == 0:
        raise UserError(
            "signal_to_noise: model_params.spike_noise_factor is 0, so the signal-to-noise ratio is infinite. Choose "
            "other analyses with --only."
        )
    sizes = responses.set_sizes()
    generator = torch.Generator(network.tau.device).manual_seed(SEED)
    repeats = max(500, 4 * params.num_neurons)
    powers, bounds, linear = [], [], []
    for done, n in enumerate(sizes):
        progress(3 * done, 3 * len(sizes))
        powers.append(measure_powers(network, n, generator))
        progress(3 * done + 1, 3 * len(sizes))
        bounds.append(fisher.bounds(network, n, _TRIALS_OF_BOUND, generator))
        progress(3 * done + 2, 3 * len(sizes))
        linear.append(fisher.linear_information(network, n, _SETS_OF_LINEAR, repeats, generator))
    return Result(
        set_size=np.array(sizes),
        powers=powers,
        bound=np.array([of_any for of_any, _ in bounds]),
        linear_bound=np.array([of_linear for _, of_linear in bounds]),
        linear=np.array(linear),
        behavioural=np.array([behavioural_information(responses.errors[responses.set_size == n]) for n in sizes]),
        excitatory=int((network.sign > 0).sum()),
    )


@torch.no_grad()
def measure_powers(
    network: Network,
    n: int,
    generator: torch.Generator,
    stimulus_sets: int = _STIMULUS_SETS,
    repeats: int = _REPEATS,
) -> Powers:
    """Signal and noise of stimulus sets of n items, each shown ``repeats`` times with other spikes."""
    params = network.params
    once = draw_trials(params, torch.full((stimulus_sets,), n), generator, network.tau.dtype)
    trials = Trials(*(values.repeat_interleave(repeats, dim=0) for values in vars(once).values()))
    heard = torch.Generator(generator.device).manual_seed(SEED + n)
    steps = params.decode_steps
    signal, noise = torch.zeros(2, stimulus_sets, params.max_item_num).to(network.tau)
    average = torch.zeros(len(trials.set_size), params.max_item_num, 2).to(network.tau)
    rates_seen = torch.zeros_like(network.tau)
    for step, rates in enumerate(rates_of_steps(network, trials, generator)):
        if step >= params.steps - steps:
            estimate = estimates(network, spikes(network, rates, heard))
            of_step = _signal_and_noise(estimate, repeats)
            signal += of_step[0] / steps
            noise += of_step[1] / steps
            average += estimate / steps
            rates_seen += rates.mean(0) / steps

    def over_items(values: Tensor) -> FloatArray:
        mean: FloatArray = (torch.where(once.present, values, 0).sum(1) / n).double().cpu().numpy()
        return mean

    averaged = _signal_and_noise(average, repeats)
    return Powers(
        signal=over_items(signal),
        noise=over_items(noise),
        averaged_signal=over_items(averaged[0]),
        averaged_noise=over_items(averaged[1]),
        rates=rates_seen.double().cpu().numpy(),
    )


def _signal_and_noise(estimate: Tensor, repeats: int) -> tuple[Tensor, Tensor]:
    """Unbiased |E û|² and variance, [sets, M], from repeats of each set in a row, [sets × repeats, M, 2]."""
    by_set = estimate.view(-1, repeats, *estimate.shape[1:])
    noise = by_set.var(dim=1).sum(-1)
    return by_set.mean(dim=1).square().sum(-1) - noise / repeats, noise


def behavioural_information(errors: FloatArray) -> float:
    """J of the von Mises whose resultant length is that of the errors, 1/rad²; κ by the bisection of A(κ) = R."""
    R = circular.resultant_length(errors)
    low, high = 1e-9, 1e9
    for _ in range(200):
        middle = np.sqrt(low * high)
        if fisher_information(middle) / middle < R:  # J/κ = A(κ)
            low = middle
        else:
            high = middle
    return float(fisher_information(low))


def _decibels(signal: FloatArray, noise: FloatArray, rng: np.random.Generator) -> tuple[float, float, float]:
    """10·log₁₀ of the ratio of means and its interval; −∞ where the signal is not above what chance gives."""
    drawn = rng.integers(0, len(signal), (_RESAMPLES, len(signal)))
    ratios = np.append(signal[drawn].mean(axis=1) / noise[drawn].mean(axis=1), signal.mean() / noise.mean())
    with np.errstate(divide="ignore"):
        values = 10 * np.log10(np.clip(ratios, 0, None))
    low, high = np.quantile(values[:-1], [0.025, 0.975], method="nearest")
    return float(values[-1]), float(low), float(high)


def _exponent(set_size: NDArray[np.int64], values: FloatArray) -> float:
    return float(np.polyfit(np.log(set_size), np.log(values), 1)[0])


def plot(result: Result) -> dict[str, Figure]:
    """One figure: decibels, information with its bound, efficiency and rates against set size."""
    n = result.set_size
    with style():
        figure = new_figure(13, 3.9)
        decibel, information, efficiency, rate = figure.subplots(1, 4)
        looks = (("snr_of_the_average", "time average", "o"), ("snr_of_a_step", "one step", "s"))
        values = result.decibels()
        for (name, label, marker), colour in zip(looks, DISTINCT_COLOURS, strict=False):
            middle, low, high = values[name].T
            decibel.fill_between(n, low, high, color=colour, alpha=0.2, linewidth=0)
            decibel.plot(n, middle, marker + "-", color=colour, markersize=4.5, label=label)
        decibel.axhline(0, **CHANCE_STYLE)
        decibel.set_ylabel("Signal-to-noise ratio (dB)")
        decibel.legend(fontsize=8, title="of the decoded vector", title_fontsize=8)
        for bound, label, look in (
            (result.bound, "bound, any decoder", "^:"),
            (result.linear_bound, "bound, linear decoder", "v:"),
            (result.linear, "best linear decoder", "s-"),
        ):
            interval = 1.96 * bound.std(axis=1, ddof=1) / np.sqrt(bound.shape[1])
            information.errorbar(
                n, bound.mean(axis=1), yerr=interval, fmt=look, color=INK, markersize=4.5, capsize=2, label=label
            )
        information.plot(n, result.behavioural, "o-", color=DISTINCT_COLOURS[0], markersize=4.5, label="responses")
        information.set_yscale("log")
        plain_log_ticks(information)
        information.set_ylabel("Fisher information J (1/rad²)")
        below: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.42, -0.17), "ncols": 2}
        information.legend(fontsize=8, columnspacing=0.8, handlelength=1.6, handletextpad=0.5, **below)
        efficiency.plot(n, result.efficiency(), "o-", color=DISTINCT_COLOURS[0], markersize=4.5)
        efficiency.set(ylabel="J of responses / best linear decoder", ylim=(0, None))
        for values_of, label, colour, marker in zip(
            result.mean_rates(), ("excitatory", "inhibitory"), DISTINCT_COLOURS, "os", strict=False
        ):
            rate.plot(n, values_of, marker + "-", color=colour, markersize=4.5, label=label)
        rate.set(ylabel="Mean rate in the read-out (Hz)", ylim=(0, None))
        rate.legend(fontsize=8)
        for panel in (decibel, information, efficiency, rate):
            panel.set_xlabel("Set size n (items)")
            panel.set_xticks(n)
    return {"": figure}
