"""The archive of a sweep: the same tables from it, and nothing lost, wherever it is interrupted."""

import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import environment
from tests.sweep_files import write_sweep
from vwm.errors import UserError
from vwm.files import locked
from vwm.sweep.archive import Archive, pack, unpack
from vwm.sweep.collect import collect
from vwm.sweep.collect_files import write_tables
from vwm.sweep.grid import Sweep, read_sweep
from vwm.sweep.plan import make_plan
from vwm.training.run_folder import RunFolder, RunState, prepare_run_folder

# Kills itself at the n-th call of one of these functions, before it is done.
DIE = """
import os, signal, sys
from pathlib import Path
from vwm.sweep import archive
name, count, what, folder, *runs = sys.argv[1:]
module = {"fsync": os, "rename": os, "replace": os, "unlink": Path, "rmtree": archive.shutil}.get(name, archive)
real, calls = getattr(module, name), 0
def dies(*arguments, **more):
    global calls
    calls += 1
    if calls == int(count):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **more)
setattr(module, name, dies)
archive.pack(Path(folder), runs) if what == "pack" else archive.unpack(Path(folder))
"""


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return read_sweep(write_sweep(tmp_path, grid={"model_params.spike_noise_factor": [0.1, 0.2]}, seeds=2))


@pytest.fixture
def folder(sweep: Sweep, tmp_path: Path) -> Path:
    """The folder of the sweep: three finished runs, and one that was stopped."""
    folder = tmp_path / "the runs" / "tiny"
    rng = np.random.default_rng(5)
    for run in sweep.runs:
        files = prepare_run_folder(folder / run.run_id, run.configuration)
        files.checkpoint.write_bytes(rng.bytes(300_000))
        files.history.write_text('{"iteration": 7}\n' * 50)
        files.numbered_checkpoints.mkdir()
        (files.numbered_checkpoints / "checkpoint-7.pt").write_bytes(rng.bytes(1000))
        if run is sweep.runs[-1]:
            files.write_state(RunState("stopped", 10, 60, 1))
            continue
        files.write_state(RunState("finished", 60, 60, 2, iterations_per_second=3.0, mean_abs_error=0.5))
        set_size = np.repeat([1, 2, 3], 60).astype(np.int16)
        target = rng.uniform(-np.pi, np.pi, (180, 3)).astype(np.float32)
        target[np.arange(3) >= set_size[:, None]] = np.nan
        response = (target + rng.normal(0, 0.3, target.shape) + np.pi) % (2 * np.pi) - np.pi
        np.savez(files.responses, set_size=set_size, target=target, response=response.astype(np.float32))
        files.result.write_text("{}")
    return folder


def finished(sweep: Sweep) -> list[str]:
    return [run.run_id for run in sweep.runs[:-1]]


def contents(folder: Path, runs: list[str]) -> dict[str, bytes | None]:
    """Every file and folder of some runs, wherever it is: in their folders or in the archive."""
    found: dict[str, bytes | None] = {}
    for run in runs:
        if (folder / run).exists():
            for path in (folder / run).rglob("*"):
                found[str(path.relative_to(folder))] = None if path.is_dir() else path.read_bytes()
            continue
        with zipfile.ZipFile(folder / "archive.zip") as file:
            for info in file.infolist():
                if info.filename.startswith(f"{run}/"):
                    found[info.filename.rstrip("/")] = None if info.is_dir() else file.read(info)
    return found


def tables(sweep: Sweep, folder: Path) -> dict[str, bytes]:
    write_tables(collect(sweep, folder), folder / "tables")
    return {path.name: path.read_bytes() for path in (folder / "tables").glob("*.csv")}


def test_plan_and_tables_are_the_same_from_the_archive(sweep: Sweep, folder: Path) -> None:
    before, plan, written = tables(sweep, folder), make_plan(sweep, folder), contents(folder, finished(sweep))
    assert pack(folder, finished(sweep)) == 3

    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["archive.zip", "launch.lock", "tables", sweep.runs[-1].run_id]
    )
    shutil.rmtree(folder / "tables")
    assert tables(sweep, folder) == before
    after = make_plan(sweep, folder)
    assert [(run.state, run.record) for run in after.runs] == [(run.state, run.record) for run in plan.runs]
    assert contents(folder, finished(sweep)) == written

    assert unpack(folder) == 3
    assert contents(folder, finished(sweep)) == written
    assert not (folder / "archive.zip").exists()
    assert tables(sweep, folder) == before


def test_a_run_that_left_the_grid_is_known_from_the_archive(sweep: Sweep, folder: Path) -> None:
    pack(folder, finished(sweep))
    smaller = Sweep(sweep.name, sweep.axes, sweep.runs[1:], sweep.rows, None, sweep.resolved)
    assert [(run.run_id, run.state) for run in make_plan(smaller, folder).left] == [(sweep.runs[0].run_id, "finished")]


def test_an_archive_takes_in_what_is_finished_later(sweep: Sweep, folder: Path) -> None:
    written = contents(folder, finished(sweep))
    first, *others = finished(sweep)
    assert pack(folder, [first]) == 1
    assert pack(folder, others) == 3
    assert contents(folder, finished(sweep)) == written
    assert pack(folder, finished(sweep)) == 3  # nothing new


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "function", "count"),
    [
        *(("pack", "_add", count) for count in (1, 4)),
        *(("pack", name, 1) for name in ("fsync", "_compare", "replace", "_flush", "rename", "rmtree")),
        *(("pack", name, 3) for name in ("rename", "rmtree")),
        *(("unpack", name, count) for name in ("_extract", "rename") for count in (1, 3)),
        *(("unpack", "fsync", count) for count in (1, 9)),
        *(("unpack", name, 1) for name in ("_flush", "unlink")),
    ],
)
def test_nothing_is_lost_by_a_kill(sweep: Sweep, folder: Path, what: str, function: str, count: int) -> None:
    runs = finished(sweep)
    before, written = tables(sweep, folder), contents(folder, runs)
    if what == "unpack":
        pack(folder, runs)
    command = [sys.executable, "-c", DIE, function, str(count), what, str(folder), *runs]
    died = subprocess.run(command, env=environment(), capture_output=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()

    assert contents(folder, runs) == written
    assert tables(sweep, folder) == before
    assert [run.state for run in make_plan(sweep, folder).runs] == ["finished"] * 3 + ["stopped"]
    # The same command again, and its opposite, leave nothing of the interrupted one.
    pack(folder, runs)
    assert unpack(folder) == 3
    assert contents(folder, runs) == written
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_a_file_that_changes_while_it_is_packed_is_not_removed(
    sweep: Sweep, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vwm.sweep import archive

    changed = RunFolder(folder / finished(sweep)[1]).history
    real = archive._compare

    def compare(path: str, sources: dict[str, Path]) -> None:
        changed.write_text("changed\n")
        real(path, sources)

    monkeypatch.setattr(archive, "_compare", compare)
    with pytest.raises(OSError, match="nothing was removed"):
        pack(folder, finished(sweep))
    assert changed.read_text() == "changed\n"
    assert not list(folder.glob("*archive*"))


def test_what_cannot_be_archived_is_refused_before_anything_goes(sweep: Sweep, folder: Path) -> None:
    os.symlink("/dev/null", folder / finished(sweep)[0] / "link")
    with pytest.raises(UserError, match="neither a file nor a folder"):
        pack(folder, finished(sweep))
    assert not list(folder.glob("*archive*"))
    with locked(folder / "launch.lock"), pytest.raises(UserError, match="in progress"):
        pack(folder, finished(sweep))
    with pytest.raises(UserError, match="no archive to unpack"):
        unpack(folder)


def test_a_damaged_archive_is_told_and_stays(sweep: Sweep, folder: Path) -> None:
    pack(folder, finished(sweep))
    archive = folder / "archive.zip"
    archive.write_bytes(archive.read_bytes()[:-100])
    for act in (lambda: Archive(folder), lambda: make_plan(sweep, folder), lambda: unpack(folder)):
        with pytest.raises(UserError, match="damaged"):
            act()
    assert archive.exists()
