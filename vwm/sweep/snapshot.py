"""The code that jobs run: a copy of the package, so that editing the checkout changes nothing for jobs that wait."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import vwm


def take_snapshot(folder: Path) -> Path:
    """Copy the package ``vwm`` to ``folder``/code/<hash of its content>, once for each content.

    The environment (torch and its like) is not copied: it is large, and nobody edits it.

    Returns:
        The folder that holds the copy, which belongs in front of PYTHONPATH.
    """
    package = Path(vwm.__file__).parent
    # Each file is read once: what is hashed is what is copied, even while somebody is saving.
    files = {path.relative_to(package): path.read_bytes() for path in sorted(package.rglob("*")) if _is_code(path)}
    digest = hashlib.sha256()
    for name, content in files.items():
        digest.update(f"{name.as_posix()}\0{len(content)}\0".encode() + content)
    target = folder / "code" / digest.hexdigest()[:16]
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    # A folder appears under its name only when it is whole.
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=".new-"))
    try:
        for name, content in files.items():
            copy = temporary / "vwm" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)
        temporary.chmod(target.parent.stat().st_mode & 0o777)
        os.rename(temporary, target)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        if not target.is_dir():  # Otherwise another launch was faster.
            raise
    return target


def _is_code(path: Path) -> bool:
    return path.is_file() and path.suffix not in (".pyc", ".pyo") and "__pycache__" not in path.parts
