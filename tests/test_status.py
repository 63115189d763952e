"""What status shows and tells: the same facts for a person, in 80 columns, and for a program."""

import io
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from tests.conftest import tiny
from tests.sweep_files import write_sweep
from vwm.sweep.grid import Sweep, read_sweep
from vwm.sweep.plan import ObservedRun, Plan, State, jobs_to_start, make_plan
from vwm.sweep.profile import LocalProfile, SlurmProfile
from vwm.sweep.status import as_json, duration, overview, plan_view, runs_table, status_view
from vwm.training.run_folder import Reason, RunState

NOISE, RATE = "model_params.spike_noise_factor", "model_params.saturation_firing_rate"
NOW = time.time()
RECORD = RunState("training", 150, 600, 1, NOW, "host", 1, 12.5, 0.4321)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time stands still: in a long test session NOW would be long ago when a test looks."""
    monkeypatch.setattr(time, "time", lambda: NOW)


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    grid = {NOISE: [0.05, 0.15], RATE: [60, 40], "model_params.item_num": [[1], [1, 2, 3]]}
    return read_sweep(write_sweep(tmp_path, grid=grid, seeds=2))


def observed(
    sweep: Sweep, index: int, state: State, record: RunState | None, began: float | None = None
) -> ObservedRun:
    run = sweep.runs[index]
    return ObservedRun(run.run_id, state, record, run, began)


def plan_of(sweep: Sweep) -> Plan:
    """A run in every state, two of them running, and one that left the grid."""
    stopped: Reason = "time limit"
    special = [
        observed(sweep, 0, "finished", replace(RECORD, phase="finished", iteration=600)),
        observed(sweep, 1, "running", RECORD),
        observed(sweep, 2, "running", replace(RECORD, iteration=300, iterations_per_second=25.0)),
        observed(sweep, 3, "failed", replace(RECORD, phase="failed", reason="nan", detail="the loss is [bold]nan[/]")),
        observed(sweep, 4, "stopped", replace(RECORD, phase="stopped", reason=stopped, attempt=3)),
        observed(sweep, 5, "interrupted", RECORD),
    ]
    new = [observed(sweep, index, "new", None) for index in range(6, len(sweep.runs))]
    return Plan((*special, *new), (ObservedRun("0123456789ab", "stopped", RECORD, None),))


def rendered(view: RenderableType, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(view)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def line_of(text: str, beginning: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith(beginning)]
    return " ".join(line.split())


@pytest.mark.parametrize("width", [80, 160])
def test_the_numbers_of_a_run_are_whole_in_a_narrow_terminal(sweep: Sweep, width: int) -> None:
    text = rendered(status_view("tiny", sweep.axes, plan_of(sweep)), width)

    assert all(len(line) <= width for line in text.splitlines())
    assert "…" not in text
    # 450 iterations at 12.5 a second are 36 s.
    assert line_of(text, sweep.runs[1].run_id).startswith(
        f"{sweep.runs[1].run_id} 0.05 60 [1] 1 training 25 % 12.5 36 s"
    )
    assert "0.432" in line_of(text, sweep.runs[1].run_id)


def test_what_needs_a_look_comes_first_and_the_rest_is_counted(sweep: Sweep) -> None:
    text = rendered(status_view("tiny", sweep.axes, plan_of(sweep)))
    order = [text.index(sweep.runs[index].run_id) for index in (1, 2, 3, 4, 5)]
    assert order == sorted(order)
    assert sweep.runs[0].run_id not in text
    assert sweep.runs[6].run_id not in text
    assert (
        "1 finished · 10 new · 1 stopped · 1 interrupted · 1 failed · 2 running · 1 no longer in the grid"
        in " ".join(text.split())
    )
    assert "stopped: time limit" in text
    assert "failed: nan" in text


def test_the_time_left_is_all_remaining_iterations_at_the_speed_of_all_running_runs(sweep: Sweep) -> None:
    # Remaining: 450 and 300 of the running ones, 450 each of the stopped and the interrupted one, 10 new ones of 60.
    left = as_json("tiny", plan_of(sweep))["seconds_left"]
    assert left == pytest.approx((450 + 300 + 450 + 450 + 10 * 60) / (12.5 + 25.0))
    idle = Plan(tuple(observed(sweep, index, "new", None) for index in range(3)), ())
    assert as_json("tiny", idle)["seconds_left"] is None


def test_text_of_others_is_printed_as_it_is(sweep: Sweep) -> None:
    assert "the loss is [bold]nan[/]" in rendered(status_view("tiny", sweep.axes, plan_of(sweep)))
    assert "[red]x[/red]" in rendered(overview([("[red]x[/red]", plan_of(sweep))]))


def test_a_process_that_has_gone_silent_is_told(sweep: Sweep) -> None:
    silent = observed(sweep, 0, "running", replace(RECORD, heartbeat=NOW - 1500))
    assert "silent for 25 min" in rendered(runs_table(sweep.axes, [silent]))
    facts = as_json("tiny", Plan((silent,), ()))["runs"][0]
    assert facts["stale"] is True
    assert as_json("tiny", plan_of(sweep))["runs"][1]["stale"] is False


def test_a_process_that_comes_up_and_one_that_goes_down_are_told_apart(sweep: Sweep) -> None:
    last_words = replace(RECORD, phase="stopped")
    coming = observed(sweep, 0, "running", last_words, began=NOW + 5)
    going = observed(sweep, 1, "running", last_words, began=NOW - 5)
    text = rendered(runs_table(sweep.axes, [coming, going, observed(sweep, 2, "running", None, NOW)]))
    assert "starting" in line_of(text, sweep.runs[0].run_id)
    assert "leaving" in line_of(text, sweep.runs[1].run_id)
    assert "starting" in line_of(text, sweep.runs[2].run_id)


def test_json_holds_every_fact_and_is_json(sweep: Sweep) -> None:
    facts = json.loads(json.dumps(as_json("tiny", plan_of(sweep)), allow_nan=False))
    assert [run["run_id"] for run in facts["runs"]] == [run.run_id for run in sweep.runs]
    assert facts["counts"]["running"] == 2
    failed = facts["runs"][3]
    assert (failed["state"], failed["record"]["reason"], failed["record"]["attempt"]) == ("failed", "nan", 1)
    assert failed["settings"] == {NOISE: 0.05, RATE: 60.0, "model_params.item_num": [1, 2, 3]}
    assert facts["no_longer_in_the_grid"][0]["run_id"] == "0123456789ab"


def test_long_lists_are_cut_and_say_so(sweep: Sweep) -> None:
    runs = [observed(sweep, index, "failed", RECORD) for index in range(8)]
    text = rendered(runs_table(sweep.axes, runs, rows=5))
    assert "… and 3 more" in text
    assert sweep.runs[5].run_id not in text


def test_a_plan_shows_the_axes_and_the_jobs(sweep: Sweep) -> None:
    plan = plan_of(sweep)
    jobs = [[run] for run in plan.in_state("new")]
    text = rendered(plan_view(sweep, plan, jobs, LocalProfile(jobs_at_a_time=3)))
    assert "A launch starts 10 jobs on this machine, 3 at a time." in text
    assert line_of(text, "model_params.item_num") == "model_params.item_num [1] [1,2,3]"
    assert "No longer in the grid, and left as they are: 0123456789ab" in text
    assert "A launch starts nothing." in rendered(plan_view(sweep, plan, [], LocalProfile()))


@pytest.mark.parametrize(("units", "told"), [(64, "Together 16 of them do 4.9 times as many"), (100, None)])
def test_a_plan_with_packs_of_its_own_choice_tells_what_they_gain(tmp_path: Path, units: int, told: str | None) -> None:
    base = tiny(model_params__num_neurons=units, training_params__num_trials=512)
    sweep = read_sweep(write_sweep(tmp_path, base=base, seeds=20))
    profile = SlurmProfile(runs_per_job="auto")
    plan = make_plan(sweep, tmp_path / "runs")
    text = rendered(plan_view(sweep, plan, jobs_to_start(plan.runs, profile), profile))
    assert f"A launch submits 2 jobs of up to {1024 // units} runs to SLURM." in text
    assert (told in text) if told else ("Together" not in text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (89, "89 s"), (91, "2 min"), (3600, "60 min"), (7800, "2 h 10 min"), (364_000, "4 d 5 h"), (None, "")],
)
def test_durations_are_told_in_the_unit_that_fits(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text
