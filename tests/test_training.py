import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import differing_files, environment, make_run, python, tiny, wait_until
from vwm.config import Configuration
from vwm.errors import UserError
from vwm.files import locked
from vwm.training.random_streams import evaluation_stream, initial_network_stream, iteration_stream
from vwm.training.run_folder import Reason, RunFolder
from vwm.training.train import train_folders
from vwm.training.training_run import TrainingRun

CPU = torch.device("cpu")


def train(path: Path) -> RunFolder:
    folder = RunFolder(path)
    train_folders([folder])
    return folder


def history(folder: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in folder.history.read_text().splitlines()]


def test_a_row_of_the_history_averages_the_iterations_since_the_last_row(tmp_path: Path):
    every = history(train(make_run(tmp_path / "every", training_params__logging_period=1)))
    rows = history(train(make_run(tmp_path / "seven", training_params__logging_period=7)))
    assert [row["iteration"] for row in rows] == [7, 14, 21, 28, 35, 42, 49, 56, 60]
    start = 0
    for row in rows:
        window = every[start : row["iteration"]]
        start = row["iteration"]
        for name in ("loss", "error_loss", "mean_rate", "mean_abs_error", "mean_rate_by_set_size"):
            np.testing.assert_allclose(row[name], np.mean([one[name] for one in window], axis=0), rtol=1e-12)
        mean = np.array([one["mean_abs_error"] for one in window])
        spread = np.array([one["sd_abs_error"] for one in window])
        pooled = np.sqrt((spread**2 + mean**2).mean(0) - mean.mean(0) ** 2)
        np.testing.assert_allclose(row["sd_abs_error"], pooled, rtol=1e-9)
        assert row["learning_rate"] == window[-1]["learning_rate"]
    # The period changes what is written down, never the training.
    assert history(RunFolder(tmp_path / "every"))[-1]["patience"] == rows[-1]["patience"]


def test_early_stopping_ends_at_the_first_run_of_iterations_without_a_lower_loss(tmp_path: Path):
    folder = train(
        make_run(tmp_path / "run", training_params__logging_period=1, training_params__early_stop_patience=6)
    )
    losses = [row["loss"] for row in history(folder)]
    best, waited, expected_end = math.inf, 0, None
    for iteration, loss in enumerate(losses, start=1):
        best, waited = (loss, 0) if loss < best else (best, waited + 1)
        if waited == 6:
            expected_end = iteration
            break
    assert len(losses) == expected_end
    result = folder.read_result()
    assert result is not None
    assert (result["ended_by"], result["iterations"]) == ("early stopping", expected_end)


def test_the_learning_rate_follows_the_schedule_on_every_iteration(tmp_path: Path):
    rows = history(
        train(make_run(tmp_path / "run", training_params__logging_period=1, training_params__adaptive_lr_patience=2))
    )
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1e-3)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=2)
    optimizer.step()
    for row in rows:
        schedule.step(row["loss"])
        assert row["learning_rate"] == optimizer.param_groups[0]["lr"]
    assert rows[-1]["learning_rate"] < 1e-3


def test_training_lowers_the_error(tmp_path: Path):
    rows = history(
        train(
            make_run(
                tmp_path / "run",
                training_params__num_iterations=150,
                training_params__logging_period=10,
                training_params__eta=1e-2,
                model_params__num_neurons=32,
            )
        )
    )
    first, last = np.mean(rows[0]["mean_abs_error"]), np.mean(rows[-1]["mean_abs_error"])
    assert abs(first - math.pi / 2) < 0.15
    assert last < first - 0.4


def test_a_non_finite_loss_quarantines_the_run_and_keeps_the_last_good_checkpoint(tmp_path: Path):
    path = make_run(
        tmp_path / "run",
        training_params__eta=1e20,  # the read-out grows until its square overflows
        training_params__error_def="l2",
        training_params__logging_period=1,
    )
    assert train_folders([RunFolder(path)]) == ["failed"]
    folder = RunFolder(path)
    state = folder.read_state()
    assert state is not None
    assert (state.phase, state.reason) == ("failed", "nan")
    assert not folder.is_finished()
    good = torch.load(folder.checkpoint, weights_only=True)
    kept = torch.load(folder.failed_state, weights_only=True)
    assert good["iteration"] == kept["iteration"] == state.iteration == len(history(folder))
    assert f"iteration {state.iteration + 1}" in (state.detail or "")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_non_finite_gradient_changes_nothing(bad: float):
    run = TrainingRun(Configuration.model_validate(tiny()), CPU)
    for parameter in run.network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    assert run.network.input.grad is not None
    run.network.input.grad[0, 0] = bad
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    measured = torch.ones(3 + 4 * 3, dtype=torch.float64)
    assert run.update(measured, processes=1) is False
    assert run.iteration == 0
    assert run.window.iterations == 0
    assert all(torch.equal(before[name], value) for name, value in run.network.state_dict().items())


def test_a_stop_file_stops_at_the_next_step_and_the_run_goes_on_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    alone = train(make_run(tmp_path / "alone"))
    folder = RunFolder(make_run(tmp_path / "stopped"))
    monkeypatch.setenv("VWM_JOB", "1")  # as in a job, which has already cleared what an earlier attempt left
    reasons: tuple[Reason, ...] = ("preempted", "time limit", "stop requested")
    for attempt, reason in enumerate(reasons, start=1):
        folder.request_stop(reason)
        assert train_folders([folder]) == ["stopped"]
        state = folder.read_state()
        assert state is not None
        assert (state.phase, state.reason, state.iteration, state.attempt) == ("stopped", reason, attempt, attempt)
        assert not folder.stop.exists()
    assert train_folders([folder]) == ["finished"]
    assert differing_files(alone.path, folder.path) == []


def test_a_stop_file_left_by_an_earlier_attempt_is_forgotten_outside_a_job(tmp_path: Path):
    folder = RunFolder(make_run(tmp_path / "run"))
    folder.request_stop("preempted")
    assert train_folders([folder]) == ["finished"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_at_the_next_step_and_the_same_command_goes_on_exactly(tmp_path: Path, number: signal.Signals):
    changes = {"training_params__num_iterations": 400}
    alone = train(make_run(tmp_path / "alone", **changes))
    folder = RunFolder(make_run(tmp_path / 'a run\'s "folder"', **changes))
    command = [sys.executable, "-m", "vwm", "train", str(folder.path)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        wait_until(lambda: folder.checkpoint.exists())
        os.kill(process.pid, number)
        output, _ = process.communicate(timeout=300)
    assert process.returncode == 130
    state = folder.read_state()
    assert state is not None
    assert (state.phase, state.reason) == ("stopped", "stop requested")
    assert 0 < state.iteration < 400
    assert f"saved at iteration {state.iteration}" in output
    assert python("-m", "vwm", "train", folder.path, cwd=tmp_path).returncode == 0
    assert differing_files(alone.path, folder.path) == []


def test_numbered_checkpoints_are_kept_where_asked_for(tmp_path: Path):
    folder = train(make_run(tmp_path / "run", training_params__keep_every=20))
    kept = sorted(path.name for path in folder.numbered_checkpoints.iterdir())
    assert kept == ["checkpoint-00000020.pt", "checkpoint-00000040.pt", "checkpoint-00000060.pt"]
    middle = torch.load(folder.numbered_checkpoints / kept[1], weights_only=True)
    assert middle["iteration"] == 40
    plain = train(make_run(tmp_path / "plain"))
    assert (folder.history.read_bytes(), folder.responses.read_bytes()) == (
        plain.history.read_bytes(),
        plain.responses.read_bytes(),
    )


def test_without_training_the_initial_network_is_evaluated(tmp_path: Path):
    folder = train(make_run(tmp_path / "run", training_params__train_rnn=False))
    result = folder.read_result()
    assert result is not None
    assert (result["ended_by"], result["iterations"]) == ("no training", 0)
    assert np.mean(result["mean_abs_error"]) == pytest.approx(math.pi / 2, abs=0.1)


def test_the_evaluation_is_on_fixed_trials_and_the_result_follows_from_the_responses(tmp_path: Path):
    first, second = (train(make_run(tmp_path / str(seed), training_params__seed=seed)) for seed in (1, 2))
    with np.load(first.responses, allow_pickle=False) as one, np.load(second.responses, allow_pickle=False) as two:
        np.testing.assert_array_equal(one["target"], two["target"])
        assert not np.array_equal(one["response"], two["response"], equal_nan=True)
        set_size, target, response = one["set_size"], one["target"], one["response"]
    assert ((~np.isnan(target)).sum(1) == set_size).all()
    np.testing.assert_array_equal(np.isnan(target), np.isnan(response))
    assert np.nanmin(response) >= np.float32(-np.pi)
    assert np.nanmax(response) < np.pi
    result = first.read_result()
    assert result is not None
    error = np.abs(np.angle(np.exp(1j * (response.astype(float) - target))))
    for size, trials, mean, spread in zip(
        result["set_size"], result["trials"], result["mean_abs_error"], result["sd_abs_error"], strict=True
    ):
        per_trial = np.nanmean(error[set_size == size], axis=1)
        assert trials == len(per_trial) >= 2000
        assert mean == pytest.approx(per_trial.mean(), abs=1e-5)
        assert spread == pytest.approx(per_trial.std(), abs=1e-5)


def test_random_numbers_are_a_function_of_seed_iteration_and_rank():
    def draws(stream: torch.Generator) -> tuple[float, ...]:
        return tuple(torch.rand(4, generator=stream).tolist())

    keys = [(seed, iteration, rank) for seed in (0, 1) for iteration in (0, 1, 2) for rank in (0, 1)]
    streams = {key: draws(iteration_stream(*key)) for key in keys}
    assert len(set(streams.values())) == len(keys)
    assert streams == {key: draws(iteration_stream(*key)) for key in reversed(keys)}
    others = {
        draws(initial_network_stream(0)),
        draws(evaluation_stream(1, 0)),
        draws(evaluation_stream(1, 1)),
    }
    assert len(others) == 3
    assert not others & set(streams.values())


def test_a_run_that_somebody_trains_is_refused(tmp_path: Path):
    folder = RunFolder(make_run(tmp_path / "run"))
    with locked(folder.lock):
        assert folder.is_being_trained()
        with pytest.raises(UserError, match="another process trains this run"):
            train_folders([folder])
    assert not folder.is_being_trained()


def test_a_damaged_checkpoint_is_refused_and_nothing_is_lost(tmp_path: Path):
    folder = train(make_run(tmp_path / "run"))
    folder.result.unlink()
    whole = folder.checkpoint.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"no checkpoint"):
        folder.checkpoint.write_bytes(damaged)
        before = folder.history.read_bytes()
        with pytest.raises(UserError, match="the checkpoint cannot be read"):
            train_folders([folder])
        assert folder.history.read_bytes() == before


def test_a_checkpoint_is_never_unpickled_into_code(tmp_path: Path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    folder = train(make_run(tmp_path / "run"))
    folder.result.unlink()
    torch.save({"format": 1, "trap": Trap()}, folder.checkpoint)
    with pytest.raises(UserError, match="the checkpoint cannot be read"):
        train_folders([folder])
    assert not (tmp_path / "sprung").exists()


def test_a_history_shorter_than_the_checkpoint_says_is_refused(tmp_path: Path):
    folder = train(make_run(tmp_path / "run"))
    folder.result.unlink()
    folder.history.write_bytes(folder.history.read_bytes()[:-40])
    with pytest.raises(UserError, match="the checkpoint counts on"):
        train_folders([folder])


@pytest.mark.parametrize(
    ("obstacle", "error"), [("history.jsonl", IsADirectoryError), ("checkpoints", FileExistsError)]
)
def test_an_error_inside_is_kept_with_its_traceback(tmp_path: Path, obstacle: str, error: type[Exception]):
    folder = RunFolder(make_run(tmp_path / "run", training_params__keep_every=20))
    if obstacle == "history.jsonl":
        folder.history.mkdir()  # The run cannot be opened.
    else:
        folder.numbered_checkpoints.touch()  # The twentieth iteration cannot be saved.
    with pytest.raises(error):
        train_folders([folder])
    state = folder.read_state()
    assert state is not None
    assert (state.phase, state.reason) == ("failed", "error")
    # What is written beside training is known to have failed when the next thing is to be written.
    assert state.iteration in ((0,) if obstacle == "history.jsonl" else range(20, 41))
    assert error.__name__ in (state.detail or "")
    assert "Traceback" in folder.traceback.read_text()
