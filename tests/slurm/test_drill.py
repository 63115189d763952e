"""The drill: passed on a cluster that grants everything; what it refuses, advises, and how it compares histories."""

import json
import re
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


def end(process: "subprocess.Popen[bytes]", folder: Path, timeout: float = 120) -> tuple[int, str]:
    """Its exit code and output; a drill that does not end is asked to, so that it leaves no job behind."""
    try:
        return process.wait(timeout), (folder / "out.txt").read_text()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


@pytest.mark.slow
def test_a_drill_on_a_cluster_that_grants_everything(short_folder: Path, tmp_path: Path):
    """On a cluster of its own: it takes minutes of waiting, in which another worker's tests go on."""
    cluster = Cluster.up(short_folder)
    folder = tmp_path / "a folder"
    exit_code, said = end(start(folder, PROFILE, {**cluster.environment, "COLUMNS": "160"}), folder, 1500)
    assert exit_code == 0, said
    assert re.findall(r"\b(passed|failed|not seen) +│$", said, re.MULTILINE) == ["passed"] * 5, said
    # On a machine that has other work to do, an interruption may come too early to save in the time that SLURM grants.
    how = [
        rf"│ {what}\b.*(\({reason}\); attempt \d+ went on|was not seen to save; attempt \d+ went on)"
        for what, reason in [
            ("notice", "preempted"),
            ("scontrol requeue", "stop requested"),
            ("the time limit", "time limit"),
        ]
    ]
    assert all(re.search(pattern, said) for pattern in how), said
    assert said.count("was not seen to save") < 2, said
    assert "SIGUSR2, then 10 s (GraceTime) to save" in said
    assert not cluster.command("squeue", "--noheader")
    # What the drill says is looked at once more: three attempts and more, and no iteration twice.
    (drill,) = (folder / "runs").iterdir()
    undisturbed, disturbed = (next(drill.glob(f"{name}/*/state.json")).parent for name in ("undisturbed", "disturbed"))
    histories = [(run / "history.jsonl").read_text().splitlines() for run in (undisturbed, disturbed)]
    compared = int(re.findall(r"up to iteration (\d+)", said)[0])
    rows = compared // 20
    assert rows > 10
    assert histories[0][:rows] == histories[1][:rows]
    assert [json.loads(row)["iteration"] for row in histories[1][:rows]] == list(range(20, compared + 1, 20))
    states = [json.loads((run / "state.json").read_text()) for run in (undisturbed, disturbed)]
    assert states[0]["attempt"] == 1
    assert states[1]["attempt"] >= 4


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
    (tmp_path / "empty.conf").touch()
    exit_code, said = end(start(tmp_path, PROFILE, environment(SLURM_CONF=str(tmp_path / "empty.conf"))), tmp_path)
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
