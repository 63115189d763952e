"""A job in a control group whose memory runs out: its run fails with advice, and is not taken for a killed one."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import environment, make_run, wait_until
from vwm.sweep.memory import kernel_kills
from vwm.training.run_folder import RunFolder

MB = 1 << 20
# It joins the group and takes more and more memory for as long as the worker lives.
HOG = """
import os, sys, time
members, worker = sys.argv[1:]
open(members, "w").write("0")
hoard = []
while os.path.exists(f"/proc/{worker}"):
    hoard.append(bytearray(5 << 20))
    time.sleep(0.1)
"""


class Group:
    """A control group of the kernel's, in its version 1 or 2."""

    def __init__(self) -> None:
        first, second = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
        self.is_first = (first / "memory.limit_in_bytes").exists() or (first / "memory.oom_control").exists()
        self.path = (first if self.is_first else second) / f"vwm-test-{os.getpid()}"
        self.path.mkdir()

    @property
    def members(self) -> Path:
        return self.path / "cgroup.procs"

    @property
    def limit(self) -> Path:
        return self.path / ("memory.limit_in_bytes" if self.is_first else "memory.max")

    @property
    def used(self) -> int:
        return int((self.path / ("memory.usage_in_bytes" if self.is_first else "memory.current")).read_text())

    def end(self) -> None:
        """Kill whatever is in it."""
        for pid in self.members.read_text().split():
            os.kill(int(pid), 9)
        wait_until(lambda: not self.members.read_text())

    def remove(self) -> None:
        self.end()
        self.path.rmdir()


@pytest.fixture
def group() -> Iterator[Group]:
    # Where everything must be tested, a machine that cannot limit memory is a failure.
    report = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
    try:
        group = Group()
    except OSError as reason:
        report(f"no control group can be made here: {reason}")
    if not group.limit.exists():
        report("control groups do not limit memory here")
    yield group
    group.remove()


def test_a_run_whose_worker_the_kernel_kills_for_memory_fails_with_advice(group: Group, tmp_path: Path):
    endless = {"training_params__num_iterations": 1_000_000, "training_params__early_stop_patience": 1_000_000}
    run = RunFolder(make_run(tmp_path / "run", **endless))
    # The job begins in the group, as a scheduler does it.
    enter = f"import os, sys; open({str(group.members)!r}, 'w').write('0'); os.execv(sys.executable, sys.argv[1:])"
    with subprocess.Popen(
        [sys.executable, "-c", enter, sys.executable, "-m", "vwm.sweep.job", str(run.path)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as job:
        try:
            wait_until(run.history.exists)
            state = run.read_state()
            assert state is not None
            Path(f"/proc/{state.pid}/oom_score_adj").write_text("1000")  # The kernel takes the worker first.
            # What files are cached counts as used and is given up first: the hog has to take that, too.
            group.limit.write_text(str(group.used + 20 * MB))
            with subprocess.Popen([sys.executable, "-c", HOG, str(group.members), str(state.pid)]):
                output, _ = job.communicate(timeout=240)
        finally:
            job.kill()
            group.end()
    state = run.read_state()
    assert state is not None
    assert (state.phase, state.reason) == ("failed", "out of memory"), output.decode()
    assert state.detail is not None
    assert "raise mem_gb in the profile, or lower runs_per_job" in state.detail
    assert state.attempt == 1
    assert job.returncode == 1


def test_a_process_that_is_killed_otherwise_does_not_count(tmp_path: Path):
    before = kernel_kills()
    with subprocess.Popen(["sleep", "60"]) as process:
        process.kill()
    assert kernel_kills() == before
