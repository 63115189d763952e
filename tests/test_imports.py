"""The rooms of the project and what each may import; what a quick command may load."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import python
from tests.sweep_files import write_sweep
from vwm.files import locked
from vwm.sweep.grid import read_sweep
from vwm.training.run_folder import RunState, prepare_run_folder

PACKAGE = Path(__file__).parent.parent / "vwm"

# Every room may also import itself and the modules on the ground floor.
GROUND = {"errors", "files", "config", "config_file"}
ROOMS = {
    "model": set[str](),
    "training": {"model"},
    "behaviour": set[str](),
    "analysis": {"model", "behaviour"},
    "sweep": {"training", "behaviour", "analysis"},
    "cli": {"sweep", "training", "model", "behaviour", "analysis"},
}
HEAVY = {"torch", "wandb", "pandas", "numpy", "scipy", "matplotlib"}

# Packages that nothing in a room may import, and those that it may import only where they are used.
NEVER = {"model": {"wandb"}, "behaviour": {"torch", "wandb"}, "sweep": {"torch", "wandb"}, "cli": {"torch", "wandb"}}
NOT_AT_IMPORT = {"sweep": HEAVY, "cli": HEAVY}


def imports(path: Path, at_import_only: bool = False) -> Iterator[str]:
    """The absolute names a module imports; without those under TYPE_CHECKING, and inside functions if asked."""

    def walk(node: ast.AST) -> Iterator[ast.AST]:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        if at_import_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return
        yield node
        for child in ast.iter_child_nodes(node):
            yield from walk(child)

    for node in walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules() -> list[tuple[str, Path]]:
    """Every module of the package with its room, the ground floor's being its own."""
    paths = sorted(PACKAGE.rglob("*.py"))
    return [(path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path) for path in paths]


def room_of(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if parts[0] == "vwm" and len(parts) > 1 else None


@pytest.mark.parametrize(("room", "path"), modules(), ids=lambda value: str(value).replace(str(PACKAGE), "vwm"))
def test_imports_point_down_only(room: str, path: Path) -> None:
    imported = {found for name in imports(path) if (found := room_of(name)) is not None} - {"__version__"}
    if room == "__main__":
        assert imported <= {"cli"}
    elif room in GROUND:
        order = ["errors", "files", "config", "config_file"]
        assert imported <= set(order[: order.index(room)])
    elif room != "__init__":
        assert imported <= {room, *GROUND, *ROOMS[room]}


@pytest.mark.parametrize(("room", "path"), modules(), ids=lambda value: str(value).replace(str(PACKAGE), "vwm"))
def test_heavy_packages_stay_in_their_rooms(room: str, path: Path) -> None:
    assert {name.split(".")[0] for name in imports(path)} & NEVER.get(room, set()) == set()
    at_import = {name.split(".")[0] for name in imports(path, at_import_only=True)}
    assert at_import & (HEAVY if room in {*GROUND, "__main__"} else NOT_AT_IMPORT.get(room, set())) == set()


def test_the_contract_knows_every_room() -> None:
    assert {room for room, _ in modules()} - {"__init__", "__main__"} <= {*ROOMS, *GROUND}


LOADED = """
import atexit, sys
atexit.register(lambda: print("LOADED", *sorted(m.split(".")[0] for m in sys.modules), file=sys.stderr))
from vwm.cli.sweep import main
main()
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["plan", "tiny.yaml"],
        ["plan", "tiny"],
        ["status"],
        ["status", "tiny"],
        ["status", "tiny", "--json"],
        ["cancel", "tiny"],
        ["logs", "tiny"],
    ],
    ids=" ".join,
)
def test_quick_commands_load_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    file = write_sweep(tmp_path, grid={"model_params.spike_noise_factor": [0.1, 0.2]})
    folder = tmp_path / "runs" / "tiny"
    sweep = read_sweep(file)
    run = prepare_run_folder(folder / sweep.runs[0].run_id, sweep.runs[0].configuration)
    run.write_state(RunState(phase="training", iteration=5, num_iterations=60, attempt=1))
    (folder / "sweep.yaml").write_text(file.read_text())

    with locked(run.lock):
        done = python("-c", LOADED, *arguments, cwd=tmp_path)

    *_, loaded = [line.split()[1:] for line in done.stderr.splitlines() if line.startswith("LOADED")]
    assert "typer" in loaded
    assert HEAVY & set(loaded) == set()


def test_a_job_loads_nothing_heavy_itself(tmp_path: Path) -> None:
    done = python("-c", "import vwm.sweep.job, sys; print(*sys.modules)", cwd=tmp_path)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "vwm" in loaded
    assert HEAVY & loaded == set()


def test_the_python_of_the_tests_has_what_they_forbid() -> None:
    """Otherwise the tests above could not fail."""
    import importlib.util

    assert all(importlib.util.find_spec(name) for name in ("torch", "pandas", "numpy", "scipy", "matplotlib"))
    assert "pytest" in sys.modules
