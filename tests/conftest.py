"""What several tests share: a configuration that trains in a second, and ways to run the commands for real."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TINY: dict[str, dict[str, Any]] = {
    "model_params": {
        "max_item_num": 3,
        "item_num": [1, 2, 3],
        "num_neurons": 16,
        "dt": 20,
        "tau_min": 40,
        "tau_max": 200,
        "spike_noise_factor": 0.2,
        "T_init": 20,
        "T_stimi": 60,
        "T_delay": 60,
        "T_decode": 60,
    },
    "training_params": {
        "num_iterations": 60,
        "eta": 1e-3,
        "num_trials": 24,
        "logging_period": 7,
        "adaptive_lr_patience": 10,
    },
}


def environment(**extra: str) -> dict[str, str]:
    """The environment of a command under test: one thread, warnings as errors like in this process."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", **extra}


def python(*arguments: object, cwd: Path, timeout: float = 300, **extra: str) -> "subprocess.CompletedProcess[str]":
    """Run Python on these arguments to its end and give back its exit code and output."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture
def tiny_config(tmp_path: Path) -> Path:
    """A file that holds the tiny configuration."""
    import yaml

    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path
