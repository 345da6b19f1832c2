"""Is this the voice of this face? AUC and EER by stratum: what the impostor pairs have in common."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..metrics import METRICS, bootstrap_by_subject, det_curve
from .draws import Figure, Floats, Resampling, interval
from .lists import STRATA, Lists, Pairs, Person

_SHARED = {"G": ("gender",), "N": ("nationality",)}


def strata_of(
    lists: Lists,
) -> tuple[dict[tuple[str, str], tuple[Pairs, npt.NDArray[np.bool_], str]], dict[str, str]]:
    """By (stratum, set): the pairs, which of them count, and "list" or "derived"; and why the others are not there.

    Where a stratum's list is not in the folder but the random one is, G and N are the random list's genuine pairs and
    those of its impostor pairs whose two people share gender or nationality by the metadata. It has no ages, so A and GNA
    cannot be derived.
    """
    found: dict[tuple[str, str], tuple[Pairs, npt.NDArray[np.bool_], str]] = {}
    absent: dict[str, str] = {}
    for kind in sorted({kind for _, kind in lists.pairs}):
        random = lists.pairs.get(("random", kind))
        for stratum in STRATA:
            listed = lists.pairs.get((stratum, kind))
            place = f"{stratum}/{kind}"
            if listed is not None:
                found[stratum, kind] = listed, np.ones(len(listed.labels), np.bool_), "list"
            elif random is None or stratum not in _SHARED:
                absent[place] = (
                    "its list is not in the folder, and vox1_meta.csv has no ages"
                    if stratum
                    in (
                        "A",
                        "GNA",
                    )
                    else "neither its list nor the random one is in the folder"
                )
            elif not lists.people:
                absent[place] = "neither its list nor vox1_meta.csv is in the folder"
            else:
                keep = random.labels | _alike(random, lists.people, _SHARED[stratum])
                if keep[~random.labels].any():
                    found[stratum, kind] = random, keep, "derived"
                else:
                    absent[place] = "no impostor pair of the random list fits it"
    return found, absent


def verify(
    scores: Floats, pairs: Pairs, keep: npt.NDArray[np.bool_], resampling: Resampling
) -> dict[str, Any]:
    """AUC and EER of the kept pairs, and how many there are. `scores` are all pairs' cosines."""
    labels = pairs.labels[keep]
    voices, faces = np.array(pairs.voice_people)[keep], np.array(pairs.face_people)[keep]
    eers: list[Floats] = []

    def both(fmr: Floats, fnmr: Floats) -> Floats:
        """The AUCs, with the EERs of the same resamples set aside: drawing them is what takes time."""
        eers.append(METRICS["eer"](fmr, fnmr))
        return METRICS["auc"](fmr, fnmr)

    auc = bootstrap_by_subject(
        scores[keep], labels, voices, faces, both, replicates=resampling.replicates, seed=resampling.seed
    )
    *resampled, estimate = eers  # the last call is on the pairs as they are
    figures = {
        "auc": Figure(auc.estimate, auc.low, auc.high).to_json(),
        "eer": Figure(float(estimate[0]), *interval(np.concatenate(resampled))).to_json(),
    }
    return {
        **figures,
        "genuine": int(labels.sum()),
        "impostor": int((~labels).sum()),
        "people": len(np.unique(np.concatenate([voices, faces]))),
    }


def roc(scores: Floats, labels: npt.NDArray[np.bool_], points: int = 200) -> list[tuple[float, float]]:
    """Shares of impostor and genuine pairs accepted, thinned out for a picture."""
    curve = det_curve(scores, labels)
    chosen = np.unique(np.linspace(0, len(curve.fmr) - 1, points).astype(int))
    return [(float(curve.fmr[i]), float(1.0 - curve.fnmr[i])) for i in chosen]


def _alike(pairs: Pairs, people: dict[str, Person], traits: tuple[str, ...]) -> npt.NDArray[np.bool_]:
    """Which pairs are of people who share these traits; False where the metadata does not know one."""
    alike = []
    for voice, face in zip(pairs.voices, pairs.faces, strict=True):
        one, other = people.get(voice.split("/")[0]), people.get(face.split("/")[0])
        alike.append(
            one is not None
            and other is not None
            and all(getattr(one, trait) == getattr(other, trait) for trait in traits)
        )
    return np.array(alike, np.bool_)
