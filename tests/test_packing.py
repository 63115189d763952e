"""How many runs a job trains together where the profile leaves that open."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from tests.conftest import tiny
from tests.sweep_files import vwm_sweep, write_sweep
from tests.test_status import rendered
from vwm.config import Configuration
from vwm.errors import UserError
from vwm.sweep.grid import read_sweep
from vwm.sweep.packing import (
    WORTH_DOUBLING,
    chosen,
    estimated_pack,
    kind_of,
    measurements_file,
    read_packs,
    write_pack,
)
from vwm.sweep.plan import jobs_to_start, make_plan
from vwm.sweep.profile import read_profile
from vwm.sweep.status import plan_view
from vwm.training.pack_speed import PackSpeed, pack_speeds

CONFIGURATION = Configuration.model_validate(
    {"model_params": {"num_neurons": 64}, "training_params": {"num_trials": 512}}
)


def speeds(*of_all: float) -> list[PackSpeed]:
    """Of packs of 1, 2, 4, … runs."""
    return [PackSpeed(2**index, speed, 0.5) for index, speed in enumerate(of_all)]


@pytest.mark.parametrize(
    ("measured", "runs", "gain"),
    [
        ((100,), 1, 1.0),  # no more was measured, since the memory did not hold two
        ((100, 105), 1, 1.0),
        ((100, 190, 360, 390), 4, 3.6),
        ((100, 190, 360, 396.1, 400), 8, 3.961),
    ],
)
def test_a_pack_grows_as_long_as_twice_as_many_runs_do_a_tenth_more(
    measured: tuple[float, ...], runs: int, gain: float
) -> None:
    pack = chosen("a card", speeds(*measured))
    assert (pack.runs, pack.card, pack.measured) == (runs, "a card", True)
    assert pack.gain == pytest.approx(gain)


def test_packs_are_measured_by_training_them() -> None:
    """On this CPU, one after the other; what an iteration of a GPU is like, only a GPU can tell."""
    small = Configuration.model_validate(json.loads(json.dumps(tiny())))
    measured = list(pack_speeds(small, worth_doubling=0.0, most=4))
    assert [speed.runs for speed in measured] == [1, 2, 4]
    assert all(speed.iterations_per_second > 0 and speed.gib == 0 for speed in measured)
    assert len(list(pack_speeds(small, worth_doubling=1e9, most=4))) == 2


def test_what_was_measured_for_a_profile_decides_and_is_told(tmp_path: Path) -> None:
    profile = tmp_path / "my gpus.yaml"
    profile.write_text("where: slurm\nruns_per_job: auto\n")
    base = tiny(model_params__num_neurons=64, training_params__num_trials=512)
    sweep = read_sweep(write_sweep(tmp_path, base=base, seeds=20))
    plan = make_plan(sweep, tmp_path / "runs")

    def sizes() -> list[int]:
        return [len(job) for job in jobs_to_start(plan.runs, read_profile(profile))]

    assert sizes() == [16, 4] == [estimated_pack(sweep.runs[0].configuration).runs, 4]
    measured = speeds(100, 190, 360, 700, 720)
    write_pack(profile, sweep.runs[0].configuration, chosen("Small GPU", measured), measured)
    write_pack(profile, CONFIGURATION, chosen("Small GPU", speeds(100)), speeds(100))
    assert sizes() == [8, 8, 4]
    packs = read_packs(profile)
    assert set(packs) == {kind_of(sweep.runs[0].configuration), kind_of(CONFIGURATION)}
    stored = json.loads(measurements_file(profile).read_text())[kind_of(CONFIGURATION)]
    assert stored["speeds"] == [{"runs": 1, "iterations_per_second": 100, "gib": 0.5}]

    read = read_profile(profile)
    text = rendered(plan_view(sweep, plan, jobs_to_start(plan.runs, read), read), width=160)
    assert "A launch submits 3 jobs of up to 8 runs to SLURM." in text
    assert "Together 8 of them do 7 times as many iterations as one (measured on Small GPU)." in text
    assert WORTH_DOUBLING * 700 > 720


def test_runs_that_a_gpu_computes_in_different_ways_are_measured_apart() -> None:
    """With torch's gamma sampler there is no kernel and no graph: fifty times fewer iterations a second and more."""

    def kind(**model: object) -> str:
        return kind_of(Configuration.model_validate({"model_params": model}))

    assert kind(gamma_sampler="quantile") == kind(gamma_sampler="auto") != kind(gamma_sampler="torch")
    assert len({kind(spike_noise_type="gauss", gamma_sampler=each) for each in ("quantile", "torch")}) == 1
    assert len({kind(spike_noise_factor=0.0, gamma_sampler=each) for each in ("quantile", "torch")}) == 1


@pytest.mark.parametrize("content", ["[]", '{"64 units": {"runs": 4}}', '{"64 units": 3}', "{"])
def test_a_damaged_file_of_measurements_is_refused(tmp_path: Path, content: str) -> None:
    profile = tmp_path / "gpus.yaml"
    profile.write_text("where: slurm\nruns_per_job: auto\n")
    measurements_file(profile).write_text(content)
    with pytest.raises(UserError, match="no measurements of packs"):
        read_profile(profile)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, so it would be measured")
def test_measuring_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    write_sweep(tmp_path)
    sweep = tmp_path / "nowhere.yaml"
    sweep.write_text(yaml.safe_dump({"name": "nowhere", "base": tiny()}))
    (tmp_path / "gpus.yaml").write_text("where: slurm\nruns_per_job: auto\n")
    (tmp_path / "fixed.yaml").write_text("where: slurm\nruns_per_job: 4\n")
    for arguments, words in (
        ((sweep.name,), "Name one with --on"),
        (("tiny.yaml", "--on", "fixed.yaml"), "Write runs_per_job: auto"),
        (("tiny.yaml", "--on", "gpus.yaml"), "There is no GPU here"),
    ):
        done = vwm_sweep("measure-packs", *arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert words in done.stderr
        assert "Traceback" not in done.stderr
    assert not measurements_file(tmp_path / "gpus.yaml").exists()
