"""How long launch takes to submit a sweep of 10,000 runs, beside plan and status, and how many files it makes a run.

SLURM's commands are scripts here that answer at once, so that what is measured is this project's and submitit's part.

Usage: python -m benchmarks.bench_slurm_launch [RUNS]
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from benchmarks.bench_startup import with_bytecode

SCRIPTS = {
    "sbatch": """n=$(cat "$STATE/id" 2>/dev/null || echo 0); echo $((n + 1)) > "$STATE/id"
case "$*" in *--test-only*) exit 0;; esac
echo "Submitted batch job $((n + 1))" """,
    "squeue": "exit 0",
    "sacct": "exit 0",
    "srun": "exit 0",
    "scontrol": 'echo "MaxArraySize = 1001"; echo "MaxJobCount = 100000"',
    "sacctmgr": "exit 1",
}


def timed(arguments: list[str], folder: Path, environment: dict[str, str]) -> float:
    """Wall-clock time of one vwm-sweep command, with the start of Python."""
    command = [sys.executable, "-c", "from vwm.cli.sweep import main; main()", *arguments]
    before = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - before


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "bin").mkdir()
        for name, script in SCRIPTS.items():
            (folder / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / "bin" / name).chmod(0o755)
        path = f"{folder / 'bin'}:{os.environ['PATH']}"
        environment = {**with_bytecode(folder), "PATH": path, "STATE": str(folder)}
        grid = {"model_params.spike_noise_factor": {"linspace": [0.0, 1.0, 50]}}
        (folder / "large.yaml").write_text(
            yaml.safe_dump({"name": "large", "base": {}, "grid": grid, "seeds": count // 50})
        )
        for runs_per_job in (1, 16):
            profile = {"where": "slurm", "runs_per_job": runs_per_job}
            (folder / "slurm.yaml").write_text(yaml.safe_dump(profile))
            runs = f"runs-{runs_per_job}"
            rest = ["large.yaml", "--runs", runs]
            print(f"{count} runs, {runs_per_job} a job")
            for name, arguments in (
                ("plan", ["plan", *rest, "--on", "slurm.yaml"]),
                ("launch", ["launch", *rest, "--on", "slurm.yaml"]),
                ("status", ["status", "large", "--runs", runs]),
            ):
                print(f"  {name:<8} {timed(arguments, folder, environment):6.2f} s")
            files = sum(len(names) for _, _, names in os.walk(folder / runs))
            print(f"  {files} files, {files / count:.2f} a run")


if __name__ == "__main__":
    main()
