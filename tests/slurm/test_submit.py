"""Submitting to a real cluster: every run once, whatever happens around sbatch."""

import json
import shutil
import signal
import subprocess
import sys

import pytest

from tests.conftest import wait_until
from tests.slurm.place import HELD, NOISE, PROFILE, ROOT, Place

pytestmark = pytest.mark.slow


def test_an_array_trains_every_run_with_the_code_as_it_was(place: Place) -> None:
    """The checkout is a copy, which is broken after the launch: what waits in the queue does not notice."""
    checkout = place.path / "checkout"
    shutil.copytree(ROOT / "vwm", checkout / "vwm", ignore=shutil.ignore_patterns("__pycache__"))
    sweep = place.sweep(HELD)
    code, output = place.launch(PYTHONPATH=str(checkout))
    assert code == 0, output
    assert "submitted" in output
    for path in (checkout / "vwm").rglob("*.py"):
        path.write_text("raise SystemExit('the edited checkout runs')\n")

    place.cluster.command("scontrol", "release", place.ledger.jobs()[0].slurm_id)
    wait_until(lambda: not place.queued(), 600)

    logs = "".join(path.read_text() for path in (place.folder / "jobs").glob("*.out"))
    assert "the edited checkout runs" not in logs
    for run in sweep.runs:
        assert (place.folder / run.run_id / "result.json").exists(), logs
    code, output = place.launch()
    assert code == 0, output
    assert "nothing to submit" in output


BEFORE = "kill -KILL $LAUNCH_PID; sleep 0.2; exit 1"
DURING = 'kill -KILL $LAUNCH_PID; sleep 1; exec "$REAL" "$@"'
AFTER = '"$REAL" "$@" > answer; kill -KILL $LAUNCH_PID; cat answer'


@pytest.mark.parametrize("script", [BEFORE, DURING, AFTER], ids=["before", "during", "after"])
def test_a_launch_killed_around_sbatch_is_completed_by_the_next(place: Place, script: str) -> None:
    sweep = place.sweep()
    place.replace_sbatch(script)
    code, output = place.launch()
    assert code == -signal.SIGKILL, output
    place.restore_sbatch()

    code, output = place.launch(**({"DOUBT_S": "8"} if script is BEFORE else {}))

    assert code == 0, output
    assert ("are free again" in output) == (script is BEFORE)
    assert ("taken over" in output) == (script is not BEFORE)
    place.assert_each_run_was_submitted_once(sweep)
    code, output = place.launch()
    assert code == 0, output
    place.assert_each_run_was_submitted_once(sweep)


ACCEPTED_BUT = {
    "says it timed out": '"$REAL" "$@" >/dev/null; echo "sbatch: error: Batch job submission failed: Socket timed out '
    'on send/recv operation" >&2; exit 1',
    "hangs": '"$REAL" "$@" >/dev/null; sleep 120',
    "answers late": 'sleep 1; "$REAL" "$@" >/dev/null; echo; exit 0',
}


@pytest.mark.parametrize("script", ACCEPTED_BUT.values(), ids=ACCEPTED_BUT.keys())
def test_a_job_that_was_accepted_without_a_word_is_found(place: Place, script: str) -> None:
    sweep = place.sweep()
    place.replace_sbatch(script)
    code, output = place.launch(SBATCH_TIMEOUT_S="15")
    assert code == 0, output
    assert "taken over" in output
    place.assert_each_run_was_submitted_once(sweep)


def test_a_job_that_arrives_late_is_waited_for(place: Place) -> None:
    """sbatch is given up after 10 s; what it had begun reaches SLURM 3 s later."""
    sweep = place.sweep()
    place.replace_sbatch('setsid sh -c "sleep 13; exec \\"\\$@\\"" sh "$REAL" "$@" >/dev/null 2>&1 & sleep 120')
    code, output = place.launch(SBATCH_TIMEOUT_S="10")
    assert code == 0, output
    assert "taken over" in output
    place.assert_each_run_was_submitted_once(sweep)


def test_variables_of_the_user_do_not_overrule_the_profile(place: Place) -> None:
    """sbatch obeys SBATCH_… more than its script. Two runs are an array, one alone is not."""
    for grid in ([0.1, 0.2], [0.1, 0.2, 0.3]):
        sweep = place.sweep(grid={NOISE: grid})
        code, output = place.launch(SBATCH_JOB_NAME="mine", SBATCH_TIMELIMIT="77", SBATCH_NO_REQUEUE="1")
        assert code == 0, output
        job = place.ledger.jobs()[-1]
        shown = place.cluster.command("scontrol", "show", "job", str(job.slurm_id))
        assert f"JobName={job.name}\n" in shown
        assert "TimeLimit=00:05:00" in shown
        assert "Requeue=1" in shown
    place.assert_each_run_was_submitted_once(sweep)


def test_a_refusal_is_shown_in_slurms_words(place: Place) -> None:
    sweep = place.sweep({**HELD, "partition": "nowhere"})
    code, output = place.launch()
    assert code == 2
    assert "invalid partition" in output.lower()
    assert "Correct partition: in the profile" in output
    (job,) = place.ledger.jobs()
    assert job.refused is not None
    assert "partition" in job.refused
    assert place.queued() == []

    code, output = place.run("plan", "tiny.yaml")
    assert code == 0
    assert "SLURM would refuse these jobs" in output
    place.sweep()
    code, output = place.launch()
    assert code == 0, output
    place.assert_each_run_was_submitted_once(sweep)


def test_a_stopped_controller_is_told_and_nothing_is_lost(place: Place) -> None:
    sweep = place.sweep()
    place.replace_sbatch('touch called; exec "$REAL" "$@"')
    place.cluster.stop_controller()
    code, output = place.launch()
    assert code == 3, output
    assert "SLURM cannot be asked" in output
    assert not (place.path / "called").exists()
    code, output = place.run("plan", "tiny.yaml")
    assert code == 0, output
    assert "could not be asked" in output
    place.cluster.start_controller()
    assert place.launch()[0] == 0
    place.assert_each_run_was_submitted_once(sweep)


def test_a_controller_that_stops_while_sbatch_runs_leaves_a_doubt_that_the_next_launch_settles(place: Place) -> None:
    sweep = place.sweep()
    stop = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.slurm.cluster import Cluster"
    (place.path / "stop.py").write_text(
        f"{stop}; from pathlib import Path; Cluster(Path(sys.argv[1])).stop_controller()"
    )
    folder = place.cluster.folder
    # What the second sbatch says is what the first would have heard a moment later.
    again = f'"$REAL" "$@" >/dev/null; {sys.executable} stop.py {folder}; exec "$REAL" "$@"'
    place.replace_sbatch(again)
    code, output = place.launch(DOUBT_S="8")
    assert code == 3, output
    assert [job.is_in_doubt for job in place.ledger.jobs()] == [True]
    assert place.launch(DOUBT_S="8")[0] == 3
    place.restore_sbatch()
    place.cluster.start_controller()

    code, output = place.launch()

    assert code == 0, output
    assert "taken over" in output
    place.assert_each_run_was_submitted_once(sweep)


def test_more_jobs_than_an_array_may_have_go_into_several(place: Place) -> None:
    sweep = place.sweep({**HELD, "jobs_at_a_time": 3}, seeds=501)
    code, output = place.launch()
    assert code == 0, output
    assert "MaxArraySize = 1001" in output
    jobs = place.ledger.jobs()
    assert [len(job.elements) for job in jobs] == [1000, 2]
    throttles = [
        place.cluster.command("scontrol", "show", "job", str(job.slurm_id)).split("ArrayTaskThrottle=")[1].split()[0]
        for job in jobs
    ]
    assert throttles == ["2", "1"]
    place.assert_each_run_was_submitted_once(sweep)


def test_what_the_queue_has_no_room_for_is_said_and_submitted_later(place: Place) -> None:
    sweep = place.sweep(seeds=4)
    place.cluster.set_limits(MaxSubmitJobs=5)
    code, output = place.launch()
    assert code == 1, output
    assert "MaxSubmitJobs of account vwm = 5" in output
    assert "Launch again when some of yours have ended" in output
    assert len(place.queued()) == 5
    code, output = place.launch()
    assert code == 1, output
    assert len(place.queued()) == 5
    place.cluster.set_limits(MaxSubmitJobs=-1)
    code, output = place.launch()
    assert code == 0, output
    place.assert_each_run_was_submitted_once(sweep)


def test_two_launches_at_once_submit_every_run_once(place: Place) -> None:
    sweep = place.sweep(seeds=20)
    launches = [place.start("launch", "tiny.yaml") for _ in range(2)]
    outputs = [launch.communicate(timeout=300)[0] for launch in launches]
    assert [launch.returncode for launch in launches] == [0, 0], outputs
    place.assert_each_run_was_submitted_once(sweep)


def test_later_arrays_wait_for_earlier_ones_where_jobs_are_limited(place: Place) -> None:
    place.sweep({**HELD, "jobs_at_a_time": 2})
    assert place.launch()[0] == 0
    larger = place.sweep({**HELD, "jobs_at_a_time": 2}, grid={NOISE: [0.1, 0.2, 0.3]})
    code, output = place.launch()
    assert code == 0, output
    first, second = place.ledger.jobs()
    assert f"afterany:{first.slurm_id}" in place.cluster.command("scontrol", "show", "job", str(second.slurm_id))
    place.assert_each_run_was_submitted_once(larger)


def test_prune_cancels_jobs_whose_runs_all_left_the_grid_and_no_others(place: Place) -> None:
    before = place.sweep({**HELD, "runs_per_job": 2}, seeds=[0, 1, 2])  # packs (.1 0, .1 1) (.1 2, .2 0) (.2 1, .2 2)
    assert place.launch()[0] == 0
    place.sweep({**HELD, "runs_per_job": 2}, grid={NOISE: [0.1]}, seeds=[0, 1, 2])
    code, output = place.launch()
    assert code == 0, output
    assert len(place.queued()) == 3

    code, output = place.launch("--prune")

    assert code == 0, output
    assert before.runs[4].run_id in output
    assert "it also carries runs that are still in the grid" in output
    assert sorted(name.split("_")[1] for name in place.queued()) == ["0", "1"]


def test_retry_submits_failed_runs_only(place: Place) -> None:
    sweep = place.sweep(grid={NOISE: [0.1, 0.2, 0.3]})
    first, second, third = (run.run_id for run in sweep.runs)
    for run, reason in zip(sweep.runs[:2], ("out of memory", "nan"), strict=True):
        failed = place.folder / run.run_id
        failed.mkdir(parents=True)
        (failed / "config.yaml").write_text(run.configuration.to_yaml())
        state = {"phase": "failed", "iteration": 3, "num_iterations": 60, "attempt": 1, "reason": reason}
        (failed / "state.json").write_text(json.dumps(state))
    assert place.launch()[0] == 0
    code, output = place.run("retry", "tiny.yaml", "--oom")
    assert code == 0, output
    assert [job.runs for job in place.ledger.jobs()] == [(third,), (first,)]
    code, output = place.run("retry", "tiny.yaml", first)
    assert code == 2
    assert f"{first} is waiting; only failed runs are retried" in output
    code, output = place.run("retry", "tiny.yaml", second[:7])
    assert code == 0, output
    place.assert_each_run_was_submitted_once(sweep)


def test_user_signals_before_python_is_ready_do_not_kill_the_task(place: Place) -> None:
    place.sweep({**PROFILE, "setup": ["sleep 3"]}, grid={NOISE: [0.1]})
    assert place.launch()[0] == 0
    (job,) = place.ledger.jobs()
    log = place.folder / "jobs" / f"{job.slurm_id}_0_log.out"
    sent = 0

    def has_begun() -> bool:
        nonlocal sent
        # Of a job that is just being started scancel asks once more after five seconds, when all may be over.
        words = ["timeout", "1", "scancel", "--signal=USR2", str(job.slurm_id)]
        sent += subprocess.run(words, env=place.cluster.environment, capture_output=True, check=False).returncode == 0
        return log.exists() and "Starting" in log.read_text()

    wait_until(has_begun)
    wait_until(lambda: not place.queued(), 600)
    assert sent > 0
    wait_until(lambda: "COMPLETED" in place.cluster.command("sacct", "-X", "-n", "-j", job.slurm_id, "--format=State"))
