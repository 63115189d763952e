"""What the drill refuses, what it advises, and how it compares histories; the drill itself takes minutes."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import environment
from tests.slurm.cluster import Cluster
from vwm.sweep.drill_report import are_close
from vwm.sweep.grants import grants

PROFILE = {"where": "slurm", "gpus_per_node": 0, "cpus_per_process": 1, "partition": "preempt"}


def start(folder: Path, profile: dict[str, object], environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    folder.mkdir(exist_ok=True)
    (folder / "[red]profile.yaml").write_text(yaml.safe_dump(profile))
    with open(folder / "out.txt", "w") as output:
        return subprocess.Popen(
            [str(Path(sys.executable).with_name("vwm-sweep")), "drill", "--on", "[red]profile.yaml"],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def end(process: "subprocess.Popen[bytes]", folder: Path, timeout: float = 60) -> tuple[int, str]:
    """Its exit code and output; a drill that does not end is asked to, so that it leaves no job behind."""
    try:
        return process.wait(timeout), (folder / "out.txt").read_text()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def test_a_profile_of_this_machine_is_refused(tmp_path: Path):
    exit_code, said = end(start(tmp_path, {"where": "local"}, environment()), tmp_path)
    assert exit_code == 2
    assert "[red]profile.yaml: this profile trains on this machine" in said
    assert not (tmp_path / "runs").exists()


def test_without_sbatch_nothing_is_written(tmp_path: Path):
    exit_code, said = end(start(tmp_path, PROFILE, environment(PATH=str(tmp_path))), tmp_path)
    assert exit_code == 2
    assert "There is no sbatch" in said
    assert not (tmp_path / "runs").exists()


def test_a_scheduler_that_does_not_answer(running_cluster: Cluster, tmp_path: Path):
    exit_code, said = end(start(tmp_path, PROFILE, environment(SLURM_CONF=str(tmp_path / "none.conf"))), tmp_path)
    assert exit_code == 3, said
    assert "SLURM cannot be asked" in said
    assert not (tmp_path / "runs").exists()


GRANTING = {
    "PreemptType": "preempt/partition_prio",
    "PreemptMode": "REQUEUE",
    "PreemptParameters": "send_user_signal",
    "KillWait": "30",
    "MaxArraySize": "1001",
}


@pytest.mark.parametrize(
    ("cluster_says", "partition_says", "accounting", "advised"),
    [
        ({}, {"PreemptMode": "REQUEUE"}, True, []),
        ({"PreemptParameters": "(null)"}, {"PreemptMode": "REQUEUE"}, True, ["notice before a preemption"]),
        ({"PreemptParameters": "(null)"}, {"PreemptMode": "OFF"}, True, []),
        ({"PreemptParameters": "(null)", "SlurmctldParameters": "preempt_send_user_signal"}, {}, True, []),
        ({}, {"PreemptMode": "CANCEL"}, True, ["preemption in partition p"]),
        ({"PreemptType": "preempt/qos"}, {"PreemptMode": "OFF"}, True, ["preemption in partition p"]),
        ({"PreemptType": "preempt/none"}, {}, False, ["accounting"]),
        ({"MaxArraySize": "1"}, {"PreemptMode": "OFF"}, True, ["job arrays"]),
    ],
)
def test_advice_is_given_exactly_where_something_is_not_granted(
    cluster_says: dict[str, str], partition_says: dict[str, str], accounting: bool, advised: list[str]
):
    found = grants({**GRANTING, **cluster_says}, {"PartitionName": "p", **partition_says}, accounting)
    assert [grant.what for grant in found if grant.advice] == advised


def test_histories_are_close_where_iterations_agree_and_losses_nearly():
    history = [{"iteration": 20, "loss": 1.0}, {"iteration": 40, "loss": 0.5}]
    assert are_close(history, [history[0], {"iteration": 40, "loss": 0.51}])
    assert not are_close(history, [history[0], {"iteration": 40, "loss": 0.6}])
    assert not are_close(history, history[:1])
    assert not are_close(history, [history[1], history[0]])
