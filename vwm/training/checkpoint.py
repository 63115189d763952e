"""A run in training on the disk: its checkpoint, and a history that never says more than the checkpoint."""

import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from vwm.config import Configuration
from vwm.config_file import load_configuration
from vwm.errors import UserError
from vwm.files import append_line, write_atomically
from vwm.training.run_folder import RunFolder
from vwm.training.training_run import TrainingRun

FORMAT = 1


def snapshot(run: TrainingRun, processes: int) -> dict[str, Any]:
    """What a checkpoint says of the run as it is now, in copies on the CPU that training does not change."""
    content = {
        "format": FORMAT,
        "run_id": run.configuration.run_id,
        "processes": processes,
        "history_bytes": 0,
        **run.state_dict(),
    }
    copies: dict[str, Any] = _fresh(content)
    return copies


def save(content: dict[str, Any], folder: RunFolder, keep_every: int) -> None:
    """Write a snapshot as the run's checkpoint, atomically, with a numbered copy where ``keep_every`` asks for one.

    It covers the history as that is now.
    """
    history_bytes = folder.history.stat().st_size if folder.history.exists() else 0
    data = _serialise({**content, "history_bytes": history_bytes})
    if keep_every and content["iteration"] % keep_every == 0:
        folder.numbered_checkpoints.mkdir(exist_ok=True)
        write_atomically(folder.numbered_checkpoints / f"checkpoint-{content['iteration']:08d}.pt", data)
    write_atomically(folder.checkpoint, data)


def save_for_inspection(run: TrainingRun, folder: RunFolder) -> None:
    """Keep the state in which an iteration gave no finite number, beside the last good checkpoint."""
    write_atomically(folder.failed_state, _serialise(_fresh(run.state_dict())))


def _serialise(content: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _fresh(value: Any) -> Any:
    """A copy on the CPU in which no two equal things are one object, names excepted, which always are.

    A pickle refers back to an object that it has met already. Without this the bytes of a checkpoint would depend on
    whether the state was computed here or read from an earlier checkpoint; so they depend on its values only.
    """
    if isinstance(value, dict):
        return {sys.intern(key) if isinstance(key, str) else key: _fresh(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_fresh(item) for item in value]
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    return sys.intern(value) if isinstance(value, str) else value


def append_history(folder: RunFolder, row: dict[str, Any]) -> None:
    """Add a row to the history; it counts from the next checkpoint on."""
    append_line(folder.history, json.dumps(row))


def read_checkpoint(folder: RunFolder, device: torch.device) -> dict[str, Any] | None:
    """The latest checkpoint, or None where training has not come to one.

    Raises:
        UserError: the file is damaged, or of another configuration or format.
    """
    if not folder.checkpoint.exists():
        return None
    what_to_do = "Restore it from a copy, or delete it together with history.jsonl to train this run from the start."
    return _read(folder.checkpoint, device, what_to_do)


def kept_runs(folder: RunFolder, device: torch.device) -> Iterator[TrainingRun]:
    """The run before its first iteration, at each numbered checkpoint that `keep_every` kept, and as it is now.

    Raises:
        UserError: no checkpoint was kept, or one cannot be read or is of another run.
    """
    configuration, _ = load_configuration(folder.config)
    paths = sorted(folder.numbered_checkpoints.glob("checkpoint-*.pt"))
    if not paths:
        raise UserError(
            f"{folder.numbered_checkpoints}: no numbered checkpoints were kept. Train a run with "
            "training_params.keep_every, such as --set training_params.keep_every=500"
        )
    run = TrainingRun(configuration, device)
    yield run
    for path in (*paths, folder.checkpoint):
        content = _read(path, device, "Delete it, or restore it from a copy.")
        _check_belongs(content, configuration, folder)
        if content["iteration"] > run.iteration:
            run.load_state_dict(content)
            yield run


def _read(path: Path, device: torch.device, what_to_do: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch.load raises half a dozen types for a file that is no checkpoint.
        raise UserError(f"{path}: the checkpoint cannot be read ({type(error).__name__}). {what_to_do}") from None
    if content.get("format") != FORMAT:
        raise UserError(f"{path}: format {content.get('format')}; this version of vwm reads {FORMAT}.")
    return content


def open_run(folder: RunFolder, device: torch.device, processes: int, writes: bool) -> tuple[TrainingRun, list[str]]:
    """The run of a folder as its checkpoint left it, or as it is before its first iteration.

    Args:
        folder: holds config.yaml.
        device: where the network lives.
        processes: how many train it now.
        writes: whether this process cuts the history back to the checkpoint.

    Returns:
        The run, and notes for the user.

    Raises:
        UserError: the configuration or the checkpoint cannot be used.
    """
    configuration, notes = load_configuration(folder.config)
    run = TrainingRun(configuration, device)
    content = read_checkpoint(folder, device)
    if content is not None:
        _check_belongs(content, configuration, folder)
        run.load_state_dict(content)
        if content["processes"] != processes and run.ended_by is None:
            notes.append(
                f"{folder.path}: trained by {content['processes']} processes up to iteration {run.iteration}, now by "
                f"{processes}: the batch changes with their number, so the result is no longer exactly that of an "
                "uninterrupted run."
            )
    if writes:
        _cut_history(folder, 0 if content is None else content["history_bytes"])
        for name in ("checkpoint.pt", "responses.npz", "result.json", "state.json"):
            for left_behind in folder.path.glob(f".{name}.*"):  # by a process that was killed while it wrote
                left_behind.unlink(missing_ok=True)
    return run, notes


def _check_belongs(content: dict[str, Any], configuration: Configuration, folder: RunFolder) -> None:
    if content["run_id"] != configuration.run_id:
        raise UserError(
            f"{folder.path}: the checkpoint is of run {content['run_id']}, but config.yaml describes run "
            f"{configuration.run_id}. Put the configuration back, or train in another folder."
        )


def _cut_history(folder: RunFolder, length: int) -> None:
    """Drop the rows written after the checkpoint: the iterations they tell of will be done again."""
    present = folder.history.stat().st_size if folder.history.exists() else 0
    if present < length:
        raise UserError(
            f"{folder.history}: {present} bytes, but the checkpoint counts on {length}. Restore the file from a copy, "
            "or delete it together with checkpoint.pt to train this run from the start."
        )
    if present > length:
        os.truncate(folder.history, length)
