"""What collecting a sweep writes: its tables in four formats, what their columns mean, and the figure."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from vwm.files import write_atomically
from vwm.sweep.collect import Collected, row_names

if TYPE_CHECKING:
    import pandas as pd

    from vwm.behaviour.tables import Measure

NOISE_FACTOR = "model_params.spike_noise_factor"


def write_tables(collected: Collected, folder: Path) -> None:
    """Write ``folder`` (``runs/<sweep>/tables``): csv and parquet for programs, Markdown and LaTeX for people.

    ``runs`` is the long table (run × set size), ``by_set_size`` the aggregated one (grid point × set size), ``table``
    the latter as the sweep's ``table:`` lays it out, ``people`` and ``ranking`` the networks beside people.
    """
    from vwm.behaviour.figures import save, set_size_figure

    folder.mkdir(parents=True, exist_ok=True)
    _write_table(folder / "runs", collected.runs, ["run_id"], collected)
    _write_table(folder / "by_set_size", collected.by_set_size, list(collected.sweep.axes), collected)
    _write_for_people(folder / "table", layout(collected), [row_title(collected.sweep.rows, collected.sweep.axes)])
    _write_table(folder / "people", collected.comparison, [*collected.sweep.axes, "source", "measure"], collected)
    _write_table(folder / "ranking", collected.ranking, ["source"], collected)
    write_atomically(folder / "columns.md", _columns(collected))
    figure = set_size_figure(collected.by_row, legend_title(collected), note(collected), collected.people.summaries)
    save(figure, folder / "set_size")


def _write_table(path: Path, table: "pd.DataFrame", group: list[str], collected: Collected) -> None:
    content = io.BytesIO()
    # A column of parquet has one type; an axis may have words and numbers.
    mixed = {name: table[name].map(str) for name in table.columns if table[name].dtype == object}
    table.assign(**mixed).to_parquet(content, index=False)
    write_atomically(path.with_suffix(".parquet"), content.getvalue())
    write_atomically(path.with_suffix(".csv"), table.to_csv(index=False))
    _write_for_people(path, without_analyses(collected, table), group)


def _write_for_people(path: Path, table: "pd.DataFrame", group: list[str]) -> None:
    from vwm.behaviour.table_text import latex, markdown

    write_atomically(path.with_suffix(".md"), markdown(table))
    write_atomically(path.with_suffix(".tex"), latex(table, group))


def without_analyses(collected: Collected, table: "pd.DataFrame") -> "pd.DataFrame":
    """A table for reading: what analyses left would make it very wide, and has a table of its own on the page."""
    return table.drop(columns=list(_of_analyses(collected)), errors="ignore")


def _of_analyses(collected: Collected) -> "dict[str, Measure]":
    """Meaning and unit of the columns that analyses left, for runs and over seeds."""
    from vwm.behaviour.tables import summarised

    columns = dict(collected.analyses.dictionary)
    for name, measure in collected.analyses.dictionary.items():
        columns |= summarised(name, measure)
    return columns


def layout(collected: Collected) -> "pd.DataFrame":
    """The aggregated table as the sweep's ``table:`` lays it out, without what only programs need."""
    title = row_title(collected.sweep.rows, collected.sweep.axes)
    table = without_analyses(collected, collected.by_row)
    return table.rename(columns={"row": title}).drop(columns=["n_planned", "missing_seeds"])


def row_title(rows: tuple[str, ...], axes: tuple[str, ...]) -> str:
    """What the column of rows is called: the fields that make them."""
    return ", ".join(name.rsplit(".", 1)[-1] for name in rows or axes) or "sweep"


def field_title(name: str) -> str:
    """The field's own name without its section; the noise factor with what it means."""
    return "spike_noise_factor k\n(Fano factor k²)" if name == NOISE_FACTOR else name.rsplit(".", 1)[-1]


def legend_title(collected: Collected) -> str:
    """The title of a figure's legend: what its lines are."""
    return ",\n".join(field_title(name) for name in row_names(collected.sweep)) or "sweep"


def note(collected: Collected) -> str:
    """What a reader of the lines must know: what they average over, and how many runs they lack."""
    parts = []
    if collected.averaged_axes:
        names = ", ".join(name.rsplit(".", 1)[-1] for name in collected.averaged_axes)
        parts.append(f"Each line averages over {names} as well as over seeds.")
    if collected.holes:
        parts.append(f"{len(collected.holes)} of {len(collected.sweep.runs)} runs are missing.")
    return " ".join(parts)


def data_dictionary_of(collected: Collected) -> "dict[str, Measure]":
    """Meaning, unit and convention of every column of every file."""
    from vwm.behaviour.tables import Measure, data_dictionary

    columns = {"run_id": Measure("the run, and its folder in the sweep's", "–")}
    for name in collected.sweep.axes:
        convention = "k; k² is the Fano factor (1 is Poisson)" if name == NOISE_FACTOR else ""
        columns[name] = Measure(
            "field of the configuration that this sweep varies", "as in the configuration", convention
        )
    columns |= {
        "seed": Measure("training_params.seed of the run", "–"),
        "n_planned": Measure("runs that the sweep asks for", "–"),
        "missing_seeds": Measure("seeds of the planned runs that are not in the row", "–"),
    }
    tables = (collected.runs, collected.by_set_size, collected.comparison, collected.ranking)
    measured = data_dictionary(list(dict.fromkeys(name for table in tables for name in table.columns)))
    return columns | measured | _of_analyses(collected)


def _columns(collected: Collected) -> str:
    """The data dictionary of all files, as Markdown."""
    from vwm.behaviour.table_text import describe

    files = (
        "Columns of `runs` (run × set size), `by_set_size` (grid point × set size), `people` (grid point × source × "
        "measure × set size) and `ranking` (grid point × source). The csv and parquet files hold all digits; the "
        "Markdown and LaTeX ones are rounded, and leave measures out. `table` is `by_set_size` as the sweep's `table:` "
        "lays it out."
    )
    sources = "".join(f"- {source}: {' '.join(text.split())}\n" for source, text in collected.people.citations.items())
    people = f"\n# People\n\n{sources}" if sources else ""
    columns = describe(data_dictionary_of(collected))
    return f"# Columns\n\n{files} An interval's unit is the seed.\n\n{columns}{people}"
