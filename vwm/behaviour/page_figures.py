"""The figures of a sweep's page beside those against set size: each a panel of its own, a telephone wide."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from vwm.behaviour.circular import FloatArray
from vwm.behaviour.figures import (
    CHANCE_STYLE,
    GREY,
    INK,
    MARKERS_OF_PEOPLE,
    PANEL,
    label_of,
    legend_below,
    looks,
    new_figure,
    plain_log_ticks,
    style,
)
from vwm.behaviour.mixture_likelihood import one_minus_cos, relative_density
from vwm.behaviour.power_law import PowerLawFit

_LINES: tuple[Any, ...] = (":", "--", "-.", (0, (8, 2, 1, 2, 1, 2)))
_LOWEST_DENSITY = 1e-3  # 1/rad: below it a histogram of some thousand errors has empty bins only


def error_distribution(
    counts: Mapping[int, np.ndarray], fits: Mapping[int, Sequence[tuple[float, float]]], title: str
) -> Figure:
    """The errors at each set size as points, and the fitted two-component mixture as a line.

    Args:
        counts: set size → errors in equal bins from −π to π, all seeds together.
        fits: set size → (w, κ) of each seed; the line is the mean of their densities.
        title: what the networks have in common.
    """
    with style():
        figure = new_figure(*PANEL)
        panel = figure.subplots()
        fine = np.linspace(-np.pi, np.pi, 721)
        d = one_minus_cos(fine)
        look = looks(pd.Series(list(counts)))
        top = 1.0
        for set_size, count in counts.items():
            width = 2 * np.pi / len(count)
            centres = -np.pi + width * (np.arange(len(count)) + 0.5)
            density = count / count.sum() / width
            colour = look[set_size]["color"]
            panel.plot(centres, np.where(density > 0, density, np.nan), ".", color=colour, markersize=3)
            fitted = (
                np.mean([1 + w * (relative_density(d, kappa) - 1) for w, kappa in fits[set_size]], axis=0) / 2 / np.pi
            )
            panel.plot(
                fine, np.maximum(fitted, _LOWEST_DENSITY / 10), color=colour, linewidth=1.4, label=f"n = {set_size}"
            )
            top = max(top, float(density.max()), float(fitted.max()))
        panel.axhline(1 / 2 / np.pi, **CHANCE_STYLE)
        panel.set_yscale("log")
        panel.set_ylim(_LOWEST_DENSITY, top * 1.6)
        plain_log_ticks(panel)
        _angle_axis(panel)
        panel.set_ylabel("Density (1/rad)")
        panel.set_title(title, fontsize=9.5)
        legend_below(figure, panel, "set size; lines: two-component fits")
    return figure


def swaps_by_distance(rates: pd.DataFrame, distance: str, title: str) -> Figure:
    """To which items swaps go, beside what chance alone gives there.

    Args:
        rates: ``row``, ``distance``, ``swap_rate`` and ``null_rate``, a row for each line and distance.
        distance: what the distance is of, with its unit.
        title: what the rows are.
    """
    with style():
        figure = new_figure(*PANEL)
        panel = figure.subplots()
        look = looks(rates["row"])
        for value, points in rates.groupby("row", sort=False):
            x = points["distance"].to_numpy()
            panel.plot(
                x, points["swap_rate"].to_numpy(), label=label_of(value), linewidth=1.6, markersize=4.5, **look[value]
            )
            panel.plot(x, points["null_rate"].to_numpy(), linewidth=1, linestyle=":", color=look[value]["color"])
        panel.set_ylim(bottom=0)
        panel.set_xlabel(distance)
        panel.set_ylabel("Swaps per non-target shown")
        legend_below(figure, panel, title)
    return figure


def exponents(
    rows: Sequence[tuple[object, PowerLawFit]], people: Sequence[tuple[str, PowerLawFit]], title: str
) -> Figure:
    """The exponent of each row's variance over set size with its 95 % interval, and people's.

    Args:
        rows: value of the row and its fit, in order.
        people: source and its fit.
        title: what the rows are.
    """
    with style():
        figure = new_figure(*PANEL)
        panel = figure.subplots()
        look = looks(pd.Series([value for value, _ in rows]))
        for place, (value, fit) in enumerate(rows):
            bars = np.nan_to_num(np.array([[fit.exponent - fit.low], [fit.high - fit.exponent]]))
            panel.errorbar([place], [fit.exponent], yerr=bars, capsize=3, markersize=6, **look[value])
        for i, (source, fit) in enumerate(people):
            line = _LINES[i % len(_LINES)]
            panel.axhline(fit.exponent, color=INK, linewidth=1, linestyle=line, label=label_of(source))
        labels = [label_of(value) for value, _ in rows]
        turned = sum(map(len, labels)) > 44
        panel.set_xticks(range(len(rows)), labels, rotation=60 if turned else 0, ha="right" if turned else "center")
        panel.set_xlim(-0.6, len(rows) - 0.4)
        panel.set_xlabel(title.replace("\n", " "))
        panel.set_ylabel("Exponent of variance over n")
        panel.set_ylim(bottom=min(0.0, panel.get_ylim()[0]))
        legend_below(figure, panel, "people")
    return figure


def model_comparison(means: pd.DataFrame, models: Sequence[str], title: str) -> Figure:
    """How far each model's AIC is from the best one's, a mean over seeds for every row, or over people.

    Args:
        means: ``row``, ``model``, ``is_human``, and ``difference``, the mean over seeds or people of AIC less that of
            the best model of each.
        models: in the order of the axis, from above.
        title: what the rows are.
    """
    with style():
        figure = new_figure(*PANEL)
        panel = figure.subplots()
        is_human = means["is_human"].to_numpy(dtype=bool)
        look = looks(means["row"][~is_human].infer_objects())
        for i, source in enumerate(pd.unique(means["row"][is_human])):
            look[source] = {
                "color": INK,
                "marker": MARKERS_OF_PEOPLE[i % len(MARKERS_OF_PEOPLE)],
                "markerfacecolor": "none",
            }
        values = list(pd.unique(means["row"]))
        for i, value in enumerate(values):
            points = means[means["row"] == value].set_index("model").reindex(models)
            places = np.arange(len(models)) + 0.5 * ((i + 0.5) / len(values) - 0.5)
            panel.plot(
                points["difference"].to_numpy(),
                places,
                linestyle="",
                label=label_of(value),
                markersize=5,
                **look[value],
            )
        panel.set_xscale("symlog", linthresh=10)
        panel.set_xlim(left=-1)
        panel.set_xticks([0, 10, 100, 1000, 10000])
        panel.set_xlim(right=max(20.0, float(np.nanmax(means["difference"].to_numpy(), initial=0)) * 1.6))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        panel.axvline(0, **CHANCE_STYLE)
        panel.set_yticks(range(len(models)), [model.replace(" + ", " +\n") for model in models])
        panel.invert_yaxis()
        panel.set_xlabel("AIC above the best model's (mean)")
        legend_below(figure, panel, title)
    return figure


def ranking(points: pd.DataFrame, title: str) -> Figure:
    """Grid points by their distance from people, the closest on top.

    Args:
        points: ``label``, ``source`` and ``rms_z``, in the order of the axis.
        title: what the points are.
    """
    with style():
        labels = list(pd.unique(points["label"]))
        figure = new_figure(PANEL[0], max(2.4, 1.5 + 0.26 * len(labels)))
        panel = figure.subplots()
        look = looks(points["source"])
        for source, rows in points.groupby("source", sort=False):
            places = [labels.index(label) for label in rows["label"]]
            panel.plot(
                rows["rms_z"].to_numpy(), places, linestyle="", label=label_of(source), markersize=6, **look[source]
            )
        panel.set_yticks(range(len(labels)), [label_of(label) for label in labels])
        panel.set_ylim(len(labels) - 0.5, -0.5)
        panel.set_xlim(left=0)
        panel.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.6)
        panel.set_ylabel(title.replace("\n", " "))
        panel.set_xlabel("Distance from people (RMS z)")
        legend_below(figure, panel, "")
    return figure


def training(curves: Sequence[tuple[object, FloatArray, FloatArray]], title: str) -> Figure:
    """Mean |error| on training trials against iterations, a thin line for each run.

    Args:
        curves: value of the row, iterations, mean |error| in rad; runs of a row in a block.
        title: what the rows are.
    """
    with style():
        figure = new_figure(*PANEL)
        panel = figure.subplots()
        look = looks(pd.Series([value for value, _, _ in curves]))
        named: set[Any] = set()
        for value, iterations, error in curves:
            label = None if value in named else label_of(value)
            named.add(value)
            panel.plot(iterations, error, color=look[value]["color"], linewidth=1, alpha=0.8, label=label)
        panel.axhline(np.pi / 2, **CHANCE_STYLE)
        panel.set_xscale("log")
        panel.set_yscale("log")
        plain_log_ticks(panel)
        panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        panel.set_xlabel("Iteration")
        panel.set_ylabel("Mean |error| while training (rad)")
        legend_below(figure, panel, title)
    return figure


def _angle_axis(panel: Any) -> None:
    panel.set_xlim(-np.pi, np.pi)
    panel.set_xticks([-np.pi, -np.pi / 2, 0, np.pi / 2, np.pi], ["−π", "−π/2", "0", "π/2", "π"])
    panel.set_xlabel("Error (rad)")
