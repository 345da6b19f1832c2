"""What a built engine consists of, layer by layer: the evidence that it does what the graph asked for.

TensorRT tells in two ways: as JSON from an engine that is loaded, and, in the builder's log, as text, which is all there
is where the GPU of the engine is not at hand. Both are read into the same `Layer`s. A layer whose text is not
understood raises: a report with holes would prove less than it seems to.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Any

from .._errors import EdgePinError


@dataclasses.dataclass(frozen=True)
class Tensor:
    """What a layer reads or writes."""

    name: str
    shape: tuple[int, ...]
    """-1 is free."""
    dtype: str
    """In lower case, such as `int8`, `fp16`, `fp32`."""
    format: str
    """How it lies in memory, in TensorRT's words."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """One step of an engine. Without its constants, which are weights."""

    name: str
    kind: str
    """TensorRT's name of the kind, such as `CaskConvolution`, `correlation`, `kgen`."""
    nodes: tuple[str, ...]
    """The nodes of the graph that are fused in it."""
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    tactic: str = ""

    @property
    def operations(self) -> tuple[str, ...]:
        """What a generated kernel does, by the abbreviations in its name, such as `Mul`, `Add`, `Relu`, `Cast`."""
        found = re.match(r"__myl_([A-Za-z0-9]+)_", self.name)
        return tuple(re.findall(r"[A-Z][a-z0-9]*", found[1])) if found else ()

    @property
    def is_kernel(self) -> bool:
        """Whether it runs on the GPU, rather than only counting or naming."""
        return self.kind not in _NO_KERNELS

    @property
    def is_reformat(self) -> bool:
        """Whether it does nothing but change where or how values lie."""
        if self.kind.lower() in ("reformat", "shuffle", "copy"):
            return True
        return bool(self.inputs and self.operations) and set(self.operations) <= _MOVING

    @property
    def is_convolution(self) -> bool:
        """Whether it is one, with whatever is fused to it."""
        return bool(re.search("conv|correlation", self.kind, re.IGNORECASE) or "Corr" in self.operations)

    def to_json(self) -> dict[str, Any]:
        """Plain values, under the fields' names, and the `operations`."""
        return {**dataclasses.asdict(self), "operations": list(self.operations)}


_NO_KERNELS = {"shape_call", "NoOp", "Constant", "ShapeHostToDevice", "DeviceToShapeHost", "Signal", "Wait"}
_MOVING = {"Move", "Tran", "Resh", "Cast", "Repl", "Conc", "Slic", "Sque", "Unsq", "Copy"}


def counts(layers: Sequence[Layer]) -> dict[str, int]:
    """`kernels` and `reformats` (which are kernels) of one pass; `convolutions`, and how many of them read INT8."""
    convolutions = [layer for layer in layers if layer.is_convolution]
    return {
        "layers": len(layers),
        "kernels": sum(layer.is_kernel for layer in layers),
        "reformats": sum(layer.is_reformat for layer in layers),
        "convolutions": len(convolutions),
        "int8_convolutions": sum(reads_int8(layer) for layer in convolutions),
    }


def reads_int8(layer: Layer) -> bool:
    """Whether what a layer computes on comes to it as INT8: its first input, which for a convolution is the image."""
    return bool(layer.inputs) and layer.inputs[0].dtype == "int8"


def layers_from_inspector(text: str) -> list[Layer]:
    """The layers in the JSON of an `EngineInspector`. Raises `EdgePinError` if it is none, or tells no details."""
    try:
        found = json.loads(text)["Layers"]
        return [_from_json(value) for value in found]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EdgePinError(f"TensorRT's list of layers is not understood: {error!r:.200}") from None


def layers_from_log(text: str) -> list[Layer]:
    """The layers in a builder's message that begins with `Layers:`. Raises `EdgePinError` on a line it does not know."""
    layers = []
    lines = text.splitlines()
    for line in lines[1:] if lines and lines[0].startswith("Layers:") else []:
        if not line.strip():
            break  # after a blank line come inputs and outputs
        found = _LINE.fullmatch(line.strip())
        if found is None:
            raise EdgePinError(f"a layer in TensorRT's log is not understood: {line[:200]}")
        layers.append(
            Layer(
                found["name"],
                found["kind"],
                _nodes(found["metadata"]),
                _from_text(found["inputs"], line),
                _from_text(found["outputs"], line),
                found["tactic"],
            )
        )
    if not layers:
        raise EdgePinError("TensorRT's log lists no layers")
    return layers


_LINE = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*?)\], Constants: \[.*?\], "
    r"Outputs: \[(?P<outputs>.*?)\], TacticName: (?P<tactic>.*?), StreamId: \d+, Metadata:(?P<metadata>.*)"
)
_TENSOR = re.compile(
    r"\{ Name: (?P<name>.*?), Dimensions: \[(?P<shape>[-\d,]*)\], .*?Datatype: (?P<dtype>\w+), Format: (?P<format>.*?) \}"
)
# The names that its list of layers, its inspector and its formats have for a type.
_TYPES = {"float": "fp32", "half": "fp16", "bfloat16": "bf16"}
_DTYPE = re.compile(
    r"\b(FP32|FP16|BF16|FP8|FP4|INT64|INT32|INT8|UINT8|INT4|BOOL|Int64|Int32|Int8|UInt8|Bool)\b"
)


def _from_text(text: str, line: str) -> tuple[Tensor, ...]:
    found = list(_TENSOR.finditer(text))
    if len(found) != text.count("{ Name: "):
        raise EdgePinError(f"a tensor in TensorRT's log is not understood: {line[:200]}")
    return tuple(
        Tensor(
            one["name"],
            tuple(int(size) for size in one["shape"].split(",") if size),
            _dtype(one["dtype"]),
            one["format"],
        )
        for one in found
    )


def _from_json(value: Any) -> Layer:
    if not isinstance(value, dict):
        raise ValueError(f"the layer {value!r:.80} has no details")
    return Layer(
        value["Name"],
        value["LayerType"],
        _nodes(value.get("Metadata") or ""),
        tuple(_tensor_from_json(one) for one in value["Inputs"]),
        tuple(_tensor_from_json(one) for one in value["Outputs"]),
        value.get("TacticName") or "",
    )


def _tensor_from_json(value: dict[str, Any]) -> Tensor:
    layout = value.get("Format/Datatype") or value.get("Format") or ""
    named = value.get("Datatype") or value.get("DataType")
    if named is None:
        found = _DTYPE.search(layout)
        if found is None:
            raise ValueError(f"no type in {layout!r:.80}")
        named = found[1]
    return Tensor(value["Name"], tuple(value["Dimensions"]), _dtype(named), layout)


def _dtype(name: str) -> str:
    return _TYPES.get(name.lower(), name.lower())


def _nodes(metadata: str) -> tuple[str, ...]:
    """The graph's nodes in a layer's metadata, `[ONNX Layer: a][ONNX Layer: b]`, with or without separators between."""
    parts = re.split(r"\[ONNX Layer: ", metadata)[1:]
    return tuple(re.sub(r"\][^\]]*$", "", part) for part in parts)
