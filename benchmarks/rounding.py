"""How far float32 is from float64: the gradients of a batch by plain autograd and by vwm, compiled, each in float32.

Both start from the same weights, angles and random words as plain autograd in float64, whose gradients they are
compared with: the length of the difference as a share of the length of the gradient, the largest of the recurrent,
input and read-out weights; the median over some networks. A single rate that is cut at 0 in one of them and not in
the other moves it tenfold. The table is also written to benchmarks/results/rounding.csv.

Usage: python -m benchmarks.rounding [--units 64 256] [--trials 64] [--networks 9]
"""

import argparse
import statistics
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from benchmarks.bench_iteration import configuration
from tests.plain_recurrence import simulate_plainly
from vwm.config import ModelParams
from vwm.files import write_atomically
from vwm.model.losses import error_loss
from vwm.model.network import Network, simulate
from vwm.model.task import Trials, draw_trials, equal_shares


def gradients(network: Network, readout: Tensor, trials: Trials) -> list[Tensor]:
    loss = error_loss("rad", readout, trials).mean()
    return list(torch.autograd.grad(loss, list(network.parameters())))


def errors(params: ModelParams, trials: int, seed: int) -> tuple[float, float]:
    """Of plain autograd and of vwm, for one network and one batch."""

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    network, exact = Network(params, generator()), Network(params, generator(), dtype=torch.float64)
    exact.load_state_dict(network.state_dict())  # what float32 made of the weights
    double = draw_trials(params, equal_shares(params.item_num, trials), generator(), dtype=torch.float64)
    single = double.to(torch.device("cpu"), torch.float32)
    true = gradients(exact, simulate_plainly(exact, double, generator())[2], double)
    plain = gradients(network, simulate_plainly(network, single, generator())[2], single)
    ours = gradients(network, simulate([network], [single], [generator()], compile=True).readout[:, 0], single)

    def error(found: list[Tensor]) -> float:
        pairs = zip(found, true, strict=True)
        return max(float((one - other).norm() / other.norm()) for one, other in pairs)

    return error(plain), error(ours)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--networks", type=int, default=9)
    given = parser.parse_args()
    print(f"{'units':>6}  {'noise':<8}{'autograd':>10}{'vwm':>10}{'times':>8}")
    rows = []
    for units in given.units:
        for noise in ("gamma", "gauss", "none"):
            params = configuration(units, noise).model_params.model_copy(update={"gamma_sampler": "quantile"})
            found = [errors(params, given.trials, seed) for seed in range(given.networks)]
            plain, ours = (statistics.median(each) for each in zip(*found, strict=True))
            print(f"{units:>6}  {noise:<8}{plain:>10.1e}{ours:>10.1e}{ours / plain:>8.2f}", flush=True)
            rows.append({"units": units, "noise": noise, "autograd": plain, "vwm": ours})
    table = pd.DataFrame(rows).to_csv(index=False, float_format="%.3g")
    write_atomically(Path(__file__).with_name("results") / "rounding.csv", table)


if __name__ == "__main__":
    main()
