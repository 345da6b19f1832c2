"""The figures of `edgepin evaluate verification`, held against direct counts on embeddings of a known structure."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgepin import metrics
from edgepin._decision.calibration import calibrate
from edgepin._decision.evidence import Evidence
from edgepin._decision.fused_trials import FusedTrialSets, fused_trials
from edgepin._decision.fusion import Fusion, ScoreCalibration
from edgepin._decision.policy import Policy
from edgepin._decision.sessions import decide, resolve_session
from edgepin._decision.trials import Chimera, Trials
from edgepin._errors import CaptureError
from edgepin._measurement import Captures, _each, measure_fused, measure_modality
from edgepin._pipeline import Embedding
from edgepin.evaluation import fused_scores

from .simulated_people import World

PEOPLE, CLIPS, IMAGES = 12, 4, 3
# As `Encoders` makes them: faces tell people apart better than voices.
WORLD = World(face=(0.58, 0.0, 0.17), voice=(0.4, 0.0, 0.18))
FUSION = calibrate(WORLD.trials(40, seed=1, repeats=3), cross_modal=False)


class Encoders:
    """In place of a pipeline: a capture's embedding is drawn by its name, near the center of its folder."""

    def __init__(self, refused: tuple[str, ...] = ()) -> None:
        self.refused = refused

    def face(self, path: Path, **_: Any) -> Embedding:
        return self._made(path, noise=0.15)

    def voice(self, path: Path, **_: Any) -> Embedding:
        return self._made(path, noise=0.22)

    def _made(self, path: Path, noise: float) -> Embedding:
        name = f"{path.parent.name}/{path.name}"
        if name in self.refused:
            raise CaptureError("refused", code="too_short")
        center, own = (np.random.default_rng(list(text.encode())) for text in (path.parent.name, name))
        row = center.normal(size=32) / np.sqrt(32) + noise * own.normal(size=32)
        return Embedding(*(np.float32(row / np.linalg.norm(row)) for _ in range(2)))


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people")
    for person in range(PEOPLE):
        for side, count, suffix in (("voices", CLIPS, "wav"), ("faces", IMAGES, "png")):
            own = folder / side / f"{side[0]}{person:02d}"
            own.mkdir(parents=True)
            for number in range(count):
                (own / f"{number}.{suffix}").touch()
    return folder


def trials_of(modality: str) -> Trials:
    """Every two captures."""
    count, suffix = (IMAGES, "png") if modality == "face" else (CLIPS, "wav")
    clips = [f"{modality[0]}{person:02d}/{n}.{suffix}" for person in range(PEOPLE) for n in range(count)]
    pairs = [(a, b) for number, a in enumerate(clips) for b in clips[number + 1 :]]
    return Trials.of([a[:3] == b[:3] for a, b in pairs], *map(list, zip(*pairs, strict=True)))


def sets(roots: Path) -> FusedTrialSets:
    chimeras = {f"v{n:02d}": Chimera(f"v{n:02d}", "F", f"f{n:02d}") for n in range(PEOPLE)}
    return fused_trials(trials_of("voice"), roots / "voices", roots / "faces", chimeras)


def captures(refused: tuple[str, ...] = ()) -> Captures:
    return Captures(Encoders(refused), cropped=True, gate=False)  # type: ignore[arg-type]


def cosines_of(modality: str, refused: tuple[str, ...] = ()) -> npt.NDArray[np.float64]:
    made, trials = Encoders(refused), trials_of(modality)

    def row(name: str) -> npt.NDArray[np.float64]:
        embedding: Embedding = getattr(made, modality)(Path(name))
        return embedding.identity.astype(np.float64)

    bad = [a in refused or b in refused for a, b in zip(trials.enroll, trials.test, strict=True)]
    return np.array(
        [
            -1.0 if refuse else row(a) @ row(b) / np.linalg.norm(row(a)) / np.linalg.norm(row(b))
            for a, b, refuse in zip(trials.enroll, trials.test, bad, strict=True)
        ]
    )


@pytest.mark.parametrize(("modality", "refused"), [("voice", ()), ("voice", ("v03/1.wav",)), ("face", ())])
def test_one_modality_has_the_cllr_of_its_calibrated_llrs_and_the_rest_of_its_cosines(
    roots: Path, modality: str, refused: tuple[str, ...]
) -> None:
    trials, scores = trials_of(modality), cosines_of(modality, refused)
    found = measure_modality(FUSION, captures(refused), modality, roots / f"{modality}s", trials)
    expected = metrics.summarize(scores, trials.labels, failed=len(refused)).to_json()
    llr = np.array([FUSION.modality_llr(modality, score) for score in scores])
    assert found.pop("cllr") == pytest.approx(metrics.cllr(llr, trials.labels), abs=1e-6)
    for key in found:
        assert found[key] == pytest.approx(expected[key], abs=1e-6), key
    assert found["min_cllr"] < metrics.cllr(llr, trials.labels)
    assert 0.0 < found["eer"] < 0.4


def test_a_calibration_that_ties_what_is_far_out_changes_no_figure_of_the_cosines(roots: Path) -> None:
    trials, scores = trials_of("voice"), cosines_of("voice")
    flat = ScoreCalibration(center=-0.9, scale=0.001, slope=1.0, offset=0.0)  # every cosine here counts alike
    fusion = Fusion(dataclasses.replace(FUSION.model, voice=flat), FUSION.evidence)
    assert metrics.eer(flat.llr(scores), trials.labels) == 0.5
    found = measure_modality(fusion, captures(), "voice", roots / "voices", trials)
    expected = metrics.summarize(scores, trials.labels).to_json()
    for key in ("eer", "auc", "min_dcf", "min_cllr"):
        assert found[key] == pytest.approx(expected[key], abs=1e-6)
    assert found["cllr"] > 1.0


def llrs_by_kind(
    fused: FusedTrialSets, combine: Any
) -> tuple[npt.NDArray[np.float64], dict[str, npt.NDArray[np.float64]]]:
    """LLRs of the genuine trials, and by kind those of impostors, one trial at a time."""
    embedded = [
        captures().embed(side, {name: Path(name) for name in names})
        for side, names in (("voice", fused.voices), ("face", fused.faces))
    ]
    of = {
        name: np.array([combine(one) for one in _each(fused_scores(trials, *embedded))])
        for name, trials in vars(fused).items()
        if name in ("trials", "other_voice", "other_face")
    }
    labels = fused.trials.labels
    impostors = {
        "stranger": of["trials"][~labels],
        "other_voice": of["other_voice"],
        "other_face": of["other_face"],
    }
    return of["trials"][labels], impostors


def eer_of(genuine: npt.NDArray[np.float64], impostor: npt.NDArray[np.float64]) -> float:
    return metrics.eer(np.append(genuine, impostor), [1] * len(genuine) + [0] * len(impostor))


def both(scores: Any) -> float:
    return FUSION.modality_llr("face", scores.face) + FUSION.modality_llr("voice", scores.voice)


def evenly(scores: Any) -> float:
    sides = (FUSION.model.face, scores.face), (FUSION.model.voice, scores.voice)
    return sum((score - side.center) / side.scale for side, score in sides)


def test_fused_figures_are_told_by_kind_of_impostor_beside_those_of_the_plain_sum(roots: Path) -> None:
    fused = sets(roots)
    found = measure_fused(FUSION, captures(), fused, roots / "voices", roots / "faces")
    for part, combine in ((found, FUSION.llr), (found["plain_sum"], both)):
        genuine, impostors = llrs_by_kind(fused, combine)
        by_kind = {kind: eer_of(genuine, llr) for kind, llr in impostors.items()}
        assert part["eer_by_kind"] == pytest.approx(by_kind, abs=1e-9)
        assert part["eer"] == part["eer_by_kind"]["stranger"]
        strangers = (
            np.append(genuine, impostors["stranger"]),
            [1] * len(genuine) + [0] * len(impostors["stranger"]),
        )
        assert part["cllr"] == pytest.approx(metrics.cllr(*strangers), abs=1e-9)
        assert part["min_cllr"] == pytest.approx(metrics.min_cllr(*strangers), abs=1e-9)
    genuine, impostors = llrs_by_kind(fused, evenly)
    by_kind = {kind: eer_of(genuine, sums) for kind, sums in impostors.items()}
    assert found["standardized_sum"]["eer_by_kind"] == pytest.approx(by_kind, abs=1e-9)
    assert found["standardized_sum"]["eer"] == by_kind["stranger"]
    # What the soft minimum is for, and what it costs.
    assert found["eer_by_kind"]["other_voice"] < found["plain_sum"]["eer_by_kind"]["other_voice"]
    assert found["eer"] > found["plain_sum"]["eer"]


def test_refused_captures_of_both_sides_are_counted_and_match_nobody(roots: Path) -> None:
    fused = sets(roots)
    whole, refusing = (
        measure_fused(FUSION, captures(refused), fused, roots / "voices", roots / "faces")
        for refused in ((), ("v03/1.wav", "f02/0.png"))
    )
    assert (whole["failed"], refusing["failed"]) == (0, 2)
    assert refusing["default_policy"]["false_non_match"] > whole["default_policy"]["false_non_match"]
    for kind, rate in refusing["default_policy"]["false_match"].items():
        assert rate <= whole["default_policy"]["false_match"][kind]


def test_the_default_policy_is_counted_with_its_floors(roots: Path) -> None:
    fused = sets(roots)
    found = measure_fused(FUSION, captures(), fused, roots / "voices", roots / "faces")["default_policy"]
    single = resolve_session(Policy(), FUSION, 1)
    genuine, impostors = llrs_by_kind(
        fused, lambda scores: decide(scores, FUSION, single).outcome == "accept"
    )
    assert found["false_non_match"] == pytest.approx(1 - genuine.mean())
    assert found["false_match"] == pytest.approx({kind: taken.mean() for kind, taken in impostors.items()})
    assert found["fmr"] == FUSION.evidence.sets["face+voice"].usual.fmr  # type: ignore[union-attr]


def test_evidence_that_carries_no_policy_is_measured_without_one(roots: Path) -> None:
    bare = {name: dataclasses.replace(one, points=()) for name, one in FUSION.evidence.sets.items()}
    evidence: Evidence = dataclasses.replace(FUSION.evidence, sets=bare)
    groups = {f"v{n:02d}": "one" for n in range(PEOPLE)}
    found = measure_fused(
        Fusion(FUSION.model, evidence), captures(), sets(roots), roots / "voices", roots / "faces", groups
    )
    assert found["default_policy"] is None
    assert (found["groups"]["fmr"], found["groups"]["threshold"]) == (None, None)
    assert found["groups"]["rates"][0]["fmr"] is None
    assert 0.0 < found["eer"] < 0.5


def test_trials_within_a_group_are_told_apart_from_those_between_two(roots: Path) -> None:
    groups = {f"v{n:02d}": "F" if n % 3 else "M" for n in range(PEOPLE)}
    trials, scores = trials_of("voice"), cosines_of("voice")
    found = measure_modality(FUSION, captures(), "voice", roots / "voices", trials, groups)["groups"]
    rows = {tuple(row["groups"]): row for row in found["rates"]}
    assert set(rows) == {("F",), ("M",), ("F", "M")}
    assert rows["F", "M"]["genuine"] == 0
    assert rows["F", "M"]["eer"] is rows["F", "M"]["fnmr"] is None
    sides = np.array([[groups[name[:3]] for name in side] for side in (trials.enroll, trials.test)])
    for group in ("F", "M"):
        within = (sides == group).all(axis=0)
        assert rows[group,]["impostor"] == (within & ~trials.labels).sum()
        assert rows[group,]["eer"]["rate"] == pytest.approx(
            metrics.eer(scores[within], trials.labels[within]), abs=1e-6
        )
        llr = FUSION.model.voice.llr(scores[within & ~trials.labels])
        assert rows[group,]["fmr"]["rate"] == pytest.approx((llr >= found["threshold"]).mean())


def test_work_and_times_are_reported(roots: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    timed = Captures(
        Encoders(), cropped=True, gate=False, report=lambda *said: seen.append(said)  # type: ignore[arg-type]
    )  # fmt: skip
    timed.embed_folder("face", roots / "faces" / "f00")
    assert seen == [("embedding faces", done, IMAGES) for done in range(IMAGES + 1)]
    assert timed.median_times() == {}
