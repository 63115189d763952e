"""How the numbers of analyses change over training: a table and a figure of each analysis's columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vwm.analysis.results import Column
from vwm.behaviour.figures import DISTINCT_COLOURS, looks, new_figure, save, style
from vwm.files import dump_yaml, write_atomically

_ACROSS = 4  # panels beside each other


@dataclass(frozen=True)
class Moment:
    """One analysis of the network of one iteration."""

    iteration: int
    analysis: str
    columns: Mapping[str, Column]


def course_table(moments: Sequence[Moment]) -> pd.DataFrame:
    """A row for each number: iteration, analysis, column, set_size (0 for a number of the whole run), value."""
    rows = []
    for moment in moments:
        for name, column in moment.columns.items():
            by_size = column.values if isinstance(column.values, Mapping) else {0: column.values}
            rows += [(moment.iteration, moment.analysis, name, n, float(value)) for n, value in by_size.items()]
    return pd.DataFrame(rows, columns=["iteration", "analysis", "column", "set_size", "value"])


def write_course(moments: Sequence[Moment], folder: Path) -> list[Path]:
    """Write over_training.csv, over_training.yaml with what its columns mean, and a figure for each analysis.

    Args:
        moments: of all iterations and analyses.
        folder: <run>/analysis, made here.

    Returns:
        The files, the table first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = course_table(moments)
    written = [folder / "over_training.csv", folder / "over_training.yaml"]
    write_atomically(written[0], table.to_csv(index=False))
    columns = {name: column for moment in moments for name, column in moment.columns.items()}
    meanings = {
        name: {"meaning": column.meaning, "unit": column.unit, "values": "of the run" if _is_of_run(column) else "by n"}
        for name, column in columns.items()
    }
    write_atomically(written[1], dump_yaml({"columns": meanings}))
    for analysis, rows in table.groupby("analysis", sort=False):
        path = folder / f"over_training_{analysis}"
        save(course_figure(rows, columns), path)
        written += [folder / f"{path.name}.pdf", folder / f"{path.name}.png"]
    return written


def _is_of_run(column: Column) -> bool:
    return not isinstance(column.values, Mapping)


def course_figure(table: pd.DataFrame, columns: Mapping[str, Column]) -> Figure:
    """A panel for each column of one analysis against the iteration, a line for each set size."""
    names = list(dict.fromkeys(table["column"]))
    sizes = pd.Series(sorted(n for n in set(table["set_size"]) if n > 0), dtype=np.int64)
    look = looks(sizes)
    across = min(_ACROSS, len(names))
    down = -(-len(names) // across)
    with style():
        figure = new_figure(3.1 * across + 0.7, 2.6 * down + 0.3)
        panels = figure.subplots(down, across, squeeze=False, sharex=True).ravel()
        for panel, name in zip(panels, names, strict=False):
            _draw_column(panel, table[table["column"] == name], name, columns[name].unit, look)
        for panel in panels[len(names) :]:
            panel.set_visible(False)
        for panel in panels[max(0, len(names) - across) : len(names)]:
            panel.set_xlabel("Iteration")
            panel.xaxis.set_tick_params(labelbottom=True)
        if len(sizes):
            handles = [panels[0].plot([], [], label=str(n), **look[n])[0] for n in sizes]
            figure.legend(handles=handles, title="Set size n", loc="outside right upper")
    return figure


def _draw_column(panel: Axes, rows: pd.DataFrame, name: str, unit: str, look: Mapping[int, dict[str, Any]]) -> None:
    for n, points in rows.groupby("set_size"):
        style_of = look.get(int(str(n)), {"color": DISTINCT_COLOURS[0], "marker": "o"})
        panel.plot(points["iteration"].to_numpy(), points["value"].to_numpy(), markersize=4, linewidth=1.4, **style_of)
    title = name.replace("_", " ")
    panel.set_title(title, fontsize=8.5)
    panel.set_ylabel("" if unit == "–" else unit)
    panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
