"""How a network's errors are distributed at each set size, beside people, and how they grow while it remembers."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.special import i0e

from vwm.analysis.results import Column, Progress, refuse_bad_weights, unwatched
from vwm.behaviour import circular, tables
from vwm.behaviour.circular import FloatArray
from vwm.behaviour.figures import (
    CHANCE_STYLE,
    DISTINCT_COLOURS,
    GREY,
    INK,
    looks,
    new_figure,
    plain_log_ticks,
    style,
)
from vwm.behaviour.human import SUMMARIES
from vwm.behaviour.responses import Responses
from vwm.config import Configuration, ModelParams
from vwm.model.losses import mean_over_shown
from vwm.model.network import Network
from vwm.model.task import draw_trials, wrap
from vwm.model.trajectory import estimates, rates_of_steps, spikes

SEED = 0
_BINS = 120
_TRIALS = 500  # of each set size, for the course of the error
_COLUMNS = {  # of tables of many runs, with their units
    **{"error_at_end_of_stimulus": "rad", "error_at_end_of_delay": "rad", "error_at_end_of_trial": "rad"},
    **{"sd_ratio": "–", "mixture_misfit": "1/rad"},
}
_MEASURES = ("mean_abs_error", "circular_sd", "circular_variance", "circular_kurtosis", *tables.OF_THE_MIXTURE)
_WITH_INTERVAL = {"circular_variance": circular.circular_variance, "circular_kurtosis": circular.circular_kurtosis}


@dataclass(frozen=True)
class Result:
    """The errors of a run's final evaluation, and the course of the error; n stands for a set size, K of them.

    Attributes:
        table: a row a set size: ``tables.measures``.
        intervals: by measure, [K, 2], 95 % BCa bootstrap over trials.
        edges: [bins + 1], radians.
        density: [K, bins], of errors, 1/rad.
        course: [steps, K], mean |error| of the angle decoded at each step alone, radians.
        params: of the model.
    """

    table: pd.DataFrame
    intervals: dict[str, FloatArray]
    edges: FloatArray
    density: FloatArray
    course: FloatArray
    params: ModelParams

    def summary(self) -> dict[str, Any]:
        """The measures of ``DEFINITIONS``, a value a set size; None where there is none."""
        shown: dict[str, Any] = {"set_size": self.table["set_size"].tolist()}
        for name in (*_MEASURES, "mixture_flag", *tables.OF_THE_SWAPS, "swap_flag"):
            shown[name] = [None if pd.isna(value) else value for value in self.table[name]]
        for name, interval in self.intervals.items():
            shown[f"{name}_interval"] = interval
        w, kappa = self.table["w"].to_numpy(), self.table["kappa"].to_numpy()
        shown["uniform_weight"] = 1 - w
        shown["sd_ratio"] = (self.table["sd"] / self.table["circular_sd"]).to_numpy()
        shown["mixture_misfit"] = [
            float(np.sqrt(np.mean((seen - _bin_density(self.edges, *fit)) ** 2)))
            for seen, fit in zip(self.density, zip(w, kappa, strict=True), strict=True)
        ]
        after, last = self.params.stimulus_steps.stop, self.params.steps - self.params.decode_steps
        shown["error_at_end_of_stimulus"] = self.course[after - 1]
        shown["error_at_end_of_delay"] = self.course[last - 1]
        shown["error_at_end_of_trial"] = self.course[-1]
        return shown

    def columns(self) -> dict[str, Column]:
        """What the tables of responses do not hold already: the course of the error, and what a mixture leaves."""
        shown, sizes = self.summary(), self.table["set_size"].tolist()
        return {
            name: Column(DEFINITIONS[name], unit, dict(zip(sizes, shown[name], strict=True)))
            for name, unit in _COLUMNS.items()
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        """As in the class."""
        time = self.params.dt * np.arange(1, len(self.course) + 1)
        return {
            "set_size": self.table["set_size"].to_numpy(),
            "edges": self.edges,
            "density": self.density,
            "time": time,
            "course": self.course,
        }


DEFINITIONS = {
    **{
        name: measure.meaning
        + f", {measure.unit}" * (measure.unit != "–")
        + f"; {measure.convention}" * bool(measure.convention)
        for name, measure in (tables.COUNTS | tables.MEASURES).items()
        if name in (*_MEASURES, *tables.OF_THE_SWAPS, "set_size", "mixture_flag", "swap_flag")
    },
    "circular_variance_interval": "95 % BCa bootstrap interval over trials",
    "circular_kurtosis_interval": "95 % BCa bootstrap interval over trials",
    "uniform_weight": "1 − w, the share of responses that the mixture takes for guesses",
    "sd_ratio": "sd/circular_sd: how much of the spread of all errors is that of responses from memory; 1 if none is a "
    "guess",
    "mixture_misfit": "root mean square over 120 bins of histogram − mixture, 1/rad: what the mixture does not tell",
    "error_at_end_of_stimulus": "mean |error| of the angle read from the last step of the stimulus alone, with spike "
    "noise in the network and in the read-out, rad; 500 trials a set size",
    "error_at_end_of_delay": "the same at the last step of the delay, rad",
    "error_at_end_of_trial": "the same at the last step of a trial, rad; a response averages the whole read-out phase",
}


def analyse(
    network: Network, configuration: Configuration, responses: Responses, progress: Progress = unwatched
) -> Result:
    """Measure the responses of the final evaluation, and simulate the course of the error.

    Args:
        network: trained, on any device.
        configuration: of the run.
        responses: of its final evaluation.
        progress: told how many set sizes of the course of the error are done.

    Raises:
        UserError: a weight is not finite.
    """
    refuse_bad_weights(network)
    table = tables.measures(responses)
    by_size = [_by_trial(responses, n) for n in table["set_size"]]
    edges = np.linspace(-np.pi, np.pi, _BINS + 1)
    return Result(
        table=table,
        intervals={
            name: np.array([circular.bootstrap_interval(statistic, errors, SEED) for errors in by_size])
            for name, statistic in _WITH_INTERVAL.items()
        },
        edges=edges,
        density=np.array([np.histogram(errors, edges, density=True)[0] for errors in by_size]),
        course=course_of_error(network, table["set_size"].tolist(), progress=progress),
        params=configuration.model_params,
    )


def _by_trial(responses: Responses, n: int) -> FloatArray:
    """Errors [trials, n] at a set size; the rows of a trial follow each other."""
    errors: FloatArray = responses.errors[responses.set_size == n].reshape(-1, n)
    return errors


@torch.no_grad()
def course_of_error(
    network: Network, set_sizes: list[int], trials_of_each: int = _TRIALS, progress: Progress = unwatched
) -> FloatArray:
    """Mean |error| of the angle that each step alone decodes to, radians, [steps, set sizes].

    Spikes are drawn in the network and, afresh, in the read-out. Before the stimulus it is chance, π/2.
    """
    course = np.empty((network.params.steps, len(set_sizes)))
    for column, n in enumerate(set_sizes):
        progress(column, len(set_sizes))
        generator = torch.Generator(network.tau.device).manual_seed(SEED)
        trials = draw_trials(network.params, torch.full((trials_of_each,), n), generator, network.tau.dtype)
        # The read-out has a generator of its own, so that drawing it leaves the network's own noise as it is.
        heard = torch.Generator(network.tau.device).manual_seed(SEED + 1)
        errors = []
        for rates in rates_of_steps(network, trials, generator):
            estimate = estimates(network, spikes(network, rates, heard))
            angle = torch.atan2(estimate[..., 1], estimate[..., 0])
            errors.append(mean_over_shown(wrap(angle - trials.angle).abs(), trials).mean())
        course[:, column] = torch.stack(errors).double().cpu().numpy()
    return course


def _mixture_density(errors: FloatArray, w: float, kappa: float) -> FloatArray:
    """w·vonMises(0, κ) + (1 − w)/2π, 1/rad."""
    from_memory = np.exp(kappa * (np.cos(errors) - 1)) / i0e(kappa)
    density: FloatArray = (w * from_memory + 1 - w) / (2 * np.pi)
    return density


def _bin_density(edges: FloatArray, w: float, kappa: float) -> FloatArray:
    """The mixture averaged over each bin, by ten points inside."""
    width = edges[1] - edges[0]
    inside = edges[:-1, None] + width * (np.arange(10) + 0.5) / 10
    density: FloatArray = _mixture_density(inside, w, kappa).mean(axis=1)
    return density


# ---------------------------------------------------------------------------------------------------------------
# Figures
# ---------------------------------------------------------------------------------------------------------------


def plot(result: Result) -> dict[str, Figure]:
    """The figures by the ending of their file: histograms, measures against set size, the course of the error."""
    return {"histograms": _histograms(result), "set_size": _against_set_size(result), "course": _course_figure(result)}


def _histograms(result: Result) -> Figure:
    sizes = result.table["set_size"].tolist()
    columns = min(5, len(sizes))
    rows = -(-len(sizes) // columns)
    with style():
        figure = new_figure(2.5 * columns + 0.8, 2.3 * rows + 0.6)
        panels = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
        fine = np.linspace(-np.pi, np.pi, 1441)
        widest = min(
            np.pi, 6 * float(result.table["circular_sd"].max())
        )  # one axis for all, the full circle if need be
        for panel, density, (_, row) in zip(panels, result.density, result.table.iterrows(), strict=False):
            panel.stairs(density, result.edges, fill=True, color=GREY, alpha=0.45, label="errors")
            mixture = _mixture_density(fine, row["w"], row["kappa"])
            panel.plot(fine, mixture, color=DISTINCT_COLOURS[0], linewidth=1.4, label="mixture")
            panel.axhline(1 / (2 * np.pi), label="uniform", **CHANCE_STYLE)
            flag = "*" if row["mixture_flag"] else ""
            title = f"n = {row['set_size']}:  w {row['w']:.2f}, SD {row['sd']:.2f}{flag}"
            panel.set_title(title, fontsize=9)
            panel.set(xlim=(-widest, widest), ylim=(0, None))
            if widest == np.pi:
                panel.set_xticks([-np.pi, 0, np.pi], ["−π", "0", "π"])
        for panel in panels[len(sizes) :]:
            panel.set_visible(False)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower right", ncols=3, fontsize=8.5)
        figure.supxlabel("Error (rad)", fontsize=9.5)
        figure.supylabel("Density (1/rad)", fontsize=9.5)
        if (result.table["mixture_flag"] != "").any():
            figure.suptitle("* the mixture's parameters are not told by these errors", fontsize=8, color=GREY)
    return figure


def _against_set_size(result: Result) -> Figure:
    """Variance and kurtosis beside people; the two SDs; the uniform weight."""
    n = result.table["set_size"].to_numpy()
    with style():
        figure = new_figure(13, 3.9)
        variance, kurtosis, sd, uniform = figure.subplots(1, 4)
        for panel, name, label in (
            (variance, "circular_variance", "Variance −2 ln R (rad²)"),
            (kurtosis, "circular_kurtosis", "Circular kurtosis"),
        ):
            value = result.table[name].to_numpy()
            low, high = result.intervals[name].T
            panel.fill_between(n, low, high, color=DISTINCT_COLOURS[0], alpha=0.2, linewidth=0)
            panel.plot(n, value, "o-", color=DISTINCT_COLOURS[0], markersize=4.5, label="network, 95 % interval")
            _draw_people(panel, name, int(n.max()))
            panel.set_ylabel(label)
            panel.legend(fontsize=8)
        variance.set_yscale("log")
        plain_log_ticks(variance)
        kurtosis.axhline(0, **CHANCE_STYLE)
        sd.plot(n, result.table["circular_sd"].to_numpy(), "o-", color=INK, markersize=7, label="all errors")
        sd.plot(n, result.table["sd"].to_numpy(), "s--", color=DISTINCT_COLOURS[1], markersize=4, label="from memory")
        sd.set(ylabel="Circular SD (rad)", ylim=(0, None))
        sd.legend(fontsize=8)
        uniform.plot(
            n, 1 - result.table["w"].to_numpy(), "o-", color=DISTINCT_COLOURS[0], markersize=4.5, label="1 − w"
        )
        p_u = result.table["p_u"].to_numpy(dtype=np.float64)
        uniform.plot(n, p_u, "s--", color=DISTINCT_COLOURS[2], markersize=4, label="$p_u$ beside swaps")
        uniform.set(ylabel="Uniform weight", ylim=(-0.02, 1))
        uniform.legend(fontsize=8)
        for panel in (variance, kurtosis, sd, uniform):
            panel.set_xlabel("Set size n (items)")
            panel.set_xticks(n)
    return figure


def _draw_people(panel: Axes, measure: str, largest: int) -> None:
    """Means and standard errors of Bays 2014 up to the network's largest set size."""
    chosen = (SUMMARIES["source"] == "Bays 2014") & (SUMMARIES["measure"] == measure)
    people = SUMMARIES[chosen & (SUMMARIES["set_size"] <= largest)]
    panel.errorbar(
        people["set_size"].to_numpy(),
        people["mean"].to_numpy(),
        yerr=people["se"].to_numpy(),
        fmt="s:",
        color=INK,
        markerfacecolor="none",
        markersize=4.5,
        linewidth=0.8,
        capsize=2,
        label="people, Bays 2014 (± SE)",
    )


def _course_figure(result: Result) -> Figure:
    params = result.params
    seconds = params.dt * np.arange(1, len(result.course) + 1) / 1000
    sizes = result.table["set_size"]
    look = looks(sizes)
    with style():
        figure = new_figure(6.4, 3.9)
        panel = figure.subplots()
        for column, n in enumerate(sizes):
            panel.plot(seconds, result.course[:, column], color=look[n]["color"], linewidth=1.5, label=str(n))
        panel.axhline(np.pi / 2, **CHANCE_STYLE)
        panel.annotate("chance, π/2", (seconds[-1], np.pi / 2), va="bottom", ha="right", fontsize=8, color=GREY)
        on = params.stimulus_steps
        panel.axvspan(on.start * params.dt / 1000, on.stop * params.dt / 1000, color=GREY, alpha=0.18, linewidth=0)
        decode = (params.steps - params.decode_steps) * params.dt / 1000
        panel.axvspan(decode, seconds[-1], color=DISTINCT_COLOURS[4], alpha=0.15, linewidth=0)
        for start, text in ((on.start * params.dt / 1000, "stimulus"), (decode, "read-out")):
            panel.annotate(text, (start, 1.01), xycoords=("data", "axes fraction"), fontsize=8, color=GREY)
        panel.set(xlabel="Time (s)", ylabel="Mean |error| of one step (rad)", ylim=(0, np.pi / 2 * 1.08))
        panel.set_xlim(0, seconds[-1])
        figure.legend(title="Set size n", loc="outside right upper")
    return figure
