"""Random numbers as a function of their purpose: interrupting, packing or resuming a run changes nothing."""

import numpy as np
import torch

# One number for each purpose keeps the streams of a seed apart.
_INITIAL_NETWORK, _ITERATION, _EVALUATION = 0, 1, 2


def _generator(entropy: int, *key: int) -> torch.Generator:
    """A generator whose stream is a hash of the entropy and the key, on the CPU, so that it is the same everywhere.

    It takes 32 bits of the 64-bit seed; two of the 50,000 iterations of a run may then share a stream by chance, which
    is harmless.
    """
    seed = np.random.SeedSequence(entropy, spawn_key=key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(seed >> np.uint64(1)))


def initial_network_stream(seed: int) -> torch.Generator:
    """Draws the initial weights and time constants of a run."""
    return _generator(seed, _INITIAL_NETWORK)


def iteration_stream(seed: int, iteration: int, rank: int) -> torch.Generator:
    """Draws the trials and the spike noise of one training iteration in one process, and nothing else."""
    return _generator(seed, _ITERATION, iteration, rank)


def evaluation_stream(set_size: int, batch: int) -> torch.Generator:
    """Draws a batch of the evaluation trials: the same for every run, whatever its seed."""
    return _generator(0, _EVALUATION, set_size, batch)
