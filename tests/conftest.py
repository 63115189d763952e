"""What several tests share: a configuration that trains in a second, and ways to run the commands for real."""

import copy
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from xdist.scheduler import LoadScopeScheduling

from vwm.config_file import set_value

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

# Hundreds of processes start in these tests, and each would compile the package again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A second of start-up for each of the many tiny runs; the tests of tracking ask for it.
os.environ["WANDB_MODE"] = "disabled"

# The files whose bytes are a function of the configuration alone, however a run came to its end.
EXACT_FILES = ("checkpoint.pt", "history.jsonl", "responses.npz", "result.json")


# Each worker has a cluster of its own, on which its tests wait while those of other workers go on.
if "PYTEST_XDIST_WORKER" in os.environ:
    _folder = os.environ.get("VWM_SLURM_DIR", "/tmp/vwm-slurm")
    os.environ["VWM_SLURM_DIR"] = f"{_folder}-{os.environ['PYTEST_XDIST_WORKER']}"


class FilesInOneWorker(LoadScopeScheduling):
    """Each file of tests on one worker, which makes its fixtures once, and those with a cluster on few.

    A cluster takes seconds to come up, so that there are two shares of about equal length, and the drill.
    """

    ONE_SHARE = ("test_chaos.py", "test_tracking.py", "test_status.py", "test_unwilling_cluster.py", "test_analyses.py")

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        folder, _, name = file.rpartition("/")
        if folder != "tests/slurm" or name == "test_drill.py":
            return file
        return "slurm, one share" if name in self.ONE_SHARE else "slurm, the other"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FilesInOneWorker:
    """The hook by which pytest-xdist asks how to share out the tests."""
    return FilesInOneWorker(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, those with a cluster before all, so that no worker is left with a long one."""
    are_slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path.parent.name != "slurm", item.path not in are_slow))


def tiny(**changes: object) -> dict[str, Any]:
    """The tiny configuration with some fields changed, sections written with two underscores: model_params__dt=10."""
    content = copy.deepcopy(TINY)
    for name, value in changes.items():
        set_value(content, name.replace("__", "."), value)
    return content


def write_config(path: Path, **changes: object) -> Path:
    """A configuration file at ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(tiny(**changes)))
    return path


def make_run(folder: Path, **changes: object) -> Path:
    """A run's folder with the tiny configuration, not started."""
    write_config(folder / "config.yaml", **changes)
    return folder


def differing_files(first: Path, second: Path) -> list[str]:
    """Which of the exact files differ by a byte between two runs' folders."""
    return [name for name in EXACT_FILES if (first / name).read_bytes() != (second / name).read_bytes()]


def environment(**extra: str) -> dict[str, str]:
    """The environment of a command under test."""
    return {**os.environ, "OMP_NUM_THREADS": "1", **extra}


def python(*arguments: object, cwd: Path, timeout: float = 600, **extra: str) -> "subprocess.CompletedProcess[str]":
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


def wait_until(condition: Callable[[], bool], timeout: float = 300) -> None:
    """Return once the condition holds; fail the test if it does not come true in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail("the condition waited for did not come true")
        time.sleep(0.02)
