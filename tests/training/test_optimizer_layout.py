"""A fused optimizer that goes on from a checkpoint, in which everything is contiguous."""

from __future__ import annotations

import torch

from edgepin_training.trainer import _lay_out_as_parameters


def step(weights: torch.nn.Parameter, optimizer: torch.optim.Optimizer, gradient: torch.Tensor) -> None:
    weights.grad = torch.empty_like(weights).copy_(gradient)
    optimizer.step()


def test_parameters_that_lie_channels_last_go_on_as_if_unbroken() -> None:
    rng = torch.Generator().manual_seed(0)
    start, *gradients = (torch.randn(8, 4, 3, 3, generator=rng) for _ in range(4))

    def begun(values: torch.Tensor) -> tuple[torch.nn.Parameter, torch.optim.Optimizer]:
        weights = torch.nn.Parameter(values.clone().to(memory_format=torch.channels_last))
        return weights, torch.optim.AdamW([weights], fused=True)

    unbroken, optimizer = begun(start)
    step(unbroken, optimizer, gradients[0])
    kept = {name: value.clone().contiguous() for name, value in optimizer.state_dict()["state"][0].items()}
    resumed, again = begun(unbroken.detach())
    again.load_state_dict({**again.state_dict(), "state": {0: kept}})
    _lay_out_as_parameters(again)
    for gradient in gradients[1:]:
        step(unbroken, optimizer, gradient)
        step(resumed, again, gradient)
    assert torch.equal(unbroken, resumed)
