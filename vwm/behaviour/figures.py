"""The figure beside the table: error, precision and capacity against set size."""

import io
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from vwm.files import write_atomically

CHANCE_STYLE: dict[str, Any] = {"color": "0.45", "linestyle": (0, (4, 3)), "linewidth": 1}
MARKERS = "osD^vP*X"
# Okabe & Ito's colours for all kinds of colour vision, without black and the yellow that is pale on white.
DISTINCT_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_ROWS_OF_LEGEND = 14


def set_size_figure(table: pd.DataFrame, title: str, note: str = "") -> Figure:
    """Mean |error|, precision and capacity K against set size with 95 % intervals, one line per row value.

    Args:
        table: ``row``, numbers or text, whose values are the lines; ``set_size``; what ``tables.aggregate`` makes.
        title: the legend's title, which names the row variable.
        note: what the reader must know besides, set below the panels.

    Returns:
        A figure of its own; matplotlib's global state is not touched.
    """
    figure = Figure(figsize=(12, 4.2), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08))
    FigureCanvasAgg(figure)
    error, precision, capacity = figure.subplots(1, 3)
    lines = [(value, points.sort_values("set_size")) for value, points in table.groupby("row", sort=False)]
    looks = _looks(table["row"])
    for panel, measure in ((error, "mean_abs_error"), (precision, "precision"), (capacity, "capacity")):
        for (value, points), style in zip(lines, looks, strict=True):
            _draw_line(panel, points, measure, _label(value, points), style)
    sizes = sorted(int(n) for n in pd.unique(table["set_size"]))
    _finish(error, "Mean |error| (rad)", sizes, (0, max(np.pi / 2, _highest(table, "mean_abs_error")) * 1.08))
    error.axhline(np.pi / 2, **CHANCE_STYLE)
    error.annotate("chance, π/2", (0.99, np.pi / 2), xycoords=("axes fraction", "data"), **_BESIDE_LINE)
    highest = _highest(table, "precision")
    lowest = min(0.0, float(np.nan_to_num(table["precision_mean"].min())))
    _finish(precision, "Precision (1/rad), Bays-corrected", sizes, (lowest - 0.04 * (highest - lowest), highest * 1.1))
    precision.axhline(0, **CHANCE_STYLE)
    precision.annotate("chance, 0", (0.01, 0), xycoords=("axes fraction", "data"), **(_BESIDE_LINE | {"ha": "left"}))
    top = _highest(table, "capacity") * 1.15
    _finish(capacity, "Capacity K = w · n (items)", sizes, (0, top))
    capacity.axline((0, 0), slope=1, **CHANCE_STYLE)
    capacity.annotate("K = n", (0.82 * top, 0.82 * top), annotation_clip=False, **(_BESIDE_LINE | {"ha": "right"}))
    if lines:
        handles, labels = error.get_legend_handles_labels()
        columns = -(-len(labels) // _ROWS_OF_LEGEND)
        figure.legend(handles, labels, title=title, loc="outside right upper", ncols=columns, frameon=False)
    figure.supxlabel(_caption(table, note), fontsize=8, color="0.3")
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write ``figure`` to ``path`` + ``.png`` (200 dpi) and ``.pdf``, each atomically and without a time stamp."""
    with matplotlib.rc_context({"pdf.fonttype": 42}):  # text in the PDF stays text
        for suffix, metadata in ((".png", {"Software": None}), (".pdf", {"CreationDate": None})):
            content = io.BytesIO()
            figure.savefig(content, format=suffix[1:], dpi=200, metadata=metadata)
            write_atomically(path.with_name(path.name + suffix), content.getvalue())


_BESIDE_LINE: dict[str, Any] = {
    "textcoords": "offset points",
    "xytext": (0, 3),
    "ha": "right",
    "va": "bottom",
    "fontsize": 8,
    "color": "0.35",
}


def _draw_line(panel: Axes, points: pd.DataFrame, measure: str, label: str, style: dict[str, Any]) -> None:
    x = points["set_size"].to_numpy()
    panel.plot(x, points[f"{measure}_mean"].to_numpy(), label=label, linewidth=1.6, markersize=4.5, **style)
    low, high = points[f"{measure}_ci_low"].to_numpy(), points[f"{measure}_ci_high"].to_numpy()
    panel.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)


def _looks(rows: "pd.Series[Any]") -> list[dict[str, Any]]:
    """Colour and marker of each line: an ordered palette for numbers, colours and markers apart for names."""
    values = list(pd.unique(rows))
    if is_numeric_dtype(rows) and not is_bool_dtype(rows):
        # The palette stops short of its pale yellow end.
        places = [0.8 * sorted(values).index(value) / max(1, len(values) - 1) for value in values]
        return [{"color": matplotlib.colormaps["viridis"](place), "marker": "o"} for place in places]
    return [
        {"color": DISTINCT_COLOURS[i % len(DISTINCT_COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
        for i in range(len(values))
    ]


def _finish(panel: Axes, label: str, sizes: list[int], limits: tuple[float, float]) -> None:
    """Axes that follow the means, so that the wide interval of two seeds may run out of the panel."""
    panel.set_ylabel(label)
    panel.set_xlabel("Set size n (items)")
    if sizes:
        margin = 0.4 if len(sizes) > 1 else 1
        panel.set_xlim(sizes[0] - margin, sizes[-1] + margin)
    if len(sizes) <= 12:
        panel.set_xticks(sizes)
    else:
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_ylim(*limits)
    panel.spines[["top", "right"]].set_visible(False)


def _highest(table: pd.DataFrame, measure: str) -> float:
    """The highest finite mean of ``measure``, or 1 for an axis that has nothing to show."""
    means = table[f"{measure}_mean"].to_numpy(dtype=np.float64)
    means = means[np.isfinite(means)]
    return float(means.max()) if means.size and means.max() > 0 else 1.0


def _label(value: object, points: pd.DataFrame) -> str:
    # A dollar sign would start a formula in matplotlib's own markup.
    label = (f"{value:g}" if isinstance(value, float) else str(value)).replace("$", r"\$")
    return label if points["n_seeds"].any() else f"{label} (no run)"


def _caption(table: pd.DataFrame, note: str) -> str:
    if not table["n_seeds"].any():
        return "No run is finished yet."
    counts = sorted({int(n) for n in table["n_seeds"] if n > 0})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    intervals = "95 % intervals of the mean shaded (Student t over runs; wide ones run out of a panel)"
    means = f"Means of {seeds} runs a point; {intervals}."
    if counts[-1] == 1:
        means = "One run a point, so no intervals."
    return "\n".join(part for part in (means, note) if part)
