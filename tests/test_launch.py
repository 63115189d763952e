"""Launching for real on this machine: what is trained, what a stop, a kill or a failure costs, what goes on."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import differing_files, environment, python, wait_until
from tests.sweep_files import SWEEP, vwm_sweep, write_sweep
from vwm.sweep.grid import Sweep, read_sweep
from vwm.sweep.ledger import Ledger
from vwm.sweep.plan import make_plan
from vwm.training.run_folder import RunFolder, RunState

pytestmark = pytest.mark.slow

NOISE = "model_params.spike_noise_factor"
# No run of these settings comes to its end before it is stopped.
LONG = {"training_params.num_iterations": 100_000, "training_params.early_stop_patience": 200_000}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder whose name no shell and no markup likes."""
    folder = tmp_path / 'it\'s a [bold]"sweep" $HOME;'
    folder.mkdir()
    return folder


def start(*arguments: object, cwd: Path) -> "subprocess.Popen[str]":
    """The command vwm-sweep, running."""
    command = [sys.executable, *SWEEP, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=cwd, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def runs_of(sweep: Sweep, place: Path) -> list[RunFolder]:
    return [RunFolder(place / "runs" / sweep.name / run.run_id) for run in sweep.runs]


def states(sweep: Sweep, place: Path) -> list[str]:
    return [observed.state for observed in make_plan(sweep, place / "runs" / sweep.name).runs]


def iteration(run: RunFolder) -> int:
    """Iterations that the history tells, which is as far as the checkpoint reaches at the least."""
    written = run.history.read_text() if run.history.exists() else ""
    rows = written.rpartition("\n")[0].splitlines()  # without one that is just being written
    return json.loads(rows[-1])["iteration"] if rows else 0


def record(run: RunFolder) -> RunState:
    state = run.read_state()
    assert state is not None
    return state


def status_of(pid: int, field: str) -> str:
    """What ps says of a process; empty where there is none."""
    return subprocess.run(["ps", "-o", f"{field}=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()


def profile(folder: Path, **content: Any) -> Path:
    path = folder / "profile.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_launch_trains_every_run_and_a_second_one_repeats_none(place: Path) -> None:
    file = write_sweep(place, grid={NOISE: [0.1, 0.2]})
    sweep = read_sweep(file)

    temporary = place / "temporary"
    temporary.mkdir()
    first = python(*SWEEP, "launch", file.name, cwd=place, TMPDIR=str(temporary))
    assert first.returncode == 0, first.stdout + first.stderr
    assert [path.name for path in temporary.iterdir() if "torch" in path.name] == []
    runs = runs_of(sweep, place)
    assert states(sweep, place) == ["finished", "finished"]
    before = {path: path.stat().st_mtime_ns for run in runs for path in run.path.iterdir()}

    second = vwm_sweep("launch", file.name, cwd=place)
    assert second.returncode == 0
    assert {path: path.stat().st_mtime_ns for run in runs for path in run.path.iterdir()} == before

    folder = place / "runs" / "tiny"
    assert read_sweep(folder / "sweep.yaml") == sweep
    for run, planned in zip(runs, sweep.runs, strict=True):
        assert yaml.safe_load(run.config.read_text()) == planned.configuration.model_dump(mode="json")
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["packages"]["torch"]
    assert provenance["profile"]["where"] == "local"

    events = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    for job in {event["job"] for event in events if "job" in event}:
        told = [event["event"] for event in events if event.get("job") == job]
        assert told == ["intent", "started", "ended"]
    assert [event["event"] for event in events].count("launch") == 2
    assert sorted(run for job in Ledger(folder / "ledger.jsonl").jobs() for run in job.runs) == sorted(
        run.run_id for run in sweep.runs
    )


def test_after_a_ctrl_c_the_next_launch_ends_as_if_nothing_had_happened(place: Path, tmp_path: Path) -> None:
    # Enough iterations that the stop, which comes early in the training, finds both runs at work.
    parts: dict[str, Any] = {"set": {**LONG, "training_params.num_iterations": 700}, "grid": {NOISE: [0.1, 0.2]}}
    file = write_sweep(place, **parts)
    sweep = read_sweep(file)
    runs = runs_of(sweep, place)

    launch = start("launch", file.name, "--on", profile(place, jobs_at_a_time=2), cwd=place)
    wait_until(lambda: all(iteration(run) > 0 for run in runs))
    launch.send_signal(signal.SIGINT)
    output, _ = launch.communicate(timeout=300)

    assert launch.returncode == 130, output
    assert states(sweep, place) == ["stopped", "stopped"]
    assert all(0 < iteration(run) < 700 for run in runs)
    assert not any(run.stop.exists() for run in runs)
    assert "vwm-sweep launch tiny.yaml" in output

    again = vwm_sweep("launch", file.name, "--on", "profile.yaml", cwd=place)
    assert again.returncode == 0, again.stdout
    assert [record(run).attempt for run in runs] == [2, 2]
    undisturbed = tmp_path / "undisturbed"
    write_sweep(undisturbed, **parts)
    assert vwm_sweep("launch", file.name, cwd=undisturbed).returncode == 0
    for run, other in zip(runs, runs_of(sweep, undisturbed), strict=True):
        assert differing_files(run.path, other.path) == []


def test_a_killed_job_takes_nothing_with_it(place: Path) -> None:
    file = write_sweep(place, set=LONG, grid={NOISE: [0.1, 0.2]})
    sweep = read_sweep(file)
    first, second = runs_of(sweep, place)
    ledger = Ledger(place / "runs" / "tiny" / "ledger.jsonl")

    launch = start("launch", file.name, "--on", profile(place, jobs_at_a_time=1), cwd=place)
    wait_until(lambda: iteration(first) > 0)
    (job,) = ledger.jobs()
    assert job.pid is not None
    os.kill(job.pid, signal.SIGKILL)
    wait_until(lambda: iteration(second) > 0)

    # Its worker was asked to save and leave before the next job took its place.
    assert record(first).phase == "stopped"
    assert record(first).reason == "killed"
    assert ledger.jobs()[0].exit_code == -signal.SIGKILL
    launch.send_signal(signal.SIGINT)
    launch.communicate(timeout=300)
    assert launch.returncode == 130
    assert states(sweep, place) == ["stopped", "stopped"]


def test_a_killed_torchrun_leaves_no_worker_behind(place: Path) -> None:
    file = write_sweep(place, set=LONG, grid={NOISE: [0.1]})
    (run,) = runs_of(read_sweep(file), place)

    launch = start("launch", file.name, cwd=place)
    wait_until(lambda: iteration(run) > 0)
    worker = record(run).pid
    torchrun = int(status_of(worker, "ppid"))
    os.kill(torchrun, signal.SIGKILL)
    output, _ = launch.communicate(timeout=300)

    assert launch.returncode == 1, output
    assert record(run).phase == "stopped"
    assert record(run).iteration > 0
    assert not run.is_being_trained()
    wait_until(lambda: status_of(worker, "stat")[:1] in ("", "Z"))


def test_a_killed_worker_is_told_as_interrupted_and_goes_on_from_its_checkpoint(place: Path) -> None:
    file = write_sweep(place, set=LONG, grid={NOISE: [0.1]})
    sweep = read_sweep(file)
    (run,) = runs_of(sweep, place)

    launch = start("launch", file.name, cwd=place)
    wait_until(lambda: iteration(run) > 0)
    os.kill(record(run).pid, signal.SIGKILL)
    output, _ = launch.communicate(timeout=300)

    assert launch.returncode == 1
    assert states(sweep, place) == ["interrupted"]
    assert record(run).phase == "interrupted"
    assert record(run).reason == "killed"
    assert "interrupted" in output
    killed_at = iteration(run)

    launch = start("launch", file.name, cwd=place)
    wait_until(lambda: iteration(run) > killed_at)
    rows = [json.loads(line)["iteration"] for line in run.history.read_text().splitlines()[:-1]]
    assert rows == list(range(7, rows[-1] + 1, 7))  # a row every 7 iterations, none missing and none twice
    launch.send_signal(signal.SIGTERM)
    launch.communicate(timeout=300)
    assert launch.returncode == 130


def test_runs_stop_by_themselves_when_the_launcher_is_killed(place: Path) -> None:
    file = write_sweep(place, set=LONG, grid={NOISE: [0.1]})
    sweep = read_sweep(file)
    (run,) = runs_of(sweep, place)

    launch = start("launch", file.name, cwd=place)
    wait_until(lambda: iteration(run) > 0)
    launch.kill()
    launch.communicate()
    wait_until(lambda: states(sweep, place) == ["stopped"])
    assert iteration(run) > 0


def test_two_launches_at_once_never_train_one_run_twice(place: Path) -> None:
    file = write_sweep(place, grid={NOISE: [0.1, 0.2, 0.3]})
    sweep = read_sweep(file)
    one = profile(place, jobs_at_a_time=1)

    launches = [start("launch", file.name, "--on", one, cwd=place) for _ in range(2)]
    outputs = [launch.communicate(timeout=300)[0] for launch in launches]

    # The one that ends first may leave runs to the other, and says so with its exit code.
    assert 0 in [launch.returncode for launch in launches], outputs
    assert states(sweep, place) == ["finished"] * 3
    for run in runs_of(sweep, place):
        assert record(run).attempt == 1
        rows = [json.loads(line)["iteration"] for line in run.history.read_text().splitlines()]
        assert rows == sorted(set(rows))


def test_one_failed_run_stops_no_other_and_retry_goes_on_from_its_checkpoint(place: Path) -> None:
    file = write_sweep(place, grid={NOISE: [0.1, 0.2]})
    sweep = read_sweep(file)
    bad, good = runs_of(sweep, place)
    bad.path.mkdir(parents=True)
    bad.config.write_text(sweep.runs[0].configuration.to_yaml())
    bad.checkpoint.write_bytes(b"this is no checkpoint")

    launch = vwm_sweep("launch", file.name, cwd=place)
    assert launch.returncode == 1
    assert states(sweep, place) == ["failed", "finished"]
    assert "failed" in launch.stdout
    assert "vwm-sweep retry tiny.yaml" in launch.stdout
    assert record(bad).reason == "error"

    # A launch leaves it alone, since it would fail again.
    assert vwm_sweep("launch", file.name, cwd=place).returncode == 1
    assert record(bad).attempt == 1

    refused = vwm_sweep("retry", file.name, good.path.name, cwd=place)
    assert refused.returncode == 2
    assert "only failed runs are retried" in refused.stderr

    bad.checkpoint.unlink()
    retried = vwm_sweep("retry", file.name, cwd=place)
    assert retried.returncode == 0, retried.stdout
    assert states(sweep, place) == ["finished", "finished"]


def test_the_same_error_in_three_runs_stops_the_sweep_until_it_is_mended(place: Path) -> None:
    file = write_sweep(place, grid={NOISE: [0.1, 0.2, 0.3, 0.4, 0.5]})
    sweep = read_sweep(file)
    runs = runs_of(sweep, place)
    for folder, run in zip(runs, sweep.runs, strict=True):
        folder.path.mkdir(parents=True)
        folder.config.write_text(run.configuration.to_yaml())
        folder.checkpoint.write_bytes(b"this is no checkpoint")

    launch = vwm_sweep("launch", file.name, "--on", profile(place, jobs_at_a_time=1), cwd=place)
    assert launch.returncode == 1
    assert states(sweep, place) == ["failed", "failed", "failed", "new", "new"]
    assert "failed with the same error, so no more are started" in launch.stdout

    for folder in runs:
        folder.checkpoint.unlink()
    refused = vwm_sweep("launch", file.name, cwd=place)
    assert refused.returncode == 1
    assert "vwm-sweep retry" in refused.stdout
    assert vwm_sweep("retry", file.name, cwd=place).returncode == 1  # Two runs of the sweep are still new.
    assert vwm_sweep("launch", file.name, cwd=place).returncode == 0
    assert states(sweep, place) == ["finished"] * 5


def test_cancel_stops_what_runs_and_keeps_a_launch_from_starting_more(place: Path) -> None:
    file = write_sweep(place, set=LONG, grid={NOISE: [0.1, 0.2, 0.3]})
    sweep = read_sweep(file)
    runs = runs_of(sweep, place)

    launch = start("launch", file.name, "--on", profile(place, jobs_at_a_time=1), cwd=place)
    wait_until(lambda: iteration(runs[0]) > 0)
    cancel = vwm_sweep("cancel", "tiny", cwd=place)
    output, _ = launch.communicate(timeout=300)

    assert cancel.stdout == "1 run asked to save and stop.\n"
    assert launch.returncode == 1, output
    assert states(sweep, place) == ["stopped", "new", "new"]
    assert vwm_sweep("cancel", "tiny", cwd=place).stdout == "Nothing is running.\n"


def test_a_pack_under_two_processes_finishes_all_its_runs(place: Path) -> None:
    file = write_sweep(place, grid={NOISE: [0.1, 0.2]})
    sweep = read_sweep(file)
    launch = vwm_sweep("launch", file.name, "--on", profile(place, processes_per_job=2, runs_per_job=2), cwd=place)

    assert launch.returncode == 0, launch.stdout + launch.stderr
    assert states(sweep, place) == ["finished", "finished"]
    (job,) = Ledger(place / "runs" / "tiny" / "ledger.jsonl").jobs()
    assert job.runs == tuple(run.run_id for run in sweep.runs)


def test_values_added_to_an_axis_are_all_that_is_trained_and_what_left_the_grid_stays(place: Path) -> None:
    file = write_sweep(place, grid={NOISE: [0.1, 0.2]})
    assert vwm_sweep("launch", file.name, cwd=place).returncode == 0
    write_sweep(place, grid={NOISE: [0.2, 0.3]})
    assert vwm_sweep("launch", file.name, cwd=place).returncode == 0

    sweep = read_sweep(file)
    assert [record(run).attempt for run in runs_of(sweep, place)] == [1, 1]
    plan = make_plan(sweep, place / "runs" / "tiny")
    assert [observed.state for observed in plan.left] == ["finished"]
