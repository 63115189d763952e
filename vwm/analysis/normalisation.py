"""Whether items divide the response between them: the response to several against those to each alone.

The response to a stimulus is the mean rate of every unit over a phase, without spike noise, less that of a trial that
shows nothing. For a set S of n items the response is fitted over units as r(S) ≈ Σ w_i r(i) by least squares: Σw = n
where responses add up, Σw = 1 where they are averaged, as divisive normalisation does (Carandini & Heeger 2012).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vwm.analysis.mean_rates import mean_rates
from vwm.analysis.results import Column, Progress, refuse_bad_weights, unwatched
from vwm.analysis.signal_to_noise import behavioural_information
from vwm.behaviour.circular import FloatArray
from vwm.behaviour.figures import CHANCE_STYLE, DISTINCT_COLOURS, GREY, INK, new_figure, style
from vwm.behaviour.responses import Responses
from vwm.config import Configuration
from vwm.errors import UserError
from vwm.model.network import Network
from vwm.model.task import Trials, draw_trials

SEED = 0
_STIMULUS_SETS = 100  # of each set size
_RESAMPLES = 2000


@dataclass(frozen=True)
class SetSizeWeights:
    """One set size and one phase; S stimulus sets of n items.

    Attributes:
        weights: [S, n], w_i.
        r_squared: [S], 1 − residual/total sum of squares over units, both around 0.
        together, alone: [S], summed over units, Hz: the response to the set, and the responses to its items added up.
    """

    weights: FloatArray
    r_squared: FloatArray
    together: FloatArray
    alone: FloatArray

    @property
    def suppression(self) -> FloatArray:
        """[S] (alone − together)/(alone + together): 0 if responses add up, (n − 1)/(n + 1) if they are averaged."""
        index: FloatArray = (self.alone - self.together) / (self.alone + self.together)
        return index


@dataclass(frozen=True)
class Result:
    """Weights by phase and set size, and what the responses of the run tell about each.

    Attributes:
        set_size: [K], the trained set sizes from 2 on.
        phases: by name, K each.
        information: by set size of the run, J of its responses, 1/rad², see `signal_to_noise`.
    """

    set_size: list[int]
    phases: dict[str, list[SetSizeWeights]]
    information: dict[int, float]

    def summary(self) -> dict[str, Any]:
        """The measures of ``DEFINITIONS``, a value a set size."""
        shown: dict[str, Any] = {"set_size": self.set_size, "phases": {}}
        for phase, found in self.phases.items():
            sums = [_with_interval(one.weights.sum(axis=1)) for one in found]
            shown["phases"][phase] = {
                "weight_sum": [value for value, _, _ in sums],
                "weight_sum_interval": [[low, high] for _, low, high in sums],
                "weight_sd": [float(one.weights.std()) for one in found],
                "r_squared": [float(one.r_squared.mean()) for one in found],
                "gain": [value / n for (value, _, _), n in zip(sums, self.set_size, strict=True)],
                "suppression_index": [float(one.suppression.mean()) for one in found],
                "normalisation_strength": self.strength(phase),
            }
        if 1 in self.information:
            shown["information_ratio"] = [self.information[n] / self.information[1] for n in self.set_size]
        return shown

    def columns(self) -> dict[str, Column]:
        """Σw and suppression while the stimulus is on and just before the read-out, and the strengths."""
        columns = {}
        for phase in dict.fromkeys(["stimulus", list(self.phases)[max(0, len(self.phases) - 2)]]):
            found = self.phases[phase]
            values: dict[str, float | dict[int, float]] = {
                "weight_sum": {
                    n: float(one.weights.sum(axis=1).mean()) for n, one in zip(self.set_size, found, strict=True)
                },
                "suppression_index": {
                    n: float(one.suppression.mean()) for n, one in zip(self.set_size, found, strict=True)
                },
                "normalisation_strength": self.strength(phase),
            }
            for name, value in values.items():
                columns[f"{name}_{phase}"] = Column(f"{phase}: {DEFINITIONS[name]}", "–", value)
        return columns

    def strength(self, phase: str) -> float:
        """s of Σw = n^(1 − s), least squares of logarithms; NaN where a Σw is not above 0."""
        sums = np.array([one.weights.sum(axis=1).mean() for one in self.phases[phase]])
        if (sums <= 0).any():
            return float("nan")
        log_n = np.log(self.set_size)
        return float(1 - np.sum(log_n * np.log(sums)) / np.sum(log_n**2))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """``<phase>_<n>_weights``, ``_r_squared``, ``_together`` and ``_alone``, as in `SetSizeWeights`."""
        return {
            f"{phase}_{n}_{name}": values
            for phase, found in self.phases.items()
            for n, one in zip(self.set_size, found, strict=True)
            for name, values in vars(one).items()
        }


DEFINITIONS = {
    "set_size": "items shown on a trial",
    "weight_sum": f"Σw of r(S) ≈ Σ w_i r(i), least squares over units, mean over {_STIMULUS_SETS} stimulus sets; r is "
    "the mean rate over the phase without spike noise, less that of a blank trial. 1 averaging, n addition",
    "weight_sum_interval": "95 % percentile bootstrap interval of that mean over stimulus sets",
    "weight_sd": "SD of the single w_i over items and stimulus sets: how unequally items are weighted",
    "r_squared": "share of the response's sum of squares that the fit explains, mean over stimulus sets",
    "gain": "weight_sum/n: what is left of an item's response among n items",
    "suppression_index": "(Σ r(i) − r(S))/(Σ r(i) + r(S)) of responses summed over units, mean over stimulus sets: 0 "
    "addition, (n − 1)/(n + 1) averaging",
    "normalisation_strength": "s of weight_sum = n^(1 − s), least squares of logarithms: 0 addition, 1 averaging",
    "information_ratio": "J at n items over J at one item, of the run's responses. With spike noise whose variance is "
    "in proportion to the rate, gain alone would give J in proportion to gain",
}


def analyse(
    network: Network, configuration: Configuration, responses: Responses, progress: Progress = unwatched
) -> Result:
    """Fit the responses to several items by those to each alone, at the trained set sizes from 2 on.

    Raises:
        UserError: a weight is not finite, or the network was trained on no more than one item.
    """
    refuse_bad_weights(network)
    sizes = sorted(n for n in configuration.model_params.item_num if n >= 2)
    if not sizes:
        raise UserError(
            f"normalisation: this network was trained with item_num {list(configuration.model_params.item_num)}; two "
            "items or more on a trial are needed. Choose other analyses with --only."
        )
    generator = torch.Generator(network.tau.device).manual_seed(SEED)
    by_size = []
    for done, n in enumerate(sizes):
        progress(done, len(sizes))
        by_size.append(weights_of_set_size(network, n, generator))
    return Result(
        set_size=sizes,
        phases={phase: [found[phase] for found in by_size] for phase in by_size[0]},
        information={
            n: behavioural_information(responses.errors[responses.set_size == n]) for n in responses.set_sizes()
        },
    )


@torch.no_grad()
def weights_of_set_size(
    network: Network, n: int, generator: torch.Generator, stimulus_sets: int = _STIMULUS_SETS
) -> dict[str, SetSizeWeights]:
    """The fits of some stimulus sets of n items in each phase from the stimulus on."""
    params = network.params
    sets = draw_trials(params, torch.full((stimulus_sets,), n), generator, network.tau.dtype)
    row, place = sets.present.nonzero(as_tuple=True)
    one_place = torch.nn.functional.one_hot(place, params.max_item_num).bool()
    singles = Trials(torch.ones_like(place), one_place, sets.angle[row], sets.encoded[row])
    blank = Trials(*(torch.zeros_like(values[:1]) for values in vars(sets).values()))
    batch = Trials(
        *(torch.cat(parts) for parts in zip(*(vars(t).values() for t in (sets, singles, blank)), strict=True))
    )
    means = mean_rates(network, batch)
    fits = {}
    for phase, rates in means.items():
        response = rates[:-1] - rates[-1]
        fits[phase] = fit_weights(response[:stimulus_sets], response[stimulus_sets:].reshape(stimulus_sets, n, -1))
    return fits


def fit_weights(together: FloatArray, alone: FloatArray) -> SetSizeWeights:
    """Fit the responses [S, N] to sets by those to their items alone [S, n, N]."""
    weights = np.array([np.linalg.lstsq(own.T, both, rcond=None)[0] for both, own in zip(together, alone, strict=True)])
    left = together - np.einsum("sn,snu->su", weights, alone)
    return SetSizeWeights(
        weights=weights,
        r_squared=1 - np.sum(left**2, axis=1) / np.sum(together**2, axis=1),
        together=together.sum(axis=1),
        alone=alone.sum(axis=(1, 2)),
    )


def _with_interval(values: FloatArray) -> tuple[float, float, float]:
    """The mean over stimulus sets and its 95 % percentile bootstrap interval."""
    rng = np.random.default_rng(SEED)
    means = values[rng.integers(0, len(values), (_RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def plot(result: Result) -> dict[str, Figure]:
    """One figure: Σw of single stimulus sets, its mean, suppression, and gain beside precision, against set size."""
    n = np.array(result.set_size)
    with style():
        figure = new_figure(13, 4.1)
        single, total, suppression, gain = figure.subplots(1, 4)
        first = [found[0].weights.sum(axis=1) for found in result.phases.values()]
        bins = np.linspace(np.min(first), np.max(first), 31)
        for (phase, found), colour, marker in zip(result.phases.items(), DISTINCT_COLOURS, "osD", strict=False):
            single.hist(found[0].weights.sum(axis=1), bins, histtype="step", color=colour, linewidth=1.5)
            means = np.array([_with_interval(one.weights.sum(axis=1)) for one in found])
            total.fill_between(n, means[:, 1], means[:, 2], color=colour, alpha=0.2, linewidth=0)
            total.plot(n, means[:, 0], marker + "-", color=colour, markersize=4.5, label=phase)
            index = [float(one.suppression.mean()) for one in found]
            suppression.plot(n, index, marker + "-", color=colour, markersize=4.5)
            gain.plot(n, means[:, 0] / n, marker + "-", color=colour, markersize=4.5)
        single.set(xlabel=f"Σw, single sets of n = {n[0]}", ylabel="Stimulus sets")
        _mark(single, {1.0: "averaging", float(n[0]): "addition"})
        total.plot(n, n, **CHANCE_STYLE)
        total.axhline(1, **CHANCE_STYLE)
        total.annotate("addition, n", (n[-1], n[-1]), ha="right", va="bottom", fontsize=8, color=GREY)
        total.annotate("averaging, 1", (n[-1], 0.97), ha="right", va="top", fontsize=8, color=GREY)
        total.set(ylabel="Σw", ylim=(0, None))
        suppression.plot(n, (n - 1) / (n + 1), **CHANCE_STYLE)
        suppression.annotate(
            "averaging", (n[-1], (n[-1] - 1) / (n[-1] + 1)), ha="right", va="bottom", fontsize=8, color=GREY
        )
        suppression.axhline(0, **CHANCE_STYLE)
        suppression.annotate("addition", (n[-1], 0), ha="right", va="bottom", fontsize=8, color=GREY)
        suppression.set_ylabel("Suppression index")
        if 1 in result.information:
            ratio = [result.information[size] / result.information[1] for size in result.set_size]
            gain.plot(n, ratio, "^--", color=INK, markersize=5, label="J(n)/J(1) of responses")
        gain.plot(n, 1 / n, label="1/n", **CHANCE_STYLE)
        gain.set(ylabel="Gain Σw/n", ylim=(0, None))
        gain.legend(fontsize=8)
        for panel in (total, suppression, gain):
            panel.set_xlabel("Set size n (items)")
            panel.set_xticks(n)
        handles, labels = total.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8.5)
    return {"": figure}


def _mark(panel: Axes, values: dict[float, str]) -> None:
    """Dashed lines with a word at each."""
    for value, text in values.items():
        panel.axvline(value, **CHANCE_STYLE)
        panel.annotate(text, (value, 1.01), xycoords=("data", "axes fraction"), ha="center", fontsize=8, color=GREY)
