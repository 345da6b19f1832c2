"""The GPU through pycuda: its primary context for the time of a call, a stream, and memory that is had once.

Nothing of this has run on a GPU: tests hold its calls against a fake driver that records them.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from numpy.typing import DTypeLike, NDArray

from .._errors import EnvironmentFault
from .runtime import first_line

# CU_STREAM_NON_BLOCKING: another library's use of the default stream neither waits for this one nor ends its capture.
_NON_BLOCKING = 1

PYCUDA_HINT = "pip install 'edgepin[jetson]' on a Jetson, 'edgepin[tensorrt]' elsewhere"


class CudaDevice:
    """The primary context of a GPU, which torch, TensorRT and the CUDA runtime use too, and a stream of our own.

    pycuda keeps a stack of contexts for each thread, and what it frees must be freed with the context current: so every
    call enters `current()`, and nothing is left to a destructor.

    Raises `EnvironmentFault` where pycuda, the driver or the GPU is missing.
    """

    def __init__(self, index: int = 0) -> None:
        self.index = index
        self._owned: list[Any] = []
        self._driver = driver = import_pycuda()
        try:
            driver.init()
            device = driver.Device(index)
            self._context = device.retain_primary_context()
            with self.current():
                self.stream: Any = driver.Stream(_NON_BLOCKING)
        except Exception as error:  # of pycuda's own, which share no base with anything
            raise EnvironmentFault(
                f"GPU {index} cannot be used: {first_line(error)}", hint="nvidia-smi must list it"
            ) from error

    @property
    def stream_handle(self) -> int:
        """The `CUstream`, as TensorRT, the log-mel kernel and the graphs take it."""
        return int(self.stream.handle)

    @contextmanager
    def current(self) -> Iterator[None]:
        """The context is this thread's inside, and what was before is so again after, errors or not."""
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def buffer(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """New memory on both sides. The context must be current."""
        host: NDArray[Any] = self._driver.pagelocked_empty(math.prod(shape), dtype)
        self._owned.append(host.base)
        host[:] = 0
        return Buffer(host, self.allocate(host.nbytes))

    def allocate(self, size: int) -> int:
        """The address of new memory of the device alone, in bytes. The context must be current."""
        memory = self._driver.mem_alloc(size)
        self._owned.append(memory)
        return int(memory)

    def close(self) -> None:
        """Gives back all of it. The context must be current, and nothing in flight."""
        while self._owned:
            with suppress(Exception):  # of a GPU that has failed there is nothing to give back
                self._owned.pop().free()
        self.stream = None

    def synchronize(self) -> None:
        """Waits for all that the stream was given. Raises what any of it raised."""
        self.stream.synchronize()

    def to_device(self, buffer: Buffer, count: int) -> None:
        """Enqueues the copy of the first `count` elements."""
        self._driver.memcpy_htod_async(buffer.address, buffer.host[:count], self.stream)

    def to_host(self, buffer: Buffer, count: int) -> None:
        """Enqueues the copy of the first `count` elements."""
        self._driver.memcpy_dtoh_async(buffer.host[:count], buffer.address, self.stream)


@dataclass(frozen=True)
class Buffer:
    """One flat array in pinned memory, `host`, and its like in the memory of the device, at `address`.

    Copies from memory that is not pinned would not be asynchronous, and cannot be captured into a graph.
    """

    host: NDArray[Any]
    address: int


def import_pycuda() -> Any:
    """`pycuda.driver`. Raises `EnvironmentFault` where it, or the driver under it, is missing."""
    if importlib.util.find_spec("pycuda") is None:
        raise EnvironmentFault("pycuda is not installed", hint=PYCUDA_HINT)
    try:
        return importlib.import_module("pycuda.driver")
    except Exception as error:  # no libcuda, or another CUDA than the one it was built with
        raise EnvironmentFault(
            f"pycuda cannot be loaded: {first_line(error)}",
            hint="pip install --force-reinstall --no-cache-dir --no-binary pycuda pycuda (with nvcc on PATH)",
        ) from error
