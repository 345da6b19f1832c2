"""Make the golden arrays in this folder: what the packages return for short sounds.

    python -m tests.kernels.golden.make_golden [PACKAGE ...]

The arrays here were made on x86-64 with librosa 0.11.0, Resemblyzer 0.1.4, torchaudio 2.11.0 (its Python part) beside
torch 2.13.0+cpu, transformers 5.24.0, nemo_toolkit 3.0.0 (its `FilterbankFeatures`), speechbrain 1.1.2 and numpy 2.4.6.

`sounds.npz` holds the int16 samples, one array a sound. ``PACKAGE.npz`` holds for each sound ``SOUND.result`` and
``SOUND.energies``, float32 ``(frames, mels)``; the latter is left out where it would be the former. What they are is said
in `tests/kernels/packages.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from ..packages import PACKAGES
from ..sounds import SOUNDS

# Short, so that the files are small, and no whole number of hops.
LENGTHS = {"voiced": 5_037, "noise": 2_437, "square": 3_237, "impulse": 1_637, "silence": 837}
FOLDER = Path(__file__).resolve().parent


def main(names: list[str]) -> None:
    sounds = {name: make(LENGTHS[name]) for name, make in SOUNDS.items()}
    np.savez_compressed(FOLDER / "sounds.npz", **sounds)
    for name in names or sorted(PACKAGES):
        package, arrays = PACKAGES[name], {}
        for sound, pcm in sounds.items():
            arrays[f"{sound}.result"] = package.result(pcm).astype(np.float32)
            if package.energies is not package.result:
                arrays[f"{sound}.energies"] = package.energies(pcm).astype(np.float32)
        np.savez_compressed(FOLDER / f"{name}.npz", **arrays)
        print(f"{name}: {(FOLDER / f'{name}.npz').stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
