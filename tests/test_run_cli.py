import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from tests.conftest import EXACT_FILES, differing_files, make_run, python, tiny, write_config
from vwm.analysis.names import QUESTIONS, switched_on
from vwm.config import Configuration
from vwm.config_file import load_configuration


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_analyse_a_run(tmp_path: Path):
    file = write_config(tmp_path / "tiny.yaml", training_params__num_iterations=20)
    with file.open("a") as handle:
        handle.write("fpf_params: {fpf_trials: 3, fpf_N_init: 2}\n")
    folder = tmp_path / "my run"
    make_run(folder)
    refused = vwm("analyse", folder, cwd=tmp_path)
    assert refused.returncode == 2
    assert "there is no checkpoint yet" in refused.stderr
    (folder / "config.yaml").write_text(file.read_text())
    assert vwm("train", folder, cwd=tmp_path).returncode == 0
    before = {name: (folder / name).read_bytes() for name in EXACT_FILES}

    refused = vwm("analyse", folder, "--only", "fixed_point", cwd=tmp_path)
    assert refused.returncode == 2
    assert "did you mean 'fixed_points'?" in refused.stderr
    assert not (folder / "analysis").exists()
    done = vwm("analyse", folder, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in QUESTIONS:
        content = yaml.safe_load((folder / "analysis" / f"{name}.yaml").read_text())
        assert content["run_id"] in (folder / "result.json").read_text()
    assert before == {name: (folder / name).read_bytes() for name in EXACT_FILES}

    (folder / "responses.npz").unlink()
    refused = vwm("analyse", folder, "--only", "error_distribution", cwd=tmp_path)
    assert refused.returncode == 2
    assert "Train the run to its end" in refused.stderr


@pytest.mark.parametrize(
    ("switch", "name"),
    [
        ("model_and_logging_params__error_dist_bool", "error_distribution"),
        ("model_and_logging_params__fit_mixture_bool", "error_distribution"),
        ("model_and_logging_params__snr_analy_bool", "signal_to_noise"),
        ("model_and_logging_params__mixed_selec_bool", "mixed_selectivity"),
        ("model_and_logging_params__plot_weights_bool", "weights"),
        ("fpf_params__fpf_bool", "fixed_points"),
    ],
)
def test_each_switch_asks_for_its_analysis(switch: str, name: str):
    assert switched_on(Configuration.model_validate(tiny(**{switch: True}))) == [name]
    assert switched_on(Configuration.model_validate(tiny())) == []


@pytest.mark.slow
def test_analyses_that_the_configuration_switches_on_follow_training(tmp_path: Path):
    """They change none of the exact files, and are done once."""
    plain, asked = tmp_path / "plain", tmp_path / "asked"
    make_run(plain, training_params__num_iterations=20)
    switches = {"model_and_logging_params__plot_weights_bool": True, "model_and_logging_params__fit_mixture_bool": True}
    make_run(asked, training_params__num_iterations=20, **switches)
    for folder in (plain, asked):
        done = vwm("train", folder, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert differing_files(plain, asked) == []
    assert not (plain / "analysis").exists()
    assert sorted(path.stem for path in (asked / "analysis").glob("*.yaml")) == ["error_distribution", "weights"]

    again = vwm("train", asked, cwd=tmp_path)
    assert again.returncode == 0
    assert "files beside it" not in again.stdout
    (asked / "analysis" / "weights.columns.json").write_text("{")
    again = vwm("train", asked, cwd=tmp_path)
    assert again.stdout.count("files beside it") == 1
    assert "weights: " in again.stdout


@pytest.mark.slow
def test_the_first_of_two_processes_analyses_alone(tmp_path: Path):
    run = make_run(
        tmp_path / "run", training_params__num_iterations=5, model_and_logging_params__plot_weights_bool=True
    )
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    ended = python(*launcher, "-m", "vwm", "train", run, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("weights: ") == 1
    assert (run / "analysis" / "weights.columns.json").exists()


@pytest.mark.slow
def test_an_analysis_after_training_that_is_refused_leaves_the_run_finished(tmp_path: Path):
    folder = make_run(
        tmp_path / "run",
        training_params__num_iterations=5,
        model_params__item_num=[1],
        model_and_logging_params__mixed_selec_bool=True,
    )
    done = vwm("train", folder, cwd=tmp_path)
    assert done.returncode == 0
    assert "Not analysed: mixed_selectivity: this network was trained with item_num [1]" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_responses_to_set_sizes_that_were_not_trained_are_refused(tmp_path: Path):
    folder = make_run(tmp_path / "run", training_params__num_iterations=5)
    assert vwm("train", folder, cwd=tmp_path).returncode == 0
    with np.load(folder / "responses.npz") as arrays:
        some = arrays["set_size"] < 3
        np.savez(folder / "responses.npz", **{name: values[some] for name, values in arrays.items()})
    refused = vwm("analyse", folder, "--only", "normalisation", cwd=tmp_path)
    assert refused.returncode == 2
    assert "set sizes [1, 2], but this network was trained with item_num [1, 2, 3]" in refused.stderr


@pytest.mark.slow
def test_analyses_along_kept_checkpoints(tmp_path: Path):
    folder = make_run(tmp_path / "my run", training_params__num_iterations=20, training_params__keep_every=8)
    refused = vwm("analyse", folder, "--over-training", cwd=tmp_path)
    assert refused.returncode == 2
    assert "there is no checkpoint yet" in refused.stderr
    assert vwm("train", folder, cwd=tmp_path).returncode == 0
    names = ("--only", "weights", "--only", "normalisation")
    done = vwm("analyse", folder, "--over-training", *names, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(folder / "analysis" / "over_training.csv")
    assert sorted(table["iteration"].unique()) == [0, 8, 16, 20]
    # The last of them are the numbers of the run as it is, and the first those of a network that was not trained.
    assert vwm("analyse", folder, *names, cwd=tmp_path).returncode == 0
    for name, column, sizes in (("weights", "spectral_radius", [0]), ("normalisation", "weight_sum_delay", [2, 3])):
        now = json.loads((folder / "analysis" / f"{name}.columns.json").read_text())
        rows = table[table["column"] == column]
        assert sorted(rows["set_size"].unique()) == sizes
        values = now["columns"][column]["values"]
        expected = [values[str(n)] for n in sizes] if isinstance(values, dict) else [values]
        assert rows.loc[rows["iteration"] == 20, "value"].tolist() == pytest.approx(expected)
        assert rows.loc[rows["iteration"] == 0, "value"].tolist() != pytest.approx(expected, rel=1e-6)
    meanings = yaml.safe_load((folder / "analysis" / "over_training.yaml").read_text())
    assert set(meanings["columns"]) == set(table["column"])
    for name in ("weights", "normalisation"):
        assert (folder / "analysis" / f"over_training_{name}.png").exists()

    shutil.rmtree(folder / "checkpoints")
    refused = vwm("analyse", folder, "--over-training", cwd=tmp_path)
    assert refused.returncode == 2
    assert "no numbered checkpoints were kept" in refused.stderr
