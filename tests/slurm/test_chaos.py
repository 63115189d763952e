"""Two hundred runs in packs on four nodes, while jobs are preempted and requeued and nodes are killed at random."""

import csv
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.conftest import differing_files, environment, tiny, wait_until
from tests.slurm.cluster import Cluster
from tests.slurm.processes import Failed
from vwm.config_file import load_configuration
from vwm.sweep.grid import read_sweep
from vwm.training.run_folder import RunFolder, prepare_run_folder

pytestmark = pytest.mark.slow

FAULTS = 50
SWEEP = {
    "name": "chaos",
    "base": tiny(training_params__num_iterations=80, training_params__logging_period=4),
    "grid": {
        "model_params.spike_noise_factor": [0.0, 0.1, 0.2, 0.3],
        "training_params.error_def": ["rad", "l2"],
    },
    "seeds": 25,
}
PROFILE = {
    "where": "slurm",
    "partition": "preempt",
    "gpus_per_node": 0,
    "cpus_per_process": 4,  # one job a node: more would start so slowly that most of them met a fault before they train
    "runs_per_job": 10,
    "timeout_min": 30,
    "signal_delay_s": 20,
    "max_requeues": 1000,
}


def vwm_sweep(*arguments: str, cluster: Cluster, cwd: Path) -> str:
    command = [str(Path(sys.executable).with_name("vwm-sweep")), *arguments]
    done = subprocess.run(
        command, cwd=cwd, env=cluster.environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Faults:
    """Faults at random moments, of random kinds, on what runs at the moment; the same in every test for one seed."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster = cluster
        self.random = random.Random(seed)
        self.counts = {"preempt": 0, "requeue": 0, "node": 0}
        self.down: dict[str, float] = {}  # killed nodes, and when they are to come back

    def strike(self) -> None:
        self.mend()
        running = self.cluster.command("squeue", "-h", "-p", "preempt", "-t", "RUNNING", "-o", "%i %N").splitlines()
        if not running:
            return
        kind = self.random.choices(list(self.counts), weights=[4, 4, 2])[0]
        job, node = self.random.choice(sorted(running)).split()
        try:
            if kind == "preempt":
                where = ("--partition=main", f"--nodelist={node}", "--exclusive", "--output=/dev/null")
                self.cluster.command("sbatch", *where, "--wrap=true")
            elif kind == "requeue":
                self.cluster.command("scontrol", "requeue", job)
            elif not self.down:
                self.cluster.kill_node(node)
                self.down[node] = time.monotonic() + 12
            else:
                return
        except Failed:
            return  # The job has left, or its node is down: that was no fault.
        self.counts[kind] += 1

    def mend(self, now: bool = False) -> None:
        for node, back in list(self.down.items()):
            if now or time.monotonic() > back:
                self.cluster.start_node(node)
                del self.down[node]


def test_two_hundred_runs_survive_fifty_faults(cluster: Cluster, tmp_path: Path):
    (tmp_path / "chaos.yaml").write_text(yaml.safe_dump(SWEEP))
    (tmp_path / "profile.yaml").write_text(yaml.safe_dump(PROFILE))
    sweep = read_sweep(tmp_path / "chaos.yaml")
    assert len(sweep.runs) == 200

    vwm_sweep("launch", "chaos.yaml", "--on", "profile.yaml", cluster=cluster, cwd=tmp_path)
    runs = [RunFolder(tmp_path / "runs" / "chaos" / run.run_id) for run in sweep.runs]
    # The undisturbed sweep is trained meanwhile, as one pack in one process.
    (tmp_path / "undisturbed" / "chaos").mkdir(parents=True)
    calm = [
        prepare_run_folder(tmp_path / "undisturbed" / "chaos" / run.run_id, run.configuration) for run in sweep.runs
    ]
    command = [sys.executable, "-m", "vwm", "train", *(str(run.path) for run in calm)]
    # In a session of its own it has as much of the processor as a job of the cluster, not what the tests leave.
    with subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, start_new_session=True) as undisturbed:
        faults = Faults(cluster, seed=11)
        trained, since = 0, time.monotonic()
        while not all(run.is_finished() for run in runs):
            finished = sum(run.is_finished() for run in runs)
            now = sum(run.history.stat().st_size for run in runs if run.history.exists()) + finished
            if now != trained:
                trained, since = now, time.monotonic()
            assert time.monotonic() - since < 300, f"{finished} of 200 finished, and nothing moves: {faults.counts}"
            time.sleep(faults.random.uniform(1.0, 3.5))
            if sum(faults.counts.values()) < FAULTS + 2 or min(faults.counts.values()) < 5:
                faults.strike()
            else:
                faults.mend()
        faults.mend(now=True)
        assert undisturbed.wait(timeout=600) == 0
    print(f"faults: {faults.counts}")
    assert sum(faults.counts.values()) >= FAULTS
    assert min(faults.counts.values()) >= 5

    # None lost, none doubled: every file is that of the undisturbed sweep, and no iteration is twice in a history.
    for run, other in zip(runs, calm, strict=True):
        assert differing_files(other.path, run.path) == []
        rows = [json.loads(line)["iteration"] for line in run.history.read_text().splitlines()]
        assert rows == sorted(set(rows))
        loaded, _ = load_configuration(run.config)
        assert loaded.run_id == run.path.name
    carried = [
        run
        for line in (tmp_path / "runs" / "chaos" / "ledger.jsonl").read_text().splitlines()
        if (event := json.loads(line))["event"] == "intent"
        for element in event["elements"]
        for run in element
    ]
    assert sorted(carried) == sorted(run.path.name for run in runs)

    (tmp_path / "undisturbed" / "chaos" / "sweep.yaml").write_bytes(
        (tmp_path / "runs" / "chaos" / "sweep.yaml").read_bytes()
    )
    vwm_sweep("collect", "chaos", cluster=cluster, cwd=tmp_path)
    vwm_sweep("collect", "chaos", "--runs", "undisturbed", cluster=cluster, cwd=tmp_path)
    tables = [tmp_path / folder / "chaos" / "tables" for folder in ("runs", "undisturbed")]
    for name in ("runs.csv", "by_set_size.csv"):
        assert tables[0].joinpath(name).read_bytes() == tables[1].joinpath(name).read_bytes()
    with open(tables[0] / "by_set_size.csv") as table:
        assert {row["n_seeds"] for row in csv.DictReader(table)} == {"25"}
    wait_until(lambda: "200 finished" in vwm_sweep("status", "chaos", cluster=cluster, cwd=tmp_path))
