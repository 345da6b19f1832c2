"""Which backend runs the encoders: chosen once, when a bundle is opened, and told with the reasons.

The order of `auto` is that of the design: a TensorRT engine that this device built, else ONNX Runtime on CUDA, else ONNX
Runtime on the processor. What keeps a better one from running is reported with the command that mends it. After opening
nothing is chosen again: a failure is an error, never a slower answer.

ONNX Runtime's TensorRT provider runs only where it is named: it builds its engines anew at every opening (minutes on a
small device), since its own cache of them is not authenticated.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from .._bundle.bundle import Bundle
from .._bundle.manifest import MODALITIES, PRECISIONS
from .._errors import EdgePinError, EnvironmentFault, IntegrityError, UsageError
from .engine_cache import CachedEngine, EngineCache
from .precision import Measured, MeasuredFor, PrecisionCache, measure
from .runtime import OnnxRuntime, Runtime, import_onnxruntime
from .tensorrt_api import Gpu, load_tensorrt, this_gpu

AUTO = "auto"
ORDER = ("tensorrt", "onnxruntime-cuda", "onnxruntime-cpu")
"""What `auto` tries, the best first."""
BACKENDS = (AUTO, "tensorrt", "onnxruntime-cuda", "onnxruntime-tensorrt", "onnxruntime-cpu")
REQUIREMENTS = {
    "tensorrt": ("tensorrt", "onnxruntime-tensorrt"),
    "gpu": ("tensorrt", "onnxruntime-tensorrt", "onnxruntime-cuda"),
}
"""What `require` admits. Under each, no part of an encoder may run on the processor."""
HIGHEST = "highest"
PRECISION_CHOICES = (AUTO, HIGHEST, *PRECISIONS)


@dataclass(frozen=True)
class PassedOver:
    """A better backend, or precision, that does not run: why, and what mends it, where something does."""

    name: str
    why: str
    mend: str | None

    def __str__(self) -> str:
        return f"not {self.name}: {self.why}" + (f" ({self.mend})" if self.mend else "")


def together(passed_over: tuple[PassedOver, ...]) -> list[PassedOver]:
    """With the names of those that have one reason in one."""
    names: dict[tuple[str, str | None], list[str]] = {}
    for one in passed_over:
        names.setdefault((one.why, one.mend), []).append(one.name)
    return [PassedOver(", ".join(same), why, mend) for (why, mend), same in names.items()]


@dataclass(frozen=True)
class OpenedRuntime:
    """What was chosen, and why."""

    runtime: Runtime
    backend: str
    device: str
    precision: str
    measured: Measured | None
    """None where there was nothing to choose from."""
    passed_over: tuple[PassedOver, ...]
    notes: tuple[str, ...]
    """What is slower than it could be under this backend."""

    @property
    def about(self) -> str:
        """Which backend and precision run, and why, in one line."""
        chosen = f"{self.backend} on {self.device}, {self.precision}"
        if self.measured is not None:
            chosen += f" (measured here: {self.measured})"
        return "; ".join((chosen, *self.notes, *map(str, together(self.passed_over))))

    def to_json(self) -> dict[str, Any]:
        """As in `edgepin doctor --json`."""
        return {
            "backend": self.backend,
            "device": self.device,
            "precision": self.precision,
            "measured_ms": None if self.measured is None else self.measured.ms,
            "notes": list(self.notes),
            "passed_over": [{"name": one.name, "why": one.why, "mend": one.mend} for one in self.passed_over],
        }


@dataclass(frozen=True)
class _Candidate:
    """A backend that can run here, as far as one can tell without opening it."""

    device: str
    precisions: tuple[str, ...]
    open: Callable[[str], Runtime]
    lacking: tuple[PassedOver, ...] = ()
    """Precisions of the bundle that it cannot run."""


def open_runtime(
    bundle: Bundle,
    *,
    backend: str = AUTO,
    require: str | None = None,
    precision: str = AUTO,
    engines: EngineCache | None = None,
    measurements: PrecisionCache | None = None,
) -> OpenedRuntime:
    """Opens the encoders of a bundle on the best backend and precision.

    Args:
        bundle: a checked bundle.
        backend: one of `BACKENDS`; any but `auto` runs or raises.
        require: `tensorrt` or `gpu`: what may run at all.
        precision: one of `PRECISION_CHOICES`; `auto` takes the fastest that the bundle has, measured once for each
            bundle, backend and device; `highest` the highest that the bundle has, whatever runs it.
        engines, measurements: by default this user's.

    Raises:
        UsageError: a name that there is not, a precision that the bundle lacks, or a backend that is not what is required.
        EnvironmentFault: what was named or required cannot run here; says why, and how to mend it.
        IntegrityError: an engine in the cache was altered. Nothing else is run in its place.
    """
    names = _names(backend, require)
    precisions = _precisions(bundle, precision)
    measurements = measurements or PrecisionCache()
    passed_over: list[PassedOver] = []
    for name in names:
        try:
            candidate = _candidate(name, bundle, precisions, require is not None, engines)
            runtime, chosen, measured, notes = _open(name, candidate, bundle, measurements)
        except EdgePinError as error:
            if backend != AUTO or isinstance(error, (IntegrityError, UsageError)):
                raise
            passed_over.append(PassedOver(name, str(error), error.hint))
            continue
        return OpenedRuntime(
            runtime,
            name,
            candidate.device,
            chosen,
            measured,
            (*passed_over, *candidate.lacking),
            (*notes, *getattr(runtime, "notes", ())),
        )
    first = passed_over[0]
    what = f"{require} is required" if require else "no backend runs here"
    raise EnvironmentFault(
        f"{what}: {'; '.join(map(str, passed_over))}",
        hint=first.mend or "edgepin doctor says what is missing",
    )


def _names(backend: str, require: str | None) -> tuple[str, ...]:
    if backend not in BACKENDS:
        raise UsageError(f"there is no backend {backend!r}", hint=f"choose one of: {', '.join(BACKENDS)}")
    if require is not None and require not in REQUIREMENTS:
        raise UsageError(f"{require!r} cannot be required", hint=f"choose one of: {', '.join(REQUIREMENTS)}")
    allowed = REQUIREMENTS[require] if require else BACKENDS
    names = tuple(name for name in (ORDER if backend == AUTO else (backend,)) if name in allowed)
    if not names:
        raise UsageError(f"{backend} is not what is required: {require}", hint="leave one of the two out")
    return names


def _precisions(bundle: Bundle, precision: str) -> tuple[str, ...]:
    if precision not in PRECISION_CHOICES:
        raise UsageError(
            f"there is no precision {precision!r}", hint=f"choose one of: {', '.join(PRECISION_CHOICES)}"
        )
    here = bundle.precisions(MODALITIES[0])  # both modalities have the same
    if precision == AUTO:
        return here
    if precision == HIGHEST:
        return (bundle.highest_precision,)
    if precision not in here:
        raise UsageError(
            f"the bundle has no {precision} encoders",
            hint=f"there is {', '.join(here)}; `highest` takes the highest that there is",
        )
    return (precision,)


def _candidate(
    name: str, bundle: Bundle, precisions: tuple[str, ...], strict: bool, engines: EngineCache | None
) -> _Candidate:
    if name == "tensorrt":
        return _tensorrt(bundle, precisions, engines or EngineCache())
    device = processor() if name == "onnxruntime-cpu" else _gpu().name
    version = import_onnxruntime().__version__

    def open_it(precision: str) -> Runtime:
        models = {modality: bundle.model(modality, precision) for modality in MODALITIES}
        return OnnxRuntime(models, name=name, forbid_cpu=strict)

    return _Candidate(f"{device}, ONNX Runtime {version}", precisions, open_it)


def _tensorrt(bundle: Bundle, precisions: tuple[str, ...], cache: EngineCache) -> _Candidate:
    """Every engine is read and authenticated here, before anything is deserialized."""
    from . import cuda_device as _cuda_device
    from .engine_jobs import engine_key

    gpu, tensorrt = _gpu(), load_tensorrt()
    _cuda_device.import_pycuda()
    found: dict[str, dict[str, CachedEngine]] = {}
    lacking: list[PassedOver] = []
    for precision in precisions:
        try:
            found[precision] = {
                modality: cache.get(
                    engine_key(bundle.model(modality, precision), modality, precision, gpu, tensorrt)
                )
                for modality in MODALITIES
            }
        except EnvironmentFault as fault:
            found.pop(precision, None)
            lacking.append(PassedOver(precision, str(fault), fault.hint))
    if not found:
        raise EnvironmentFault(lacking[0].why, hint=lacking[0].mend)

    def open_it(precision: str) -> Runtime:
        from .tensorrt_runtime import TensorRtRuntime

        return TensorRtRuntime(found[precision], tensorrt, bundle.manifest.log_mel)

    return _Candidate(f"{gpu.name}, {tensorrt.title}", tuple(found), open_it, tuple(lacking))


def _gpu() -> Gpu:
    """The GPU. Without one no package and no engine would help, so that nothing is suggested but to look closer."""
    try:
        return this_gpu()
    except EnvironmentFault as fault:
        raise EnvironmentFault(str(fault).partition(";")[0]) from fault


def _open(
    name: str, candidate: _Candidate, bundle: Bundle, measurements: PrecisionCache
) -> tuple[Runtime, str, Measured | None, tuple[str, ...]]:
    """Opens the fastest precision, measuring where that was never done."""
    if len(candidate.precisions) == 1:
        (only,) = candidate.precisions
        return candidate.open(only), only, None, ()
    key = MeasuredFor(bundle.digest, name, candidate.device)
    measured = measurements.get(key, candidate.precisions)
    if measured is not None:
        return candidate.open(measured.fastest), measured.fastest, measured, ()
    opened: dict[str, Runtime] = {}
    try:
        for precision in candidate.precisions:
            opened[precision] = candidate.open(precision)
        measured = measure(
            opened,
            bundle.manifest.face.size,
            bundle.manifest.log_mel,
            on_processor=name == "onnxruntime-cpu",
        )
        kept = measurements.put(key, measured)
        chosen = opened.pop(measured.fastest)
    finally:
        for runtime in opened.values():
            close_runtime(runtime)
    notes = () if kept else (f"the measurement cannot be kept in {measurements.folder}",)
    return chosen, measured.fastest, measured, notes


def close_runtime(runtime: Runtime) -> None:
    """Closes a runtime that can be closed; most hold nothing that their end does not give back."""
    close = getattr(runtime, "close", None)
    if close is not None:
        close()


def processor() -> str:
    """What this processor is called, with how many cores this process may use."""
    name = ""
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model"):
                name = " ".join(value.split())[:80]
                break
    return f"{name or platform.machine()} ({len(os.sched_getaffinity(0))} cores)"
