"""Other people's device memory and streams, as they describe them."""

from __future__ import annotations

import dataclasses
import numbers
from typing import Any

_ITEM_SIZES = {"<i2": 2, "<i4": 4, "<f2": 2, "<f4": 4}
_NAMES = {"<i2": "int16", "<i4": "int32", "<f2": "float16", "<f4": "float32"}


@dataclasses.dataclass(frozen=True)
class DeviceArray:
    """Device memory by its address, for callers whose memory has no ``__cuda_array_interface__``. It owns nothing.

    Args:
        address: of the first element.
        shape: in elements.
        dtype: ``"int16"``, ``"int32"``, ``"float16"`` or ``"float32"``.
        strides: in bytes; None is C-contiguous.
    """

    address: int
    shape: tuple[int, ...]
    dtype: str
    strides: tuple[int, ...] | None = None

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        types = {name: type_string for type_string, name in _NAMES.items()}
        if self.dtype not in types:
            raise TypeError(f"dtype must be one of {', '.join(types)}, not {self.dtype!r}")
        return {
            "shape": self.shape,
            "typestr": types[self.dtype],
            "data": (self.address, False),
            "strides": self.strides,
            "version": 3,
        }


@dataclasses.dataclass(frozen=True)
class View:
    """A checked array: elements next to each other along the last axis, rows ``stride`` elements apart."""

    address: int
    shape: tuple[int, ...]
    stride: int
    size: int
    """Bytes from the first element to behind the last one; 0 if there is none."""

    def overlaps(self, other: View) -> bool:
        """Whether a byte belongs to both."""
        return self.address < other.address + other.size and other.address < self.address + self.size


def view(name: str, array: object, dtype: str, *, writable: bool = False, rows_apart: bool = False) -> View:
    """The array under ``name`` in messages.

    Args:
        name: what the caller calls it.
        array: anything with ``__cuda_array_interface__``.
        dtype: the only one that will do.
        writable: it is to be written to.
        rows_apart: rows may lie further apart than they are long; else it must be contiguous.

    Raises:
        TypeError: it is not an array on a GPU, or of another dtype.
        ValueError: its strides will not do, its address is not aligned, or it is read-only.
    """
    interface = getattr(array, "__cuda_array_interface__", None)
    if not isinstance(interface, dict):
        raise TypeError(
            f"{name} must be an array on the GPU (__cuda_array_interface__), not {type(array).__name__}"
        )
    type_string = interface["typestr"]
    if _NAMES.get(type_string) != dtype:
        raise TypeError(f"{name} must be {dtype}, not {_NAMES.get(type_string, type_string)}")
    if interface.get("mask") is not None:
        raise TypeError(f"{name} must not have a mask")
    address, read_only = interface["data"]
    address, item = int(address or 0), _ITEM_SIZES[type_string]
    shape = tuple(int(length) for length in interface["shape"])
    if writable and read_only:
        raise ValueError(f"{name} is read-only")
    if address % item:
        raise ValueError(f"{name} is not aligned to its {item} bytes an element: {address:#x}")
    rows = _row_stride(name, shape, interface.get("strides"), item, rows_apart)
    if 0 in shape:
        return View(address, shape, rows, 0)
    if not address:
        raise ValueError(f"{name} is a null pointer")
    last = rows * (shape[0] - 1) + shape[1] if len(shape) == 2 and rows_apart else _product(shape)
    return View(address, shape, rows, last * item)


def stream_handle(stream: object) -> int:
    """The ``CUstream`` of a handle or of a stream of torch, cupy, pycuda or cuda-python; None is the default stream.

    Raises:
        TypeError: it is none of these.
    """
    if stream is None:
        return 0
    protocol = getattr(stream, "__cuda_stream__", None)
    if protocol is not None:
        _, handle = protocol() if callable(protocol) else protocol
        return int(handle)
    for attribute in ("cuda_stream", "ptr", "handle"):  # torch, cupy, pycuda
        handle = getattr(stream, attribute, None)
        if handle is not None:
            return int(handle)
    if isinstance(stream, numbers.Integral) and not isinstance(stream, bool) and int(stream) >= 0:
        return int(stream)
    raise TypeError(f"stream must be a CUDA stream or the handle of one, not {type(stream).__name__}")


def _row_stride(
    name: str, shape: tuple[int, ...], strides: tuple[int, ...] | None, item: int, rows_apart: bool
) -> int:
    """Elements from one row (all axes but the first) to the next."""
    row = _product(shape[1:])
    if strides is None or _product(shape) <= 1:
        return row
    expected = [item * _product(shape[axis + 1 :]) for axis in range(len(shape))]
    for axis, (stride, contiguous, length) in enumerate(zip(strides, expected, shape, strict=True)):
        if stride == contiguous or length == 1:
            continue
        if axis == 0 and len(shape) == 2 and rows_apart and stride >= contiguous and stride % item == 0:
            continue
        raise ValueError(
            f"{name} must be contiguous{' along its last axis, its rows apart' if rows_apart else ''};"
            f" its strides are {tuple(strides)} bytes"
        )
    if len(shape) == 2 and shape[0] > 1:
        return int(strides[0]) // item
    return row


def _product(lengths: tuple[int, ...]) -> int:
    result = 1
    for length in lengths:
        result *= length
    return result
