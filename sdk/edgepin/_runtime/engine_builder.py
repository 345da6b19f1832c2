"""Building one engine: an ONNX model in, the engine and the report of its layers out.

What holds for every build, on TensorRT 10.3 to 11.x and on TensorRT for RTX:

* The network is strongly typed. What runs in INT8 or FP16 is what the graph says, and nothing else.
* TF32 is off. It rounds float32 to 10 bits of mantissa, too few for the spectrum of the front-end, and an engine called
  FP32 should agree with FP32 elsewhere.
* Shapes are those of one optimization profile, fastest at its optimum.
* Errors of the parser and the builder come out as ours, with the node and TensorRT's own reason.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .. import _canonical_json
from .._errors import BundleError, EnvironmentFault, UsageError
from .engine_report import Layer, counts, layers_from_inspector, layers_from_log
from .runtime import OUTPUT_NAMES
from .tensorrt_api import Message, TensorRT, failure, load_tensorrt, parser_reasons

REPORT_FORMAT = 1

Log = Callable[[str], None]
BuildProgress = Callable[[int, int, str], None]
"""Called with the steps done, all steps, and what TensorRT is at."""


@dataclasses.dataclass(frozen=True)
class InputRange:
    """The shapes that an input may have, and the one to be fastest at. Raises `UsageError` unless min <= opt <= max."""

    name: str
    minimum: tuple[int, ...]
    optimum: tuple[int, ...]
    maximum: tuple[int, ...]

    def __post_init__(self) -> None:
        shapes = (self.minimum, self.optimum, self.maximum)
        if len({len(shape) for shape in shapes}) != 1 or not self.minimum:
            raise UsageError(f"the shapes of {self.name} have different numbers of axes")
        for low, middle, high in zip(*shapes, strict=True):
            if not 1 <= low <= middle <= high:
                raise UsageError(f"the shapes of {self.name} must not fall from minimum to maximum: {shapes}")

    @property
    def is_fixed(self) -> bool:
        """Whether there is one shape only."""
        return self.minimum == self.maximum


@dataclasses.dataclass(frozen=True)
class BuildSettings:
    """How to build. Whatever is here changes the engine, and so is part of its key in the cache.

    Raises:
        UsageError: a value is out of its range, or a DLA is asked for with shapes that are not fixed.
    """

    inputs: tuple[InputRange, ...]
    workspace_mib: int = 512
    """Memory that a layer may use for scratch while it runs, in MiB."""
    optimization_level: int = 3
    """How long TensorRT searches, 0 to 5; 3 is its own default."""
    dla_core: int | None = None
    """The deep learning accelerator to use, for layers that can run there; None for the GPU alone."""

    def __post_init__(self) -> None:
        if not self.inputs or len({one.name for one in self.inputs}) != len(self.inputs):
            raise UsageError("an engine's inputs are at least one, each named once")
        if not 1 <= self.workspace_mib <= 1 << 20:
            raise UsageError(f"the workspace must be 1 to {1 << 20} MiB, not {self.workspace_mib}")
        if not 0 <= self.optimization_level <= 5:
            raise UsageError(f"the optimization level must be 0 to 5, not {self.optimization_level}")
        if self.dla_core is not None:
            if self.dla_core < 0:
                raise UsageError(f"a DLA core is 0 or more, not {self.dla_core}")
            if not all(one.is_fixed for one in self.inputs):
                raise UsageError("a DLA needs fixed shapes: minimum, optimum and maximum must be equal")

    def to_json(self) -> dict[str, Any]:
        """Plain values, under the fields' names, with what always holds."""
        return {**dataclasses.asdict(self), "strongly_typed": True, "tf32": False}

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of all of this."""
        return hashlib.sha256(_canonical_json.encode(_plain(self.to_json()))).hexdigest()


@dataclasses.dataclass(frozen=True)
class BuiltEngine:
    """An engine that TensorRT has built."""

    engine: bytes = dataclasses.field(repr=False)
    report: dict[str, Any] = dataclasses.field(repr=False)
    """JSON: what it was built of and for, `counts`, every layer, and on a DLA what runs on the GPU instead."""
    timings: bytes | None = dataclasses.field(repr=False)
    """The timing cache afterwards; None where there is none."""
    seconds: float
    """How long it took."""


def build_engine(
    model: bytes,
    settings: BuildSettings,
    *,
    target: str | None = None,
    tensorrt: TensorRT | None = None,
    timings: bytes | None = None,
    log: Log | None = None,
    progress: BuildProgress | None = None,
) -> BuiltEngine:
    """Builds an engine. One at a time in a process.

    Args:
        model: ONNX with the outputs `identity` and `pin`.
        settings: how.
        target: a compute capability such as `sm_86`, to build for GPUs that need not be here (TensorRT for RTX only);
            None builds for this machine's GPU.
        tensorrt: what builds; by default what `load_tensorrt` finds.
        timings: an earlier timing cache, authenticated by the caller, so that less needs to be measured.
        log: is told what people should know: warnings, and what falls back from a DLA.
        progress: is told how far it is.

    Raises:
        UsageError: this TensorRT cannot build for the target, or the settings do not fit the model's inputs.
        BundleError: the model has not the inputs and outputs of an encoder.
        EnvironmentFault: there is no TensorRT or no such DLA, or TensorRT refuses; with its reasons.
    """
    tensorrt = tensorrt or load_tensorrt()
    say = log or (lambda text: None)
    began = time.perf_counter()
    with tensorrt.log.listen() as messages, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of what newer versions ignore
        build = _Build(tensorrt, settings, messages)
        build.parse(model)
        build.configure(target, timings)
        on_gpu = build.fallbacks() if settings.dla_core is not None else []
        for name in on_gpu:
            say(f"the DLA does not run {name}: it falls back to the GPU")
        engine = build.run(progress)
        seconds = time.perf_counter() - began
        source, layers = build.layers(engine, may_load=target is None)
        dla = None
        if settings.dla_core is not None:
            moved = [one.text for one in messages if one.level == "WARNING" and "DLA" in one.text]
            dla = {"core": settings.dla_core, "on_gpu": on_gpu, "messages": moved}
        found = [one.text for one in messages if one.level == "WARNING"]
        for text in dict.fromkeys(found):
            say(f"TensorRT warns: {text}")
        report = {
            "format": REPORT_FORMAT,
            "flavor": tensorrt.flavor,
            "version": tensorrt.version,
            "target": target,
            "model": hashlib.sha256(model).hexdigest(),
            "settings": settings.to_json(),
            "source": source,
            "counts": counts(layers) if layers else None,
            "layers": [layer.to_json() for layer in layers],
            "dla": dla,
            "warnings": list(dict.fromkeys(found)),
            "bytes": len(engine),
            "seconds": round(seconds, 3),
        }
        return BuiltEngine(engine, _plain(report), build.timings(), seconds)


def check_target(tensorrt: TensorRT, target: str | None) -> None:
    """Raises `UsageError` unless this TensorRT builds for `target`; None is the GPU that is here."""
    if target is None:
        return
    if tensorrt.flavor == "tensorrt":
        raise UsageError(
            f"{tensorrt.title} builds for the GPU that is here, and for no other",
            hint="run it on the device; `--target this` is the default",
        )
    if target not in tensorrt.capabilities:
        raise UsageError(
            f"{tensorrt.title} does not build for {target}",
            hint=f"it builds for {', '.join(tensorrt.capabilities)}",
        )


class _Build:
    """The objects of one build, in the order in which TensorRT wants them made."""

    def __init__(self, tensorrt: TensorRT, settings: BuildSettings, messages: list[Message]) -> None:
        self._tensorrt, self._settings, self._messages = tensorrt, settings, messages
        self._trt = tensorrt.module
        self._builder = self._made(self._trt.Builder(tensorrt.log.logger), "TensorRT does not start")
        flags = 0
        if tensorrt.has("NetworkDefinitionCreationFlag.STRONGLY_TYPED"):
            flags |= 1 << int(self._trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        self._network = self._made(self._builder.create_network(flags), "TensorRT makes no network")
        self._config = self._made(self._builder.create_builder_config(), "TensorRT makes no configuration")
        self._has_timings = False

    def parse(self, model: bytes) -> None:
        parser = self._trt.OnnxParser(self._network, self._tensorrt.log.logger)
        if not parser.parse(model) or parser.num_errors:
            reasons = parser_reasons(self._tensorrt, parser) or self._errors()
            raise failure(f"{self._tensorrt.title} does not read this model", reasons)
        self._parser = parser  # the network refers to weights that the parser holds
        outputs = {self._network.get_output(index).name for index in range(self._network.num_outputs)}
        if outputs != set(OUTPUT_NAMES):
            raise BundleError(
                f"the model gives {', '.join(sorted(outputs)) or 'nothing'}, not {' and '.join(OUTPUT_NAMES)}"
            )

    def configure(self, target: str | None, timings: bytes | None) -> None:
        trt, config, settings = self._trt, self._config, self._settings
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        config.builder_optimization_level = settings.optimization_level
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_mib << 20)
        config.clear_flag(trt.BuilderFlag.TF32)
        self._set_target(target)
        self._set_profile()
        if settings.dla_core is not None:
            self._set_dla(settings.dla_core)
        # TensorRT for RTX chooses its kernels on the device, when it loads, and keeps no timings.
        if self._tensorrt.flavor == "tensorrt":
            self._set_timings(timings)

    def fallbacks(self) -> list[str]:
        """Names and kinds of the layers that the DLA cannot run."""
        layers = (self._network.get_layer(index) for index in range(self._network.num_layers))
        return [
            f"{layer.name} ({str(layer.type).rpartition('.')[2]})"
            for layer in layers
            if not self._config.can_run_on_DLA(layer)
        ]

    def run(self, progress: BuildProgress | None) -> bytes:
        monitor = _make_monitor(self._trt, self._tensorrt.log.logger, progress)
        self._config.progress_monitor = monitor
        with _raising(monitor, self._tensorrt.log.logger):
            engine = self._builder.build_serialized_network(self._network, self._config)
        if engine is None:
            raise failure(f"{self._tensorrt.title} builds no engine of this model", self._errors())
        return bytes(engine)

    def layers(self, engine: bytes, *, may_load: bool) -> tuple[str, Sequence[Layer]]:
        """How the layers of the engine are known (`inspector`, `log`, or `none`), and the layers."""
        listed = [one.text for one in self._messages if one.text.startswith("Layers:")]
        if listed:
            return "log", layers_from_log(listed[-1])
        if not may_load:
            return "none", ()
        # These bytes are from the lines above, and have been nowhere else.
        loaded = self._trt.Runtime(self._tensorrt.log.logger).deserialize_cuda_engine(engine)
        if loaded is None:
            raise failure(f"{self._tensorrt.title} does not load the engine that it built", self._errors())
        text = loaded.create_engine_inspector().get_engine_information(self._trt.LayerInformationFormat.JSON)
        return "inspector", layers_from_inspector(text)

    def timings(self) -> bytes | None:
        cache = self._config.get_timing_cache() if self._has_timings else None
        return None if cache is None else bytes(cache.serialize())

    def _set_target(self, target: str | None) -> None:
        check_target(self._tensorrt, target)
        if self._tensorrt.flavor == "tensorrt":
            return
        name = "CURRENT" if target is None else target.upper().replace("_", "")
        self._config.num_compute_capabilities = 1
        if not self._config.set_compute_capability(getattr(self._trt.ComputeCapability, name), 0):
            raise failure(f"{self._tensorrt.title} does not build for {target or 'this GPU'}", self._errors())

    def _set_profile(self) -> None:
        ranges = {one.name: one for one in self._settings.inputs}
        inputs = [self._network.get_input(index) for index in range(self._network.num_inputs)]
        if {one.name for one in inputs} != ranges.keys():
            raise BundleError(
                f"the model takes {', '.join(sorted(one.name for one in inputs))}, not {', '.join(sorted(ranges))}"
            )
        profile = self._builder.create_optimization_profile()
        for one in inputs:
            shape, wanted = tuple(one.shape), ranges[one.name]
            for shown in (wanted.minimum, wanted.maximum):
                if len(shape) != len(shown) or any(
                    size not in (-1, given) for size, given in zip(shape, shown, strict=True)
                ):
                    raise BundleError(f"the model's {one.name} is {shape}, and {shown} does not fit it")
            if -1 in shape:
                profile.set_shape(one.name, wanted.minimum, wanted.optimum, wanted.maximum)
        if self._config.add_optimization_profile(profile) < 0:
            raise failure(f"{self._tensorrt.title} refuses the shapes", self._errors())

    def _set_dla(self, core: int) -> None:
        cores = int(self._builder.num_DLA_cores)
        if core >= cores:
            raise EnvironmentFault(
                f"there is no DLA core {core}: {self._tensorrt.title} finds {cores} on this machine",
                hint="build without --dla; TensorRT has no DLA from 10.8 to 11.4.0, and Orin Nano and Thor have none",
            )
        self._config.default_device_type = self._trt.DeviceType.DLA
        self._config.DLA_core = core
        self._config.set_flag(self._trt.BuilderFlag.GPU_FALLBACK)

    def _set_timings(self, timings: bytes | None) -> None:
        cache = self._config.create_timing_cache(timings or b"")
        if cache is None or not self._config.set_timing_cache(cache, False):
            cache = self._config.create_timing_cache(b"")  # of another TensorRT or GPU: measured anew
            if cache is None or not self._config.set_timing_cache(cache, False):
                return
        self._has_timings = True

    def _errors(self) -> list[str]:
        return [one.text for one in self._messages if one.is_error]

    def _made(self, value: Any, otherwise: str) -> Any:
        if value is None:
            raise failure(otherwise, self._errors())
        return value


def _make_monitor(trt: Any, logger: Any, progress: BuildProgress | None) -> Any:
    """Tells `progress` how far the outermost phase is, and stops the build where that raises (as Ctrl-C does)."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.interrupt: BaseException | None = None
            self._outermost, self._total, self._done, self._phase = "", 0, 0, ""

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if not parent_phase:
                self._outermost, self._total, self._done = phase_name, num_steps, 0
            self._phase = phase_name

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                if phase_name == self._outermost:
                    self._done = step + 1
                if progress is not None:
                    progress(min(self._done, self._total), self._total, self._phase)
            except BaseException as error:
                self.interrupt = error
            return self.interrupt is None and logger.interrupt is None

        def phase_finish(self, phase_name: str) -> None:
            pass

    return Monitor()


@contextlib.contextmanager
def _raising(*callbacks: Any) -> Iterator[None]:
    """Raises what stopped a callback of TensorRT, which could not let it through C++."""
    for one in callbacks:
        one.interrupt = None
    yield
    for one in callbacks:
        if one.interrupt is not None:
            raise one.interrupt


def _plain(value: Any) -> Any:
    """Tuples as lists, so that JSON written and read back is equal."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
