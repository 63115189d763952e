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
from vwm.sweep.ledger import Ledger
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
ITERATIONS = 500


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
        launch = vwm_sweep("launch", "one.yaml", "--on", "profile.yaml", cluster=cluster, cwd=folder)
        assert launch.returncode == 0, launch.stdout + launch.stderr
        ledger = [json.loads(line) for line in (folder / "runs" / "one" / "ledger.jsonl").read_text().splitlines()]
        self.job = str(next(event["slurm_id"] for event in ledger if event["event"] == "submitted"))
        (run_id,) = next(event["elements"] for event in ledger if event["event"] == "intent")[0]
        self.run = RunFolder(folder / "runs" / "one" / run_id)

    def wait_for_progress(self) -> None:
        """Return when some iterations are in the history."""
        wait_until(lambda: self.run.history.exists() and self.run.history.stat().st_size > 5000, 300)

    def wait_for_state(self, state: str) -> None:
        """Return when SLURM says this of the job."""
        wait_until(lambda: self.cluster.command("squeue", "-h", "-j", self.job, "-o", "%T") == state, 300)

    def finish(self) -> None:
        """Return when the run is finished and its job has left the queue."""
        wait_until(self.run.is_finished, 1800)
        # A job that is requeued as its run ends begins once more, and finds nothing to do.
        wait_until(
            lambda: not self.cluster.command("squeue", "-h", "--states=all", "-n", self.name, "-t", "PD,R,CG"), 300
        )

    @property
    def name(self) -> str:
        """The unique name of the job."""
        return self.cluster.command("sacct", "-X", "-n", "-P", "-j", self.job, "-o", "JobName").splitlines()[0]

    def wait_for_attempt(self, attempt: int) -> None:
        """Return when this attempt of the run trains."""

        def trains() -> bool:
            state = self.run.read_state()
            return state is not None and state.attempt >= attempt and state.phase == "training"

        wait_until(trains, 300)

    def host(self) -> str:
        """The node that the latest attempt is on."""
        state = self.run.read_state()
        assert state is not None
        return state.host

    def log(self) -> str:
        """The output of all its attempts on its first node."""
        return (self.run.path.parent / "jobs" / f"{self.job}_0_log.out").read_text()

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


def vwm_sweep(*arguments: str, cluster: Cluster, cwd: Path) -> "subprocess.CompletedProcess[str]":
    command = [str(Path(sys.executable).with_name("vwm-sweep")), *arguments]
    return subprocess.run(
        command, cwd=cwd, env=cluster.environment, capture_output=True, text=True, timeout=300, check=False
    )


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


def test_preempted_when_slurm_has_not_started_the_step(cluster: Cluster, undisturbed: RunFolder, tmp_path: Path):
    """Once the time of grace is over SLURM starts no step, and takes seconds to end the job.

    That moment cannot be met for certain, so that srun asks for more than the job has, at the first attempt.
    """
    one = OneRun(cluster, tmp_path / "one", setup=['[ "${SLURM_RESTART_COUNT:-0}" != 0 ] || export SLURM_NTASKS=1000'])
    log = one.run.path.parent / "jobs" / f"{one.job}_0_log.out"
    wait_until(lambda: log.exists() and "SLURM has not started the step" in log.read_text())
    assert "Unable to create step" in log.read_text()
    take_all_nodes(cluster)
    one.finish()
    assert differing_files(undisturbed.path, one.run.path) == []
    assert len(one.ends()) == 2


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
        wait_until(lambda: len(one.ends()) >= 2 or one.run.is_finished())
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
    iterations = 6000  # more than a minute allows, at up to a hundred a second
    whole = OneRun(cluster, tmp_path / "undisturbed", iterations, partition="main")
    whole.finish()
    one = OneRun(cluster, tmp_path / "one", iterations, timeout_min=1, signal_delay_s=5)
    one.finish()
    assert_exact(one, whole.run)
    assert "TIMEOUT" not in one.ends()


def test_a_job_that_slurm_does_not_requeue_leaves_all_nodes_and_is_launched_again(
    cluster: Cluster, undisturbed: RunFolder, tmp_path: Path
):
    one = OneRun(cluster, tmp_path / "one")
    cluster.command("scontrol", "update", f"JobId={one.job}", "Requeue=0")
    one.wait_for_progress()
    cluster.command("scancel", "--signal=USR2", one.job)
    wait_until(lambda: not cluster.command("squeue", "--noheader"), 120)
    shown = vwm_sweep("status", "one", cluster=cluster, cwd=tmp_path / "one")
    assert shown.returncode == 0
    assert "stopped: preempted" in shown.stdout
    assert "SLURM did not requeue its job" in shown.stdout
    assert "vwm-sweep launch goes on" in " ".join(shown.stdout.split())
    again = vwm_sweep("launch", "one.yaml", "--on", "profile.yaml", cluster=cluster, cwd=tmp_path / "one")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "submitted" in again.stdout
    one.finish()
    assert_exact(one, undisturbed)


def test_a_job_that_was_cancelled_just_before_it_requeued_itself_does_not_come_back(cluster: Cluster, tmp_path: Path):
    """SLURM takes a requeue of a job that was just cancelled. Here only the ledger is told: the moment is not hit."""
    one = OneRun(cluster, tmp_path / "one", 100_000, nodes=1, processes_per_node=1)
    one.wait_for_progress()
    Ledger(one.run.path.parent / "ledger.jsonl").cancelled([one.run.path.name])
    cluster.command("scancel", "--signal=USR2", one.job)
    # A job that goes back to the queue never leaves squeue's list.
    wait_until(lambda: not cluster.command("squeue", "--noheader"))
    assert "REQUEUED" in one.ends()
    assert "its runs were cancelled, and so is the job" in one.log()
    assert one.log().count("Starting with JobEnvironment") == 1


def test_a_controller_that_is_being_restarted_is_waited_for(cluster: Cluster, tmp_path: Path):
    """The job cannot be requeued just when it has to leave."""
    one = OneRun(cluster, tmp_path / "one", 100_000, nodes=1, processes_per_node=1)
    one.wait_for_progress()
    (task,) = (
        process
        for process in psutil.process_iter(["cmdline"])  # None for one that has just ended
        if "submitit.core._submit" in (words := process.info["cmdline"] or [])
        and Path(words[0]).name.startswith("python")
        and words[-1].startswith(str(tmp_path))
    )
    cluster.stop_controller()
    os.kill(task.pid, signal.SIGUSR2)
    wait_until(lambda: "goes back to the queue" in one.log())
    cluster.start_controller()
    wait_until(lambda: "REQUEUED" in one.ends())
    assert "did not requeue" not in one.log()


def test_a_node_that_lost_two_attempts_is_kept_off(cluster: Cluster, tmp_path: Path):
    # Until two attempts are lost no other node is free, so that the job waits for the bad one to come back.
    others = "NodeName=node2,node3"
    cluster.command("scontrol", "update", others, "State=DRAIN", "Reason=test")
    one = OneRun(cluster, tmp_path / "one", 100_000, nodes=1, processes_per_node=1, exclude="node4")
    one.wait_for_attempt(1)
    bad = one.host()
    for attempt in (1, 2):
        one.wait_for_attempt(attempt)
        assert one.host() == bad
        cluster.kill_node(bad)
        cluster.command("scontrol", "update", f"NodeName={bad}", "State=DOWN", "Reason=test")  # It is noticed at once.
        cluster.start_node(bad)
    wait_until(lambda: f"{bad} has lost several attempts" in one.log())
    cluster.command("scontrol", "update", others, "State=RESUME")
    one.wait_for_attempt(3)
    assert one.host() not in (bad, "node4")
    job = cluster.command("scontrol", "show", "job", one.job)
    restarts, kept_off = (job.split(f"{name}=")[1].split()[0] for name in ("Restarts", "ExcNodeList"))
    assert int(restarts) >= 3
    assert set(cluster.command("scontrol", "show", "hostnames", kept_off).split()) == {bad, "node4"}
    shown = vwm_sweep("logs", one.run.path.name, cluster=cluster, cwd=tmp_path / "one").stdout
    assert f"{bad} has lost several attempts" in shown
    history = vwm_sweep("status", "one", cluster=cluster, cwd=tmp_path / "one").stdout
    assert f"running on {one.host()} (attempt {int(restarts) + 1})" in " ".join(history.split())
