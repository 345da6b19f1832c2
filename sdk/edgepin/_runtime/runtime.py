"""What runs the encoders: a small protocol, and ONNX Runtime behind it. `_backends` chooses among what is here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from .._errors import BundleError, EdgePinError, EnvironmentFault

INPUT_NAMES = {"face": "face", "voice": "log_mel"}
OUTPUT_NAMES = ("identity", "pin")

Encoded = tuple[NDArray[np.float32], NDArray[np.float32]]


class Runtime(Protocol):
    """Runs both encoders. Implementations must be callable from several threads.

    One that holds memory of a device may have `close()`, which a `Verifier` calls when it is closed.
    """

    @property
    def name(self) -> str:
        """What reports call it, such as `onnxruntime-cpu`."""
        ...

    def encode(self, modality: str, batch: NDArray[Any]) -> Encoded:
        """Face (N, S, S, 3) uint8 or log-mel (N, T, M) float32 -> identity (N, 256), pin (N, 256), float32."""
        ...


@runtime_checkable
class PcmRuntime(Runtime, Protocol):
    """A runtime that may have the front-end of the voice on its device. Most runtimes need only `Runtime`."""

    @property
    def takes_pcm(self) -> bool:
        """Whether `encode_pcm` can be called; if not, the log-mel is computed on the processor."""
        ...

    def encode_pcm(self, pcm: NDArray[np.int16]) -> Encoded:
        """PCM (N, samples) int16 at the front-end's rate -> identity (N, 256), pin (N, 256), float32."""
        ...


PROVIDERS: dict[str, tuple[tuple[str, dict[str, str]], ...]] = {
    "onnxruntime-cpu": (("CPUExecutionProvider", {}),),
    # TF32 rounds the inputs of FP32 products to 10 bits: that is another precision than the one that was checked.
    "onnxruntime-cuda": (("CUDAExecutionProvider", {"use_tf32": "0"}),),
    # No engine cache: this provider would load cached engines without checking who wrote them.
    "onnxruntime-tensorrt": (
        ("TensorrtExecutionProvider", {"trt_engine_cache_enable": "0"}),
        ("CUDAExecutionProvider", {"use_tf32": "0"}),
    ),
}
"""ONNX Runtime's execution providers by our name, the wanted one first."""


class OnnxRuntime:
    """The encoders on one of ONNX Runtime's execution providers.

    ONNX Runtime itself goes on without a provider that does not load, and retries a failed run on the processor; both are
    off here.

    Args:
        models: ONNX bytes by modality.
        threads: of the processor, per call.
        name: `onnxruntime-cpu`, `onnxruntime-cuda` or `onnxruntime-tensorrt`.
        forbid_cpu: no node of an encoder may run on the processor (not even one that computes a shape).

    Raises:
        EnvironmentFault: onnxruntime is missing, has no such provider or cannot load it, or nodes land on the processor
            where that is forbidden.
        BundleError: it refuses a model.
    """

    def __init__(
        self,
        models: Mapping[str, bytes],
        *,
        threads: int = 1,
        name: str = "onnxruntime-cpu",
        forbid_cpu: bool = False,
    ) -> None:
        self.name = name
        self.notes: tuple[str, ...] = ()
        """What runs on the processor beside a GPU, as far as this onnxruntime tells."""
        onnxruntime = import_onnxruntime()
        wanted = PROVIDERS[name][0][0]
        available = onnxruntime.get_available_providers()
        if wanted not in available:
            raise EnvironmentFault(
                f"this onnxruntime has no {wanted}; it has {', '.join(available)}",
                hint="pip uninstall onnxruntime && pip install onnxruntime-gpu (there is none for Jetsons on PyPI)",
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Batches of one: the arena saves no time that could be measured, and holds megabytes.
        options.enable_cpu_mem_arena = False
        if name != "onnxruntime-cpu":
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        if forbid_cpu:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        self._sessions: dict[str, Any] = {}
        for modality, model in models.items():
            session = self._session(onnxruntime, modality, model, options, forbid_cpu)
            if wanted not in session.get_providers():
                # Its libraries (CUDA, cuDNN, TensorRT) did not load, and ONNX Runtime only warned.
                raise EnvironmentFault(
                    f"ONNX Runtime could not load its {wanted} and left it out",
                    hint="install the CUDA, cuDNN (and TensorRT) versions that this onnxruntime-gpu was built for",
                )
            self._sessions[modality] = session
            count = _nodes_on_cpu(session) if name != "onnxruntime-cpu" else 0
            if count:
                self.notes += (f"{count} nodes of the {modality} encoder run on the processor",)

    def encode(self, modality: str, batch: NDArray[Any]) -> Encoded:
        try:
            identity, pin = self._sessions[modality].run(OUTPUT_NAMES, {INPUT_NAMES[modality]: batch})
        except Exception as error:
            raise EdgePinError(f"the {modality} encoder failed: {first_line(error)}") from error
        return identity, pin

    def _session(self, onnxruntime: Any, modality: str, model: bytes, options: Any, forbid_cpu: bool) -> Any:
        try:
            return onnxruntime.InferenceSession(
                model, options, providers=list(PROVIDERS[self.name]), enable_fallback=0
            )
        except Exception as error:  # onnxruntime's errors share no base below Exception
            message = first_line(error)
            if forbid_cpu and "CPU EP" in message:
                raise EnvironmentFault(
                    f"the {modality} encoder, or parts of it, would run on the processor under {self.name}, which is"
                    " forbidden (all of it would, where the provider's libraries do not load)",
                    hint="use TensorRT: edgepin compile B.pin",
                ) from error
            if self.name != "onnxruntime-cpu":
                raise EnvironmentFault(
                    f"ONNX Runtime cannot run the {modality} encoder by {self.name}: {message}"
                ) from error
            raise BundleError(f"ONNX Runtime refuses the {modality} encoder: {message}") from error


def import_onnxruntime() -> Any:
    """The package. Raises `EnvironmentFault` where it is missing or broken."""
    try:
        import onnxruntime
    except ImportError as error:
        raise EnvironmentFault("onnxruntime is not installed", hint="pip install onnxruntime") from error
    return onnxruntime


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type: errors of runtimes may be pages long."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _nodes_on_cpu(session: Any) -> int:
    """How many nodes ONNX Runtime assigned to the processor; 0 where its version cannot say."""
    try:
        assigned = session.get_provider_graph_assignment_info()
    except Exception:
        return 0
    counts: Counter[str] = Counter()
    for part in assigned:
        counts[part.ep_name] += len(part.get_nodes())
    return counts["CPUExecutionProvider"]
