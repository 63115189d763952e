"""How long vwm-sweep plan and status take for a sweep of 10,000 runs in all states, each with its folder on the disk.

Usage: python -m benchmarks.bench_ten_thousand_runs
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import yaml

from benchmarks.bench_startup import with_bytecode
from vwm.files import dump_yaml
from vwm.sweep.grid import read_sweep
from vwm.training.run_folder import Phase, RunFolder, RunState

COMMANDS = {
    "plan": ["plan", "large"],
    "status": ["status", "large"],
    "status of all sweeps": ["status"],
    "status --json": ["status", "large", "--json"],
    "cancel": ["cancel", "large"],
}
PHASES: tuple[Phase, ...] = ("finished", "stopped", "training", "failed")  # and every fifth run has not begun


def make_sweep(folder: Path) -> int:
    """A sweep of 10,000 runs in ``folder``/runs/large; returns how many runs it has."""
    sweep_file = folder / "large.yaml"
    grid = {
        "model_params.spike_noise_factor": {"linspace": [0.0, 1.0, 50]},
        "training_params.lambda_reg": {"geomspace": [1e-6, 1e-3, 10]},
        "training_params.error_def": ["rad", "l2"],
    }
    sweep_file.write_text(yaml.safe_dump({"name": "large", "base": {}, "grid": grid, "seeds": 10}))
    sweep = read_sweep(sweep_file)
    runs = folder / "runs" / "large"
    for index, run in enumerate(sweep.runs):
        if index % 5 == len(PHASES):
            continue
        phase = PHASES[index % 5]
        files = RunFolder(runs / run.run_id)
        files.path.mkdir(parents=True)
        files.config.write_text("")
        state = RunState(phase, index, 50_000, 1, time.time(), "host", 1, 12.5, 0.3)
        files.state.write_text(json.dumps(asdict(state)))
        files.lock.touch()
        if phase == "finished":
            files.result.write_text("{}")
    (runs / "sweep.yaml").write_text(dump_yaml(dict(sweep.resolved)))
    return len(sweep.runs)


def seconds(arguments: Sequence[str], folder: Path) -> float:
    """Wall-clock time of one vwm-sweep command, with the start of Python."""
    command = [sys.executable, "-c", "from vwm.cli.sweep import main; main()", *arguments]
    before = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env=with_bytecode(folder))
    return time.perf_counter() - before


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        before = time.perf_counter()
        count = make_sweep(folder)
        print(f"{count} runs made in {time.perf_counter() - before:.1f} s")
        for name, arguments in COMMANDS.items():
            seconds(arguments, folder)  # compiles the modules
            times = sorted(seconds(arguments, folder) for _ in range(5))
            print(f"{name:<22} median {times[2]:.2f} s, of {len(times)} from {times[0]:.2f} to {times[-1]:.2f} s")


if __name__ == "__main__":
    main()
