"""The kernels for GPUs against plain autograd, on a GPU where there is one and otherwise in Triton's interpreter."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import environment
from tests.test_recurrence import CASES
from vwm.model import recurrence

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


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, so that a kernel can be compiled")
def test_where_triton_cannot_compile_the_steps_go_on_one_by_one_and_it_is_said_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    recurrence._kernel.cache_clear()
    assert [recurrence._kernel() for _ in range(2)] == [None, None]
    assert capsys.readouterr().err.count("Triton cannot compile here") == 1
