"""What is said and how: from a person's voice traits and a capture's seed to control tracks, one value per frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ._people import Person

SAMPLE_RATE = 16000
HOP = 128
"""Samples from one control frame to the next: 8 ms."""

# F1, F2, F3 in Hz of American English vowels, means over men: Peterson and Barney, "Control methods used in a study
# of the vowels", JASA 24 (1952), table II.
_VOWELS = np.array([
    (270, 2290, 3010), (390, 1990, 2550), (530, 1840, 2480), (660, 1720, 2410), (730, 1090, 2440),
    (570, 840, 2410), (440, 1020, 2240), (300, 870, 2240), (640, 1190, 2390), (490, 1350, 1690),
], np.float64)  # fmt: skip
_UPPER = np.array([3500.0, 4500.0, 5500.0, 6500.0])  # a 17.5 cm tube's further resonances
_BANDWIDTHS = np.array([70.0, 90.0, 130.0, 190.0, 260.0, 340.0, 420.0])

# Kind of consonant: formants (0: the vowel's), voicing, nasality, frication and its center in Hz, seconds.
_CONSONANTS = (
    ("none", (0, 0, 0), 1.0, 0.0, 0.0, 5000.0, 0.02),
    ("nasal", (280, 1300, 2300), 0.55, 1.0, 0.0, 5000.0, 0.075),
    ("liquid", (360, 1150, 2600), 0.65, 0.1, 0.0, 5000.0, 0.065),
    ("s", (320, 1700, 2600), 0.0, 0.0, 1.0, 5600.0, 0.11),
    ("sh", (320, 1850, 2500), 0.0, 0.0, 1.0, 3300.0, 0.11),
    ("f", (320, 1100, 2300), 0.0, 0.0, 0.30, 6500.0, 0.09),
    ("z", (310, 1700, 2600), 0.4, 0.0, 0.45, 5400.0, 0.08),
    ("stop", (300, 1600, 2600), 0.0, 0.0, 0.0, 5000.0, 0.07),  # silence, then a burst
)


@dataclass(frozen=True)
class VoiceShape:
    """One person's voice, without any capture."""

    pitch: float  # Hz
    pitch_range: float  # natural logarithm
    accent_rate: float  # Hz
    formant_scale: np.ndarray  # (7,) factors on the formants
    vowel_spread: float
    bandwidth: float  # factor
    tilt: float  # dB per octave above 500 Hz, beyond the pulse's own
    open_quotient: float
    breath: float  # of the noise of breathing, against the pulses
    jitter: float  # natural logarithm
    rate: float  # factor on durations
    nasal_frequency: float  # Hz, of the zero in nasal sounds
    nasal_depth: float
    sibilant: float  # factor on the frication's center
    frication: float
    pauses: float


def voice_shape(person: Person) -> VoiceShape:
    """The voice that a person's voice traits give."""
    t = person.traits("voice")
    sex, size, age, build = t["sex"], t["size"], t["age"], t["build"]
    tract = np.exp(-0.10 * size + 0.05 * sex)  # a longer vocal tract lowers every resonance
    own = np.array([0.15 * t["f1"], 0.15 * t["f2"], 0.14 * t["f3"], 0.14 * t["f4"], 0.14 * t["f5"], 0.0, 0.0])
    return VoiceShape(
        pitch=148.0 * float(np.exp(0.26 * sex + 0.27 * t["pitch"])),
        pitch_range=0.11 * float(np.exp(0.35 * t["pitch_range"])),
        accent_rate=1.6 * float(np.exp(0.25 * t["accent_rate"])),
        formant_scale=1.07 * tract * np.exp(own),
        vowel_spread=1 + 0.10 * t["vowel_spread"],
        bandwidth=float(np.exp(0.35 * t["bandwidth"] + 0.06 * age)),
        tilt=-2.5 - 1.6 * t["tilt"] - 1.3 * build,
        open_quotient=float(np.clip(0.60 + 0.075 * t["open_quotient"] + 0.02 * sex, 0.35, 0.85)),
        breath=0.030 * float(np.exp(0.65 * t["breath"] + 0.60 * age)),
        jitter=0.010 * float(np.exp(0.40 * t["jitter"] + 0.70 * age)),
        rate=float(np.exp(0.20 * t["rate"] + 0.12 * build)),
        nasal_frequency=950.0 * float(np.exp(0.25 * t["nasal_frequency"])),
        nasal_depth=float(np.clip(0.22 + 0.11 * t["nasal_depth"], 0.0, 0.6)),
        sibilant=float(np.exp(0.14 * t["sibilant"] - 0.03 * size)),
        frication=float(np.exp(0.5 * t["frication"])),
        pauses=float(np.exp(0.35 * t["pauses"])),
    )


@dataclass(frozen=True)
class Utterance:
    """Control tracks of one capture; every array has one row per frame of `HOP` samples."""

    pitch: np.ndarray  # (frames,) Hz
    voicing: np.ndarray  # (frames,) amplitude of the pulses, 0 to 1
    breath: np.ndarray  # (frames,) amplitude of the breath's noise
    nasality: np.ndarray  # (frames,) 0 to 1
    frication: np.ndarray  # (frames,) amplitude
    frication_center: np.ndarray  # (frames,) Hz
    formants: np.ndarray  # (frames, 7) Hz
    bandwidths: np.ndarray  # (frames, 7) Hz


def utterance(voice: VoiceShape, rng: np.random.Generator) -> Utterance:
    """Random syllables, other ones each time, for 2.6 to 3.9 s."""
    frames = int(rng.uniform(2.6, 3.9) * SAMPLE_RATE / HOP)
    rows = _syllables(voice, rng, frames)  # (frames, 3 + voicing, nasality, frication, center)
    # The tongue is slower than the voice's switch: formants glide over some 60 ms, amplitudes over 25 ms.
    formants = _smooth(rows[:, :3], 7)
    voicing, nasality, frication = (_smooth(rows[:, column], 3) for column in (3, 4, 5))
    middle = _VOWELS.mean(axis=0)
    spread = middle * (formants / middle) ** voice.vowel_spread
    effort = np.exp(0.01 * rng.standard_normal())  # today the mouth opens more or less
    upper = np.broadcast_to(_UPPER, (frames, len(_UPPER)))
    tracks = np.concatenate([spread * (effort, 1.0, 1.0), upper], axis=1) * voice.formant_scale

    seconds = np.arange(frames) * HOP / SAMPLE_RATE
    accent = np.sin(2 * np.pi * (voice.accent_rate * seconds + rng.uniform()) + 1.3 * np.sin(2 * seconds))
    today = np.exp(0.015 * np.clip(rng.standard_normal(), -2, 2))
    melody = voice.pitch_range * (0.7 * accent + 0.8 * _smooth(rng.standard_normal(frames), 25) * 3.0)
    fall = -0.04 * (seconds - seconds.mean())
    pitch = voice.pitch * today * np.exp(melody + fall + voice.jitter * rng.standard_normal(frames))
    return Utterance(
        pitch=np.clip(pitch, 55.0, 480.0),
        voicing=voicing * np.exp(2.0 * voice.jitter * rng.standard_normal(frames)),
        breath=voice.breath * np.maximum(voicing, 0.15 * (frication > 0.02)),
        nasality=np.clip(nasality + voice.nasal_depth, 0.0, 1.0),
        frication=frication * voice.frication,
        frication_center=rows[:, 6] * voice.sibilant,
        formants=np.minimum(tracks, 7800.0),
        bandwidths=np.broadcast_to(_BANDWIDTHS * voice.bandwidth, tracks.shape)
        * (1 + 0.3 * nasality[:, None]),
    )


def _syllables(voice: VoiceShape, rng: np.random.Generator, frames: int) -> np.ndarray:
    """Steps, not yet smoothed: float64 `(frames, 7)`."""
    parts: list[tuple[tuple[float, ...], int]] = [
        ((*_VOWELS[8], 0.0, 0.0, 0.0, 5000.0), int(rng.integers(6, 20)))
    ]
    total, lead_out = parts[0][1], int(rng.integers(6, 16))
    until_pause = int(rng.integers(4, 9))
    while total < frames - lead_out:
        kind, place, voicing, nasality, frication, center, seconds = _CONSONANTS[
            rng.integers(len(_CONSONANTS))
        ]
        vowel = _VOWELS[rng.integers(len(_VOWELS))] * np.exp(0.03 * rng.standard_normal(3))
        loud = float(np.exp(0.22 * rng.standard_normal()))
        spot = np.where(np.array(place) > 0, 0.7 * np.array(place) + 0.3 * vowel, vowel)
        length = max(
            2, round(seconds * voice.rate * np.exp(0.18 * rng.standard_normal()) * SAMPLE_RATE / HOP)
        )
        hold = max(6, round(0.13 * voice.rate * np.exp(0.25 * rng.standard_normal()) * SAMPLE_RATE / HOP))
        piece = [((*spot, voicing * loud, nasality, frication * loud, center), length)]
        if kind == "stop":
            burst = float(rng.choice((1500.0, 2800.0, 4300.0)))
            piece.append(((*spot, 0.0, 0.0, 0.9 * loud, burst), 2))
        piece.append(((*vowel, loud, 0.0, 0.0, 5000.0), hold))
        until_pause -= 1
        if until_pause == 0:
            pause = max(
                6, round(0.14 * voice.pauses * np.exp(0.3 * rng.standard_normal()) * SAMPLE_RATE / HOP)
            )
            piece.append(((*vowel, 0.0, 0.0, 0.0, 5000.0), pause))
            until_pause = int(rng.integers(4, 9))
        parts += piece
        total += sum(count for _, count in piece)
    parts.append((parts[-1][0], frames))  # enough to cut from
    values = np.array([value for value, _ in parts])
    rows = np.repeat(values, [count for _, count in parts], axis=0)[:frames]
    rows[frames - lead_out :, 3:6] = 0.0
    return np.asarray(rows)


def _smooth(track: np.ndarray, frames: int) -> np.ndarray:
    """A Hann-weighted running mean over about `frames` frames, along the first axis."""
    weights = np.hanning(2 * frames + 1)
    weights /= weights.sum()
    half = len(weights) // 2
    columns = track[:, None] if track.ndim == 1 else track
    padded = np.pad(columns, ((half, half), (0, 0)), mode="edge")
    out = np.stack([np.convolve(column, weights, mode="valid") for column in padded.T], axis=1)
    return np.asarray(out[:, 0] if track.ndim == 1 else out)
