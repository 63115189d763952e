"""Launching on a cluster that has no room, no accounting, or none that is configured: right words, every run once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import yaml

from tests.conftest import wait_until
from tests.slurm.cluster import ACCOUNT, OTHER_USER, Cluster
from tests.slurm.place import NOISE, PROFILE, Place

pytestmark = pytest.mark.slow

KILLED_AFTER = '"$REAL" "$@" > answer; kill -KILL $LAUNCH_PID; cat answer'


@contextmanager
def settings(cluster: Cluster, lines: str) -> Iterator[None]:
    """The controller with these lines added to its settings; it is started again before and after."""
    file = cluster.folder / "etc" / "slurm.conf"
    before = file.read_text()
    try:
        cluster.stop_controller()
        file.write_text(before + lines)
        cluster.start_controller()
        yield
    finally:
        cluster.stop_controller()
        file.write_text(before)
        cluster.start_controller()


def test_a_full_queue_is_told_and_the_next_launch_submits_everything(place: Place) -> None:
    """SLURM counts the jobs of all users: a launch cannot know how many more it takes."""
    sweep = place.sweep()
    others = (
        "sbatch",
        f"--uid={OTHER_USER}",
        "--hold",
        "--chdir=/",
        "--array=0-3",
        "--output=/dev/null",
        "--wrap=true",
    )
    with settings(place.cluster, "MaxJobCount=6\nMinJobAge=2\n"):  # What earlier tests have left is soon forgotten.
        place.cluster.command(*others, timeout=120)
        code, output = place.launch(SBATCH_TIMEOUT_S="10", DOUBT_S="8")  # sbatch itself tries again for minutes.
        place.cluster.command("scancel", f"--user={OTHER_USER}")
    assert code == 1, output
    assert "Slurm temporarily unable to accept job" in output
    assert "Launch again when some jobs have ended" in output
    assert [job.refused is not None for job in place.ledger.jobs()] == [True]
    assert not place.queued()

    code, output = place.launch()

    assert code == 0, output
    place.assert_each_run_was_submitted_once(sweep)


def test_as_many_are_submitted_as_a_limit_allows_that_only_slurm_knows(place: Place) -> None:
    sweep = place.sweep(seeds=5)
    limit = ["sacctmgr", "--immediate", "modify", "account", "where", f"name={ACCOUNT}", "set"]
    try:
        place.cluster.command(*limit, "GrpSubmitJobs=6")
        code, output = place.launch()
        assert code == 1, output
        assert "AssocGrpSubmitJobsLimit" in output
        assert "Trying the first 5 jobs of them" in output
        assert "The rest is for a later launch" in output
        assert len(place.queued()) == 5
    finally:
        place.cluster.command(*limit, "GrpSubmitJobs=-1")
    assert place.launch()[0] == 0
    place.assert_each_run_was_submitted_once(sweep)


def test_a_job_that_is_too_long_is_not_taken_for_one_too_many(place: Place) -> None:
    place.sweep(PROFILE)
    qos = ["sacctmgr", "--immediate", "modify", "qos", "where", "name=normal", "set"]
    try:
        place.cluster.command(*qos, "Flags=DenyOnLimit", "MaxWall=1")
        code, output = place.launch()
    finally:
        place.cluster.command(*qos, "Flags=-1", "MaxWall=-1")
    assert code == 2, output
    assert "QOSMaxWallDurationPerJobLimit" in output
    assert "Lower timeout_min: in the profile" in output
    assert "Trying the first" not in output


def test_without_the_accounting_daemon_nothing_is_lost_or_doubled(place: Place) -> None:
    """Also an intent of a launch that died is settled: the queue knows the job."""
    sweep = place.sweep()
    place.cluster.stop_accounting()
    place.replace_sbatch(KILLED_AFTER)
    code, output = place.launch()
    assert code == -signal.SIGKILL, output
    place.restore_sbatch()
    code, output = place.run("status", "tiny.yaml")
    assert code == 0, output
    assert "2 waiting" in output
    code, output = place.launch()
    assert code == 0, output
    assert "taken over" in output
    larger = place.sweep(grid={NOISE: [0.1, 0.2, 0.3]})
    code, output = place.launch()
    assert code == 0, output
    code, output = place.run("plan", "tiny.yaml")
    assert code == 0, output
    assert "A launch starts nothing" in output

    first, second = place.ledger.jobs()
    place.cluster.command("scancel", first.slurm_id)
    wait_until(lambda: len(place.queued()) == 1)
    code, output = place.run("status", "tiny.yaml", COLUMNS="200")
    assert code == 0, output
    assert "ended, result missing; there is no accounting (sacct) to say how it ended" in output
    assert "2 new · 1 waiting" in output

    place.cluster.start_accounting()
    assert [run.run_id for run in larger.runs] == [*(run.run_id for run in sweep.runs), *second.runs]
    assert place.launch()[0] == 0
    assert place.ledger.jobs()[2].runs == first.runs


def test_where_no_accounting_is_configured_launch_and_status_work(place: Place) -> None:
    """The commands read settings without accounting, as on a cluster that has none; the controller is the same."""
    sweep = place.sweep()
    configured = (place.cluster.folder / "etc" / "slurm.conf").read_text().splitlines(keepends=True)
    bare = place.path / "slurm.conf"
    bare.write_text("".join(line for line in configured if not line.startswith("Accounting")))
    code, output = place.launch(SLURM_CONF=str(bare))
    assert code == 0, output
    (job,) = place.ledger.jobs()
    place.cluster.command("scancel", f"{job.slurm_id}_0")
    wait_until(lambda: len(place.queued()) == 1)
    code, output = place.run("status", "tiny.yaml", SLURM_CONF=str(bare), COLUMNS="200")
    assert code == 0, output
    assert f"job {job.slurm_id}_0 ended, result missing; there is no accounting (sacct)" in output
    code, output = place.launch(SLURM_CONF=str(bare))
    assert code == 0, output
    assert place.ledger.jobs()[1].runs == (sweep.runs[0].run_id,)
    assert len(place.queued()) == 2


def test_a_launch_on_this_machine_leaves_to_slurm_what_an_earlier_one_gave_it(place: Place) -> None:
    place.sweep()
    place.replace_sbatch(KILLED_AFTER)
    assert place.launch()[0] == -signal.SIGKILL
    place.restore_sbatch()
    (place.path / "local.yaml").write_text(yaml.safe_dump({"where": "local"}))
    (place.path / "empty.conf").touch()
    code, output = place.launch("--on", "local.yaml", SLURM_CONF=str(place.path / "empty.conf"), DOUBT_S="0")
    assert code == 2, output
    assert "has perhaps given runs of this sweep to SLURM, which cannot be asked" in output

    code, output = place.launch("--on", "local.yaml")

    assert code == 1, output
    assert "taken over" in output
    assert "2 waiting" in output
    assert [job.slurm_id is not None for job in place.ledger.jobs()] == [True]
    assert len(place.queued()) == 2
