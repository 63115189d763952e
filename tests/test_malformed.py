"""Every malformed file in tests/malformed is refused with exactly the message beside it, and nothing is written.

After a message was changed on purpose: VWM_WRITE_MESSAGES=1 pytest tests/test_malformed.py, then read what changed.
"""

import os
import shutil
import sys
from pathlib import Path

import pytest

from vwm.cli import run, sweep

MALFORMED = Path(__file__).parent / "malformed"
COMMANDS = {"configs": (run.main, ["vwm", "config"]), "sweeps": (sweep.main, ["vwm-sweep", "plan"])}
CASES = sorted(
    file.relative_to(MALFORMED)
    for folder in COMMANDS
    for file in (MALFORMED / folder).iterdir()
    if file.suffix in (".yaml", ".json")
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_malformed_file_is_refused_with_this_message(
    case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "malformed"
    shutil.copytree(MALFORMED, copy)
    monkeypatch.chdir(copy / case.parent)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    main, command = COMMANDS[case.parent.name]
    monkeypatch.setattr(sys, "argv", [*command, case.name])

    with pytest.raises(SystemExit) as exited:
        main()

    out, message = capsys.readouterr()
    assert exited.value.code == 2
    assert out == ""
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    expected = (MALFORMED / case).with_suffix(".txt")
    if os.environ.get("VWM_WRITE_MESSAGES"):
        expected.write_text(message)
    assert message == expected.read_text()


def test_there_are_at_least_25_malformed_files() -> None:
    assert len(CASES) >= 25
