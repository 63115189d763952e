"""The cluster as the tests of this folder get it: running, idle, and one test's alone."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import wait_until
from tests.slurm.cluster import Cluster
from tests.slurm.install import CannotRunHere
from tests.slurm.place import Place


@pytest.fixture(scope="session")
def running_cluster() -> Iterator[Cluster]:
    """The cluster, up; the last session that uses it takes it down, unless it ran before the tests."""
    ran_before = bool(Cluster().living())
    try:
        cluster = Cluster.up()
    except CannotRunHere as reason:
        # Where everything must be tested, a cluster that cannot run is a failure.
        report = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        report(f"no SLURM cluster here: {reason}")
    started_by_tests = cluster.folder / "started_by_tests"
    with open(cluster.folder / "users.lock", "a") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        # Another session may have taken it down before this one was counted as a user.
        ran_before = ran_before and bool(cluster.living())
        Cluster.up()
        if not ran_before:
            started_by_tests.touch()
        yield cluster
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if started_by_tests.exists():
                cluster.down()


@pytest.fixture
def cluster(running_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster for one test: no other test uses it meanwhile, and whatever the test broke is mended after it."""
    with open(running_cluster.folder / "test.lock", "a") as one_test:
        fcntl.flock(one_test, fcntl.LOCK_EX)
        yield running_cluster
        Cluster.up()
        running_cluster.set_limits(MaxSubmitJobs=-1)
        running_cluster.command("scancel", "--user=root")
        wait_until(lambda: not running_cluster.command("squeue", "--noheader"))


@pytest.fixture
def place(tmp_path: Path, cluster: Cluster) -> Place:
    """A folder to launch from, with a name that no shell likes."""
    return Place(tmp_path / 'it\'s a [bold]"sweep" $HOME;', cluster)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder for another cluster; pytest's own are too long for the names of sockets."""
    folder = Path(f"/tmp/vwm-slurm-{os.getpid()}")
    yield folder
    Cluster(folder).down()
    shutil.rmtree(folder, ignore_errors=True)
