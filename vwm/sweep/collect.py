"""From the folders of a sweep's runs to its tables and its figure, with every hole named."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vwm.errors import UserError
from vwm.files import write_atomically
from vwm.sweep.archive import Archive
from vwm.sweep.grid import Sweep
from vwm.sweep.plan import ObservedRun, make_plan
from vwm.training.run_folder import RunFolder, RunState

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

NOISE_FACTOR = "model_params.spike_noise_factor"
_MOST_SET_SIZES = 10  # columns of numbers that fit a terminal of 80 characters


@dataclass(frozen=True)
class Hole:
    """A run of the sweep that the tables lack."""

    run_id: str
    settings: Mapping[str, Any]
    seed: int
    why: str
    command: str  # what fills the hole


@dataclass(frozen=True)
class CollectReport:
    """What was collected, and what is missing."""

    sweep: Sweep
    tables: Path  # the folder that was written
    runs: "pd.DataFrame"  # run × set size
    by_set_size: "pd.DataFrame"  # grid point × set size
    by_row: "pd.DataFrame"  # value of table.rows (column "row") × set size; its lines and the terminal's rows
    averaged_axes: tuple[str, ...]  # dotted names that differ between the grid points of one row
    holes: tuple[Hole, ...]


def collect(sweep: Sweep, folder: Path) -> CollectReport:
    """Read the responses of every finished run and write ``tables/`` in the sweep's folder.

    A run that is not finished, or whose responses cannot be read, is a hole: it is named in the report and in the
    tables, and never stops the others from being collected.

    Args:
        sweep: the expanded sweep.
        folder: ``runs/<sweep>``, which holds a folder for each run.

    Raises:
        UserError: the sweep has no folder yet.
    """
    import pandas as pd

    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder, so nothing of this sweep was run. Launch it first.")
    planned = _planned(sweep)
    parts: list[pd.DataFrame] = []
    holes: list[Hole] = []
    archive = Archive(folder)
    for observed in make_plan(sweep, folder).runs:
        found = _read(observed, RunFolder(folder / observed.run_id), archive)
        if isinstance(found, Hole):
            holes.append(found)
        else:
            parts.append(found)
    runs = _join(planned, parts)
    report = CollectReport(
        sweep=sweep,
        tables=folder / "tables",
        runs=runs.drop(columns=["point", "row"]),
        by_set_size=_summarise(planned, runs, "point", sweep.axes).drop(columns="point"),
        by_row=_in_order(_summarise(planned, runs, "row", ())),
        averaged_axes=_averaged_axes(planned, sweep),
        holes=tuple(holes),
    )
    _write(report)
    return report


def _read(observed: ObservedRun, folder: RunFolder, archive: Archive) -> "pd.DataFrame | Hole":
    """The measures of one run by set size, or why there are none and the command that makes them."""
    from vwm.behaviour.responses import UnreadableResponses, read_run
    from vwm.behaviour.tables import measures

    run = observed.run
    assert run is not None
    if observed.state != "finished":
        why, command = _unfinished(observed, folder)
        command = f"vwm-sweep {command} {shlex.quote(str(folder.path.parent))}"
        return Hole(run.run_id, run.settings, run.seed, why, command)
    try:
        with archive.readable(folder.responses) as path:
            responses = read_run(path, run.run_id)
        given, expected = responses.set_sizes(), sorted(run.configuration.model_params.item_num)
        if given != expected:
            raise UnreadableResponses(f"{folder.responses}: set sizes {given}; {expected} were expected.")
    except UnreadableResponses as error:
        return Hole(run.run_id, run.settings, run.seed, str(error), f"vwm evaluate {shlex.quote(str(folder.path))}")
    return measures(responses).assign(run_id=run.run_id)


def _unfinished(observed: ObservedRun, folder: RunFolder) -> tuple[str, str]:
    """Why a run has no result yet, and the subcommand that goes on with it."""
    record, state = observed.record, observed.state
    if state == "damaged":
        return f"{folder.state} is damaged; delete that file first", "launch"
    if state in ("waiting", "unreachable"):
        return f"{state}: {observed.note}", "status"
    if state == "running":
        if record is not None and record.phase in ("training", "evaluating"):
            return f"{record.phase}, {_progress(record)}", "status"
        return "starting", "status"
    if record is None:
        return observed.note or "never started", "launch"
    parts = (record.reason, record.detail, observed.note)
    reason = ": ".join(" ".join(part.split()) for part in parts if part)
    why = f"{state} at {_progress(record)}" + (f": {reason}" if reason else "")
    return why, "retry" if state == "failed" else "launch"


def _progress(record: RunState) -> str:
    return f"iteration {record.iteration} of {record.num_iterations}"


# ---------------------------------------------------------------------------------------------------------------
# Tables
# ---------------------------------------------------------------------------------------------------------------


def row_names(sweep: Sweep) -> tuple[str, ...]:
    """The dotted names that make the rows: those of the file, or else every axis."""
    return sweep.rows or sweep.axes


def _planned(sweep: Sweep) -> "pd.DataFrame":
    """Every run × set size that the sweep asks for, with the number of its grid point and the value of its row."""
    import pandas as pd

    points: dict[str, int] = {}
    rows = []
    for run in sweep.runs:
        axes = {name: _cell(run.settings[name]) for name in sweep.axes}
        point = points.setdefault(json.dumps(axes, default=str), len(points))
        values = [axes[name] for name in row_names(sweep)]
        row = values[0] if len(values) == 1 else ", ".join(_text(value) for value in values) or sweep.name
        for set_size in sorted(run.configuration.model_params.item_num):
            rows.append(
                {"run_id": run.run_id, **axes, "seed": run.seed, "set_size": set_size, "point": point, "row": row}
            )
    return pd.DataFrame(rows)


def _cell(value: Any) -> Any:
    """A value of an axis as it stands in a table: lists as the text they are in a file."""
    return value if isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False)


def _join(planned: "pd.DataFrame", parts: "list[pd.DataFrame]") -> "pd.DataFrame":
    """The rows of ``planned`` that were measured, with their measures, in the sweep's order."""
    import pandas as pd

    from vwm.behaviour.tables import MEASURES

    if not parts:
        return planned.head(0).assign(n_trials=0, n_responses=0, **dict.fromkeys(MEASURES, 0.0), mixture_flag="")
    return planned.merge(pd.concat(parts), on=["run_id", "set_size"], how="inner", validate="1:1")


def _summarise(planned: "pd.DataFrame", runs: "pd.DataFrame", key: str, axes: tuple[str, ...]) -> "pd.DataFrame":
    """Every planned cell ``key`` × set size with what was found for it, cells without any run included."""
    from vwm.behaviour.tables import aggregate

    cell = [key, "set_size"]
    groups = planned.groupby(cell, sort=False)
    missing = planned[~planned["run_id"].isin(runs["run_id"])]
    table = groups[list(axes)].first()
    table["n_planned"] = groups.size()
    seeds = missing.groupby(cell)["seed"].agg(lambda seeds: str([int(seed) for seed in seeds]))
    table["missing_seeds"] = seeds.astype(object).reindex(table.index, fill_value="")
    table = table.join(aggregate(runs, cell).set_index(cell))
    for count in ("n_seeds", "n_identified"):
        table[count] = table[count].fillna(0).astype(int)
    table = table.reset_index()
    return table[[key, *axes, *(name for name in table.columns if name not in (key, *axes))]]


def _in_order(by_row: "pd.DataFrame") -> "pd.DataFrame":
    """Rows that are numbers ascend; names keep the order of the file."""
    from pandas.api.types import is_numeric_dtype

    return by_row.sort_values("row", kind="stable") if is_numeric_dtype(by_row["row"]) else by_row


def _averaged_axes(planned: "pd.DataFrame", sweep: Sweep) -> tuple[str, ...]:
    """The axes that differ between the grid points of one row, over which a line of the figure averages."""
    others = [name for name in sweep.axes if name not in row_names(sweep)]
    return tuple(name for name in others if (planned.groupby("row")[name].nunique() > 1).any())


# ---------------------------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------------------------


def _write(report: CollectReport) -> None:
    from vwm.behaviour.figures import save, set_size_figure
    from vwm.behaviour.tables import markdown

    folder = report.tables
    folder.mkdir(exist_ok=True)
    for name, table in (("runs", report.runs), ("by_set_size", report.by_set_size)):
        write_atomically(folder / f"{name}.csv", table.to_csv(index=False))
        write_atomically(folder / f"{name}.md", markdown(table))
    write_atomically(folder / "columns.md", _columns(report))
    title = ",\n".join(_field_title(name) for name in row_names(report.sweep)) or "sweep"
    save(set_size_figure(report.by_row, title, _note(report)), folder / "set_size")


def _field_title(name: str) -> str:
    """The field's own name without its section; the noise factor with what it means."""
    return "spike_noise_factor k\n(Fano factor k²)" if name == NOISE_FACTOR else name.rsplit(".", 1)[-1]


def _note(report: CollectReport) -> str:
    """What a reader of the lines must know: what they average over, and how many runs they lack."""
    parts = []
    if report.averaged_axes:
        names = ", ".join(name.rsplit(".", 1)[-1] for name in report.averaged_axes)
        parts.append(f"Each line averages over {names} as well as over seeds.")
    if report.holes:
        parts.append(f"{len(report.holes)} of {len(report.sweep.runs)} runs are missing.")
    return " ".join(parts)


def _columns(report: CollectReport) -> str:
    """The data dictionary of both csv files, as Markdown."""
    from vwm.behaviour.tables import Measure, data_dictionary, describe

    columns = {"run_id": Measure("the run, and its folder in the sweep's", "–")}
    for name in report.sweep.axes:
        convention = "k; k² is the Fano factor (1 is Poisson)" if name == NOISE_FACTOR else ""
        columns[name] = Measure(
            "field of the configuration that this sweep varies", "as in the configuration", convention
        )
    columns |= {
        "seed": Measure("training_params.seed of the run", "–"),
        "n_planned": Measure("runs that the sweep asks for", "–"),
        "missing_seeds": Measure("seeds of the planned runs that are not in the row", "–"),
    }
    columns |= data_dictionary([*report.runs.columns, *report.by_set_size.columns])
    files = "Columns of `runs.csv` (run × set size) and `by_set_size.csv` (grid point × set size)."
    return f"# Columns\n\n{files} An interval's unit is the seed.\n\n{describe(columns)}"


# ---------------------------------------------------------------------------------------------------------------
# The terminal
# ---------------------------------------------------------------------------------------------------------------


def summary_table(report: CollectReport) -> "Table":
    """Precision and capacity of every row against set size, for a terminal of 80 characters or more."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    sizes = sorted({int(n) for n in report.by_row["set_size"]})
    shown = _evenly(sizes, _MOST_SET_SIZES)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, collapse_padding=True, caption_justify="left")
    # Beside many set sizes the name stands one word a line, so that the column is no wider than its values need.
    joint = "_\n" if len(shown) > 6 else "_"
    names = [escape(_field_title(name).split("\n")[0].replace("_", joint)) for name in row_names(report.sweep)]
    table.add_column(",\n".join(names) or "sweep", overflow="fold", max_width=20)
    table.add_column("set size", no_wrap=True)
    for size in shown:
        table.add_column(str(size), justify="right", no_wrap=True)
    for row, cells in report.by_row.groupby("row", sort=False):
        means = cells.set_index("set_size").reindex(shown)
        found, planned = int(cells["n_seeds"].min()), int(cells["n_planned"].max())
        runs = f"{found} run{'' if found == 1 else 's'}" if found == planned else f"{found} of {planned} runs"
        table.add_row(escape(_text(row)), "precision", *map(_two_decimals, means["precision_mean"]))
        table.add_row(f"  {runs}", "capacity", *map(_two_decimals, means["capacity_mean"]), end_section=True)
    table.caption = _summary_caption(report, shown == sizes)
    return table


def _summary_caption(report: CollectReport, complete: bool) -> str:
    parts = ["Means over runs. precision: 1/rad, Bays-corrected, 0 at chance; capacity: K = w·n, items; – no value."]
    if NOISE_FACTOR in row_names(report.sweep):
        parts.append("k² is the Fano factor.")
    if not complete:
        parts.append("Other set sizes: by_set_size.csv.")
    return " ".join([*parts, _note(report)]).rstrip()


def holes_in_words(report: CollectReport) -> list[str]:
    """The missing runs, a line each, under each command that fills some of them; plain text."""
    by_command: dict[str, list[Hole]] = {}
    for hole in report.holes:
        by_command.setdefault(hole.command, []).append(hole)
    lines = []
    for command, holes in by_command.items():
        lines.append(f"{len(holes)} missing, to be filled by: {command}")
        for hole in holes:
            settings = [f"{name.rsplit('.', 1)[-1]} {_text(_cell(value))}" for name, value in hole.settings.items()]
            lines.append(f"  {hole.run_id}  {', '.join([*settings, f'seed {hole.seed}'])}: {hole.why}")
    return lines


def _two_decimals(value: float) -> str:
    return "–" if value != value else f"{value:.2f}"  # NaN is not equal to itself


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _evenly(items: list[int], most: int) -> list[int]:
    """At most ``most`` of ``items``, first and last included, as evenly spread as they can be."""
    if len(items) <= most:
        return items
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]
