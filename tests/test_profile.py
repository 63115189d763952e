"""Launch profiles: those that are shipped, what is refused, and how one is chosen."""

from pathlib import Path

import pytest

from vwm.config_file import InvalidInput
from vwm.sweep.profile import LocalProfile, SlurmProfile, choose_profile, read_profile
from vwm.sweep.sbatch_options import OWN, SBATCH_OPTIONS

LAUNCH = Path(__file__).parent.parent / "launch"


def written(folder: Path, text: str) -> Path:
    path = folder / "profile.yaml"
    path.write_text(text)
    return path


def test_the_generic_profile_names_every_key_at_its_default() -> None:
    assert read_profile(LAUNCH / "slurm.yaml") == SlurmProfile()
    lines = (LAUNCH / "slurm.yaml").read_text().splitlines()
    for key in SlurmProfile.model_fields:
        assert len([line for line in lines if line.startswith(f"{key}:")]) == 1, key


def test_the_other_shipped_profiles_are_what_their_names_say() -> None:
    multinode, packed = (read_profile(LAUNCH / f"slurm-{name}.yaml") for name in ("multinode", "packed"))
    assert isinstance(multinode, SlurmProfile)
    assert (multinode.nodes, multinode.processes_per_node, multinode.gpus) == (3, 2, 6)
    assert multinode.options()["cpus-per-task"] == 4
    assert isinstance(packed, SlurmProfile)
    assert packed.runs_per_job == "auto"


def test_options_are_slurms_own_names_without_what_was_not_given() -> None:
    profile = SlurmProfile(partition="gpu,long", mem_gb=1.5, gpus_per_node=0, sbatch={"hold": True, "nice": 100})
    assert profile.options() == {
        "nodes": 1,
        "ntasks-per-node": 1,
        "cpus-per-task": 2,
        "mem": "1536M",
        "time": 240,
        "requeue": True,
        "partition": "gpu,long",
        "hold": True,
        "nice": 100,
    }


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [("gpu", 2), ("gpu:2", 4), ("gpu:a100", 2), ("gpu:a100:3", 6), ("fast:1,gpu:a100:2(S:0)", 4), ("license:3", 0)],
)
def test_gpus_are_counted_in_a_gres_too(gres: str, gpus: int) -> None:
    assert SlurmProfile(nodes=2, gres=gres, gpus_per_node=0).gpus == gpus


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gress: gpu:1", "did you mean 'gres'?"),
        ("nodes: 0", "a whole number from 1 on"),
        ("nodes: true", "a whole number from 1 on"),
        ("mem_gb: .inf", "gigabytes above 0, or null"),
        ("partition: 3", "text on one line, or null"),
        ('partition: "gpu\\n#SBATCH --uid=0"', "text on one line, or null"),
        ("setup: module load cuda", "a list of lines for bash"),
        ("environment: {A: true}", "each with a text or a number"),
        ("environment: {1A: x}", "the name of a variable"),
        ("timeout_min: 2", "lower it or raise timeout_min"),
        ("gres: gpu:a100:1", "write gpus_per_node: 0"),
        ("sbatch: {time: 3}", "use timeout_min:"),
        ("sbatch: {reservatoin: x}", "did you mean 'reservation'?"),
        ("sbatch: {hold: false}", "text on one line, a number, or true"),
        ('sbatch: {comment: "a\\nb"}', "text on one line, a number, or true"),
    ],
)
def test_a_wrong_key_of_a_slurm_profile_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        read_profile(written(tmp_path, f"where: slurm\n{text}\n"))
    assert message in str(refusal.value)
    assert "profile.yaml:2: " in str(refusal.value) or text == "timeout_min: 2"  # its partner stands nowhere


def test_a_key_of_slurms_in_a_local_profile_is_told_to_say_slurm(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="add the line where: slurm"):
        read_profile(written(tmp_path, "partition: gpu\n"))


def test_no_option_is_both_ours_and_passed_through() -> None:
    assert OWN.keys() & SBATCH_OPTIONS == set()


def test_the_named_profile_decides_and_otherwise_whether_there_is_an_sbatch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    local, slurm = LAUNCH / "local.yaml", LAUNCH / "slurm.yaml"
    assert choose_profile(slurm, local)[0] == SlurmProfile()
    assert choose_profile(None, slurm)[0] == SlurmProfile()
    profile, origin = choose_profile(None, None)
    assert profile == LocalProfile()
    assert "no sbatch" in origin

    (tmp_path / "sbatch").write_text("#!/bin/sh\n")
    (tmp_path / "sbatch").chmod(0o755)
    profile, origin = choose_profile(None, None)
    assert profile == SlurmProfile()
    assert "there is an sbatch" in origin
    assert choose_profile(None, local)[0] == LocalProfile()
