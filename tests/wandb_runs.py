"""What the tests of tracking and syncing share: runs killed at random moments, and the independent reader of logs."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.conftest import environment, wait_until
from tests.wandb_stub import WandbStub
from vwm.sweep.grid import Sweep
from vwm.training.mirror import flat, read_history
from vwm.training.offline_runs import logs
from vwm.training.run_folder import RunFolder

LONG: dict[str, object] = {
    "training_params__num_iterations": 240,
    "training_params__logging_period": 2,
    "training_params__early_stop_patience": 2000,
    # Some tens of milliseconds an iteration: the client, which takes seconds to start, is there before the end.
    "training_params__num_trials": 250,
}

WANDB = Path(sys.executable).with_name("wandb")


def train_and_kill(folder: RunFolder, moments: random.Random, **variables: str) -> None:
    """Start a run, and kill its process with SIGKILL when at most a third of its rows are written anew."""
    command = [sys.executable, "-m", "vwm", "train", str(folder.path)]
    rows = num_rows(folder) + moments.randint(10, 40)
    with subprocess.Popen(command, env=environment(**variables), stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: num_rows(folder) >= rows or process.poll() is not None)
        process.kill()


def num_rows(folder: RunFolder) -> int:
    return folder.history.read_bytes().count(b"\n") if folder.history.exists() else 0


def history_size(folder: RunFolder) -> int:
    return folder.history.stat().st_size if folder.history.exists() else 0


def history(folder: RunFolder) -> list[dict[str, Any]]:
    """The rows that W&B should have, in order, each once."""
    return [flat(row) for row in read_history(folder, 0, history_size(folder))]


def leet_records(log: Path, cwd: Path) -> list[dict[str, Any]]:
    """What W&B's own inspector finds in the log of an offline run."""
    shown = subprocess.run(
        [WANDB, "leet", "inspect", "--json", log],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in shown.stdout.splitlines()]


def leet_rows(folder: RunFolder, cwd: Path) -> list[dict[str, Any]]:
    """The rows of history in all offline runs of a run, in order, as W&B's own inspector finds them."""
    records = [record for log in logs(folder) for record in leet_records(log, cwd)]
    return [record["history"]["item"] for record in records if record["type"] == "history"]


def without_facts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without what differs between two trainings of one run: times, speed, memory and attempts."""
    of_attempts = {"attempt", "steps_per_second", "memory_mib", "gpu_memory_mib"}
    return [{k: v for k, v in row.items() if not k.startswith("_") and k not in of_attempts} for row in rows]


def assert_mirrored(stub: WandbStub, folder: Path, sweep: Sweep, rows: int) -> None:
    """The stub has every run of the sweep in ``folder``, every row once and in order, and its result."""
    assert set(stub.runs) == {run.run_id for run in sweep.runs}
    for run in sweep.runs:
        files, stored = RunFolder(folder / run.run_id), stub.runs[run.run_id]
        assert [row["_step"] for row in stored.rows] == list(range(rows))
        assert without_facts(stored.rows) == history(files)
        assert json.loads(stored.summary["result"]) == files.read_result()
        assert (stored.fields["group"], stored.fields["state"]) == (sweep.name, "finished")
