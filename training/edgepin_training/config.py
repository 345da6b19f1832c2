"""What a training run is told: one flat, frozen value, read from TOML and kept with the run."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepin._capture.faces import FaceSpec
from edgepin._errors import UsageError
from edgepin_kernels import LogMelSpec

from .mining import MINING
from .norms import NORMS
from .precision import PRECISIONS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


CHOICES = {
    "optimizer": ("adamw", "sgd"),
    "encoders": ("small", "edge", "vggm"),
    "cross_modal_loss": ("info_nce", "contrastive", "triplet"),
    "mining": MINING,
    "positives": ("person", "track"),
    "norm": NORMS,
    "precision": PRECISIONS,
}


@dataclass(frozen=True)
class TrainConfig:
    """Options of a run. The defaults train the full-size encoders on a few hundred people or more."""

    seed: int = 0
    steps: int = 3000
    batch_size: int = 64  # captures of each modality a step
    optimizer: str = "adamw"  # or "sgd", with a momentum of 0.9
    learning_rate: float = 2e-3  # the optimizer's peak, after `warmup` steps, then a cosine down to zero
    warmup: int = 100
    weight_decay: float = 2e-2
    save_every: int = 200  # steps between checkpoints
    precision: str = "fp32"  # of the encoders' arithmetic; or "bf16", or "fp16" on a GPU
    # Rows that are embedded at a time, by a gradient cache, where a batch does not fit in memory; 0 turns it off.
    chunk: int = 0

    # Encoders: channel counts grow with these; (1.0, 1.0) are about 1 M parameters each.
    face_width: float = 1.0
    voice_width: float = 1.0
    dropout: float = 0.1
    encoders: str = "small"  # or "edge", those of the starter; or "vggm", the paper's, voices as spectrograms
    norm: str = "batch"  # or "group"; or "frozen", batch normalization at the statistics of `init`
    init: str = ""  # a run, or a safetensors file, whose encoders these start from
    # Train only a head for the `pin`s, on the embeddings of the frozen encoders of `init`.
    matching_head: bool = False

    # Identity loss: additive-margin softmax (Wang et al. 2018, eq. 6).
    identity_weight: float = 1.0
    margin: float = 0.2
    scale: float = 30.0
    # Within a modality: symmetric InfoNCE between two captures of a person, against the others of the batch.
    contrastive_weight: float = 1.0
    # Cross-modal loss between the pins of a person's modalities, where the corpus has pairs.
    cross_modal_weight: float = 1.0
    cross_modal_loss: str = "info_nce"  # or "contrastive", "triplet"
    cross_modal_margin: float = 0.6  # of the latter two
    mining: str = "curriculum"  # the negatives of the latter two: one of `mining.MINING`
    hardness: tuple[float, ...] = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)  # the curriculum's percentiles, each as long
    orthogonality_weight: float = 0.0
    # Who belongs together: "person", or "track", a person's face and voice of one recording, with no label of who it is.
    positives: str = "person"
    temperature: float = 0.1

    log_mel: str = "kaldi"
    voice_seconds: float = 2.0  # length of a training crop
    # Each speed makes another class of every speaker: a faster voice is another voice.
    speeds: tuple[float, ...] = (1.0, 0.9, 1.1)

    # Share of the paired people that is kept from training, for the export to calibrate on.
    hold_out: float = 0.2

    face_size: int = 64
    augment: float = 1.0  # strength of the augmentations; 0 turns them off

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "save_every", "face_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1")
        for name in ("learning_rate", "face_width", "voice_width", "scale", "temperature", "voice_seconds"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} must be above 0")
        if self.batch_size % 2:
            raise UsageError("batch_size must be even: two captures of each person")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise UsageError(
                    f"{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r:.80}"
                )
        if not self.hardness or not all(0 <= level <= 1 for level in self.hardness):
            raise UsageError("hardness must be a list of numbers in [0, 1]")
        if self.cross_modal_margin <= 0:
            raise UsageError("cross_modal_margin must be above 0")
        if self.positives == "track" and (self.identity_weight or self.contrastive_weight):
            raise UsageError(
                "with positives of tracks nobody is labelled",
                hint="set identity_weight and contrastive_weight to 0",
            )
        if self.matching_head and (self.identity_weight or self.contrastive_weight):
            raise UsageError(
                "a matching head trains no identities", hint="set identity_weight and contrastive_weight to 0"
            )
        if self.norm == "frozen" and not self.init:
            raise UsageError(
                "a frozen batch normalization needs the statistics of a trained encoder",
                hint="give its run with --init",
            )
        if not 0 <= self.hold_out < 1:
            raise UsageError("hold_out must be in [0, 1)")
        if not self.speeds or self.speeds[0] != 1.0:
            raise UsageError("speeds must start with 1.0, the speed of the pairs")
        if not all(0.5 <= speed <= 2 for speed in self.speeds):
            raise UsageError("speeds must lie in 0.5-2")
        for name in ("seed", "chunk"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} must not be negative")
        if not 0 <= self.dropout < 1:
            raise UsageError("dropout must be in [0, 1)")
        if self.face_size % 16 or self.face_size > 1024:
            raise UsageError("face_size must be a multiple of 16 up to 1024")
        try:
            LogMelSpec.preset(self.log_mel)
        except ValueError as error:
            raise UsageError(f"log_mel: {error}") from error

    @property
    def face_spec(self) -> FaceSpec:
        return FaceSpec(size=self.face_size)

    def to_json(self) -> dict[str, Any]:
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrainConfig:
        known = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise UsageError(
                f"unknown training option: {ascii(', '.join(unknown))[1:-1]:.200}",
                hint=f"known are: {', '.join(known)}",
            )
        try:
            checked = {name: _checked(name, value, known[name].default) for name, value in values.items()}
        except OverflowError:
            raise UsageError("a training option is too large a number") from None
        return cls(**checked)

    @classmethod
    def read(cls, path: str | Path) -> TrainConfig:
        try:
            values = tomllib.loads(Path(path).read_text("utf-8"))
        except OSError as error:
            raise UsageError(f"the configuration {path} cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:  # more digits or brackets than the parser takes, too
            raise UsageError(f"the configuration {path} is not TOML: {error}") from error
        return cls.from_json(values)


def _checked(name: str, value: Any, default: Any) -> Any:
    if isinstance(default, tuple):
        if not isinstance(value, list) or not all(type(item) in (int, float) for item in value):
            raise UsageError(f"{name} must be a list of numbers")
        return tuple(float(item) for item in value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(default):
        raise UsageError(f"{name} must be of type {type(default).__name__}, not {type(value).__name__}")
    return value
