"""How long vwm-sweep takes to start, against an empty app of the same command-line library.

Usage: python benchmarks/bench_startup.py
"""

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


def seconds(code: str, arguments: Sequence[str], folder: Path) -> float:
    """Wall-clock time of one start."""
    before = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL)
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
        for _ in range(ROUNDS):  # In turn, so that a busy moment of the machine meets all of them.
            for name, (code, arguments) in cases.items():
                times[name].append(seconds(code, arguments, folder))
    empty_command, empty_help = (statistics.median(times[name]) for name in list(cases)[:2])
    for name, measured in times.items():
        median = statistics.median(measured)
        reference = empty_help if "--help" in name else empty_command
        print(f"{name:<22} {1000 * median:4.0f} ms, {median / reference:.2f} × the empty app")


if __name__ == "__main__":
    main()
