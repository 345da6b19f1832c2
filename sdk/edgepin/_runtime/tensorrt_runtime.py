"""The encoders as TensorRT engines on an NVIDIA GPU, the log-mel kernel before the voice's on the same stream.

One call is: copy to the device, for PCM the log-mel kernel, the engine, copy back. All buffers are had once, at opening,
for the largest input, so that their addresses are in every graph and nothing is allocated for a shape that was seen before.
The first run of a shape is enqueued plainly, the second is recorded as a CUDA graph, and from then on one launch does all
of it. Graphs are few (`max_graphs`): the one that was not used for longest makes room.

**Nothing of this has run on a GPU.** Tests hold its logic against fakes of pycuda, TensorRT and cuda-bindings that
record calls.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgepin_kernels import LogMelSpec

from .._bundle.manifest import EMBEDDING_DIM
from .._errors import EdgePinError, EnvironmentFault
from .cuda_device import Buffer, CudaDevice
from .cuda_graph import CudaGraph, GraphRecorder
from .engine_cache import CachedEngine
from .runtime import OUTPUT_NAMES, Encoded, first_line
from .tensorrt_engine import EncoderEngine, EngineContext, Memory

if TYPE_CHECKING:
    from .tensorrt_api import TensorRT

MAX_GRAPHS = 16
_REMEMBERED_SHAPES = 256  # a little memory each

Shape = tuple[str, tuple[int, ...]]
"""What is put in (`face`, `voice`, `pcm`), and its shape."""


class _Lane:
    """One encoder with its buffers: as large as its largest input, at addresses that stay."""

    def __init__(self, device: CudaDevice, engine: EncoderEngine, workspace: Memory) -> None:
        self.engine, self._workspace, self._stream = engine, workspace, device.stream_handle
        self.input = device.buffer(engine.maximum, engine.dtype)
        self.pcm: Buffer | None = None
        outputs = (engine.maximum[0], EMBEDDING_DIM)
        self.outputs = {name: device.buffer(outputs, np.float32) for name in OUTPUT_NAMES}
        self.shared = self.context()
        """For all shapes that have no graph."""

    def context(self) -> EngineContext:
        """A new context on these buffers."""
        addresses = {name: buffer.address for name, buffer in self.outputs.items()}
        addresses[self.engine.input] = self.input.address
        return self.engine.context(addresses, self._workspace, self._stream)


@dataclass(frozen=True)
class _Recorded:
    """A graph, and the context that it was recorded from.

    A graph holds on to the state of its context, so that no two may share one, and none may change its shape.
    """

    graph: CudaGraph
    context: EngineContext


class TensorRtRuntime:
    """Runs both encoders on TensorRT. Threads take turns: there is one stream, and a GPU runs a batch of one at a time anyway.

    Args:
        engines: what the cache vouches for, by modality.
        tensorrt: what `load_tensorrt` found.
        log_mel: the front-end; None leaves it to the processor.
        device: the GPU; by default the first.
        max_graphs: how many CUDA graphs are kept, over both encoders.

    Raises:
        EnvironmentFault: pycuda or the GPU is missing, or an engine does not load here.
        EdgePinError: the first runs fail.
    """

    name = "tensorrt"

    def __init__(
        self,
        engines: Mapping[str, CachedEngine],
        tensorrt: TensorRT,
        log_mel: LogMelSpec | None = None,
        *,
        device: CudaDevice | None = None,
        max_graphs: int = MAX_GRAPHS,
    ) -> None:
        self._device = device or CudaDevice()
        self._lock, self._closed = threading.Lock(), False
        self._max_graphs = max_graphs
        self._recorded: OrderedDict[Shape, _Recorded] = OrderedDict()
        self._seen: OrderedDict[Shape, None] = OrderedDict()
        self._lanes: dict[str, _Lane] = {}
        self._log_mel: Any = None
        self.notes: tuple[str, ...] = ()
        """What is slower than it could be, each with why and how to mend it."""
        self._recorder, notes = _recorder()
        with self._device.current():
            try:
                loaded = {
                    modality: EncoderEngine(tensorrt, cached, modality)
                    for modality, cached in engines.items()
                }
                # A run is never beside another, so all contexts work in the same memory.
                size = max(1, *(engine.memory_size for engine in loaded.values()))
                workspace = Memory(self._device.allocate(size), size)
                for modality, engine in loaded.items():
                    self._lanes[modality] = _Lane(self._device, engine, workspace)
                if log_mel is not None:
                    self._log_mel, why = _kernel(log_mel, self._device.index)
                    notes += [why] if why else []
                    if self._log_mel is not None:
                        lane = self._lanes["voice"]
                        batch, frames = lane.engine.maximum[:2]
                        samples = _samples_of(log_mel, frames) + log_mel.hop_length
                        lane.pcm = self._device.buffer((batch, samples), np.int16)
                notes += self._warm_up()
            except BaseException as error:
                self._free()
                if isinstance(error, EdgePinError) or not isinstance(error, Exception):
                    raise
                raise EdgePinError(f"TensorRT cannot be set up on the GPU: {first_line(error)}") from error
        self.notes = tuple(notes)

    @property
    def takes_pcm(self) -> bool:
        """Whether the log-mel kernel runs on the GPU before the voice's encoder."""
        return self._log_mel is not None

    @property
    def graphs(self) -> int:
        """How many CUDA graphs are kept now."""
        return len(self._recorded)

    def encode(self, modality: str, batch: NDArray[Any]) -> Encoded:
        """As `Runtime.encode`. Raises `EnvironmentFault` for a shape that the engine was not built for."""
        lane = self._lane(modality)
        if batch.dtype != lane.engine.dtype:
            raise EdgePinError(
                f"the {modality} encoder takes {lane.engine.dtype}, and was given {batch.dtype}"
            )
        lane.engine.check_shape(batch.shape)
        return self._call(lane, lane.input, (modality, batch.shape), batch)

    def encode_pcm(self, pcm: NDArray[np.int16]) -> Encoded:
        """As `PcmRuntime.encode_pcm`. Raises `EnvironmentFault` for a length that the engine was not built for."""
        lane = self._lane("voice")
        if lane.pcm is None:
            raise EdgePinError("this runtime has no log-mel kernel: give it the log-mel")
        if pcm.dtype != np.int16:
            raise EdgePinError(f"the log-mel kernel takes int16, and was given {pcm.dtype}")
        pcm = _whole_frames(self._log_mel.spec, pcm)
        lane.engine.check_shape(self._log_mel.out_shape(pcm.shape))
        return self._call(lane, lane.pcm, ("pcm", pcm.shape), pcm)

    def close(self) -> None:
        """Gives back what it has on the device; it cannot be called afterwards."""
        with self._lock:
            if not self._closed:
                with self._device.current():
                    self._free()

    def _lane(self, modality: str) -> _Lane:
        try:
            return self._lanes[modality]
        except KeyError:
            raise EdgePinError("this runtime was closed") from None

    def _call(self, lane: _Lane, source: Buffer, shape: Shape, values: NDArray[Any]) -> Encoded:
        with self._lock:
            if self._closed:
                raise EdgePinError("this runtime was closed")
            with self._device.current():
                source.host[: values.size] = values.reshape(-1)
                try:
                    self._enqueue(lane, shape)
                    self._device.synchronize()
                except Exception as error:
                    # What was enqueued before still reads and writes our buffers.
                    with suppress(Exception):
                        self._device.synchronize()
                    if isinstance(error, EdgePinError):
                        raise
                    raise EdgePinError(
                        f"the {lane.engine.modality} encoder failed on the GPU: {first_line(error)}"
                    ) from error
                count = values.shape[0] * EMBEDDING_DIM
                identity, pin = (
                    lane.outputs[name].host[:count].reshape(-1, EMBEDDING_DIM).copy() for name in OUTPUT_NAMES
                )
                return identity, pin

    def _enqueue(self, lane: _Lane, shape: Shape) -> None:
        """One run of what lies in the pinned memory. The context is current."""
        recorded = self._recorded.get(shape)
        if recorded is not None:
            self._recorded.move_to_end(shape)
        elif self._recorder is not None and shape in self._seen:
            recorded = self._record(self._recorder, lane, shape)
        else:
            self._seen[shape] = None
            if len(self._seen) > _REMEMBERED_SHAPES:
                self._seen.popitem(last=False)
            lane.shared.set_shape(self._input_of_engine(shape))
            self._enqueue_plainly(lane, lane.shared, shape)
            return
        recorded.graph.launch()

    def _record(self, recorder: GraphRecorder, lane: _Lane, shape: Shape) -> _Recorded:
        while len(self._recorded) >= self._max_graphs:
            _, oldest = self._recorded.popitem(last=False)
            oldest.graph.close()
        context = lane.context()
        context.set_shape(self._input_of_engine(shape))
        # A new context does some of its work at its first run, which must not be in the graph.
        self._enqueue_plainly(lane, context, shape)
        self._device.synchronize()
        graph = recorder.record(
            self._device.stream_handle, lambda: self._enqueue_plainly(lane, context, shape)
        )
        self._recorded[shape] = recorded = _Recorded(graph, context)
        return recorded

    def _input_of_engine(self, shape: Shape) -> tuple[int, ...]:
        kind, lengths = shape
        return lengths if kind != "pcm" else tuple(self._log_mel.out_shape(lengths))

    def _enqueue_plainly(self, lane: _Lane, context: EngineContext, shape: Shape) -> None:
        """Every call of one run, onto the stream."""
        kind, lengths = shape
        if kind == "pcm":
            self._enqueue_log_mel(lane, lengths)
        else:
            self._device.to_device(lane.input, math.prod(lengths))
        context.enqueue(self._device.stream_handle)
        for buffer in lane.outputs.values():
            self._device.to_host(buffer, lengths[0] * EMBEDDING_DIM)

    def _enqueue_log_mel(self, lane: _Lane, samples: tuple[int, ...]) -> None:
        """PCM to the device, and the kernel, which writes where the engine reads."""
        from edgepin_kernels._cuda import DeviceArray

        assert lane.pcm is not None
        self._device.to_device(lane.pcm, math.prod(samples))
        self._log_mel(
            DeviceArray(lane.pcm.address, samples, "int16"),
            DeviceArray(lane.input.address, self._log_mel.out_shape(samples), "float32"),
            stream=self._device.stream_handle,
        )

    def _warm_up(self) -> list[str]:
        """Runs each encoder on silence of its usual size until a graph of it was launched; what cannot be recorded is said."""
        notes: list[str] = []
        for modality, lane in self._lanes.items():
            source, shape = lane.input, (modality, lane.engine.optimum)
            if lane.pcm is not None:
                batch, frames = lane.engine.optimum[:2]
                source, shape = lane.pcm, ("pcm", (batch, _samples_of(self._log_mel.spec, frames)))
            silence = np.zeros(shape[1], source.host.dtype)
            self._call(lane, source, shape, silence)
            if self._recorder is None:
                continue
            try:
                self._call(lane, source, shape, silence)
                self._call(lane, source, shape, silence)
            except EdgePinError as error:
                # Some engines cannot be captured. That is known here, at opening, or not at all.
                self._recorder = None
                while self._recorded:
                    self._recorded.popitem()[1].graph.close()
                notes.append(f"no CUDA graphs: {error}")
                self._call(lane, source, shape, silence)
        return notes

    def _free(self) -> None:
        """The context is current. Each thing is given back even where another one fails."""
        self._closed = True
        with suppress(Exception):
            self._device.synchronize()
        while self._recorded:
            with suppress(Exception):
                self._recorded.popitem()[1].graph.close()
        self._lanes.clear()
        if self._log_mel is not None:
            with suppress(Exception):
                self._log_mel.close()
        self._device.close()


def _recorder() -> tuple[GraphRecorder | None, list[str]]:
    try:
        return GraphRecorder(), []
    except EnvironmentFault as fault:
        return None, [f"no CUDA graphs: {fault} ({fault.hint})"]


def _kernel(spec: LogMelSpec, device: int) -> tuple[Any, str | None]:
    """The log-mel kernel for this GPU, or why there is none."""
    from edgepin_kernels._cuda import CudaError, CudaLogMel

    try:
        return CudaLogMel(spec, device=device), None
    except (CudaError, ValueError) as error:
        return None, f"the log-mel runs on the processor: {first_line(error)}"


def _whole_frames(spec: LogMelSpec, pcm: NDArray[np.int16]) -> NDArray[np.int16]:
    """The samples that frames are made of. What the last frame leaves over only makes more shapes, and so more graphs."""
    frames = spec.num_frames(pcm.shape[1])
    if spec.padding != "none" or frames < 1:
        return pcm
    return pcm[:, : spec.frame_length + (frames - 1) * spec.hop_length]


def _samples_of(spec: LogMelSpec, frames: int) -> int:
    """The fewest samples that make this many frames."""
    if spec.padding == "none":
        return spec.frame_length + (frames - 1) * spec.hop_length
    return max(spec.min_samples, (frames - (0 if spec.drop_last_frame else 1)) * spec.hop_length)
