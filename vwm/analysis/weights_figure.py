"""The figures of the weights: sorted matrices; spectra, weights by difference of preferred angle, and balance."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vwm.behaviour.circular import FloatArray
from vwm.behaviour.figures import CHANCE_STYLE, DISTINCT_COLOURS, GREY, INK, new_figure, style

if TYPE_CHECKING:
    from vwm.analysis.weights import Result

_DIVERGING = "PuOr_r"  # orange positive, violet negative: told apart by all kinds of colour vision


def matrices_figure(result: "Result") -> Figure:
    """Recurrent, input and read-out weights with the units sorted by what they tell."""
    order = result.order
    with style():
        figure = new_figure(13, 5.2)
        recurrent, inputs, readout = figure.subplots(1, 3, width_ratios=(2.2, 1, 1))
        _draw_matrix(figure, recurrent, result.effective[np.ix_(order, order)], "Effective weight W s")
        for panel, weights, label in (
            (inputs, result.input_preferred, "Weight of the input's cos, sin"),
            (readout, result.preferred, "Weight of the read-out's cos, sin"),
        ):
            _draw_matrix(figure, panel, _columns(weights[order]), label)
            panel.set_xlabel("Location, cos and sin")
            places = np.arange(weights.shape[1])
            panel.set_xticks(2 * places + 0.5, [str(place + 1) for place in places])
        recurrent.set(xlabel="From unit (sorted)", ylabel="To unit, by group, location and angle of its read-out")
        for units in list(result.groups.values())[1:]:
            recurrent.axvline(units.start - 0.5, color=INK, linewidth=0.8)
            for panel in (recurrent, inputs, readout):
                panel.axhline(units.start - 0.5, color=INK, linewidth=0.8)
        for group, units in result.groups.items():
            middle = (units.start + units.stop - 1) / 2
            recurrent.annotate(
                group, (middle, 1.01), xycoords=("data", "axes fraction"), ha="center", fontsize=8, color=GREY
            )
    return figure


def _columns(weights: NDArray[np.complex128]) -> FloatArray:
    """[N, 2 M], cos and sin of a location beside each other."""
    return np.stack([weights.real, weights.imag], axis=-1).reshape(len(weights), -1)


def _draw_matrix(figure: Figure, panel: Axes, matrix: FloatArray, label: str) -> None:
    # Few large weights would leave the rest white.
    limit = float(np.quantile(np.abs(matrix), 0.99)) or 1.0
    image = panel.imshow(matrix, cmap=_DIVERGING, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    bar = figure.colorbar(image, ax=panel, extend="both", shrink=0.85, pad=0.02)
    bar.set_label(label)


def structure_figure(result: "Result") -> Figure:
    """Eigenvalues, singular values, weights by difference of angle, and inhibition against excitation."""
    with style():
        figure = new_figure(13, 3.9)
        spectrum, singular, difference, balance = figure.subplots(1, 4)
        spectrum.plot(result.eigenvalues.real, result.eigenvalues.imag, "o", color=DISTINCT_COLOURS[0], markersize=3)
        radius = float(result.shuffled_radius.mean())
        turn = np.linspace(0, 2 * np.pi, 200)
        spectrum.plot(radius * np.cos(turn), radius * np.sin(turn), **CHANCE_STYLE)
        spectrum.set_title("dashed: radius after shuffling", fontsize=8, color=GREY)
        spectrum.set(xlabel="Re λ", ylabel="Im λ", aspect="equal")
        spectrum.set_adjustable("datalim")
        number = np.arange(1, len(result.singular) + 1)
        singular.plot(number, result.singular, "o-", color=DISTINCT_COLOURS[0], markersize=3, linewidth=1)
        singular.set(xlabel="Number of the singular value", ylabel="Singular value", xscale="log", ylim=(0, None))
        _draw_differences(difference, result)
        _draw_balance(balance, result)
    return figure


def _draw_differences(panel: Axes, result: "Result") -> None:
    pairs = [(source, target) for source in result.groups for target in result.groups]
    for (source, target), colour, marker in zip(pairs, DISTINCT_COLOURS, "osD^", strict=False):
        block = result.blocks()[f"{source}_to_{target}"]
        x, means = result.by_difference(block, result.groups[source], result.groups[target])
        label = f"{source[:3]}. to {target[:3]}." if len(result.groups) > 1 else source
        panel.plot(
            np.append(x, np.pi), np.append(means, means[0]), marker + "-", color=colour, markersize=4, label=label
        )
    panel.axhline(0, **CHANCE_STYLE)
    panel.set_xticks([-np.pi, 0, np.pi], ["−π", "0", "π"])
    panel.set(xlabel="Difference of preferred angles (rad)", ylabel="Mean effective weight, one location")
    panel.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2, columnspacing=0.8)


def _draw_balance(panel: Axes, result: "Result") -> None:
    number = result.phases.index("delay") if "delay" in result.phases else len(result.phases) - 1
    excitation, inhibition = result.excitation[number].mean(0), -result.inhibition[number].mean(0)
    for (group, units), colour, marker in zip(result.groups.items(), DISTINCT_COLOURS, "os", strict=False):
        panel.plot(excitation[units], inhibition[units], marker, color=colour, markersize=3.5, alpha=0.7, label=group)
    most = max(float(excitation.max()), float(inhibition.max()), 1e-9)
    panel.plot([0, most], [0, most], **CHANCE_STYLE)
    panel.annotate("balance", (most, most), ha="right", va="bottom", fontsize=8, color=GREY)
    panel.set(xlabel=f"Recurrent excitation, {result.phases[number]}", ylabel="Recurrent inhibition")
    panel.legend(fontsize=8)
