"""What a foreign encoder takes and gives, as its maker's recipe has it.

A foreign encoder is one that was not trained here and comes as ONNX. The device hands a face encoder uint8 RGB
crops and a voice encoder a log-mel; a spec says how to get from there to the encoder's own input.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from edgepin._capture.crop import FaceSpec
from edgepin._errors import UsageError
from edgepin_kernels import LogMelSpec

Channels = Literal["rgb", "bgr"]
FaceLayout = Literal["nchw", "nhwc"]
PixelType = Literal["float32", "float16", "uint8"]
VoiceLayout = Literal["ntm", "nmt", "n1tm", "n1mt"]

MAX_FRAMES = 10_000


@dataclass(frozen=True)
class ForeignFace:
    """A face encoder's input: from the crop to what it was trained on. The defaults are the preset `arcface-112`.

    Raises:
        UsageError: a field is of the wrong type or out of its range; the message names it.
    """

    size: int = 112
    """Side of the square crop in px."""
    # The template of ArcFace-like encoders has the eye centers at (38.29, 51.70) and (73.53, 51.50) of 112 px, counted
    # from the center of the first pixel; a FaceSpec counts from its edge, half a pixel before.
    left_eye: tuple[float, float] = (0.34638, 0.46604)
    """(x, y) of the eye at the image's left, in fractions of the side."""
    right_eye: tuple[float, float] = (0.66100, 0.46430)
    channels: Channels = "rgb"
    """In which order the encoder takes the colors; `mean` and `std` are in this order."""
    layout: FaceLayout = "nchw"
    dtype: PixelType = "float32"
    """Of the encoder's input. `uint8` takes the pixels as they are."""
    mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    """Subtracted from pixels of 0-255, then divided by `std`. Both are (0, 0, 0), (1, 1, 1) for raw pixels."""
    std: tuple[float, float, float] = (127.5, 127.5, 127.5)
    input: str | None = None
    """The name of the input; not needed where there is one."""
    output: str | None = None
    """The name of the embedding; not needed where there is one output."""

    def __post_init__(self) -> None:
        for name, choices in (("channels", Channels), ("layout", FaceLayout), ("dtype", PixelType)):
            _check_choice("face", name, getattr(self, name), choices)
        for name in ("mean", "std"):
            object.__setattr__(self, name, _three("face", name, getattr(self, name)))
        if min(self.std) <= 0:
            raise wrong("face", "std", "above 0", self.std)
        if self.dtype == "uint8" and (self.mean != (0.0, 0.0, 0.0) or self.std != (1.0, 1.0, 1.0)):
            raise UsageError(
                "face spec: mean and std must be 0 and 1 for dtype uint8",
                hint="an encoder that takes uint8 normalizes inside",
            )
        _check_names("face", self, ("input", "output"))
        try:
            crop = self.crop
        except ValueError as error:
            raise UsageError(f"face spec: {error}") from None
        object.__setattr__(self, "left_eye", crop.left_eye)
        object.__setattr__(self, "right_eye", crop.right_eye)

    @property
    def crop(self) -> FaceSpec:
        """The crop geometry that the bundle will state."""
        return FaceSpec(self.size, self.left_eye, self.right_eye)

    def to_json(self) -> dict[str, Any]:
        return _plain(dataclasses.asdict(self))


@dataclass(frozen=True)
class ForeignVoice:
    """A voice encoder's input: the log-mel that it was trained on, and its layout. The defaults are preset `wespeaker`.

    Raises:
        UsageError: a field is of the wrong type or out of its range; the message names it.
    """

    log_mel: LogMelSpec = dataclasses.field(default_factory=lambda: LogMelSpec.preset("wespeaker"))
    """The front-end, which the bundle will state. A normalization over the utterance is part of it."""
    layout: VoiceLayout = "ntm"
    """N captures, T frames, M mels."""
    frames: int | None = None
    """A fixed length of the time axis. Longer captures are cut into windows of it, whose embeddings, each of unit
    length, are averaged; shorter ones are repeated up to it. None takes a capture whole."""
    hop: int | None = None
    """Frames from one window to the next; by default half of `frames`."""
    mean: tuple[float, ...] = (0.0,)
    """Subtracted from the log-mel, then divided by `std`: one value, or one for each mel (global normalization)."""
    std: tuple[float, ...] = (1.0,)
    least_mean: float | None = None
    """For mel energies without a logarithm: a capture whose mean is lower is scaled up to it. This is how a recipe that
    raises the volume of quiet sound is kept."""
    lengths: str | None = None
    """The name of a second input, (N,): an integer one is given the number of frames, a floating-point one 1.0."""
    input: str | None = None
    """The name of the input; not needed where `lengths` names the only other one."""
    output: str | None = None
    """The name of the embedding; not needed where there is one output."""

    def __post_init__(self) -> None:
        if not isinstance(self.log_mel, LogMelSpec):
            raise wrong("voice", "log_mel", "a preset's name or a table of its fields", self.log_mel)
        if self.log_mel.sample_rate != 16_000:
            raise wrong("voice", "log_mel.sample_rate", "16000", self.log_mel.sample_rate)
        _check_choice("voice", "layout", self.layout, VoiceLayout)
        for name in ("frames", "hop"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or not 1 <= value <= MAX_FRAMES):
                raise wrong("voice", name, f"a whole number in 1-{MAX_FRAMES}", value)
        if self.hop is not None and (self.frames is None or self.hop > self.frames):
            raise wrong("voice", "hop", "at most frames, which must be given", self.hop)
        for name in ("mean", "std"):
            values = _numbers("voice", name, getattr(self, name))
            if len(values) not in (1, self.log_mel.num_mels):
                raise wrong("voice", name, f"one number or {self.log_mel.num_mels} of them", len(values))
            object.__setattr__(self, name, values)
        if min(self.std) <= 0:
            raise wrong("voice", "std", "above 0", self.std)
        if self.least_mean is not None:
            object.__setattr__(self, "least_mean", _positive("least_mean", self.least_mean))
            if self.log_mel.log != "none":
                raise UsageError("voice spec: least_mean must be left out where log_mel has a logarithm")
        _check_names("voice", self, ("lengths", "input", "output"))

    @property
    def window_hop(self) -> int:
        """Frames from one window to the next."""
        if self.frames is None:
            raise ValueError("the time axis is free: there are no windows")
        return self.hop or max(1, self.frames // 2)

    def to_json(self) -> dict[str, Any]:
        return {**_plain(dataclasses.asdict(self)), "log_mel": self.log_mel.to_json()}


def _check_choice(what: str, name: str, value: object, choices: Any) -> None:
    if not isinstance(value, str) or value not in get_args(choices):
        raise wrong(what, name, f"one of {', '.join(get_args(choices))}", value)


def _check_names(what: str, spec: object, names: tuple[str, ...]) -> None:
    for name in names:
        value = getattr(spec, name)
        if value is not None and (not isinstance(value, str) or not value):
            raise wrong(what, name, "a name", value)


def _three(what: str, name: str, value: object) -> tuple[float, ...]:
    numbers = _numbers(what, name, value)
    if len(numbers) not in (1, 3):
        raise wrong(what, name, "one number or three", value)
    return numbers * 3 if len(numbers) == 1 else numbers


def _positive(name: str, value: object) -> float:
    numbers = _numbers("voice", name, value)
    if len(numbers) != 1 or numbers[0] <= 0:
        raise wrong("voice", name, "one number above 0", value)
    return numbers[0]


def _numbers(what: str, name: str, value: object) -> tuple[float, ...]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    for number in values:
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
            raise wrong(what, name, "finite numbers", value)
    return tuple(float(number) for number in values)


def wrong(what: str, field: str, expected: str, value: object) -> UsageError:
    return UsageError(f"{what} spec: {field} must be {expected}, not {value!r:.80}")


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
