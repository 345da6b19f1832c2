"""From traits to a face's shape and colors, and from a capture's seed to its pose and light.

Lengths are in units of the nominal distance between the eye centers; x points to the image's right, y down, and the
origin lies between the eyes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ._people import Person

IMAGE_SIZE = 192
"""Side of a rendered image in px."""

_HEAD = (1.25, 2.1)  # half axes of the ellipsoid that stands for the head when it turns; its depth is 1
_EYE_DEPTH = 0.90  # of that ellipsoid at the eyes: they stay in place when the head turns
_EYE_PIXELS = 41.0  # nominal eye distance in px: a head takes about 60 % of the image's width

# Anchors along a trait from about -2 to +2, RGB.
_SKIN = np.array(
    [(128, 88, 66), (172, 126, 98), (206, 160, 130), (226, 184, 156), (238, 206, 184)], np.float64
)
_IRIS = np.array([(48, 30, 20), (92, 58, 32), (112, 100, 52), (84, 118, 92), (90, 134, 170)], np.float64)
_HAIR = np.array([(24, 20, 20), (50, 34, 26), (92, 62, 42), (150, 112, 70), (206, 172, 118)], np.float64)
_GRAY = np.array((172.0, 170.0, 168.0))


@dataclass(frozen=True)
class FaceShape:
    """One person's face, without any capture: lengths as said above, colors float RGB 0 to 255, amounts from 0."""

    half_width: float
    chin: float  # y
    jaw: float  # exponent of the lower outline: below 1 square, above 1 pointed
    eye_x: float  # half of the distance between the eye centers
    eye_width: float  # half
    eye_height: float  # half, before the expression
    eye_tilt: float  # radians, outer corners up
    brow_y: float
    brow_arch: float
    brow_thickness: float
    brow_tilt: float
    nose_y: float
    nose_width: float  # half
    mouth_y: float
    mouth_width: float  # half
    lips: float  # height of one lip
    hairline_y: float
    hair_length: float  # y where the hair at the sides ends
    parting: float  # x
    ears: float
    wrinkles: float
    beard: float
    glasses: float  # how dark the frames are, 0 (none) to 1
    fullness: float  # of the cheeks
    sockets: float  # how dark the eyes lie
    mole: tuple[float, float]
    skin: np.ndarray
    lip_color: np.ndarray
    iris: np.ndarray
    hair: np.ndarray
    brow: np.ndarray


def face_shape(person: Person) -> FaceShape:
    """The shape and the colors that a person's face traits give."""
    t = person.traits("face")
    age, sex, size, build = t["age"], t["sex"], t["size"], t["build"]
    chin = 1.70 * (1 + 0.045 * t["face_length"] + 0.055 * size)
    nose_y = 0.60 * (1 + 0.10 * t["nose_length"] + 0.05 * size)
    skin = _along(_SKIN, 0.8 * t["skin_tone"]) * (1 + 0.035 * t["skin_hue"] * np.array((1.0, 0.0, -1.6)))
    natural = _along(_HAIR, 0.9 * t["hair_tone"]) * (1 + 0.10 * t["hair_hue"] * np.array((1.2, -0.2, -1.0)))
    gray = 0.9 / (1 + np.exp(-2.2 * (age - 0.6)))
    hair = natural * (1 - gray) + _GRAY * gray
    lip_color = (
        skin * np.array((0.80, 0.55, 0.56)) * (1 + 0.09 * t["lip_color"] * np.array((1.0, -1.2, -0.8)))
    )
    return FaceShape(
        half_width=1.10 * (1 + 0.04 * t["face_width"] + 0.055 * build),
        chin=chin,
        jaw=float(np.clip(0.80 - 0.09 * t["jaw"] + 0.13 * sex, 0.45, 1.2)),
        eye_x=0.5 * (1 + 0.05 * t["eye_distance"]),
        eye_width=0.245 * (1 + 0.09 * t["eye_size"] + 0.03 * sex),
        eye_height=0.118 * (1 + 0.13 * t["eye_opening"] + 0.05 * sex - 0.03 * age),
        eye_tilt=0.085 * t["eye_tilt"],
        brow_y=-0.395 - 0.038 * t["brow_height"] - 0.025 * sex,
        brow_arch=0.055 + 0.036 * t["brow_arch"] + 0.012 * sex,
        brow_thickness=0.085 * float(np.exp(0.22 * t["brow_thickness"] - 0.22 * sex)),
        brow_tilt=0.075 * t["brow_tilt"],
        nose_y=nose_y,
        nose_width=0.245 * (1 + 0.12 * t["nose_width"] + 0.06 * build - 0.03 * sex),
        mouth_y=nose_y + (chin - nose_y) * (0.385 + 0.034 * t["mouth_height"]),
        mouth_width=0.42 * (1 + 0.12 * t["mouth_width"] + 0.02 * build),
        lips=0.092 * float(np.exp(0.28 * t["lips"] + 0.15 * sex - 0.08 * age)),
        hairline_y=-1.02 + 0.10 * t["hairline"] - 0.05 * max(age, 0.0),
        hair_length=0.35 + 0.75 * t["hair_length"] + 0.55 * sex,
        parting=0.30 * t["parting"],
        ears=0.30 * (1 + 0.16 * t["ears"]),
        wrinkles=float(np.clip(0.42 + 0.42 * age, 0.0, 1.6)),
        beard=float(np.clip(0.50 * t["beard"] - 0.65 * sex - 0.25, 0.0, 1.0)),
        glasses=float(np.clip((t["glasses"] - 1.0) / 0.3, 0.0, 1.0)),
        fullness=0.5 * t["cheeks"] + 0.6 * build,
        sockets=float(np.clip(0.145 + 0.045 * t["sockets"] - 0.018 * sex, 0.03, 0.3)),
        mole=(0.42 * t["mole_x"], 0.72 + 0.34 * t["mole_y"]),
        skin=skin,
        lip_color=lip_color,
        iris=_along(_IRIS, t["iris"]),
        hair=hair,
        brow=hair * 0.55 + skin * 0.10,
    )


@dataclass(frozen=True)
class FaceCapture:
    """What changes from one image of a face to the next: drawn from a capture's seed, whoever is before the camera."""

    center: np.ndarray  # px, where the point between the eyes lies
    scale: float  # px per unit
    roll: float  # radians
    yaw: float
    pitch: float
    smile: float
    mouth_open: float
    eyes_open: float  # factor
    brow_raise: float
    gaze: float
    hair_shift: np.ndarray  # (2,) how the hair lies today: hairline and sides
    light: np.ndarray  # (3,) toward the lamp, x, y, z; z to the camera
    ambient: float
    gain: np.ndarray  # (3,) exposure and color of the light
    gamma: float
    gradient: np.ndarray  # (2,) across the image
    backdrop: np.ndarray  # uint8 (6, 6, 3)
    clothes: np.ndarray  # (3,)
    blur: float  # sigma in px
    noise: float  # standard deviation of a sample
    jpeg_quality: int
    noise_seed: int

    def project(
        self, points: np.ndarray, lift: float | np.ndarray = 0.0, *, flat: bool = False
    ) -> np.ndarray:
        """Unit coordinates `(n, 2)` -> px `(n, 2)` float64, through yaw, pitch, roll and place.

        Points lie on an ellipsoid that stands for the head, `lift` above it; `flat` ones on its silhouette.
        """
        seen = self.at_rest(points, lift, flat=flat)
        cos, sin = self.scale * math.cos(self.roll), self.scale * math.sin(self.roll)
        return np.asarray(seen @ np.array([(cos, sin), (-sin, cos)]) + self.center)

    def at_rest(
        self, points: np.ndarray, lift: float | np.ndarray = 0.0, *, flat: bool = False
    ) -> np.ndarray:
        """Where yaw and pitch move points `(n, 2)`, in units, before roll, scale and place."""
        if flat:
            depth: float | np.ndarray = -_EYE_DEPTH
        else:
            depth = np.sqrt(np.maximum(1 - np.square(points / _HEAD).sum(axis=1), 0.0)) - _EYE_DEPTH + lift
        seen = points * (math.cos(self.yaw), math.cos(self.pitch))
        seen[:, 0] += depth * math.sin(self.yaw)
        seen[:, 1] += depth * math.sin(self.pitch)
        return np.asarray(seen)


def face_capture(seed: int) -> FaceCapture:
    """The pose, expression, light and camera of capture `seed` (≥ 0)."""
    rng = np.random.default_rng([0xFACE, seed])
    normal = rng.standard_normal
    backdrop = rng.uniform(40, 215) + 26 * normal((6, 6, 1)) + 9 * normal((6, 6, 3))
    angle = 0.9 * np.clip(normal(), -1.8, 1.8)  # of the lamp, from above
    light = np.array([np.sin(angle), -0.25 + 0.3 * np.clip(normal(), -2, 2), 1.3])
    return FaceCapture(
        center=np.array([0.5, 0.455]) * IMAGE_SIZE + np.clip(normal(2), -2, 2) * 6.0,
        scale=_EYE_PIXELS * float(np.exp(0.07 * np.clip(normal(), -2, 2))),
        roll=0.06 * float(np.clip(normal(), -2, 2)),
        yaw=0.085 * float(np.clip(normal(), -2, 2)),
        pitch=0.06 * float(np.clip(normal(), -2, 2)),
        smile=0.55 * float(normal()),
        mouth_open=float(max(0.0, 0.035 * normal() - 0.01)),
        eyes_open=float(np.clip(1 + 0.08 * normal(), 0.85, 1.2)),
        brow_raise=0.018 * float(normal()),
        gaze=0.018 * float(np.clip(normal(), -2, 2)),
        hair_shift=0.05 * normal(2),
        light=light / np.linalg.norm(light),
        ambient=float(rng.uniform(0.45, 0.75)),
        gain=np.exp(0.10 * normal() + 0.035 * normal(3)),
        gamma=float(np.exp(0.13 * normal())),
        gradient=0.07 * normal(2),
        backdrop=np.clip(backdrop, 0, 255).astype(np.uint8),
        clothes=rng.uniform(25, 215, 3),
        blur=float(rng.uniform(0.3, 0.95)),
        noise=float(rng.uniform(1.0, 5.0)),
        jpeg_quality=int(rng.integers(70, 96)),
        noise_seed=int(rng.integers(1 << 62)),
    )


def _along(anchors: np.ndarray, trait: float) -> np.ndarray:
    """The color at `trait` (about -2 to 2) along evenly spaced anchors `(n, 3)`."""
    place = np.clip((trait + 2) / 4, 0, 1) * (len(anchors) - 1)
    return np.array([np.interp(place, np.arange(len(anchors)), channel) for channel in anchors.T])
