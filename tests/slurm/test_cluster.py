"""The test cluster does what a real one does: jobs, preemption, lost nodes, and starting and stopping of itself."""

import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.conftest import wait_until
from tests.slurm import cluster as cluster_module
from tests.slurm.cluster import Cluster
from tests.slurm.processes import Failed, Process
from tests.slurm.settings import NODES

SCRIPT = cluster_module.__file__


def submit(cluster: Cluster, folder: Path, lines: str, *options: str) -> str:
    """Submit a batch script that runs in ``folder`` and give back the id of the job."""
    script = folder / f"job-{len(list(folder.glob('job-*.sh')))}.sh"
    script.write_text(f"#!/bin/bash\n{lines}\n")
    return cluster.command("sbatch", "--parsable", f"--chdir={folder}", "--output=out-%j.txt", *options, script)


def queue_state(cluster: Cluster, job: str) -> str:
    """The state of a job in the queue; empty once it has left."""
    return cluster.command("squeue", "--noheader", "--format=%T", "--states=all", f"--jobs={job}")


def attempts(cluster: Cluster, job: str) -> list[str]:
    """The states of all attempts of a job, oldest first, as the accounting has them."""
    words = ["sacct", "--noheader", "--parsable2", "--allocations", "--duplicates", "--format=State", f"--jobs={job}"]
    return cluster.command(*words).splitlines()


def words_of(process: Process) -> list[str]:
    """The command line of a process; empty if it has just ended."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(process.pid).cmdline()
    return []


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def saved_jobs(cluster: Cluster) -> bytes:
    """What slurmctld has saved of the jobs; empty in the moment in which it replaces the file."""
    with suppress(FileNotFoundError):
        return (cluster.folder / "state" / "job_state").read_bytes()
    return b""


def cluster_command(action: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run cluster.py as a user does."""
    environment = {**os.environ, "VWM_SLURM_DIR": str(folder)}
    words = [sys.executable, SCRIPT, action]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=600, check=False)


def test_a_job_on_two_nodes_sees_their_names_and_its_gpus(cluster: Cluster, tmp_path: Path):
    task = tmp_path / "task.sh"
    task.write_text("echo $(hostname) $(getent hosts $(hostname)) gpus=$CUDA_VISIBLE_DEVICES\n")
    options = ["--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=2", "--gres=gpu:1"]
    job = submit(cluster, tmp_path, f"srun bash {task}", *options)
    wait_until(lambda: attempts(cluster, job) == ["COMPLETED"])

    expected = {f"{name} {NODES[name]} {name} gpus=0" for name in ("node1", "node2")}
    assert set(lines_of(tmp_path / f"out-{job}.txt")) == expected
    # Right after the end sacct still names the first node only.
    words = ["sacct", "--noheader", "--parsable2", "--allocations", "--format=AllocTRES,NodeList,Account"]
    row = "billing=4,cpu=4,gres/gpu=2,node=2|node[1-2]|vwm"
    wait_until(lambda: cluster.command(*words, f"--jobs={job}") == row)


def test_two_jobs_on_one_node_get_different_gpus(cluster: Cluster, tmp_path: Path):
    both_run = "until [ $(ls began-* | wc -l) = 2 ]; do sleep 0.1; done"
    line = f"echo $CUDA_VISIBLE_DEVICES; touch began-$SLURM_JOB_ID; {both_run}"
    jobs = [submit(cluster, tmp_path, line, "--nodelist=node1", "--gres=gpu:1") for _ in range(2)]
    wait_until(lambda: all(attempts(cluster, job) == ["COMPLETED"] for job in jobs))
    assert sorted(lines_of(tmp_path / f"out-{job}.txt")[0] for job in jobs) == ["0", "1"]


def test_everything_listens_on_the_loopback(cluster: Cluster):
    daemons = [process.pid for process in cluster.living().values()]
    pids = {*daemons, *(pid for node in NODES for pid in cluster.processes_on(node))}
    listening = [
        (psutil.Process(pid).name(), connection.laddr.ip)
        for pid in pids
        for connection in psutil.Process(pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert Counter(name for name, _ in listening) == {"slurmd": 4, "slurmctld": 1, "slurmdbd": 1, "mariadbd": 1}
    assert {address for _, address in listening} == {"127.0.0.1", *NODES.values()}


@pytest.mark.slow
def test_a_preempted_job_hears_usr2_then_term_and_is_requeued(cluster: Cluster, tmp_path: Path):
    task = tmp_path / "task.sh"
    task.write_text(
        """
        test "$SLURM_RESTART_COUNT" = 1 && echo again >> signals && exit
        trap 'echo USR2 $EPOCHREALTIME >> signals' USR2  # A process that tells the time would hear the signals too.
        trap 'echo TERM $EPOCHREALTIME >> signals' TERM
        touch started
        while true; do sleep 0.1; done
        """
    )
    options = ["--partition=preempt", "--nodelist=node1", "--exclusive", "--signal=USR2@30"]
    low = submit(cluster, tmp_path, f"srun bash {task}", *options)
    wait_until((tmp_path / "started").exists)
    preempted_at = time.time()
    high = submit(cluster, tmp_path, "true", "--nodelist=node1", "--exclusive")
    wait_until(lambda: attempts(cluster, low) == ["PREEMPTED", "COMPLETED"])
    assert attempts(cluster, high) == ["COMPLETED"]

    first, *middle, last = lines_of(tmp_path / "signals")
    usr2, term = first.split(), middle[0].split()
    assert (usr2[0], term[0], last) == ("USR2", "TERM", "again")
    assert preempted_at < float(usr2[1]) < float(term[1]) - 5  # GraceTime is 10 s, and either signal may be late.


@pytest.mark.slow
def test_a_dead_node_takes_its_processes_along_and_the_job_is_requeued(cluster: Cluster, tmp_path: Path):
    task = tmp_path / "task.sh"
    task.write_text("while true; do date +%s.%N >> beat-$SLURM_RESTART_COUNT-$(hostname); sleep 0.1; done\n")
    job = submit(cluster, tmp_path, f'test "$SLURM_RESTART_COUNT" = 1 || srun bash {task}', "--nodes=2")
    wait_until(lambda: len(list(tmp_path.glob("beat--*"))) == 2)
    victim = max(path.name.removeprefix("beat--") for path in tmp_path.glob("beat--*"))
    living = [process for process in map(Process.with_id, cluster.processes_on(victim)) if process]
    assert any(str(task) in words_of(process) for process in living)

    cluster.kill_node(victim)
    assert [process for process in living if process.alive()] == []
    beats = lines_of(tmp_path / f"beat--{victim}")
    wait_until(lambda: attempts(cluster, job) == ["NODE_FAIL", "COMPLETED"])
    assert lines_of(tmp_path / f"beat--{victim}") == beats

    assert cluster.node_states()[victim].startswith("down")
    cluster.start_node(victim)
    wait_until(lambda: cluster.node_states()[victim] == "idle")
    again = submit(cluster, tmp_path, "hostname", f"--nodelist={victim}")
    wait_until(lambda: lines_of(tmp_path / f"out-{again}.txt") == [victim])


@pytest.mark.slow
def test_a_job_goes_on_while_the_controller_is_stopped(cluster: Cluster, tmp_path: Path):
    job = submit(cluster, tmp_path, "touch started; until [ -e go ]; do sleep 0.1; done; touch done")
    wait_until((tmp_path / "started").exists)
    cluster.stop_controller()
    with pytest.raises(Failed, match="is DOWN"):
        cluster.command("scontrol", "ping")
    (tmp_path / "go").touch()
    wait_until((tmp_path / "done").exists)
    cluster.start_controller()
    wait_until(lambda: attempts(cluster, job) == ["COMPLETED"])


def test_what_happens_while_the_accounting_is_stopped_is_recorded_later(cluster: Cluster, tmp_path: Path):
    cluster.stop_accounting()
    job = submit(cluster, tmp_path, "true")
    wait_until(lambda: queue_state(cluster, job) == "COMPLETED")
    with pytest.raises(Failed, match="Problem talking to the database"):
        attempts(cluster, job)
    cluster.start_accounting()
    wait_until(lambda: attempts(cluster, job) == ["COMPLETED"])


def test_the_submit_limit_refuses_one_job_too_many(cluster: Cluster, tmp_path: Path):
    cluster.set_limits(MaxSubmitJobs=1)
    submit(cluster, tmp_path, "sleep 1000")
    with pytest.raises(Failed, match="AssocMaxSubmitJobLimit"):
        submit(cluster, tmp_path, "true")
    cluster.set_limits(MaxSubmitJobs=-1)
    submit(cluster, tmp_path, "true")


@pytest.mark.slow
def test_torchrun_on_two_nodes_reduces_over_all_ranks(cluster: Cluster, tmp_path: Path):
    with socket.socket() as attempt:
        attempt.bind(("", 0))
        port = attempt.getsockname()[1]
    worker = Path(SCRIPT).with_name("all_reduce.py")
    lines = f"""
        export OMP_NUM_THREADS=1
        first=$(scontrol show hostnames | head -n 1)
        srun --cpus-per-task=2 {sys.executable} -m torch.distributed.run --nnodes=2 --nproc-per-node=2 \\
            --rdzv-id=$SLURM_JOB_ID --rdzv-backend=c10d --rdzv-endpoint=$first:{port} {worker} {tmp_path}
    """
    job = submit(cluster, tmp_path, lines, "--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=2", "--gres=gpu:2")
    wait_until(lambda: queue_state(cluster, job) in ("COMPLETED", "FAILED"))
    assert queue_state(cluster, job) == "COMPLETED", (tmp_path / f"out-{job}.txt").read_text()
    outcome = Counter((tmp_path / f"rank{rank}").read_text() for rank in range(4))
    assert outcome == {"node1 15": 2, "node2 15": 2}


@pytest.mark.slow
def test_up_down_and_status(cluster: Cluster, short_folder: Path, tmp_path: Path):
    # Another cluster, beside the one of the other tests: neither may notice the other.
    assert cluster_command("status", short_folder).returncode == 4
    assert cluster_command("up", short_folder).returncode == 0
    assert cluster_command("status", short_folder).returncode == 0
    other = Cluster(short_folder)
    job = submit(other, tmp_path, "touch started; sleep 1000 & sleep 1001")
    wait_until((tmp_path / "started").exists)
    # slurmctld saves every few seconds. Killed before that, it would not know that the job runs.
    other.command("scontrol", "update", f"JobId={job}", "Comment=is saved")
    wait_until(lambda: b"is saved" in saved_jobs(other))

    # What is dead is started again, what lives stays, and jobs on the other nodes do not notice.
    before = other.living()
    before["slurmctld"].stop(patience=0)
    other.kill_node("node4")
    assert cluster_command("status", short_folder).returncode == 1
    assert cluster_command("up", short_folder).returncode == 0
    after = other.living()
    assert {name for name in after if after[name] != before[name]} == {"slurmctld", "node4"}
    assert queue_state(other, job) == "RUNNING"

    pids = {*(process.pid for process in after.values()), *(pid for node in NODES for pid in other.processes_on(node))}
    everything = [process for process in map(Process.with_id, pids) if process]
    assert sum("sleep" in words_of(process) for process in everything) >= 2
    assert cluster_command("down", short_folder).returncode == 0
    assert [process for process in everything if process.alive()] == []
    assert {entry.name for entry in short_folder.iterdir()} == {"cluster.lock", "log"}
    assert cluster_command("down", short_folder).returncode == 0
    assert cluster_command("status", short_folder).returncode == 4

    assert cluster_command("up", short_folder).returncode == 0
    first_job = (short_folder / "etc" / "slurm.conf").read_text().split("FirstJobId=")[1].split()[0]
    assert submit(other, tmp_path, "touch again") == first_job
    wait_until((tmp_path / "again").exists)
    wait_until(lambda: cluster.problems() == [])


def test_down_spares_a_process_that_took_over_an_id(short_folder: Path):
    short_folder.mkdir()
    (short_folder / "cluster.lock").touch()
    with subprocess.Popen(["sleep", "60"]) as innocent:
        present = Process.with_id(innocent.pid)
        assert present is not None
        entry = {"pid": present.pid, "started": present.started - 1, "namespace": None}
        (short_folder / "processes.json").write_text(json.dumps({"slurmctld": entry}))
        Cluster(short_folder).down()
        assert innocent.poll() is None
        innocent.kill()


def test_a_folder_that_holds_something_else_is_left_alone(cluster: Cluster, short_folder: Path):
    (short_folder / "etc").mkdir(parents=True)
    done = cluster_command("up", short_folder)
    assert done.returncode == 3
    assert (
        done.stderr
        == f"no SLURM cluster here: {short_folder} holds something else; name another one in VWM_SLURM_DIR\n"
    )
    assert cluster_command("down", short_folder).returncode == 0
    assert (short_folder / "etc").is_dir()


def test_without_root_there_is_one_line_and_exit_code_3(short_folder: Path):
    as_nobody = ["unshare", "--user"] if os.geteuid() == 0 else []
    words = [*as_nobody, sys.executable, SCRIPT, "up"]
    environment = {**os.environ, "VWM_SLURM_DIR": str(short_folder)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "needs root" in done.stderr
    assert not short_folder.exists()
