"""A folder with a sweep that is launched on the test cluster, as a user does it.

Where a test needs sbatch to fail, a script of that name stands first on the PATH and calls the real one.
"""

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from tests.slurm.cluster import Cluster
from tests.sweep_files import write_sweep
from vwm.sweep.grid import Sweep, read_sweep
from vwm.sweep.ledger import Ledger

NOISE = "model_params.spike_noise_factor"
ROOT = Path(__file__).parents[2]
PROFILE = {"where": "slurm", "gpus_per_node": 0, "cpus_per_process": 1, "timeout_min": 5}
HELD = {**PROFILE, "sbatch": {"hold": True}}

# A test whose sbatch never answers, or never reaches SLURM, shortens the waits that would be in vain; the others never
# wait so long. The launch writes down its own process id for scripts that kill it.
COMMAND = """
import os, sys
import vwm.sweep.doubt as doubt, vwm.sweep.submit as submit
submit.SBATCH_TIMEOUT_S = int(os.environ.get("SBATCH_TIMEOUT_S", 60))
doubt.DOUBT_S = float(os.environ.get("DOUBT_S", 60))
os.environ["LAUNCH_PID"] = str(os.getpid())
from vwm.cli.sweep import main
main()
"""


class Place:
    """A folder with a sweep, and the cluster to launch it on."""

    def __init__(self, path: Path, cluster: Cluster) -> None:
        self.path, self.cluster = path, cluster
        self.bin = path / "bin"
        self.bin.mkdir(parents=True)

    def sweep(self, profile: dict[str, Any] = HELD, **parts: Any) -> Sweep:
        (self.path / "profile.yaml").write_text(yaml.safe_dump(profile))
        return read_sweep(write_sweep(self.path, **{"grid": {NOISE: [0.1, 0.2]}, "launch": "profile.yaml", **parts}))

    def replace_sbatch(self, script: str) -> None:
        """Put a script before sbatch on the PATH; $REAL is the real one."""
        (self.bin / "sbatch").write_text(f"#!/bin/bash\nREAL={shutil.which('sbatch')}\n{script}\n")
        (self.bin / "sbatch").chmod(0o755)

    def restore_sbatch(self) -> None:
        (self.bin / "sbatch").unlink(missing_ok=True)

    def start(self, *arguments: str, command: str = COMMAND, **extra: str) -> "subprocess.Popen[str]":
        environment = {**self.cluster.environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **extra}
        environment["PATH"] = f"{self.bin}:{environment['PATH']}"
        return subprocess.Popen(
            [sys.executable, "-c", command, *arguments],
            cwd=self.path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, **extra: str) -> tuple[int, str]:
        process = self.start(*arguments, **extra)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output

    def launch(self, *arguments: str, **extra: str) -> tuple[int, str]:
        return self.run("launch", "tiny.yaml", *arguments, **extra)

    @property
    def folder(self) -> Path:
        return self.path / "runs" / "tiny"

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.folder / "ledger.jsonl")

    def queued(self) -> list[str]:
        """Every element in the queue, as SLURM names it."""
        return self.cluster.command("squeue", "--noheader", "--array", "--format=%i").split()

    def accepted(self) -> Counter[str]:
        """How often each run was given to SLURM: by the ledger's elements and the jobs that sacct and squeue know."""
        arrays = {name.split("_")[0] for name in self.queued()}
        lines = self.cluster.command("sacct", "-X", "-n", "-P", "--format=JobID,JobName").splitlines()
        ours = {job.name: job for job in self.ledger.jobs()}
        arrays |= {line.split("|")[0].split("_")[0] for line in lines if line.split("|")[1] in ours}
        by_id = {job.slurm_id: job for job in ours.values()}
        return Counter(run for array in arrays if array in by_id for run in by_id[array].runs)

    def assert_each_run_was_submitted_once(self, sweep: Sweep) -> None:
        assert self.accepted() == {run.run_id: 1 for run in sweep.runs}
        assert len(self.queued()) == sum(len(job.elements) for job in self.ledger.jobs() if job.slurm_id)
        unknown = {name.split("_")[0] for name in self.queued()} - {job.slurm_id for job in self.ledger.jobs()}
        assert not unknown
        for job in self.ledger.jobs():
            if job.slurm_id is not None:
                for index in range(len(job.elements)):
                    target = job.slurm_id if len(job.elements) == 1 else f"{job.slurm_id}_{index}"
                    assert (self.folder / "jobs" / f"{target}_submitted.pkl").exists()
