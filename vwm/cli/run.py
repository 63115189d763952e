"""The command ``vwm``: one run (or one pack of runs)."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from vwm.cli.guard import guarded

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
) -> None:
    """Train a run, or go on with it where it was; the result is written when it is finished.

    Ctrl-C and SIGTERM save at the next step, and the same command goes on. Several processes train one run with
    `torchrun --nproc_per_node=2 -m vwm train CONFIG`.
    """
    from vwm.errors import UserError

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
    sys.exit(_train(folders))


def _folder_of(config: Path, settings: list[str], out: Path | None) -> Path:
    """The folder in which this configuration is trained, made by the first of the processes that torchrun starts."""
    from vwm.config import load_configuration
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


def _train(paths: list[Path]) -> int:
    """Train what is not finished; returns the exit code."""
    from vwm.training.run_folder import RunFolder

    folders = [RunFolder(path) for path in paths]
    unfinished = [folder for folder in folders if not folder.is_finished()]
    if unfinished:
        from vwm.training.train import train_folders

        phases = train_folders(unfinished)
        if "failed" in phases:
            return 1
        if "stopped" in phases:
            # torchrun takes any code but 0 for a crash, and a job reads state.json.
            return 0 if "RANK" in os.environ else 130
    if _is_first_process():
        for folder in folders:
            _print_result(folder.path, folder.read_result())
    return 0


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
def config(
    file: Annotated[Path, typer.Argument(metavar="CONFIG", help="A configuration file.")],
    settings: Settings = None,
) -> None:
    """Print the complete configuration a file stands for, with its run id, name, Fano factor and steps."""
    from vwm.config import load_configuration

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
