"""Every command that the documentation shows is run, page by page, in a folder with the shipped YAML files.

Only two things differ from what a reader does: the quick configuration is cut to a few iterations, and of a `make` line
it is checked that the target is there (continuous integration runs `make test`, and a demo inside it takes minutes).
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

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


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.name)
def test_the_commands_of_a_page_work(page: Path, tmp_path: Path):
    for folder in ("configs", "sweeps", "launch"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    quick = tmp_path / "configs" / "quick.yaml"
    quick.write_text(re.sub(r"num_iterations: \d+", "num_iterations: 12", quick.read_text()))
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
            timeout=300,
            check=False,
        )
        assert run.returncode == 0, f"{command}\n{run.stdout}\n{run.stderr}"


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
