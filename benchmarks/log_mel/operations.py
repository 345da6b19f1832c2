"""How many floating-point operations a log-mel takes: what the floor of its time is computed from.

The count is that of the definition frame by frame, with the fewest operations known for each step in ordinary use. It is
nominal, not a proof: overlapping frames could share the conversion and the pre-emphasis of their samples, and a transform that
knows of the zeros behind the frame saves some 3 %.
"""

from __future__ import annotations

import math

import numpy as np

from edgepin_kernels import LogMelSpec
from edgepin_kernels._reference import mel_filters

LOGARITHM_STEPS = 25
"""Operations of a float32 logarithm that is good to a unit or two in the last place: a conversion and a subtraction for exponent
and mantissa, eight coefficients by Horner's rule (14), its powers and the sum of the parts (9)."""


def real_fft_operations(points: int) -> int:
    """Additions and multiplications of a split-radix transform of real samples: 2 N log2 N - 4 N + 6.

    Sorensen, Jones, Heideman and Burrus, "Real-valued fast Fourier transform algorithms", IEEE Trans. ASSP 35 (1987); the
    count of Yavne (1968) for real samples.

    Raises:
        ValueError: ``points`` is not a power of two, at least 4.
    """
    bits = points.bit_length() - 1
    if points < 4 or points != 1 << bits:
        raise ValueError(f"the count is that of powers of two from 4 on, not of {points}")
    return 2 * points * bits - 4 * points + 6


def frame_operations(spec: LogMelSpec) -> dict[str, int]:
    """Operations by step, of one frame.

    Raises:
        ValueError: ``spec`` has a step that is not counted here.
    """
    if spec.preemphasis_over == "utterance" or spec.floor_mode == "add" or spec.normalize != "none":
        raise ValueError("utterance-wide steps are not counted")
    length = spec.frame_length
    filters = mel_filters(spec)
    bins = np.flatnonzero(filters.any(axis=1))
    # The first and the last bin are real: one square each, and no sum.
    real_bins = sum(int(bin_) in (0, spec.fft_length // 2) for bin_ in bins)
    weights, mels = int(np.count_nonzero(filters)), int(np.count_nonzero(filters.any(axis=0)))
    return {
        "conversion from int16": length,
        # length - 1 additions, one multiplication, length subtractions
        "mean": 2 * length if spec.remove_dc else 0,
        # a product and a difference
        "pre-emphasis": 2 * length if spec.preemphasis else 0,
        "window": length,
        "transform": real_fft_operations(spec.fft_length),
        # two squares and a sum for each bin that some triangle covers
        "power": 3 * (len(bins) - real_bins) + real_bins,
        # a product for each weight that is not 0, and all but the first are added
        "mel": 2 * weights - mels,
        "floor": spec.num_mels if spec.log != "none" else 0,
        # One each, however it is computed: steps of a logarithm are a choice of the program, not of the definition.
        "logarithm": spec.num_mels if spec.log != "none" else 0,
    }


def utterance_operations(spec: LogMelSpec, samples: int) -> int:
    """Operations of one utterance."""
    return spec.num_frames(samples) * sum(frame_operations(spec).values())


def utterance_operations_with_logarithm(spec: LogMelSpec, samples: int) -> int:
    """The same with every logarithm as the `LOGARITHM_STEPS` that it takes."""
    logarithms = frame_operations(spec)["logarithm"]
    return utterance_operations(spec, samples) + spec.num_frames(samples) * logarithms * (LOGARITHM_STEPS - 1)


def vector_steps(operations: int, lanes: int, chains: int, per_step: int) -> int:
    """Steps of ``chains`` vector instructions, ``per_step`` operations in each lane, that make up ``operations``."""
    return math.ceil(operations / (lanes * chains * per_step))
