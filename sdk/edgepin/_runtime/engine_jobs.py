"""Which engines a bundle needs on this machine, which of them are in the cache, and building the others."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

from .._bundle.bundle import Bundle
from .._bundle.manifest import MODALITIES, PRECISIONS, Manifest
from .._errors import EdgePinError, EnvironmentFault, IntegrityError, UsageError
from .._pipeline import MAX_VOICE_SECONDS
from .engine_builder import BuildProgress, BuildSettings, InputRange, Log, build_engine, check_target
from .engine_cache import EngineCache, EngineKey
from .tensorrt_api import Gpu, TensorRT, this_gpu

THIS = "this"
PORTABLE = "voice.portable"
FORMS = (*MODALITIES, PORTABLE)
"""What is built: the two encoders, and the voice encoder that takes PCM."""

MIN_SECONDS, OPTIMUM_SECONDS = 0.5, 3.0
"""The shortest voice that an engine takes, and the one that it is fastest at."""


@dataclasses.dataclass(frozen=True)
class CompileOptions:
    """What to build. Raises `UsageError` on a value out of its range."""

    precisions: tuple[str, ...] = ()
    """None named stands for all that the bundle has; on a DLA, for those that one can run."""
    target: str = THIS
    """A compute capability such as `sm_86`, or `this` for the GPU that is here."""
    workspace_mib: int = 512
    dla_core: int | None = None
    max_batch: int = 1
    """Captures encoded at once. EdgePIN encodes one at a time."""
    max_seconds: float | None = None
    """The longest voice; by default all that a verification uses (10 s), and on a DLA, whose shapes are fixed, 3 s."""

    def __post_init__(self) -> None:
        for precision in self.precisions:
            if precision not in PRECISIONS:
                raise UsageError(
                    f"there is no precision {precision!r}", hint=f"choose {', '.join(PRECISIONS)}"
                )
        if not 1 <= self.max_batch <= 256:
            raise UsageError(f"the largest batch must be 1 to 256, not {self.max_batch}")
        if self.max_seconds is not None and not MIN_SECONDS <= self.max_seconds <= 60.0:
            raise UsageError(f"the longest voice must be {MIN_SECONDS} to 60 s, not {self.max_seconds:g}")
        if self.dla_core is not None and "fp32" in self.precisions:
            raise UsageError("a DLA runs INT8 and FP16, not FP32", hint="name --precision int8 or fp16")


@dataclasses.dataclass(frozen=True)
class Job:
    """One engine to have."""

    key: EngineKey
    settings: BuildSettings
    model: bytes = dataclasses.field(repr=False)

    @property
    def name(self) -> str:
        """Such as `voice int8`."""
        return f"{self.key.form} {self.key.precision}"


State = Literal["kept", "wanted", "built", "failed"]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a job."""

    job: Job
    state: State
    """`kept`: it was in the cache. `wanted`: it would be built. `failed`: `error` says why."""
    reason: str | None = None
    """Why the cache had it not, or what was wrong with the one that it had."""
    size: int = 0
    seconds: float = 0.0
    report: dict[str, Any] | None = dataclasses.field(default=None, repr=False)
    error: EdgePinError | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values, without the layers."""
        report = self.report or {}
        return {
            "form": self.job.key.form,
            "precision": self.job.key.precision,
            "state": self.state,
            "reason": self.reason,
            "bytes": self.size,
            "seconds": round(self.seconds, 3),
            "counts": report.get("counts"),
            "dla": report.get("dla"),
            "file": self.job.key.file_name,
        }


def plan(bundle: Bundle, options: CompileOptions, tensorrt: TensorRT) -> list[Job]:
    """The engines of `bundle` on this machine.

    Raises:
        UsageError: the bundle has none of the precisions, or this TensorRT does not build for the target.
        EnvironmentFault: there is no GPU to build for.
    """
    gpu = _gpu(options.target, tensorrt)
    jobs = []
    for form, precision, model in _models(bundle, options):
        settings = BuildSettings(
            (input_range(form, bundle.manifest, options),),
            workspace_mib=options.workspace_mib,
            dla_core=options.dla_core,
        )
        jobs.append(Job(engine_key(model, form, precision, gpu, tensorrt, settings.digest), settings, model))
    if not jobs:
        raise UsageError(
            f"the bundle has no encoder in {' or '.join(_wanted(options))}",
            hint=f"it has {', '.join(bundle.precisions('face'))}",
        )
    return jobs


def engine_key(
    model: bytes, form: str, precision: str, gpu: Gpu, tensorrt: TensorRT, settings: str = ""
) -> EngineKey:
    """The key of an engine of `model`; without `settings`, of the one that is there, however it was built."""
    return EngineKey(
        model=hashlib.sha256(model).hexdigest(),
        form=form,
        precision=precision,
        gpu=gpu.name,
        capability=gpu.capability,
        flavor=tensorrt.flavor,
        version=tensorrt.version,
        settings=settings,
    )


def input_range(form: str, manifest: Manifest, options: CompileOptions) -> InputRange:
    """The shapes of the one input of a form: `face` (N, S, S, 3), `log_mel` (N, T, M) or `pcm` (N, samples)."""
    fixed = options.dla_core is not None
    batches = (options.max_batch if fixed else 1, options.max_batch if fixed else 1, options.max_batch)
    if form == "face":
        size = manifest.face.size
        shapes = [(batch, size, size, 3) for batch in batches]
        return InputRange("face", *shapes)
    longest = options.max_seconds or (OPTIMUM_SECONDS if fixed else MAX_VOICE_SECONDS)
    spec = manifest.log_mel
    lengths = [
        round(spec.sample_rate * (longest if fixed else min(seconds, longest)))
        for seconds in (MIN_SECONDS, OPTIMUM_SECONDS, longest)
    ]
    if form == PORTABLE:
        return InputRange("pcm", *((batch, length) for batch, length in zip(batches, lengths, strict=True)))
    frames = [spec.num_frames(length) for length in lengths]
    return InputRange(
        "log_mel", *((batch, count, spec.num_mels) for batch, count in zip(batches, frames, strict=True))
    )


def check(jobs: list[Job], cache: EngineCache, *, force: bool = False) -> Iterator[Outcome]:
    """What building would do, without doing it: `kept` or `wanted`."""
    for job in jobs:
        yield _look(job, cache, force)


def run(
    jobs: list[Job],
    cache: EngineCache,
    tensorrt: TensorRT,
    *,
    force: bool = False,
    log: Log = lambda text: None,
    progress: Callable[[Job], BuildProgress] | None = None,
) -> Iterator[Outcome]:
    """Has every job's engine in the cache: keeps what is there and fits, and builds the rest.

    One that fails does not keep the others from being built; its outcome has the error.
    """
    with cache.lock(lambda: log("another process builds engines; waiting for it to end")):
        for job in jobs:
            found = _look(job, cache, force)
            if found.state == "kept":
                yield found
                continue
            try:
                yield _build(job, cache, tensorrt, found.reason, log, progress(job) if progress else None)
            except EdgePinError as error:
                yield dataclasses.replace(found, state="failed", error=error)


def _look(job: Job, cache: EngineCache, force: bool) -> Outcome:
    if force:
        return Outcome(job, "wanted", "building anew was asked for")
    try:
        cached = cache.get(job.key)
    except (IntegrityError, EnvironmentFault) as error:
        return Outcome(job, "wanted", str(error))
    return Outcome(job, "kept", size=len(cached.engine), report=cached.report)


def _build(
    job: Job,
    cache: EngineCache,
    tensorrt: TensorRT,
    reason: str | None,
    log: Log,
    progress: BuildProgress | None,
) -> Outcome:
    key = job.key
    target = None if key.gpu else key.capability
    place = {"gpu": key.gpu, "capability": key.capability, "flavor": key.flavor, "version": key.version}
    try:
        timings = cache.get_timings(place)
    except IntegrityError as error:
        log(f"{error}; kernels are timed anew")
        timings = None
    built = build_engine(
        job.model,
        job.settings,
        target=target,
        tensorrt=tensorrt,
        timings=timings,
        log=lambda text: log(f"{job.name}: {text}"),
        progress=progress,
    )
    cache.put(key, built.engine, built.report)
    if built.timings:
        cache.put_timings(place, built.timings)
    return Outcome(job, "built", reason, len(built.engine), built.seconds, built.report)


def _gpu(target: str, tensorrt: TensorRT) -> Gpu:
    """What to build for; nameless if any GPU of that capability will do, and it need not be here."""
    if target == THIS:
        return this_gpu()
    try:
        here = this_gpu()
    except EnvironmentFault:
        here = None
    if here is not None and here.capability == target:
        return here
    check_target(tensorrt, target)
    return Gpu("", target)


def _wanted(options: CompileOptions) -> tuple[str, ...]:
    if options.precisions:
        return tuple(one for one in PRECISIONS if one in options.precisions)
    return PRECISIONS if options.dla_core is None else PRECISIONS[1:]


def _models(bundle: Bundle, options: CompileOptions) -> Iterator[tuple[str, str, bytes]]:
    wanted = _wanted(options)
    for modality in MODALITIES:
        for precision in bundle.precisions(modality):
            if precision in wanted:
                yield modality, precision, bundle.model(modality, precision)
    portable = bundle.portable_voice
    if portable is not None and "fp32" in wanted:
        yield PORTABLE, "fp32", portable
