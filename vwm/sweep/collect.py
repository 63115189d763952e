"""From the folders of a sweep's runs to one table, beside people, with every hole named."""

import itertools
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vwm.errors import UserError
from vwm.sweep.analysis_columns import AnalysisColumns, read_analysis_columns
from vwm.sweep.archive import Archive
from vwm.sweep.grid import Sweep
from vwm.sweep.measured import Progress, Unreadable, measured
from vwm.sweep.plan import ObservedRun, Plan, make_plan
from vwm.training.run_folder import RunFolder, RunState

if TYPE_CHECKING:
    import pandas as pd

    from vwm.sweep.people import People


@dataclass(frozen=True)
class Hole:
    """A run of the sweep that the tables lack."""

    run_id: str
    settings: Mapping[str, Any]
    seed: int
    why: str
    command: str  # what fills the hole


@dataclass(frozen=True)
class Collected:
    """What was collected, and what is missing."""

    sweep: Sweep
    runs: "pd.DataFrame"  # run × set size
    by_set_size: "pd.DataFrame"  # grid point × set size
    by_row: "pd.DataFrame"  # value of table.rows (column "row") × set size: the sweep's own layout
    row_of_run: Mapping[str, Any]  # run id → its value of "row", of all planned runs
    averaged_axes: tuple[str, ...]  # dotted names that differ between the grid points of one row
    holes: tuple[Hole, ...]
    people: "People"
    analyses: AnalysisColumns  # what `runs` and, over seeds, `by_set_size` and `by_row` have as their last columns
    comparison: "pd.DataFrame"  # grid point × source × measure × matched set size, see human.compare
    ranking: "pd.DataFrame"  # grid point × source, the closest first, see human.rank


def collect(
    sweep: Sweep,
    folder: Path,
    people: "People | None" = None,
    named: str | None = None,
    progress: Progress = lambda done, total: None,
    elsewhere: Mapping[str, Any] | None = None,
) -> Collected:
    """Read the responses of every finished run; what was measured before is not measured again.

    A run that is not finished, or whose responses cannot be read, is a hole: it is named, and never stops the others
    from being collected.

    Args:
        sweep: the expanded sweep.
        folder: ``runs/<sweep>``, which holds a folder for each run.
        people: whom the networks are put beside; published summaries, where not given.
        named: how a command line names this sweep, options and quotes included; the folder, where not given.
        progress: told how many of the finished runs are measured.
        elsewhere: measures of finished runs by run id, in place of those of the folders.

    Raises:
        UserError: the sweep has no folder yet.
    """
    import pandas as pd

    from vwm.behaviour import human
    from vwm.sweep.people import published

    if elsewhere is None and not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder, so nothing of this sweep was run. Launch it first.")
    planned = _planned(sweep)
    named = named or shlex.quote(str(folder))
    present = make_plan(sweep, folder)
    results = _results(present, folder, progress) if elsewhere is None else elsewhere
    holes: list[Hole] = []
    tables: dict[str, dict[str, list[Any]]] = {}
    for observed in present.runs:
        hole = _hole(observed, results.get(observed.run_id), RunFolder(folder / observed.run_id), named)
        if hole is None:
            tables[observed.run_id] = results[observed.run_id]
        else:
            holes.append(hole)
    runs = _join(planned, tables)
    analyses = read_analysis_columns(list(tables), folder) if elsewhere is None else AnalysisColumns()
    runs = pd.concat([runs, analyses.beside(runs)], axis=1)
    more = tuple(analyses.dictionary)
    by_set_size = _summarise(planned, runs, "point", sweep.axes, more).drop(columns="point")
    people = people or published()
    return Collected(
        sweep=sweep,
        runs=runs.drop(columns=["point", "row"]),
        by_set_size=by_set_size,
        by_row=_in_order(_summarise(planned, runs, "row", (), more)),
        row_of_run=dict(zip(planned["run_id"], planned["row"], strict=True)),
        averaged_axes=_averaged_axes(planned, sweep),
        holes=tuple(holes),
        people=people,
        analyses=analyses,
        comparison=human.compare(by_set_size, people.summaries, sweep.axes),
        ranking=human.rank(by_set_size, people.summaries, sweep.axes),
    )


def _results(present: Plan, folder: Path, progress: Progress) -> dict[str, Any]:
    """What is measured of each finished run, or why it cannot be."""
    finished = [observed.run for observed in present.in_state("finished") if observed.run is not None]
    return measured(finished, folder, "measures", measure_run, progress)


def measures_of_finished(present: Plan, folder: Path, progress: Progress) -> dict[str, dict[str, list[Any]]]:
    """The measures of every finished run whose responses can be read, by run id; ``folder`` is runs/<sweep>."""
    results = _results(present, folder, progress)
    return {run_id: result for run_id, result in results.items() if not isinstance(result, Unreadable)}


def measure_run(files: RunFolder, archive: Archive) -> dict[str, list[Any]]:
    """The measures of a run by set size, column by column.

    Raises:
        UnreadableResponses: its responses cannot be read.
    """
    from vwm.behaviour.responses import read_run
    from vwm.behaviour.tables import measures

    with archive.readable(files.responses) as path:
        responses = read_run(path, files.path.name)
    return {str(name): column.tolist() for name, column in measures(responses).items()}


# ---------------------------------------------------------------------------------------------------------------
# Holes
# ---------------------------------------------------------------------------------------------------------------


def _hole(observed: ObservedRun, result: Any, folder: RunFolder, named: str) -> Hole | None:
    """Why there are no measures of this run and the command that makes them; None where there are."""
    run = observed.run
    assert run is not None
    if observed.state != "finished" and result is None:
        why, command = _unfinished(observed, folder)
        return Hole(run.run_id, run.settings, run.seed, why, f"vwm-sweep {command} {named}")
    expected = sorted(run.configuration.model_params.item_num)
    if result is None:
        why = "it is finished, but W&B holds no measures of it."
        return Hole(run.run_id, run.settings, run.seed, why, f"vwm-sweep sync {named}")
    if isinstance(result, Unreadable):
        why = result.why
    elif result["set_size"] != expected:
        why = f"{folder.responses}: set sizes {result['set_size']}; {expected} were expected."
    else:
        return None
    command = f"vwm evaluate {shlex.quote(str(folder.path))}"
    if not folder.path.exists():
        command = f"vwm-sweep archive --unpack {named} && {command}"
    return Hole(run.run_id, run.settings, run.seed, why, command)


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
        row = values[0] if len(values) == 1 else ", ".join(cell_text(value) for value in values) or sweep.name
        for set_size in sorted(run.configuration.model_params.item_num):
            rows.append(
                {"run_id": run.run_id, **axes, "seed": run.seed, "set_size": set_size, "point": point, "row": row}
            )
    return pd.DataFrame(rows)


def _cell(value: Any) -> Any:
    """A value of an axis as it stands in a table: lists as the text they are in a file."""
    return value if isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False)


def cell_text(value: Any) -> str:
    """A value of an axis for people."""
    return f"{value:g}" if isinstance(value, float) else str(_cell(value))


def _join(planned: "pd.DataFrame", tables: Mapping[str, Mapping[str, list[Any]]]) -> "pd.DataFrame":
    """The rows of ``planned`` that were measured, with their measures, in the sweep's order."""
    import pandas as pd

    from vwm.behaviour.tables import MEASURES

    if not tables:
        flags = {"mixture_flag": "", "swap_flag": ""}
        return planned.head(0).assign(n_trials=0, n_responses=0, **dict.fromkeys(MEASURES, 0.0), **flags)
    names = next(iter(tables.values()))
    columns = {name: list(itertools.chain.from_iterable(table[name] for table in tables.values())) for name in names}
    run_ids = [run_id for run_id, table in tables.items() for _ in table["set_size"]]
    found = pd.DataFrame({"run_id": run_ids, **columns})
    return planned.merge(found, on=["run_id", "set_size"], how="inner", validate="1:1")


def _summarise(
    planned: "pd.DataFrame", runs: "pd.DataFrame", key: str, axes: tuple[str, ...], more: tuple[str, ...]
) -> "pd.DataFrame":
    """Every planned cell ``key`` × set size with what was found for it, cells without any run included.

    ``more`` are columns of ``runs`` that are averaged besides the measures of responses.
    """
    import pandas as pd

    from vwm.behaviour.tables import aggregate, summaries

    cell = [key, "set_size"]
    groups = planned.groupby(cell, sort=False)
    missing = planned[~planned["run_id"].isin(runs["run_id"])]
    table = groups[list(axes)].first()
    table["n_planned"] = groups.size()
    seeds = missing.groupby(cell)["seed"].agg(lambda seeds: str([int(seed) for seed in seeds]))
    table["missing_seeds"] = seeds.astype(object).reindex(table.index, fill_value="")
    table = table.join(aggregate(runs, cell).set_index(cell))
    of_runs = runs.groupby(cell, sort=False)
    averaged = [pd.DataFrame(summaries(of_runs, name)) for name in more]
    table = pd.concat([table, *(columns.reindex(table.index) for columns in averaged)], axis=1)
    for count in ("n_seeds", "n_identified", "n_swaps_identified"):
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


def evenly(items: list[Any], most: int) -> list[Any]:
    """At most ``most`` of ``items``, first and last included, as evenly spread as they can be."""
    if len(items) <= most:
        return items
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]
