"""The command ``vwm-sweep``: many runs."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vwm.cli.guard import guarded

if TYPE_CHECKING:  # Commands import what they need, so that the others start quickly.
    from rich.console import Console, RenderableType

    from vwm.sweep.find import FoundSweep
    from vwm.sweep.plan import State
    from vwm.sweep.profile import Profile

app = typer.Typer(
    name="vwm-sweep",
    help="Train the networks of a sweep, and make tables of them. For a single network there is vwm.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

SweepName = Annotated[str, typer.Argument(metavar="SWEEP", help="A sweep file, or the name of a sweep in runs/.")]
RunIds = Annotated[
    list[str] | None, typer.Argument(metavar="[RUN]...", help="Ids of runs, or their beginnings; without, all of them.")
]
Runs = Annotated[Path, typer.Option("--runs", metavar="DIR", help="The folder of all sweeps.")]
On = Annotated[
    Path | None, typer.Option("--on", metavar="PROFILE", help="A launch profile, instead of the sweep's own.")
]
RUNS = Path("runs")


@app.command()
def plan(sweep: SweepName, runs: Runs = RUNS, on: On = None) -> None:
    """Show what a sweep holds, what is done, and which jobs a launch would start. Nothing is written."""
    from vwm.sweep.find import find_sweep
    from vwm.sweep.plan import STARTABLE, jobs_to_start
    from vwm.sweep.status import plan_view

    found = find_sweep(sweep, runs)
    profile = _profile(found, on)
    present = found.plan()
    jobs = jobs_to_start(present.in_state(*STARTABLE), profile)
    console = _console()
    console.print(plan_view(found.sweep, present, jobs, profile))
    _say_what_next(console, sweep, runs, [run.state for run in present.runs])


@app.command()
def launch(sweep: SweepName, runs: Runs = RUNS, on: On = None) -> None:
    """Train what is not finished, a few jobs at a time; Ctrl-C saves and stops, and the same command goes on.

    Finished runs are never repeated, and failed ones wait for retry. Exit code: 0 when all runs are finished, 130 after
    Ctrl-C, otherwise 1.
    """
    from vwm.sweep.find import find_sweep
    from vwm.sweep.plan import STARTABLE

    found = find_sweep(sweep, runs)
    sys.exit(_launch(sweep, found, runs, _profile(found, on), STARTABLE, None))


@app.command()
def retry(sweep: SweepName, run: RunIds = None, runs: Runs = RUNS, on: On = None) -> None:
    """Start failed runs again, from their last good checkpoint."""
    from vwm.errors import UserError
    from vwm.sweep.find import find_runs, find_sweep

    found = find_sweep(sweep, runs)
    present = found.plan()
    chosen = find_runs(run, present.runs) if run else present.in_state("failed")
    for observed in chosen:
        if observed.state != "failed":
            raise UserError(f"{observed.run_id} is {observed.state}; only failed runs are retried.")
    if not chosen:
        print("No run has failed.")
        return
    sys.exit(_launch(sweep, found, runs, _profile(found, on), ("failed",), [observed.run_id for observed in chosen]))


@app.command()
def status(
    sweep: Annotated[str | None, typer.Argument(metavar="[SWEEP]", help="Without it, every sweep in runs/.")] = None,
    runs: Runs = RUNS,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every 2 seconds, until Ctrl-C.")] = False,
    json: Annotated[bool, typer.Option("--json", help="All facts about every run, for a program.")] = False,
) -> None:
    """Show how the runs are: progress, speed, time left, and why runs failed."""
    from vwm.errors import UserError
    from vwm.sweep.find import find_sweep, sweep_folders
    from vwm.sweep.status import as_json, overview, status_view

    def found_sweeps() -> "list[FoundSweep]":
        return [find_sweep(text, runs) for text in ([sweep] if sweep else [str(path) for path in sweep_folders(runs)])]

    if json and watch:
        raise UserError("--json and --watch exclude each other: call status --json again when you want to know more.")
    if not sweep and not sweep_folders(runs):
        raise UserError(f"{runs}: there is no sweep in this folder. Start one: vwm-sweep launch sweeps/quick.yaml")
    if json:
        import json as encoder

        facts = [as_json(found.sweep.name, found.plan()) for found in found_sweeps()]
        print(encoder.dumps(facts[0] if sweep else facts, indent=1, allow_nan=False))
        return

    console = _console()

    def view() -> "RenderableType":
        sweeps = found_sweeps()
        if sweep:
            height = console.height - 12 if watch else None
            return status_view(sweeps[0].sweep.name, sweeps[0].sweep.axes, sweeps[0].plan(), height)
        return overview([(found.folder.name, found.plan()) for found in sweeps])

    if not watch:
        console.print(view())
        return
    import time

    from rich.live import Live

    with Live(view(), console=console, auto_refresh=False, screen=console.is_terminal) as live:
        while True:
            time.sleep(2)
            live.update(view(), refresh=True)


@app.command()
def cancel(sweep: SweepName, run: RunIds = None, runs: Runs = RUNS) -> None:
    """Ask running runs to save and stop at their next step; a launch in progress starts no more of them."""
    from vwm.sweep.find import find_runs, find_sweep
    from vwm.sweep.ledger import Ledger
    from vwm.training.run_folder import RunFolder

    found = find_sweep(sweep, runs)
    present = found.plan()
    everything = [*present.runs, *present.left]
    chosen = find_runs(run, everything) if run else everything
    unfinished = [observed.run_id for observed in chosen if observed.state != "finished"]
    running = [observed.run_id for observed in chosen if observed.state == "running"]
    if found.folder.is_dir() and unfinished:
        Ledger(found.folder / "ledger.jsonl").cancelled(unfinished)
    for run_id in running:
        RunFolder(found.folder / run_id).request_stop("stop requested")
    print(f"{_runs(len(running))} asked to save and stop." if running else "Nothing is running.")


@app.command()
def logs(
    names: Annotated[list[str], typer.Argument(metavar="[SWEEP] RUN", help="The id of a run, or its beginning.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run's job has ended.")] = False,
    runs: Runs = RUNS,
) -> None:
    """Show the output of a run, over all its attempts."""
    from vwm.errors import UserError
    from vwm.sweep.find import find_sweep
    from vwm.sweep.logs import find_run_folder, read_logs

    if len(names) > 2:
        raise UserError(f"logs takes one run, with its sweep before it if need be; {len(names)} names were given.")
    folders = None if len(names) == 1 else [find_sweep(names[0], runs).folder]
    for text in read_logs(find_run_folder(names[-1], runs, folders), follow):
        sys.stdout.write(text)
        sys.stdout.flush()


@app.command()
def debug(
    sweep: SweepName,
    run: Annotated[str, typer.Option("--run", metavar="I", help="The number of the run from 0, or its id.")] = "0",
    iterations: Annotated[int, typer.Option(min=1, metavar="K", help="Iterations to train.")] = 5,
    runs: Runs = RUNS,
) -> None:
    """Train one run for a few iterations in this process, and open a debugger on an error.

    Nothing is kept, and the run's own folder is not touched.
    """
    from vwm.sweep.debug import debug_run
    from vwm.sweep.find import find_sweep, pick_run

    chosen = pick_run(run, find_sweep(sweep, runs).sweep)
    phase, detail = debug_run(chosen, iterations)
    print(f"{chosen.run_id}: {phase}{f': {detail}' if detail else ''}")
    sys.exit(0 if phase == "finished" else 130 if phase == "stopped" else 1)


@app.command()
def collect(sweep: SweepName, runs: Runs = RUNS) -> None:
    """Make the tables and the figure of what is finished, and name what is missing."""
    from vwm.sweep.collect import collect as make_tables
    from vwm.sweep.collect import holes_in_words, summary_table
    from vwm.sweep.find import find_sweep

    found = find_sweep(sweep, runs)
    report = make_tables(found.sweep, found.folder)
    console = _console()
    console.print(summary_table(report))
    for line in holes_in_words(report):
        console.print(line, markup=False, soft_wrap=True)
    console.print(f"Tables and figure: {report.tables}", markup=False, soft_wrap=True)


# ---------------------------------------------------------------------------------------------------------------


def _launch(
    argument: str,
    found: "FoundSweep",
    runs: Path,
    profile: "Profile",
    states: "Sequence[State]",
    only: Sequence[str] | None,
) -> int:
    """Launch, and say how to go on."""
    from vwm.sweep.launch import Launch
    from vwm.sweep.status import heading

    console = _console()
    launch = Launch(found.sweep, found.folder, profile, console)
    exit_code = launch.run(states, only)
    console.print(heading(found.sweep.name, launch.plan()))
    _say_what_next(console, argument, runs, [observed.state for observed in launch.plan().runs])
    return exit_code


def _say_what_next(console: "Console", argument: str, runs: Path, states: "Sequence[State]") -> None:
    """The commands that lead on from here."""
    place = "" if runs == RUNS else f" --runs {shlex.quote(str(runs))}"

    def say(why: str, command: str) -> None:
        console.print(f"{why:<26}vwm-sweep {command} {shlex.quote(argument)}{place}", markup=False, soft_wrap=True)

    if any(state in ("new", "stopped", "interrupted") for state in states):
        say("To train what is left:", "launch")
    if "failed" in states:
        say("To try failed runs again:", "retry")
    if "finished" in states:
        say("For tables and a figure:", "collect")


def _profile(found: "FoundSweep", on: Path | None) -> "Profile":
    from vwm.sweep.profile import Profile, read_profile

    path = on or found.sweep.profile
    return Profile() if path is None else read_profile(path)


def _runs(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"


def _console() -> "Console":
    from rich.console import Console

    return Console(highlight=False)


def main() -> None:
    """The entry point."""
    guarded(app)
