"""A job whose runs' folders are damaged: what can be trained is trained, and the rest is told without a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import environment, make_run, python
from vwm.training.run_folder import RunFolder

CALL_AS_SLURM = "import sys; from vwm.sweep.slurm_job import TrainOnNodes; TrainOnNodes(sys.argv[1:], 1, 3, 10, 60)()"


@pytest.mark.parametrize("damage", ["{", '{"phase": "training"}', '{"iteration": 1}', "[1]"])
def test_a_damaged_state_is_told_and_the_others_of_the_pack_are_trained(tmp_path: Path, damage: str):
    damaged, whole = (RunFolder(make_run(tmp_path / name)) for name in ("damaged", "whole"))
    damaged.state.write_text(damage)
    whole.result.write_text("{}")  # It is finished, so that nothing takes time here.
    job = python("-m", "vwm.sweep.job", damaged.path, whole.path, cwd=tmp_path)
    assert job.returncode == 1
    assert f"delete it to go on: {damaged.state}" in job.stdout
    assert "whole is finished" in job.stdout
    assert "Traceback" not in job.stdout + job.stderr
    assert damaged.state.read_text() == damage


def test_a_job_of_slurm_tells_it_too(tmp_path: Path):
    damaged = RunFolder(make_run(tmp_path / "damaged"))
    damaged.state.write_text("{")
    kept = {name: value for name, value in environment().items() if not name.startswith("SLURM_")}
    job = subprocess.run(
        [sys.executable, "-c", CALL_AS_SLURM, str(damaged.path)],
        cwd=tmp_path,
        env={**kept, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert job.returncode == 1
    assert f"delete it to go on: {damaged.state}" in job.stdout
    assert "Traceback" not in job.stdout + job.stderr
