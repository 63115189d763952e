"""The commands of ``vwm-sweep`` for what the runs of a sweep have shown: tables, pages, and Weights & Biases."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vwm.cli.sweep_options import RUNS, On, Runs, SweepName, count_of_runs, new_console, place, progress_bar

if TYPE_CHECKING:  # Commands import what they need, so that the others start quickly.
    from rich.console import Console

    from vwm.sweep.collect import Collected
    from vwm.sweep.wandb_source import Chosen

Human = Annotated[
    list[Path] | None,
    typer.Option("--human", metavar="FILE", help="A CSV of people's responses to put beside the networks; repeatable."),
]
Columns = Annotated[
    str | None,
    typer.Option("--columns", metavar="NAME=COLUMN,...", help="What its columns are called, as in responder=person."),
]
WATCH_S = 30.0  # between two rounds of vwm-sweep sync --watch

Units = Annotated[str, typer.Option("--units", help="Its angles: rad, deg, or deg180 for orientations.")]


def analyse(
    sweep: SweepName,
    runs: Runs = RUNS,
    on: On = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="NAME", help="Do this analysis alone. Repeatable; a wrong name lists them."),
    ] = None,
) -> None:
    """Analyse the networks of all finished runs, as jobs where there is SLURM, otherwise here, as many at a time as
    there are cores.

    What is up to date is not done again: the same code, configuration and network. Then collect and report show the
    numbers. Exit code here: 1 while something is not analysed. With SLURM it is that of launch; to see what is left,
    call it again.
    """
    from vwm.analysis.names import check_names
    from vwm.sweep.analyses import analyse_runs, left_of
    from vwm.sweep.find import find_sweep
    from vwm.sweep.profile import choose_profile

    names = check_names(only or [])
    found = find_sweep(sweep, runs)
    profile, origin = choose_profile(on, found.sweep.profile)
    console = new_console()
    console.print(f"Profile: {origin}.", markup=False, soft_wrap=True)
    finished = [observed.run_id for observed in found.plan().in_state("finished")]
    present = [run_id for run_id in finished if (found.folder / run_id).is_dir()]
    wanted = left_of([found.folder / run_id for run_id in present], names)
    console.print(
        f"{count_of_runs(len(finished))} finished, {count_of_runs(len(present) - len(wanted))} analysed already.",
        markup=False,
    )
    archived = len(finished) - len(present)
    if archived:
        command = f"vwm-sweep archive --unpack {shlex.quote(sweep)}{place(runs)}"
        console.print(
            f"{count_of_runs(archived)} in the archive, not analysed: {command}", markup=False, soft_wrap=True
        )
    if wanted and profile.where == "slurm":
        from vwm.sweep.submit import Submission

        submission = Submission(found.sweep, found.folder, profile.for_analyses(), console, names)
        sys.exit(submission.run(("finished",), list(wanted)))
    with progress_bar(console, "Analysing runs") as progress:
        failed = analyse_runs(wanted, found.folder, progress) if wanted else []
    for one in failed:
        console.print(f"{one.run_id}: {one.why} ({one.log})", style="yellow", markup=False, soft_wrap=True)
    if wanted:
        console.print(f"{count_of_runs(len(wanted) - len(failed))} analysed.", markup=False)
        text = f"For tables and a page:    vwm-sweep collect {shlex.quote(sweep)}{place(runs)}"
        console.print(text, markup=False, soft_wrap=True)
    sys.exit(1 if failed or archived else 0)


def collect(
    sweep: SweepName,
    runs: Runs = RUNS,
    human: Human = None,
    columns: Columns = None,
    units: Units = "rad",
    source: Annotated[
        str, typer.Option("--from", metavar="SOURCE", help="folders, wandb, wandb:ENTITY/PROJECT, or offline.")
    ] = "folders",
    group: Annotated[
        str | None,
        typer.Option("--group", metavar="NAME", help="With --from wandb: another group than the sweep's."),
    ] = None,
    filters: Annotated[
        str | None, typer.Option("--filter", metavar="JSON", help="With --from wandb: only runs of this Mongo query.")
    ] = None,
) -> None:
    """Make the tables and the figure of what is finished, beside people, and name what is missing."""
    from vwm.sweep.collect_files import write_tables
    from vwm.sweep.collect_view import holes_in_words, ranking_table, summary_table
    from vwm.sweep.people import source_of
    from vwm.sweep.wandb_source import read_chosen

    chosen = read_chosen(group, filters, source)
    collected, folder, console = _collect(sweep, runs, human, columns, units, source, chosen)
    write_tables(collected, folder / "tables")
    console.print(summary_table(collected))
    ranking = ranking_table(collected)
    if ranking is not None:
        console.print(ranking)
    for path in human or []:
        source = source_of(path, human or [])
        console.print(f"{source}: {collected.people.citations[source]}", markup=False, soft_wrap=True)
    for line in holes_in_words(collected):
        console.print(line, markup=False, soft_wrap=True)
    console.print(f"Tables and figure: {folder / 'tables'}", markup=False, soft_wrap=True)


def sync(
    sweep: SweepName,
    runs: Runs = RUNS,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until every run is finished and synced.")] = False,
) -> None:
    """Bring Weights & Biases up to date with a sweep, from a machine with internet.

    Every row arrives once, however often this is interrupted and repeated. WANDB_API_KEY, WANDB_ENTITY and
    WANDB_PROJECT say where to. Exit code: 1 while something is pending, which is named with the reason, otherwise 0.
    """
    import time

    from vwm.sweep.collect import measures_of_finished
    from vwm.sweep.find import find_sweep
    from vwm.sweep.sync import in_words
    from vwm.sweep.sync import sync as bring_up_to_date

    found = find_sweep(sweep, runs)
    console = new_console()
    while True:
        with progress_bar(console, "Measuring runs") as progress:
            measures = measures_of_finished(found.plan(), found.folder, progress)
        with progress_bar(console, "Syncing runs") as progress:
            synced = bring_up_to_date(found.sweep.runs, found.folder, measures, progress)
        for line in in_words(synced):
            console.print(line, markup=False, soft_wrap=True)
        is_pending = any(run.outcome == "pending" for run in synced)
        if not watch or (not is_pending and all(run.is_finished for run in synced)):
            sys.exit(1 if is_pending else 0)
        time.sleep(WATCH_S)


def dashboard(
    sweep: SweepName,
    runs: Runs = RUNS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print both as JSON; nothing is sent.")] = False,
) -> None:
    """Make a saved view and a report of a sweep in Weights & Biases."""
    import os

    from vwm.errors import UserError
    from vwm.sweep.dashboard import Dashboard
    from vwm.sweep.find import find_sweep
    from vwm.training.mirror import project

    found = find_sweep(sweep, runs)
    entity = os.environ.get("WANDB_ENTITY", "")
    if not entity and not dry_run:
        raise UserError("WANDB_ENTITY is not set. Set it to the user or team in W&B whose project this is.")
    made = Dashboard(found.sweep, entity, project())
    if dry_run:
        print(made.as_json())
        return
    for address in made.save():
        print(address)


def report(
    sweep: SweepName, runs: Runs = RUNS, human: Human = None, columns: Columns = None, units: Units = "rad"
) -> None:
    """Make the page of a sweep: tables that sort and figures, in one file to look at or to send.

    Exit code: 0 also while runs are missing; the page names them.
    """
    from vwm.sweep.collect_files import write_tables
    from vwm.sweep.report import write_page
    from vwm.sweep.report_content import make_page
    from vwm.sweep.report_facts import facts_of_runs, models_of_people

    collected, folder, console = _collect(sweep, runs, human, columns, units)
    with progress_bar(console, "Fitting models") as progress:
        facts = facts_of_runs(collected, folder, progress)
    with progress_bar(console, "Fitting models to people") as progress:
        people = models_of_people(collected.people, progress)
    write_tables(collected, folder / "tables")
    page = write_page(make_page(collected, facts, people, folder), folder)
    if collected.holes:
        console.print(f"{count_of_runs(len(collected.holes))} missing; the page says which and why.")
    console.print(f"The page: {page}", markup=False, soft_wrap=True)


# ---------------------------------------------------------------------------------------------------------------


def _collect(
    sweep: str,
    runs: Path,
    human: list[Path] | None,
    columns: str | None,
    units: str,
    source: str = "folders",
    chosen: "Chosen | None" = None,
) -> "tuple[Collected, Path, Console]":
    """What is measured of a sweep beside people, its folder, and where to print."""
    from vwm.sweep.collect import collect
    from vwm.sweep.find import find_sweep
    from vwm.sweep.people import read_people
    from vwm.sweep.wandb_source import Chosen, results_from

    found = find_sweep(sweep, runs)
    console = new_console()
    elsewhere, differences = None, list[str]()
    with progress_bar(console, "Measuring runs") as progress:
        people = read_people(human or [], columns, units)
        if source != "folders":
            elsewhere, differences = results_from(source, found.sweep, found.folder, progress, chosen or Chosen())
        named = f"{shlex.quote(sweep)}{place(runs)}"
        collected = collect(found.sweep, found.folder, people, named, progress, elsewhere)
    for line in differences:
        console.print(line, style="yellow", markup=False, soft_wrap=True)
    return collected, found.folder, console
