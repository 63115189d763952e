import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from vwm.files import Locked, append_line, is_locked, locked, read_json, write_atomically


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "file"
    write_atomically(path, "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_files_have_the_permissions_that_the_umask_allows(tmp_path: Path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_lines_are_appended_and_missing_json_is_none(tmp_path: Path):
    append_line(tmp_path / "log", "one")
    append_line(tmp_path / "log", "two")
    assert (tmp_path / "log").read_text() == "one\ntwo\n"
    assert read_json(tmp_path / "missing.json") is None


def test_a_lock_is_seen_by_others_and_ends_with_its_process_even_when_killed(tmp_path: Path):
    path = tmp_path / 'a lock\'s "name"'
    assert not is_locked(path)
    assert not path.exists()
    code = (
        "import sys, time; from pathlib import Path; from vwm.files import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert is_locked(path)
        with pytest.raises(Locked), locked(path):
            pass
        holder.kill()
    assert not is_locked(path)
    with locked(path):
        assert is_locked(path)
    assert not is_locked(path)
