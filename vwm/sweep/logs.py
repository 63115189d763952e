"""The output of the jobs that carried a run, over all its attempts."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from vwm.errors import UserError
from vwm.files import nearest
from vwm.sweep.archive import Archive
from vwm.sweep.find import sweep_folders
from vwm.sweep.ledger import Job, Ledger
from vwm.sweep.scheduled import scheduled
from vwm.training.run_folder import RunFolder

_POLL_S = 0.5
_SLURM_POLL_S = 5.0  # Its controller serves a whole cluster.


def find_run_folder(run: str, runs: Path, sweeps: Sequence[Path] | None = None) -> Path:
    """The folder ``runs/<sweep>/<run id>`` of the one run whose id begins with ``run``, in any sweep or in ``sweeps``.

    Raises:
        UserError: there is none, or more than one.
    """
    searched = sweep_folders(runs) if sweeps is None else [sweep for sweep in sweeps if sweep.is_dir()]
    present = [folder for sweep in searched for folder in sorted(sweep.iterdir()) if _is_run(folder)]
    archived = [sweep / run_id for sweep in searched for run_id in Archive(sweep).states]
    known = list(dict.fromkeys([*present, *archived]))  # The output stays where it is when a run is archived.
    matching = [folder for folder in known if run and folder.name.startswith(run)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        places = ", ".join(f"{folder.parent.name}/{folder.name}" for folder in matching[:6])
        raise UserError(
            f"{run!r} is the beginning of several runs: {places}. Give more of it, and the sweep before it."
        )
    hint = nearest(run, [folder.name for folder in known])
    raise UserError(f"{run!r}: expected the id of a run that was started, or its beginning. {hint}".rstrip())


def _is_run(folder: Path) -> bool:
    return RunFolder(folder).config.exists()


def read_logs(folder: Path, follow: bool) -> Iterator[str]:
    """The output of every job that carried the run in ``folder``, over all attempts and nodes.

    Args:
        folder: runs/<sweep>/<run id>.
        follow: go on with what is written from now on, until the latest job has ended.

    Raises:
        UserError: the job that is followed is one of SLURM's, which cannot be asked whether it goes on.
    """
    jobs = Ledger(folder.parent / "ledger.jsonl").jobs_of(folder.name)
    for job in jobs:
        yield from _read(job, folder, len(jobs) > 1, follow and job is jobs[-1])


def _read(job: Job, folder: Path, named: bool, follow: bool) -> Iterator[str]:
    """The output of a job, under a line with its name where ``named``, and with that of its file where it has several.

    The attempts of a SLURM job go on in one file, but each of its nodes writes its own.
    """
    read_to: dict[Path, int] = {}  # bytes
    shown: Path | None = None
    goes_on, next_question = follow, 0.0
    if named:
        yield f"==> {job.name} <==\n"
    while True:
        if goes_on and time.monotonic() >= next_question:
            goes_on = _goes_on(job, folder)  # Asked before the files are read, so that no last word is missed.
            next_question = time.monotonic() + (_POLL_S if job.slurm_id is None else _SLURM_POLL_S)
        logs = _files_of(job, folder)
        for log in logs:
            with open(log, "rb") as handle:
                handle.seek(read_to.get(log, 0))
                while chunk := handle.read(1 << 16):
                    if len(logs) > 1 and shown != log:
                        yield f"==> {log.name} <==\n"
                    shown = log
                    yield chunk.decode(errors="replace")
                read_to[log] = handle.tell()
        if not goes_on:
            break
        time.sleep(_POLL_S)
    if not read_to:
        yield "(no output yet)\n"


def _files_of(job: Job, folder: Path) -> list[Path]:
    """The output of a job that is there; of an array, of the element that carried the run, by number of the node."""
    if job.slurm_id is None:
        return [log for log in [folder.parent / "logs" / f"{job.name}.log"] if log.exists()]
    element = next(index for index, runs in enumerate(job.elements) if folder.name in runs)
    found = (folder.parent / "jobs").glob(f"{job.target(element)}_*_log.out")  # submitit's: the last number is the task
    return sorted(found, key=lambda path: (len(path.name), path.name))


def _goes_on(job: Job, folder: Path) -> bool:
    """Whether the job waits or runs in SLURM, or its process here lives and nobody noted its end, or its workers do."""
    latest = Ledger(folder.parent / "ledger.jsonl").jobs_of(folder.name)[-1]
    if latest.name != job.name:
        return False
    if job.slurm_id is None:
        return latest.is_alive() or RunFolder(folder).is_being_trained()
    carrier = scheduled([latest]).ask([folder.name])[folder.name]
    if carrier.unreachable is not None:
        raise UserError(f"SLURM cannot be asked whether the job goes on: {carrier.unreachable}")
    return carrier.live is not None
