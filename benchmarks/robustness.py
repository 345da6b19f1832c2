"""Joint against single-modality training, as captures get worse: noise, occlusion, and conditions that training did not have.

    python -m benchmarks.robustness --out build/robustness --json build/robustness/table.json --charts build/robustness

Two trainings on the same rendered people and seed, alike but for the cross-modal loss: does a shared space make a face or a voice
hold better alone, and how does the cross-modal score itself hold? The enrolled captures are clean, the tested ones are worse.
The same call goes on where one stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.rendered_people import UNSEEN_FIRST, Floats, embed, load_people, owners
from edgepin._pins.chart import line_chart
from edgepin._safe_files import write_atomic
from edgepin.metrics import auc, bootstrap_by_subject
from edgepin_training._cli import CONFIGS
from edgepin_training.checkpoint import Run, load_run
from edgepin_training.config import TrainConfig
from edgepin_training.corpus import Corpus
from edgepin_training.trainer import train

TRAININGS = {"joint": {}, "single": {"cross_modal_weight": 0.0, "orthogonality_weight": 0.0}}


def voice_noise(level: float) -> Callable[[NDArray[np.int16]], NDArray[np.int16]]:
    """White noise: none at 0, else at an SNR of 30 - level dB."""

    def change(pcm: NDArray[np.int16]) -> NDArray[np.int16]:
        if level == 0:
            return pcm
        power = np.sqrt(np.mean(np.square(pcm.astype(np.float64)))) * 10 ** (-(30 - level) / 20)
        noise = np.random.default_rng(len(pcm)).normal(0.0, power, len(pcm))
        return np.clip(np.rint(pcm + noise), -32768, 32767).astype(np.int16)

    return change


def telephone(level: float) -> Callable[[NDArray[np.int16]], NDArray[np.int16]]:
    """The band of a narrower and narrower line: up to 8 kHz at 0, to 8 - level kHz."""

    def change(pcm: NDArray[np.int16]) -> NDArray[np.int16]:
        if level == 0:
            return pcm
        spectrum = np.fft.rfft(pcm)
        spectrum[int(len(spectrum) * (8 - level) / 8) :] *= 1e-3
        return np.clip(np.rint(np.fft.irfft(spectrum, len(pcm))), -32768, 32767).astype(np.int16)

    return change


def face_noise(level: float) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """Noise of a standard deviation of `level` gray levels on each pixel."""

    def change(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
        noise = np.random.default_rng(int(crop.astype(np.int64).sum())).normal(0.0, level, crop.shape)
        return np.clip(crop + noise, 0, 255).astype(np.uint8)

    return change


def occlusion(level: float) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """A gray square over `level` of the crop's area, somewhere."""

    def change(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
        side = round(crop.shape[0] * np.sqrt(level))
        y, x = np.random.default_rng(int(crop.astype(np.int64).sum())).integers(
            0, crop.shape[0] - side + 1, 2
        )
        covered = crop.copy()
        covered[y : y + side, x : x + side] = 128
        return covered

    return change


def blur(level: float) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """A lens out of focus: a Gaussian of `level` px."""
    return lambda crop: crop if level == 0 else np.asarray(cv2.GaussianBlur(crop, (0, 0), level), np.uint8)


CONDITIONS: dict[str, tuple[str, Callable[[float], Any], tuple[float, ...]]] = {
    "voice in noise, dB of SNR below 30": ("voice", voice_noise, (0, 10, 20, 30)),
    "voice through a line, kHz less": ("voice", telephone, (0, 2, 4, 5)),
    "face in noise, gray levels": ("face", face_noise, (0, 10, 20, 40)),
    "face occluded, share of the crop": ("face", occlusion, (0, 0.1, 0.2, 0.4)),
    "face out of focus, px": ("face", blur, (0, 1, 2, 3)),
}


def measure(run: Run, corpus: Corpus, joint: bool) -> dict[str, Any]:
    """By condition, for each level: the EER of the modality alone, and the cross-modal AUC of the joint training."""
    faces, voices = owners(corpus)
    names = {"face": faces, "voice": voices}
    clean = {modality: embed(run, corpus, modality) for modality in names}
    found: dict[str, Any] = {}
    for condition, (modality, change, levels) in CONDITIONS.items():
        rows = []
        for level in levels:
            worse = embed(run, corpus, modality, change(level))
            row = {"level": level, "eer": _eer(clean[modality][0], worse[0], names[modality])}
            if joint:
                other = "voice" if modality == "face" else "face"
                scores = worse[1] @ clean[other][1].T
                same = names[modality][:, None] == names[other][None, :]
                row["cross_modal_auc"] = auc(scores.ravel(), same.ravel())
            rows.append(row)
        found[condition] = rows
    return found


def _eer(enrolled: Floats, tested: Floats, names: NDArray[np.str_]) -> dict[str, float]:
    first, second = np.where(~np.eye(len(names), dtype=bool))
    # Every genuine pair, and twenty impostor pairs for each of them.
    same = names[first] == names[second]
    others = np.random.default_rng(0).permutation(np.flatnonzero(~same))[: 20 * int(same.sum())]
    kept = np.concatenate([np.flatnonzero(same), others])
    scores = np.einsum("nd,nd->n", enrolled[first[kept]], tested[second[kept]])
    found = bootstrap_by_subject(
        scores, same[kept], names[first[kept]], names[second[kept]], "eer", replicates=200
    )
    return {"value": found.estimate, "low": found.low, "high": found.high}


def charts(report: dict[str, Any]) -> dict[str, str]:
    """One SVG by condition: EER over the level, a line for each training."""
    made = {}
    for number, (condition, (_, _, levels)) in enumerate(CONDITIONS.items()):
        lines = {
            name: [(float(row["level"]), row["eer"]["value"]) for row in rows[condition]]
            for name, rows in report["trainings"].items()
        }
        highest = max(y for line in lines.values() for _, y in line)
        made[f"robustness_{number + 1}.svg"] = line_chart(
            condition,
            "level",
            "equal error rate",
            lines,
            x_range=(0.0, float(levels[-1])),
            y_range=(0.0, max(0.1, highest)),
        )
    return made


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for people and runs")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--charts", type=Path, help="folder for pictures")
    parser.add_argument("--config", type=Path, default=CONFIGS / "reference.toml")
    parser.add_argument("--people", type=int, default=1000)
    parser.add_argument("--unseen", type=int, default=200)
    parser.add_argument("--steps", type=int, default=600)
    told = parser.parse_args(arguments)
    base = dataclasses.replace(TrainConfig.read(told.config), steps=told.steps)
    training = load_people(told.out / "people", people=told.people, spec=base.face_spec)
    unseen = load_people(told.out / "unseen", people=told.unseen, first=UNSEEN_FIRST, spec=base.face_spec)
    report: dict[str, Any] = {
        "people": told.people,
        "unseen": told.unseen,
        "steps": told.steps,
        "trainings": {},
    }
    for name, changes in TRAININGS.items():
        train(training, dataclasses.replace(base, **changes), told.out / name)
        report["trainings"][name] = measure(load_run(told.out / name), unseen, name == "joint")
        write_atomic(told.json, [(json.dumps(report, indent=1) + "\n").encode()])
        print(f"{name}: written to {told.json}", flush=True)
    if told.charts:
        told.charts.mkdir(parents=True, exist_ok=True)
        for file, text in charts(report).items():
            write_atomic(told.charts / file, [text.encode()])


if __name__ == "__main__":
    main()
