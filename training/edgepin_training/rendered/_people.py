"""Synthetic people: identity factors, of which some drive the face and the voice alike.

Every factor is an independent standard normal number. A shared factor is not copied into both modalities: each
modality *expresses* it, mixed with a private residual (think of a tall person with a small larynx),

    expressed[m, k] = a[k] * shared[k] + sqrt(1 - a[k]**2) * residual[m, k]

so that expressed factors are standard normal too, and the correlation of factor k between a person's face and voice
is a[k]**2. That makes the best possible cross-modal score a closed form: with perfect sight of the expressed
factors, the likelihood ratio of two correlated Gaussians (`_oracle`). Captures add nuisances and private factors
hide shared ones (a high voice may be a small larynx or a habit), so what can be reached from pixels and sound lies
below. How far the modalities agree, and how much is hidden, is a `Setting`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgepin._errors import UsageError

GENERATOR_VERSION = 2
"""Raised whenever the same seed would give other people or other captures."""

SHARED_FACTORS = ("size", "sex", "age", "build")
"""What face and voice both show: size of the head and of the vocal tract; brow, jaw and pitch; wrinkles, gray hair
and a rough voice; a broad face and a dark, slow voice."""

EXPRESSION = (0.85, 0.95, 0.80, 0.75)
"""How faithfully each shared factor shows in a modality at difficulty 1: the a[k] of the module's formula."""

FACE_FACTORS = (
    "size_residual", "sex_residual", "age_residual", "build_residual",
    "face_width", "face_length", "jaw", "eye_distance", "eye_size", "eye_opening", "eye_tilt", "iris",
    "brow_height", "brow_arch", "brow_thickness", "brow_tilt", "nose_length", "nose_width", "mouth_height",
    "mouth_width", "lips", "lip_color", "skin_tone", "skin_hue", "hair_tone", "hair_hue", "hairline",
    "hair_length", "parting", "beard", "glasses", "mole_x", "mole_y", "cheeks", "sockets", "ears",
)  # fmt: skip
"""Private face factors, in the order of `Person.face`; the first four are the residuals of the shared ones."""

VOICE_FACTORS = (
    "size_residual", "sex_residual", "age_residual", "build_residual",
    "pitch", "pitch_range", "accent_rate", "f1", "f2", "f3", "f4", "f5", "vowel_spread", "bandwidth", "tilt",
    "open_quotient", "breath", "jitter", "rate", "nasal_frequency", "nasal_depth", "sibilant", "frication",
    "pauses",
)  # fmt: skip
"""Private voice factors, in the order of `Person.voice`; the first four are the residuals of the shared ones."""

_LIMIT = 2.7  # traits are drawn and voiced within ±2.7 σ: beyond it a face would not hold together


@dataclass(frozen=True)
class Setting:
    """How hard it is to tell which face and voice belong together.

    `difficulty` (≥ 0) multiplies each factor's ratio of residual to shared variance, (1 - a²) / a²: 0 makes face and
    voice agree perfectly, 1 gives `EXPRESSION`, and with more they agree less. `private` (≥ 0) is the standard
    deviation of the private factors as they are drawn and voiced: less of them hides less of what is shared. Raises
    `UsageError` for negative numbers or what is no number.
    """

    difficulty: float = 1.0
    private: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.difficulty < math.inf and 0 <= self.private < math.inf):
            raise UsageError("difficulty and private must be numbers of at least 0")

    @property
    def expression(self) -> tuple[float, ...]:
        """The a[k] of the module's formula, in the order of `SHARED_FACTORS`."""
        return tuple(a / math.sqrt(a * a + self.difficulty * (1 - a * a)) for a in EXPRESSION)


SETTINGS = {"standard": Setting(), "reference": Setting(difficulty=1.3, private=0.1)}
"""The named settings. `reference` is what methods are compared at: most of what the modalities share can be seen."""


@dataclass(frozen=True, eq=False)
class Person:
    """One synthetic person.

    `index` is the number in the name; `shared` is float64 `(4,)`, `face` `(36,)` and `voice` `(24,)`, in the order of
    `SHARED_FACTORS`, `FACE_FACTORS` and `VOICE_FACTORS`; all independent N(0, 1). The arrays are read-only.
    Persons compare by identity.
    """

    shared: np.ndarray
    face: np.ndarray
    voice: np.ndarray
    index: int = 0
    setting: Setting = SETTINGS["standard"]

    def __post_init__(self) -> None:
        for name, factors in (("shared", SHARED_FACTORS), ("face", FACE_FACTORS), ("voice", VOICE_FACTORS)):
            values = np.array(getattr(self, name), dtype=np.float64)
            if values.shape != (len(factors),):
                raise ValueError(f"{name} must have shape ({len(factors)},), not {values.shape}")
            values.flags.writeable = False
            object.__setattr__(self, name, values)

    @property
    def name(self) -> str:
        """`person-0007` for index 7: the folder's name in a corpus."""
        return f"person-{self.index:04d}"

    def expressed(self, modality: str) -> np.ndarray:
        """The shared factors as the `"face"` or the `"voice"` shows them: float64 `(4,)`."""
        if modality not in ("face", "voice"):
            raise ValueError(f"modality must be 'face' or 'voice', not {modality!r}")
        a = np.array(self.setting.expression)
        residual = (self.face if modality == "face" else self.voice)[: len(a)]
        return np.asarray(a * self.shared + np.sqrt(1.0 - a * a) * residual)

    def traits(self, modality: str) -> dict[str, float]:
        """All that a capture of one modality depends on, by name: the expressed shared and the private factors.

        Cut at ±2.7 here, and not in the factors, so that those stay exactly normal.
        """
        names, values = (FACE_FACTORS, self.face) if modality == "face" else (VOICE_FACTORS, self.voice)
        count = len(SHARED_FACTORS)
        private = self.setting.private * values[count:]
        shown = np.concatenate([self.expressed(modality), private]).clip(-_LIMIT, _LIMIT)
        return dict(zip(SHARED_FACTORS + names[count:], shown.tolist(), strict=True))


def make_person(seed: int, index: int, setting: Setting = SETTINGS["standard"]) -> Person:
    """Person `index` of the population `seed`: the factors depend on these two numbers alone (≥ 0, else ValueError)."""
    if seed < 0 or index < 0:
        raise ValueError(f"seed and index must not be negative: {seed}, {index}")
    counts = (len(SHARED_FACTORS), len(FACE_FACTORS), len(VOICE_FACTORS))
    drawn = np.random.default_rng([0x9E0, seed, index]).standard_normal(sum(counts))
    shared, face, voice = np.split(drawn, np.cumsum(counts)[:-1])
    return Person(shared=shared, face=face, voice=voice, index=index, setting=setting)


def make_people(
    count: int, seed: int, first: int = 0, setting: Setting = SETTINGS["standard"]
) -> list[Person]:
    """People `first` to `first + count - 1` of the population `seed`; disjoint ranges are different people."""
    return [make_person(seed, index, setting) for index in range(first, first + count)]


def capture_seed(seed: int, index: int, modality: str, capture: int) -> int:
    """The seed of one capture in a corpus: 63 bits that depend on these four alone."""
    tag = {"face": 1, "voice": 2}[modality]
    state = np.random.SeedSequence([0xCA9, seed, index, tag, capture]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))
