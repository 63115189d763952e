"""With which code, packages and machine a sweep was launched."""

import json
import platform
import socket
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import vwm
from vwm.files import dump_yaml, write_atomically
from vwm.sweep.grid import Sweep
from vwm.sweep.ledger import Ledger
from vwm.sweep.profile import Profile

_PACKAGES = ("torch", "numpy", "scipy", "pandas", "pydantic", "pyyaml", "submitit")


def record_launch(sweep: Sweep, folder: Path, profile: Profile, code: Path | None = None) -> Ledger:
    """Write what the sweep is and with what it is launched into ``folder`` (runs/<sweep>); returns its ledger.

    Args:
        code: the copy of the code that jobs run, or None where they run this code.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "sweep.yaml", dump_yaml(dict(sweep.resolved)))
    source = provenance(profile, code)
    write_atomically(folder / "provenance.json", json.dumps({**source, "diff": _difference()}, indent=1) + "\n")
    ledger = Ledger(folder / "ledger.jsonl")
    ledger.launched(source)
    return ledger


def provenance(profile: Profile, code: Path | None = None) -> dict[str, Any]:
    """The content of ``provenance.json``, but for the difference between the code and its commit."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "vwm": vwm.__version__,
        "git": _git_state(),
        "code": None if code is None else code.name,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "profile": profile.model_dump(mode="json"),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_state() -> dict[str, Any] | None:
    """The commit of this code and whether files differ from it; None where the code is not under git."""
    folder = Path(vwm.__file__).parent
    try:
        # An installed copy may lie inside a repository that is not its own; then git does not know its files.
        _git(folder, "ls-files", "--error-unmatch", "__init__.py")
        commit = _git(folder, "rev-parse", "HEAD")
        modified = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit.strip(), "modified": bool(modified.strip())}


def _difference() -> str | None:
    """What was edited in the package since its commit, as a patch; None where nothing was, or there is no git."""
    folder = Path(vwm.__file__).parent
    state = _git_state()
    return _git(folder, "diff", "HEAD", "--", ".") if state is not None and state["modified"] else None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout
