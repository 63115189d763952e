"""How many runs of a kind one job trains together where a profile says ``runs_per_job: auto``."""

from vwm.config import Configuration

# From benchmarks/bench_gpu.py on an H100: from 16 networks of 64 units or 4 of 256 on, with 512 trials each, twice as
# many do at most a tenth more iterations in all. A smaller GPU is full sooner, and loses nothing by more.
_FILLS_A_GPU = 1024 * 512  # units × trials of all networks of a pack
_MOST = 64

# Iterations of such a pack in a second against those of one run, on that H100.
_GAIN = {64: 4.8, 256: 3.3}


def runs_that_fill_a_gpu(configuration: Configuration) -> int:
    """Runs like this one that a pack should have; an estimate, since no GPU is looked at."""
    of_one = configuration.model_params.num_neurons * configuration.training_params.num_trials
    return max(1, min(_MOST, _FILLS_A_GPU // of_one))


def gain_of_a_pack(configuration: Configuration) -> float | None:
    """How many times the iterations of one run such a pack does in all, where it was measured."""
    return (
        _GAIN.get(configuration.model_params.num_neurons) if configuration.training_params.num_trials == 512 else None
    )
