"""What the commands of ``vwm-sweep`` have in common: their options, and how they speak."""

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:  # Commands import what they need, so that the others start quickly.
    from rich.console import Console

    from vwm.sweep.measured import Progress

SweepName = Annotated[str, typer.Argument(metavar="SWEEP", help="A sweep file, or the name of a sweep in runs/.")]
On = Annotated[
    Path | None, typer.Option("--on", metavar="PROFILE", help="A launch profile, instead of the sweep's own.")
]
Runs = Annotated[Path, typer.Option("--runs", metavar="DIR", help="The folder of all sweeps.")]
RUNS = Path("runs")


def new_console() -> "Console":
    """Where a command prints."""
    from rich.console import Console

    return Console(highlight=False)


@contextlib.contextmanager
def progress_bar(console: "Console", what: str) -> "Iterator[Progress]":
    """A bar on a terminal while something takes time, and nothing elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def place(runs: Path) -> str:
    """The option that names the folder of all sweeps, where it is not the usual one."""
    return "" if runs == RUNS else f" --runs {shlex.quote(str(runs))}"


def count_of_runs(count: int) -> str:
    """How many runs, in words."""
    return f"{count} run{'' if count == 1 else 's'}"
