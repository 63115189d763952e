"""What status, cancel and logs say and do about real SLURM jobs, which sleep: what trains is tested elsewhere."""

import io
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import wait_until
from tests.slurm.cluster import ACCOUNT, Cluster
from tests.sweep_files import SWEEP, write_sweep
from vwm.sweep import slurm
from vwm.sweep.cancel import cancel_runs
from vwm.sweep.find import FoundSweep
from vwm.sweep.grid import read_sweep
from vwm.sweep.ledger import Ledger
from vwm.sweep.logs import read_logs
from vwm.sweep.plan import ObservedRun
from vwm.sweep.status import status_view
from vwm.training.run_folder import RunFolder, RunState, prepare_run_folder

SLEEP = "sleep 1000"


class Sleepers:
    """A sweep of four runs that is on SLURM, as the ledger tells, in jobs that sleep."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        sweep = read_sweep(write_sweep(folder, grid={"model_params.spike_noise_factor": [0.1, 0.2]}, seeds=2))
        self.found = FoundSweep(sweep, folder / "runs" / "tiny")
        self.runs = [run.run_id for run in sweep.runs]
        self.ledger = Ledger(self.found.folder / "ledger.jsonl")
        (self.found.folder / "jobs").mkdir(parents=True)
        (self.found.folder / "sweep.yaml").write_text((folder / "tiny.yaml").read_text())
        for run in sweep.runs:
            prepare_run_folder(self.found.folder / run.run_id, run.configuration)

    def submit(self, name: str, elements: Sequence[Sequence[str]], *options: str, script: str = SLEEP) -> str:
        """Submit an array as launch does, with a line in the ledger before and after."""
        self.ledger.intends(name, elements, {"by": "hand"})
        log = f"--output={self.found.folder}/jobs/%A_%a_0_log.out"
        words = ["sbatch", "--parsable", f"--job-name={name}", f"--array=0-{len(elements) - 1}", "--requeue", *options]
        array_id = self.cluster.command(*words, "--open-mode=append", log, f"--wrap={script}")
        self.ledger.submitted(name, array_id)
        return array_id

    def now(self, index: int = 0) -> ObservedRun:
        return self.found.plan().runs[index]

    def wait_for_state(self, *states: str) -> None:
        """Wait until the first runs are in these states."""
        wait_until(lambda: [run.state for run in self.found.plan().runs][: len(states)] == list(states))

    def wait_for_note(self, note: str, index: int = 0) -> None:
        wait_until(lambda: self.now(index).note == note)

    def leave(self, index: int, state: RunState) -> RunFolder:
        files = RunFolder(self.found.folder / self.runs[index])
        files.write_state(state)
        return files

    def greetings(self) -> list[str]:
        """What the first run's job has said of its attempts."""
        output = "".join(read_logs(self.found.folder / self.runs[0], follow=False))
        return [line for line in output.splitlines() if "hello" in line]

    def shown(self) -> str:
        from rich.console import Console

        text = io.StringIO()
        Console(width=160, file=text).print(status_view("tiny", self.found.sweep.axes, self.found.plan()))
        return text.getvalue()


@pytest.fixture
def sleepers(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sleepers:
    for name in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(name, cluster.environment[name])
    return Sleepers(cluster, tmp_path)


def fill(cluster: Cluster) -> str:
    """Occupy all nodes; gives the id of the job that does."""
    return cluster.command("sbatch", "--parsable", "--nodes=4", "--exclusive", "--output=/dev/null", f"--wrap={SLEEP}")


def test_why_a_run_waits_is_told_in_words(sleepers: Sleepers) -> None:
    filler = fill(sleepers.cluster)
    each = [[run] for run in sleepers.runs]
    sleepers.submit("resources", each[:1])
    sleepers.wait_for_note("no free node")
    sleepers.submit("priority", each[1:2], "--nice=100")
    sleepers.submit("held", each[2:3], "--hold")
    sleepers.submit("after", each[3:], f"--dependency=afterany:{filler}")
    sleepers.wait_for_note("higher priority jobs first", 1)
    sleepers.wait_for_note("held", 2)
    sleepers.wait_for_note("begins after another array", 3)
    assert [run.state for run in sleepers.found.plan().runs] == ["waiting"] * 4
    text = sleepers.shown()
    assert "waiting: no free node" in text
    assert "waiting: 1 no free node · 1 higher priority jobs first · 1 held · 1 begins after another array" in text


@pytest.mark.parametrize(
    ("options", "limits", "note"),
    [
        (["--begin=now+1hour"], {}, "node down or requeue delay"),
        (["--array=0-3%1"], {}, "others of this array first"),
        ([], {"MaxJobs": 1}, "limit of your association"),
        (["--qos=narrow"], {}, "limit of your QOS"),
    ],
)
def test_limits_and_delays_are_told_in_words(
    sleepers: Sleepers, options: list[str], limits: dict[str, int], note: str
) -> None:
    cluster = sleepers.cluster
    user = ["where", "user=root", f"account={ACCOUNT}"]
    cluster.set_limits(**(limits or {"MaxJobs": -1}))
    if "--qos=narrow" in options:
        if not cluster.command("sacctmgr", "--noheader", "show", "qos", "narrow"):
            cluster.command("sacctmgr", "--immediate", "add", "qos", "narrow", "MaxJobsPerUser=1")
        cluster.command("sacctmgr", "--immediate", "modify", "user", *user, "set", "qos+=narrow")
    try:
        sleepers.submit("limited", [[run] for run in sleepers.runs], *options)
        sleepers.wait_for_note(note, 3)
        assert sleepers.now(3).state == "waiting"
    finally:
        cluster.command("scancel", "--user=root")
        cluster.set_limits(MaxJobs=-1)


def test_a_run_is_followed_from_node_to_node_over_its_attempts(sleepers: Sleepers) -> None:
    array = sleepers.submit("wanders", [sleepers.runs], script=f"echo hello from $SLURM_RESTART_COUNT; {SLEEP}")
    sleepers.wait_for_state(*["running"] * 4)
    assert "starting on node1" in sleepers.shown()
    sleepers.leave(0, RunState("training", 20, 60, 1, iterations_per_second=2.0))
    sleepers.leave(1, RunState("failed", 20, 60, 1, reason="nan", detail="not finite"))
    text = sleepers.shown()
    assert "running on node1" in text
    assert sleepers.now(1).state == "failed"  # though the others of its pack go on
    wait_until(lambda: sleepers.greetings() == ["hello from"])  # SLURM calls a job running before its script begins.

    slurm.requeue(f"{array}_0")
    delayed = [("waiting", "node down or requeue delay")] * 4  # for some seconds, so that one look has to do
    wait_until(lambda: [(run.state, run.note) for run in sleepers.found.plan().runs] == delayed)
    sleepers.wait_for_state(*["running"] * 4)  # What state.json says is of the attempt before.
    assert "starting on node1 (attempt 2)" in sleepers.shown()
    sleepers.leave(0, RunState("training", 25, 60, 2, iterations_per_second=2.0))
    assert "running on node1 (attempt 2)" in sleepers.shown()
    wait_until(lambda: len(sleepers.greetings()) == 2)
    assert sleepers.greetings() == ["hello from", "hello from 1"]


@pytest.mark.parametrize(("script", "word", "code"), [("true", "COMPLETED", ""), ("exit 3", "FAILED", "3:0")])
def test_a_job_that_ended_without_a_result_is_told(sleepers: Sleepers, script: str, word: str, code: str) -> None:
    array = sleepers.submit("ends", [[run] for run in sleepers.runs], script=script)
    finished = sleepers.leave(0, RunState("finished", 60, 60, 1))
    finished.result.write_text("{}")
    sleepers.leave(1, RunState("training", 20, 60, 1))
    wait_until(lambda: all(f"({word}" in run.note for run in sleepers.found.plan().runs[1:]))
    plan = sleepers.found.plan()
    assert [run.state for run in plan.runs] == ["finished", "interrupted", "new", "new"]
    assert plan.runs[1].note.startswith(f"job {array}_1 ended ({word}")
    assert code in plan.runs[1].note
    assert "result missing" in plan.runs[1].note
    assert not plan.runs[0].note


@pytest.mark.slow
def test_a_time_limit_a_lost_node_and_a_lack_of_memory_are_told(sleepers: Sleepers, tmp_path: Path) -> None:
    """Nothing here can run out of memory as SLURM sees it, so that this word is put into the accounting's database."""
    cluster = sleepers.cluster
    names = ("limit", "node", "memory")
    limit = sleepers.submit("limit", [[sleepers.runs[0]]], "--time=1")
    node = sleepers.submit("node", [[sleepers.runs[1]]], "--no-requeue", "--nodelist=node2")
    memory = sleepers.submit("memory", [[sleepers.runs[2]]], script="exit 9")
    for index in range(len(names)):
        sleepers.leave(index, RunState("training", 20, 60, 1))
    sleepers.wait_for_state("running", "running")
    wait_until(lambda: "(FAILED" in sleepers.now(2).note)
    cluster.kill_node("node2")
    cluster.command("scontrol", "update", "NodeName=node2", "State=DOWN", "Reason=test")
    cluster.start_node("node2")
    # 11 is JOB_OOM of slurm.h.
    sql = f"UPDATE slurm_acct_db.vwm_job_table SET state = 11, exit_code = 125 WHERE id_array_job = {memory}"
    cluster.command("mariadb", f"--socket={cluster.folder}/run/mariadb", f"--execute={sql}")
    wait_until(lambda: "NODE_FAIL" in sleepers.now(1).note)
    assert sleepers.now(1).note.startswith(f"job {node} ended (NODE_FAIL")
    assert "on node2, result missing" in sleepers.now(1).note
    wait_until(lambda: "TIMEOUT" in sleepers.now(0).note)
    assert sleepers.now(0).note.startswith(f"job {limit} ended (TIMEOUT")
    assert [run.state for run in sleepers.found.plan().runs[:2]] == ["interrupted", "interrupted"]

    # Who ran out of memory would do so again: it is for retry, and not for launch.
    failed = sleepers.now(2)
    assert failed.state == "failed"
    assert failed.note.startswith(f"job {memory} ended (OUT_OF_MEMORY")
    assert "raise mem_gb in the profile" in sleepers.shown()
    words = [sys.executable, *SWEEP, "status", "tiny", "--json"]
    facts = json.loads(subprocess.run(words, cwd=tmp_path, capture_output=True, check=True).stdout)
    assert facts["runs"][2]["record"]["reason"] == "out of memory"


def test_logs_follow_a_job_over_its_attempts_until_it_ends(sleepers: Sleepers, tmp_path: Path) -> None:
    script = f'echo attempt $SLURM_RESTART_COUNT; [ -n "$SLURM_RESTART_COUNT" ] || exec {SLEEP}; sleep 2; echo the end'
    array = sleepers.submit("followed", [sleepers.runs[:1]], script=script)
    words = [sys.executable, "-u", *SWEEP, "logs", "-f", sleepers.runs[0]]
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as logs:
        assert logs.stdout is not None
        assert logs.stdout.readline() == "attempt\n"  # while it runs
        slurm.requeue(f"{array}_0")
        rest, _ = logs.communicate(timeout=300)
    assert [line for line in rest.splitlines() if not line.startswith("slurmstepd")] == ["attempt 1", "the end"]
    assert logs.returncode == 0


def test_elements_that_were_cancelled_before_they_began_are_known(sleepers: Sleepers) -> None:
    array = sleepers.submit("early", [[run] for run in sleepers.runs], "--hold")
    sleepers.wait_for_state(*["waiting"] * 4)
    sleepers.cluster.command("scancel", array)
    wait_until(lambda: all("(CANCELLED)" in run.note for run in sleepers.found.plan().runs))
    assert {run.state for run in sleepers.found.plan().runs} == {"new"}


def test_a_job_of_the_same_id_and_another_name_is_not_ours(sleepers: Sleepers) -> None:
    other = sleepers.cluster.command("sbatch", "--parsable", "--array=0-3", "--output=/dev/null", f"--wrap={SLEEP}")
    sleepers.ledger.intends("of-last-year", [[run] for run in sleepers.runs], {"by": "hand"})
    sleepers.ledger.submitted("of-last-year", other)
    assert sleepers.now().state == "new"
    sleepers.wait_for_note(f"job {other}_0 is known neither to squeue nor to sacct, result missing")
    report = cancel_runs(sleepers.found.folder, sleepers.found.plan().runs, sleepers.found.plan().runs)
    assert report.lines == ("Nothing is running.",)
    assert len([entry for entry in slurm.queue() if entry.array_id == other]) == 4


def test_a_run_without_a_noted_job_is_found_by_the_name_of_the_job(sleepers: Sleepers) -> None:
    sleepers.ledger.intends("doubtful", [[sleepers.runs[0]]], {"by": "hand"})
    assert "the next launch finds out" in sleepers.now().note
    words = ["sbatch", "--parsable", "--array=0", "--job-name=doubtful", "--output=/dev/null", f"--wrap={SLEEP}"]
    array = sleepers.cluster.command(*words)
    sleepers.wait_for_state("running")
    assert slurm.find_by_name("doubtful", time.time()) == array
    sleepers.cluster.command("scancel", array)
    wait_until(lambda: not slurm.queue(["doubtful"]))
    wait_until(lambda: slurm.find_by_name("doubtful", time.time()) == array)  # from the accounting


def test_without_accounting_and_without_a_controller(sleepers: Sleepers, tmp_path: Path) -> None:
    done = sleepers.submit("done", [[sleepers.runs[0]], [sleepers.runs[1]]], script="true")
    sleepers.submit("sleeps", [[sleepers.runs[2]], [sleepers.runs[3]]])
    sleepers.leave(0, RunState("finished", 60, 60, 1)).result.write_text("{}")
    wait_until(lambda: "COMPLETED" in sleepers.now(1).note)
    sleepers.wait_for_state("finished", "new", "running", "running")

    sleepers.cluster.stop_accounting()
    plan = sleepers.found.plan()
    assert [run.state for run in plan.runs] == ["finished", "new", "running", "running"]
    assert plan.runs[1].note.startswith(f"job {done}_1 ended, result missing; there is no accounting")

    sleepers.cluster.stop_controller()
    command = [sys.executable, *SWEEP, "status", "tiny"]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert shown.returncode == 3, shown.stderr
    assert "1 finished · 3 unreachable" in " ".join(shown.stdout.split())
    assert "Unable to contact slurm controller" in " ".join(shown.stdout.split())
    facts = json.loads(subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, check=False).stdout)
    assert "Unable to contact" in facts["scheduler_unreachable"]


def test_cancel_takes_whole_jobs_and_asks_single_members_of_a_pack(sleepers: Sleepers) -> None:
    other = sleepers.cluster.command("sbatch", "--parsable", "--output=/dev/null", f"--wrap={SLEEP}")
    array = sleepers.submit("packs", [sleepers.runs[:2], [sleepers.runs[2]], [sleepers.runs[3]]], "--array=0-2%2")
    sleepers.wait_for_state("running", "running", "running", "waiting")

    def cancel(*indices: int) -> str:
        everything = sleepers.found.plan().runs
        return "\n".join(cancel_runs(sleepers.found.folder, [everything[index] for index in indices], everything).lines)

    assert cancel(0) == "1 run asked to save and stop."
    asked, left_alone = (RunFolder(sleepers.found.folder / run).stop for run in sleepers.runs[:2])
    assert asked.read_text() == "stop requested"
    assert not left_alone.exists()
    assert cancel(3) == f"1 SLURM job cancelled: {array}_2."
    wait_until(lambda: {entry.target for entry in slurm.queue(["packs"])} == {f"{array}_0", f"{array}_1"})
    assert f"2 SLURM jobs cancelled: {array}_0, {array}_1." in cancel(0, 1, 2, 3)
    wait_until(lambda: [entry.target for entry in slurm.queue()] == [other])
