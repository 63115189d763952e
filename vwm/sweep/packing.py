"""How many runs of a kind one job trains together where a profile says ``runs_per_job: auto``."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vwm.config import Configuration
from vwm.errors import UserError
from vwm.files import read_json, write_atomically

if TYPE_CHECKING:  # torch takes seconds to load.
    from vwm.training.pack_speed import PackSpeed

# From benchmarks/bench_gpu.py on an H100: from 16 networks of 64 units or 4 of 256 on, with 512 trials each, twice as
# many do at most a tenth more iterations in all. A smaller GPU is full sooner, and loses nothing by more.
_FILLS_A_GPU = 1024 * 512  # units × trials of all networks of a pack
_MOST = 64

# Iterations of such a pack in a second against those of one run, on that H100.
_GAIN = {64: 4.9, 256: 3.3}

WORTH_DOUBLING = 1.1
"""Twice as many runs are taken where they do at least so many times the iterations in all."""


@dataclass(frozen=True)
class Pack:
    """A pack that a job should have.

    Attributes:
        runs: that are trained together.
        gain: how many times the iterations of one run they do in all; None where that was not measured.
        card: the GPU that this was measured on.
        measured: whether it was that of this profile's jobs; otherwise it is an estimate.
    """

    runs: int
    gain: float | None
    card: str
    measured: bool


def estimated_pack(configuration: Configuration) -> Pack:
    """What an H100 makes of runs like this one."""
    model, trials = configuration.model_params, configuration.training_params.num_trials
    runs = max(1, min(_MOST, _FILLS_A_GPU // (model.num_neurons * trials)))
    gain = _GAIN.get(model.num_neurons) if trials == 512 and runs > 1 else None
    return Pack(runs, gain, "an H100", measured=False)


def kind_of(configuration: Configuration) -> str:
    """A name for what the speed of a run depends on."""
    model = configuration.model_params
    noise = "no noise"
    if model.spike_noise_factor > 0:
        noise = f"{model.spike_noise_type} noise"
        if model.gamma_sampler == "torch" and model.spike_noise_type in ("gamma", "csnr"):
            noise += " by torch's sampler"  # which a graph of a GPU cannot hold
    return f"{model.num_neurons} units, {configuration.training_params.num_trials} trials, {model.steps} steps, {noise}"


def chosen(card: str, speeds: Iterable["PackSpeed"]) -> Pack:
    """The smallest pack of which twice as large a one would do hardly more in all."""
    known = {speed.runs: speed.iterations_per_second for speed in speeds}
    runs = min(known)
    while known.get(2 * runs, 0.0) >= WORTH_DOUBLING * known[runs]:
        runs *= 2
    return Pack(runs, known[runs] / known[min(known)], card, measured=True)


def measurements_file(profile: Path) -> Path:
    """Where the packs that were measured for a profile stand: beside it."""
    return profile.with_name(f"{profile.stem}.packs.json")


def read_packs(profile: Path) -> dict[str, Pack]:
    """The packs measured for a profile, by `kind_of`.

    Raises:
        UserError: the file is damaged.
    """
    path = measurements_file(profile)
    try:
        content = read_json(path)
        return {
            kind: Pack(int(entry["runs"]), float(entry["gain"]), str(entry["card"]), measured=True)
            for kind, entry in ({} if content is None else content).items()
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(
            f"{path}: these are no measurements of packs. Delete the file, and measure again with vwm-sweep "
            "measure-packs."
        ) from None


def write_pack(profile: Path, configuration: Configuration, pack: Pack, speeds: Iterable["PackSpeed"]) -> None:
    """Add a measurement to those of a profile, in the place of an earlier one of that kind."""
    path = measurements_file(profile)
    content = read_json(path) or {}
    content[kind_of(configuration)] = {
        "card": pack.card,
        "runs": pack.runs,
        "gain": round(pack.gain or 1.0, 3),
        "speeds": [asdict(speed) for speed in speeds],
    }
    write_atomically(path, json.dumps(content, indent=1) + "\n")


def pack_of(configuration: Configuration, measured: Mapping[str, Pack]) -> Pack:
    """The pack for runs like this one: as it was measured, or else as estimated."""
    return measured.get(kind_of(configuration)) or estimated_pack(configuration)
