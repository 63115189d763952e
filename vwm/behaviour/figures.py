"""Measures against set size, one line per row of a table, beside people; and the style of all figures."""

import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from vwm.files import write_atomically

INK = "#010203"  # text and axes; a page makes it the colour of its own text
GREY = "#7f7f7f"  # of chance and of notes: legible on white and on black
MARKERS = "osD^vP*X"
MARKERS_OF_PEOPLE = "sD^vP*"
# Okabe & Ito's colours for all kinds of colour vision, without black and the yellow that is pale on white.
DISTINCT_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
CHANCE_STYLE: dict[str, Any] = {"color": GREY, "linestyle": (0, (4, 3)), "linewidth": 1}
PANEL = (4.2, 3.5)  # inches of a figure with one panel: as wide as a telephone
_ROWS_OF_LEGEND = 14  # beside panels
_MOST_LINES = 24
_LONGEST_LABEL = 30  # characters
_STYLE: Any = {  # matplotlib types the names of its settings one by one
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9.5,
    "legend.title_fontsize": 9,
    "figure.facecolor": "white",
    "axes.facecolor": "none",
}
_BESIDE_LINE: dict[str, Any] = {
    "textcoords": "offset points",
    "xytext": (0, 3),
    "ha": "right",
    "va": "bottom",
    "fontsize": 8,
    "color": GREY,
}

LABELS = {
    "mean_abs_error": "Mean |error| (rad)",
    "precision": "Precision (1/rad)",
    "capacity": "Capacity K = w · n (items)",
    "circular_variance": "Variance −2 ln R (rad²)",
    "circular_kurtosis": "Circular kurtosis",
    "p_n": "Swap rate $p_n$",
}
"""The axis of each measure that is drawn against set size."""

LOGARITHMIC = ("circular_variance", "circular_kurtosis")


def style() -> Any:
    """The context in which every figure is made and saved."""
    return matplotlib.rc_context(_STYLE)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of its own, in inches; matplotlib's global state is not touched."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06))
    FigureCanvasAgg(figure)
    return figure


def set_size_figure(table: pd.DataFrame, title: str, note: str = "", people: pd.DataFrame | None = None) -> Figure:
    """Mean |error|, precision and capacity K against set size with 95 % intervals, one line per row value.

    Args:
        table: ``row``, numbers or text, whose values are the lines; ``set_size``; what ``tables.aggregate`` makes.
        title: the legend's title, which names the row variable.
        note: what the reader must know besides, set below the panels.
        people: rows of ``human.SUMMARIES``, drawn with their standard errors at the set sizes of the table.
    """
    drawn = _some_rows(table)
    if len(drawn) < len(table):
        note = f"{drawn['row'].nunique()} of {table['row'].nunique()} rows are drawn. {note}".rstrip()
    with style():
        figure = new_figure(12, 4.4)
        panels = figure.subplots(1, 3)
        for panel, measure in zip(panels, ("mean_abs_error", "precision", "capacity"), strict=True):
            _draw_measure(panel, drawn, measure, people)
        handles, labels = _merged_legend(panels)
        if labels:
            columns = -(-len(labels) // _ROWS_OF_LEGEND)
            figure.legend(handles, labels, title=title, loc="outside right upper", ncols=columns)
        figure.supxlabel(_caption(drawn, note), fontsize=8, color=GREY)
    return figure


def one_measure(
    table: pd.DataFrame, measure: str, title: str, people: pd.DataFrame | None = None, label: str = ""
) -> Figure:
    """A measure against set size, as in ``set_size_figure`` but a panel of its own.

    Args:
        table, title, people: as there.
        measure: one of ``LABELS``, or any other with a ``label`` for its axis.
    """
    with style():
        figure = new_figure(*PANEL)
        panel = figure.subplots()
        _draw_measure(panel, _some_rows(table), measure, people, label)
        legend_below(figure, panel, title)
    return figure


def legend_below(figure: Figure, panel: Axes, title: str) -> None:
    """A legend of a few columns under the panel, for which the figure grows; of very many lines, some are named."""
    handles, labels = panel.get_legend_handles_labels()
    if not labels:
        return
    title = title.replace("\n", " ")
    if len(labels) > _MOST_LINES:
        title = f"{title}\n({_MOST_LINES} of {len(labels)} named)"
        chosen = [round(i * (len(labels) - 1) / (_MOST_LINES - 1)) for i in range(_MOST_LINES)]
        handles, labels = [handles[i] for i in chosen], [labels[i] for i in chosen]
    widest = max(map(len, labels))
    columns = 4 if widest < 7 else 3 if widest < 12 else 2 if widest < 24 else 1
    figure.set_figheight(figure.get_figheight() + 0.19 * max(0, -(-len(labels) // columns) - 2))
    figure.legend(handles, labels, title=title, loc="outside lower center", ncols=columns, fontsize=8.5)


# ---------------------------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------------------------


def save(figure: Figure, path: Path) -> None:
    """Write ``figure`` to ``path`` + ``.png`` (200 dpi) and ``.pdf``, each atomically and without a time stamp."""
    with style(), matplotlib.rc_context({"pdf.fonttype": 42}):  # text in the PDF stays text
        for suffix, metadata in ((".png", {"Software": None}), (".pdf", {"CreationDate": None})):
            content = io.BytesIO()
            figure.savefig(content, format=suffix[1:], dpi=200, metadata=metadata)
            write_atomically(path.with_name(path.name + suffix), content.getvalue())


def svg(figure: Figure, name: str) -> str:
    """``figure`` as an SVG element for a page: transparent, its text text, its ink the page's own colour.

    Other colours are CSS variables of the page, so that it may choose others on a dark ground: see ``colours``.

    Args:
        figure: made in the style of this module.
        name: unlike that of any other figure of the page, so that references stay inside.
    """
    content = io.StringIO()
    with style(), matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = content.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # matplotlib numbers its groups anew in every figure
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = text.replace(INK, "currentColor")
    return re.sub(r"(?<=: )#([0-9a-f]{6})\b", lambda match: f"var(--c{match[1]}, {match[0]})", text)


def colours(figures: Iterable[str]) -> dict[str, tuple[str, str]]:
    """The colours of SVG elements by CSS variable: on a light and on a dark ground.

    The ordered palette starts with a violet that is nearly black; on a dark ground it is run through from there on.
    """
    used = sorted({match for text in figures for match in re.findall(r"var\(--c([0-9a-f]{6}),", text)})
    return {f"--c{colour}": (f"#{colour}", _ON_DARK.get(f"#{colour}", f"#{colour}")) for colour in used}


# ---------------------------------------------------------------------------------------------------------------
# Parts
# ---------------------------------------------------------------------------------------------------------------

_STEPS = 240  # shades of the ordered palette, so that each has its counterpart on a dark ground
_VIRIDIS = matplotlib.colormaps["viridis"]
_ORDERED = [to_hex(_VIRIDIS(0.8 * i / (_STEPS - 1))) for i in range(_STEPS)]  # stops short of the pale yellow end
_ON_DARK = {colour: to_hex(_VIRIDIS(0.35 + 0.65 * i / (_STEPS - 1))) for i, colour in enumerate(_ORDERED)}


def looks(rows: "pd.Series[Any]") -> dict[Any, dict[str, Any]]:
    """Colour and marker of each value: an ordered palette for numbers, colours and markers apart for names."""
    values = list(pd.unique(rows))
    if is_numeric_dtype(rows) and not is_bool_dtype(rows):
        places = {value: sorted(values).index(value) / max(1, len(values) - 1) for value in values}
        return {
            value: {"color": _ORDERED[round(place * (_STEPS - 1))], "marker": "o"} for value, place in places.items()
        }
    return {
        value: {"color": DISTINCT_COLOURS[i % len(DISTINCT_COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
        for i, value in enumerate(values)
    }


def label_of(value: object) -> str:
    """A value as a figure has room for it, and as matplotlib's own markup leaves it alone."""
    text = f"{value:g}" if isinstance(value, float) else " ".join(str(value).split())
    text = text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 1]}…"
    return text.replace("$", r"\$")


def _some_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table that are drawn: no more lines than a person can tell apart, evenly spread."""
    values = list(dict.fromkeys(table["row"]))
    if len(values) <= _MOST_LINES:
        return table
    chosen = {values[round(i * (len(values) - 1) / (_MOST_LINES - 1))] for i in range(_MOST_LINES)}
    return table[table["row"].isin(chosen)]


def _draw_measure(panel: Axes, table: pd.DataFrame, measure: str, people: pd.DataFrame | None, label: str = "") -> None:
    """The lines of one measure, people where they have it, and what chance is."""
    look = looks(table["row"])
    for value, points in table.groupby("row", sort=False):
        _draw_line(panel, points.sort_values("set_size"), measure, _label(value, points), look[value])
        if measure == "p_n":
            panel.plot(points["set_size"], points["swap_null_mean"], ":", linewidth=1, color=look[value]["color"])
    sizes = sorted(int(n) for n in pd.unique(table["set_size"]))
    matched = people[people["set_size"].isin(sizes) & (people["measure"] == measure)] if people is not None else None
    if people is not None and matched is not None:
        _draw_people(panel, matched, list(dict.fromkeys(people["source"])))
    means = table[f"{measure}_mean"].to_numpy(dtype=np.float64)
    if matched is not None:
        means = np.append(means, matched["mean"].to_numpy(dtype=np.float64))
    means = means[np.isfinite(means)]
    top = float(means.max()) if means.size and means.max() > 0 else 1.0
    bottom = min(0.0, float(means.min())) if means.size else 0.0
    panel.set_ylabel(label or LABELS[measure])
    _set_size_axis(panel, sizes)
    if measure in LOGARITHMIC:
        _logarithmic(panel, means)
    elif measure == "mean_abs_error":
        panel.set_ylim(0, max(np.pi / 2, top) * 1.08)
        panel.axhline(np.pi / 2, **CHANCE_STYLE)
        panel.annotate("chance, π/2", (0.99, np.pi / 2), xycoords=("axes fraction", "data"), **_BESIDE_LINE)
    elif measure == "precision":
        panel.set_ylim(bottom - 0.04 * (top - bottom), top * 1.1)
        panel.axhline(0, **CHANCE_STYLE)
        panel.annotate("chance, 0", (0.01, 0), xycoords=("axes fraction", "data"), **(_BESIDE_LINE | {"ha": "left"}))
    elif measure == "capacity":
        top *= 1.15
        panel.set_ylim(0, top)
        panel.axline((0, 0), slope=1, **CHANCE_STYLE)
        panel.annotate("K = n", (0.82 * top, 0.82 * top), annotation_clip=False, **_BESIDE_LINE)
    else:
        panel.set_ylim(bottom * 1.15, top * 1.15)


def _draw_line(panel: Axes, points: pd.DataFrame, measure: str, label: str, look: dict[str, Any]) -> None:
    x = points["set_size"].to_numpy()
    panel.plot(x, points[f"{measure}_mean"].to_numpy(), label=label, linewidth=1.6, markersize=4.5, **look)
    low, high = points[f"{measure}_ci_low"].to_numpy(), points[f"{measure}_ci_high"].to_numpy()
    panel.fill_between(x, low, high, color=look["color"], alpha=0.18, linewidth=0)


def _draw_people(panel: Axes, people: pd.DataFrame, sources: list[str]) -> None:
    """Means of people with their standard errors, a marker for each of ``sources``, slightly apart."""
    for i, source in enumerate(sources):
        points = people[people["source"] == source].sort_values("set_size")
        if points.empty:
            continue
        panel.errorbar(
            points["set_size"].to_numpy() + 0.07 * (i - (len(sources) - 1) / 2),
            points["mean"].to_numpy(dtype=np.float64),
            yerr=np.nan_to_num(points["se"].to_numpy(dtype=np.float64)),
            label=label_of(source),
            color=INK,
            linestyle=":",
            linewidth=0.8,
            marker=MARKERS_OF_PEOPLE[i % len(MARKERS_OF_PEOPLE)],
            markersize=4.5,
            markerfacecolor="none",
            capsize=2,
            zorder=5,
        )


def _set_size_axis(panel: Axes, sizes: list[int]) -> None:
    panel.set_xlabel("Set size n (items)")
    if sizes:
        margin = 0.4 if len(sizes) > 1 else 1
        panel.set_xlim(sizes[0] - margin, sizes[-1] + margin)
    if len(sizes) <= 12:
        panel.set_xticks(sizes)
    else:
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))


def _logarithmic(panel: Axes, means: np.ndarray) -> None:
    """A logarithmic axis around the means; values that are not positive have no place on it."""
    positive = means[means > 0]
    panel.set_yscale("log")
    if positive.size:
        panel.set_ylim(positive.min() / 1.6, positive.max() * 1.6)
    plain_log_ticks(panel)


def plain_log_ticks(panel: Axes) -> None:
    """Numbers instead of powers, and enough of them on an axis of less than two decades."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = panel.get_ylim()
    subs = (1.0,) if high / low > 300 else (1.0, 2.0, 5.0)
    panel.yaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_minor_formatter(NullFormatter())


def _merged_legend(panels: Iterable[Axes]) -> tuple[list[Any], list[str]]:
    """Every label of the panels once."""
    found: dict[str, Any] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)


def _label(value: object, points: pd.DataFrame) -> str:
    return label_of(value) if points["n_seeds"].any() else f"{label_of(value)} (no run)"


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
