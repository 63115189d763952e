"""The script that sbatch gets from every shipped profile, compared as a whole with a file in tests/golden."""

import sys
from pathlib import Path

import pytest

from vwm.sweep.profile import SlurmProfile, read_profile
from vwm.sweep.submit import make_executor

LAUNCH = Path(__file__).parent.parent / "launch"
GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", ["slurm", "slurm-multinode", "slurm-packed"])
def test_the_script_of_a_shipped_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(sys, "executable", "/home/me/vwm/.venv/bin/python")
    profile = read_profile(LAUNCH / f"{name}.yaml")
    assert isinstance(profile, SlurmProfile)
    place = tmp_path / "runs" / "grid"
    executor = make_executor(place, profile, "grid-1a2b3c4d-0", 20, 8, [], place / "code" / "0123456789abcdef")

    text = executor._make_submission_file_text(executor._submitit_command_str, "unused")

    assert text.replace(str(tmp_path), "/home/me/vwm") == (GOLDEN / f"{name}.sh").read_text()
