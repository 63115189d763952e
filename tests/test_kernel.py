"""The kernels for GPUs against plain autograd, on a GPU where there is one and otherwise in Triton's interpreter."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import environment
from tests.test_recurrence import CASES

CASES_OF_KERNELS = [*(name for name in CASES if name != "gamma by torch"), "large", "in stretches", "a pack"]


@pytest.fixture(scope="module")
def differences() -> dict[str, dict[str, float]]:
    """In a process of its own, since Triton must be told of its interpreter before it is imported."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.kernel_differences"],
        env=environment(TRITON_INTERPRET="1"),
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, float]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("case", CASES_OF_KERNELS)
def test_a_kernel_computes_what_autograd_does(differences: dict[str, dict[str, float]], case: str) -> None:
    """Rates and read-outs to the rounding of float32, gradients within what sums of hundreds of terms add to it."""
    assert differences.keys() == set(CASES_OF_KERNELS)
    assert differences[case].keys() == {"mean rate", "read-out", "W", "B", "F"}
    for name, difference in differences[case].items():
        assert difference < (1e-5 if name in ("mean rate", "read-out") else 1e-4), name
