"""The output of the jobs that carried a run, over all its attempts."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from vwm.errors import UserError
from vwm.files import nearest
from vwm.sweep.find import sweep_folders
from vwm.sweep.ledger import Job, Ledger
from vwm.training.run_folder import RunFolder

_POLL_S = 0.5


def find_run_folder(run: str, runs: Path, sweeps: Sequence[Path] | None = None) -> Path:
    """The folder ``runs/<sweep>/<run id>`` of the one run whose id begins with ``run``, in any sweep or in ``sweeps``.

    Raises:
        UserError: there is none, or more than one.
    """
    searched = sweep_folders(runs) if sweeps is None else [sweep for sweep in sweeps if sweep.is_dir()]
    known = [folder for sweep in searched for folder in sorted(sweep.iterdir()) if _is_run(folder)]
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
    """The output of every job that carried the run in ``folder``, each under a line with the job's name.

    Args:
        folder: runs/<sweep>/<run id>.
        follow: go on with what is written from now on, until the latest job has ended.
    """
    ledger = Ledger(folder.parent / "ledger.jsonl")
    jobs = ledger.jobs_of(folder.name)
    for job in jobs:
        if len(jobs) > 1:
            yield f"==> {job.name} <==\n"
        yield from _read(
            folder.parent / "logs" / f"{job.name}.log", folder, job if follow and job is jobs[-1] else None
        )


def _read(log: Path, folder: Path, followed: Job | None) -> Iterator[str]:
    try:
        with open(log, errors="replace") as handle:
            while True:
                over = followed is None or not _may_still_write(folder, followed)
                yield from iter(lambda: handle.read(1 << 16), "")
                if over:
                    return
                time.sleep(_POLL_S)
    except FileNotFoundError:
        yield "(no output yet)\n"


def _may_still_write(folder: Path, job: Job) -> bool:
    """Whether the job goes on: its process lives and nobody noted its end, or its workers outlive it."""
    latest = Ledger(folder.parent / "ledger.jsonl").jobs_of(folder.name)[-1]
    return latest.name == job.name and (latest.is_alive() or RunFolder(folder).is_being_trained())
