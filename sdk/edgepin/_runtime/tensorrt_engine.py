"""One encoder as a TensorRT engine: checked against what it must be, and contexts to run it in.

Only the bytes that this device's key vouches for come here (`CachedEngine`): an engine is code, and TensorRT does not
check it. Nothing of this has run on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._bundle.manifest import EMBEDDING_DIM
from .._errors import EdgePinError, EnvironmentFault
from .engine_cache import REBUILD, CachedEngine
from .runtime import INPUT_NAMES, OUTPUT_NAMES

if TYPE_CHECKING:
    from .tensorrt_api import TensorRT

INPUT_DTYPES = {"face": "uint8", "voice": "float32"}

TENSORRT_ATTRIBUTES = (
    "DataType.FLOAT",
    "DataType.UINT8",
    "ExecutionContextAllocationStrategy.USER_MANAGED",
    "ICudaEngine.create_execution_context",
    "ICudaEngine.device_memory_size_v2",
    "ICudaEngine.get_tensor_dtype",
    "ICudaEngine.get_tensor_mode",
    "ICudaEngine.get_tensor_name",
    "ICudaEngine.get_tensor_profile_shape",
    "ICudaEngine.get_tensor_shape",
    "ICudaEngine.num_io_tensors",
    "IExecutionContext.execute_async_v3",
    "IExecutionContext.get_tensor_shape",
    "IExecutionContext.set_device_memory",
    "IExecutionContext.set_input_shape",
    "IExecutionContext.set_optimization_profile_async",
    "IExecutionContext.set_tensor_address",
    "Runtime.deserialize_cuda_engine",
    "TensorIOMode.INPUT",
    "TensorIOMode.OUTPUT",
)
"""Everything of TensorRT's Python API that running an engine uses; a test looks each up where a TensorRT is."""


@dataclass(frozen=True)
class Memory:
    """Memory of the device by its address, in bytes."""

    address: int
    size: int


class EncoderEngine:
    """A deserialized engine of one encoder.

    Args:
        tensorrt: what `load_tensorrt` found.
        cached: what the cache vouches for.
        modality: `face` or `voice`.

    Raises:
        EnvironmentFault: this TensorRT does not load it, or it is not such an encoder (inputs, outputs, types).
    """

    def __init__(self, tensorrt: TensorRT, cached: CachedEngine, modality: str) -> None:
        self.modality, self._trt = modality, tensorrt.module
        self.input, self.dtype = INPUT_NAMES[modality], INPUT_DTYPES[modality]
        self._said = tensorrt.log.recent
        missing = [path for path in TENSORRT_ATTRIBUTES if not tensorrt.has(path)]
        if missing:
            raise EnvironmentFault(f"{tensorrt.title} lacks {', '.join(missing)}")
        # It outlives the engine, which keeps a plain pointer to it.
        self._runtime = self._trt.Runtime(tensorrt.log.logger)
        self._engine = self._runtime.deserialize_cuda_engine(cached.engine)
        if self._engine is None:
            raise EnvironmentFault(
                f"{tensorrt.title} does not load the {modality} engine: {self.reason()}",
                hint=REBUILD,
            )
        self._check_tensors()
        self.minimum, self.optimum, self.maximum = self._shapes()
        self.memory_size = int(self._engine.device_memory_size_v2)
        """Bytes that one run needs besides inputs and outputs; contexts that do not run at once may share them."""

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raises `EnvironmentFault` for an input that the engine was not built for."""
        fits = len(shape) == len(self.maximum) and all(
            low <= length <= high for low, length, high in zip(self.minimum, shape, self.maximum, strict=True)
        )
        if not fits:
            raise EnvironmentFault(
                f"the {self.modality} engine takes {self.minimum} to {self.maximum}, not {shape}",
                hint="edgepin compile B.pin builds engines for other sizes",
            )

    def context(self, addresses: dict[str, int], memory: Memory, stream: int) -> EngineContext:
        """A context that reads and writes at fixed addresses (by tensor name), with `memory` to work in."""
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._engine.create_execution_context(strategy)
        if context is None:
            raise EdgePinError(f"TensorRT makes no context for the {self.modality} encoder: {self.reason()}")
        context.set_device_memory(memory.address, memory.size)
        # The first context has profile 0 by itself; all further ones must be told.
        done = context.set_optimization_profile_async(0, stream)
        for name, address in addresses.items():
            done = done and context.set_tensor_address(name, address)
        if not done:
            raise EdgePinError(f"TensorRT refuses the {self.modality} encoder's buffers: {self.reason()}")
        return EngineContext(self, context)

    def reason(self) -> str:
        """The last error that TensorRT told of."""
        errors = [message.text for message in self._said if message.is_error]
        return errors[-1][:500] if errors else "it gave no reason"

    def _check_tensors(self) -> None:
        trt, engine = self._trt, self._engine
        expected = {self.input: (trt.TensorIOMode.INPUT, self.dtype)}
        expected |= dict.fromkeys(OUTPUT_NAMES, (trt.TensorIOMode.OUTPUT, "float32"))
        types = {trt.DataType.UINT8: "uint8", trt.DataType.FLOAT: "float32"}
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        found = {
            name: (engine.get_tensor_mode(name), types.get(engine.get_tensor_dtype(name))) for name in names
        }
        if found != expected:
            raise EnvironmentFault(
                f"the {self.modality} engine has the tensors {', '.join(sorted(names))}, of which some are not as"
                " an encoder has them",
                hint=REBUILD,
            )

    def _shapes(self) -> tuple[tuple[int, ...], ...]:
        """The least, the usual and the largest input."""
        fixed = tuple(self._engine.get_tensor_shape(self.input))
        if min(fixed) > 0:
            return fixed, fixed, fixed
        least, usual, most = (tuple(shape) for shape in self._engine.get_tensor_profile_shape(self.input, 0))
        return least, usual, most


class EngineContext:
    """One execution context. TensorRT keeps plain pointers to the engine: so this holds on to it."""

    def __init__(self, engine: EncoderEngine, context: Any) -> None:
        self._engine, self._context = engine, context
        self._shape: tuple[int, ...] = ()

    def set_shape(self, shape: tuple[int, ...]) -> None:
        """Says what the next runs read. Raises `EnvironmentFault` for a shape that the engine was not built for."""
        if shape == self._shape:
            return
        engine, self._shape = self._engine, ()
        engine.check_shape(shape)
        if not self._context.set_input_shape(engine.input, shape):
            raise EdgePinError(
                f"TensorRT refuses an input of {shape} for the {engine.modality} encoder: {engine.reason()}"
            )
        for name in OUTPUT_NAMES:
            found = tuple(self._context.get_tensor_shape(name))
            if found != (shape[0], EMBEDDING_DIM):
                raise EdgePinError(
                    f"the {engine.modality} engine gives {name} {found}, not {(shape[0], EMBEDDING_DIM)}"
                )
        self._shape = shape

    def enqueue(self, stream: int) -> None:
        """Enqueues one run. Raises `EdgePinError`."""
        if not self._context.execute_async_v3(stream):
            raise EdgePinError(
                f"TensorRT does not run the {self._engine.modality} encoder: {self._engine.reason()}"
            )
