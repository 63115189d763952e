"""Functions without matrix products compiled, or as they are where no compiler is found.

On a CPU a function becomes a shared library for arrays of one shape, which is kept on the disk: a process that finds it
there needs no compiler, and a call costs a few microseconds. On a GPU it goes through torch.compile.
"""

import hashlib
import os
import platform
import shlex
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vwm.files import locked, write_atomically

Function = Callable[..., None]
"""Takes constants and then tensors, and has no result: it writes into its tensors."""

_OPTIONS: dict[str, Any] = {
    "cpp.enable_floating_point_contract_flag": "fast",  # a product and a sum in one instruction
    "cpp.threads": 1,  # a network has one core
    "compile_threads": 1,  # and its compiler no more
}
_LONGEST_COMPILATION = 600  # seconds that another process may take for it

_is_possible = True


def compiled(function: Function, constants: tuple[Any, ...], like: Sequence[Tensor], wanted: bool) -> Function:
    """The function of the tensors alone, compiled where that is wanted and a compiler is found.

    Args:
        function: to be called as ``function(*constants, *tensors)``.
        constants: its first arguments.
        like: tensors of the shapes, strides and types that it will be called with.
        wanted: whether to compile it; if not, it is called as it is.
    """
    if wanted and _is_possible:
        try:
            return _for_a_gpu(function, constants) if like[0].is_cuda else _library(function, constants, like)
        except Exception as error:  # The many parts of torch's compiler raise as many types.
            _give_up(error)
    return partial(function, *constants)


def is_compiling() -> bool:
    """Whether a compiler was found, as far as one was looked for."""
    return _is_possible


def _give_up(error: Exception) -> None:
    global _is_possible
    _is_possible = False
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    print(
        f"Training goes on uncompiled, several times slower: torch could not compile ({reason}). It needs a C++ "
        "compiler such as g++, Python's headers, and a folder to write to, which TORCHINDUCTOR_CACHE_DIR names.",
        file=sys.stderr,
    )


# ---------------------------------------------------------------------------------------------------------------
# On a CPU
# ---------------------------------------------------------------------------------------------------------------


def _library(function: Function, constants: tuple[Any, ...], like: Sequence[Tensor]) -> Function:
    kinds = tuple((tuple(tensor.shape), tensor.stride(), tensor.dtype) for tensor in like)
    return _loaded(function, constants, kinds)


@cache
def _loaded(function: Function, constants: tuple[Any, ...], kinds: tuple[Any, ...]) -> Function:
    path = _folder() / f"{function.__name__}-{_digest(function, constants, kinds)}.so"
    runner = _opened(path)
    if runner is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The runs of a sweep begin together, and one of them compiles for all.
        with locked(path.with_suffix(".lock"), patience=_LONGEST_COMPILATION):
            runner = _opened(path)
            if runner is None:
                _build(path, function, constants, kinds)
                runner = torch._C._aoti.AOTIModelContainerRunnerCpu(str(path), 1)

    def call(*tensors: Tensor) -> None:
        runner.run(list(tensors))

    return call


def _opened(path: Path) -> Any:
    """A library made before; None where there is none, or one that this machine cannot load, which is made anew."""
    try:
        return torch._C._aoti.AOTIModelContainerRunnerCpu(str(path), 1) if path.exists() else None
    except RuntimeError:
        return None


@cache
def _folder() -> Path:
    """Where torch is told to keep what it compiles, or a folder of this user's among the temporary files.

    Decided once a process: torch's compiler puts its own choice into the environment when it is first used.
    """
    if torchs := os.environ.get("TORCHINDUCTOR_CACHE_DIR"):
        return Path(torchs) / "vwm"
    folder = Path(tempfile.gettempdir()) / f"vwm-compiled-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to somebody else, whose code is not run")
    return folder


def _digest(*what: object) -> str:
    """A name for everything that machine code depends on: what is asked for, this package, torch, and the processor."""
    told = Path("/proc/cpuinfo")  # Only Linux has it; elsewhere machines do not share folders of temporary files.
    lines = told.read_text().splitlines() if told.exists() else [platform.processor()]
    processor = next((line for line in lines if line.startswith(("flags", "Features"))), lines[0])
    sources = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
    everything = (*what[1:], _OPTIONS, torch.__version__, platform.machine(), processor, sources)
    return hashlib.sha256(repr(everything).encode()).hexdigest()[:32]


def _build(path: Path, function: Function, constants: tuple[Any, ...], kinds: tuple[Any, ...]) -> None:
    """Compile the function into a shared library."""
    from torch._inductor import config  # It loads torch's compiler, which only this needs.

    class Module(torch.nn.Module):
        def forward(self, *tensors: Tensor) -> tuple[()]:
            function(*constants, *tensors)
            return ()

    example = tuple(torch.empty_strided(shape, stride, dtype=dtype) for shape, stride, dtype in kinds)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, warnings.catch_warnings(), _quoted_for_the_linker():
        warnings.simplefilter("ignore")  # torch warns of what its own parts do to each other.
        exported = torch.export.export(Module(), example)
        options = {**_OPTIONS, "aot_inductor.output_path": f"{folder}/function.so"}
        # For a few small files it is not worth it to compile their headers first, into 400 MB. Older torch does not.
        if hasattr(config.aot_inductor, "precompile_headers"):
            options["aot_inductor.precompile_headers"] = False
        built = torch._inductor.aot_compile(exported.module(), example, options=options)
        write_atomically(path, Path(str(built)).read_bytes())


@contextmanager
def _quoted_for_the_linker() -> Iterator[None]:
    """torch quotes the folders of its headers and not that of its libraries, which a space in its path would divide."""
    from torch.utils import cpp_extension

    folder = cpp_extension.TORCH_LIB_PATH
    cpp_extension.TORCH_LIB_PATH = shlex.quote(folder)
    try:
        yield
    finally:
        cpp_extension.TORCH_LIB_PATH = folder


# ---------------------------------------------------------------------------------------------------------------
# On a GPU
# ---------------------------------------------------------------------------------------------------------------


@cache
def _for_a_gpu(function: Function, constants: tuple[Any, ...]) -> Function:
    # torch gives up a function that it has compiled for eight shapes, and a pack has more of them when its members
    # leave one by one. Code for any size would be compiled once, but it is several times slower.
    torch._dynamo.config.recompile_limit = 1000

    def plain(*tensors: Tensor) -> None:
        function(*constants, *tensors)

    fast = torch.compile(plain, fullgraph=True, dynamic=False, options=_OPTIONS)

    def call(*tensors: Tensor) -> None:
        if _is_possible:
            try:
                fast(*tensors)
                return
            except torch._dynamo.exc.BackendCompilerFailed as error:
                # This comes before anything is computed, so nothing is computed twice.
                _give_up(error.inner_exception)
        plain(*tensors)

    return call
