"""What a cluster's settings grant to a run that is to be interrupted and go on, and what to do where they do not."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vwm.sweep.slurm import ask


@dataclass(frozen=True)
class Grant:
    """One thing that a cluster may grant."""

    what: str
    answer: str  # what the cluster's settings say
    advice: str = ""  # what to do; empty where nothing is


def ask_for_grants(partition: str, has_accounting: bool) -> list[Grant]:
    """Ask the controller.

    Args:
        partition: where the jobs ran.
        has_accounting: whether sacct answered.

    Raises:
        SchedulerUnreachable: the controller does not answer.
    """
    config = _pairs(ask("scontrol", "show", "config"))
    return list(grants(config, _pairs(ask("scontrol", "show", "partition", partition)), has_accounting))


def grants(config: Mapping[str, str], partition: Mapping[str, str], has_accounting: bool) -> Iterator[Grant]:
    """What these settings grant.

    Args:
        config: of the cluster, by SLURM's names.
        partition: of the partition that the jobs ran in.
        has_accounting: whether sacct answered.
    """
    is_preempting, grant = _preemption(config, partition)
    yield grant
    if is_preempting:
        yield _notice(config, partition.get("GraceTime", "0"))
    if has_accounting:
        yield Grant("accounting", config.get("AccountingStorageType", "sacct answers"))
    else:
        yield Grant("accounting", "sacct gives no answer", "status cannot say how a job ended; logs shows its output")
    size = config.get("MaxArraySize", "")
    if size.isdecimal() and int(size) < 2:
        yield Grant("job arrays", f"MaxArraySize = {size}", "each job is an array of its own; use runs_per_job")
    elif size.isdecimal():
        yield Grant("job arrays", f"up to {int(size) - 1} jobs each (MaxArraySize = {size}); launch cuts to that")


def _preemption(config: Mapping[str, str], partition: Mapping[str, str]) -> tuple[bool, Grant]:
    """Whether a job may be preempted, as far as can be known, and what becomes of it."""
    what = f"preemption in partition {partition.get('PartitionName', '?')}"
    kind = config.get("PreemptType", "preempt/none").removeprefix("preempt/")
    if kind == "none":
        return False, Grant(what, "none on this cluster")
    if kind == "qos":
        look = "look at the mode of yours: sacctmgr show qos format=name,preemptmode,gracetime"
        return True, Grant(what, "decided by the QOS of a job (PreemptType = preempt/qos)", look)
    mode = partition.get("PreemptMode", config.get("PreemptMode", "OFF"))
    if "REQUEUE" in mode:
        return True, Grant(what, f"PreemptMode = {mode}: jobs go back to the queue")
    if mode == "OFF":
        return False, Grant(what, "PreemptMode = OFF: jobs are left alone")
    if "CANCEL" in mode:
        return True, Grant(what, f"PreemptMode = {mode}: SLURM ends the jobs", "launch again after a preemption")
    return False, Grant(what, f"PreemptMode = {mode}: jobs stand still meanwhile and are not asked to save")


def _notice(config: Mapping[str, str], grace: str) -> Grant:
    """Whether a job is told before a preemption."""
    what = "notice before a preemption"
    settings = ("SlurmctldParameters", "PreemptParameters")  # the place up to SLURM 22.05 and the place after it
    if any("send_user_signal" in config.get(name, "") for name in settings):
        return Grant(what, f"SIGUSR2, then {grace} s (GraceTime) to save")
    wait = config.get("KillWait", "30")
    return Grant(
        what,
        f"no user signal; SIGTERM, then {wait} s (KillWait) beside GraceTime = {grace} s",
        "ask for send_user_signal in PreemptParameters, or a longer GraceTime; what a run could not save by then it "
        "computes again from its last checkpoint, one every logging_period iterations",
    )


def _pairs(text: str) -> dict[str, str]:
    """The settings in what scontrol shows: ``Name = value`` on a line, or ``Name=value`` several times on one."""
    return dict(re.findall(r"(?:^|\s)(\w+)(?: += |=)(\S*)", text))
