"""What a bundle's encoders and decision reach on lists of trials: the figures of `edgepin evaluate verification`.

The results are JSON-able dicts. Rates are fractions; `eer`, `auc`, `min_dcf` and `min_cllr` of one modality are taken on the
cosines, everything of both modalities on log-likelihood ratios (LLRs, natural logarithm).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ._decision.evidence import OperatingPoint
from ._decision.fused_trials import FusedTrialSets
from ._decision.fusion import FACE, FACE_AND_VOICE, Fusion, Scores, standardized
from ._decision.groups import rates_by_group
from ._decision.policy import Policy
from ._decision.sessions import decide, resolve_session
from ._decision.trials import (
    IMAGE_SUFFIXES,
    SOUND_SUFFIXES,
    Trials,
    list_captures,
    paths_under,
    require_folder,
    subject_of,
)
from ._errors import UsageError
from ._pipeline import Pipeline, Timings
from .evaluation import EmbeddedCaptures, FusedScores, embed_captures, evaluate_modality, fused_scores
from .metrics import cllr, eer, min_cllr, summarize

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.float32]
Report = Callable[[str, int, int], object]
"""Called with what is done, how many are done, and how many there are."""

STRANGER, OTHER_VOICE, OTHER_FACE = "stranger", "other_voice", "other_face"


class Captures:
    """Embeds captures from their files and keeps the time of each stage.

    seconds: the first of each clip; `None` for all that the pipeline takes. cropped: the images are crops. gate: refuse what
    is of poor quality. report: is told how far the work is.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        seconds: float | None = None,
        cropped: bool,
        gate: bool,
        report: Report | None = None,
    ) -> None:
        self._pipeline, self._seconds, self._cropped, self._gate = pipeline, seconds, cropped, gate
        self._report = report or (lambda label, done, total: None)
        self._times: dict[str, list[float]] = {}

    def embed(self, modality: str, paths: Mapping[str, Path]) -> EmbeddedCaptures:
        """Embeds the files of "face" or "voice" by name; raises as `embed_captures`, which counts refusals."""
        return embed_captures(tuple(paths), self.embedder(modality, paths), self.progress(modality))

    def embed_folder(self, modality: str, folder: Path) -> EmbeddedCaptures:
        """Embeds every image, or every sound, under the folder, by its path in it; UsageError where there is none."""
        require_folder(folder)
        names = list_captures(folder, ".", IMAGE_SUFFIXES if modality == FACE else SOUND_SUFFIXES)
        if not names:
            raise UsageError(f"there are no {modality}s in {folder}")
        return self.embed(modality, paths_under(folder, names))

    def embedder(self, modality: str, paths: Mapping[str, Path]) -> Callable[[str], tuple[Rows, Rows]]:
        """A callable from a name to its `(identity, pin)`, float32 (256,) each."""

        def one(name: str) -> tuple[Rows, Rows]:
            timings = Timings()
            if modality == FACE:
                made = self._pipeline.face(
                    paths[name], cropped=self._cropped, gate=self._gate, timings=timings
                )
            else:
                made = self._pipeline.voice(
                    paths[name], seconds=self._seconds, gate=self._gate, timings=timings
                )
            for stage, ms in timings.stages.items():
                key = stage if stage.startswith(("find", "log", "encode")) else f"{stage}_{modality}"
                self._times.setdefault(key, []).append(ms)
            return made.identity, made.pin

        return one

    def progress(self, modality: str) -> Callable[[int, int], None]:
        def tell(done: int, total: int) -> None:
            self._report(f"embedding {modality}s", done, total)

        return tell

    def median_times(self) -> dict[str, float]:
        """Milliseconds by stage."""
        return {stage: round(sorted(times)[len(times) // 2], 3) for stage, times in self._times.items()}


def measure_modality(
    fusion: Fusion,
    captures: Captures,
    modality: str,
    root: Path,
    trials: Trials,
    groups: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The figures of "face" or "voice" on trials whose captures are under `root`; `groups`: by person, for rates by group.

    `eer`, `auc`, `min_dcf` and `min_cllr` are of the cosines: the calibration only rises, but it ties what is far out. `cllr`
    is of the LLRs that the fusion's calibration of this modality makes of them. A trial with a refused capture has cosine -1.

    Raises as `paths_under`, `evaluate_modality` and `rates_by_group` do.
    """
    paths = paths_under(root, trials.names)
    evaluated = evaluate_modality(trials, captures.embedder(modality, paths), captures.progress(modality))
    calibration = fusion.model.face if modality == FACE else fusion.model.voice
    llr = calibration.llr(evaluated.scores)
    result = {**evaluated.result.to_json(), "cllr": cllr(llr, trials.labels)}
    if groups is not None:
        point = fusion.evidence.sets[modality].usual
        enroll, test = ([subject_of(name) for name in side] for side in (trials.enroll, trials.test))
        result["groups"] = _by_group(llr, trials.labels, enroll, test, groups, point)
    return result


def measure_fused(
    fusion: Fusion,
    captures: Captures,
    sets: FusedTrialSets,
    voice_root: Path,
    face_root: Path,
    groups: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The figures of face and voice together, on chimeric people; `groups`: by speaker, for rates by group.

    `eer`, `auc`, `min_dcf`, `cllr`, `min_cllr` and `groups` are of the joint LLR on the trials, whose impostors are
    strangers. `eer_by_kind` holds the same genuine trials against each kind of impostor. `plain_sum` has what the sum of the
    face's and the voice's calibrated LLRs reaches instead, its `eer`, `cllr` and `min_cllr` on the strangers, and
    `standardized_sum` what the sum of the two cosines does, each in the calibration scores' deviations. `default_policy`
    counts whom the default policy accepts, floors included; it is `None` if the evidence carries none.

    Raises as `paths_under`, `embed_captures` and `rates_by_group` do.
    """
    voices = captures.embed("voice", paths_under(voice_root, sets.voices))
    faces = captures.embed("face", paths_under(face_root, sets.faces))
    scores = {
        "trials": fused_scores(sets.trials, voices, faces),
        OTHER_VOICE: fused_scores(sets.other_voice, voices, faces),
        OTHER_FACE: fused_scores(sets.other_face, voices, faces),
    }
    labels, model = sets.trials.labels, fusion.model
    joint = {
        name: model.joint_llr(of.face, of.voice, of.face_voice, of.voice_face) for name, of in scores.items()
    }
    plain = {name: model.face.llr(of.face) + model.voice.llr(of.voice) for name, of in scores.items()}
    refused = len(voices.refused) + len(faces.refused)
    result = summarize(joint["trials"], labels, llr=True, failed=refused).to_json()
    plain_by_kind = _eer_by_kind(plain, labels)
    even = {
        name: standardized(of.face, model.face.center, model.face.scale)
        + standardized(of.voice, model.voice.center, model.voice.scale)
        for name, of in scores.items()
    }
    even_by_kind = _eer_by_kind(even, labels)
    if groups is not None:
        enroll, test = (
            [sets.people[number] for number in side.tolist()]
            for side in (sets.trials.enroll_subject, sets.trials.test_subject)
        )
        point = fusion.evidence.sets[FACE_AND_VOICE].usual
        result["groups"] = _by_group(joint["trials"], labels, enroll, test, groups, point)
    return {
        **result,
        "eer_by_kind": _eer_by_kind(joint, labels),
        "plain_sum": {
            "eer": plain_by_kind[STRANGER],
            "eer_by_kind": plain_by_kind,
            "cllr": cllr(plain["trials"], labels),
            "min_cllr": min_cllr(plain["trials"], labels),
        },
        "standardized_sum": {"eer": even_by_kind[STRANGER], "eer_by_kind": even_by_kind},
        "chimeric": True,
        "note": "chimeric people: this measures the decision, not whether faces and voices go together",
        "default_policy": _default_policy(fusion, scores, labels),
    }


def _by_kind(values: Mapping[str, npt.NDArray[Any]], labels: Bools) -> dict[str, npt.NDArray[Any]]:
    """By kind of impostor what its trials have, of what the listed trials and the two half-forged sets have."""
    return {
        STRANGER: values["trials"][~labels],
        OTHER_VOICE: values[OTHER_VOICE],
        OTHER_FACE: values[OTHER_FACE],
    }


def _eer_by_kind(llrs: Mapping[str, Floats], labels: Bools) -> dict[str, float]:
    """The genuine trials against each kind of impostor."""
    genuine = llrs["trials"][labels]
    return {
        kind: eer(np.concatenate([genuine, impostor]), np.arange(len(genuine) + len(impostor)) < len(genuine))
        for kind, impostor in _by_kind(llrs, labels).items()
    }


def _default_policy(
    fusion: Fusion, scores: Mapping[str, FusedScores], labels: Bools
) -> dict[str, Any] | None:
    """Whom the default policy accepts, each at a single attempt; `None` if the evidence carries no policy."""
    point = fusion.evidence.sets[FACE_AND_VOICE].usual
    if point is None:
        return None
    single = resolve_session(Policy(), fusion, 1)
    accepted = {
        name: np.array([decide(one, fusion, single).outcome == "accept" for one in _each(of)])
        for name, of in scores.items()
    }
    return {
        "fmr": point.fmr,
        "threshold": point.threshold,
        "false_non_match": float(1.0 - accepted["trials"][labels].mean()),
        "false_match": {kind: float(rate.mean()) for kind, rate in _by_kind(accepted, labels).items()},
    }


def _each(scores: FusedScores) -> Iterator[Scores]:
    for row in zip(scores.face, scores.voice, scores.face_voice, scores.voice_face, strict=True):
        yield Scores(*(float(value) for value in row))


def _by_group(
    llr: Floats,
    labels: Bools,
    enroll: Sequence[str],
    test: Sequence[str],
    groups: Mapping[str, str],
    point: OperatingPoint | None,
) -> dict[str, Any]:
    """Rates by group at the point; without one EER alone."""
    fmr, threshold = (None, None) if point is None else (point.fmr, point.threshold)
    rates = rates_by_group(llr, labels, enroll, test, groups, threshold=threshold)
    return {"fmr": fmr, "threshold": threshold, "rates": [one.to_json() for one in rates]}
