"""A run on two nodes with two processes each, through every way a cluster has of interrupting it.

Each interrupted run ends with the bytes of the uninterrupted one on the same layout, and no iteration twice.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from tests.conftest import differing_files, tiny, wait_until
from tests.slurm.cluster import Cluster
from vwm.training.run_folder import RunFolder

pytestmark = pytest.mark.slow

PROFILE = {
    "where": "slurm",
    "nodes": 2,
    "processes_per_node": 2,
    "cpus_per_process": 1,
    "gpus_per_node": 0,
    "partition": "preempt",
    "timeout_min": 10,
    "signal_delay_s": 20,
}
ITERATIONS = 700


class OneRun:
    """A sweep of one run, launched on the cluster as a user does it."""

    def __init__(self, cluster: Cluster, folder: Path, iterations: int = ITERATIONS, **profile: object) -> None:
        folder.mkdir()
        self.cluster = cluster
        content = tiny(
            training_params__num_iterations=iterations,
            training_params__logging_period=5,
            training_params__early_stop_patience=100_000,
        )
        (folder / "one.yaml").write_text(yaml.safe_dump({"name": "one", "base": content, "seeds": 1}))
        (folder / "profile.yaml").write_text(yaml.safe_dump({**PROFILE, **profile}))
        launch = subprocess.run(
            [str(Path(sys.executable).with_name("vwm-sweep")), "launch", "one.yaml", "--on", "profile.yaml"],
            cwd=folder,
            env=cluster.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert launch.returncode == 0, launch.stdout + launch.stderr
        ledger = [json.loads(line) for line in (folder / "runs" / "one" / "ledger.jsonl").read_text().splitlines()]
        self.job = str(next(event["slurm_id"] for event in ledger if event["event"] == "submitted"))
        (run_id,) = next(event["elements"] for event in ledger if event["event"] == "intent")[0]
        self.run = RunFolder(folder / "runs" / "one" / run_id)

    def wait_for_progress(self) -> None:
        """Return when some iterations are in the history."""
        wait_until(lambda: self.run.history.exists() and self.run.history.stat().st_size > 5000, 120)

    def wait_for_state(self, state: str) -> None:
        """Return when SLURM says this of the job."""
        wait_until(lambda: self.cluster.command("squeue", "-h", "-j", self.job, "-o", "%T") == state, 120)

    def finish(self) -> None:
        """Return when the run is finished and its job has left the queue."""
        wait_until(self.run.is_finished, 300)
        wait_until(
            lambda: not self.cluster.command("squeue", "-h", "--states=all", "-n", self.name, "-t", "PD,R,CG"), 60
        )

    @property
    def name(self) -> str:
        """The unique name of the job."""
        return self.cluster.command("sacct", "-X", "-n", "-P", "-j", self.job, "-o", "JobName").splitlines()[0]

    def ends(self) -> list[str]:
        """How the attempts of the job ended, as the accounting has it."""
        words = self.cluster.command("sacct", "-X", "-D", "-n", "-P", "-j", self.job, "-o", "State").splitlines()
        return [word.split()[0] for word in words]


@pytest.fixture(scope="module")
def undisturbed(running_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    one = OneRun(running_cluster, tmp_path_factory.mktemp("undisturbed") / "one")
    one.finish()
    return one.run


def assert_exact(one: OneRun, undisturbed: RunFolder) -> None:
    assert differing_files(undisturbed.path, one.run.path) == []
    rows = [json.loads(line)["iteration"] for line in one.run.history.read_text().splitlines()]
    assert rows == list(range(5, rows[-1] + 1, 5))
    state = one.run.read_state()
    assert state is not None
    assert state.attempt >= 2, "the run was not interrupted"


def take_all_nodes(cluster: Cluster) -> None:
    """Submit a short job of a higher tier that needs all nodes, so that everything in `preempt` has to leave."""
    cluster.command("sbatch", "--partition=main", "--nodes=4", "--exclusive", "--output=/dev/null", "--wrap=sleep 3")


def test_preempted_in_training(cluster: Cluster, undisturbed: RunFolder, tmp_path: Path):
    one = OneRun(cluster, tmp_path / 'a sweep\'s "folder"')
    one.wait_for_progress()
    take_all_nodes(cluster)
    one.finish()
    assert_exact(one, undisturbed)


def test_preempted_one_second_after_the_start(cluster: Cluster, undisturbed: RunFolder, tmp_path: Path):
    one = OneRun(cluster, tmp_path / "one")
    one.wait_for_state("RUNNING")
    time.sleep(1)
    take_all_nodes(cluster)
    one.finish()
    assert differing_files(undisturbed.path, one.run.path) == []
    assert len(one.ends()) >= 2


def test_requeued_by_an_administrator(cluster: Cluster, undisturbed: RunFolder, tmp_path: Path):
    one = OneRun(cluster, tmp_path / "one")
    one.wait_for_progress()
    cluster.command("scontrol", "requeue", one.job)
    one.finish()
    assert_exact(one, undisturbed)


def test_one_node_killed(cluster: Cluster, undisturbed: RunFolder, tmp_path: Path):
    one = OneRun(cluster, tmp_path / "one")
    one.wait_for_progress()
    nodes = cluster.command("scontrol", "show", "hostnames", cluster.command("squeue", "-h", "-j", one.job, "-o", "%N"))
    victim = nodes.splitlines()[-1]
    cluster.kill_node(victim)
    try:
        wait_until(lambda: len(one.ends()) >= 2 or one.run.is_finished(), 180)
    finally:
        cluster.start_node(victim)
    one.finish()
    assert_exact(one, undisturbed)


@pytest.mark.parametrize("rank", ["0", "3"])
def test_one_worker_killed(cluster: Cluster, undisturbed: RunFolder, tmp_path: Path, rank: str):
    one = OneRun(cluster, tmp_path / "one")
    one.wait_for_progress()
    victims = [
        process
        for process in psutil.process_iter(["cmdline", "environ"])  # None for one that has just ended
        if (process.info["cmdline"] or [])[-1:] == [str(one.run.path)]
        and (process.info["environ"] or {}).get("RANK") == rank
    ]
    assert len(victims) == 1
    os.kill(victims[0].pid, signal.SIGKILL)
    one.finish()
    assert_exact(one, undisturbed)


def test_time_limit_of_one_minute(cluster: Cluster, tmp_path: Path):
    iterations = 3 * ITERATIONS
    whole = OneRun(cluster, tmp_path / "undisturbed", iterations, partition="main")
    whole.finish()
    one = OneRun(cluster, tmp_path / "one", iterations, timeout_min=1, signal_delay_s=5)
    one.finish()
    assert_exact(one, whole.run)
    assert "TIMEOUT" not in one.ends()
