"""Iterations that are launched ahead of their results, on a GPU where there is one, and what they decide by tensors."""

import math
from pathlib import Path

import pytest
import torch

from tests.conftest import differing_files, make_run
from tests.test_recurrence import BASE
from vwm.config import Configuration
from vwm.training import batches
from vwm.training.recorded import Course
from vwm.training.run_folder import RunFolder
from vwm.training.train import train_folders
from vwm.training.training_run import TrainingRun

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU to record iterations on")


def run_with(**training: object) -> TrainingRun:
    settings = {"num_trials": 6, "num_iterations": 10**6, **training}
    return TrainingRun(
        Configuration.model_validate({"model_params": BASE, "training_params": settings}), torch.device("cpu")
    )


def test_tensors_decide_what_the_counts_of_a_run_decide() -> None:
    """Every step size to the bit, and when a run ends, also where the course begins anew from the runs in between."""
    rng = torch.Generator().manual_seed(0)
    runs = [
        run_with(adaptive_lr_patience=7, early_stop_patience=60),
        run_with(adaptive_lr_patience=0, early_stop_patience=25, eta=3e-3),
        run_with(adaptive_lr_patience=3, early_stop_patience=10**6, eta=1e-6),
    ]
    iterations = 900
    losses = torch.rand(len(runs), iterations, generator=rng, dtype=torch.float64)
    losses /= torch.arange(1, iterations + 1).clamp_max(200)
    # Lower once, by less than counts for the step size, and then no more.
    losses[0, 40:110] = losses[0, :40].min() * (1 - 5e-5)
    course = Course(runs)
    others = torch.ones(2 + 4 * runs[0].configuration.model_params.max_item_num, dtype=torch.float64)
    ended: dict[int, int] = {}
    failed_at = 700
    for iteration in range(iterations):
        if iteration in (30, 31, 333):
            course.begin(runs)
            course.goes_on.copy_(torch.tensor([run.ended_by is None for run in runs]))
        was_finite = torch.tensor([True, True, iteration != failed_at])
        course.advance(losses[:, iteration], was_finite)
        for index, run in enumerate(runs):
            if index in ended:
                assert not course.goes_on[index]
                continue
            if not was_finite[index]:
                ended[index] = iteration
            else:
                run.count(torch.cat([losses[index, iteration, None], others]), 1)
                assert course.step_size[index].item() == run.learning_rate
                if run.ended_by is not None:
                    ended[index] = iteration
            assert bool(course.goes_on[index]) == (index not in ended)
    assert set(ended) == {0, 1, 2}
    assert ended[2] == failed_at
    assert ended[0] == 40 + 60
    assert ended[1] < 500
    assert runs[2].learning_rate < 2.1e-8  # halved as far as it goes


def test_no_iteration_is_launched_over_what_is_to_be_saved() -> None:
    run = run_with(logging_period=50, keep_every=30, num_iterations=70)
    seen = []
    while run.iteration < 70:
        seen.append(run.iterations_to_save)
        run.iteration += seen[-1]
        assert run.row_is_due or run.kept_checkpoint_is_due or run.iteration == 70
    assert seen == [30, 20, 10, 10]


def settings(**more: object) -> dict[str, object]:
    return {"model_params__spike_noise_factor": 0.2, "training_params__num_iterations": 130, **more}


@needs_gpu
@pytest.mark.parametrize(
    "changes",
    [
        settings(),
        settings(training_params__adaptive_lr_patience=2, training_params__gradient_clipping=0.5),
        settings(training_params__early_stop_patience=5, training_params__keep_every=7),
        settings(training_params__logging_period=10**6),
        settings(training_params__logging_period=1),
    ],
    ids=["plain", "step sizes", "stops early", "one row", "a row each"],
)
def test_recorded_iterations_leave_the_files_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
) -> None:
    recorded = RunFolder(make_run(tmp_path / "recorded", **changes))
    train_folders([recorded])
    monkeypatch.setattr(batches, "can_be_recorded", lambda runs: False)
    one_by_one = RunFolder(make_run(tmp_path / "one by one", **changes))
    assert train_folders([one_by_one]) == ["finished"]
    assert differing_files(recorded.path, one_by_one.path) == []


@needs_gpu
def test_a_pack_that_is_interrupted_ends_as_one_that_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pack(name: str) -> list[RunFolder]:
        return [
            RunFolder(make_run(tmp_path / name / str(seed), **settings(training_params__seed=seed))) for seed in (1, 2)
        ]

    whole, parts = pack("whole"), pack("parts")
    assert train_folders(whole) == ["finished"] * 2
    monkeypatch.setenv("VWM_JOB", "1")
    for iterations in (1, 17, 3, 40, 55):
        left = [iterations]

        def looks(self: object, folder: RunFolder, left: list[int] = left) -> str | None:
            if folder.path == parts[0].path:
                left[0] -= 1
            return "preempted" if left[0] < 0 else None

        with monkeypatch.context() as context:
            context.setattr("vwm.training.stopping.StopRequests.reason", looks)
            assert train_folders(parts) == ["stopped"] * 2
    assert train_folders(parts) == ["finished"] * 2
    for one, other in zip(whole, parts, strict=True):
        assert differing_files(one.path, other.path) == []


@needs_gpu
def test_a_recorded_member_that_fails_leaves_the_others_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = [
        settings(training_params__eta=1e20, training_params__error_def="l2"),
        settings(training_params__seed=3),
        settings(training_params__seed=4, training_params__early_stop_patience=4),
    ]
    pack = [RunFolder(make_run(tmp_path / str(index), **each)) for index, each in enumerate(changes)]
    assert train_folders(pack) == ["failed", "finished", "finished"]
    state, result = pack[0].read_state(), pack[2].read_result()
    assert state is not None
    assert state.reason == "nan"
    assert pack[0].failed_state.exists()
    assert result is not None
    assert result["ended_by"] == "early stopping"
    last = torch.load(pack[2].checkpoint, weights_only=True)
    assert last["iteration"] == result["iterations"] < 130
    assert math.isfinite(last["best_loss"])
