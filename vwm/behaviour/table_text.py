"""Tables for people: numbers rounded, intervals beside their means, as Markdown and as LaTeX with booktabs."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import pandas as pd
from pandas.api.types import is_float_dtype, is_numeric_dtype

from vwm.behaviour.tables import AGGREGATED, COUNTS, MEASURES, OF_PEOPLE, SUMMARIES, Measure

FOR_READING = ("mean_abs_error", "precision", "circular_kurtosis", "w", "capacity", "sd", "p_n", "swap_null")
"""The measures that a table for reading shows; all are in the csv and parquet files."""

NOT_FOR_READING = ("n_responses", "n_identified", "n_swaps_identified", "swap_flag")

_ONE_PAGE = 45  # rows of a LaTeX table that fit a page

_LATEX_ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        **{character: f"\\{character}" for character in "&%$#_"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "–": "--",
        "\n": " ",
        "\r": " ",
    }
)


def rounded(value: float) -> str:
    """``value`` to three significant digits, whole from 1000 on; – for a hole."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def plain(value: object) -> str:
    """A value that is no measurement, such as a setting."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def describe(columns: Mapping[str, Measure]) -> str:
    """A data dictionary as a Markdown table."""
    return _pipe_table(
        {
            "column": [f"`{name}`" for name in columns],
            "meaning": [column.meaning for column in columns.values()],
            "unit": [column.unit for column in columns.values()],
            "convention": [column.convention for column in columns.values()],
        }
    )


def with_interval(mean: float, low: float, high: float) -> str:
    """``mean [low, high]``, or the mean alone where there is no interval."""
    return rounded(mean) if math.isnan(low) else f"{rounded(mean)} [{rounded(low)}, {rounded(high)}]"


def readable(
    table: pd.DataFrame, cell: Callable[[float, float, float], str] = with_interval
) -> Iterator[tuple[str, list[str]]]:
    """The columns for reading with their cells; ``cell`` writes an aggregated measure: its mean and the interval."""
    summaries = {f"{name}_{ending}" for name in AGGREGATED for ending in SUMMARIES}
    for name in table.columns:
        measure, _, ending = str(name).rpartition("_")
        if name in summaries:
            if measure in FOR_READING and ending == "mean":
                parts = (
                    table[name].tolist(),
                    table[f"{measure}_ci_low"].tolist(),
                    table[f"{measure}_ci_high"].tolist(),
                )
                yield measure, [cell(*values) for values in zip(*parts, strict=True)]
        elif name in MEASURES:
            if name in FOR_READING:
                yield name, [rounded(value) for value in table[name].tolist()]
        elif name in OF_PEOPLE and is_float_dtype(table[name]):
            yield name, [rounded(value) for value in table[name].tolist()]
        elif name not in NOT_FOR_READING:
            yield name, [plain(value) for value in table[name].tolist()]


def markdown(table: pd.DataFrame) -> str:
    """``table`` in Markdown with measures rounded; an aggregated one as ``mean [95 % interval]``."""
    return _pipe_table(dict(readable(table)))


def latex(table: pd.DataFrame, group: Sequence[str] = ()) -> str:
    r"""``table`` in LaTeX with booktabs' rules; an aggregated measure as its mean ± half its 95 % interval.

    Args:
        table: rows of ``measures`` or ``aggregate``, with columns in front that say what they are of.
        group: a small gap is left where the values of these columns change.

    Returns:
        A ``tabular`` to be \\input into a document; a ``longtable`` where one page would not hold it.
    """

    def cell(mean: float, low: float, high: float) -> str:
        return _number(mean) if math.isnan(low) else f"${rounded(mean)} \\pm {rounded((high - low) / 2)}$"

    known = {**COUNTS, **MEASURES}
    heads, alignment, columns = [], "", []
    for name, values in readable(table, cell):
        is_measure = name in MEASURES
        heads.append((known[name].latex if name in known else "") or _escaped(name.rsplit(".", 1)[-1]))
        alignment += "r" if is_measure or is_numeric_dtype(table.get(name, table.index)) else "l"
        columns.append([value.replace("–", "--") for value in values] if is_measure else [*map(_escaped, values)])
    is_long = len(table) > _ONE_PAGE
    environment = "longtable" if is_long else "tabular"
    lines = [
        f"% \\usepackage{{booktabs{',longtable' if is_long else ''}}}",
        f"\\begin{{{environment}}}{{{alignment}}}",
        r"\toprule",
        " & ".join(heads) + r" \\",
        r"\midrule",
        *([r"\endhead", r"\bottomrule", r"\endfoot"] if is_long else []),
    ]
    places = list(zip(*(table[name] for name in group), strict=True)) or [()] * len(table)
    for index, row in enumerate(zip(*columns, strict=True)):
        if index and places[index] != places[index - 1]:
            lines.append(r"\addlinespace")
        lines.append(" & ".join(row) + r" \\")
    return "\n".join([*lines, *([] if is_long else [r"\bottomrule"]), f"\\end{{{environment}}}"]) + "\n"


def _pipe_table(columns: Mapping[str, list[str]]) -> str:
    padded = []
    for name, values in columns.items():
        # A bar would end the cell, and a line break the row.
        cells = [" ".join(value.replace("|", "\\|").split()) for value in (name, *values)]
        width = max(3, *map(len, cells))
        padded.append([cells[0].ljust(width), ":" + "-" * (width - 1), *(cell.ljust(width) for cell in cells[1:])])
    return "".join(f"| {' | '.join(row)} |\n" for row in zip(*padded, strict=True))


def _number(value: float) -> str:
    return rounded(value).replace("–", "--")


def _escaped(text: str) -> str:
    return text.translate(_LATEX_ESCAPES)
