"""Which TensorRT is here, what of it this project uses, and what it says when something fails.

One code path serves TensorRT 10.3 to 11.x and TensorRT for RTX, because it keeps to what they share: networks are
strongly typed, so that precision comes from the graph and no precision flag or calibrator is ever touched. The tables
below name every attribute that is used; a TensorRT that lacks one is refused here, by name, and not by an
AttributeError in the middle of a build.

Not seen: this has run with TensorRT for RTX 1.7 without a GPU. TensorRT 10.x and 11.x have only been imitated.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import re
from collections import deque
from collections.abc import Iterator
from typing import Any, Literal

from .._errors import EnvironmentFault

Flavor = Literal["tensorrt", "tensorrt-rtx"]

OLDEST = (10, 3)
"""The first TensorRT whose strongly typed networks are used here: that of JetPack 6.1."""

# The modules that may hold one, in the order in which they are tried.
_MODULES: tuple[tuple[str, Flavor], ...] = (
    ("tensorrt", "tensorrt"),
    ("tensorrt_rtx_bindings", "tensorrt-rtx"),
    ("tensorrt_rtx", "tensorrt-rtx"),
)

BUILDER_ATTRIBUTES = (
    "Builder.build_serialized_network",
    "Builder.create_builder_config",
    "Builder.create_network",
    "Builder.create_optimization_profile",
    "Builder.num_DLA_cores",
    "BuilderFlag.GPU_FALLBACK",
    "BuilderFlag.TF32",
    "DeviceType.DLA",
    "EngineInspector.get_engine_information",
    "IBuilderConfig.DLA_core",
    "IBuilderConfig.add_optimization_profile",
    "IBuilderConfig.builder_optimization_level",
    "IBuilderConfig.can_run_on_DLA",
    "IBuilderConfig.clear_flag",
    "IBuilderConfig.create_timing_cache",
    "IBuilderConfig.default_device_type",
    "IBuilderConfig.get_timing_cache",
    "IBuilderConfig.profiling_verbosity",
    "IBuilderConfig.progress_monitor",
    "IBuilderConfig.set_flag",
    "IBuilderConfig.set_memory_pool_limit",
    "IBuilderConfig.set_timing_cache",
    "ICudaEngine.create_engine_inspector",
    "ILayer.name",
    "ILayer.type",
    "ILogger.ERROR",
    "ILogger.INTERNAL_ERROR",
    "ILogger.WARNING",
    "INetworkDefinition.get_input",
    "INetworkDefinition.get_layer",
    "INetworkDefinition.get_output",
    "INetworkDefinition.num_inputs",
    "INetworkDefinition.num_layers",
    "INetworkDefinition.num_outputs",
    "IOptimizationProfile.set_shape",
    "IProgressMonitor.phase_finish",
    "IProgressMonitor.phase_start",
    "IProgressMonitor.step_complete",
    "ITensor.name",
    "ITensor.shape",
    "ITimingCache.serialize",
    "LayerInformationFormat.JSON",
    "MemoryPoolType.WORKSPACE",
    "OnnxParser.get_error",
    "OnnxParser.num_errors",
    "OnnxParser.parse",
    "ParserError.desc",
    "ProfilingVerbosity.DETAILED",
    "Runtime.deserialize_cuda_engine",
)
"""What the engine builder cannot do without."""

OPTIONAL_ATTRIBUTES = {
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED": "asks for what TensorRT 11 always does",
    "ParserError.node_name": "names the node at fault",
    "ParserError.node_operator": "names its operator",
    "ComputeCapability.CURRENT": "TensorRT for RTX alone builds for GPUs other than the one that is here",
    "IBuilderConfig.num_compute_capabilities": "as above",
    "IBuilderConfig.set_compute_capability": "as above",
}
"""What is used where it exists, and what for."""


@dataclasses.dataclass(frozen=True)
class TensorRT:
    """A TensorRT that was found usable."""

    module: Any = dataclasses.field(repr=False)
    flavor: Flavor
    version: str
    """In full, such as `10.3.0` or `1.7.1.116`."""
    log: Log = dataclasses.field(repr=False, compare=False)
    """What it says. `log.logger` is the one logger of this process, for builders, parsers and runtimes."""

    @property
    def title(self) -> str:
        """What people call it."""
        return f"{'TensorRT for RTX' if self.flavor == 'tensorrt-rtx' else 'TensorRT'} {self.version}"

    def has(self, path: str) -> bool:
        """Whether it has an attribute, such as `ParserError.node_name`."""
        return _has(self.module, path)

    @property
    def capabilities(self) -> tuple[str, ...]:
        """The compute capabilities that it builds for without their GPU; none for TensorRT proper."""
        names = [name for name in dir(getattr(self.module, "ComputeCapability", None)) if name[:2] == "SM"]
        return tuple(sorted((f"sm_{name[2:]}" for name in names), key=lambda text: int(text[3:])))


@functools.cache
def load_tensorrt() -> TensorRT:
    """The TensorRT of this machine: `tensorrt` 10.3 or later, else TensorRT for RTX.

    Raises:
        EnvironmentFault: there is none, or none that is usable; says why, and how to get one.
    """
    found = []
    for name, flavor in _MODULES:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                found.append(f"{name} does not import: {error}")
            continue
        except Exception as error:  # its loader fails in its own ways where a library is missing
            found.append(f"{name} does not import: {(str(error).splitlines() or [type(error).__name__])[0]}")
            continue
        reason = _unusable(module, flavor)
        if reason is None:
            return TensorRT(module, flavor, str(module.__version__), Log(module))
        found.append(f"{name} {reason}")
    if found:
        raise EnvironmentFault(f"no TensorRT of this machine is usable: {'; '.join(found)}", hint=_REMEDY)
    raise EnvironmentFault("TensorRT is not installed for this Python", hint=_REMEDY)


_REMEDY = (
    "on a Jetson: JetPack 6.1 or later, and a virtual environment made with --system-site-packages; "
    "with a desktop GPU: pip install 'edgepin[tensorrt]'; encoders run on ONNX Runtime without it"
)


_NEEDED_BEFORE_11 = ("NetworkDefinitionCreationFlag.STRONGLY_TYPED",)


def _unusable(module: Any, flavor: Flavor) -> str | None:
    version = str(getattr(module, "__version__", ""))
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if len(numbers) < 2:
        return "does not say its version"
    if flavor == "tensorrt" and numbers < OLDEST:
        return (
            f"is version {version}, and 10.3 is needed: older ones set precision by flags that later ones removed, "
            "and JetPack 5 ends at Python 3.8"
        )
    missing = [path for path in BUILDER_ATTRIBUTES if not _has(module, path)]
    if flavor == "tensorrt" and numbers < (11, 0):
        missing += [path for path in _NEEDED_BEFORE_11 if not _has(module, path)]
    if missing:
        return f"{version} lacks {', '.join(missing)}"
    return None


def _has(module: Any, path: str) -> bool:
    value = module
    for name in path.split("."):
        if not hasattr(value, name):
            return False
        value = getattr(value, name)
    return True


class Log:
    """What TensorRT says.

    TensorRT keeps the first logger that a process gives it, so there is one, and who wants to know listens. Of verbose
    messages, tens of thousands in a build, only the list of layers is passed on.
    """

    def __init__(self, module: Any) -> None:
        self._listeners: list[list[Message]] = []
        self.recent: deque[Message] = deque(maxlen=20)
        """The last errors and warnings."""
        names = {
            severity: str(getattr(severity, "name", severity))
            for severity in (module.ILogger.INTERNAL_ERROR, module.ILogger.ERROR, module.ILogger.WARNING)
        }

        def say(severity: Any, text: str) -> None:
            level = names.get(severity)
            if level is None and not text.startswith(_LAYERS):
                return
            message = Message(level or "VERBOSE", text)
            if level is not None:
                self.recent.append(message)
            for listener in self._listeners:
                listener.append(message)

        class Logger(module.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                module.ILogger.__init__(self)
                # Ctrl-C, where it came while TensorRT was saying something; whoever builds raises it again.
                self.interrupt: BaseException | None = None

            def log(self, severity: Any, text: str) -> None:
                # TensorRT's C++ calls this; an exception that went back into it would end the process.
                try:
                    say(severity, text)
                except BaseException as error:
                    self.interrupt = error

        self.logger: Any = Logger()

    @contextlib.contextmanager
    def listen(self) -> Iterator[list[Message]]:
        """The messages that come while this is open."""
        messages: list[Message] = []
        self._listeners.append(messages)
        try:
            yield messages
        finally:
            # By identity: two lists with the same messages are equal.
            self._listeners[:] = [one for one in self._listeners if one is not messages]


_LAYERS = ("Layers:", "Engine Layer Information:")


@dataclasses.dataclass(frozen=True)
class Message:
    """One message of TensorRT: `INTERNAL_ERROR`, `ERROR`, `WARNING` or `VERBOSE`, and its text."""

    level: str
    text: str

    @property
    def is_error(self) -> bool:
        """Whether something failed."""
        return self.level.endswith("ERROR")


# What TensorRT says, and what its user can do; the first that is found in the messages is the hint.
_HINTS = (
    (
        r"out of memory|cudaErrorMemoryAllocation|OutOfMemory|insufficient memory",
        "close what else uses the GPU's memory, or lower --max-batch and --max-seconds",
    ),
    (r"workspace", "raise --workspace"),
    (
        r"Plugin not found|creator &&",
        "this graph needs an operator that this TensorRT lacks; build the encoder without it",
    ),
    (r"CUDA driver version is insufficient|cudaError 35", "update NVIDIA's driver, or run on the machine with the GPU"),
    (r"[Cc]ompute [Cc]apability|SM\d\d|Turing", "this TensorRT does not serve this GPU; see `edgepin doctor`"),
)  # fmt: skip


def failure(what: str, reasons: list[str]) -> EnvironmentFault:
    """The error for what TensorRT could not do, with its own reasons."""
    said = [line for line in (" ".join(reason.split()) for reason in reasons) if line]
    text = "; ".join(dict.fromkeys(said)) or "it gave no reason"
    hint = next((hint for pattern, hint in _HINTS if re.search(pattern, text)), None)
    return EnvironmentFault(f"{what}: {text[:1500]}", hint=hint)


def parser_reasons(tensorrt: TensorRT, parser: Any) -> list[str]:
    """Why the ONNX parser refused a graph: each with the node, its operator and the parser's own words."""
    reasons = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        name = str(error.node_name()) if tensorrt.has("ParserError.node_name") else ""
        operator = str(error.node_operator()) if tensorrt.has("ParserError.node_operator") else ""
        where = f"node {name!r} ({operator}): " if name or operator else ""
        reasons.append(f"{where}{error.desc()}")
    return reasons


@dataclasses.dataclass(frozen=True)
class Gpu:
    """The GPU that engines are built on."""

    name: str
    """As its driver calls it."""
    capability: str
    """Its compute capability, such as `sm_87`."""


def this_gpu() -> Gpu:
    """The first GPU. Raises `EnvironmentFault` if there is none, or no driver."""
    from edgepin_kernels._cuda_driver import CudaError, Driver

    try:
        driver = Driver()
        device = driver.device(0)
        major, minor = driver.compute_capability(device)
        return Gpu(driver.device_name(device), f"sm_{major}{minor}")
    except CudaError as error:
        raise EnvironmentFault(
            f"there is no GPU to use: {error}",
            hint="engines are built on the device that runs them; `edgepin doctor` says what is missing",
        ) from error
