"""`CudaLogMel`: 16-bit PCM on the GPU to log-mel on the GPU, in one launch on the caller's stream.

It has run on one GPU, an H200. What is known of others comes from the emulation in the tests and from the compiler.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
import weakref
from pathlib import Path
from typing import Any, get_args

from edgepin_kernels import _cuda_build, _cuda_params
from edgepin_kernels._cuda_arrays import DeviceArray, View, stream_handle, view
from edgepin_kernels._cuda_driver import CudaError, CudaUnavailableError, Driver
from edgepin_kernels._cuda_params import MAX_BATCH, MAX_NORMALIZED_FRAMES, MAX_SAMPLES, Store
from edgepin_kernels._spec import LogMelSpec

__all__ = ["CudaError", "CudaLogMel", "CudaUnavailableError", "DeviceArray"]

# The default stream of each thread: one handle, as many streams as threads.
_PER_THREAD_STREAM = 2
# New scratch memory is this much larger than asked for, so that slowly growing batches do not each bring their own.
_GROWTH = 1.5


@dataclasses.dataclass
class _Scratch:
    """Memory of the plan for one stream, on which calls follow each other."""

    sums: int
    staging: int = 0
    staging_bytes: int = 0


class CudaLogMel:
    """A plan for one `LogMelSpec` on one GPU: build once, call often. Threads may share it.

    Building compiles the kernel for this GPU with nvcc, once (a cache keeps it), retains the GPU's primary context, which
    torch and TensorRT use too, and synchronizes. A call does not: it enqueues one kernel.

    Args:
        spec: what to compute; transforms of 512 and 400 points.
        device: the index of the GPU.
        dtype: what the result is stored as. Arithmetic is float32 in both; float16 is held to its largest finite value.
        cache: the folder of compiled kernels; None is the user's.

    Raises:
        TypeError: ``spec`` is not a `LogMelSpec`.
        ValueError: ``spec`` has another transform; or ``device`` or ``dtype`` is not allowed.
        CudaUnavailableError: the driver, the GPU or nvcc is not here; the message says how to get it.
        CudaError: a call of the driver failed.
    """

    def __init__(
        self,
        spec: LogMelSpec,
        device: int = 0,
        dtype: Store = "float32",
        cache: Path | None = None,
        *,
        _driver: Driver | None = None,
    ) -> None:
        if not isinstance(spec, LogMelSpec):
            raise TypeError(f"spec must be a LogMelSpec, not {type(spec).__name__}")
        _cuda_params.require_supported(spec)
        if dtype not in get_args(Store):
            raise ValueError(f"dtype must be one of {', '.join(get_args(Store))}, not {dtype!r}")
        if isinstance(device, bool) or not isinstance(device, int) or device < 0:
            raise ValueError(f"device must be the index of a GPU, not {device!r}")
        self._spec, self._device, self._dtype = spec, device, dtype
        self._driver = driver = _driver or _default_driver()
        count = driver.device_count()
        if device >= count:
            raise CudaUnavailableError(
                f"there is no GPU {device}; the driver finds {count} (see nvidia-smi -L)"
            )
        handle = driver.device(device)
        image = _cuda_build.build(spec.fft_length, dtype, driver.compute_capability(handle), cache)
        self._context = driver.retain_primary_context(handle)
        self._owned = _Owned(driver, handle, self._context)
        self._release = weakref.finalize(self, self._owned.release)
        self._lock = threading.Lock()
        self._scratch: dict[tuple[int, int], _Scratch] = {}
        try:
            with driver.current(self._context):
                self._owned.module = _load(driver, image)
                self._function = driver.function(self._owned.module, _cuda_build.KERNEL)
                self._shared_bytes = _cuda_params.shared_bytes(spec)
                where = _cuda_params.tables(spec)
                address = driver.upload(where.data)
                self._owned.memory.append(address)
                self._resident = self._resident_blocks(handle)
        except CudaError:
            self._release()
            raise
        self._params = _cuda_params.params(spec, address, where)

    def _resident_blocks(self, handle: int) -> int:
        blocks = self._driver.resident_blocks(self._function, _cuda_params.THREADS, self._shared_bytes)
        if _cuda_params.over_utterance(self._spec) and not self._driver.launches_cooperatively(handle):
            return 0  # then one block has the whole utterance
        return blocks * self._driver.multiprocessors(handle)

    @property
    def spec(self) -> LogMelSpec:
        """What is computed."""
        return self._spec

    @property
    def device(self) -> int:
        """The index of the GPU."""
        return self._device

    @property
    def dtype(self) -> Store:
        """What the result is stored as."""
        return self._dtype

    def __repr__(self) -> str:
        return f"CudaLogMel({self._spec!r}, device={self._device}, dtype={self._dtype!r})"

    def out_shape(self, pcm_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of ``out`` for samples of this shape: ``(frames, mels)`` or ``(batch, frames, mels)``."""
        return (*pcm_shape[:-1], self._spec.num_frames(pcm_shape[-1]), self._spec.num_mels)

    def __call__(
        self, pcm: object, out: Any, *, lengths: object | None = None, stream: object | None = None
    ) -> Any:
        """Enqueue the log-mel of whole utterances; the result is there when the stream has come so far.

        Nothing here waits, copies or orders streams: what fills ``pcm`` and ``lengths`` and what reads ``out`` is on the
        same stream or ordered with it by the caller, who also keeps the memory until then. After the first call on a
        stream with the largest shape nothing is allocated, so that later ones may be captured into a CUDA graph; give
        a graph a plan of its own if it is replayed beside other calls on the stream that it was captured from.

        Args:
            pcm: int16 on this GPU, ``(samples,)`` or ``(batch, samples)`` at ``spec.sample_rate``; rows may lie apart.
                Anything with ``__cuda_array_interface__`` (torch, cupy, pycuda's GPUArray) or a `DeviceArray`.
            out: ``dtype`` on this GPU, contiguous, of ``out_shape(pcm.shape)``. It must not share memory with ``pcm``.
            lengths: int32 on this GPU, ``(batch,)``: how many of each row's samples are its utterance; they are held to
                0 .. samples. None means all of them. Frames beyond an utterance's own are written as 0.
            stream: a stream of torch, cupy, pycuda or cuda-python, or a handle; None is the default stream.

        Returns:
            ``out``.

        Raises:
            TypeError: an array is not one on a GPU or of another dtype, or ``stream`` is no stream.
            ValueError: an array has another shape, strides that will not do, is read-only, not aligned, overlaps another
                one or lies elsewhere than on this GPU; or ``pcm`` is too short for one frame, or larger than the kernel takes.
            CudaError: a call of the driver failed; the message has its name.
        """
        samples_view = view("pcm", pcm, "int16", rows_apart=True)
        batch, samples, frames = self._sizes(samples_view)
        out_view = view("out", out, self._dtype, writable=True)
        shape = (*samples_view.shape[:-1], frames, self._spec.num_mels)
        if out_view.shape != shape:
            raise ValueError(f"out must have the shape {shape}, not {out_view.shape}")
        length_view = None if lengths is None else view("lengths", lengths, "int32")
        if length_view is not None and length_view.shape != (batch,):
            raise ValueError(f"lengths must have the shape {(batch,)}, not {length_view.shape}")
        for name, other in (("pcm", samples_view), ("lengths", length_view)):
            if other is not None and out_view.overlaps(other):
                raise ValueError(f"out must not share memory with {name}")
        handle = stream_handle(stream)
        if batch == 0:
            return out

        blocks = _cuda_params.blocks_per_utterance(self._spec, batch, frames, self._resident)
        together = blocks > 1 and _cuda_params.over_utterance(self._spec)
        with self._driver.current(self._context):
            for name, checked in (("pcm", samples_view), ("out", out_view), ("lengths", length_view)):
                if checked is not None:
                    self._require_here(name, checked)
            arguments = _cuda_params.LogMelParams.from_buffer_copy(self._params)
            arguments.pcm, arguments.pcm_stride = samples_view.address, samples_view.stride
            arguments.lengths = None if length_view is None else length_view.address
            arguments.samples, arguments.out_frames = samples, frames
            arguments.out = arguments.staging = out_view.address
            values = batch * frames * self._spec.num_mels
            staged = 4 * values if _cuda_params.over_utterance(self._spec) and self._dtype != "float32" else 0
            if together or staged:
                arguments.workspace, staging = self._scratch_of(handle, staged)
                if staged:
                    arguments.staging = staging
            self._driver.launch(
                self._function,
                (blocks, batch),
                _cuda_params.THREADS,
                self._shared_bytes,
                handle,
                arguments,
                cooperative=together,
            )
        return out

    def close(self) -> None:
        """Give back the memory and the context, after all work of the plan is done; it cannot be called afterwards."""
        self._release()

    def _sizes(self, pcm: View) -> tuple[int, int, int]:
        """Batch, samples, frames."""
        if not self._release.alive:
            raise CudaError("this plan was closed")
        if len(pcm.shape) not in (1, 2):
            raise ValueError(f"pcm must be (samples,) or (batch, samples), not of shape {pcm.shape}")
        batch, samples = (1, *pcm.shape)[-2:]
        frames = self._spec.num_frames(samples)
        if frames == 0:
            raise ValueError(
                f"{samples} samples are too few for one frame; at least {self._spec.min_samples} are needed"
            )
        if batch > MAX_BATCH:
            raise ValueError(f"pcm has {batch} utterances; at most {MAX_BATCH} go into a call")
        if samples > MAX_SAMPLES:
            raise ValueError(f"pcm has {samples} samples an utterance; at most {MAX_SAMPLES} go into a call")
        if self._spec.normalize != "none" and frames > MAX_NORMALIZED_FRAMES:
            raise ValueError(
                f"{frames} frames cannot be normalized together; at most {MAX_NORMALIZED_FRAMES} can"
            )
        return batch, samples, frames

    def _require_here(self, name: str, array: View) -> None:
        for address in (array.address, array.address + array.size - 1):
            device = self._driver.memory_device(address)
            if device != self._device:
                where = "not in the memory of a GPU" if device is None else f"on GPU {device}"
                raise ValueError(f"{name} must lie on GPU {self._device}; {address:#x} is {where}")

    def _scratch_of(self, stream: int, staging_bytes: int) -> tuple[int, int]:
        """The workspace and the staging memory for a stream; the context is current."""
        key = (stream, threading.get_ident() if stream == _PER_THREAD_STREAM else 0)
        with self._lock:
            scratch = self._scratch.get(key)
            if scratch is not None and staging_bytes <= scratch.staging_bytes:
                return scratch.sums, scratch.staging
            if self._driver.is_capturing(stream):
                raise CudaError(
                    "the first call on a stream, or the first of its size, allocates, and the stream is being captured"
                    " into a graph; call the plan once on it before the capture"
                )
            if scratch is None:
                words = max(self._resident, 1) * _cuda_params.workspace_words(self._spec)
                sums = self._driver.allocate(4 * words)
                self._owned.memory.append(sums)
                self._driver.clear(sums, words, stream)
                scratch = self._scratch[key] = _Scratch(sums)
            if staging_bytes > scratch.staging_bytes:
                size = staging_bytes if not scratch.staging_bytes else int(staging_bytes * _GROWTH)
                # What was there before may still be in use by what is enqueued; freeing it would wait for that.
                scratch.staging = self._driver.allocate(size)
                scratch.staging_bytes = size
                self._owned.memory.append(scratch.staging)
            return scratch.sums, scratch.staging


class _Owned:
    """What a plan gives back; apart from the plan, so that it can outlive it."""

    def __init__(self, driver: Driver, device: int, context: int) -> None:
        self._driver, self._device, self._context = driver, device, context
        self.module = 0
        self.memory: list[int] = []

    def release(self) -> None:
        driver = self._driver
        try:
            with driver.current(self._context):
                for address in self.memory:
                    driver.call("cuMemFree_v2", address)
                if self.module:
                    driver.call("cuModuleUnload", self.module)
            driver.call("cuDevicePrimaryCtxRelease_v2", self._device)
        except CudaError:
            # Only at the end of the process, when the driver has gone first and taken everything along.
            pass


def _load(driver: Driver, image: bytes) -> int:
    try:
        return driver.load_module(image)
    except CudaError as error:
        major, minor = driver.version() // 1000, driver.version() % 1000 // 10
        raise CudaError(
            f"the driver does not take the compiled kernel: {error}; the driver is for CUDA {major}.{minor}, so"
            " if nvcc is newer, update the driver or set CUDA_HOME to an older toolkit"
        ) from error


@functools.lru_cache(maxsize=1)
def _default_driver() -> Driver:
    return Driver()
