"""Fine-tuning under quantization, for encoders that lose too much without.

Weights and activations are rounded as the INT8 encoder will round them, and gradients pass the rounding as if it were
not there, but for what is clipped (the straight-through estimator, Bengio et al. 2013; quantization-aware training,
Jacob et al. 2018, section 3). The teacher is the FP32 encoder: embeddings of training captures are pulled towards its
embeddings of the same captures, and no label is used, so that what the encoder tells apart stays what it was.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from edgepin_training.encoders import ResidualBlock, TimeBlock

from ._onnx import fold
from ._parity import batched
from ._quantize import QuantizeSpec
from ._ranges import Feed, Histogram, Progress

_LARGEST_CODE = 127


@dataclass(frozen=True)
class QatOptions:
    """Raises ValueError if an option is out of its range."""

    steps: int = 200
    batch_size: int = 16  # captures a step
    learning_rate: float = 2e-4  # of Adam, decaying to zero on a half cosine
    seed: int = 0  # of the order of captures

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)!r}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, not {self.learning_rate!r}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, not {self.seed!r}")


def fine_tune(
    encoder: nn.Module,
    model: bytes,
    observed: Mapping[str, Histogram],
    spec: QuantizeSpec,
    feeds: Sequence[Feed],
    options: QatOptions | None = None,
    *,
    label: str = "fine-tuning",
    progress: Progress | None = None,
) -> nn.Module:
    """A folded copy of an encoder whose weights are made for INT8. The same arguments give the same weights.

    Args:
        encoder: the encoder that `model` was made of, in evaluation mode; it is not changed.
        model: its FP32 ONNX, which says what `observed` calls each activation.
        observed: from `observe`, of this model; the ranges stay as they are.
        spec: how it will be quantized; exempt layers are left in floating point here too.
        feeds: captures that were trained on, all of one shape.

    Raises:
        ValueError: there is no feed, or the model is not of this encoder.
    """
    options = options or QatOptions()
    if not feeds:
        raise ValueError("there is no capture to fine-tune on")
    (inputs,) = batched(feeds, len(feeds))[:1] if len(batched(feeds, len(feeds))) == 1 else (None,)
    if inputs is None:
        raise ValueError("the captures differ in shape")
    captures = torch.from_numpy(next(iter(inputs.values())))
    teacher = fold(encoder)
    with torch.no_grad():
        wanted = [
            torch.cat(parts)
            for parts in zip(*(teacher(part) for part in captures.split(options.batch_size)), strict=True)
        ]
    student = copy.deepcopy(teacher)
    hooks = _insert_rounding(student, model, observed, spec)
    parameters = [value for value in student.parameters() if value.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=options.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
    random = np.random.default_rng(options.seed)
    order: list[int] = []
    size = min(options.batch_size, len(captures))
    for step in range(1, options.steps + 1):
        while len(order) < size:
            order += random.permutation(len(captures)).tolist()
        rows, order = torch.tensor(order[:size]), order[size:]
        found = student(captures[rows])
        loss = sum(
            (1 - functional.cosine_similarity(mine, theirs[rows], dim=1)).mean()
            for mine, theirs in zip(found, wanted, strict=True)
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        optimizer.step()
        schedule.step()
        if progress:
            progress(label, step, options.steps)
    for hook in hooks:
        hook.remove()
    for module in list(student.modules()):
        if parametrize.is_parametrized(module):
            # Not the rounded weights: quantizing rounds them anyway, and FP32 layers would get them too.
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
    return student.eval()


def _insert_rounding(
    student: nn.Module, model: bytes, observed: Mapping[str, Histogram], spec: QuantizeSpec
) -> list[Any]:
    """Rounds the weights and inputs of the convolutions, and the shortcuts; returns what undoes the inputs' part."""
    graph = onnx.load_model_from_string(model).graph
    convolutions = {
        node.input[1].removesuffix(".weight"): node for node in graph.node if node.op_type == "Conv"
    }
    sums = {
        name
        for node in graph.node
        if node.op_type == "Add" and node.name not in spec.exempt
        for name in node.input
    }
    hooks = []

    def round_input(module: nn.Module, tensor: str) -> None:
        step = observed[tensor].clip(spec.method, spec.percentile) / _LARGEST_CODE
        hooks.append(module.register_forward_pre_hook(_rounding(step)))

    for name, module in list(student.named_modules()):
        if isinstance(module, nn.Conv2d):
            if name not in convolutions:
                raise ValueError(f"the model has no convolution {name}")
            node = convolutions[name]
            if node.name not in spec.exempt:
                parametrize.register_parametrization(module, "weight", _RoundedWeight(), unsafe=True)
                round_input(module, node.input[0])
        elif isinstance(module, (ResidualBlock, TimeBlock)):
            inner = next(part for part, child in module.named_modules() if isinstance(child, nn.Conv2d))
            tensor = convolutions[f"{name}.{inner}"].input[0]
            if tensor in sums:
                round_input(module, tensor)  # the shortcut; rounding what is rounded already changes nothing
    return hooks


def _rounding(step: float) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (torch.fake_quantize_per_tensor_affine(inputs[0], step, 0, -_LARGEST_CODE - 1, _LARGEST_CODE),)

    return hook


class _RoundedWeight(nn.Module):
    """A weight as INT8 keeps it: symmetric, one step per output channel."""

    def forward(self, weight: Tensor) -> Tensor:
        step = weight.detach().abs().amax(dim=(1, 2, 3)).clamp(min=1e-12) / _LARGEST_CODE
        zero = torch.zeros_like(step, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, step, zero, 0, -_LARGEST_CODE, _LARGEST_CODE)
