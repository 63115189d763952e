"""A run that is killed again and again ends with the bytes of the uninterrupted one."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import differing_files, environment, make_run, python, wait_until
from vwm.config_file import load_configuration
from vwm.training.run_folder import RunFolder

COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")

CHANGES: dict[str, object] = {
    "training_params__num_iterations": 1200,
    "training_params__early_stop_patience": 2000,
    "training_params__logging_period": 2,
    "training_params__keep_every": 100,
}


BY_TWO = {**CHANGES, "training_params__num_iterations": 600}


def history_size(folder: RunFolder) -> int:
    return folder.history.stat().st_size if folder.history.exists() else 0


def wait_for_progress(folder: RunFolder, before: int) -> None:
    """Return once training goes on: the history is cut back to the checkpoint at the start, and then grows."""
    wait_until(lambda: history_size(folder) != before)


def assert_every_iteration_once(folder: RunFolder, last: int) -> None:
    iterations = [int(found) for found in re.findall(r'"iteration": (\d+)', folder.history.read_text())]
    assert iterations == list(range(2, last + 1, 2))


@pytest.mark.slow
def test_sigkill_at_random_moments_and_inside_writes(tmp_path: Path):
    alone = RunFolder(make_run(tmp_path / "alone", **CHANGES))
    assert python("-m", "vwm", "train", alone.path, cwd=tmp_path).returncode == 0
    folder = RunFolder(make_run(tmp_path / "killed", **CHANGES))
    moments = random.Random(7)
    killed = 0

    for call, low, high in [("fsync", 1, 60), ("replace", 1, 25)] * 6:
        die = Path(__file__).with_name("die_in_write.py")
        ended = python(die, call, moments.randint(low, high), "train", folder.path, cwd=tmp_path)
        killed += ended.returncode == -signal.SIGKILL
    assert killed == 12

    while killed < 22:
        before = history_size(folder)
        command = [sys.executable, "-m", "vwm", "train", str(folder.path)]
        with subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL) as process:
            wait_for_progress(folder, before)
            time.sleep(moments.uniform(0, 0.3))
            process.kill()
            process.wait()
        killed += process.returncode == -signal.SIGKILL
        assert not folder.is_finished()

    last = python("-m", "vwm", "train", folder.path, cwd=tmp_path)
    assert last.returncode == 0, last.stderr
    assert differing_files(alone.path, folder.path) == []
    assert_every_iteration_once(folder, 1200)
    for kept in alone.numbered_checkpoints.iterdir():
        assert kept.read_bytes() == (folder.numbered_checkpoints / kept.name).read_bytes()
    assert [path.name for path in folder.path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler, so nothing can be compiled")
def test_a_compiled_run_that_is_killed_goes_on_exactly(tmp_path: Path):
    changes: dict[str, object] = {
        "model_params__num_neurons": 64,
        "model_params__spike_noise_type": "gauss",
        "training_params__num_trials": 512,
        "training_params__num_iterations": 400,
        "training_params__early_stop_patience": 2000,
        "training_params__logging_period": 4,
    }
    alone = RunFolder(make_run(tmp_path / "alone", **changes))
    configuration, _ = load_configuration(alone.config)
    assert configuration.worth_compiling
    ended = python("-m", "vwm", "train", alone.path, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "compiler" not in ended.stdout + ended.stderr
    folder = RunFolder(make_run(tmp_path / "killed", **changes))
    command = [sys.executable, "-m", "vwm", "train", str(folder.path)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: history_size(folder) > 5000)
        process.kill()
    assert not folder.is_finished()
    assert python("-m", "vwm", "train", folder.path, cwd=tmp_path).returncode == 0
    assert differing_files(alone.path, folder.path) == []


def torchrun(folder: RunFolder, processes: int) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--nnodes=1", f"--nproc_per_node={processes}", "--max_restarts=0"]
    rendezvous = ["--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0"]
    return [*launcher, *rendezvous, "-m", "vwm", "train", str(folder.path)]


@pytest.fixture(scope="module")
def trained_by_two(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The run that two processes have trained without interruption."""
    folder = RunFolder(make_run(tmp_path_factory.mktemp("undisturbed") / "run", **BY_TWO))
    ended = python(*torchrun(folder, 2), cwd=folder.path)
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.mark.slow
def test_two_processes_of_which_one_is_killed(trained_by_two: RunFolder, tmp_path: Path):
    folder = RunFolder(make_run(tmp_path / "killed", **BY_TWO))
    moments = random.Random(3)
    for rank in ("0", "1", "1", "0"):
        before = history_size(folder)
        with subprocess.Popen(
            [sys.executable, *torchrun(folder, 2)],
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as agent:
            wait_for_progress(folder, before)
            time.sleep(moments.uniform(0, 0.3))
            workers = psutil.Process(agent.pid).children()
            (victim,) = [worker for worker in workers if worker.environ().get("RANK") == rank]
            victim.kill()
            agent.wait(timeout=300)
        assert agent.returncode != 0
        assert not folder.is_finished()
        if rank == "1":  # The first process outlives the other and says what happened.
            state = folder.read_state()
            assert state is not None
            assert state.phase in ("interrupted", "training")
    ended = python(*torchrun(folder, 2), cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert differing_files(trained_by_two.path, folder.path) == []
    assert_every_iteration_once(folder, 600)


@pytest.mark.slow
def test_two_processes_stop_at_the_same_step_and_go_on_exactly(trained_by_two: RunFolder, tmp_path: Path):
    folder = RunFolder(make_run(tmp_path / "stopped", **BY_TWO))
    for how in ("signal", "file"):
        before = history_size(folder)
        with subprocess.Popen(
            [sys.executable, *torchrun(folder, 2)],
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as agent:
            wait_for_progress(folder, before)
            if how == "signal":
                agent.terminate()
            else:
                folder.request_stop("time limit")
            agent.wait(timeout=300)
        state = folder.read_state()
        assert state is not None
        assert state.phase == "stopped"
        assert state.reason == ("stop requested" if how == "signal" else "time limit")
        if how == "file":
            assert agent.returncode == 0
    ended = python(*torchrun(folder, 2), cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert differing_files(trained_by_two.path, folder.path) == []


@pytest.mark.slow
def test_another_number_of_processes_goes_on_and_says_that_exactness_is_lost(tmp_path: Path):
    folder = RunFolder(make_run(tmp_path / "run", training_params__num_iterations=400))
    with subprocess.Popen(
        [sys.executable, *torchrun(folder, 2)], env=environment(), stdout=subprocess.DEVNULL
    ) as agent:
        wait_until(folder.checkpoint.exists)
        folder.request_stop("preempted")
        agent.wait(timeout=300)
    ended = python("-m", "vwm", "train", folder.path, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "trained by 2 processes" in ended.stdout
    assert "no longer exactly" in ended.stdout
    assert folder.is_finished()


@pytest.mark.slow
def test_two_processes_train_on_twice_the_trials_and_agree_with_one_process_that_has_them_all(tmp_path: Path):
    """The mean gradient over two processes is that of the joint batch: the histories agree in all that is averaged."""
    import json

    folder = RunFolder(make_run(tmp_path / "two", training_params__num_iterations=7))
    assert python(*torchrun(folder, 2), cwd=tmp_path).returncode == 0
    row = json.loads(folder.history.read_text().splitlines()[-1])

    import torch

    from vwm.config_file import load_configuration
    from vwm.model.losses import error_loss
    from vwm.model.network import simulate
    from vwm.model.task import draw_trials, stacked
    from vwm.training.random_streams import iteration_stream
    from vwm.training.training_run import TrainingRun, measure

    configuration, _ = load_configuration(folder.config)
    run = TrainingRun(configuration, torch.device("cpu"))
    for iteration in range(7):
        run.optimizer.zero_grad()
        measured = []
        for rank in range(2):
            stream = iteration_stream(0, iteration, rank)
            trials = draw_trials(configuration.model_params, run.set_size, stream)
            simulation = simulate([run.network], [trials], [stream])
            readout, rate = simulation.readout[:, 0], simulation.mean_rate[0]
            error = error_loss("rad", readout, trials).mean()
            loss = error + configuration.training_params.lambda_reg * rate.mean()
            (loss / 2).backward()
            sums = measure(loss[None], error[None], simulation.mean_rate, simulation.readout, stacked([trials]))
            measured.append(sums[0])
        run.update(measured[0] + measured[1], processes=2)
    expected = run.close_window()
    for name in ("loss", "mean_rate", "mean_abs_error", "sd_abs_error"):
        assert row[name] == pytest.approx(expected[name], rel=1e-4)
