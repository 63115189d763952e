"""Adam and the schedule of the step size, against torch's own."""

from pathlib import Path

import torch
from torch import nn

from tests.conftest import python
from vwm.training.optimizer import Adam, Plateau

SHAPES = ((5, 5), (5, 3), (2, 5))


def parameters() -> list[nn.Parameter]:
    rng = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=rng)) for shape in SHAPES]


def gradients(step: int) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(100 + step)
    return [torch.randn(shape, generator=rng) * 10.0 ** (step % 5 - 3) for shape in SHAPES]


def test_the_steps_are_those_of_torch_to_the_bit_and_states_go_both_ways() -> None:
    ours, torchs = parameters(), parameters()
    adam, reference = Adam(ours, 0.01), torch.optim.Adam(torchs, lr=0.01)

    def steps(first: int, stop: int) -> None:
        for step in range(first, stop):
            for one, other, gradient in zip(ours, torchs, gradients(step), strict=True):
                one.grad, other.grad = gradient, gradient.clone()
            adam.step()
            reference.step()
        assert all(torch.equal(one, other) for one, other in zip(ours, torchs, strict=True))

    steps(0, 20)
    halfway, torchs_halfway = adam.state_dict(), reference.state_dict()
    adam = Adam(ours, 1.0)
    adam.load_state_dict(torchs_halfway)
    assert adam.learning_rate == 0.01
    reference.load_state_dict(
        {
            "state": halfway["state"],
            "param_groups": [{**torchs_halfway["param_groups"][0], **halfway["param_groups"][0]}],
        }
    )
    steps(20, 40)
    adam.zero_grad()
    assert all(parameter.grad is None for parameter in ours)


def test_a_step_can_be_skipped_and_its_size_read_from_a_tensor_as_in_a_recorded_iteration() -> None:
    """What a graph on a GPU replays, computed by the same fused kernel for a CPU."""
    ours, torchs = parameters(), parameters()
    adam, reference = Adam(ours, 1.0), torch.optim.Adam(torchs, lr=0.02)
    adam._on_gpu = True  # the kernel of torch for GPUs and CPUs alike
    size = torch.tensor(0.02)
    for step in range(6):
        before = [parameter.detach().clone() for parameter in ours]
        skip = torch.tensor(float(step == 3))
        for one, other, gradient in zip(ours, torchs, gradients(step), strict=True):
            one.grad, other.grad = gradient, gradient.clone()
        adam.step(size, skip)
        if step == 3:
            assert all(torch.equal(one, other) for one, other in zip(ours, before, strict=True))
            continue
        reference.step()
        for one, other in zip(ours, torchs, strict=True):
            torch.testing.assert_close(one, other)


def test_the_schedule_is_that_of_torch() -> None:
    """Also through a NaN, a loss that falls by less than counts, and down to the smallest step size."""
    rng = torch.Generator().manual_seed(1)
    losses = (torch.rand(3000, generator=rng) / torch.arange(1, 3001).clamp_max(60)).tolist()
    losses[100], losses[200:210] = float("nan"), [min(losses[:200]) * (1 - 9e-5)] * 10
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-3)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=7)
    optimizer.step()
    plateau, size = Plateau(7), 1e-3
    for index, loss in enumerate(losses):
        if index == 150:
            kept = reference.state_dict()
            plateau = Plateau(7)
            plateau.load_state_dict(kept)
        size = plateau.step_size(loss, size)
        reference.step(loss)
        assert size == optimizer.param_groups[0]["lr"]
        assert plateau.state_dict() == {name: reference.state_dict()[name] for name in plateau.state_dict()}
    assert 1e-8 < size < 2.1e-8


def test_training_does_not_load_the_compiler_of_torch() -> None:
    code = (
        "import sys, torch\n"
        "from tests.test_recurrence import BASE\n"
        "from vwm.config import Configuration\n"
        "from vwm.training.iteration import backward\n"
        "from vwm.training.training_run import TrainingRun\n"
        "settings = {'num_trials': 6, 'gradient_clipping': 1.0}\n"
        "run = TrainingRun(\n"
        "    Configuration.model_validate({'model_params': BASE, 'training_params': settings}), torch.device('cpu'))\n"
        "(measured,) = backward([run], 0)\n"
        "assert run.update(measured, 1)\n"
        "run.load_state_dict(run.state_dict())\n"
        "print([name for name in ('torch._dynamo', 'torch._inductor', 'sympy') if name in sys.modules])"
    )
    done = python("-c", code, cwd=Path(__file__).parents[1])
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
