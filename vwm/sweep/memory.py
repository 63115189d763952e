"""Whether the kernel killed a process of this job for want of memory, as the job's control group knows it."""

from pathlib import Path

ADVICE = "the memory of its job ran out: raise mem_gb in the profile, or lower runs_per_job"

_GROUPS = Path("/sys/fs/cgroup")


def kernel_kills() -> int:
    """How many processes of this process's control group the kernel has killed for want of memory; 0 if unknown.

    The killed process leaves no word, and its exit looks like any SIGKILL. A scheduler gives each job a group of its
    own; on a personal machine the group may be a whole session's, so that only a change while a job runs says anything.
    """
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return 0
    kills = 0
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if "memory" in controllers.split(","):  # version 1 of control groups
            kills += _count(_GROUPS / "memory" / group.lstrip("/") / "memory.oom_control")
        elif controllers == "":  # version 2, which counts the groups within this one too
            kills += _count(_GROUPS / group.lstrip("/") / "memory.events")
    return kills


def _count(path: Path) -> int:
    try:
        words = dict(line.split(maxsplit=1) for line in path.read_text().splitlines())
        return int(words.get("oom_kill", "0"))
    except (OSError, ValueError):
        return 0
