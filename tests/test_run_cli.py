from pathlib import Path

import pytest
import yaml

from tests.conftest import EXACT_FILES, make_run, python, write_config
from vwm.config import load_configuration


def vwm(*arguments: object, cwd: Path):
    return python("-m", "vwm", *arguments, cwd=cwd)


def test_config_prints_what_a_file_stands_for_as_a_file(tmp_path: Path):
    file = write_config(tmp_path / "my config.yaml")
    shown = vwm("config", file, "--set", "model_params.spike_noise_factor=0.3", cwd=tmp_path)
    assert shown.returncode == 0
    assert "Fano factor  0.09" in shown.stdout
    assert "steps        10 of 20 ms, the last 3 are read out" in shown.stdout
    (tmp_path / "again.yaml").write_text(shown.stdout)
    configuration, _ = load_configuration(tmp_path / "again.yaml")
    assert f"run id       {configuration.run_id}" in shown.stdout
    assert configuration.name in shown.stdout
    assert configuration.model_params.spike_noise_factor == 0.3


def test_train_evaluate_and_train_again(tmp_path: Path):
    file = write_config(tmp_path / "tiny.yaml", model_params__cuda_device=0)
    trained = vwm("train", file, "--set", "training_params.num_iterations=20", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "cuda_device is ignored" in trained.stderr
    configuration, _ = load_configuration(file, ["training_params.num_iterations=20"])
    folder = tmp_path / "runs" / "single" / configuration.run_id
    assert f"in runs/single/{configuration.run_id}" in trained.stdout
    before = {name: (folder / name).read_bytes() for name in EXACT_FILES}

    evaluated = vwm("evaluate", folder, cwd=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    assert "mean |error| (rad)" in evaluated.stdout
    again = vwm("train", file, "--set", "training_params.num_iterations=20", cwd=tmp_path)
    assert again.returncode == 0
    assert "after 20 iterations" in again.stdout
    assert before == {name: (folder / name).read_bytes() for name in EXACT_FILES}


def test_a_folder_of_another_run_is_refused_and_left_as_it_is(tmp_path: Path):
    file = write_config(tmp_path / "tiny.yaml")
    folder = make_run(tmp_path / "there", training_params__seed=4)
    before = sorted(path.name for path in folder.iterdir())
    refused = vwm("train", file, "--out", folder, cwd=tmp_path)
    assert refused.returncode == 2
    assert "this folder holds run" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert sorted(path.name for path in folder.iterdir()) == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    refused = vwm("train", file, "--out", tmp_path / "full", cwd=tmp_path)
    assert refused.returncode == 2
    assert "it is not empty" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "missing.yaml"], "there is no such file"),
        (["train", "folder"], "expected a run's folder, which holds config.yaml"),
        (["train", "run", "--set", "training_params.eta=1"], "go with a configuration file"),
        (["train", "a.yaml", "b.yaml"], "one configuration file"),
        (["evaluate", "folder"], "expected a run's folder"),
        (["evaluate", "run"], "there is no checkpoint yet"),
        (["config", "missing.yaml"], "there is no such file"),
    ],
)
def test_mistakes_are_told_without_a_traceback(tmp_path: Path, arguments: list[str], expected: str):
    (tmp_path / "folder").mkdir()
    make_run(tmp_path / "run")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    refused = vwm(*arguments, cwd=tmp_path)
    assert refused.returncode == 2
    assert expected in refused.stderr
    assert "Traceback" not in refused.stderr
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_a_failed_run_leaves_with_code_1_and_its_reason(tmp_path: Path):
    file = write_config(tmp_path / "bad.yaml", training_params__eta=1e20, training_params__error_def="l2")
    failed = vwm("train", file, "--out", "out", cwd=tmp_path)
    assert failed.returncode == 1
    assert "not finite" in failed.stdout
    assert "Traceback" not in failed.stderr


def test_an_unfinished_run_is_evaluated_without_writing_a_result(tmp_path: Path):
    folder = make_run(tmp_path / "run", training_params__num_iterations=30)
    (folder / "stop").write_text("preempted")
    assert python("-m", "vwm", "train", folder, cwd=tmp_path, VWM_JOB="1").returncode == 130
    evaluated = vwm("evaluate", folder, cwd=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    assert "after 1 iterations" in evaluated.stdout
    assert not (folder / "result.json").exists()
    assert yaml.safe_load((folder / "config.yaml").read_text())["training_params"]["num_iterations"] == 30
