"""A trained encoder as ONNX: batch normalization folded, batch and time free, nothing of this machine in it.

Opset 18 is the lowest that PyTorch's exporter writes without converting, and IR version 8 goes with it; ONNX
Runtime 1.17, the oldest that the SDK takes, reads up to opset 20 and IR version 9.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import logging
import warnings
from collections.abc import Iterator
from typing import Literal

import onnx
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from edgepin._runtime.runtime import INPUT_NAMES, OUTPUT_NAMES
from edgepin_training.encoders import Heads

Modality = Literal["face", "voice"]

OPSET = 18
IR_VERSION = 8

_TRACED_BATCH = 2  # not 1: a traced 1 could be taken for a constant
_TRACED_FRAMES = 98
_MIN_FRAMES = 4


def to_onnx(encoder: nn.Module, modality: Modality, *, size: int = 64, mels: int = 80) -> bytes:
    """The encoder as a self-contained ONNX model. The same weights give the same bytes.

    Args:
        encoder: a `FaceEncoder` or `VoiceEncoder` in evaluation mode; it is not changed.
        modality: ``"face"``: input `face`, uint8 ``(N, size, size, 3)`` RGB; ``"voice"``: input
            `log_mel`, float32 ``(N, T, mels)``. `N` and `T` are free. Outputs `identity` and `pin`, float32
            ``(N, 256)``, unit norm.
        size: side of the face crop in pixels.
        mels: mel bins of the log-mel.

    Raises:
        ValueError: the modality is unknown, or the encoder is in training mode or has a batch normalization
            that follows no convolution.
    """
    if modality not in INPUT_NAMES:
        raise ValueError(f"modality must be face or voice, not {modality!r}")
    batch = torch.export.Dim("N")
    if modality == "face":
        example = torch.zeros(_TRACED_BATCH, size, size, 3, dtype=torch.uint8)
        dynamic = {0: batch}
    else:
        example = torch.zeros(_TRACED_BATCH, _TRACED_FRAMES, mels)
        dynamic = {0: batch, 1: torch.export.Dim("T", min=_MIN_FRAMES)}
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            fold(encoder),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=(dynamic,),
            input_names=[INPUT_NAMES[modality]],
            output_names=list(OUTPUT_NAMES),
            verbose=False,
        )
    if program is None:  # only when asked to write a file
        raise RuntimeError("PyTorch's exporter returned no model")
    return serialize(program.model_proto, f"edgepin_{modality}")


def fold(encoder: nn.Module) -> nn.Module:
    """A copy of an encoder, for inference: every batch normalization is in the layer beside it."""
    if encoder.training:
        raise ValueError("the encoder is in training mode; call eval() first")
    folded = copy.deepcopy(encoder)
    for module in list(folded.modules()):
        if isinstance(module, nn.Sequential):
            _fold_sequence(module)
        for name, child in list(module.named_children()):
            if isinstance(child, Heads):
                setattr(module, name, FoldedHeads(child))
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d)
    left = [name for name, module in folded.named_modules() if isinstance(module, kinds)]
    if left:
        raise ValueError(f"a batch normalization follows no convolution: {', '.join(left)}")
    return folded.eval()


class FoldedHeads(nn.Module):
    """`Heads` without normalization and dropout; the norm broadcasts, so no shape arithmetic is left."""

    def __init__(self, heads: Heads) -> None:
        super().__init__()
        self.identity = _after_norm(heads.norm, heads.identity)
        self.pin = _after_norm(heads.norm, heads.pin)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return _unit(self.identity(x)), _unit(self.pin(x))


def serialize(model: onnx.ModelProto, name: str) -> bytes:
    """A checked model as bytes, without what tells of the machine and the tools that made it.

    Raises:
        onnx.checker.ValidationError: the model is not valid ONNX.
        ValueError: the model keeps tensors outside itself.
    """
    clean = onnx.ModelProto()
    clean.CopyFrom(model)
    graph = clean.graph
    # The exporter writes stack traces, with paths, into the metadata of nodes and values.
    for part in (clean, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.doc_string = ""
        part.ClearField("metadata_props")
    for node in graph.node:
        for attribute in node.attribute:
            attribute.doc_string = ""
    graph.ClearField("value_info")  # shapes that any runtime infers
    graph.name = name
    clean.ir_version = IR_VERSION
    clean.producer_name, clean.producer_version = "edgepin", ""
    clean.ClearField("domain")
    clean.ClearField("model_version")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in graph.initializer):
        raise ValueError("the model keeps tensors outside itself")
    onnx.checker.check_model(clean, full_check=True)
    return bytes(clean.SerializeToString(deterministic=True))


def _unit(x: Tensor) -> Tensor:
    return x / torch.clamp(torch.sqrt((x * x).sum(dim=1, keepdim=True)), min=1e-12)


def _fold_sequence(sequence: nn.Sequential) -> None:
    names = list(sequence._modules)
    for first, second in itertools.pairwise(names):
        convolution, norm = sequence._modules[first], sequence._modules[second]
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            sequence._modules[first] = fuse_conv_bn_eval(convolution, norm)
            sequence._modules[second] = nn.Identity()


def _after_norm(norm: nn.BatchNorm1d, linear: nn.Linear) -> nn.Linear:
    """A linear layer that does what `linear(norm(x))` does: W(a·x + b) + c = (W·a)x + (Wb + c)."""
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("the batch normalization has no running statistics")
    scale = torch.rsqrt(norm.running_var + norm.eps) * norm.weight
    shift = norm.bias - norm.running_mean * scale
    result = nn.Linear(linear.in_features, linear.out_features)
    with torch.no_grad():
        result.weight.copy_(linear.weight * scale)
        result.bias.copy_(linear.weight @ shift + linear.bias)
    return result


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of optional packages that are not installed, and of its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
