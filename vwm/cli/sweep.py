"""The command ``vwm-sweep``: many runs."""

import typer

from vwm.cli import packing, sweep_results, sweep_runs
from vwm.cli.guard import guarded

app = typer.Typer(
    name="vwm-sweep",
    help="Train the networks of a sweep, and make tables of them. For a single network there is vwm.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    sweep_runs.plan,
    packing.measure_packs,
    sweep_runs.launch,
    sweep_runs.retry,
    sweep_runs.status,
    sweep_runs.cancel,
    sweep_runs.logs,
    sweep_runs.debug,
    sweep_runs.drill,
    sweep_runs.archive,
    sweep_results.analyse,
    sweep_results.collect,
    sweep_results.report,
    sweep_results.sync,
    sweep_results.dashboard,
):
    app.command()(command)


def main() -> None:
    """The entry point."""
    guarded(app)
