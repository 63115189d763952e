"""Sweep files and commands for the tests of sweeps."""

import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import python, tiny

SWEEP = ("-c", "from vwm.cli.sweep import main; main()")  # as the command vwm-sweep


def write_sweep(folder: Path, name: str = "tiny", **parts: Any) -> Path:
    """A sweep file in ``folder`` over the tiny configuration; ``parts`` are its further keys.

    It is launched on this machine unless they say otherwise, even where there is an sbatch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    launch = Path(__file__).parent.parent / "launch" / "local.yaml"
    content = {"name": name, "base": tiny(), "launch": str(launch), **parts}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def vwm_sweep(*arguments: object, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Run the command vwm-sweep to its end."""
    return python(*SWEEP, *arguments, cwd=cwd)
