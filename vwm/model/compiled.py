"""Element-wise functions compiled by torch.compile, or as they are where no compiler is found."""

import sys
from collections.abc import Callable
from functools import cache

import torch

_OPTIONS: dict[str, str | int | bool | Callable[..., object]] = {
    "cpp.enable_floating_point_contract_flag": "fast",  # a product and a sum in one instruction
    "cpp.threads": 1,  # a network has one core
    "compile_threads": 1,  # and its compiler no more
}


class _Compiled:
    """A function that is compiled at its first call. It may have no result: it writes into its arguments."""

    is_possible = True

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function
        # torch gives up a function that it has compiled for eight shapes, and a pack on a GPU has more of them when its
        # members leave one by one.
        torch._dynamo.config.recompile_limit = 1000
        # torch keeps what it has compiled on the disk, so the next process with arrays of this size finds it there.
        # Code for any size would be compiled once, but it is several times slower.
        self._compiled = torch.compile(function, fullgraph=True, dynamic=False, options=_OPTIONS)

    def __call__(self, *arguments: object) -> None:
        if _Compiled.is_possible:
            try:
                self._compiled(*arguments)
                return
            except torch._dynamo.exc.BackendCompilerFailed as error:
                # This comes before anything is computed, so nothing is computed twice.
                _Compiled.is_possible = False
                reason = f"{type(error.inner_exception).__name__}: {error.inner_exception}".splitlines()[0]
                print(
                    f"Training goes on uncompiled, several times slower: torch.compile found no working compiler "
                    f"({reason}). Install a C++ compiler such as g++, and Python's headers.",
                    file=sys.stderr,
                )
        self._function(*arguments)


@cache
def _of(function: Callable[..., None]) -> _Compiled:
    return _Compiled(function)


def compiled(function: Callable[..., None], wanted: bool) -> Callable[..., None]:
    """The function compiled, once a process, or the function itself."""
    return _of(function) if wanted else function


def is_compiling() -> bool:
    """Whether a compiler was found, as far as one was looked for."""
    return _Compiled.is_possible
