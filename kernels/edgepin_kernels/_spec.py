"""What a log-mel spectrogram is: every choice that changes a number, in one frozen value."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping
from typing import Literal, get_args

Window = Literal["povey", "hamming", "hann"]
Amplitude = Literal["int16", "unit"]

_LONGEST = 65_536
# The smallest positive normal float32. A floor below it would vanish in the float32 paths.
_SMALLEST_FLOOR = 1.1754943508222875e-38


@dataclasses.dataclass(frozen=True)
class LogMelSpec:
    """The definition of a log-mel spectrogram. The defaults are the preset ``"kaldi"``.

    Frames are whole ("snip edges"): a frame that would reach past the last sample is not made. Each frame has
    its mean removed (``remove_dc``), is pre-emphasized with its own first sample as the one before it,
    multiplied by the window and padded with zeros on the right to ``fft_length``. Its power spectrum is
    summed through triangles that are linear in ``mel(f) = 1127 ln(1 + f / 700)``; the result is
    ``ln(max(energy, log_floor))``.

    Formula source: Kaldi's ``compute-fbank-feats`` without dither (``feature-window.cc``,
    ``mel-computations.cc``).

    Raises:
        ValueError: a field is out of range or of the wrong type; the message starts with the field's name.
    """

    sample_rate: int = 16_000
    """Samples per second."""
    frame_length: int = 400
    """Samples in a frame, at least 2."""
    hop_length: int = 160
    """Samples from the start of one frame to the start of the next."""
    fft_length: int = 512
    """Points of the transform: even, at least ``frame_length`` and at most 65536."""
    window: Window = "povey"
    """Symmetric over ``frame_length``. ``povey`` is Hann to the power 0.85."""
    remove_dc: bool = True
    """Subtract each frame's mean before pre-emphasis."""
    preemphasis: float = 0.97
    """``y[n] = x[n] - preemphasis x[n-1]`` in each frame, with ``x[-1] = x[0]``; in [0, 1], 0 for none."""
    num_mels: int = 80
    """Triangles, the second axis of the result; at most half of ``fft_length``, and 1024."""
    low_hz: float = 20.0
    """Left foot of the first triangle."""
    high_hz: float = 8_000.0
    """Right foot of the last triangle, at most half the sample rate."""
    amplitude: Amplitude = "int16"
    """The scale in which energies are measured: full scale is 32768 for ``int16``, 1 for ``unit``."""
    log_floor: float = 1.1920928955078125e-07
    """Energies below this count as this, so that silence has a finite logarithm. FLT_EPSILON as in Kaldi."""
    mean_normalize: bool = False
    """Subtract each mel's mean over the frames of the utterance."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            # Plain int and float, whatever number came in, so that equal specs have equal JSON.
            object.__setattr__(self, field.name, _coerce(field.name, str(field.type), value))
        # The upper ends keep a spec from a file from asking for tables that do not fit into memory.
        _require_range("sample_rate", self.sample_rate, 1, 1_000_000)
        _require_range("frame_length", self.frame_length, 2, _LONGEST)
        _require_range("hop_length", self.hop_length, 1, _LONGEST)
        _require_range("fft_length", self.fft_length, self.frame_length, _LONGEST)
        if self.fft_length % 2:
            raise ValueError(f"fft_length must be even, not {self.fft_length}")
        _require_range("num_mels", self.num_mels, 1, min(self.fft_length // 2, 1024))
        if not 0.0 <= self.preemphasis <= 1.0:
            raise ValueError(f"preemphasis must lie in [0, 1], not {self.preemphasis}")
        if not 0.0 <= self.low_hz < self.sample_rate / 2:
            raise ValueError(f"low_hz must lie in [0, {self.sample_rate / 2}), not {self.low_hz}")
        if not self.low_hz < self.high_hz <= self.sample_rate / 2:
            limits = f"above low_hz ({self.low_hz}) and at most {self.sample_rate / 2}"
            raise ValueError(f"high_hz must be {limits}, not {self.high_hz}")
        if not _SMALLEST_FLOOR <= self.log_floor <= 1.0:
            raise ValueError(f"log_floor must lie in [{_SMALLEST_FLOOR:.3g}, 1], not {self.log_floor}")

    @classmethod
    def preset(cls, name: str) -> LogMelSpec:
        """The spec under a known name.

        ``kaldi`` is the 80-bin filterbank of kaldi-native-fbank and ``torchaudio.compliance.kaldi`` with
        dither 0 on int16-scale samples. ``wespeaker`` is the same with a Hamming window and the utterance's
        mean removed.

        Raises:
            ValueError: no preset has this name.
        """
        try:
            return _PRESETS[name]
        except (KeyError, TypeError):
            known = ", ".join(sorted(_PRESETS))
            raise ValueError(f"no preset is called {name!r}; there are: {known}") from None

    def num_frames(self, samples: int) -> int:
        """How many frames ``samples`` samples make; 0 when they are too few for one."""
        if samples < self.frame_length:
            return 0
        return 1 + (samples - self.frame_length) // self.hop_length

    def to_json(self) -> dict[str, object]:
        """Every field under its name, in values that JSON can hold."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> LogMelSpec:
        """The inverse of `to_json`.

        No field has a default here: a file that lacks one was written for another definition.

        Raises:
            ValueError: a key is missing or unknown, or a value is not allowed; the message names it.
        """
        if not isinstance(data, Mapping):
            raise ValueError(f"a log-mel spec must be a JSON object, not {type(data).__name__}")
        names = {field.name for field in dataclasses.fields(cls)}
        missing = sorted(names - data.keys())
        if missing:
            raise ValueError(f"the log-mel spec lacks: {', '.join(missing)}")
        unknown = sorted(str(key) for key in data.keys() - names)
        if unknown:
            raise ValueError(f"the log-mel spec has unknown keys: {', '.join(unknown)}")
        return cls(**data)  # type: ignore[arg-type]  # __post_init__ checks every type


def _require_range(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ValueError(f"{name} must lie in [{least}, {most}], not {value}")


def _coerce(name: str, kind: str, value: object) -> object:
    """``value`` as the plain type that the annotation ``kind`` names, or ValueError."""
    if kind == "bool":
        if isinstance(value, bool):
            return value
        raise ValueError(f"{name} must be true or false, not {value!r}")
    if kind == "int":
        # bool is an Integral, and never what was meant here.
        if isinstance(value, numbers.Integral) and not isinstance(value, bool):
            return int(value)
        raise ValueError(f"{name} must be a whole number, not {value!r}")
    if kind == "float":
        if isinstance(value, numbers.Real) and not isinstance(value, bool):
            try:
                number = float(value)
            except OverflowError:  # a whole number too large for a float
                number = math.inf
            if math.isfinite(number):
                return number
        raise ValueError(f"{name} must be a finite number, not {value!r}")
    choices = get_args({"Window": Window, "Amplitude": Amplitude}[kind])
    if isinstance(value, str) and value in choices:
        return value
    raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")


_PRESETS = {
    "kaldi": LogMelSpec(),
    "wespeaker": LogMelSpec(window="hamming", mean_normalize=True),
}
