"""The recurrence with its hand-written way back, against the plain autograd version with the same random numbers."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import environment
from tests.plain_recurrence import simulate_plainly
from vwm.config import ModelParams
from vwm.model import recurrence
from vwm.model.compiled import _for_a_gpu as compiled_for_gpus
from vwm.model.compiled import is_compiling
from vwm.model.losses import error_loss
from vwm.model.network import Network, simulate
from vwm.model.recurrence import _go_back
from vwm.model.task import Trials, draw_trials

BASE: dict[str, object] = {
    "max_item_num": 3,
    "item_num": (1, 2, 3),
    "num_neurons": 12,
    "dt": 20.0,
    "tau_min": 40.0,
    "input_strength": 80.0,
    "T_init": 40.0,
    "T_stimi": 100.0,
    "T_delay": 100.0,
    "T_decode": 80.0,
    "gamma_sampler": "quantile",
}
CASES: dict[str, dict[str, object]] = {
    "gamma": {"spike_noise_factor": 0.1},
    "gamma, shapes below 1": {"spike_noise_factor": 0.8},
    "gamma by torch": {"spike_noise_factor": 0.3, "gamma_sampler": "torch"},
    "csnr": {"spike_noise_type": "csnr", "spike_noise_factor": 0.3},
    "gauss": {"spike_noise_type": "gauss", "spike_noise_factor": 0.3},
    "puregauss": {"spike_noise_type": "puregauss", "spike_noise_factor": 0.3},
    "no noise": {"spike_noise_factor": 0.0},
    "power law": {"spike_noise_factor": 0.2, "saturation_firing_rate": -1.0},
    "signed, without Dale's law": {"spike_noise_factor": 0.2, "dales_law": False, "positive_input": False},
}


def params_with(change: dict[str, object]) -> ModelParams:
    return ModelParams.model_validate({**BASE, **change})


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(
    params: ModelParams, seed: int = 0, trials: int = 7, dtype: torch.dtype = torch.float64
) -> tuple[Network, Trials]:
    """A network and a batch of trials."""
    network = Network(params, generator(seed), dtype=dtype)
    set_size = torch.arange(trials) % params.max_item_num + 1
    return network, draw_trials(params, set_size, generator(seed + 1), dtype=dtype)


def gradients(network: Network, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(network.parameters())))


def loss_of(mean_rate: Tensor, readout: Tensor, trials: Trials) -> Tensor:
    """A loss on which everything has an influence."""
    return error_loss("rad", readout, trials).mean() + 0.01 * (mean_rate * trials.set_size).mean()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-3)])
@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradients_equal_those_of_autograd(name: str, dtype: torch.dtype, tolerance: float) -> None:
    params = params_with(CASES[name])
    network, trials = drawn(params, dtype=dtype)
    simulation = simulate([network], [trials], [generator(5)])
    ours = loss_of(simulation.mean_rate[0], simulation.readout[:, 0], trials)
    _, mean_rate, readout = simulate_plainly(network, trials, generator(5))
    theirs = loss_of(mean_rate, readout, trials)
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=0)
    for name, mine, plain in zip(("W", "B", "F"), gradients(network, ours), gradients(network, theirs), strict=True):
        assert plain.abs().max() > 1e-4, f"the loss does not depend on {name}"
        assert ((mine - plain).abs().max() / plain.abs().max()).item() < tolerance, name


@pytest.mark.parametrize("name", ["gamma", "gauss", "no noise"])
def test_a_trial_computed_in_stretches_is_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    params = params_with(CASES[name])
    network, trials = drawn(params)
    of_a_step = 7 * 12 * 8  # bytes of an array
    kept = 36 if name == "no noise" else 56  # arrays for all 16 steps and the 4 of the read-out
    results, lengths = [], []
    for arrays in (kept, kept - 1, 15, 5):
        monkeypatch.setattr(recurrence, "KEPT_BYTES", arrays * of_a_step)
        monkeypatch.setattr(recurrence, "POOL", recurrence._Pool())
        simulation = simulate([network], [trials], [generator(5)])
        loss = loss_of(simulation.mean_rate[0], simulation.readout[:, 0], trials)
        results.append([loss.detach(), *gradients(network, loss)])
        buffers = [buffer for free in recurrence.POOL._free.values() for buffer in free]
        lengths.append(max(map(len, buffers)))
        unused = 2 if name == "no noise" else 0  # in the place of slopes
        assert sum(buffer.nbytes for buffer in buffers) <= (arrays + unused) * of_a_step
    assert lengths == ([16, 11, 5, 1] if name == "no noise" else [16, 11, 3, 1])
    for pieces in results[1:]:
        for whole, piece in zip(results[0], pieces, strict=True):
            torch.testing.assert_close(piece, whole, rtol=1e-12, atol=1e-14)


def test_without_gradients_the_same_is_computed() -> None:
    network, trials = drawn(params_with({}))
    with_gradients = simulate([network], [trials], [generator(5)])
    with torch.no_grad():
        without = simulate([network], [trials], [generator(5)])
    torch.testing.assert_close(with_gradients.readout.detach(), without.readout, rtol=0, atol=0)
    torch.testing.assert_close(with_gradients.mean_rate.detach(), without.mean_rate, rtol=0, atol=0)


def test_members_of_a_pack_have_their_own_gradients() -> None:
    kinds = [params_with({"spike_noise_factor": k, "input_strength": 60 + 20 * k}) for k in (0.1, 0.2, 0.4)]
    pack = [drawn(params, seed) for seed, params in enumerate(kinds)]
    together = simulate([n for n, _ in pack], [t for _, t in pack], [generator(seed) for seed in range(3)])
    losses = [
        loss_of(together.mean_rate[index], together.readout[:, index], trials) for index, (_, trials) in enumerate(pack)
    ]
    torch.stack(losses).sum().backward()
    for seed, (network, trials) in enumerate(pack):
        alone = simulate([network], [trials], [generator(seed)])
        loss = loss_of(alone.mean_rate[0], alone.readout[:, 0], trials)
        for mine, parameter in zip(gradients(network, loss), network.parameters(), strict=True):
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad, mine, rtol=1e-10, atol=1e-13)


def test_the_smallest_numbers_are_0_in_the_steps_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    smallest, kept = torch.full((64,), 1e-39), []

    def noted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            kept.append(bool((smallest * 1).any()))
            return function(*arguments, **named)

        return call

    if not torch.set_flush_denormal(False):
        pytest.skip("this processor cannot take them for 0")
    for name in ("product_with", "add_products"):
        monkeypatch.setattr(recurrence, name, noted(getattr(recurrence, name)))
    network, trials = drawn(params_with({}))
    simulation = simulate([network], [trials], [generator(5)])
    loss_of(simulation.mean_rate[0], simulation.readout[:, 0], trials).backward()
    assert kept == [False] * 4
    assert (smallest * 1).all()


def test_buffers_are_used_again() -> None:
    network, trials = drawn(params_with({}))
    recurrence.POOL.clear()
    addresses = []
    for _ in range(3):
        simulation = simulate([network], [trials], [generator(5)])
        loss_of(simulation.mean_rate[0], simulation.readout[:, 0], trials).backward()
        addresses.append(sorted(b.data_ptr() for free in recurrence.POOL._free.values() for b in free))
    assert addresses[0] == addresses[1] == addresses[2]


COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler, so nothing can be compiled")
@pytest.mark.parametrize(
    ("name", "dtype", "tolerance"),
    [
        *((name, torch.float64, 1e-9) for name in ("gamma", "no noise", "power law")),
        *((name, torch.float32, 1e-4) for name in ("gamma", "csnr", "gauss", "puregauss")),
    ],
)
def test_compiled_parts_compute_what_the_plain_ones_do(name: str, dtype: torch.dtype, tolerance: float) -> None:
    params = params_with(CASES[name])
    network, trials = drawn(params, dtype=dtype)
    results = []
    for compile in (False, True):
        simulation = simulate([network], [trials], [generator(5)], compile=compile)
        loss = loss_of(simulation.mean_rate[0], simulation.readout[:, 0], trials)
        results.append([loss.detach(), *gradients(network, loss)])
    for plain, fast in zip(*results, strict=True):
        assert (fast - plain).abs().max() <= tolerance * plain.abs().max()
    assert is_compiling()


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler, so nothing can be compiled")
def test_what_compiles_for_a_gpu_computes_what_the_plain_function_does() -> None:
    """The way that CUDA tensors go, gone by tensors of a CPU."""
    rng = generator(0)
    arrays = [torch.rand(2, 8, 5, generator=rng) for _ in range(6)]
    plain = [array.clone() for array in arrays]
    _go_back(True, *plain)
    compiled_for_gpus(_go_back, (True,))(*arrays)
    for one, other in zip(plain, arrays, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler, so nothing can be compiled")
def test_processes_that_begin_together_compile_once_for_all_and_what_does_not_load_anew(tmp_path: Path) -> None:
    code = (
        "from vwm.model import compiled\n"
        "from tests.test_recurrence import CASES, drawn, generator, params_with, simulate\n"
        "build = compiled._build\n"
        "compiled._build = lambda *arguments: (print('built'), build(*arguments))\n"
        "network, trials = drawn(params_with(CASES['no noise']))\n"
        "print(simulate([network], [trials], [generator(5)], compile=True).readout.double().sum().item())"
    )
    there = {**environment(), "TMPDIR": str(tmp_path)}
    there.pop("TORCHINDUCTOR_CACHE_DIR", None)  # which torch's compiler sets in this process when it is used here

    def lines_of(count: int) -> list[str]:
        command, root = [sys.executable, "-c", code], Path(__file__).parents[1]
        processes = [
            subprocess.Popen(command, env=there, cwd=root, stdout=subprocess.PIPE, text=True) for _ in range(count)
        ]
        lines = [line for process in processes for line in process.communicate()[0].splitlines()]
        assert [process.returncode for process in processes] == [0] * count
        return lines

    lines = lines_of(3)
    libraries = list((tmp_path / f"vwm-compiled-{os.getuid()}").glob("*.so"))
    assert lines.count("built") == len(libraries) == 2
    assert len(set(lines) - {"built"}) == 1
    libraries[0].write_bytes(b"of another machine")
    assert lines_of(1) == ["built", lines[-1]]


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler, so nothing can be compiled")
def test_it_compiles_where_torch_lies_in_a_folder_with_a_space(tmp_path: Path) -> None:
    (tmp_path / "a b").symlink_to(Path(torch.__file__).parents[1])
    code = (
        "import torch; from vwm.model.compiled import compiled, is_compiling\n"
        "from vwm.model.recurrence import _go_back\n"
        "assert 'a b' in torch.__file__\n"
        "arrays = [torch.ones(1, 2, 16) for _ in range(4)] + [torch.full((1, 1, 16), 0.5), torch.ones(1, 2, 16)]\n"
        "compiled(_go_back, (True,), arrays, True)(*arrays)\n"
        "print(is_compiling(), arrays[0].sum().item())"
    )
    paths = os.pathsep.join([str(tmp_path / "a b"), str(Path(__file__).parents[1])])
    told = environment(PYTHONPATH=paths, TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "kept"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=told)
    assert done.stdout == "True 80.0\n", done.stderr


@pytest.mark.slow
def test_without_a_compiler_it_goes_on_and_says_so_once(tmp_path: Path) -> None:
    code = (
        "import torch; from tests.test_recurrence import CASES, drawn, generator, params_with, simulate\n"
        "network, trials = drawn(params_with(CASES['gamma']))\n"
        "both = [simulate([network], [trials], [generator(5)], compile=c).readout for c in (True, False)]\n"
        "assert torch.equal(*both)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment(), "CXX": str(tmp_path / "nothing"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("could not compile") == 1
