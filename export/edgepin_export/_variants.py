"""Every form of a pair of encoders that a bundle may hold, each held against FP32 by its gate.

It takes FP32 ONNX and captures, and knows nothing of where the two came from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgepin_kernels import LogMelSpec

from ._fp16 import rounded, to_fp16
from ._gates import LIMITS, Gate, GateReport
from ._int8 import Int8Encoder, Qat, Tune, make_int8
from ._parity import Captured, batched, onnx_embed
from ._portable import log_mel_feeds, pcm_feeds, portable_voice
from ._ranges import Feed, Progress

LOWER = ("fp16", "int8")
OPTIONAL = (*LOWER, "portable")
"""What an export may leave out: not FP32, which the others are held against."""


@dataclass(frozen=True)
class Captures:
    """Inputs of one modality's encoder, of batch 1. The three sets share no capture.

    `held_apart` are of people that the encoder was not trained on, two captures of each at least; `owner` int64 (n,)
    says whose.
    """

    ranges: Sequence[Feed]
    choice: Sequence[Feed]
    held_apart: Sequence[Feed]
    owner: NDArray[np.int64]


@dataclass(frozen=True)
class Variants:
    """All that was made, whether it passed or not."""

    models: dict[str, dict[str, bytes]]  # precision -> modality -> ONNX; "portable" has "voice" only
    gates: dict[str, dict[str, GateReport]]  # modality -> precision -> report
    fp32: dict[str, Captured]  # the held-apart captures, embedded
    int8: dict[str, Int8Encoder]  # how they came about, by modality
    fp16_kept: dict[str, tuple[str, ...]]  # layers that would overflow, by modality
    errors: dict[str, list[str]] = field(default_factory=dict)  # precision -> why it could not even be made

    @property
    def failures(self) -> dict[str, list[str]]:
        """Precision -> why it may not be exported. A precision is exported for both modalities or for none."""
        found = {precision: list(reasons) for precision, reasons in self.errors.items()}
        for modality, reports in self.gates.items():
            for precision, report in reports.items():
                for failure in report.failures:
                    found.setdefault(precision, []).append(f"{modality}: {failure}")
        return found


def make_variants(
    fp32: Mapping[str, bytes],
    captures: Mapping[str, Captures],
    log_mel: LogMelSpec,
    clips: Sequence[NDArray[np.int16]],
    clip_owner: NDArray[np.int64],
    *,
    trained: Mapping[str, Captured] | None = None,
    tune: Mapping[str, Tune] | None = None,
    qat: Qat = "auto",
    progress: Progress,
) -> Variants:
    """FP16, INT8 and portable forms of FP32 encoders, with their gates.

    Args:
        fp32: ONNX by modality (`face`, `voice`), with the inputs and outputs of a bundle's encoders.
        captures: of each modality.
        log_mel: the front-end of the voice encoder, for the portable form.
        clips: held-apart voices as int16 PCM at 16 kHz, for the portable form's gate; `clip_owner` says whose.
        trained: the held-apart captures through the encoders that `fp32` was exported from, where there are such.
        tune: fine-tuning under quantization, by modality, where weights can be trained.
        qat: whether to use it.

    Raises:
        ValueError: there are too few captures.
    """
    models: dict[str, dict[str, bytes]] = {"fp32": dict(fp32), "fp16": {}, "int8": {}, "portable": {}}
    gates: dict[str, dict[str, GateReport]] = {}
    embedded: dict[str, Captured] = {}
    int8: dict[str, Int8Encoder] = {}
    kept: dict[str, tuple[str, ...]] = {}
    errors: dict[str, list[str]] = {}
    for modality, model in fp32.items():
        own = captures[modality]
        batches = batched(own.held_apart)

        def embed(
            made: bytes, batches: list[Feed] = batches, owner: NDArray[np.int64] = own.owner
        ) -> Captured:
            return Captured(*onnx_embed(made, batches), owner)

        embedded[modality] = embed(model)
        gate = Gate(embedded[modality])
        before = Gate(trained[modality]) if trained else gate
        reports = gates[modality] = {"fp32": before.check(embedded[modality], LIMITS["fp32"])}
        try:
            half = to_fp16(model, own.ranges, label=f"{modality}: observing for FP16", progress=progress)
            models["fp16"][modality], kept[modality] = half.model, half.kept
            onnx_embed(half.model, batches[:1])  # that it runs; what FP16 loses does not show on a CPU
            reports["fp16"] = gate.check(embed(rounded(half.model)), LIMITS["fp16"])
        except Exception as error:
            errors.setdefault("fp16", []).append(f"{modality}: {_said(error)}")
        try:
            int8[modality] = made = make_int8(
                model,
                own.ranges,
                own.choice,
                lambda tried, gate=gate, embed=embed: gate.check(embed(tried), LIMITS["int8"]),  # type: ignore[misc]
                tune=(tune or {}).get(modality),
                qat=qat,
                label=modality,
                progress=progress,
            )
            models["int8"][modality], reports["int8"] = made.model, made.gate
        except Exception as error:
            errors.setdefault("int8", []).append(f"{modality}: {_said(error)}")
    try:
        models["portable"]["voice"] = portable = portable_voice(fp32["voice"], log_mel)
        kernel = Captured(*onnx_embed(fp32["voice"], log_mel_feeds(clips, log_mel)), clip_owner)
        whole = Captured(*onnx_embed(portable, pcm_feeds(clips)), clip_owner)
        gates["voice"]["portable"] = Gate(kernel).check(whole, LIMITS["portable"])
        progress("portable voice encoder", 1, 1)
    except Exception as error:
        errors.setdefault("portable", []).append(f"voice: {_said(error)}")
    return Variants(models, gates, embedded, int8, kept, errors)


def _said(error: Exception) -> str:
    """Why a form could not be made. The errors of onnx and onnxruntime, which meet encoders of all kinds here, share no
    base below Exception; none is lost, since a form that is not there fails the export."""
    text = (str(error).splitlines() or [""])[0]
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"
