"""The commands of vwm-sweep in this process: what they accept, print, write and answer."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.sweep_files import write_sweep
from vwm.cli.sweep import main
from vwm.files import locked
from vwm.sweep.grid import Sweep, read_sweep
from vwm.sweep.ledger import Ledger
from vwm.training.run_folder import Phase, RunFolder, RunState, prepare_run_folder

NOISE = "model_params.spike_noise_factor"
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Calls vwm-sweep in an empty folder; gives its exit code, output and error output."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vwm-sweep", *arguments])
        with pytest.raises(SystemExit) as exited:
            main()
        code = exited.value.code
        assert code is None or isinstance(code, int)
        return code or 0, *capsys.readouterr()

    return call


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """A sweep file tiny.yaml, and its folder in runs/ as if it had been launched."""
    file = write_sweep(tmp_path, grid={NOISE: [0.1, 0.2]}, seeds=2)
    (tmp_path / "runs" / "tiny" / "logs").mkdir(parents=True)
    (tmp_path / "runs" / "tiny" / "sweep.yaml").write_text(file.read_text())
    return read_sweep(file)


def leave(sweep: Sweep, index: int, phase: Phase, **more: Any) -> RunFolder:
    run = sweep.runs[index]
    folder = prepare_run_folder(Path("runs", "tiny", run.run_id).absolute(), run.configuration)
    folder.write_state(RunState(phase=phase, iteration=5, num_iterations=60, attempt=1, **more))
    return folder


@pytest.mark.parametrize("name", ["tiny.yaml", "tiny", "runs/tiny", "runs/tiny/"])
def test_a_sweep_is_named_by_its_file_or_its_folder(command: Command, sweep: Sweep, name: str) -> None:
    code, out, _ = command("status", name, "--json")
    assert code == 0
    assert [run["run_id"] for run in json.loads(out)["runs"]] == [run.run_id for run in sweep.runs]


def test_an_unknown_sweep_is_refused_with_the_nearest_name(command: Command, sweep: Sweep) -> None:
    code, out, message = command("plan", "tinny")
    assert (code, out) == (2, "")
    assert message == "tinny: expected a sweep file, or the name of a sweep in runs/. did you mean 'tiny'?\n"


def test_plan_writes_nothing(command: Command, tmp_path: Path) -> None:
    write_sweep(tmp_path, grid={NOISE: [0.1, 0.2]})
    code, out, _ = command("plan", "tiny.yaml")
    assert code == 0
    assert "A launch starts 2 jobs" in out
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_plan_tells_the_next_command_for_what_is_there(command: Command, sweep: Sweep) -> None:
    leave(sweep, 0, "failed", reason="error", detail="it broke")
    leave(sweep, 1, "finished").result.write_text("{}")
    _, out, _ = command("plan", "tiny")
    for expected in ("vwm-sweep launch tiny", "vwm-sweep retry tiny", "vwm-sweep collect tiny"):
        assert expected in out


def test_the_next_command_can_be_pasted_into_a_shell(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "my sweeps"
    write_sweep(folder)
    (tmp_path / "my profile.yaml").write_text("where: local\n")
    _, out, _ = command("plan", "my sweeps/tiny.yaml", "--runs", "my runs", "--on", "my profile.yaml")
    assert "vwm-sweep launch 'my sweeps/tiny.yaml' --runs 'my runs' --on 'my profile.yaml'\n" in out


def test_a_profile_is_checked_before_anything_is_started(command: Command, sweep: Sweep, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("jobs_at_time: 3")
    before = set(tmp_path.rglob("*"))
    for name in ("plan", "launch"):
        code, _, message = command(name, "tiny.yaml", "--on", "bad.yaml")
        assert code == 2
        assert "did you mean 'jobs_at_a_time'?" in message
    assert set(tmp_path.rglob("*")) == before


def test_status_without_a_name_lists_all_sweeps(command: Command, sweep: Sweep) -> None:
    _, out, _ = command("status")
    assert out.splitlines()[1].split() == ["tiny", "4", "4", "new"]
    _, out, _ = command("status", "--json")
    assert [facts["sweep"] for facts in json.loads(out)] == ["tiny"]


def test_status_of_nothing_says_how_to_begin(command: Command) -> None:
    code, _, message = command("status")
    assert code == 2
    assert "vwm-sweep launch" in message


def test_retry_refuses_what_has_not_failed(command: Command, sweep: Sweep) -> None:
    run = leave(sweep, 0, "stopped")
    code, _, message = command("retry", "tiny", run.path.name[:6])
    assert code == 2
    assert message == f"{run.path.name} is stopped; only failed runs are retried.\n"
    assert command("retry", "tiny")[:2] == (0, "No run has failed.\n")


def test_a_run_that_is_not_there_is_refused_with_those_that_are(command: Command, sweep: Sweep) -> None:
    code, _, message = command("cancel", "tiny", "zzz")
    assert code == 2
    assert sweep.runs[0].run_id in message
    assert not (Path("runs") / "tiny" / "ledger.jsonl").exists()


def test_cancel_reaches_running_runs_only_and_is_written_down(command: Command, sweep: Sweep) -> None:
    running, stopped = leave(sweep, 0, "training"), leave(sweep, 1, "stopped")
    with locked(running.lock):
        code, out, _ = command("cancel", "tiny")
    assert (code, out) == (0, "1 run asked to save and stop.\n")
    assert running.stop.read_text() == "stop requested"
    assert not stopped.stop.exists()
    assert Ledger(Path("runs/tiny/ledger.jsonl")).cancelled_since(0) == {run.run_id for run in sweep.runs}


def test_logs_show_all_attempts_of_a_run_in_order(command: Command, sweep: Sweep) -> None:
    run = leave(sweep, 0, "stopped").path.name
    ledger = Ledger(Path("runs/tiny/ledger.jsonl"))
    for job, runs in (("z-first", [run]), ("b-other", ["x"]), ("a-second", [run, "x"])):
        ledger.intends(job, [runs])
        Path(f"runs/tiny/logs/{job}.log").write_text(f"[red]output[/red] of {job}\n")

    for arguments in ([run], [run[:5]], ["tiny", run[:5]], ["-f", run]):
        code, out, _ = command("logs", *arguments)
        assert code == 0
        assert out == (
            "==> z-first <==\n[red]output[/red] of z-first\n==> a-second <==\n[red]output[/red] of a-second\n"
        )


def test_logs_of_an_unknown_or_ambiguous_run_are_refused(command: Command, sweep: Sweep) -> None:
    leave(sweep, 0, "stopped")
    assert command("logs", "zzz")[0] == 2
    other = Path("runs/other")
    other.mkdir()
    (other / "sweep.yaml").write_text("name: other")
    run = sweep.runs[0]
    prepare_run_folder(other.absolute() / run.run_id, run.configuration)
    code, _, message = command("logs", run.run_id)
    assert code == 2
    assert f"tiny/{run.run_id}" in message
    assert f"other/{run.run_id}" in message


@pytest.mark.parametrize("chosen", ["1", "id"])
def test_debug_trains_in_this_process_and_leaves_the_sweep_alone(
    command: Command, sweep: Sweep, tmp_path: Path, chosen: str
) -> None:
    before = set(tmp_path.rglob("*"))
    run = sweep.runs[1].run_id
    code, out, _ = command("debug", "tiny.yaml", "--run", run[:7] if chosen == "id" else chosen, "--iterations", "3")
    assert code == 0, out
    assert out.splitlines()[-1] == f"{run}: finished"
    assert set(tmp_path.rglob("*")) == before


def test_debug_opens_the_debugger_where_the_error_was_raised(
    command: Command, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real error in the middle of training: a disk without room for the history."""
    import errno
    import traceback

    from vwm.training import checkpoint

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    seen: list[str] = []
    monkeypatch.setattr(checkpoint, "append_history", full)
    monkeypatch.setattr("pdb.post_mortem", lambda tb: seen.append(traceback.extract_tb(tb)[-1].name))
    code, out, message = command("debug", "tiny.yaml")
    assert code == 1
    assert seen == ["full"]
    assert "No space left on device" in message
    assert out.splitlines()[-1].endswith(": failed")


@pytest.mark.parametrize("chosen", ["4", "zzz", "-1", ""])
def test_debug_refuses_a_run_that_is_not_there(command: Command, sweep: Sweep, chosen: str) -> None:
    code, _, message = command("debug", "tiny", f"--run={chosen}")
    assert code == 2
    assert "from 0 to 3" in message


def test_help_tells_what_every_command_does(command: Command) -> None:
    code, out, _ = command("--help")
    assert code == 0
    for name in ("plan", "launch", "status", "retry", "cancel", "logs", "debug", "collect"):
        assert name in out


def test_a_damaged_state_is_shown_as_such_and_stops_nothing(command: Command, sweep: Sweep) -> None:
    leave(sweep, 0, "stopped")
    for index, text in ((1, "{"), (2, "[1]"), (3, '{"phase": "training"}')):
        leave(sweep, index, "stopped").state.write_text(text)
    for name in ("plan", "status"):
        code, out, _ = command(name, "tiny")
        assert code == 0
        assert "3 damaged" in out
    code, out, _ = command("status", "tiny")
    assert " ".join(out.split()).count("delete it to go on") == 3


def test_runs_are_shown_by_state_and_setting(command: Command, sweep: Sweep) -> None:
    leave(sweep, 0, "stopped")
    _, out, _ = command("status", "tiny", "--state", "new,stopped", "--setting", "spike_noise_factor=0.1")
    assert [run.run_id in out for run in sweep.runs] == [True, True, False, False]
    _, out, _ = command("status", "tiny", "--setting", "seed=1")
    assert [run.run_id in out for run in sweep.runs] == [False, True, False, True]
    for wrong in (("--state", "runing"), ("--setting", "spike_noise=0.1"), ("--setting", "seed")):
        code, out, message = command("status", "tiny", *wrong)
        assert (code, out) == (2, "")
        assert "expected" in message
    assert "did you mean 'running'?" in command("status", "tiny", "--state", "runing")[2]


def test_archive_refuses_a_sweep_that_is_at_work_and_comes_back(command: Command, sweep: Sweep) -> None:
    done, running = leave(sweep, 0, "finished"), leave(sweep, 1, "training")
    done.result.write_text("{}")
    with locked(running.lock):
        code, _, message = command("archive", "tiny")
    assert code == 2
    assert f"{running.path.name} is running" in message
    assert command("archive", "tiny")[:2] == (0, "1 run in runs/tiny/archive.zip; 3 not finished and left.\n")
    assert not done.path.exists()
    assert "1 finished" in command("status", "tiny")[1]
    assert command("logs", done.path.name)[0] == 0
    assert command("archive", "tiny", "--unpack")[:2] == (0, "1 run unpacked.\n")
    assert done.result.exists()
