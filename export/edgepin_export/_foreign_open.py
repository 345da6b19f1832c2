"""Opening a foreign encoder: what is refused before anything runs, and what is brought into our form.

What comes out is standard ONNX of opset 18 to 20, which ONNX Runtime 1.17 reads: one input (and perhaps its lengths),
one output, a free batch axis, batch normalizations folded into the convolutions before them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from edgepin._bundle.bundle import MAX_BUNDLE_BYTES
from edgepin._bundle.onnx_scan import check_self_contained
from edgepin._errors import BundleError, UsageError

from ._foreign_rewrite import first_line, folded, free_batch, keep_only, standard
from ._foreign_spec import ForeignFace, ForeignVoice

ForeignSpec = ForeignFace | ForeignVoice


@dataclass(frozen=True)
class ForeignEncoder:
    """A foreign encoder, opened. `model` is its normal form, `original` the bytes that were given."""

    modality: str
    spec: ForeignSpec
    original: bytes
    model: onnx.ModelProto
    input: str
    input_type: int
    """ONNX's number of the element type."""
    lengths: tuple[str, int] | None
    """Name and element type of the input that takes the number of frames."""
    output: str
    batch: int | None
    """The number of rows that the original insists on."""
    notes: tuple[str, ...]
    """What had to be changed, for the report."""
    ours: bool = False
    """It comes from a run: its spec needs no doubt."""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.original).hexdigest()


def open_face(path: str | Path, spec: ForeignFace) -> ForeignEncoder:
    """A face encoder of a file.

    Raises:
        UsageError: the file cannot be read, is not self-contained standard ONNX that can be brought to opset 18 to 20,
            or its inputs and outputs are not those of `spec`; the message says which.
    """
    return open_encoder("face", _read(Path(path)), spec, str(path))


def open_voice(path: str | Path, spec: ForeignVoice) -> ForeignEncoder:
    """A voice encoder of a file; as `open_face`."""
    return open_encoder("voice", _read(Path(path)), spec, str(path))


def open_encoder(modality: str, data: bytes, spec: ForeignSpec, name: str) -> ForeignEncoder:
    """An encoder of ONNX bytes; `name` is for messages. Raises what `open_face` raises."""
    try:
        check_self_contained(data, name)
    except BundleError as error:
        raise UsageError(
            str(error), hint=error.hint or "give an .onnx file with its weights inside"
        ) from None
    try:
        model = onnx.load_model_from_string(data)
        onnx.checker.check_model(model)
    except Exception as error:  # the checker's and protobuf's errors share no base below Exception
        raise UsageError(f"{name} is not valid ONNX: {first_line(error)}", hint="export it again") from error
    model, notes = standard(model, name)
    source, lengths = _inputs(model, spec, name)
    output = _output(model, spec, name)
    batch = _check_shape(source, spec, name)
    # Taken out of the model now: what follows rewrites the messages that these are parts of.
    source_name, source_type = source.name, source.type.tensor_type.elem_type
    timed = None if lengths is None else (lengths.name, lengths.type.tensor_type.elem_type)
    if batch is not None:
        notes += [f"its batch of {batch} was made free"]
    free_batch(model, batch)
    keep_only(model, output)
    kept = {value.name for value in model.graph.input}
    if source_name not in kept:
        raise UsageError(f"{name}: its output {output} does not depend on its input {source_name}")
    if timed is not None and timed[0] not in kept:
        timed = None
    model = folded(model, name)
    return ForeignEncoder(
        modality, spec, data, model, source_name, source_type, timed, output, batch, tuple(notes)
    )


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BUNDLE_BYTES:
            raise UsageError(
                f"{path} is larger than a bundle may be, {MAX_BUNDLE_BYTES >> 20} MiB",
                hint="take a smaller encoder",
            )
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


def _inputs(
    model: onnx.ModelProto, spec: ForeignSpec, name: str
) -> tuple[onnx.ValueInfoProto, onnx.ValueInfoProto | None]:
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = {value.name: value for value in model.graph.input if value.name not in constants}
    wanted = spec.lengths if isinstance(spec, ForeignVoice) else None
    if wanted is not None and wanted not in inputs:
        raise UsageError(f"{name} has no input {wanted} (lengths); it has: {_listed(inputs.values())}")
    rest = [value for value in inputs if value != wanted]
    source = spec.input or (rest[0] if len(rest) == 1 else None)
    if source is None:
        raise UsageError(
            f"{name} has {len(rest)} inputs: {_listed(inputs.values())}",
            hint="name the one that takes the capture in the spec's `input`, and a voice's lengths in `lengths`",
        )
    if source not in inputs:
        raise UsageError(f"{name} has no input {source} (input); it has: {_listed(inputs.values())}")
    other = [value for value in rest if value != source]
    if other:
        raise UsageError(
            f"{name} has inputs that nothing can be given to: {_listed(inputs[value] for value in other)}",
            hint="export it with these fixed inside",
        )
    _check_type(inputs[source], spec, name)
    lengths = None if wanted is None else inputs[wanted]
    if lengths is not None:
        kinds = (TensorProto.INT64, TensorProto.INT32, TensorProto.FLOAT)
        tensor = lengths.type.tensor_type
        if tensor.elem_type not in kinds or len(tensor.shape.dim) != 1:
            raise UsageError(f"{name}: lengths {_listed([lengths])} must be (N,) of int64, int32 or float32")
    return inputs[source], lengths


def _check_type(value: onnx.ValueInfoProto, spec: ForeignSpec, name: str) -> None:
    wanted = {
        "uint8": (TensorProto.UINT8,),
        "float32": (TensorProto.FLOAT,),
        "float16": (TensorProto.FLOAT16,),
    }
    allowed = (
        wanted[spec.dtype] if isinstance(spec, ForeignFace) else (TensorProto.FLOAT, TensorProto.FLOAT16)
    )
    if value.type.tensor_type.elem_type not in allowed:
        expected = " or ".join(TensorProto.DataType.Name(kind).lower() for kind in allowed)
        raise UsageError(
            f"{name}: its input {_listed([value])} is not of type {expected}",
            hint="set `dtype` in the spec" if isinstance(spec, ForeignFace) else None,
        )


def _output(model: onnx.ModelProto, spec: ForeignSpec, name: str) -> str:
    outputs = {value.name: value for value in model.graph.output}
    if spec.output is None and len(outputs) != 1:
        raise UsageError(
            f"{name} has {len(outputs)} outputs: {_listed(outputs.values())}",
            hint="name the embedding in the spec's `output`",
        )
    output = spec.output or next(iter(outputs))
    if output not in outputs:
        raise UsageError(f"{name} has no output {output} (output); it has: {_listed(outputs.values())}")
    if outputs[output].type.tensor_type.elem_type not in (TensorProto.FLOAT, TensorProto.FLOAT16):
        raise UsageError(f"{name}: its output {_listed([outputs[output]])} is not floating point")
    return output


def _check_shape(value: onnx.ValueInfoProto, spec: ForeignSpec, name: str) -> int | None:
    """Refuses axes of another length than the spec's; the number of rows that the model insists on, if it does."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    if isinstance(spec, ForeignFace):
        axes = {"c": 3, "h": spec.size, "w": spec.size}
        fields = {"c": "layout", "h": "size", "w": "size"}
    else:
        axes = {"1": 1, "m": spec.log_mel.num_mels, **({} if spec.frames is None else {"t": spec.frames})}
        fields = {"1": "layout", "m": "log_mel.num_mels", "t": "frames"}
    dims = [_length(dim) for dim in tensor.shape.dim]
    if len(dims) != len(spec.layout):
        raise UsageError(
            f"{name}: its input {_listed([value])} has {len(dims)} axes, and layout {spec.layout} has {len(spec.layout)}",
            hint="set `layout` in the spec",
        )
    for letter, dim in zip(spec.layout, dims, strict=True):
        if letter in axes and dim is not None and dim != axes[letter]:
            raise UsageError(
                f"{name}: its input {_listed([value])} does not fit the spec: {fields[letter]} gives {axes[letter]} "
                f"where it has {dim} (layout {spec.layout})",
                hint=f"correct `{fields[letter]}` or `layout` in the spec",
            )
    if "t" in spec.layout and "t" not in axes and (frames := dims[spec.layout.index("t")]) is not None:
        raise UsageError(
            f"{name}: its input {_listed([value])} takes {frames} frames only",
            hint=f"set `frames = {frames}`, or another `layout`, in the spec; or export it with a free time axis",
        )
    return dims[0]


def _length(dim: Any) -> int | None:
    """The fixed length of an axis. Exporters write 0 and -1 for a free one too."""
    return dim.dim_value if dim.WhichOneof("value") == "dim_value" and dim.dim_value > 0 else None


def _listed(values: Any) -> str:
    """Names with types and shapes, for messages."""
    shown = []
    for value in values:
        tensor = value.type.tensor_type
        dims = ", ".join(dim.dim_param or str(_length(dim) or "?") for dim in tensor.shape.dim)
        shown.append(f"{value.name} {TensorProto.DataType.Name(tensor.elem_type).lower()} ({dims})")
    return "; ".join(shown) or "none"
