"""How far the kernels are from the plain autograd version in float64 with the same random words, as JSON.

On a GPU where there is one, and otherwise in Triton's interpreter, which has to be asked for before Triton is imported:
TRITON_INTERPRET=1 python -m tests.kernel_differences
"""

import json

import torch

from tests.plain_recurrence import simulate_plainly
from tests.test_recurrence import CASES, drawn, generator, gradients, loss_of, params_with
from vwm.config import ModelParams
from vwm.model import recurrence
from vwm.model.network import Network, simulate
from vwm.model.task import Trials

KINDS = {name: change for name, change in CASES.items() if name != "gamma by torch"}
KINDS["power law"] = {**CASES["power law"], "input_strength": 20.0}  # With more, rates grow beyond what float32 holds.
# Beside those of the recurrence: more units than a program keeps the weights of, in number no multiple of anything,
# and more trials than one program takes.
LARGE: dict[str, object] = {"num_neurons": 70, "spike_noise_factor": 0.2}


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours.double().cpu() - theirs).norm() / theirs.norm())


def differences(pack: list[tuple[Network, Trials]], device: torch.device) -> dict[str, float]:
    """The largest relative difference over members of the read-out, the mean rate and each gradient."""
    networks = [Network(network.params, generator(0)).to(device) for network, _ in pack]
    for network, (exact, _) in zip(networks, pack, strict=True):
        network.load_state_dict(exact.state_dict())
    trials = [batch.to(device, torch.float32) for _, batch in pack]
    assert recurrence.has_kernel(networks[0].tau, networks[0].params.num_neurons)
    together = simulate(networks, trials, [generator(5 + index) for index in range(len(pack))])
    losses = [loss_of(together.mean_rate[i], together.readout[:, i], batch) for i, batch in enumerate(trials)]
    torch.stack(losses).sum().backward()
    found: dict[str, list[float]] = {}
    for index, (exact, batch) in enumerate(pack):
        # The plain version starts from what float32 made of the weights.
        exact.load_state_dict(networks[index].state_dict())
        _, mean_rate, readout = simulate_plainly(exact, batch, generator(5 + index))
        pairs = {
            "mean rate": (together.mean_rate[index], mean_rate),
            "read-out": (together.readout[:, index], readout),
        }
        plain = gradients(exact, loss_of(mean_rate, readout, batch))
        for name, parameter, theirs in zip(("W", "B", "F"), networks[index].parameters(), plain, strict=True):
            assert parameter.grad is not None
            pairs[name] = (parameter.grad, theirs)
        for name, (ours, theirs) in pairs.items():
            found.setdefault(name, []).append(relative(ours.detach(), theirs.detach()))
    return {name: torch.tensor(values).max().item() for name, values in found.items()}  # NaN where one is


def main() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def one(params: ModelParams, trials: int = 7) -> list[tuple[Network, Trials]]:
        return [drawn(params, trials=trials)]

    results = {name: differences(one(params_with(change)), device) for name, change in KINDS.items()}
    results["large"] = differences(one(params_with(LARGE), trials=20), device)
    kept, recurrence.KEPT_BYTES = recurrence.KEPT_BYTES, 5 * 5 * 7 * 12 * 4
    results["in stretches"] = differences(one(params_with(CASES["gamma"])), device)
    recurrence.KEPT_BYTES = kept
    pack = [drawn(params_with({"spike_noise_factor": k, "input_strength": 60 + 20 * k}), seed=seed) for seed, k in
            enumerate((0.1, 0.2, 0.4))]  # fmt: skip
    results["a pack"] = differences(pack, device)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
