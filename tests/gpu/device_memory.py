"""Memory of a real GPU as arrays, by the driver alone, so that the tests need neither torch nor pycuda."""

from __future__ import annotations

import ctypes
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepin_kernels._cuda_driver import Driver


class Gpu:
    """One GPU's primary context, for as long as the tests run."""

    def __init__(self, driver: Driver, index: int = 0) -> None:
        self.driver = driver
        self.context = driver.retain_primary_context(driver.device(index))

    def array(self, values: npt.NDArray[Any]) -> GpuArray:
        return GpuArray(self, np.ascontiguousarray(values))

    def call(self, name: str, *arguments: Any) -> None:
        """A function that the launcher does not need."""
        with self.driver.current(self.context):
            code = getattr(self.driver._library, name)(*arguments)
        assert code == 0, f"{name} returned CUresult {code}"

    def stream(self) -> int:
        handle = ctypes.c_void_p()
        self.call("cuStreamCreate", ctypes.byref(handle), 1)  # it does not wait for the default stream
        return int(handle.value or 0)

    def synchronize(self, stream: int = 0) -> None:
        self.call("cuStreamSynchronize", ctypes.c_void_p(stream))


class GpuArray:
    """A copy of ``values`` on the GPU."""

    def __init__(self, gpu: Gpu, values: npt.NDArray[Any]) -> None:
        self._gpu, self._shape, self._dtype = gpu, values.shape, values.dtype
        with gpu.driver.current(gpu.context):
            self.address = gpu.driver.upload(values.tobytes())
        weakref.finalize(self, gpu.call, "cuMemFree_v2", ctypes.c_uint64(self.address))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"shape": self._shape, "typestr": self._dtype.str, "data": (self.address, False), "version": 3}

    def fetch(self, stream: int = 0) -> npt.NDArray[Any]:
        """What is there when the stream has come so far."""
        self._gpu.synchronize(stream)
        values = np.empty(self._shape, self._dtype)
        target, source, size = (
            ctypes.c_void_p(values.ctypes.data),
            ctypes.c_uint64(self.address),
            values.nbytes,
        )
        self._gpu.call("cuMemcpyDtoH_v2", target, source, ctypes.c_size_t(size))
        return values
