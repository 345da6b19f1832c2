"""What each encoder of a bundle must take and give, held against what its model declares before it runs."""

from __future__ import annotations

from dataclasses import dataclass

from .._bundle.manifest import EMBEDDING_DIM, PORTABLE_VOICE, Manifest
from .._bundle.onnx_scan import DeclaredModel, DeclaredValue
from .._errors import BundleError
from .runtime import INPUT_NAMES, OUTPUT_NAMES

PORTABLE_INPUT = "pcm"

# ONNX's numbers of element types (onnx.proto3, TensorProto.DataType), as far as messages name them.
_TYPE_NAMES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    5: "int16",
    6: "int32",
    7: "int64",
    10: "float16",
    11: "float64",
}
_Axis = int | str  # a letter stands for a free axis; N may also be fixed at 1


@dataclass(frozen=True)
class _Wanted:
    name: str
    element_type: str
    shape: tuple[_Axis, ...]

    def __str__(self) -> str:
        axes = ", ".join(map(str, self.shape))
        return f"{self.name}, {self.element_type} ({axes})"


def check_encoder(model: DeclaredModel, member: str, manifest: Manifest) -> None:
    """Raises `BundleError` unless the model in `member` takes and gives what `docs/bundle.md` says.

    An input must state its whole shape; an output may leave out what only a run tells, which the run is held to.
    """
    wanted = _input(member, manifest)
    if len(model.inputs) != 1 or not _fits(model.inputs[0], wanted, whole=True):
        raise BundleError(
            f"{member} takes {_listed(model.inputs)}; it must take {wanted}",
            hint="the encoder and the manifest do not belong together: export the bundle again",
        )
    outputs = [_Wanted(name, "float32", ("N", EMBEDDING_DIM)) for name in OUTPUT_NAMES]
    found = {value.name: value for value in model.outputs}
    right = len(model.outputs) == len(outputs) and all(
        output.name in found and _fits(found[output.name], output, whole=False) for output in outputs
    )
    if not right:
        raise BundleError(
            f"{member} gives {_listed(model.outputs)}; it must give {' and '.join(map(str, outputs))}",
            hint="export the bundle again",
        )


def _input(member: str, manifest: Manifest) -> _Wanted:
    if member == PORTABLE_VOICE:
        return _Wanted(PORTABLE_INPUT, "float32", ("N", "S"))
    if member.startswith("face."):
        size = manifest.face.size
        return _Wanted(INPUT_NAMES["face"], "uint8", ("N", size, size, 3))
    return _Wanted(INPUT_NAMES["voice"], "float32", ("N", "T", manifest.log_mel.num_mels))


def _fits(value: DeclaredValue, wanted: _Wanted, *, whole: bool) -> bool:
    if value.name != wanted.name or _TYPE_NAMES.get(value.element_type) != wanted.element_type:
        return False
    if value.shape is None:
        return not whole
    return len(value.shape) == len(wanted.shape) and all(
        _fits_axis(fixed, axis, whole=whole) for fixed, axis in zip(value.shape, wanted.shape, strict=True)
    )


def _fits_axis(fixed: int | None, axis: _Axis, *, whole: bool) -> bool:
    if isinstance(axis, int):
        return fixed == axis or (fixed is None and not whole)
    return fixed is None or (axis == "N" and fixed == 1)


def _listed(values: tuple[DeclaredValue, ...]) -> str:
    return " and ".join(map(_spelled, values[:3])) + (" and more" if values[3:] else "") or "nothing"


def _spelled(value: DeclaredValue) -> str:
    kind = (
        _TYPE_NAMES.get(value.element_type, f"type {value.element_type}")
        if value.element_type
        else "no tensor"
    )
    shape = (
        "(?)"
        if value.shape is None
        else f"({', '.join('?' if axis is None else str(axis) for axis in value.shape[:8])})"
    )
    return f"{ascii(value.name)[1:-1][:60]}, {kind} {shape}"
