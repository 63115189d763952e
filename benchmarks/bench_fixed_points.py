"""Fixed points of a trained run: Levenberg-Marquardt against Adam on q, from the same starts, in CPU seconds.

    python -m benchmarks.bench_fixed_points RUN [STARTS]

Starts are states of the delay on noisy trials of all set sizes. A start counts as found where its search ends with q
below 1e-12 Hz² for Adam (the tolerance of FixedPointFinder), and below the stricter 1e-20 (1 + |r|²) for
Levenberg-Marquardt.
"""

import sys
import time
from pathlib import Path

import torch

from vwm.analysis.adam_on_q import adam_on_q
from vwm.analysis.dynamics import NetworkFlow
from vwm.analysis.phase_search import states_by_phase
from vwm.analysis.root_search import FixedPoints, find_fixed_points
from vwm.training.checkpoint import open_run
from vwm.training.run_folder import RunFolder


def show(name: str, found: FixedPoints, seconds: float) -> None:
    starts = len(found.reached)
    largest = f"{float(found.q.max()):.1e}" if len(found.q) else "–"
    unstable = "/".join(str(int((found.unstable_modes == n).sum())) for n in range(3))
    print(
        f"{name:<24}{int((found.reached >= 0).sum()):>6} of {starts:<5}{len(found.q):>8}{unstable:>12}"
        f"{largest:>12}{seconds:>10.2f}"
    )


def main() -> None:
    torch.set_num_threads(1)
    run, _ = open_run(RunFolder(Path(sys.argv[1])), torch.device("cpu"), 1, writes=False)
    starts = int(sys.argv[2]) if len(sys.argv) > 2 else 256
    network, params = run.network, run.configuration.model_params
    search = run.configuration.fpf_params.model_copy(update={"fpf_trials": starts // 8, "fpf_N_init": 8})
    configuration = run.configuration.model_copy(update={"fpf_params": search})
    _, states = states_by_phase(network, configuration, torch.Generator().manual_seed(0))
    begin = states["fpf_delay"].flatten(0, 1)
    nothing, group = torch.zeros_like(begin), torch.zeros(len(begin), dtype=torch.long)
    system = NetworkFlow(network)

    print(f"N {params.num_neurons}, {run.iteration} iterations of training, delay, {params.dt:g} ms a step")
    print(f"{'search':<24}{'found':>6}{'':>9}{'unique':>8}{'0/1/2 unst.':>12}{'largest q':>12}{'CPU s':>10}")
    clock = time.process_time()
    found = find_fixed_points(system, begin, nothing, group, params.dt)
    show("Levenberg-Marquardt", found, time.process_time() - clock)
    for iterations, learning_rate in ((500, 0.01), (5000, 0.01), (500, 1.0), (5000, 1.0)):
        clock = time.process_time()
        found = adam_on_q(
            system, begin, nothing, group, params.dt, learning_rate=learning_rate, max_iterations=iterations
        )
        show(f"Adam {learning_rate:g}, {iterations}", found, time.process_time() - clock)


if __name__ == "__main__":
    main()
