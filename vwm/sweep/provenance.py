"""With which code, packages and machine a sweep was launched."""

import platform
import socket
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import vwm
from vwm.sweep.profile import Profile

_PACKAGES = ("torch", "numpy", "scipy", "pandas", "pydantic", "pyyaml")


def provenance(profile: Profile) -> dict[str, Any]:
    """The content of ``provenance.json``."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "vwm": vwm.__version__,
        "git": _git_state(),
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


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout
