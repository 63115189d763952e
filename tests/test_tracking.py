"""Training with the real client of Weights & Biases: offline, and online against a STUB of a server on loopback.

The stub (wandb_stub.py) is no server of W&B. One test asks a real one, where the environment names it.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import differing_files, environment, make_run, python, wait_until
from tests.wandb_runs import (
    LONG,
    history,
    history_size,
    leet_records,
    leet_rows,
    num_rows,
    train_and_kill,
    without_facts,
)
from tests.wandb_stub import WandbStub, client_environment
from vwm.training import offline_runs
from vwm.training.offline_runs import read_offline_runs
from vwm.training.run_folder import RunFolder

NOWHERE = "http://127.0.0.1:9"  # the port "discard", where nobody listens


@pytest.fixture
def stub() -> Iterator[WandbStub]:
    with WandbStub() as server:
        yield server


def train(folder: RunFolder, mode: str, cwd: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    return python("-m", "vwm", "train", folder.path, "--wandb", mode, cwd=cwd, timeout=600, **variables)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that was killed twice while it was tracked offline, and then finished."""
    place = tmp_path_factory.mktemp("a 'quoted' place")
    folder = RunFolder(make_run(place / "run", **LONG))
    variables = client_environment(place, NOWHERE) | {"WANDB_MODE": "offline"}
    moments = random.Random(5)
    train_and_kill(folder, moments, **variables)
    train_and_kill(folder, moments, **variables)
    assert not folder.is_finished()
    ended = train(folder, "offline", place, **variables)
    assert ended.returncode == 0, ended.stderr
    assert "W&B" not in ended.stdout
    return folder


@pytest.mark.slow
def test_killed_offline_runs_hold_every_row_once(finished: RunFolder, tmp_path: Path):
    # An attempt that is killed before the client is there leaves none.
    assert len(list(finished.path.glob("wandb/offline-run-*"))) in (2, 3)
    rows = leet_rows(finished, tmp_path)
    assert [row["_step"] for row in rows] == list(range(120))
    assert without_facts(rows) == history(finished)
    assert {row.get("attempt") for row in rows} <= {None, 1, 2, 3}
    assert rows[-1]["attempt"] == 3
    assert rows[-1]["steps_per_second"] > 0
    assert 50 < rows[-1]["memory_mib"] < 5000


@pytest.mark.slow
def test_the_last_offline_run_holds_the_final_summary(finished: RunFolder, tmp_path: Path):
    from vwm.behaviour.responses import read_run
    from vwm.behaviour.tables import measures

    expected = measures(read_run(finished.responses, "any"))
    summary: dict[str, object] = {}
    for record in leet_records(offline_runs.logs(finished)[-1], tmp_path):
        if record["type"] == "summary":
            summary |= record["summary"]["update"]

    assert json.loads(str(summary["result"])) == finished.read_result()
    for name in ("mean_abs_error", "circular_sd", "precision", "w", "kappa", "capacity"):
        assert [summary[f"final/{name}/{size}"] for size in (1, 2, 3)] == expected[name].tolist()
    assert "final/p_t/1" not in summary  # There are no swaps at one item.
    assert summary["ended_by"] == "num_iterations"


@pytest.mark.slow
def test_the_configuration_and_the_attempts_are_there(finished: RunFolder, tmp_path: Path):
    # A log of an attempt that was killed at once may be empty.
    records = [record for log in offline_runs.logs(finished) for record in leet_records(log, tmp_path)]
    started = [record["run"] for record in records if record["type"] == "run"]
    result = finished.read_result()
    assert result is not None
    assert {run["run_id"] for run in started} == {result["run_id"]}
    config = started[-1]["config"]["update"]
    assert config["model_params"]["num_neurons"] == 16
    assert config["fano_factor"] == pytest.approx(0.04)
    assert config["attempt_3"]["host"] == os.uname().nodename


@pytest.mark.slow
def test_our_reader_agrees_with_wandbs(finished: RunFolder, tmp_path: Path):
    ours = read_offline_runs(finished)
    assert list(ours.rows.values()) == leet_rows(finished, tmp_path)
    assert (ours.copies, ours.is_closed, ours.next_row) == (0, True, 120)


@pytest.mark.slow
def test_a_torn_log_gives_the_rows_before_the_tear(finished: RunFolder, tmp_path: Path):
    data = offline_runs.logs(finished)[-1].read_bytes()
    whole = list(read_offline_runs(finished).rows.values())
    torn = RunFolder(tmp_path)
    log = tmp_path / "wandb" / "offline-run-20260101_000000-x" / "run-x.wandb"
    log.parent.mkdir(parents=True)
    counts = set()
    for length in range(0, len(data), len(data) // 40):
        log.write_bytes(data[:length])
        rows = list(read_offline_runs(torn).rows.values())
        first = whole.index(rows[0]) if rows else 0
        assert rows == whole[first : first + len(rows)]
        assert not read_offline_runs(torn).is_closed
        counts.add(len(rows))
    assert len(counts) > 10
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    log.write_bytes(flipped)
    assert 0 < len(read_offline_runs(torn).rows) < len(whole)


@pytest.mark.slow
def test_training_is_the_same_with_tracking_and_without(finished: RunFolder, tmp_path: Path):
    untracked = RunFolder(make_run(tmp_path / "run", **LONG))
    assert train(untracked, "disabled", tmp_path).returncode == 0
    assert differing_files(untracked.path, finished.path) == []
    assert not (untracked.path / "wandb").exists()


@pytest.mark.slow
def test_no_process_stays_behind(tmp_path: Path):
    folder = RunFolder(make_run(tmp_path / "run"))
    train(folder, "offline", tmp_path, **client_environment(tmp_path, NOWHERE))
    assert read_offline_runs(folder).is_closed
    here = str(tmp_path)
    wait_until(lambda: not any(here in _environment_of(process) for process in psutil.process_iter()), 60)


def _environment_of(process: psutil.Process) -> str:
    try:
        return process.environ().get("WANDB_CONFIG_DIR", "")
    except psutil.Error:
        return ""


def test_an_unknown_mode_is_refused_before_anything_is_written(tmp_path: Path):
    folder = RunFolder(make_run(tmp_path / "run"))
    refused = train(folder, "onlin", tmp_path)
    assert refused.returncode == 2
    assert "--wandb onlin: expected one of online, offline, disabled." in refused.stderr
    refused = python("-m", "vwm", "train", folder.path, cwd=tmp_path, WANDB_MODE="on")
    assert "WANDB_MODE=on: expected one of" in refused.stderr
    assert [path.name for path in folder.path.iterdir()] == ["config.yaml"]


@pytest.mark.slow
def test_online_killed_preempted_and_resumed(stub: WandbStub, tmp_path: Path):
    (tmp_path / "sweep.yaml").touch()
    folder = RunFolder(make_run(tmp_path / "run", **LONG))
    variables = stub.environment(tmp_path) | {"WANDB_MODE": "online"}
    moments = random.Random(3)
    train_and_kill(folder, moments, **variables)
    command = [sys.executable, "-m", "vwm", "train", str(folder.path)]
    rows = num_rows(folder) + 10
    with subprocess.Popen(command, env=environment(**variables), stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: num_rows(folder) >= rows)
        folder.request_stop("preempted")
    assert process.returncode == 130
    (run,) = stub.runs.values()
    assert run.fields["state"] == "preempted"
    ended = train(folder, "online", tmp_path, **variables, WANDB_LOG_MODEL="end")
    assert ended.returncode == 0, ended.stderr
    assert without_facts(run.rows) == history(folder)
    assert [row["_step"] for row in run.rows] == list(range(120))
    assert json.loads(run.summary["result"]) == folder.read_result()
    assert (run.fields["group"], run.fields["tags"], run.fields["state"]) == (
        tmp_path.name,
        [tmp_path.name],
        "finished",
    )
    assert json.loads(run.fields["config"])["attempt_3"]["value"]["host"] == os.uname().nodename
    assert run.summary["responses"]["nrows"] == 50 * (1 + 2 + 3)
    (checkpoint,) = [artifact for artifact in stub.artifacts if artifact.type == "model"]
    assert checkpoint.files["checkpoint.pt"] == folder.checkpoint.read_bytes()


@pytest.mark.slow
def test_a_pack_in_two_processes_is_tracked_by_the_first(tmp_path: Path):
    changes = LONG | {"training_params__num_trials": 100}
    pack = [RunFolder(make_run(tmp_path / f"run {seed}", **changes, training_params__seed=seed)) for seed in (1, 2)]
    variables = client_environment(tmp_path, NOWHERE) | {"WANDB_MODE": "offline"}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "vwm", "train"]
    command = [sys.executable, *torchrun, *(str(run.path) for run in pack)]
    with subprocess.Popen(command, env=environment(**variables), stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: all(num_rows(run) >= 5 and offline_runs.logs(run) for run in pack))
        (first,) = [one for one in psutil.Process(process.pid).children() if one.environ().get("RANK") == "0"]
        first.kill()
    assert not any(run.is_finished() for run in pack)
    ended = subprocess.run(command, env=environment(**variables), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    for run in pack:
        assert len(list(run.path.glob("wandb/offline-run-*"))) == 2
        rows = leet_rows(run, tmp_path)
        assert [row["_step"] for row in rows] == list(range(120))
        assert without_facts(rows) == history(run)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder of 64 KiB, which less than half of the rows of a tiny run fill."""
    folder = tmp_path / "run" / "wandb"
    folder.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"a disk that is soon full cannot be made here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
def test_a_full_disk_stops_no_training_and_is_said_once(small_disk: Path, tmp_path: Path):
    folder = RunFolder(
        make_run(small_disk.parent, training_params__num_iterations=120, training_params__logging_period=1)
    )
    ended = train(folder, "offline", tmp_path, **client_environment(tmp_path, NOWHERE))
    assert ended.returncode == 0, ended.stderr
    assert folder.is_finished()
    assert ended.stdout.count("not tracked by W&B any more") == 1
    assert "of 120 rows could be written; is the disk full?" in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr


@pytest.mark.parametrize("fault", ["rejected key", "nobody there"])
@pytest.mark.slow
def test_without_a_server_the_reason_is_said_once(stub: WandbStub, tmp_path: Path, fault: str):
    folder = RunFolder(make_run(tmp_path / "run"))
    variables = stub.environment(tmp_path)
    stub.rejects_key = True
    if fault == "nobody there":
        variables["WANDB_BASE_URL"] = NOWHERE
    ended = train(folder, "online", tmp_path, **variables)
    assert ended.returncode == 0
    assert folder.is_finished()
    assert ended.stdout.count("not tracked by W&B any more") == 1
    assert ("401" if fault == "rejected key" else "refused") in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr


@pytest.mark.slow
def test_a_server_that_is_slow_and_then_dies_delays_training_by_seconds(stub: WandbStub, tmp_path: Path):
    stub.delay_s = 1.0
    folder = RunFolder(make_run(tmp_path / "run", **LONG))
    command = [sys.executable, "-m", "vwm", "train", str(folder.path), "--wandb", "online"]
    with subprocess.Popen(command, env=environment(**stub.environment(tmp_path)), stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: stub.requests["UpsertBucket"] > 0 and history_size(folder) > 0)
        stub.refuses_streams = True
        wait_until(folder.is_finished)
        finished = time.monotonic()
        assert process.wait() == 0
    assert time.monotonic() - finished < 120  # which is twice the longest that a process waits for W&B


@pytest.mark.skipif("VWM_WANDB_TEST_SERVER" not in os.environ, reason="VWM_WANDB_TEST_SERVER names no real W&B server")
@pytest.mark.slow
def test_a_real_server(tmp_path: Path):
    """Needs WANDB_API_KEY and WANDB_ENTITY of that server; leaves a run in the project vwm-test."""
    import wandb

    folder = RunFolder(make_run(tmp_path / "run", training_params__seed=random.randrange(10**6)))
    variables = {"WANDB_BASE_URL": os.environ["VWM_WANDB_TEST_SERVER"], "WANDB_PROJECT": "vwm-test"}
    train_and_kill(folder, random.Random(), **variables, WANDB_MODE="online")
    assert train(folder, "online", tmp_path, **variables).returncode == 0
    os.environ |= variables
    result = folder.read_result()
    assert result is not None
    run = wandb.Api().run(f"{os.environ['WANDB_ENTITY']}/vwm-test/{result['run_id']}")
    assert without_facts(list(run.scan_history())) == history(folder)
