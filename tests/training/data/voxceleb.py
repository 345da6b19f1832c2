"""A data set in VoxCeleb's layout, tiny and made up: six people with VoxCeleb1's ids, names, videos and official lists."""

from __future__ import annotations

import io
import itertools
import wave
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = {
    f"id1000{i}": name
    for i, name in enumerate(("Ada_A.", "Bo_B", "Cy_C", "Di_D", "Ed_O'E", "Flo_F"), start=1)
}
SETS = {"Ada_A.": 1, "Bo_B": 1, "Cy_C": 1, "Di_D": 2, "Ed_O'E": 4, "Flo_F": 4}
VIDEOS, UTTERANCES, FRAMES = ("Y8hIVOBuels", "i-jDw1UWl24", "a__b-C0_001"), 2, 3


def sound(seed: int, seconds: float = 0.6, rate: int = 16000) -> bytes:
    """A WAV of a buzzing tone with noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(rate * seconds)) / rate
    tone = 6000 * np.sin(2 * np.pi * rng.uniform(100, 900) * time) * (np.sin(40 * time) > -0.5)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((tone + rng.normal(0, 300, len(time))).astype("<i2").tobytes())
    return buffer.getvalue()


def image(seed: int, side: int = 48) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def write_voxceleb1(root: Path) -> None:
    seed = 0
    for number, (speaker, name) in enumerate(NAMES.items()):
        for video in VIDEOS:
            for utterance in range(1, UTTERANCES + 1):
                seed += 1
                put(root / "wav" / speaker / f"{video}{number}" / f"{utterance:05d}.wav", sound(seed))
            for frame in range(1, FRAMES + 1):
                seed += 1
                put(
                    root / "unzippedFaces" / name / "1.6" / f"{video}{number}" / f"{25 * frame:07d}.jpg",
                    image(seed),
                )


def write_lists(folder: Path) -> None:
    """In the official files' form, trailing spaces included; the first video of each training person is seen-heard."""
    folder.mkdir()
    rows = [f"{speaker}\t{name}\tf\tUSA\tdev" for speaker, name in NAMES.items()]
    meta = "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\n" + "\n".join(rows) + "\n"
    (folder / "vox1_meta.csv").write_text(meta, "utf-8")
    (folder / "identity_splits.txt").write_text(
        "".join(f"{name} {code} \n" for name, code in SETS.items()), "utf-8"
    )
    train = [(number, name) for number, name in enumerate(NAMES.values()) if SETS[name] == 1]
    lines = ["id,voice-speaker-id,face-speaker-id,label,voice-path,face-path"]
    # Of the first person only the voice is named, of the last only the face.
    for (number, name), (other, face) in itertools.pairwise(train):
        voice = f"{name}/{VIDEOS[0]}{number}_0000001.wav"
        lines.append(f"{number},{number},{other},0,{voice},{face}/{VIDEOS[0]}{other}/0000025.jpg")
    (folder / "veriflist_test_random_seenheard.txt").write_text("\n".join(lines) + "\n", "utf-8")
