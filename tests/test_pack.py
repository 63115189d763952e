from pathlib import Path

import pytest
import torch

from tests.conftest import differing_files, make_run
from vwm.errors import UserError
from vwm.training.run_folder import RunFolder
from vwm.training.train import train_folders


def members(noise: float) -> list[dict[str, object]]:
    """Three runs of equal shape that differ in everything else; the second stops early."""
    return [
        {"training_params__seed": 1, "model_params__spike_noise_factor": noise},
        {
            "training_params__seed": 2,
            "training_params__eta": 3e-3,
            "training_params__early_stop_patience": 4,
            "model_params__spike_noise_factor": 2 * noise,
            "model_params__ILC_noise": 0.2,
        },
        {
            "training_params__seed": 3,
            "training_params__error_def": "l2",
            "training_params__logging_period": 4,
            "model_params__spike_noise_factor": 1.5 * noise,
            "model_params__spike_noise_type": "gauss",
            "model_params__tau_max": 120,
        },
    ]


@pytest.mark.parametrize("noise", [0.0, 0.2], ids=["noise-free", "noisy"])
def test_each_member_of_a_pack_has_the_files_it_has_alone(tmp_path: Path, noise: float):
    pack = []
    for index, changes in enumerate(members(noise)):
        train_folders([RunFolder(make_run(tmp_path / "alone" / str(index), **changes))])
        pack.append(RunFolder(make_run(tmp_path / "pack" / str(index), **changes)))
    assert train_folders(pack) == ["finished"] * 3
    for index, folder in enumerate(pack):
        assert differing_files(tmp_path / "alone" / str(index), folder.path) == []
    second = pack[1].read_result()
    assert second is not None
    assert second["ended_by"] == "early stopping"
    assert second["iterations"] < 60


def test_members_resume_from_different_iterations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pack = [
        RunFolder(make_run(tmp_path / "pack" / str(index), **changes)) for index, changes in enumerate(members(0.2))
    ]
    monkeypatch.setenv("VWM_JOB", "1")
    for _ in range(3):
        pack[0].request_stop("preempted")
        train_folders(pack[:1])
    pack[2].request_stop("time limit")
    assert train_folders(pack) == ["finished", "finished", "stopped"]
    assert train_folders(pack[2:]) == ["finished"]
    for index, changes in enumerate(members(0.2)):
        alone = make_run(tmp_path / "alone" / str(index), **changes)
        train_folders([RunFolder(alone)])
        assert differing_files(alone, pack[index].path) == []


def test_a_member_that_fails_leaves_the_others_alone(tmp_path: Path):
    good = {"training_params__seed": 5}
    bad = {"training_params__eta": 1e20, "training_params__error_def": "l2"}
    pack = [RunFolder(make_run(tmp_path / name, **changes)) for name, changes in (("bad", bad), ("good", good))]
    assert train_folders(pack) == ["failed", "finished"]
    alone = make_run(tmp_path / "alone", **good)
    train_folders([RunFolder(alone)])
    assert differing_files(alone, pack[1].path) == []


def test_runs_of_unequal_shape_are_no_pack(tmp_path: Path):
    pack = [RunFolder(make_run(tmp_path / str(n), model_params__num_neurons=n)) for n in (16, 18)]
    with pytest.raises(UserError, match="cannot be trained as one pack"):
        train_folders(pack)
    assert not any(folder.checkpoint.exists() for folder in pack)


def test_the_batched_step_gives_the_gradients_of_the_members_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What a GPU does with a pack, done on the CPU: one batched backward pass for all members."""
    from vwm.training import train
    from vwm.training import workers as processes
    from vwm.training.iteration import backward
    from vwm.training.saving import Saving

    torch.set_num_threads(1)
    workers = processes.Workers()
    pack = [
        train.Member(
            RunFolder(make_run(tmp_path / str(index), **{**changes, "model_params__spike_noise_type": "gamma"})),
            workers,
            Saving(),
        )
        for index, changes in enumerate(members(0.2))
    ]
    together = backward([member.run for member in pack], workers.rank)
    gradients = [[parameter.grad for parameter in member.run.network.parameters()] for member in pack]
    for index, member in enumerate(pack):
        (alone,) = backward([member.run], workers.rank)
        torch.testing.assert_close(together[index], alone, rtol=1e-4, atol=1e-5)
        for batched, parameter in zip(gradients[index], member.run.network.parameters(), strict=True):
            assert batched is not None
            torch.testing.assert_close(batched, parameter.grad, rtol=1e-3, atol=1e-5)


def batch_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let packs be computed together, as on a GPU."""
    from vwm.training.workers import Workers

    def batched(self: Workers) -> None:
        start(self)
        self.batch_packs = True

    start = Workers.__init__
    monkeypatch.setattr(Workers, "__init__", batched)


def test_a_pack_that_becomes_smaller_keeps_no_buffers_of_the_larger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from vwm.model.recurrence import POOL

    batch_packs(monkeypatch)
    folders = [
        RunFolder(make_run(tmp_path / str(patience), training_params__early_stop_patience=patience))
        for patience in (5, 100, 101)
    ]
    assert train_folders(folders) == ["finished"] * 3
    first = folders[0].read_result()
    assert first is not None
    assert first["iterations"] < 60
    members_of_buffers = {key[1] for key in POOL._free if key[2] == 24}
    assert members_of_buffers == {2}


def test_a_pack_that_the_memory_does_not_hold_is_computed_in_halves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As on a GPU with room for two members; the lack of memory is made, the rest is not."""
    from vwm.model.network import simulate_prepared
    from vwm.training import iteration

    def with_room_for_two(networks, *arguments, **settings):
        sizes.append(len(networks))
        if len(networks) > 2:
            raise torch.OutOfMemoryError("no room")
        return simulate_prepared(networks, *arguments, **settings)

    sizes: list[int] = []
    batch_packs(monkeypatch)
    monkeypatch.setattr(iteration, "simulate_prepared", with_room_for_two)
    folders = [RunFolder(make_run(tmp_path / str(seed), training_params__seed=seed)) for seed in range(5)]
    assert train_folders(folders) == ["finished"] * 5
    assert sizes[:8] == [5, 2, 3, 1, 2, 2, 1, 2]  # What did not fit is not tried again.
    monkeypatch.undo()
    for seed, folder in enumerate(folders):
        alone = RunFolder(make_run(tmp_path / f"alone {seed}", training_params__seed=seed))
        train_folders([alone])
        ours, theirs = folder.read_result(), alone.read_result()
        assert ours is not None
        assert theirs is not None
        # A batched product rounds otherwise than a single one, so this is near and not equal.
        assert ours["mean_abs_error"] == pytest.approx(theirs["mean_abs_error"], abs=0.05)
