"""What a log-mel spectrogram is: every choice that changes a number, in one frozen value."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping
from typing import Literal, get_args

Padding = Literal["none", "zeros", "reflect"]
Window = Literal["povey", "hamming", "hann", "rectangular"]
Scope = Literal["frame", "utterance"]
MelScale = Literal["htk", "slaney"]
Triangles = Literal["mel", "hz", "hz_symmetric", "bins"]
MelNorm = Literal["none", "slaney"]
Amplitude = Literal["int16", "unit"]
Log = Literal["ln", "log10", "db", "none"]
FloorMode = Literal["clamp", "add"]
Normalize = Literal["none", "mean", "mean_std"]

_CHOICES = {
    "Padding": Padding,
    "Window": Window,
    "Scope": Scope,
    "MelScale": MelScale,
    "Triangles": Triangles,
    "MelNorm": MelNorm,
    "Amplitude": Amplitude,
    "Log": Log,
    "FloorMode": FloorMode,
    "Normalize": Normalize,
}
_LONGEST = 65_536
# The smallest positive normal float32. A floor below it would vanish in the float32 paths.
_SMALLEST_FLOOR = 1.1754943508222875e-38


@dataclasses.dataclass(frozen=True)
class LogMelSpec:
    """The definition of a log-mel spectrogram. The defaults are the preset ``"kaldi"``.

    The fields stand in the order in which they act; `reference_log_mel` is the definition in full. Every field is
    always written out in JSON, and `from_json` takes no file that lacks one.

    Raises:
        ValueError: a field is out of range or of the wrong type; the message starts with the field's name.
    """

    sample_rate: int = 16_000
    """Samples per second."""
    amplitude: Amplitude = "int16"
    """The scale in which energies are measured: full scale is 32768 for ``int16``, 1 for ``unit``."""
    frame_length: int = 400
    """Samples in a frame, at least 2."""
    hop_length: int = 160
    """Samples from the start of one frame to the start of the next."""
    fft_length: int = 512
    """Points of the transform: even, at least ``frame_length`` and at most 65536."""
    padding: Padding = "none"
    """``none``: frame *t* starts at sample *t* ``hop_length``, and only whole frames are made ("snip edges").
    Otherwise it is centered there, and samples beyond the ends are ``zeros`` or the ``reflect``-ed signal."""
    drop_last_frame: bool = False
    """With padding, leave out the last frame: one for every whole hop, and not one more."""
    window: Window = "povey"
    """Over ``frame_length``. ``povey`` is Hann to the power 0.85."""
    window_periodic: bool = False
    """Periodic over ``frame_length`` (the cosine's period is that), rather than symmetric (one sample less)."""
    remove_dc: bool = True
    """Subtract each frame's mean."""
    preemphasis: float = 0.97
    """``y[n] = x[n] - preemphasis x[n-1]``; in [0, 1], 0 for none."""
    preemphasis_over: Scope = "frame"
    """``frame``: in each frame after its mean is removed, with ``x[-1] = x[0]``. ``utterance``: over all samples
    before they are padded and framed, with ``x[-1] = 0``."""
    num_mels: int = 80
    """Triangles, the second axis of the result; at most half of ``fft_length``, and 1024."""
    low_hz: float = 20.0
    """Left foot of the first triangle."""
    high_hz: float = 8_000.0
    """Right foot of the last triangle, at most half the sample rate."""
    mel_scale: MelScale = "htk"
    """Where the feet are equally spaced. ``htk``: ``1127 ln(1 + f / 700)``, which Kaldi uses too. ``slaney``: linear
    below 1 kHz, logarithmic above."""
    triangles: Triangles = "mel"
    """What a triangle is linear in: ``mel``; ``hz``; ``hz_symmetric`` (its right half is as wide as its left);
    ``bins`` (its feet rounded down to bins of the transform)."""
    mel_norm: MelNorm = "none"
    """``none``: triangles have height 1. ``slaney``: area 1 over Hz."""
    log: Log = "ln"
    """``ln``, ``log10``, ``db`` (10 log10), or ``none``: the energies themselves."""
    log_floor: float = 1.1920928955078125e-07
    """What keeps the logarithm of silence finite. FLT_EPSILON as in Kaldi. Not used without a logarithm."""
    floor_mode: FloorMode = "clamp"
    """``clamp``: energies below the floor count as it. ``add``: the floor is added to every energy."""
    dynamic_range: float | None = None
    """Values further than this below the utterance's largest are raised to that; in units of ``log``."""
    output_offset: float = 0.0
    """Added to every value."""
    output_scale: float = 1.0
    """Multiplied to every value after ``output_offset``."""
    normalize: Normalize = "none"
    """Over the frames of the utterance, for each mel: ``mean`` subtracts the mean; ``mean_std`` also divides by the
    standard deviation (one degree of freedom less; 0 for a single frame) plus 1e-5."""

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
        if self.drop_last_frame and self.padding == "none":
            raise ValueError("drop_last_frame must be false without padding")
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
        if self.dynamic_range is not None and not 0.0 < self.dynamic_range <= 1000.0:
            raise ValueError(f"dynamic_range must lie in (0, 1000] or be null, not {self.dynamic_range}")
        if not 1e-6 <= abs(self.output_scale) <= 1e6:
            raise ValueError(f"output_scale must have a size in [1e-6, 1e6], not {self.output_scale}")
        if not abs(self.output_offset) <= 1e6:
            raise ValueError(f"output_offset must lie in [-1e6, 1e6], not {self.output_offset}")

    @classmethod
    def preset(cls, name: str) -> LogMelSpec:
        """The spec under a known name; ``docs/log-mel.md`` has the table of them.

        Raises:
            ValueError: no preset has this name.
        """
        from edgepin_kernels._presets import PRESETS

        try:
            return PRESETS[name]
        except (KeyError, TypeError):
            known = ", ".join(PRESETS)
            raise ValueError(f"no preset is called {name!r:.80}; there are: {known}") from None

    @property
    def frame_lead(self) -> int:
        """How many samples before the first one the first frame starts: about half a frame with padding, else 0.

        The window lies in the middle of the transform, and the transform's middle on the hop, as in ``torch.stft``.
        """
        if self.padding == "none":
            return 0
        return self.fft_length // 2 - (self.fft_length - self.frame_length) // 2

    def num_frames(self, samples: int) -> int:
        """How many frames ``samples`` samples make; 0 when they are too few for one, or to be reflected."""
        if self.padding == "none":
            return 0 if samples < self.frame_length else 1 + (samples - self.frame_length) // self.hop_length
        if samples < self.min_samples:
            return 0
        return samples // self.hop_length + (0 if self.drop_last_frame else 1)

    @property
    def min_samples(self) -> int:
        """The fewest samples that make a frame."""
        if self.padding == "none":
            return self.frame_length
        whole_hop = self.hop_length if self.drop_last_frame else 1
        if self.padding == "zeros":
            return whole_hop
        # A reflection does not repeat the sample at the end, so it reaches one less than there are.
        return max(whole_hop, self.frame_lead + 1, self.frame_length - self.frame_lead + 1)

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
            raise ValueError(f"the log-mel spec has unknown keys: {ascii(', '.join(unknown))[1:-1]:.200}")
        return cls(**data)  # type: ignore[arg-type]  # __post_init__ checks every type


def _require_range(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ValueError(f"{name} must lie in [{least}, {most}], not {value}")


def _coerce(name: str, kind: str, value: object) -> object:
    """``value`` as the plain type that the annotation ``kind`` names, or ValueError."""
    if kind == "float | None":
        return None if value is None else _coerce(name, "float", value)
    if kind == "bool":
        if isinstance(value, bool):
            return value
        raise ValueError(f"{name} must be true or false, not {value!r:.80}")
    if kind == "int":
        # bool is an Integral, and never what was meant here.
        if isinstance(value, numbers.Integral) and not isinstance(value, bool):
            return int(value)
        raise ValueError(f"{name} must be a whole number, not {value!r:.80}")
    if kind == "float":
        if isinstance(value, numbers.Real) and not isinstance(value, bool):
            try:
                number = float(value)
            except OverflowError:  # a whole number too large for a float
                number = math.inf
            if math.isfinite(number):
                return number
        raise ValueError(f"{name} must be a finite number, not {value!r:.80}")
    choices = get_args(_CHOICES[kind])
    if isinstance(value, str) and value in choices:
        return value
    raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r:.80}")
