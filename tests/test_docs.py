"""Every command that the documentation shows is run, page by page, in a folder with the shipped YAML files.

A page that reads data of people finds people.csv there, simulated.

Only two things differ from what a reader does: the quick configuration is cut to a few units and iterations, and of a
`make` line it is checked that the target is there (continuous integration runs `make test`, and a demo inside it takes
minutes).
"""

import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import environment

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page: Path, kind: str = "sh") -> list[str]:
    """The lines of the page's shell blocks of one kind."""
    blocks = re.findall(r"^```([\w ]*)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    # What needs a cluster is marked "sh slurm".
    assert {language for language, _ in blocks} <= {"sh", "sh slurm", ""}, "a block that no test reads"
    return [line for language, block in blocks if language == kind for line in block.splitlines() if line.strip()]


def write_people(path: Path) -> None:
    """Three people who answer 40 trials of one, two and four items."""
    rng = np.random.default_rng(0)
    lines = ["subject,set_size,target,response"]
    for person in range(3):
        for n in (1, 2, 4):
            for target, error in zip(rng.uniform(-3, 3, 40), rng.normal(0, 0.1 * n, 40), strict=True):
                lines.append(f"{person},{n},{target},{math.remainder(target + error, math.tau)}")
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.name)
def test_the_commands_of_a_page_work(page: Path, tmp_path: Path):
    for folder in ("configs", "sweeps", "launch"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    write_people(tmp_path / "people.csv")
    quick = tmp_path / "configs" / "quick.yaml"
    text = re.sub(r"num_iterations: \d+", "num_iterations: 12", quick.read_text())
    quick.write_text(re.sub(r"num_neurons: \d+", "num_neurons: 16", text))
    path = f"{Path(sys.executable).parent}:{environment()['PATH']}"
    for command in commands(page):
        is_make = command.startswith("make ")
        run = subprocess.run(
            ["bash", "-c", command.replace("make ", "make --dry-run ", 1) if is_make else command],
            cwd=ROOT if is_make else tmp_path,
            env=environment(PATH=path),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert run.returncode == 0, f"{command}\n{run.stdout}\n{run.stderr}"


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
