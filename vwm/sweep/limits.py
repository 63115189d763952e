"""What the cluster allows: how large an array may be, how many jobs may be queued, and whether it would take a job."""

import getpass
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from vwm.sweep.profile import SlurmProfile
from vwm.sweep.slurm import SchedulerUnreachable, ask

_ARRAY_SIZE = 1001  # SLURM's default of MaxArraySize, taken where the cluster cannot be asked


@dataclass(frozen=True)
class Limits:
    """Limits of the cluster that bind this user."""

    max_array_size: int = _ARRAY_SIZE
    queued_at_most: Mapping[str, int] = field(default_factory=dict)  # by the limit's name: jobs in the queue at a time

    @property
    def array_elements(self) -> int:
        """Elements of one array. MaxArraySize is a limit on the index, and the last index stays one below it."""
        return max(1, self.max_array_size - 1)

    def room(self, queued: int) -> tuple[int, str] | None:
        """How many more jobs fit beside those of this user that are queued, and the limit that says so."""
        if not self.queued_at_most:
            return None
        name, most = min(self.queued_at_most.items(), key=lambda item: item[1])
        return max(0, most - queued), f"{name} = {most}"


def read_limits(profile: SlurmProfile) -> Limits:
    """Ask the cluster. Without accounting there are only the controller's own limits.

    A limit that counts the jobs of an account or a QOS together is compared with all jobs of this user: this is exact
    for who uses one account, and otherwise submits less than it might. Limits of a whole group cannot be known before.

    Raises:
        SchedulerUnreachable: the controller does not answer.
    """
    config = dict(re.findall(r"^(\w+)\s*=\s*(\S+)", ask("scontrol", "show", "config"), re.MULTILINE))
    queued = {}
    if config.get("MaxJobCount", "").isdecimal():
        queued["MaxJobCount of the cluster"] = int(config["MaxJobCount"]) - 1
    with suppress(SchedulerUnreachable):  # No accounting, or it is down: then sbatch itself says what it refuses.
        queued.update(_of_accounting(profile))
    size = config.get("MaxArraySize", "")
    return Limits(int(size) if size.isdecimal() else _ARRAY_SIZE, queued)


def _of_accounting(profile: SlurmProfile) -> dict[str, int]:
    limits: dict[str, int] = {}
    fields = "defaultaccount,account,partition,maxsubmitjobs,grpsubmitjobs,defaultqos"
    user = ("where", f"name={getpass.getuser()}", "withassoc", f"format={fields}")
    qos = {profile.qos} if profile.qos else set()
    for line in ask("sacctmgr", "--noheader", "--parsable2", "show", "user", *user).splitlines():
        default, account, partition, own, group, default_qos = line.split("|")
        if account != (profile.account or default) or (partition and partition != profile.partition):
            continue
        for name, value in (("MaxSubmitJobs", own), ("GrpSubmitJobs", group)):
            if value.isdecimal():
                limits[f"{name} of account {account}"] = int(value)
        if not profile.qos:
            qos.add(default_qos or "normal")
    for name in sorted(qos):
        show = ("show", "qos", "where", f"name={name}", "format=maxsubmitjobsperuser")
        value = ask("sacctmgr", "--noheader", "--parsable2", *show).strip()
        if value.isdecimal():
            limits[f"MaxSubmitJobsPerUser of QOS {name}"] = int(value)
    return limits


def why_refused(profile: SlurmProfile) -> str | None:
    """SLURM's words if it would refuse a job of this profile now; None if it would take it. Nothing is submitted."""
    flags = [f"--{name}" if value is True else f"--{name}={value}" for name, value in profile.options().items()]
    try:
        ask("sbatch", "--test-only", *flags, "--wrap=true")
    except SchedulerUnreachable as refusal:
        return str(refusal)
    return None
