"""What was computed of runs is computed again exactly when something it depends on has changed."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vwm.behaviour.responses import read_run
from vwm.sweep import measured as module
from vwm.sweep.archive import Archive, pack
from vwm.sweep.grid import Sweep, read_sweep
from vwm.sweep.measured import Unreadable, measured
from vwm.training.run_folder import RunFolder

from tests.sweep_files import write_sweep  # isort: skip

NOT_A_NUMBER = float("nan")


def mean_error(files: RunFolder, archive: Archive) -> dict[str, Any]:
    """A number that JSON must keep to the last digit, one that JSON does not know, and a note of having been called."""
    with open(files.path.parent / "calls", "a") as calls:
        calls.write(f"{files.path.name}\n")
    with archive.readable(files.responses) as path:
        return {"mean": float(read_run(path, "x").errors.mean()), "hole": NOT_A_NUMBER}


def write_responses(files: RunFolder, seed: int) -> None:
    rng = np.random.default_rng(seed)
    target, response = rng.uniform(-3, 3, (2, 40, 1)).astype(np.float32)
    np.savez(files.responses, set_size=np.ones(40, dtype=np.int16), target=target, response=response)


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return read_sweep(write_sweep(tmp_path, seeds=9))


@pytest.fixture
def folder(tmp_path: Path, sweep: Sweep) -> Path:
    folder = tmp_path / "a 'folder'" / "tiny"
    for run in sweep.runs:
        files = RunFolder(folder / run.run_id)
        files.path.mkdir(parents=True)
        files.config.write_text(run.configuration.to_yaml())
        write_responses(files, run.seed)
        files.result.write_text("{}")
    return folder


@pytest.fixture
def again(sweep: Sweep, folder: Path) -> Callable[[], tuple[dict[str, Any], int]]:
    """Ask for the first three runs; gives back the results and how many were computed."""

    def ask() -> tuple[dict[str, Any], int]:
        (folder / "calls").unlink(missing_ok=True)
        results = measured(sweep.runs[:3], folder, "means", mean_error)
        calls = folder / "calls"
        return results, len(calls.read_text().split()) if calls.exists() else 0

    return ask


Again = Callable[[], tuple[dict[str, Any], int]]


def responses_of(sweep: Sweep, folder: Path) -> Path:
    return RunFolder(folder / sweep.runs[0].run_id).responses


def test_what_is_known_is_not_computed_and_is_the_same_to_the_last_digit(again: Again) -> None:
    first, computed = again()
    assert computed == 3
    second, computed = again()
    assert computed == 0
    assert {run: result["mean"] for run, result in second.items()} == {run: r["mean"] for run, r in first.items()}
    assert all(np.isnan(result["hole"]) for result in second.values())


def test_other_processes_give_what_this_one_gives(sweep: Sweep, folder: Path, again: Again) -> None:
    alone, _ = again()
    steps: list[tuple[int, int]] = []
    shutil.rmtree(folder / "tables")
    together = measured(sweep.runs, folder, "means", mean_error, lambda done, total: steps.append((done, total)))
    assert sorted(together) == sorted(run.run_id for run in sweep.runs)
    assert {run: together[run]["mean"] for run in alone} == {run: result["mean"] for run, result in alone.items()}
    assert steps == [(done, 9) for done in range(10)]


def test_new_responses_are_read(sweep: Sweep, folder: Path, again: Again) -> None:
    before, _ = again()
    path = responses_of(sweep, folder)
    size = path.stat().st_size
    write_responses(RunFolder(path.parent), 77)
    assert path.stat().st_size == size  # so that the size alone would not tell
    after, computed = again()
    assert computed == 1
    assert after[sweep.runs[0].run_id]["mean"] != before[sweep.runs[0].run_id]["mean"]
    assert again()[1] == 0


def test_a_copy_of_the_same_bytes_is_known(sweep: Sweep, folder: Path, again: Again) -> None:
    again()
    os.utime(responses_of(sweep, folder), (1, 1))
    assert again()[1] == 0


def test_an_archive_is_known_from_its_checksums(sweep: Sweep, folder: Path, again: Again) -> None:
    before, _ = again()
    pack(folder, [run.run_id for run in sweep.runs])
    assert not responses_of(sweep, folder).exists()
    after, computed = again()
    assert computed == 0
    assert [result["mean"] for result in after.values()] == [result["mean"] for result in before.values()]


def test_other_code_computes_anew_and_old_lines_go(folder: Path, again: Again, monkeypatch: pytest.MonkeyPatch) -> None:
    again()
    for version in ("one", "two"):
        monkeypatch.setattr(module, "_version", lambda compute, version=version: version)
        assert again()[1] == 3
        assert again()[1] == 0
    lines = (folder / "tables" / "cache" / "means.jsonl").read_text().splitlines()
    assert {json.loads(line)["version"] for line in lines} == {"two"}


def test_the_version_follows_the_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import vwm.behaviour

    copy = tmp_path / "behaviour"
    shutil.copytree(vwm.behaviour.__path__[0], copy)
    monkeypatch.setattr(vwm.behaviour, "__path__", [str(copy)])
    version = module._version(mean_error)
    assert module._version(mean_error) == version
    (copy / "circular.py").write_text((copy / "circular.py").read_text() + "\n")
    assert module._version(mean_error) != version


def test_a_torn_or_foreign_line_is_passed_over(folder: Path, again: Again) -> None:
    again()
    cache = folder / "tables" / "cache" / "means.jsonl"
    content = cache.read_bytes()
    cache.write_bytes(b"\xff\x00{\n[1]\n" + content[: len(content) - 25])
    assert again()[1] == 1
    assert again()[1] == 0


def test_what_cannot_be_read_is_said_and_tried_again(sweep: Sweep, folder: Path, again: Again) -> None:
    path = responses_of(sweep, folder)
    path.write_bytes(b"PK")
    for _ in range(2):
        results, computed = again()
        assert isinstance(results[sweep.runs[0].run_id], Unreadable)
        assert "damaged" in results[sweep.runs[0].run_id].why
    assert computed == 1
    path.unlink()
    results, _ = again()
    assert "there is no such file" in results[sweep.runs[0].run_id].why
