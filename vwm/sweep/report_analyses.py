"""What the page of a sweep says of its analyses: a figure of some of their numbers, and a table of all."""

import math
from typing import TYPE_CHECKING

from vwm.sweep.collect import Collected, cell_text
from vwm.sweep.collect_files import legend_title, row_title
from vwm.sweep.report import Cell, Head, PageFigure, PageTable, Section

if TYPE_CHECKING:
    import pandas as pd

_DRAWN = {
    "snr_of_the_average": "Signal-to-noise ratio (dB)",
    "linear_information": "Linear information (1/rad²)",
    "efficiency": "Efficiency of responses",
    "error_at_end_of_delay": "Mean |error|, end of delay (rad)",
    "weight_sum_delay": "Σw of the delay",
    "interaction_share_excitatory": "Interactions, excitatory units",
    "interaction_share_inhibitory": "Interactions, inhibitory units",
    "participation_ratio_excitatory": "Dimensions, excitatory units",
}
"""The columns by set size that the page draws, where they are there, with their axes."""


def analyses_section(collected: Collected) -> Section:
    """Means over seeds of what ``vwm-sweep analyse`` has left in the folders of the runs."""
    from vwm.behaviour.figures import one_measure

    dictionary, by_row, title = collected.analyses.dictionary, collected.by_row, legend_title(collected)
    figures = [
        PageFigure(name, one_measure(by_row, name, title, label=label), f"{dictionary[name].meaning}.")
        for name, label in _DRAWN.items()
        if name in dictionary and by_row[f"{name}_mean"].notna().any()
    ]
    count = len({run for run in collected.analyses.values if run in set(collected.runs["run_id"])})
    text = (
        f"Of {count} of {collected.runs['run_id'].nunique()} finished runs. Means over seeds, shaded with the 95 % "
        "interval of the mean (Student t over seeds). What each number means stands in the last table, under its name."
    )
    return Section("analyses", "Analyses", [text], figures=figures, tables=[_table(collected)])


def _table(collected: Collected) -> PageTable:
    """A row for each number and row of the sweep's table, a column for each set size."""
    by_row = collected.by_row
    sizes = sorted(int(n) for n in set(by_row["set_size"]))
    title = row_title(collected.sweep.rows, collected.sweep.axes)
    heads = [Head("number"), Head("unit"), Head(title), *(Head(f"n = {n}", is_number=True) for n in sizes)]
    rows = []
    for name, measure in collected.analyses.dictionary.items():
        for row, points in by_row.groupby("row", sort=False):
            cells = [_cell(points[points["set_size"] == n], name) for n in sizes]
            if any(cell.text for cell in cells):
                rows.append([Cell(name.replace("_", " ")), Cell(measure.unit), Cell(cell_text(row)), *cells])
    return PageTable("Numbers of the analyses, mean [95 % interval] over seeds", heads, rows, file="tables/runs.csv")


def _cell(points: "pd.DataFrame", name: str) -> Cell:
    """Of the one row of a set size, or of none: the mean with its interval."""
    from vwm.behaviour.table_text import with_interval

    for mean, low, high in points[[f"{name}_mean", f"{name}_ci_low", f"{name}_ci_high"]].astype(float).to_numpy():
        if not math.isnan(mean):
            return Cell(with_interval(mean, low, high), float(mean))
    return Cell("")
