import json
import re
from pathlib import Path

import pytest
import yaml

from tests.conftest import tiny
from vwm.config import Configuration
from vwm.config_file import InvalidInput, field_names, load_configuration, validate
from vwm.errors import UserError

CONFIGS = Path(__file__).parents[1] / "configs"


def place(path: object) -> str:
    return "test"


def test_defaults_are_the_published_ones():
    content = Configuration().model_dump()
    assert content["model_params"] == {
        "max_item_num": 10,
        "item_num": tuple(range(1, 11)),
        "num_neurons": 256,
        "dt": 10,
        "tau_min": 50,
        "tau_max": 300,
        "spike_noise_factor": 0.05,
        "spike_noise_type": "gamma",
        "gamma_sampler": "auto",
        "positive_input": True,
        "input_strength": 120,
        "saturation_firing_rate": 60,
        "dales_law": True,
        "ILC_noise": 0.01,
        "T_init": 20,
        "T_stimi": 500,
        "T_delay": 1000,
        "T_decode": 500,
    }
    training = content["training_params"]
    assert (training["num_iterations"], training["eta"], training["num_trials"]) == (50000, 1e-4, 512)
    assert (training["lambda_reg"], training["lambda_err"]) == (1e-5, 1.0)
    assert (training["early_stop_patience"], training["adaptive_lr_patience"]) == (600, 400)
    assert content["fpf_params"]["fpf_hps"]["outlier_distance_scale"] == 10


def test_the_automatic_name():
    assert Configuration().name == "EasyTask1_n256item10PI1gamma0.05rad"
    other = validate(
        {
            "model_params": {"positive_input": False, "spike_noise_factor": 0.2, "num_neurons": 64},
            "training_params": {"error_def": "l2"},
            "model_and_logging_params": {"rnn_name": "X"},
        },
        place,
    )
    assert other.name == "X_n64item10PI0gamma0.2l2"


def test_default_yaml_documents_every_field_and_changes_none():
    text = (CONFIGS / "default.yaml").read_text()
    configuration, notes = load_configuration(CONFIGS / "default.yaml")
    assert configuration == Configuration()
    assert notes == []
    for name in field_names():
        last = name.rsplit(".", 1)[-1]
        assert len(re.findall(rf"^ +{last}:", text, re.MULTILINE)) == 1, f"{name} does not stand there once"
    # Each line of a field carries its comment; the switches of the analyses share one.
    for line in text.splitlines():
        if re.match(r"^ +\w+:", line) and not re.match(r"^  \w+_bool: ", line):
            assert "#" in line, f"no comment: {line}"


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.name)
def test_every_shipped_configuration_loads(file: Path):
    load_configuration(file)


def test_the_resolved_file_is_the_same_run(tmp_path: Path):
    original = validate(tiny(training_params__eta=1.2345678901234567e-4), place)
    (tmp_path / "config.yaml").write_text(original.to_yaml())
    again, _ = load_configuration(tmp_path / "config.yaml")
    assert again == original
    assert again.run_id == original.run_id


def test_yaml_and_json_of_the_published_layout_load_alike(tmp_path: Path):
    content = {
        "model_params": {"num_neurons": 64, "item_num": [1, 2], "max_item_num": 2, "cuda_device": 1},
        "training_params": {"eta": 1e-3, "num_iterations": 2e4, "load_history": True, "use_scripted_model": True},
        "model_and_logging_params": {"rnn_name": "Old", "cuda_device": 0},
        "fpf_params": {"fpf_names": ["fpf_delay"], "fpf_hps": {"max_iters": 10}},
    }
    (tmp_path / "a.json").write_text(json.dumps(content, indent="\t"))
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(content) + "\n")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content).replace("0.001", "1e-3").replace("20000.0", "2e4"))
    loaded = [load_configuration(tmp_path / name) for name in ("a.json", "b.yaml", "c.yaml")]
    assert loaded[0][0] == loaded[1][0] == loaded[2][0]
    assert loaded[0][0].training_params.num_iterations == 20000
    for _, notes in loaded:
        assert sum("cuda_device is ignored" in note for note in notes) == 2
        assert sum("has no effect" in note for note in notes) == 2
    assert any(note.startswith(f"{tmp_path}/a.json:") for note in loaded[0][1])


def test_an_empty_file_and_empty_sections_are_the_defaults(tmp_path: Path):
    for text in ("", "# nothing\n", "model_params:\ntraining_params: {}\n"):
        (tmp_path / "config.yaml").write_text(text)
        assert load_configuration(tmp_path / "config.yaml")[0] == Configuration()


def test_the_id_is_of_everything_that_can_change_the_result_and_of_nothing_else():
    base = Configuration()
    unlike = {
        "model_params.spike_noise_factor": 0.1,
        "model_params.item_num": [1, 2],
        "training_params.seed": 1,
        "training_params.logging_period": 10,
    }
    alike = {
        "model_and_logging_params.rnn_name": "Other",
        "model_and_logging_params.snr_analy_bool": True,
        "fpf_params.fpf_bool": True,
        "training_params.keep_every": 100,
        "training_params.load_history": True,
        "model_params.dt": 10,  # the same number, written as a whole one
    }
    for name, value in {**unlike, **alike}.items():
        section, field = name.split(".")
        changed = validate({section: {field: value}}, place)
        assert (changed.run_id == base.run_id) is (name in alike), name
    # Pinned: an id that moves between versions would make every finished run new.
    assert base.run_id == "63764ccb7ccc"


def test_settings_change_fields_and_say_what_is_wrong_with_them(tmp_path: Path):
    (tmp_path / "c.yaml").write_text("training_params: {eta: 1e-3}\n")
    configuration, _ = load_configuration(
        tmp_path / "c.yaml",
        ["training_params.eta=1e-2", "model_params.item_num=[1, 3]", "model_and_logging_params.rnn_name=a=b"],
    )
    assert configuration.training_params.eta == 1e-2
    assert configuration.model_params.item_num == (1, 3)
    assert configuration.model_and_logging_params.rnn_name == "a=b"
    for setting, expected in {
        "eta=1": "did you mean 'training_params.eta'?",
        "training_params.etta=1": "did you mean 'training_params.eta'?",
        "training_params.eta": "NAME=VALUE",
        "training_params.eta=fast": "a number",
        "training_params.eta=[": "a value as it stands in YAML",
        "model_params.T_delay=995": "a multiple of dt",
    }.items():
        with pytest.raises(InvalidInput) as refused:
            load_configuration(tmp_path / "c.yaml", [setting])
        assert expected in str(refused.value)
        assert f"--set {setting}" in str(refused.value)


def test_files_that_cannot_be_read(tmp_path: Path):
    (tmp_path / "default.yaml").touch()
    with pytest.raises(UserError, match=r"no such file. Did you mean 'default.yaml'\?"):
        load_configuration(tmp_path / "defualt.yaml")
    with pytest.raises(UserError, match="this is a folder"):
        load_configuration(tmp_path)
    with pytest.raises(UserError, match="Nor is there a folder"):
        load_configuration(tmp_path / "nowhere" / "x.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read"):
        load_configuration(tmp_path / "binary.yaml")
    (tmp_path / "unsafe.yaml").write_text("model_params: !!python/object/apply:os.system ['touch sprung']\n")
    with pytest.raises(UserError, match="no valid YAML"):
        load_configuration(tmp_path / "unsafe.yaml")
