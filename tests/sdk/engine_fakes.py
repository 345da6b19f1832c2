"""A TensorRT made of Python that records what is asked of it, in the shape of 10.x, 11.x or TensorRT for RTX."""

from __future__ import annotations

import enum
import json
from types import ModuleType, SimpleNamespace
from typing import Any

from edgepin._runtime.tensorrt_api import Log, TensorRT

LAYERS = [
    {
        "Name": "Reformatting CopyNode for Input Tensor 0 to node_conv2d",
        "LayerType": "Reformat",
        "Inputs": [{"Name": "face", "Dimensions": [1, 8, 8, 3], "Format/Datatype": "Row major linear FP32"}],
        "Outputs": [{"Name": "r", "Dimensions": [1, 8, 8, 3], "Format/Datatype": "Row major Int8 format"}],
        "TacticName": "",
        "StreamId": 0,
        "Metadata": "",
    },
    {
        "Name": "node_conv2d + node_relu",
        "LayerType": "CaskConvolution",
        "Inputs": [
            {
                "Name": "r",
                "Dimensions": [1, 8, 8, 3],
                "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format",
            }
        ],
        "Outputs": [
            {
                "Name": "identity",
                "Dimensions": [1, 256],
                "Format/Datatype": "Channel major FP16 format where channel % 8 == 0",
            }
        ],
        "TacticName": "sm80_xmma_fprop",
        "StreamId": 0,
        "Metadata": "[ONNX Layer: node_conv2d]\u001e[ONNX Layer: node_relu]",
    },
]


class FakeTensorRT:
    """Settings of the fake, its module, and what was called.

    `inputs` are name -> shape of the parsed network; `on_dla` the layers that a DLA can run, of `layers` (name, kind).
    """

    def __init__(
        self,
        version: str = "10.3.0",
        *,
        typed_flag: bool = True,
        cores: int = 0,
        inputs: dict[str, tuple[int, ...]] | None = None,
        outputs: tuple[str, ...] = ("identity", "pin"),
        layers: tuple[tuple[str, str], ...] = (("node_conv2d", "CONVOLUTION"), ("node_softmax", "SOFTMAX")),
        on_dla: tuple[str, ...] = ("node_conv2d",),
        parser_errors: tuple[tuple[str, str, str], ...] = (),
        engine: bytes | None = b"engine",
        says: tuple[tuple[str, str], ...] = (),
        loads: bool = True,
        takes_timings: bool = True,
        rtx: bool = False,
    ) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.by_model = inputs is None  # of the encoders in a bundle
        self.inputs = {"face": (-1, 8, 8, 3)} if inputs is None else inputs
        self.outputs, self.layers, self.on_dla = outputs, layers, on_dla
        self.parser_errors, self.engine, self.says = parser_errors, engine, says
        self.loads, self.takes_timings, self.cores = loads, takes_timings, cores
        self.flavor = "tensorrt-rtx" if rtx else "tensorrt"
        self.module = _module(self, version, typed_flag, rtx)

    def tensorrt(self) -> TensorRT:
        """As `load_tensorrt` would give it."""
        return TensorRT(self.module, self.flavor, self.module.__version__, Log(self.module))

    def called(self, name: str) -> list[tuple[Any, ...]]:
        """The arguments of every call of `name`, in order."""
        return [call[1:] for call in self.calls if call[0] == name]


def _module(fake: FakeTensorRT, version: str, typed_flag: bool, rtx: bool) -> ModuleType:
    module: Any = ModuleType("tensorrt")
    module.__version__ = version

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING = "INTERNAL_ERROR", "ERROR", "WARNING"

    class IProgressMonitor:
        def phase_start(self, *a: Any) -> None: ...
        def phase_finish(self, *a: Any) -> None: ...
        def step_complete(self, *a: Any) -> bool: ...

    class INetworkDefinition:
        num_inputs = property(lambda self: len(fake.inputs))
        num_outputs = property(lambda self: len(fake.outputs))
        num_layers = property(lambda self: len(fake.layers))

        def get_input(self, index: int) -> Any:
            name, shape = list(fake.inputs.items())[index]
            return SimpleNamespace(name=name, shape=shape, dtype="UINT8")

        def get_output(self, index: int) -> Any:
            return SimpleNamespace(name=fake.outputs[index])

        def get_layer(self, index: int) -> Any:
            name, kind = fake.layers[index]
            return SimpleNamespace(name=name, type=f"LayerType.{kind}")

    class ITimingCache:
        def __init__(self, data: bytes = b"") -> None:
            self.data = data

        def serialize(self) -> bytes:
            return b"timings"

    class IBuilderConfig:
        profiling_verbosity = builder_optimization_level = progress_monitor = None
        default_device_type = DLA_core = None

        def __setattr__(self, name: str, value: Any) -> None:
            fake.calls.append((name, value))
            object.__setattr__(self, name, value)

        def add_optimization_profile(self, profile: Any) -> int:
            return 0

        def set_memory_pool_limit(self, pool: Any, size: int) -> None:
            fake.calls.append(("set_memory_pool_limit", pool, size))

        def set_flag(self, flag: Any) -> None:
            fake.calls.append(("set_flag", flag))

        def clear_flag(self, flag: Any) -> None:
            fake.calls.append(("clear_flag", flag))

        def can_run_on_DLA(self, layer: Any) -> bool:
            return layer.name in fake.on_dla

        def create_timing_cache(self, data: bytes) -> ITimingCache:
            fake.calls.append(("create_timing_cache", data))
            return ITimingCache(data)

        def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
            return fake.takes_timings or not cache.data

        def get_timing_cache(self) -> ITimingCache:
            return ITimingCache()

        def set_compute_capability(self, capability: Any, index: int) -> bool:
            fake.calls.append(("set_compute_capability", capability))
            return True

    class IOptimizationProfile:
        def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
            fake.calls.append(("set_shape", name, *shapes))

    class Builder:
        num_DLA_cores = property(lambda self: fake.cores)

        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def create_network(self, flags: int) -> INetworkDefinition:
            fake.calls.append(("create_network", flags))
            return INetworkDefinition()

        def create_builder_config(self) -> IBuilderConfig:
            return IBuilderConfig()

        def create_optimization_profile(self) -> IOptimizationProfile:
            return IOptimizationProfile()

        def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
            fake.calls.append(("build",))
            for level, text in fake.says:
                self.logger.log(level, text)
            monitor = config.progress_monitor
            monitor.phase_start("Building Engine", None, 2)
            monitor.phase_start("Tactics", "Building Engine", 1)
            for phase, step in (("Tactics", 0), ("Building Engine", 0), ("Building Engine", 1)):
                if not monitor.step_complete(phase, step):
                    return None
            return fake.engine

    class ParserError:
        def __init__(self, node: str, operator: str, text: str) -> None:
            self.said = node, operator, text

        def node_name(self) -> str:
            return self.said[0]

        def node_operator(self) -> str:
            return self.said[1]

        def desc(self) -> str:
            return self.said[2]

    class OnnxParser:
        num_errors = property(lambda self: len(fake.parser_errors))

        def __init__(self, network: Any, logger: Any) -> None: ...

        def parse(self, model: bytes) -> bool:
            if fake.by_model:
                shapes = {b"pcm": (-1, -1), b"log_mel": (-1, -1, -1), b"face": (-1, -1, -1, 3)}
                fake.inputs = next(
                    ({name.decode(): shape} for name, shape in shapes.items() if name in model), fake.inputs
                )
            return not fake.parser_errors

        def get_error(self, index: int) -> ParserError:
            return ParserError(*fake.parser_errors[index])

    class EngineInspector:
        def get_engine_information(self, form: Any) -> str:
            return json.dumps({"Layers": LAYERS, "Bindings": ["face", "identity", "pin"]})

    class ICudaEngine:
        def create_engine_inspector(self) -> EngineInspector:
            return EngineInspector()

    class Runtime:
        def __init__(self, logger: Any) -> None: ...

        def deserialize_cuda_engine(self, engine: bytes) -> ICudaEngine | None:
            return ICudaEngine() if fake.loads else None

    for value in (
        ILogger, IProgressMonitor, INetworkDefinition, ITimingCache, IBuilderConfig, IOptimizationProfile, Builder,
        ParserError, OnnxParser, EngineInspector, ICudaEngine, Runtime,
    ):  # fmt: skip
        setattr(module, value.__name__, value)
    module.BuilderFlag = enum.Enum("BuilderFlag", "TF32 GPU_FALLBACK")
    module.DeviceType = enum.Enum("DeviceType", "GPU DLA")
    module.MemoryPoolType = enum.Enum("MemoryPoolType", "WORKSPACE")
    module.ProfilingVerbosity = enum.Enum("ProfilingVerbosity", "DETAILED")
    module.LayerInformationFormat = enum.Enum("LayerInformationFormat", "JSON")
    module.ITensor = SimpleNamespace(name=1, shape=1)
    module.ILayer = SimpleNamespace(name=1, type=1)
    if typed_flag:
        module.NetworkDefinitionCreationFlag = enum.IntEnum(
            "NetworkDefinitionCreationFlag", {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}
        )
    if rtx:
        module.ComputeCapability = enum.Enum("ComputeCapability", "NONE CURRENT SM86 SM120")
    return module
