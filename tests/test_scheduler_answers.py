"""How SLURM's answers are read. The texts were recorded from SLURM 22.05.8; ``|#|`` stands for the delimiter."""

import time
from pathlib import Path

import pytest

from vwm.sweep.ledger import Job
from vwm.sweep.plan import make_plan
from vwm.sweep.scheduled import scheduled, why_waiting
from vwm.sweep.slurm import (
    AccountEntry,
    QueueEntry,
    SchedulerUnreachable,
    accounting,
    ask,
    parse_accounting,
    parse_duration,
    parse_queue,
    queue,
)

QUEUE = (
    "11|#|6|#|11|#|PENDING|#|JobArrayTaskLimit|#|0|#|UNLIMITED|#|N/A|#||#|sweep-new|#|\n"
    "11|#|3|#|16|#|RUNNING|#|None|#|2|#|1-02:03:04|#|1795540274|#|node[1-3]|#|sweep-new|#|\n"
    "12|#|N/A|#|12|#|RUNNING|#|None|#|0|#|5:00|#|1795540274|#|node2|#|bad\nname | 1|#|\n"
)
ACCOUNT = (
    "1_4|#|9|#|CANCELLED by 0|#|0:0|#|1795538891|#|1795538892|#|node2|#|sweep-abc|#|\n"
    "1_4|#|9|#|REQUEUED|#|0:0|#|1795538800|#|1795538820|#|node1|#|sweep-abc|#|\n"
    "1_[6-8,12-16:2%2]|#|1|#|CANCELLED by 0|#|0:0|#|1795538892|#|1795538892|#|None assigned|#|sweep-abc|#|\n"
    "2|#|2|#|FAILED|#|3:0|#|1795538891|#|Unknown|#|node2|#|bad\nname | 1|#|\n"
)


def test_the_queue_is_read_element_by_element() -> None:
    waiting, running, plain = parse_queue(QUEUE, "|#|")
    assert waiting == QueueEntry("11", 6, "11", "sweep-new", "PENDING", "JobArrayTaskLimit", "", 0, None, None)
    assert (running.target, running.nodes, running.restarts) == ("11_3", "node[1-3]", 2)
    assert (running.seconds_left, running.start) == (93_784, 1_795_540_274.0)
    assert (plain.target, plain.index, plain.name, plain.seconds_left) == ("12", None, "bad\nname | 1", 300)
    assert parse_queue("", "|#|") == []


def test_the_accounting_is_read_attempt_by_attempt() -> None:
    entries = parse_accounting(ACCOUNT, "|#|")
    assert [entry.state for entry in entries if entry.index == 4] == ["REQUEUED", "CANCELLED"]
    assert [entry.index for entry in entries if entry.job_id == "1"] == [6, 7, 8, 12, 14, 16]
    failed = AccountEntry("2", None, "2", "bad\nname | 1", "FAILED", "3:0", "node2", 1_795_538_891.0, None)
    assert failed in entries
    assert all(entry.nodes == "" for entry in entries if entry.job_id == "1")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5:00", 300),
        ("2:00:00", 7200),
        ("1-00:00:01", 86_401),
        ("7", 7),
        ("UNLIMITED", None),
        ("INVALID", None),
        ("", None),
    ],
)
def test_durations_are_read(text: str, seconds: int | None) -> None:
    assert parse_duration(text) == seconds


def test_reasons_are_told_in_words_and_unknown_ones_as_they_are() -> None:
    assert why_waiting("QOSMaxCpuPerUserLimit") == "limit of your QOS"
    assert why_waiting("AssocGrpCpuLimit") == "limit of your association"
    assert why_waiting("DependencyNeverSatisfied") == "for an array that failed, for ever: cancel it"
    assert why_waiting("Reason_of_the_future") == "Reason_of_the_future"


def script(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_a_command_that_fails_hangs_or_is_missing_is_told_with_slurms_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    script(tmp_path, "squeue", "echo 'slurm_load_jobs error: no contact' >&2; exit 1")
    with pytest.raises(SchedulerUnreachable, match=r"^slurm_load_jobs error: no contact$"):
        queue()
    script(tmp_path, "hangs", "exec sleep 30")
    with pytest.raises(SchedulerUnreachable, match=r"hangs gave no answer within 0 s"):
        ask("hangs", timeout=0.3)
    with pytest.raises(SchedulerUnreachable, match=r"absent cannot be run: No such file"):
        ask("absent")
    script(tmp_path, "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    assert accounting(["1"], time.time()) is None


def test_a_users_settings_do_not_reach_slurms_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("SQUEUE_STATES", "PENDING")
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
    monkeypatch.setenv("SLURM_CONF", "kept")
    script(tmp_path, "shows", 'echo "$SQUEUE_STATES,$SLURM_TIME_FORMAT,$SLURM_CONF,$LC_ALL"')
    assert ask("shows") == ",%s,kept,C\n"


def test_the_latest_job_of_a_run_decides_whether_slurm_is_asked() -> None:
    refused = Job("c", (("run1",),), refused="no such partition", task={"x": 1})
    local = Job("b", (("run1",),), pid=5)
    array = Job("a", (("run1",), ("run2",)), slurm_id="7", task={"x": 1})
    assert set(scheduled([local, array]).jobs) == {"run1", "run2"}
    assert set(scheduled([array, local]).jobs) == {"run2"}
    assert set(scheduled([array, refused]).jobs) == {"run1", "run2"}


def test_without_jobs_on_slurm_it_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.sweep_files import write_sweep
    from vwm.sweep.grid import read_sweep

    script(tmp_path / "bin", "squeue", f"touch '{tmp_path}/asked'")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    assert make_plan(read_sweep(write_sweep(tmp_path)), tmp_path / "runs").counts()["new"] == 1
    assert not (tmp_path / "asked").exists()
