"""What ``vwm analyse`` does, and ``vwm train`` for a run whose configuration asks for analyses."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vwm.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from vwm.analysis.results import Progress
    from vwm.behaviour.responses import Responses
    from vwm.training.run_folder import RunFolder
    from vwm.training.training_run import TrainingRun


def open_trained(path: Path) -> "TrainingRun":
    """The run as its latest checkpoint left it; a word to the user where its training is not what it should be.

    Raises:
        UserError: the folder is no run's, or holds no checkpoint that can be read.
    """
    from vwm.training.checkpoint import open_run, read_checkpoint
    from vwm.training.run_folder import RunFolder
    from vwm.training.workers import use_own_device

    folder = RunFolder(path)
    if not folder.config.exists():
        raise UserError(f"{path}: expected a run's folder, which holds config.yaml.")
    device = use_own_device()
    content = read_checkpoint(folder, device)
    if content is None:
        raise UserError(f"{path}: there is no checkpoint yet. Train this run first: vwm train {path}")
    run, _ = open_run(folder, device, content["processes"], writes=False)
    if not run.configuration.training_params.train_rnn:
        print(f"{path}: train_rnn is false, so this is the network as it was drawn, untrained.", file=sys.stderr)
    elif run.ended_by is None:
        print(f"{path}: the training is not over; this is the network of iteration {run.iteration}.", file=sys.stderr)
    return run


def analyse_run(path: Path, names: Sequence[str], trained: "TrainingRun") -> bool:
    """Do these analyses of a run, and say where their files are and what was refused; whether none was."""
    from rich.console import Console
    from rich.markup import escape

    from vwm.analysis.catalogue import compute, write
    from vwm.analysis.made_from import made_from
    from vwm.analysis.names import FROM_RESPONSES, QUESTIONS
    from vwm.training.run_folder import RunFolder

    folder, configuration = RunFolder(path), trained.configuration
    origin = made_from(configuration, folder.checkpoint, folder.responses)
    console = Console(highlight=False)
    refused = 0
    for name in names:
        try:
            responses = _responses(folder, name) if name in FROM_RESPONSES else None
            with progress_bar(console, f"{name}: {QUESTIONS[name]}") as progress:
                result = compute(name, trained.network, configuration, responses, progress)
        except UserError as error:
            refused += 1
            print(f"Not analysed: {error}", file=sys.stderr)
            continue
        written = write(name, result, configuration, path / "analysis", origin)
        console.print(escape(f"{name}: {written[0]} and {len(written) - 1} files beside it"), soft_wrap=True)
    return not refused


def _responses(folder: "RunFolder", name: str) -> "Responses":
    from vwm.behaviour.responses import read_run

    if not folder.responses.exists():
        raise UserError(
            f"{folder.responses}: {name} starts from the responses of the final evaluation, which is not there yet. "
            f"Train the run to its end: vwm train {folder.path}"
        )
    return read_run(folder.responses, folder.path.name)


def analyse_over_training(path: Path, names: Sequence[str]) -> None:
    """Do these analyses of the network before training, at every kept checkpoint, and now; the numbers alone are kept.

    Raises:
        UserError: no checkpoint was kept, or a network cannot be analysed.
    """
    from rich.console import Console
    from rich.markup import escape

    from vwm.analysis.catalogue import compute
    from vwm.analysis.names import FROM_RESPONSES
    from vwm.analysis.over_training import Moment, write_course
    from vwm.training.checkpoint import kept_runs
    from vwm.training.run_folder import RunFolder
    from vwm.training.workers import use_own_device

    console = Console(highlight=False)
    moments = []
    for run in kept_runs(RunFolder(path), use_own_device()):
        responses = _evaluated(run) if set(names) & set(FROM_RESPONSES) else None
        for name in names:
            with progress_bar(console, f"iteration {run.iteration}: {name}") as progress:
                result = compute(name, run.network, run.configuration, responses, progress)
            moments.append(Moment(run.iteration, name, result.columns()))
        console.print(f"iteration {run.iteration}: {', '.join(names)}", soft_wrap=True)
    written = write_course(moments, path / "analysis")
    console.print(escape(f"{written[0]} and {len(written) - 1} files beside it"), soft_wrap=True)


def _evaluated(run: "TrainingRun") -> "Responses":
    """The responses of a network as it is, to the trials of the final evaluation."""
    import tempfile

    from vwm.behaviour.responses import read_run
    from vwm.training.evaluation import evaluate, write_responses

    evaluation = evaluate(run.network, run.configuration.model_params.item_num)
    assert evaluation is not None
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary, "responses.npz")
        write_responses(file, evaluation)
        return read_run(file, run.configuration.run_id)


def analyse_after_training(path: Path) -> None:
    """Do the analyses that a finished run's configuration switches on, unless their files are up to date.

    The run is finished whatever becomes of them: what cannot be analysed is said, and nothing else.
    """
    from vwm.analysis.names import switched_on
    from vwm.config_file import load_configuration
    from vwm.sweep.analyses import left_to_do
    from vwm.training.run_folder import RunFolder

    configuration, _ = load_configuration(RunFolder(path).config)
    names = switched_on(configuration)
    left = left_to_do(path, names) if names else []
    if not left:
        return
    analyse_run(path, left, open_trained(path))


@contextmanager
def progress_bar(console: "Console", what: str) -> "Iterator[Progress]":
    """A bar on a terminal while something takes time, and nothing elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
