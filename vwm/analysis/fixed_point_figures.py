"""Pictures of fixed points: trajectories with points in principal components, eigenvalues, memory of one item."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vwm.analysis.drift import Drift
from vwm.analysis.phase_search import PHASES, PhaseResult, steps_of_phases
from vwm.behaviour.circular import FloatArray, wrap
from vwm.behaviour.figures import CHANCE_STYLE, DISTINCT_COLOURS, GREY, INK, new_figure, plain_log_ticks, style
from vwm.config import FixedPointPhase, ModelParams

_COLOURS: dict[FixedPointPhase, str] = dict(zip(PHASES, (GREY, *DISTINCT_COLOURS), strict=False))
_STABLE: dict[str, Any] = {
    "marker": "o",
    "s": 42,
    "facecolor": INK,
    "edgecolor": "white",
    "linewidth": 0.8,
    "zorder": 6,
}
_UNSTABLE: dict[str, Any] = {
    "marker": "o",
    "s": 36,
    "facecolor": "white",
    "edgecolor": INK,
    "linewidth": 1.2,
    "zorder": 5,
}
_CYCLIC = "twilight"
_PI_TICKS = ([-np.pi, -np.pi / 2, 0, np.pi / 2, np.pi], ["−π", "−π/2", "0", "π/2", "π"])


def trajectories_figure(
    params: ModelParams,
    course: FloatArray,
    angles: FloatArray,
    components: FloatArray,
    explained: FloatArray,
    phases: Mapping[FixedPointPhase, PhaseResult],
) -> Figure:
    """One item's trajectories in two and three principal components, by phase, and the ring of angles at three times.

    Args:
        params: of the network.
        course: [steps, angles, N] rates, Hz.
        angles: [angles], radians.
        components: [N, 3].
        explained: [3] shares of the variance.
        phases: whose fixed points are drawn, each point once.
    """
    projected = course @ components
    stable, unstable = _points_without_input(phases, components)
    labels = [f"PC {i + 1} ({100 * share:.0f} %)" for i, share in enumerate(explained)]
    with style():
        figure = new_figure(13, 4.6)
        grid = figure.add_gridspec(1, 3, width_ratios=(1, 1.25, 1.15))
        flat: Any = figure.add_subplot(grid[0])
        deep: Any = figure.add_subplot(grid[1], projection="3d")
        ring = figure.add_subplot(grid[2])
        for panel, dimensions in ((flat, 2), (deep, 3)):
            for phase, at in steps_of_phases(params).items():
                steps = slice(max(0, at.start - 1), at.stop)
                if len(at) and steps.stop - steps.start > 1:  # a line needs two states
                    for number in range(len(angles)):
                        line = projected[steps, number, :dimensions].T
                        label = PHASES[phase] if number == 0 and dimensions == 2 else None
                        panel.plot(*line, color=_COLOURS[phase], linewidth=0.8, label=label)
            for points, look, label in ((unstable, _UNSTABLE, "saddle"), (stable, _STABLE, "stable point")):
                if len(points):
                    place = dict(zip(("xs", "ys", "zs") if dimensions == 3 else ("x", "y"), points.T, strict=False))
                    panel.scatter(**place, label=label if dimensions == 2 else None, **look)
        flat.set(xlabel=labels[0], ylabel=labels[1], title="One item, no noise")
        deep.set(xlabel=labels[0], ylabel=labels[1], title="The same in three components")
        deep.set_zlabel(labels[2])
        deep.tick_params(labelsize=7, pad=-1)
        for axis in (deep.xaxis, deep.yaxis, deep.zaxis):
            axis.set_major_locator(MaxNLocator(4))
        deep.set_box_aspect(None, zoom=0.82)  # leaves room for the label of the third axis
        _draw_ring(figure, ring, params, projected, angles)
        ring.set(xlabel=labels[0], ylabel=labels[1], title="Where angles are (by colour)")
        flat.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.16), ncols=3, borderaxespad=0)
    return figure


def _draw_ring(figure: Figure, panel: Axes, params: ModelParams, projected: FloatArray, angles: FloatArray) -> None:
    """The states of all angles at the end of the stimulus, of the delay and of the trial."""
    times = {
        "end of stimulus": (params.stimulus_steps.stop - 1, "o"),
        "end of delay": (params.steps - params.decode_steps - 1, "s"),
        "end of trial": (params.steps - 1, "^"),
    }
    norm = Normalize(-np.pi, np.pi)
    for label, (step, marker) in times.items():
        states = projected[step, :, :2]
        closed = np.vstack([states, states[:1]])
        panel.plot(*closed.T, color=GREY, linewidth=0.6, zorder=1)
        panel.scatter(
            states[:, 0],
            states[:, 1],
            c=angles,
            cmap=_CYCLIC,
            norm=norm,
            marker=marker,
            s=26,
            edgecolor=GREY,
            linewidth=0.4,
        )
        panel.scatter([], [], marker=marker, facecolor="none", edgecolor=INK, s=26, label=label)
    bar = figure.colorbar(ScalarMappable(norm, _CYCLIC), ax=panel, ticks=_PI_TICKS[0], label="Angle shown (rad)")
    bar.ax.set_yticklabels(_PI_TICKS[1])
    panel.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.16), ncols=3, borderaxespad=0, columnspacing=0.8)


def _points_without_input(
    phases: Mapping[FixedPointPhase, PhaseResult], components: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Stable and other fixed points [P, 3] of the flow without input, in principal components."""
    stable, others = [np.empty((0, 3))], [np.empty((0, 3))]
    for phase, result in phases.items():
        if phase != "fpf_stimuli":
            points = result.found.points.numpy() @ components
            is_stable = result.found.unstable_modes.numpy() == 0
            stable.append(points[is_stable])
            others.append(points[~is_stable])
    return np.concatenate(stable), np.concatenate(others)


def eigenvalues_figure(phases: Mapping[FixedPointPhase, PhaseResult], dt: float) -> Figure:
    """By phase: q of the states the search came from, of roots and of other ends; and the eigenvalues of the roots."""
    with style():
        figure = new_figure(4.6 * max(1, len(phases)), 7)
        panels = figure.subplots(2, len(phases), squeeze=False)
        for (phase, result), column in zip(phases.items(), panels.T, strict=True):
            _draw_q(column[0], result)
            column[0].set_title(PHASES[phase].capitalize())
            _draw_eigenvalues(column[1], result, dt)
    return figure


def _draw_q(panel: Axes, result: PhaseResult) -> None:
    found = result.found
    groups = {
        f"states of trials ({len(result.q_of_trajectories)})": (result.q_of_trajectories, GREY),
        f"ends that are no roots ({len(found.slow_q)})": (found.slow_q.numpy(), DISTINCT_COLOURS[1]),
        f"different roots ({len(found.q)})": (found.q.numpy(), DISTINCT_COLOURS[0]),
    }
    # A q of exactly 0 has no logarithm; it is drawn at the left edge.
    edges = [-32 + step / 2 for step in range(77)]
    for label, (values, colour) in groups.items():
        if len(values):
            decades = np.log10(np.clip(values, 1e-32, 1e6))
            weights = np.full(len(values), 1 / len(values))
            panel.hist(decades, edges, weights=weights, color=colour, alpha=0.75, label=label)
    panel.set(xlabel="log₁₀ q (Hz²)", ylabel="Share of the states", xlim=(-32, 6))
    panel.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=1, borderaxespad=0)


def _draw_eigenvalues(panel: Axes, result: PhaseResult, dt: float) -> None:
    """Eigenvalues per second, and the circle outside of which the Euler map is unstable."""
    found = result.found
    is_stable = found.unstable_modes.numpy() == 0
    if len(is_stable):
        values = 1000 * found.eigenvalues.numpy()
        for chosen, colour, label in (
            (~is_stable, DISTINCT_COLOURS[1], f"saddles ({int((~is_stable).sum())})"),
            (is_stable, DISTINCT_COLOURS[0], f"stable points ({int(is_stable.sum())})"),
        ):
            some = values[chosen].ravel()
            panel.plot(some.real, some.imag, ".", color=colour, markersize=4, alpha=0.6, label=label)
        limits = panel.get_xlim(), panel.get_ylim()
        turn = np.linspace(0, 2 * np.pi, 400)
        panel.plot(
            (np.cos(turn) - 1) / dt * 1000, np.sin(turn) / dt * 1000, label="limit of the Euler map", **CHANCE_STYLE
        )
        panel.set(xlim=limits[0], ylim=limits[1])
        panel.legend(
            fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, borderaxespad=0, columnspacing=0.8
        )
    else:
        panel.text(0.5, 0.5, "No fixed point was found.", ha="center", transform=panel.transAxes)
    panel.axvline(0, color=INK, linewidth=0.8)
    panel.set(xlabel="Re λ (1/s)", ylabel="Im λ (1/s)")


def memory_figure(drift: Drift) -> Figure:
    """Angle held against angle shown, drift speed around the ring, and the squared error foretold and measured."""
    with style():
        figure = new_figure(13, 4)
        kept, speed, error = figure.subplots(1, 3)
        shown = np.tile(drift.shown, (drift.held.shape[1], 1))
        for label, values, colour, marker in (
            ("end of trial", drift.held[-1], DISTINCT_COLOURS[0], "o"),
            ("20 s later", drift.settled, DISTINCT_COLOURS[1], "s"),
        ):
            kept.plot(shown.ravel(), values.ravel(), marker, color=colour, markersize=3, alpha=0.7, label=label)
        kept.axline((0, 0), slope=1, **CHANCE_STYLE)
        kept.set(xlabel="Angle shown (rad)", ylabel="Angle held without noise (rad)")
        kept.set_yticks(*_PI_TICKS)
        kept.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, borderaxespad=0)
        late = wrap(drift.held[-1] - drift.held[len(drift.held) // 2]) / (
            (drift.time[-1] - drift.time[len(drift.time) // 2]) / 1000
        )
        for row in late:
            speed.plot(drift.shown, row, color=DISTINCT_COLOURS[0], linewidth=0.9, alpha=0.6)
        speed.axhline(0, **CHANCE_STYLE)
        speed.set(xlabel="Angle shown (rad)", ylabel="Drift, second half (rad/s)")
        speed.set_title("A line per location", fontsize=9, color=GREY)
        seconds = drift.time / 1000
        error.plot(seconds, drift.squared_error, color=INK, linewidth=1.8, label="measured, with noise")
        error.plot(seconds, drift.foretold, "--", color=DISTINCT_COLOURS[1], linewidth=1.5, label="drift and diffusion")
        error.plot(seconds, drift.spread, color=DISTINCT_COLOURS[2], linewidth=1.2, label="variance alone")
        error.axvspan(drift.fitted[0] / 1000, drift.fitted[1] / 1000, color=GREY, alpha=0.18, linewidth=0)
        error.set(xlabel="Time since the stimulus (s)", ylabel="Squared error (rad²)", yscale="log")
        plain_log_ticks(error)
        error.set_title("Grey: where diffusion was fitted", fontsize=9, color=GREY)
        error.legend(fontsize=8)
        for panel in (kept, speed):
            panel.set_xticks(*_PI_TICKS)
    return figure
