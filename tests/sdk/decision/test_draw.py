"""Trials drawn among embedded people: series of attempts on one enrollment, with captures of their own."""

from __future__ import annotations

import numpy as np

from edgepin._decision.calibration import calibrate
from edgepin._decision.draw import CapturedPeople, draw_modality_trials, draw_trials


def people(counts: list[int], *, seed: int = 0, spread: float = 0.7) -> CapturedPeople:
    """`counts[i]` captures of person i; rows that start with the capture's own number in their last element."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(len(counts)), counts)
    centers = rng.standard_normal((len(counts), 64))
    rows = centers[owner] + spread * rng.standard_normal((len(owner), 64))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return CapturedPeople(rows, rows, owner)


def test_no_capture_is_compared_with_itself() -> None:
    faces, voices = people([4] * 8), people([5] * 8, seed=1)
    trials = draw_trials(faces, voices, chimeric=False)
    assert max(trials.face.max(), trials.voice.max()) < 0.999
    assert draw_modality_trials(faces).score.max() < 0.999


def test_a_series_has_as_many_attempts_as_there_are_captures_of_one_person() -> None:
    faces, voices = people([4] * 4 + [3] * 4), people([6] * 8, seed=1)
    trials = draw_trials(faces, voices, chimeric=False, attempts=3)
    keys = np.column_stack([trials.subject_a, trials.subject_b, trials.enrollment])
    for kind, longest in (
        ("genuine", {3, 2}),
        ("stranger", {3}),
        ("other_voice", {3, 2}),
        ("other_face", {3}),
    ):
        mask = trials.kind == kind
        _, counts = np.unique(keys[mask], axis=0, return_counts=True)
        assert set(counts.tolist()) == longest, kind  # three faces leave two beside the enrolled one
    for key in np.unique(keys[trials.genuine], axis=0)[:50]:
        mask = trials.genuine & (keys == key).all(axis=1)
        assert len(np.unique(trials.face[mask])) == mask.sum()  # another capture each time


def test_every_pair_is_tried_in_every_kind_both_ways() -> None:
    trials = draw_trials(people([2] * 12), people([2] * 12, seed=1), chimeric=True)
    for kind in ("stranger", "other_voice", "other_face"):
        mask = trials.kind == kind
        assert len(np.unique(np.column_stack([trials.subject_a, trials.subject_b])[mask], axis=0)) == 132
    assert trials.chimeric


def test_people_without_two_captures_of_each_are_strangers_alone() -> None:
    faces, voices = people([3, 3, 1, 3]), people([3, 3, 3, 1], seed=1)
    trials = draw_trials(faces, voices, chimeric=False)
    assert set(trials.subject_a.tolist()) == {0, 1}
    alone = draw_modality_trials(faces)
    assert set(alone.subject_a.tolist()) == {0, 1, 2, 3}
    assert set(alone.subject_a[alone.genuine].tolist()) == {0, 1, 3}


def test_the_same_captures_give_the_same_trials() -> None:
    one, two = (draw_trials(people([3] * 6), people([3] * 6, seed=1), chimeric=False) for _ in range(2))
    for name in ("face", "voice", "subject_a", "subject_b", "enrollment"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_people_with_one_modality_are_evidence_for_it_alone() -> None:
    faces, voices = people([3] * 60, spread=0.9), people([3] * 12, seed=1, spread=0.9)
    joint = draw_trials(faces, voices, chimeric=False)
    assert set(joint.subject_a.tolist()) == set(range(12))
    further = draw_modality_trials(faces)
    new = ~((further.subject_a < 12) & (further.subject_b < 12))
    few = calibrate(joint, cross_modal=False)
    many = calibrate(joint, cross_modal=False, alone={"face": further.subset(new)})
    assert few.evidence.sets["face"].pairs == 66
    assert many.evidence.sets["face"].pairs == 60 * 59 // 2
    assert many.evidence.sets["face"].strictest.fmr < few.evidence.sets["face"].strictest.fmr  # type: ignore[union-attr]
    assert many.evidence.sets["voice"].pairs == many.evidence.sets["face+voice"].pairs == 66
    assert many.evidence.sessions["face"].tables[0].pairs == 60 * 59 // 2
