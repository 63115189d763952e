"""The responses table: what a responder, network or human, answered. All measures and models start from it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vwm.behaviour.circular import FloatArray, wrap
from vwm.errors import UserError

IntArray = NDArray[np.int64]


class UnreadableResponses(UserError):
    """A file of responses is missing, damaged, or not what a file of responses must be."""


@dataclass(frozen=True)
class Responses:
    """The responses of one responder, one row each; angles in radians.

    A person gives one response on a trial, a network one for every item shown.
    """

    responder: str
    trial: IntArray  # [rows] which trial a response belongs to
    set_size: IntArray  # [rows] items shown on that trial
    target: FloatArray  # [rows]
    response: FloatArray  # [rows]
    non_targets: FloatArray  # [rows, most items − 1]: the other places of the trial, NaN where no item was shown
    location: IntArray | None = None  # [rows] the target's place, where places are known: a network's column
    non_target_locations: IntArray | None = None  # [rows, most items − 1] the places of ``non_targets``

    @property
    def errors(self) -> FloatArray:
        """[rows] response − target in [-π, π)."""
        return wrap(self.response - self.target)

    def set_sizes(self) -> list[int]:
        """The set sizes there are, ascending."""
        return [int(n) for n in np.unique(self.set_size)]


def read_run(path: Path, responder: str) -> Responses:
    """The responses of a network's final evaluation.

    Args:
        path: ``responses.npz`` with ``set_size`` [T] and, in radians with NaN where no item was shown,
            ``target`` and ``response`` [T, M] of T trials and M locations.
        responder: the run's id.

    Raises:
        UnreadableResponses: the file is missing or damaged, lacks an array, or its arrays contradict each other.
    """
    set_size, target, response = _load(path)
    shown = ~np.isnan(target)
    _check(path, set_size, target, response, shown)
    trial, location = np.nonzero(shown)
    places = target.shape[1]
    others = np.array([[place for place in range(places) if place != own] for own in range(places)], dtype=np.intp)
    return Responses(
        responder=responder,
        trial=trial,
        set_size=set_size[trial],
        target=target[shown],
        response=response[shown],
        non_targets=target[trial[:, None], others[location]],
        location=location,
        non_target_locations=others[location],
    )


def _load(path: Path) -> tuple[IntArray, FloatArray, FloatArray]:
    """``set_size``, ``target`` and ``response``; nothing in the file is unpickled."""
    names = ("set_size", "target", "response")
    try:
        with open(path, "rb") as handle:
            file = np.load(handle, allow_pickle=False)
            found = dict(file) if isinstance(file, np.lib.npyio.NpzFile) else {}
    except FileNotFoundError:
        raise UnreadableResponses(f"{path}: there is no such file.") from None
    except Exception as error:  # What a damaged archive makes zipfile, zlib and numpy raise has no common base.
        raise UnreadableResponses(f"{path}: the file is damaged: {error or type(error).__name__}") from None
    for name in names:
        if name not in found:
            raise UnreadableResponses(f"{path}: the array {name!r} is missing; found: {_listed(list(found))}.")
    arrays = [found[name] for name in names]
    for name, array, kinds in zip(names, arrays, ("iu", "f", "f"), strict=True):
        if array.dtype.kind not in kinds:
            expected = "whole numbers" if kinds == "iu" else "floating-point numbers"
            raise UnreadableResponses(f"{path}: {name!r} has type {array.dtype}; {expected} were expected.")
    set_size, target, response = arrays
    return set_size.astype(np.int64), target.astype(np.float64), response.astype(np.float64)


def _check(path: Path, set_size: IntArray, target: FloatArray, response: FloatArray, shown: NDArray[np.bool_]) -> None:
    trials = len(set_size)
    if set_size.ndim != 1 or target.ndim != 2 or target.shape != response.shape or len(target) != trials:
        shapes = f"set_size {set_size.shape}, target {target.shape}, response {response.shape}"
        raise UnreadableResponses(f"{path}: shapes {shapes}; [T], [T, M] and [T, M] were expected.")
    if trials == 0:
        raise UnreadableResponses(f"{path}: there is no trial in this file.")
    # Single precision rounds π itself up, hence the small margin.
    limit = np.pi + 1e-6
    for name, angles in (("target", target), ("response", response)):
        if np.any(np.abs(angles[shown]) > limit):
            raise UnreadableResponses(f"{path}: {name!r} goes beyond ±π; radians in [-π, π) were expected.")
    if np.any(set_size < 1) or np.any(shown.sum(axis=1) != set_size):
        raise UnreadableResponses(f"{path}: the items shown on some trial are not as many as its set size.")
    unanswered = int(np.isnan(response[shown]).sum())
    if unanswered:
        raise UnreadableResponses(f"{path}: {unanswered} of {shown.sum()} items have no response (NaN).")


def _listed(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names) or "nothing"
