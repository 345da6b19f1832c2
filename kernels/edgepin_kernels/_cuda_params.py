"""What the CUDA kernel is told of a `LogMelSpec`: the mirror of ``cuda/log_mel_params.h``, its tables and its grid."""

from __future__ import annotations

import ctypes
import dataclasses
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgepin_kernels._reference import INT16_SCALE
from edgepin_kernels._spec import LogMelSpec
from edgepin_kernels._tables import log_of_floor, mel_table, scaled_window

Store = Literal["float32", "float16"]

WARPS = 4
THREADS = 32 * WARPS
FFT_LENGTHS = (400, 512)
MAX_BATCH = 65_535  # of the second axis of a grid
MAX_SAMPLES = 2**31 - 2**18  # what lies a frame and a hop further is still an index of 32 bits
MAX_NORMALIZED_FRAMES = 2**20  # that many squares fit into the exact sums
_HEADER_WORDS = 4
_MEL_GROUPS = 8
_TAPS_AT_ONCE = 4
# Blocks that wait for their turn behind each one that runs, where blocks need not run together: enough to even out
# the ends of utterances.
_WAVES = 8

_PADDINGS = {"none": 0, "zeros": 1, "reflect": 2}
_LOGS = {"none": 0, "ln": 1, "log10": 2, "db": 3}
_NORMALIZES = {"none": 0, "mean": 1, "mean_std": 2}
_SUM_WORDS = {"none": 0, "mean": 1, "mean_std": 3}


class LogMelParams(ctypes.Structure):
    """``edgepin::LogMelParams``, field by field."""

    _fields_ = (
        ("pcm", ctypes.c_void_p),
        ("lengths", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("staging", ctypes.c_void_p),
        ("workspace", ctypes.c_void_p),
        ("window", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("firsts", ctypes.c_void_p),
        ("pcm_stride", ctypes.c_int64),
        ("samples", ctypes.c_int32),
        ("out_frames", ctypes.c_int32),
        ("frame_length", ctypes.c_int32),
        ("hop_length", ctypes.c_int32),
        ("frame_lead", ctypes.c_int32),
        ("min_samples", ctypes.c_int32),
        ("padding", ctypes.c_int32),
        ("drop_last_frame", ctypes.c_int32),
        ("remove_dc", ctypes.c_int32),
        ("emphasize", ctypes.c_int32),
        ("emphasize_utterance", ctypes.c_int32),
        ("keep", ctypes.c_float),
        ("num_mels", ctypes.c_int32),
        ("padded_mels", ctypes.c_int32),
        ("mel_taps", ctypes.c_int32 * _MEL_GROUPS),
        ("log", ctypes.c_int32),
        ("add_floor", ctypes.c_int32),
        ("log_floor", ctypes.c_float),
        ("log_of_floor", ctypes.c_float),
        ("limit_range", ctypes.c_int32),
        ("dynamic_range", ctypes.c_float),
        ("output_offset", ctypes.c_float),
        ("output_scale", ctypes.c_float),
        ("normalize", ctypes.c_int32),
        ("workspace_words", ctypes.c_int32),
    )


@dataclasses.dataclass(frozen=True)
class Tables:
    """Everything of a spec that lies in the device's memory, in one piece, and where in it."""

    data: bytes
    window: int
    weights: int
    firsts: int


def require_supported(spec: LogMelSpec) -> None:
    """Raises:
    ValueError: the kernel has no transform of this length.
    """
    if spec.fft_length not in FFT_LENGTHS:
        known = " and ".join(map(str, FFT_LENGTHS))
        raise ValueError(
            f"the CUDA kernel has transforms of {known} points, not of {spec.fft_length}; LogMel has any"
        )


def tables(spec: LogMelSpec) -> Tables:
    """The window, then the weights and first bins of the mels."""
    window = np.zeros(spec.fft_length, np.float32)
    # The kernel splits the real transform without its half, and removes the mean from frame_length times the samples.
    amplitude = 1.0 if spec.amplitude == "int16" else 1.0 / INT16_SCALE
    window[: spec.frame_length] = scaled_window(
        spec, amplitude / (2.0 * (spec.frame_length if spec.remove_dc else 1))
    )
    firsts, weights, _ = _mel_columns(spec)
    parts = [window.tobytes(), weights.tobytes(), firsts.tobytes()]
    starts = np.cumsum([0, *map(len, parts)])
    return Tables(b"".join(parts), int(starts[0]), int(starts[1]), int(starts[2]))


def _mel_columns(spec: LogMelSpec) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32], list[int]]:
    """First bins ``(padded_mels,)``, weights ``(sum of taps, 32)`` and taps of each group of 32 mels, a lane a mel.

    A lane reads as many bins as the widest mel of its group, or up to 3 more; the ones that it does not need have
    weight 0, and lie within the spectrum.
    """
    table, bins = mel_table(spec), spec.fft_length // 2 + 1
    firsts, columns, taps = np.zeros(padded_mels(spec), np.int32), [], []
    for group in range(0, spec.num_mels, 32):
        mels = range(group, min(group + 32, spec.num_mels))
        # No mel has bin 0, so that the most are 256 of 257 bins or 200 of 201: rounded up they are still within them.
        widest = -(-max(int(table.counts[mel]) for mel in mels) // _TAPS_AT_ONCE) * _TAPS_AT_ONCE
        block = np.zeros((widest, 32), np.float32)
        for mel in mels:
            first, count, offset = int(table.firsts[mel]), int(table.counts[mel]), int(table.offsets[mel])
            firsts[mel] = min(first, bins - widest)
            skipped = first - firsts[mel] if count else 0
            block[skipped : skipped + count, mel - group] = table.weights[offset : offset + count]
        columns.append(block)
        taps.append(widest)
    return firsts, np.concatenate(columns), taps


def padded_mels(spec: LogMelSpec) -> int:
    """The mels, to a multiple of 32."""
    return -(-spec.num_mels // 32) * 32


def over_utterance(spec: LogMelSpec) -> bool:
    """Whether a value depends on frames of the whole utterance."""
    return spec.dynamic_range is not None or spec.normalize != "none"


def workspace_words(spec: LogMelSpec) -> int:
    """32-bit words of the workspace of one utterance."""
    return _HEADER_WORDS + 2 * _SUM_WORDS[spec.normalize] * padded_mels(spec)


def shared_bytes(spec: LogMelSpec) -> int:
    """Dynamic shared memory of a block."""
    if spec.normalize == "none":
        return 0
    return padded_mels(spec) * (8 * WARPS * _SUM_WORDS[spec.normalize] + 8)


def blocks_per_utterance(spec: LogMelSpec, batch: int, frames: int, resident: int) -> int:
    """How many blocks share an utterance, when ``resident`` blocks run at the same time.

    Where a step needs the whole utterance they wait for each other, so that all must be resident; else there may be more.
    """
    useful = -(-frames // WARPS)
    if not over_utterance(spec):
        return max(1, min(useful, _WAVES * max(resident, 1) // batch))
    if spec.normalize != "none" and spec.log == "none":
        return 1  # sums that are not exact have one order, that of one block
    return max(1, min(useful, resident // batch))


def params(spec: LogMelSpec, tables_address: int, where: Tables) -> LogMelParams:
    """The part that is the same in every call."""
    taps = _mel_columns(spec)[2]
    return LogMelParams(
        window=tables_address + where.window,
        weights=tables_address + where.weights,
        firsts=tables_address + where.firsts,
        frame_length=spec.frame_length,
        hop_length=spec.hop_length,
        frame_lead=spec.frame_lead,
        min_samples=spec.min_samples,
        padding=_PADDINGS[spec.padding],
        drop_last_frame=spec.drop_last_frame,
        remove_dc=spec.remove_dc,
        emphasize=spec.preemphasis != 0.0,
        emphasize_utterance=spec.preemphasis_over == "utterance",
        keep=1.0 - spec.preemphasis,
        num_mels=spec.num_mels,
        padded_mels=padded_mels(spec),
        mel_taps=(ctypes.c_int32 * _MEL_GROUPS)(*taps),
        log=_LOGS[spec.log],
        add_floor=spec.floor_mode == "add",
        log_floor=spec.log_floor,
        log_of_floor=log_of_floor(spec),
        limit_range=spec.dynamic_range is not None,
        dynamic_range=spec.dynamic_range or 0.0,
        output_offset=spec.output_offset,
        output_scale=spec.output_scale,
        normalize=_NORMALIZES[spec.normalize],
        workspace_words=workspace_words(spec),
    )
