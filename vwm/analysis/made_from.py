"""What the files of an analysis were made from, so that nothing is analysed twice. Imports neither torch nor numpy."""

import hashlib
import json
from functools import cache
from importlib import metadata
from pathlib import Path

import vwm
from vwm.config import Configuration
from vwm.files import read_json

_CODE = ("analysis", "behaviour", "model")
_PACKAGES = ("numpy", "scipy", "torch")


def columns_file(folder: Path, name: str) -> Path:
    """The last of an analysis's files to be written: what tables of many runs show, and what it was made from.

    Args:
        folder: <run>/analysis.
        name: of the analysis.
    """
    return folder / f"{name}.columns.json"


def made_from(configuration: Configuration, checkpoint: Path, responses: Path) -> str:
    """A short hash of all that the result of an analysis depends on: code, packages, configuration and files.

    Args:
        configuration: of the run.
        checkpoint: the file of the network that is analysed.
        responses: of the run's final evaluation; it may not be there.
    """
    digest = hashlib.sha256(_version().encode())
    search = json.dumps(configuration.fpf_params.model_dump(mode="json"), sort_keys=True)
    digest.update(f"{configuration.run_id} {search}".encode())
    for path in (checkpoint, responses):
        digest.update(hashlib.sha256(path.read_bytes()).digest() if path.exists() else b"-")
    return digest.hexdigest()[:16]


def is_up_to_date(folder: Path, name: str, now: str) -> bool:
    """Whether the files of an analysis are there and were made from what there is now."""
    try:
        content = read_json(columns_file(folder, name))
    except ValueError:
        return False
    return content is not None and content.get("made_from") == now


@cache
def _version() -> str:
    """A hash of the code that an analysis runs, and of its libraries."""
    digest = hashlib.sha256()
    for room in _CODE:
        for path in sorted(Path(vwm.__path__[0], room).glob("*.py")):
            digest.update(f"{room}/{path.name}\0".encode() + path.read_bytes())
    for package in _PACKAGES:
        digest.update(f"{package} {metadata.version(package)}".encode())
    return digest.hexdigest()
