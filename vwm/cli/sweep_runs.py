"""The commands of ``vwm-sweep`` that train: from the plan of a sweep to the archive of its runs."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vwm.cli.sweep_options import RUNS, On, Runs, SweepName, count_of_runs, new_console, place

if TYPE_CHECKING:  # Commands import what they need, so that the others start quickly.
    from rich.console import Console, RenderableType

    from vwm.sweep.find import FoundSweep
    from vwm.sweep.plan import Plan, State

RunIds = Annotated[
    list[str] | None, typer.Argument(metavar="[RUN]...", help="Ids of runs, or their beginnings; without, all of them.")
]
Wandb = Annotated[
    str | None, typer.Option("--wandb", metavar="MODE", help="online, offline or disabled, instead of the profile's.")
]


def plan(sweep: SweepName, runs: Runs = RUNS, on: On = None) -> None:
    """Show what a sweep holds, what is done, and which jobs a launch would start. Nothing is written."""
    from vwm.sweep.find import find_sweep
    from vwm.sweep.plan import STARTABLE, jobs_to_start
    from vwm.sweep.profile import choose_profile
    from vwm.sweep.status import plan_view

    found = find_sweep(sweep, runs)
    profile, origin = choose_profile(on, found.sweep.profile)
    forecast = None
    if profile.where == "slurm":
        from vwm.sweep.forecast import forecast_submission

        present, jobs, forecast = forecast_submission(found.sweep, found.folder, profile)
    else:
        present = found.plan()
        jobs = jobs_to_start(present.in_state(*STARTABLE), profile)
    console = new_console()
    console.print(f"Profile: {origin}.", markup=False, soft_wrap=True)
    console.print(plan_view(found.sweep, present, jobs, profile, forecast))
    _say_what_next(console, sweep, runs, on, [run.state for run in present.runs])


def launch(
    sweep: SweepName,
    runs: Runs = RUNS,
    on: On = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Cancel queued and running jobs all of whose runs left the grid.")
    ] = False,
    wandb: Wandb = None,
) -> None:
    """Train what is not finished: submit it where there is SLURM, otherwise train here, a few jobs at a time.

    Finished runs are never repeated, queued and running ones are left alone, and failed ones wait for retry. Here,
    Ctrl-C saves and stops, and the exit code is 0 when all runs are finished, 130 after Ctrl-C, otherwise 1. With SLURM
    it is 0 when all is submitted, 1 when the queue had no room for the rest, 2 when SLURM refused, and 3 when it could
    not be asked.
    """
    from vwm.sweep.find import find_sweep
    from vwm.sweep.plan import STARTABLE

    _use_mode(wandb)
    sys.exit(_launch(sweep, find_sweep(sweep, runs), runs, on, STARTABLE, None, prune))


def retry(
    sweep: SweepName,
    run: RunIds = None,
    runs: Runs = RUNS,
    on: On = None,
    failed: Annotated[bool, typer.Option("--failed", help="All failed runs, which is also what no RUN means.")] = False,
    oom: Annotated[bool, typer.Option("--oom", help="Only those that ran out of memory.")] = False,
    wandb: Wandb = None,
) -> None:
    """Start failed runs again, from their last good checkpoint."""
    from vwm.errors import UserError
    from vwm.sweep.breaker import forgive
    from vwm.sweep.find import find_runs, find_sweep
    from vwm.sweep.plan import STARTABLE
    from vwm.training.run_folder import RunFolder

    if sum(map(bool, (run, failed, oom))) > 1:
        raise UserError("retry takes ids of runs, --failed or --oom; more than one of them was given.")
    _use_mode(wandb)
    found = find_sweep(sweep, runs)
    present = found.plan()
    chosen = find_runs(run, present.runs) if run else present.in_state("failed")
    for observed in chosen:
        if observed.state != "failed":
            raise UserError(f"{observed.run_id} is {observed.state}; only failed runs are retried.")
    if oom:
        chosen = [observed for observed in chosen if observed.record and observed.record.reason == "out of memory"]
    if not chosen:
        print("No run has run out of memory." if oom else "No run has failed.")
        return
    for observed in chosen:
        forgive(RunFolder(found.folder / observed.run_id))
    sys.exit(_launch(sweep, found, runs, on, (*STARTABLE, "failed"), [observed.run_id for observed in chosen]))


def status(
    sweep: Annotated[str | None, typer.Argument(metavar="[SWEEP]", help="Without it, every sweep in runs/.")] = None,
    runs: Runs = RUNS,
    state: Annotated[
        str | None, typer.Option("--state", metavar="STATES", help="Only these runs, as in --state running,failed.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--setting", metavar="NAME=VALUE", help="Only runs with this value; repeatable.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every few seconds, until Ctrl-C.")] = False,
    json: Annotated[bool, typer.Option("--json", help="All facts about every run, for a program.")] = False,
) -> None:
    """Show how the runs are: progress, speed, time left, and why runs failed or wait.

    Exit code: 3 where SLURM cannot be asked what became of a run, otherwise 0.
    """
    from vwm.errors import UserError
    from vwm.sweep.find import chosen_runs, find_sweep, sweep_folders
    from vwm.sweep.status import as_json, overview, status_view, unreachable

    if json and watch:
        raise UserError("--json and --watch exclude each other: call status --json again when you want to know more.")
    if (state or setting) and (json or not sweep):
        raise UserError("--state and --setting choose the rows of one sweep's table: give a SWEEP, and no --json.")
    if not sweep and not sweep_folders(runs):
        raise UserError(f"{runs}: there is no sweep in this folder. Start one: vwm-sweep launch sweeps/quick.yaml")
    plans: list[tuple[FoundSweep, Plan]] = []

    def look() -> None:
        texts = [sweep] if sweep else [str(path) for path in sweep_folders(runs)]
        plans[:] = [(found, found.plan()) for found in (find_sweep(text, runs) for text in texts)]

    console = new_console()

    def view() -> "RenderableType":
        look()
        if not sweep:
            return overview([(found.folder.name, plan) for found, plan in plans])
        found, plan = plans[0]
        chosen = chosen_runs(plan, state, setting or []) if state or setting else None
        height = console.height - 12 if watch else None
        return status_view(found.sweep.name, found.sweep.axes, plan, height, chosen)

    if json:
        import json as encoder

        look()
        facts = [as_json(found.sweep.name, plan) for found, plan in plans]
        print(encoder.dumps(facts[0] if sweep else facts, indent=1, allow_nan=False))
    elif watch:
        import time

        from rich.live import Live

        with Live(view(), console=console, auto_refresh=False, screen=console.is_terminal) as live:
            while True:
                # SLURM's controller serves a whole cluster, and should not be asked by everybody every other second.
                asked = any(run.carrier is not None for _, plan in plans for run in plan.runs)
                time.sleep(15 if asked else 2)
                live.update(view(), refresh=True)
    else:
        console.print(view())
    sys.exit(3 if any(unreachable(plan) is not None for _, plan in plans) else 0)


def cancel(sweep: SweepName, run: RunIds = None, runs: Runs = RUNS) -> None:
    """Stop runs: those that run save and leave at their next step, and those that wait in SLURM's queue leave it.

    SLURM's jobs that analyse these runs, and no others, are cancelled too.

    A launch in progress starts no more of them. Exit code: 3 where SLURM cannot be asked, otherwise 0.
    """
    from vwm.sweep.cancel import cancel_runs
    from vwm.sweep.find import find_runs, find_sweep

    found = find_sweep(sweep, runs)
    present = found.plan()
    everything = [*present.runs, *present.left]
    report = cancel_runs(found.folder, find_runs(run, everything) if run else everything, everything)
    print("\n".join(report.lines))
    sys.exit(3 if report.unreachable else 0)


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


def drill(
    on: Annotated[Path, typer.Option("--on", metavar="PROFILE", help="A launch profile with where: slurm.")],
    runs: Runs = RUNS,
) -> None:
    """Show on this cluster that an interrupted run goes on and ends as if nothing had happened.

    A small run with the profile's layout is given notice, requeued, and run into its time limit, and compared with an
    undisturbed one. Takes four to ten minutes where no job has to wait; Ctrl-C cancels the jobs. Exit code: 0 all
    passed, 1 something did not, 2 refused, 3 SLURM could not be asked.
    """
    from vwm.sweep.drill import Drill
    from vwm.sweep.profile import choose_profile

    profile, origin = choose_profile(on, None)
    sys.exit(Drill(profile, origin, runs, new_console()).run())


def archive(
    sweep: SweepName,
    runs: Runs = RUNS,
    unpack: Annotated[bool, typer.Option("--unpack", help="Make the folders of the runs again.")] = False,
) -> None:
    """Pack the folders of finished runs into one file; plan, status, launch and collect go on as before.

    Nothing is packed while a run of the sweep runs or waits in a queue.
    """
    from vwm.errors import UserError
    from vwm.sweep import archive as archives
    from vwm.sweep.arrays import live_analyses
    from vwm.sweep.find import find_sweep
    from vwm.sweep.slurm import SchedulerUnreachable

    found = find_sweep(sweep, runs)
    if unpack:
        print(f"{count_of_runs(archives.unpack(found.folder))} unpacked.")
        return
    try:
        analysing = live_analyses(found.folder)
    except SchedulerUnreachable as words:
        raise UserError(
            f"SLURM cannot be asked whether a job still analyses runs of this sweep: {words}. Archive it later."
        ) from None
    if analysing:
        raise UserError(
            f"Job {analysing[0].entry.target} still analyses runs of this sweep. Wait for it, or cancel it, before you "
            "archive it."
        )
    present = found.plan()
    everything = [*present.runs, *present.left]
    busy = [observed for observed in everything if observed.state in ("running", "waiting", "unreachable")]
    if busy:
        raise UserError(
            f"{count_of_runs(len(busy))} of this sweep may still be worked on ({busy[0].run_id} is {busy[0].state}). "
            "Wait for them, or cancel them, before you archive it."
        )
    finished = [observed.run_id for observed in everything if observed.state == "finished"]
    if not finished:
        raise UserError(f"{found.folder}: no run is finished, so there is nothing to archive.")
    count = archives.pack(found.folder, finished)
    rest = len(everything) - count
    left = f"; {rest} not finished and left." if rest else "."
    print(f"{count_of_runs(count)} in {found.folder / 'archive.zip'}{left}")


# ---------------------------------------------------------------------------------------------------------------


def _use_mode(wandb: str | None) -> None:
    """Let the jobs of this launch track as --wandb says, which comes before the environment and the profile."""
    import os

    from vwm.training.mirror import tracking_mode

    mode = tracking_mode(wandb)
    if wandb is not None:
        os.environ["WANDB_MODE"] = mode


def _launch(
    argument: str,
    found: "FoundSweep",
    runs: Path,
    on: Path | None,
    states: "Sequence[State]",
    only: Sequence[str] | None,
    prune: bool = False,
) -> int:
    """Launch where the profile says, and say how to go on."""
    from vwm.sweep.breaker import advice, repeated_error
    from vwm.sweep.profile import choose_profile
    from vwm.sweep.status import heading

    console = new_console()
    error = repeated_error(found.folder)
    if error is not None:
        console.print(advice(error), style="red", markup=False, soft_wrap=True)
        return 1
    profile, origin = choose_profile(on, found.sweep.profile)
    console.print(f"Profile: {origin}.", markup=False, soft_wrap=True)
    if profile.where == "slurm":
        from vwm.sweep.submit import Submission

        exit_code = Submission(found.sweep, found.folder, profile, console).run(states, only, prune)
        text = f"{'To see how it goes on:':<26}vwm-sweep status {shlex.quote(argument)}{place(runs)}"
        console.print(text, markup=False, soft_wrap=True)
        return exit_code
    if prune:
        from vwm.errors import UserError

        raise UserError("--prune cancels jobs of SLURM, and this profile trains on this machine. Use vwm-sweep cancel.")
    from vwm.sweep.launch import Launch

    launch = Launch(found.sweep, found.folder, profile, console)
    exit_code = launch.run(states, only)
    console.print(heading(found.sweep.name, launch.plan()))
    _say_what_next(console, argument, runs, on, [observed.state for observed in launch.plan().runs])
    return exit_code


def _say_what_next(console: "Console", argument: str, runs: Path, on: Path | None, states: "Sequence[State]") -> None:
    """The commands that lead on from here."""
    profile = "" if on is None else f" --on {shlex.quote(str(on))}"

    def say(why: str, command: str, more: str = "") -> None:
        text = f"{why:<26}vwm-sweep {command} {shlex.quote(argument)}{place(runs)}{more}"
        console.print(text, markup=False, soft_wrap=True)

    if any(state in ("new", "stopped", "interrupted") for state in states):
        say("To train what is left:", "launch", profile)
    if "failed" in states:
        say("To try failed runs again:", "retry", profile)
    if "finished" in states:
        say("For tables and a figure:", "collect")
