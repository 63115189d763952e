"""The figures of mixed selectivity: against set size, and tuning curves with what can be decoded."""

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vwm.behaviour.figures import CHANCE_STYLE, DISTINCT_COLOURS, GREY, INK, new_figure, style

if TYPE_CHECKING:
    from vwm.analysis.mixed_selectivity import Result

# Dashes and marker of a phase.
_LINES: dict[str, tuple[Any, str]] = {"stimulus": (":", "^"), "delay": ("-", "o"), "read-out": ("--", "s")}
_KIND_LABELS = {"item": "one item", "combination": "products", "random": "random\nhalves"}
_CURVES_DRAWN = 5


def set_size_figure(result: "Result") -> Figure:
    """Vector strength, effective items, interactions and dimensions against set size; a colour a group."""
    n = np.array(result.set_size)
    with style():
        figure = new_figure(13, 4.2)
        strength, items, together, dimension = figure.subplots(1, 4)
        for phase, found in result.phases.items():
            for (group, units), colour in zip(result.groups.items(), DISTINCT_COLOURS, strict=False):
                dashes, marker = _LINES[phase]
                look = {"color": colour, "linestyle": dashes, "marker": marker, "markersize": 4.5, "linewidth": 1.4}
                strength.plot(n, result.of_group(phase, group, "vector_strength"), **look)
                items.plot(n, result.of_group(phase, group, "effective_items"), **look)
                share = result.interaction_of_group(phase, group)
                together.fill_between(n, share[:, 1], share[:, 2], color=colour, alpha=0.15, linewidth=0)
                together.plot(n, share[:, 0], **look)
                dimension.plot(n, [one.dimension[group] for one in found], **look)
                if phase == "delay":
                    floor = [float(np.nanmedian(one.floor[units])) for one in found]
                    strength.plot(n, floor, color=colour, linestyle=(0, (1, 3)), linewidth=1)
        strength.annotate(
            "dots: chance floor\nthat is removed", (0.98, 0.98), xycoords="axes fraction", ha="right", va="top",
            fontsize=8, color=GREY,
        )  # fmt: skip
        locations = next(iter(result.curves.values())).shape[1]
        for value, text in ((1, "one location"), (locations, "all alike")):
            items.axhline(value, **CHANCE_STYLE)
            items.annotate(text, (n[-1], value), ha="right", va="bottom", fontsize=8, color=GREY)
        together.axhline(0, **CHANCE_STYLE)
        together.annotate("items add up", (n[-1], 0), ha="right", va="bottom", fontsize=8, color=GREY)
        strength.set(ylabel="Vector strength, median over units", ylim=(0, None))
        items.set(ylabel="Effective items 1/IPR, median over units", ylim=(0, locations * 1.1))
        together.set(ylabel="Share of interactions in variance", ylim=(-0.03, 1))
        dimension.set(ylabel="Dimensions (participation ratio)", ylim=(0, None))
        for panel in (strength, items, together, dimension):
            panel.set_xlabel("Set size n (items)")
            panel.set_xticks(n)
        figure.legend(handles=_legend(result), loc="outside lower center", ncols=5, fontsize=8.5)
    return figure


def _legend(result: "Result") -> list[Line2D]:
    """A line a group in its colour, and a line a phase in its dashes."""
    handles = [
        Line2D([], [], color=colour, label=group)
        for group, colour in zip(result.groups, DISTINCT_COLOURS, strict=False)
    ]
    for phase in result.phases:
        dashes, marker = _LINES[phase]
        handles.append(Line2D([], [], color=INK, linestyle=dashes, marker=marker, markersize=4.5, label=phase))
    return handles


def tuning_figure(result: "Result") -> Figure:
    """Of the delay, or the last phase there is: some tuning curves, widths, kinds of units, and decoding."""
    phase = "delay" if "delay" in result.phases else list(result.phases)[-1]
    groups = dict(zip(result.groups, DISTINCT_COLOURS, strict=False))
    with style():
        figure = new_figure(13, 4.2)
        panels = figure.subplots(1, 4, width_ratios=(1, 1, 1.2, 1.1))
        _draw_curves(panels[0], result, phase, groups)
        _draw_widths(panels[1], result, phase, groups)
        _draw_kinds(panels[2], result, phase)
        _draw_accuracy(panels[3], result, phase, groups)
        figure.suptitle(f"{phase}", fontsize=9, color=GREY)
    return figure


def _draw_curves(panel: Axes, result: "Result", phase: str, groups: dict[str, str]) -> None:
    curves = result.curves[phase]
    angle = np.linspace(-np.pi, np.pi, curves.shape[2] + 1)
    for group, colour in groups.items():
        of_group = curves[result.groups[group]]
        modulation = np.ptp(of_group, axis=2)
        order = modulation.max(axis=1).argsort()[::-1]
        # From the most to the least modulated unit of the upper half, evenly spread.
        places = np.linspace(0, max(0, len(order) // 2 - 1), min(_CURVES_DRAWN, len(order))).astype(int)
        for unit in order[places]:
            curve = of_group[unit, modulation[unit].argmax()]
            panel.plot(angle, np.append(curve, curve[0]), color=colour, linewidth=1.2)
        panel.plot([], [], color=colour, label=group)
    panel.set_xticks([-np.pi, 0, np.pi], ["−π", "0", "π"])
    panel.set(xlabel="Angle of one item (rad)", ylabel="Mean rate of some units (Hz)", ylim=(0, None))
    panel.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, columnspacing=0.8)


def _draw_widths(panel: Axes, result: "Result", phase: str, groups: dict[str, str]) -> None:
    bins = np.linspace(0, 2 * np.pi, 33).tolist()
    for group, colour in groups.items():
        width = result.width(phase)[result.groups[group]]
        panel.hist(width[np.isfinite(width)], bins, histtype="step", color=colour, linewidth=1.5)
    panel.axvline(np.pi, **CHANCE_STYLE)
    panel.annotate(
        "cosine", (np.pi, 1.01), xycoords=("data", "axes fraction"), ha="center", fontsize=8, color=GREY
    )  # fmt: skip
    panel.set_xticks([0, np.pi, 2 * np.pi], ["0", "π", "2π"])
    panel.set(xlabel="Width at half height (rad)", ylabel="Units")


def _draw_kinds(panel: Axes, result: "Result", phase: str) -> None:
    """Stacked bars of a group beside each other at every set size."""
    colours = {"pure": DISTINCT_COLOURS[4], "linear_mixed": DISTINCT_COLOURS[5], "nonlinear_mixed": DISTINCT_COLOURS[3]}
    mixes = [number for number, size in enumerate(result.set_size) if size > 1]
    n, width = np.arange(len(mixes)), 0.8 / len(result.groups)
    for number, group in enumerate(result.groups):
        bottom = np.zeros(len(n))
        x = n + (number - (len(result.groups) - 1) / 2) * width
        for kind, colour in colours.items():
            share = np.array(result.kinds(phase, group)[kind])[mixes]
            label = kind.replace("_", " ").replace("nonlinear", "non-linear") if number == 0 else None
            panel.bar(x, share, width * 0.92, bottom, color=colour, label=label)
            bottom += share
        for place in x:
            panel.annotate(group[0].upper(), (place, 1.0), ha="center", va="bottom", fontsize=7.5, color=GREY)
    panel.set_xticks(n, [str(result.set_size[number]) for number in mixes])
    panel.set(xlabel="Set size n (items)", ylabel="Share of units", ylim=(0, 1.05))
    panel.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, columnspacing=0.8)


def _draw_accuracy(panel: Axes, result: "Result", phase: str, groups: dict[str, str]) -> None:
    kinds = list(_KIND_LABELS)
    for number, (group, colour) in enumerate(groups.items()):
        x = np.arange(len(kinds)) + (number - (len(groups) - 1) / 2) * 0.22
        for place, kind in zip(x, kinds, strict=True):
            values = result.accuracy[phase][group][kind]
            spread = place + np.linspace(-0.08, 0.08, len(values)) if len(values) > 1 else np.array([place])
            panel.plot(spread, values, ".", color=colour, alpha=0.45, markersize=4)
            panel.plot([place - 0.1, place + 0.1], [values.mean()] * 2, color=colour, linewidth=2)
    panel.axhline(0.5, **CHANCE_STYLE)
    panel.annotate(
        "chance", (0.01, 0.5), xycoords=("axes fraction", "data"), ha="left", va="bottom", fontsize=8, color=GREY
    )
    panel.set_xticks(range(len(kinds)), list(_KIND_LABELS.values()))
    panel.set(xlabel="Dichotomies of two items' angles", ylabel="Accuracy of a linear classifier", ylim=(0.4, 1.02))
