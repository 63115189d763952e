"""The matrix products of an iteration by oneDNN, which vwm takes on a CPU, against torch's own, on one core.

For each number of units: the products of one step, 512 trials × N by N × N, one forward and one on the way back, and
the sum over 202 steps that is the gradient of the weights, with its left factor turned by a compiled function, and as
it lies. The table is also written to benchmarks/results/products.csv.

Usage: python -m benchmarks.bench_products [--units 64 128 256 512 1024]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch

from vwm.files import write_atomically
from vwm.model import products
from vwm.training.workers import use_own_device

TRIALS, STEPS = 512, 202


def seconds(work: Callable[[], object], repeats: int) -> float:
    """The median of some calls after a first one, which may compile."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def speeds(units: int) -> dict[str, float]:
    """Billions of operations a second of each product."""
    rates, deltas = torch.rand(STEPS, 1, TRIALS, units), torch.rand(STEPS, 1, TRIALS, units)
    weights, total = torch.rand(1, units, units), torch.zeros(1, units, units)
    of_a_step = 2e-9 * TRIALS * units**2

    def step() -> float:
        forward, back = products.product_with(weights.transpose(1, 2)), products.product_with(weights)
        return 2 * of_a_step / seconds(lambda: (forward(rates[0]), back(rates[0])), 200)

    def summed(turn: bool) -> float:
        return STEPS * of_a_step / seconds(lambda: products.add_products(total, deltas, rates, compile=turn), 5)

    found = {"step": step(), "sum": summed(False), "turned": summed(True)}
    taken, products._TAKES_ONEDNN = products._TAKES_ONEDNN, False
    found |= {"step by torch": step(), "sum by torch": summed(False)}
    products._TAKES_ONEDNN = taken
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, nargs="+", default=[64, 128, 256, 512, 1024])
    given = parser.parse_args()
    torch.set_num_threads(1)
    use_own_device()  # Freed memory is kept, as in training.
    print(f"torch {torch.__version__}, one core; billions of operations a second, and how many times torch's own")
    print(f"{'':8}{'one step':^24}{'sum over steps':^40}")
    titles = ("torch", "oneDNN", "times", "torch", "as it lies", "turned", "times")
    print(f"{'units':>8}" + "".join(f"{title:>{max(8, len(title) + 2)}}" for title in titles))
    rows = []
    for units in given.units:
        each = speeds(units)
        rows.append({"units": units, **each})
        one, other = each["step"] / each["step by torch"], each["turned"] / each["sum by torch"]
        print(
            f"{units:>8}{each['step by torch']:>8.0f}{each['step']:>8.0f}{one:>8.2f}"
            f"{each['sum by torch']:>8.0f}{each['sum']:>12.0f}{each['turned']:>8.0f}{other:>8.2f}",
            flush=True,
        )
    table = pd.DataFrame(rows).assign(torch=torch.__version__).round(1)
    write_atomically(Path(__file__).with_name("results") / "products.csv", table.to_csv(index=False))


if __name__ == "__main__":
    main()
