"""The command ``vwm``: one run (or one pack of runs)."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vwm.cli.guard import guarded

if TYPE_CHECKING:  # Commands import what they need, so that the others start quickly.
    from vwm.training.mirror import Measures, Mode
    from vwm.training.run_folder import RunFolder

app = typer.Typer(
    name="vwm",
    help="Train and evaluate one network of visual working memory. For many of them there is vwm-sweep.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Change a field, such as training_params.eta=1e-3. Repeatable."),
]


@app.command()
def train(
    configs: Annotated[
        list[Path],
        typer.Argument(metavar="CONFIG", help="A configuration file, or a run's folder; several folders are one pack."),
    ],
    settings: Settings = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run's folder; without it, runs/single/<run id>.")
    ] = None,
    wandb: Annotated[
        str | None, typer.Option(metavar="MODE", help="Weights & Biases: online, offline (default) or disabled.")
    ] = None,
) -> None:
    """Train a run, or go on with it where it was; the result is written when it is finished.

    Ctrl-C and SIGTERM save at the next step, and the same command goes on. Several processes train one run with
    `torchrun --nproc_per_node=2 -m vwm train CONFIG`.
    """
    from vwm.errors import UserError
    from vwm.training.mirror import tracking_mode

    mode = tracking_mode(wandb)
    if any(path.is_dir() for path in configs):
        if settings or out:
            raise UserError("--set and --out go with a configuration file; a run's folder has both already.")
        for path in configs:
            if not (path / "config.yaml").is_file():
                raise UserError(f"{path}: expected a run's folder, which holds config.yaml.")
        folders = configs
    elif len(configs) > 1:
        raise UserError("Give one configuration file, or the folders of several runs to train as one pack.")
    else:
        folders = [_folder_of(configs[0], settings or [], out)]
    exit_code = _train(folders, mode)
    if "RANK" in os.environ:
        from vwm.training.workers import end_process

        end_process(exit_code)
    sys.exit(exit_code)


def _folder_of(config: Path, settings: list[str], out: Path | None) -> Path:
    """The folder in which this configuration is trained, made by the first of the processes that torchrun starts."""
    from vwm.config_file import load_configuration
    from vwm.training.run_folder import prepare_run_folder

    configuration, notes = load_configuration(config, settings)
    path = out or Path("runs", "single", configuration.run_id)
    if _is_first_process():
        for note in notes:
            print(note, file=sys.stderr)
        prepare_run_folder(path, configuration)
        print(f"{configuration.name}, run {configuration.run_id}, in {path}")
    return path


def _is_first_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _train(paths: list[Path], mode: "Mode") -> int:
    """Train what is not finished; returns the exit code."""
    from vwm.training.run_folder import RunFolder

    folders = [RunFolder(path) for path in paths]
    unfinished = [folder for folder in folders if not folder.is_finished()]
    if unfinished:
        from vwm.training.tracking import Tracking
        from vwm.training.train import train_folders

        phases = train_folders(unfinished, Tracking(mode, _measures))
        if "failed" in phases:
            return 1
        if "stopped" in phases:
            # torchrun takes any code but 0 for a crash, and a job reads state.json.
            return 0 if "RANK" in os.environ else 130
    if _is_first_process():
        from vwm.cli.analysing import analyse_after_training

        for folder in folders:
            _print_result(folder.path, folder.read_result())
            analyse_after_training(folder.path)
    return 0


def _measures(run: "RunFolder") -> "Measures":
    """The measures of a finished run that its summary in Weights & Biases holds: those of its rows in the tables."""
    from vwm.behaviour.responses import read_run
    from vwm.behaviour.tables import measures

    table = measures(read_run(run.responses, run.path.name))
    return {str(name): column.tolist() for name, column in table.items()}


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="DIR", help="A run's folder.")],
) -> None:
    """Evaluate the latest checkpoint of a run on the fixed evaluation trials, and print errors and rates.

    Writes responses.npz and result.json only where the training has ended; otherwise nothing is written.
    """
    from vwm.training.evaluation import evaluate_folder
    from vwm.training.run_folder import RunFolder

    _print_result(run, evaluate_folder(RunFolder(run)))


@app.command()
def analyse(
    run: Annotated[Path, typer.Argument(metavar="DIR", help="A run's folder.")],
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="NAME", help="Do this analysis alone. Repeatable; a wrong name lists them."),
    ] = None,
    over_training: Annotated[
        bool,
        typer.Option("--over-training", help="Analyse every checkpoint that keep_every kept: a table and figures."),
    ] = False,
) -> None:
    """Ask how the network of a run remembers: a text, numbers and figures for each analysis, in DIR/analysis.

    The latest checkpoint is analysed, of a run in training too. What is there from an earlier call is replaced.
    """
    from vwm.analysis.names import check_names
    from vwm.cli.analysing import analyse_over_training, analyse_run, open_trained

    names = check_names(only or [])
    trained = open_trained(run)
    if over_training:
        analyse_over_training(run, names)
    elif not analyse_run(run, names, trained):
        sys.exit(2)


@app.command()
def config(
    file: Annotated[Path, typer.Argument(metavar="CONFIG", help="A configuration file.")],
    settings: Settings = None,
) -> None:
    """Print the complete configuration a file stands for, with its run id, name, Fano factor and steps."""
    from vwm.config_file import load_configuration

    configuration, notes = load_configuration(file, settings or [])
    for note in notes:
        print(note, file=sys.stderr)
    params = configuration.model_params
    print(f"# name         {configuration.name}")
    print(f"# run id       {configuration.run_id}")
    print(f"# Fano factor  {params.fano_factor:g}  (k² for spike_noise_factor k = {params.spike_noise_factor:g})")
    print(f"# steps        {params.steps} of {params.dt:g} ms, the last {params.decode_steps} are read out")
    print(configuration.to_yaml(), end="")


def _print_result(path: Path, result: dict[str, Any] | None) -> None:
    """The final evaluation as a table."""
    if result is None:
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("set size", "mean |error| (rad)", "SD over trials (rad)", "mean rate (Hz)", "trials")
    for column in table.columns:
        column.justify = "right"
    rows = zip(
        result["set_size"],
        result["mean_abs_error"],
        result["sd_abs_error"],
        result["mean_rate"],
        result["trials"],
        strict=True,
    )
    for size, error, spread, rate, trials in rows:
        table.add_row(str(size), f"{error:.3f}", f"{spread:.3f}", f"{rate:.1f}", str(trials))
    print(f"{result['name']} after {result['iterations']} iterations, in {path}")
    Console().print(table)


def main() -> None:
    """The entry point."""
    guarded(app)
