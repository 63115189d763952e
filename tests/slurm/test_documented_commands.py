"""The commands that the documentation shows for a cluster, run on one in the order of the page.

The networks of the sweep are made tiny, and the example's run id is replaced by one that is there. The drill
takes many minutes and is not run here.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import wait_until
from tests.slurm.cluster import Cluster
from tests.test_docs import ROOT, commands

pytestmark = pytest.mark.slow


def shrink(path: Path, **values: str) -> None:
    text = path.read_text()
    for name, value in values.items():
        text, count = re.subn(rf"\b{name}: [^,}}\n#]+", f"{name}: {value} ", text)
        assert count == 1, name
    path.write_text(text)


def test_the_commands_for_a_cluster_work(cluster: Cluster, tmp_path: Path):
    for folder in ("configs", "sweeps", "launch"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shrink(tmp_path / "configs" / "default.yaml", num_neurons="8", num_trials="16")
    shrink(tmp_path / "sweeps" / "noise_grid.yaml", num_iterations="20", seeds="1")
    jobs = tmp_path / "runs" / "noise_grid"
    path = f"{Path(sys.executable).parent}:{cluster.environment['PATH']}"
    shown = [line for line in commands(ROOT / "docs" / "slurm.md", "sh slurm") if "vwm-sweep drill" not in line]
    assert any("launch" in line for line in shown)
    for command in shown:
        if "3f2a" in command:
            wait_until(lambda: any(jobs.glob("*/state.json")))
            started = next(jobs.glob("*/state.json")).parent.name
            command = command.replace("3f2a", started)
        run = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env={**cluster.environment, "PATH": path, "USER": "root"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert run.returncode == 0, f"{command}\n{run.stdout}\n{run.stderr}"
