"""What a plan says of folders in every state, the packs it makes, and the ledger."""

import time
from pathlib import Path

import pytest

from tests.conftest import tiny
from tests.sweep_files import write_sweep
from vwm.config_file import InvalidInput
from vwm.files import locked
from vwm.sweep.grid import Sweep, SweepRun, read_sweep
from vwm.sweep.ledger import Job, Ledger
from vwm.sweep.plan import ObservedRun, jobs_to_start, make_plan
from vwm.sweep.profile import LocalProfile, SlurmProfile, read_profile
from vwm.training.run_folder import Phase, Reason, RunFolder, RunState, prepare_run_folder

NOISE = "model_params.spike_noise_factor"


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return read_sweep(write_sweep(tmp_path, grid={NOISE: [0.1, 0.2]}, seeds=4))


def left_in(folder: Path, run: SweepRun, phase: Phase, reason: Reason | None = None) -> RunFolder:
    """The folder of a run whose last attempt left it in ``phase``."""
    run_folder = prepare_run_folder(folder / run.run_id, run.configuration)
    run_folder.write_state(RunState(phase=phase, iteration=5, num_iterations=60, attempt=1, reason=reason))
    return run_folder


def test_a_plan_of_a_sweep_that_was_never_launched_writes_nothing(sweep: Sweep, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    plan = make_plan(sweep, tmp_path / "runs" / "tiny")
    assert [observed.run_id for observed in plan.in_state("new")] == [run.run_id for run in sweep.runs]
    assert plan.left == ()
    assert set(tmp_path.rglob("*")) == before


def test_the_state_of_a_run_follows_from_its_lock_its_result_and_its_last_words(sweep: Sweep, tmp_path: Path) -> None:
    runs = sweep.runs
    left_in(tmp_path, runs[0], "finished").result.write_text("{}")
    training = left_in(tmp_path, runs[1], "training")
    left_in(tmp_path, runs[2], "training")  # and nobody holds it: it was killed
    left_in(tmp_path, runs[3], "stopped", "time limit")
    left_in(tmp_path, runs[4], "failed", "nan")
    left_in(tmp_path, runs[5], "finished")  # somebody deleted its result
    held_before_its_first_words = prepare_run_folder(tmp_path / runs[6].run_id, runs[6].configuration)

    with locked(training.lock), locked(held_before_its_first_words.lock):
        plan = make_plan(sweep, tmp_path)

    expected = ["finished", "running", "interrupted", "stopped", "failed", "interrupted", "running", "new"]
    assert [observed.state for observed in plan.runs] == expected
    counts = {"running": 2, "failed": 1, "interrupted": 2, "stopped": 1, "new": 1, "finished": 1}
    assert {state: count for state, count in plan.counts().items() if count} == counts
    assert make_plan(sweep, tmp_path).runs[1].state == "interrupted"


def test_runs_that_left_the_grid_are_told_and_other_folders_are_not(sweep: Sweep, tmp_path: Path) -> None:
    larger = read_sweep(write_sweep(tmp_path, grid={NOISE: [0.1, 0.2, 0.3]}, seeds=4))
    for run in larger.runs:
        left_in(tmp_path, run, "stopped")
    for name in ("logs", "tables", "twelve_chars"):
        (tmp_path / name).mkdir()

    plan = make_plan(sweep, tmp_path)

    gone = {run.run_id for run in larger.runs} - {run.run_id for run in sweep.runs}
    assert {observed.run_id for observed in plan.left} == gone
    assert len(gone) == 4
    assert {observed.state for observed in plan.left} == {"stopped"}


def test_packs_are_filled_in_order_with_runs_of_one_size(tmp_path: Path) -> None:
    grid = {"model_params.num_neurons": [16, 32], NOISE: [0.1, 0.2, 0.3]}
    plan = make_plan(read_sweep(write_sweep(tmp_path, grid=grid)), tmp_path / "runs")

    jobs = jobs_to_start(plan.runs, LocalProfile(runs_per_job=2))

    settings = [[tuple(run.run.settings.values()) for run in job if run.run is not None] for job in jobs]
    assert settings == [[(16, 0.1), (16, 0.2)], [(16, 0.3)], [(32, 0.1), (32, 0.2)], [(32, 0.3)]]
    assert [len(job) for job in jobs_to_start(plan.runs, LocalProfile())] == [1] * 6


def test_auto_packs_as_many_runs_as_fill_a_gpu_and_one_on_a_cpu(tmp_path: Path) -> None:
    grid = {"model_params.num_neurons": [64, 256, 2048], NOISE: [0.1, 0.2]}
    base = tiny(training_params__num_trials=512)
    runs = make_plan(read_sweep(write_sweep(tmp_path, grid=grid, base=base, seeds=9)), tmp_path / "runs").runs

    on_gpu, on_cpu = (SlurmProfile(runs_per_job="auto", gpus_per_node=gpus) for gpus in (1, 0))
    assert [len(job) for job in jobs_to_start(runs, on_gpu)] == [16, 2, *[4] * 4, 2, *[1] * 18]
    assert [len(job) for job in jobs_to_start(runs, on_cpu)] == [1] * 54


@pytest.mark.parametrize(
    "change",
    [
        {NOISE: 0.5},
        {"training_params.eta": 0.1},
        {"training_params.num_trials": 48},
        {"model_params.dt": 10},
    ],
)
def test_runs_share_a_pack_exactly_when_training_can_batch_them(tmp_path: Path, change: dict[str, float]) -> None:
    from vwm.model.network import batch_shape

    ((name, value),) = change.items()
    section, field = name.split(".")
    sweep = read_sweep(write_sweep(tmp_path, grid={name: [tiny()[section].get(field, 1e-3), value]}))
    runs = [ObservedRun(run.run_id, "new", None, run) for run in sweep.runs]

    first, second = (run.configuration for run in sweep.runs)
    same_batch = first.training_params.num_trials == second.training_params.num_trials
    fits = same_batch and batch_shape(first.model_params) == batch_shape(second.model_params)
    assert len(jobs_to_start(runs, LocalProfile(runs_per_job=2))) == (1 if fits else 2)


# ---------------------------------------------------------------------------------------------------------------
# Profiles
# ---------------------------------------------------------------------------------------------------------------


def test_the_profile_of_the_project_is_the_default() -> None:
    assert read_profile(Path(__file__).parent.parent / "launch" / "local.yaml") == LocalProfile()


def test_jobs_at_a_time_follow_from_the_cores_unless_they_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    assert LocalProfile().concurrency == 8
    assert LocalProfile(processes_per_job=3).concurrency == 2
    assert LocalProfile(processes_per_job=9).concurrency == 1
    assert LocalProfile(jobs_at_a_time=5, processes_per_job=4).concurrency == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("where: slurn", 'profile.yaml:1: where\n    given     "slurn"\n    expected  local'),
        ("where: local\njobs_at_time: 2", "profile.yaml:2: jobs_at_time\n    given     unknown key 'jobs_at_time'"),
        ("jobs_at_a_time: 0", "jobs_at_a_time\n    given     0\n    expected  auto, or a whole number from 1 on"),
        ("runs_per_job: 1.5", "runs_per_job\n    given     1.5"),
        ("processes_per_job: two", 'processes_per_job\n    given     "two"'),
        ("- 1", "the whole file"),
    ],
)
def test_a_bad_profile_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInput) as refused:
        read_profile(path)
    assert message in str(refused.value)


# ---------------------------------------------------------------------------------------------------------------
# The ledger
# ---------------------------------------------------------------------------------------------------------------


def test_the_ledger_tells_jobs_in_the_order_of_their_intents(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    assert ledger.jobs() == []
    ledger.launched({"vwm": "0"})
    ledger.intends("first", [["a", "b"]])
    ledger.started("first", 12)
    ledger.intends("second", [["b"]])
    ledger.ended("first", -9)

    first, second = ledger.jobs()
    assert first == Job("first", (("a", "b"),), first.time, pid=12, exit_code=-9)
    assert second == Job("second", (("b",),), second.time)
    assert first.runs == ("a", "b")
    assert [job.name for job in ledger.jobs_of("b")] == ["first", "second"]
    assert [job.name for job in ledger.jobs_of("a")] == ["first"]


def test_an_array_is_in_doubt_until_the_ledger_says_what_came_of_it(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for name in ("accepted", "refused", "doubtful"):
        ledger.intends(name, [["a"], ["b", "c"]], {"timeout_min": 5})
    ledger.intends("local", [["a"]])
    ledger.submitted("accepted", "17")
    ledger.refused("refused", "Invalid partition name specified")

    accepted, refused, doubtful, local = ledger.jobs()

    assert (accepted.slurm_id, refused.refused) == ("17", "Invalid partition name specified")
    assert doubtful.elements == (("a",), ("b", "c"))
    assert doubtful.task == {"timeout_min": 5}
    assert [job.is_in_doubt for job in (accepted, refused, doubtful, local)] == [False, False, True, False]


def test_a_line_torn_by_a_power_cut_spoils_neither_the_lines_before_nor_those_after(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.intends("first", [["a"]])
    whole = path.read_bytes()
    ledger.intends("second", [["b"]])
    second = path.read_bytes()[len(whole) :]

    for cut in range(len(second)):
        path.write_bytes(whole + second[:cut])
        assert [job.name for job in ledger.jobs()] in (["first"], ["first", "second"])
        ledger.intends("third", [["c"]])
        assert [job.name for job in ledger.jobs()][-1] == "third"
        assert ledger.jobs()[0].name == "first"


def test_only_cancellations_after_the_mark_count(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.cancelled(["a"])
    mark = ledger.size()
    assert ledger.cancelled_since(mark) == set()
    ledger.cancelled(["b", "c"])
    assert ledger.cancelled_since(mark) == {"b", "c"}


def test_every_entry_says_when(tmp_path: Path) -> None:
    import json

    before = time.time()
    Ledger(tmp_path / "ledger.jsonl").intends("first", [["a"]])
    (line,) = (tmp_path / "ledger.jsonl").read_text().splitlines()
    assert before - 1 < json.loads(line)["time"] < time.time() + 1
