"""Rendered people at the reference setting: loading them, embedding them, and how near a run comes to the oracle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgepin._capture.faces import FaceSpec
from edgepin._decision.trials import IMAGE_SUFFIXES, SOUND_SUFFIXES
from edgepin.metrics import auc
from edgepin_kernels import LogMel, LogMelSpec
from edgepin_training.checkpoint import Run
from edgepin_training.corpus import Corpus, list_captures, load_faces, load_voices, match_people
from edgepin_training.rendered import SETTINGS, make_people, oracle_auc, oracle_scores, write_corpus
from edgepin_training.vggm import spectrogram

SEED = 1  # of the population
UNSEEN_FIRST = 100_000
Floats = NDArray[np.float64]
Change = Callable[[NDArray[Any]], NDArray[Any]]


def load_people(
    folder: Path, *, people: int, first: int = 0, captures: int = 2, spec: FaceSpec | None = None
) -> Corpus:
    """People of the reference setting, rendered into `folder` if they are not there, found and trimmed as a device would."""
    setting = SETTINGS["reference"]
    write_corpus(
        folder, people=people, seed=SEED, first=first, faces=captures, voices=captures, setting=setting
    )
    faces = load_faces(list_captures(folder / "faces", IMAGE_SUFFIXES), spec or FaceSpec(), cropped=False)
    voices = load_voices(list_captures(folder / "voices", SOUND_SUFFIXES))
    # The name alone: where the folder lies must not make it another corpus.
    return Corpus(
        faces, voices, match_people(voices.names, set(faces.names), None), sources={"rendered": people}
    )


def embed(run: Run, corpus: Corpus, modality: str, change: Change | None = None) -> tuple[Floats, Floats]:
    """`identity` and `pin` rows of all captures of a modality; `change` alters each capture first."""
    side = corpus.faces if modality == "face" else corpus.voices
    items = side.items if change is None else [change(item) for item in side.items]
    with torch.no_grad():
        if modality == "face":
            outputs = [
                run.face(torch.from_numpy(np.stack(items[i : i + 64]))) for i in range(0, len(items), 64)
            ]
        else:
            vggm = run.config.encoders == "vggm"
            features = spectrogram if vggm else LogMel(LogMelSpec.preset(run.config.log_mel))
            outputs = [run.voice(torch.from_numpy(features(item[None]))) for item in items]
    identity, pin = (torch.cat([output[part] for output in outputs]).numpy() for part in (0, 1))
    return identity.astype(np.float64), pin.astype(np.float64)


def owners(corpus: Corpus) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    """Whose each face and each voice is, by name."""
    names = [np.array(side.names)[side.labels] for side in (corpus.faces, corpus.voices)]
    return names[0], names[1]


def against_oracle(run: Run, corpus: Corpus) -> dict[str, float]:
    """The cross-modal AUC over every face and every voice, single captures, and the share of the oracle's way from chance."""
    scores = embed(run, corpus, "face")[1] @ embed(run, corpus, "voice")[1].T
    faces, voices = owners(corpus)
    same = faces[:, None] == voices[None, :]
    return {
        **share_of_oracle(auc(scores.ravel(), same.ravel())),
        "oracle_on_these_people": _oracle_on(faces, voices, same),
        "people": len(set(faces.tolist())),
    }


def share_of_oracle(reached: float) -> dict[str, float]:
    """An AUC, the oracle's at the reference setting, and the share of its way from chance that was reached."""
    best = oracle_auc(SETTINGS["reference"])
    return {"auc": reached, "oracle": best, "reached": (reached - 0.5) / (best - 0.5)}


def _oracle_on(faces: NDArray[np.str_], voices: NDArray[np.str_], same: NDArray[np.bool_]) -> float:
    def people(names: NDArray[np.str_]) -> Sequence[Any]:
        numbers = [int(name.rpartition("-")[2]) for name in names.tolist()]
        made = {number: make_people(1, SEED, number, SETTINGS["reference"])[0] for number in set(numbers)}
        return [made[number] for number in numbers]

    return auc(oracle_scores(people(faces), people(voices)).ravel(), same.ravel())
