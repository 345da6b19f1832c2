"""A GPU of dictionaries: fakes of pycuda, TensorRT, cuda-bindings and the log-mel kernel that share one memory.

Every call is recorded. Work on a stream is done only when the stream is waited for, a capture keeps what it is given and
replays it when launched, and what CUDA forbids (no current context, allocating in a capture) is an AssertionError.
An "engine" is JSON that says its modality and profile; its embedding is a function of the bytes that it reads.
"""

from __future__ import annotations

import json
import math
import threading
import zlib
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgepin._runtime.engine_cache import CachedEngine, EngineKey
from edgepin._runtime.tensorrt_api import BUILDER_ATTRIBUTES, Log, TensorRT
from edgepin._runtime.tensorrt_engine import TENSORRT_ATTRIBUTES
from edgepin_kernels import LogMel, LogMelSpec

PROFILES = {
    "face": ((1, 64, 64, 3), (1, 64, 64, 3), (4, 64, 64, 3)),
    "voice": ((1, 10, 80), (1, 298, 80), (4, 998, 80)),
}


class GpuError(Exception):
    """What pycuda raises: a class of its own."""


def unit(data: bytes, salt: int) -> np.ndarray:
    """The embedding of some bytes."""
    row = np.random.default_rng([zlib.crc32(data), salt]).standard_normal(256).astype(np.float32)
    return row / np.linalg.norm(row)


def expected(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the engines give for a batch."""
    rows = [np.ascontiguousarray(row).tobytes() for row in batch]
    return np.stack([unit(row, 0) for row in rows]), np.stack([unit(row, 1) for row in rows])


class FakeGpu:
    """`calls` are names in their order; `fail` names calls that fail from now on, `fail_at` the n-th of a name."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fail: set[str] = set()
        self.fail_at = ("", 0)
        self.memory: dict[int, bytearray] = {}
        self.pinned = 0
        self.graphs = 0
        self.capture: list[Callable[[], None]] | None = None
        self.capture_thread = 0
        self._pending: list[Callable[[], None]] = []
        self._next = 0x10000
        self._stacks = threading.local()
        self.running = threading.Lock()

    @property
    def stack(self) -> list[str]:
        """The contexts of this thread."""
        if not hasattr(self._stacks, "value"):
            self._stacks.value = []
        return self._stacks.value

    def call(self, name: str) -> None:
        self.calls.append(name)
        assert self.stack or name in {"push", "init", "retain"}, f"{name} without a context"
        if name in self.fail or (name, self.calls.count(name)) == self.fail_at:
            raise GpuError(f"{name} failed\nsecond line")

    def enqueue(self, name: str, work: Callable[[], None]) -> None:
        self.call(name)
        (self._pending if self.capture is None else self.capture).append(work)

    def no_capture(self, name: str) -> None:
        assert self.capture is None, f"{name} in a capture"

    def synchronize(self) -> None:
        self.no_capture("synchronize")
        pending, self._pending = self._pending, []
        self.call("synchronize")
        assert self.running.acquire(blocking=False), "two threads are on the device at once"
        try:
            for work in pending:
                work()
        finally:
            self.running.release()

    def allocate(self, size: int) -> int:
        self.no_capture("mem_alloc")
        self.call("mem_alloc")
        address, self._next = self._next, self._next + 256 * math.ceil(size / 256)
        self.memory[address] = bytearray(size)
        return address

    def view(self, address: int, size: int) -> memoryview:
        assert size <= len(self.memory[address]), "outside of its memory"
        return memoryview(self.memory[address])[:size]

    # --- pycuda.driver

    def pycuda(self) -> ModuleType:
        gpu = self

        class Context:
            def push(self) -> None:
                gpu.call("push")
                gpu.stack.append("primary")

            @staticmethod
            def pop() -> None:
                gpu.calls.append("pop")
                gpu.stack.pop()

        class Device:
            def __init__(self, index: int) -> None:
                assert index == 0

            def retain_primary_context(self) -> Context:
                gpu.call("retain")
                return Context()

        class Stream:
            handle = 77

            def __init__(self, flags: int) -> None:
                assert flags == 1, "it would wait for the default stream"

            def synchronize(self) -> None:
                gpu.synchronize()

        class Allocation:
            def __init__(self, size: int) -> None:
                self._address = gpu.allocate(size)

            def __int__(self) -> int:
                return self._address

            def free(self) -> None:
                gpu.call("free")
                del gpu.memory[self._address]

        class Pinned(bytearray):
            def free(self) -> None:
                gpu.call("free_pinned")
                gpu.pinned -= 1

        def pagelocked_empty(size: int, dtype: Any) -> np.ndarray:
            gpu.no_capture("pagelocked_empty")
            gpu.call("pagelocked_empty")
            gpu.pinned += 1
            return np.ndarray(size, dtype, buffer=Pinned(size * np.dtype(dtype).itemsize))

        def memcpy_htod_async(address: int, host: np.ndarray, stream: Stream) -> None:
            assert isinstance(stream, Stream)

            def copy() -> None:
                gpu.view(address, host.nbytes)[:] = host.tobytes()

            gpu.enqueue("memcpy_htod_async", copy)

        def memcpy_dtoh_async(host: np.ndarray, address: int, stream: Stream) -> None:
            def copy() -> None:
                host[:] = np.frombuffer(gpu.view(address, host.nbytes), host.dtype)

            gpu.enqueue("memcpy_dtoh_async", copy)

        module = ModuleType("pycuda.driver")
        for thing in (Device, Stream, pagelocked_empty, memcpy_htod_async, memcpy_dtoh_async):
            setattr(module, thing.__name__, thing)
        module.init, module.mem_alloc = (lambda: gpu.call("init")), Allocation  # type: ignore[attr-defined]
        return module

    # --- cuda.bindings.driver

    def bindings(self) -> ModuleType:
        gpu, success = self, 0

        def begin(stream: int, mode: str) -> tuple[int]:
            gpu.no_capture("cuStreamBeginCapture")
            gpu.call("cuStreamBeginCapture")
            assert (stream, mode) == (77, "thread-local")
            assert not gpu._pending, "what was enqueued before is not done"
            gpu.capture, gpu.capture_thread = [], threading.get_ident()
            return (success,)

        def end(stream: int) -> tuple[int, Any]:
            gpu.calls.append("cuStreamEndCapture")
            assert gpu.capture_thread == threading.get_ident()
            graph, gpu.capture = gpu.capture, None
            if "cuStreamEndCapture" in gpu.fail:
                return 901, None
            gpu.graphs += 1
            return success, graph

        def instantiate(graph: list[Callable[[], None]], flags: int) -> tuple[int, Any]:
            gpu.call("cuGraphInstantiate")
            gpu.graphs += 1
            return success, tuple(graph)

        def launch(graph: tuple[Callable[[], None], ...], stream: int) -> tuple[int]:
            gpu.calls.append("cuGraphLaunch")
            if "cuGraphLaunch" in gpu.fail:
                return (700,)
            gpu._pending += graph
            return (success,)

        def destroy(graph: Any) -> tuple[int]:
            gpu.calls.append("destroy")
            gpu.graphs -= 1
            return (success,)

        module = ModuleType("cuda.bindings.driver")
        for name, thing in {
            "CUstream": int,
            "CUresult": SimpleNamespace(CUDA_SUCCESS=success),
            "CUstreamCaptureMode": SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL="thread-local"),
            "cuStreamBeginCapture": begin,
            "cuStreamEndCapture": end,
            "cuGraphInstantiate": instantiate,
            "cuGraphLaunch": launch,
            "cuGraphDestroy": destroy,
            "cuGraphExecDestroy": destroy,
        }.items():
            setattr(module, name, thing)
        return module

    # --- TensorRT

    def tensorrt(self) -> TensorRT:
        module = _attributes((*BUILDER_ATTRIBUTES, *TENSORRT_ATTRIBUTES))
        gpu = self

        class ILogger:
            INTERNAL_ERROR, ERROR, WARNING = "INTERNAL_ERROR", "ERROR", "WARNING"

        class Runtime:
            def __init__(self, logger: Any) -> None:
                self.logger = logger

            def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
                gpu.calls.append("deserialize")
                if "deserialize" in gpu.fail:
                    self.logger.log("ERROR", "magicTag differs")
                    return None
                return Engine(gpu, json.loads(data))

        module.ILogger, module.Runtime, module.__version__ = ILogger, Runtime, "10.3.0"
        for path in TENSORRT_ATTRIBUTES:
            kind, name = path.split(".")
            if kind in ("DataType", "TensorIOMode", "ExecutionContextAllocationStrategy"):
                setattr(getattr(module, kind), name, name)
        return TensorRT(module, "tensorrt", "10.3.0", Log(module))

    # --- edgepin_kernels

    def log_mel(self) -> type:
        gpu = self

        class CudaLogMel:
            def __init__(self, spec: LogMelSpec, device: int) -> None:
                self.spec, self._plan = spec, LogMel(spec)
                gpu.calls.append("log_mel_plan")

            def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
                return (*shape[:-1], self.spec.num_frames(shape[-1]), self.spec.num_mels)

            def __call__(self, pcm: Any, out: Any, *, stream: int) -> None:
                assert (pcm.dtype, out.dtype, stream) == ("int16", "float32", 77)
                assert out.shape == self.out_shape(pcm.shape)

                def compute() -> None:
                    samples = np.frombuffer(gpu.view(pcm.address, 2 * math.prod(pcm.shape)), np.int16)
                    values = self._plan(samples.reshape(pcm.shape).copy())
                    gpu.view(out.address, values.nbytes)[:] = values.tobytes()

                gpu.enqueue("log_mel", compute)

            def close(self) -> None:
                gpu.calls.append("log_mel_close")

        return CudaLogMel

    def install(self, patch: pytest.MonkeyPatch, *, bindings: bool = True, log_mel: bool = True) -> None:
        """Puts the fakes in the place of the packages."""
        import sys

        from edgepin._runtime import cuda_device as _cuda_device
        from edgepin_kernels import _cuda

        driver = self.pycuda()
        patch.setattr(_cuda_device, "import_pycuda", lambda: driver)
        patch.setitem(sys.modules, "cuda", ModuleType("cuda"))
        patch.setitem(sys.modules, "cuda.bindings", ModuleType("cuda.bindings"))
        patch.setitem(sys.modules, "cuda.bindings.driver", self.bindings() if bindings else None)
        if log_mel:
            patch.setattr(_cuda, "CudaLogMel", self.log_mel())


class Engine:
    """A deserialized engine."""

    device_memory_size_v2 = 4096

    def __init__(self, gpu: FakeGpu, description: dict[str, Any]) -> None:
        self._gpu = gpu
        self.input = description["input"]
        self.dtype = description["dtype"]
        self.profile = [tuple(shape) for shape in description["profile"]]
        self.width = description.get("width", 256)
        self._names = [self.input, "identity", "pin"]
        self.num_io_tensors = 3

    def get_tensor_name(self, index: int) -> str:
        return self._names[index]

    def get_tensor_mode(self, name: str) -> str:
        return "INPUT" if name == self.input else "OUTPUT"

    def get_tensor_dtype(self, name: str) -> str:
        return self.dtype if name == self.input else "FLOAT"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, *self.profile[0][1:])

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert (name, profile) == (self.input, 0)
        return self.profile

    def create_execution_context(self, strategy: str) -> Context:
        assert strategy == "USER_MANAGED"
        self._gpu.no_capture("create_execution_context")
        self._gpu.call("create_execution_context")
        return Context(self._gpu, self)


class Context:
    """An execution context; a recorded run of it asserts at each replay that nothing of it has changed since."""

    def __init__(self, gpu: FakeGpu, engine: Engine) -> None:
        self._gpu, self._engine = gpu, engine
        self._shape: tuple[int, ...] = ()
        self._addresses: dict[str, int] = {}
        self._memory = 0
        self._profile = -1

    def set_device_memory(self, address: int, size: int) -> None:
        assert size >= self._engine.device_memory_size_v2
        self._memory = address

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self._profile = profile
        return stream == 77

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._gpu.call("set_input_shape")
        self._shape = shape
        return "refuse_shape" not in self._gpu.fail

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (self._shape[0], self._engine.width)

    def execute_async_v3(self, stream: int) -> bool:
        assert (stream, self._profile) == (77, 0)
        assert self._memory in self._gpu.memory
        if "execute" in self._gpu.fail or ("capture" in self._gpu.fail and self._gpu.capture is not None):
            self._gpu.calls.append("execute")
            return False
        shape, addresses = self._shape, dict(self._addresses)
        dtype = np.dtype(np.uint8 if self._engine.dtype == "UINT8" else np.float32)

        def run() -> None:
            assert (shape, addresses) == (self._shape, self._addresses), "the context of a graph was changed"
            size = math.prod(shape) * dtype.itemsize
            values = np.frombuffer(bytes(self._gpu.view(addresses[self._engine.input], size)), dtype)
            for name, rows in zip(("identity", "pin"), expected(values.reshape(shape)), strict=True):
                self._gpu.view(addresses[name], rows.nbytes)[:] = rows.tobytes()

        self._gpu.enqueue("execute", run)
        return True


def _attributes(paths: tuple[str, ...]) -> Any:
    """A module with all of these attributes."""
    module = SimpleNamespace()
    for path in paths:
        kind, name = path.split(".")
        if not hasattr(module, kind):
            setattr(module, kind, type(kind, (), {}))
        setattr(getattr(module, kind), name, name)
    return module


def engine_bytes(modality: str, **changes: Any) -> bytes:
    """What the fake TensorRT deserializes."""
    names = {"face": ("face", "UINT8"), "voice": ("log_mel", "FLOAT")}
    tensor, dtype = names[modality]
    values = {"input": tensor, "dtype": dtype, "profile": PROFILES[modality]}
    return json.dumps({**values, **changes}).encode()


def cached(modality: str, **changes: Any) -> CachedEngine:
    """As it comes out of the cache."""
    key = EngineKey("0" * 64, modality, "fp32", "Fake", "sm_87", "tensorrt", "10.3.0", "1" * 64)
    return CachedEngine(key, engine_bytes(modality, **changes), {})
