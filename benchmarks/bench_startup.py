"""How long vwm-sweep takes to start, against an empty app of the same command-line library.

Usage: python -m benchmarks.bench_startup
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

EMPTY = """
import typer
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
@app.command()
def one(): pass
@app.command()
def two(): pass
app()
"""
REAL = "from vwm.cli.sweep import main; main()"
SWEEP = "name: small\nbase: {}\ngrid: {model_params.spike_noise_factor: [0.1, 0.2]}\n"
ROUNDS = 25


def with_bytecode(folder: Path) -> dict[str, str]:
    """The environment of somebody who has used the command before, whose Python has kept the compiled modules."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return {**environment, "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}


def seconds(code: str, arguments: Sequence[str], folder: Path) -> float:
    """Wall-clock time of one start."""
    command = [sys.executable, "-c", code, *arguments]
    before = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env=with_bytecode(folder))
    return time.perf_counter() - before


def main() -> None:
    cases = {
        "empty app, a command": (EMPTY, ["one"]),
        "empty app, --help": (EMPTY, ["--help"]),
        "vwm-sweep --help": (REAL, ["--help"]),
        "vwm-sweep plan": (REAL, ["plan", "small.yaml"]),
        "vwm-sweep status": (REAL, ["status", "small.yaml"]),
        "vwm-sweep cancel": (REAL, ["cancel", "small.yaml"]),
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "small.yaml").write_text(SWEEP)
        times: dict[str, list[float]] = {name: [] for name in cases}
        for number in range(ROUNDS + 1):  # In turn, so that a busy moment of the machine meets all of them.
            for name, (code, arguments) in cases.items():
                taken = seconds(code, arguments, folder)
                if number > 0:  # The first round compiles.
                    times[name].append(taken)
    empty_command, empty_help = (statistics.median(times[name]) for name in list(cases)[:2])
    for name, measured in times.items():
        median = statistics.median(measured)
        reference = empty_help if "--help" in name else empty_command
        print(f"{name:<22} {1000 * median:4.0f} ms, {median / reference:.2f} × the empty app")


if __name__ == "__main__":
    main()
