"""The part of the CUDA driver API that the launcher needs, over ctypes.

`libcuda` is on every machine with an NVIDIA driver, so that this needs no other package. pycuda, for one, cannot launch
on a stream that it did not make itself, and knows no cooperative launch; its arrays and streams are taken all the same.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

LIBRARY = "libcuda.so.1"

# CUdevice_attribute, CUpointer_attribute, CUmemorytype and CUresult of cuda.h.
_MULTIPROCESSORS = 16
_MAJOR, _MINOR = 75, 76
_COOPERATIVE_LAUNCH = 95
_POINTER_MEMORY_TYPE, _POINTER_DEVICE = 2, 9
_DEVICE_MEMORY = 2
_INVALID_VALUE = 1

_Handle = ctypes.c_void_p
_Address = ctypes.c_uint64
_Launch = [_Handle, *[ctypes.c_uint] * 7, _Handle, ctypes.POINTER(_Handle)]

# Every function that is called, with its arguments; each returns a CUresult.
_FUNCTIONS: dict[str, list[Any]] = {
    "cuInit": [ctypes.c_uint],
    "cuGetErrorName": [ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)],
    "cuGetErrorString": [ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)],
    "cuDriverGetVersion": [ctypes.POINTER(ctypes.c_int)],
    "cuDeviceGetCount": [ctypes.POINTER(ctypes.c_int)],
    "cuDeviceGet": [ctypes.POINTER(ctypes.c_int), ctypes.c_int],
    "cuDeviceGetName": [ctypes.c_char_p, ctypes.c_int, ctypes.c_int],
    "cuDeviceGetAttribute": [ctypes.POINTER(ctypes.c_int), ctypes.c_int, ctypes.c_int],
    "cuDevicePrimaryCtxRetain": [ctypes.POINTER(_Handle), ctypes.c_int],
    "cuDevicePrimaryCtxRelease_v2": [ctypes.c_int],
    "cuCtxPushCurrent_v2": [_Handle],
    "cuCtxPopCurrent_v2": [ctypes.POINTER(_Handle)],
    "cuModuleLoadData": [ctypes.POINTER(_Handle), ctypes.c_char_p],
    "cuModuleUnload": [_Handle],
    "cuModuleGetFunction": [ctypes.POINTER(_Handle), _Handle, ctypes.c_char_p],
    "cuOccupancyMaxActiveBlocksPerMultiprocessor": [
        ctypes.POINTER(ctypes.c_int),
        _Handle,
        ctypes.c_int,
        ctypes.c_size_t,
    ],
    "cuMemAlloc_v2": [ctypes.POINTER(_Address), ctypes.c_size_t],
    "cuMemFree_v2": [_Address],
    "cuMemcpyHtoD_v2": [_Address, ctypes.c_char_p, ctypes.c_size_t],
    "cuMemsetD32Async": [_Address, ctypes.c_uint, ctypes.c_size_t, _Handle],
    "cuStreamSynchronize": [_Handle],
    "cuStreamIsCapturing": [_Handle, ctypes.POINTER(ctypes.c_int)],
    "cuPointerGetAttribute": [_Handle, ctypes.c_int, _Address],
    "cuLaunchKernel": [*_Launch, _Handle],
    "cuLaunchCooperativeKernel": _Launch,
}


class CudaError(RuntimeError):
    """A call of the CUDA driver failed, or CUDA is not there; the message says which call, why, and what mends it."""


class CudaUnavailableError(CudaError):
    """This machine lacks the driver, the GPU or the compiler that the CUDA kernel needs."""


class Driver:
    """The loaded driver library. Any thread may call it.

    Args:
        library: the file or name of the library.

    Raises:
        CudaUnavailableError: there is no driver, or it finds no GPU.
    """

    def __init__(self, library: str | None = None) -> None:
        library = library or LIBRARY
        try:
            self._library = ctypes.CDLL(library)
        except OSError as error:
            raise CudaUnavailableError(
                f"the CUDA driver is not here ({error}); install NVIDIA's driver, or compute on the processor with LogMel"
            ) from error
        self._functions: dict[str, Any] = {}
        for name, arguments in _FUNCTIONS.items():
            try:
                function = getattr(self._library, name)
            except AttributeError:
                raise CudaUnavailableError(
                    f"the CUDA driver has no {name}; update it to CUDA 11.4 or later"
                ) from None
            function.argtypes, function.restype = arguments, ctypes.c_int
            self._functions[name] = function
        try:
            self.call("cuInit", 0)
        except CudaError as error:
            raise CudaUnavailableError(
                f"the CUDA driver does not start: {error}; see whether nvidia-smi lists a GPU"
            ) from error

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function.

        Raises:
            CudaError: it does not return CUDA_SUCCESS.
        """
        code = self._functions[name](*arguments)
        if code:
            raise CudaError(f"{name}: {self._describe(code)}")

    def _describe(self, code: int) -> str:
        parts = []
        for function in ("cuGetErrorName", "cuGetErrorString"):
            text = ctypes.c_char_p()
            if self._functions[function](code, ctypes.byref(text)) == 0 and text.value:
                parts.append(text.value.decode("ascii", "replace"))
        return " - ".join(parts) or f"CUresult {code}"

    def version(self) -> int:
        """The newest CUDA that the driver supports: 12060 for 12.6."""
        return self._integer("cuDriverGetVersion")

    def device_count(self) -> int:
        """How many GPUs there are."""
        return self._integer("cuDeviceGetCount")

    def device(self, index: int) -> int:
        """The handle of a GPU."""
        return self._integer("cuDeviceGet", index)

    def device_name(self, device: int) -> str:
        """What the maker calls it."""
        name = ctypes.create_string_buffer(256)
        self.call("cuDeviceGetName", name, len(name), device)
        return name.value.decode("utf-8", "replace")

    def compute_capability(self, device: int) -> tuple[int, int]:
        """Major and minor."""
        return self.attribute(_MAJOR, device), self.attribute(_MINOR, device)

    def multiprocessors(self, device: int) -> int:
        """How many multiprocessors may be used."""
        return self.attribute(_MULTIPROCESSORS, device)

    def launches_cooperatively(self, device: int) -> bool:
        """Whether blocks of a grid may wait for each other."""
        return bool(self.attribute(_COOPERATIVE_LAUNCH, device))

    def attribute(self, attribute: int, device: int) -> int:
        """A ``CUdevice_attribute``."""
        return self._integer("cuDeviceGetAttribute", attribute, device)

    def retain_primary_context(self, device: int) -> int:
        """The context that torch, TensorRT and the CUDA runtime use too; to be released as often as retained."""
        return self._handle("cuDevicePrimaryCtxRetain", device)

    @contextlib.contextmanager
    def current(self, context: int) -> Iterator[None]:
        """The context is this thread's inside, and whatever was before is so again after, errors or not."""
        self.call("cuCtxPushCurrent_v2", context)
        try:
            yield
        finally:
            self.call("cuCtxPopCurrent_v2", ctypes.byref(_Handle()))

    def load_module(self, image: bytes) -> int:
        """A cubin, in the current context."""
        return self._handle("cuModuleLoadData", image)

    def function(self, module: int, name: str) -> int:
        """A kernel of the module."""
        return self._handle("cuModuleGetFunction", module, name.encode("ascii"))

    def resident_blocks(self, function: int, threads: int, shared_bytes: int) -> int:
        """How many blocks of a kernel run on one multiprocessor at the same time."""
        return self._integer("cuOccupancyMaxActiveBlocksPerMultiprocessor", function, threads, shared_bytes)

    def allocate(self, size: int) -> int:
        """Memory of the device in bytes, aligned for anything."""
        address = _Address()
        self.call("cuMemAlloc_v2", ctypes.byref(address), size)
        return int(address.value)

    def upload(self, data: bytes) -> int:
        """New memory of the device with ``data``, there for every stream when this returns."""
        address = self.allocate(len(data))
        try:
            self.call("cuMemcpyHtoD_v2", address, data, len(data))
            # A copy from pageable memory may return before its last part has arrived.
            self.call("cuStreamSynchronize", None)
        except CudaError:
            self.call("cuMemFree_v2", address)
            raise
        return address

    def clear(self, address: int, words: int, stream: int) -> None:
        """Zero 32-bit words, in the order of the stream."""
        self.call("cuMemsetD32Async", address, 0, words, stream)

    def is_capturing(self, stream: int) -> bool:
        """Whether what the stream is given becomes part of a graph and does not run."""
        return self._integer_after("cuStreamIsCapturing", stream) != 0

    def memory_device(self, address: int) -> int | None:
        """The index of the GPU that has this address, or None for anything but memory of a GPU."""
        kind, device = ctypes.c_int(), ctypes.c_int()
        code = self._functions["cuPointerGetAttribute"](ctypes.addressof(kind), _POINTER_MEMORY_TYPE, address)
        if code == _INVALID_VALUE:  # the driver does not know it
            return None
        if code:
            raise CudaError(f"cuPointerGetAttribute: {self._describe(code)}")
        if kind.value != _DEVICE_MEMORY:
            return None
        self.call("cuPointerGetAttribute", ctypes.addressof(device), _POINTER_DEVICE, address)
        return device.value

    def launch(
        self,
        function: int,
        grid: tuple[int, int],
        threads: int,
        shared_bytes: int,
        stream: int,
        parameters: ctypes.Structure,
        *,
        cooperative: bool,
    ) -> None:
        """Enqueue a kernel whose only parameter is ``parameters``, which is copied before this returns."""
        pointers = (_Handle * 1)(ctypes.addressof(parameters))
        shape = (function, *grid, 1, threads, 1, 1, shared_bytes, stream, pointers)
        if cooperative:
            self.call("cuLaunchCooperativeKernel", *shape)
        else:
            self.call("cuLaunchKernel", *shape, None)

    def _integer(self, name: str, *arguments: Any) -> int:
        result = ctypes.c_int()
        self.call(name, ctypes.byref(result), *arguments)
        return result.value

    def _integer_after(self, name: str, *arguments: Any) -> int:
        result = ctypes.c_int()
        self.call(name, *arguments, ctypes.byref(result))
        return result.value

    def _handle(self, name: str, *arguments: Any) -> int:
        result = _Handle()
        self.call(name, ctypes.byref(result), *arguments)
        return int(result.value or 0)
