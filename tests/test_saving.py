"""Files that are written beside training, and stop files that are not looked for all the time."""

import threading
import time
from pathlib import Path

import pytest

from vwm.training.run_folder import RunFolder
from vwm.training.saving import Saving
from vwm.training.stopping import StopRequests


def test_one_run_waits_for_itself_and_not_for_another():
    saving, written, may_go_on = Saving(), [], threading.Event()

    def slow() -> None:
        may_go_on.wait(20)
        written.append("a1")

    saving.begin("a", slow)
    saving.begin("b", lambda: written.append("b1"))
    saving.wait("b")
    assert written == ["b1"]
    threading.Timer(0.1, may_go_on.set).start()
    saving.begin("a", lambda: written.append("a2"))
    assert written == ["b1", "a1"] or written == ["b1", "a1", "a2"]
    saving.wait("a")
    assert written == ["b1", "a1", "a2"]
    saving.wait("a")  # nothing is left to wait for


def test_what_could_not_be_written_is_said_at_the_next_occasion():
    saving = Saving()

    def full() -> None:
        raise OSError(28, "No space left on device")

    saving.begin("run", full)
    with pytest.raises(OSError, match="No space left"):
        saving.begin("run", lambda: None)
    saving.begin("run", full)
    with pytest.raises(OSError, match="No space left"):
        saving.wait("run")
    saving.begin("run", full)
    saving.abandon("run")
    saving.wait("run")


def test_the_reason_in_a_stop_file_is_seen_soon_and_stays_known(tmp_path: Path):
    stop, folder = StopRequests(), RunFolder(tmp_path)
    assert stop.reason(folder) is None
    folder.stop.write_text("preempted\n")
    began = time.monotonic()
    while stop.reason(folder) is None:
        assert time.monotonic() < began + 20
        time.sleep(0.01)
    assert stop.reason(folder) == stop.reason(folder) == "preempted"
