"""Calibration: cross-fitting without leakage, and thresholds that claim no more than the pairs carry."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepin._decision import calibration as _calibration
from edgepin._decision.calibration import TrialSet, calibrate, cross_fitted_llrs, fit_fusion, modality_trials
from edgepin._decision.evidence import (
    FMR_LADDER,
    allowed_errors,
    fmr_upper_bound,
    pairs_needed,
    people_needed,
    threshold_for_errors,
)
from edgepin._decision.measure import MeasuredSet
from edgepin._decision.pairs import Pairs
from edgepin._errors import UsageError
from edgepin._json_fields import rounded, rounded_above

from .simulated_people import KINDS, World

WORLD = World()
EASY = World(face=(0.7, 0.1, 0.1), voice=(0.7, 0.1, 0.1))


def test_fresh_impostors_of_every_kind_pass_no_more_often_than_the_policy_allows() -> None:
    fusion = calibrate(EASY.trials(60, seed=1), cross_modal=True)
    fresh = EASY.trials(80, seed=2, attempts=3000)
    llr = fusion.model.joint_llr(fresh.face, fresh.voice, fresh.face_voice, fresh.voice_face)
    points = fusion.evidence.sets["face+voice"].points
    assert [point.fmr for point in points] == [0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002]
    for point in points:
        for kind in KINDS:
            assert np.sum(fresh.kind == kind) == 3000
            assert np.mean(llr[fresh.kind == kind] >= point.threshold) <= point.fmr, (kind, point)
    # The loosest threshold is near its mark, so the bound above is not met by refusing everyone.
    worst = max(np.mean(llr[fresh.kind == kind] >= points[0].threshold) for kind in KINDS)
    assert worst > 0.04


def test_measured_fnmr_holds_for_fresh_people() -> None:
    fusion = calibrate(EASY.trials(40, seed=1), cross_modal=True)
    fresh = EASY.trials(60, seed=2)
    mine = fresh.kind == "genuine"
    llr = fusion.model.joint_llr(fresh.face, fresh.voice, fresh.face_voice, fresh.voice_face)
    for point in fusion.evidence.sets["face+voice"].points:
        assert np.mean(llr[mine] < point.threshold) == pytest.approx(point.fnmr, abs=0.08)


def test_thresholds_and_fnmr_rise_as_the_fmr_falls() -> None:
    for evidence in calibrate(WORLD.trials(30, seed=1), cross_modal=True).evidence.sets.values():
        thresholds = [point.threshold for point in evidence.points]
        fnmrs = [point.fnmr for point in evidence.points]
        assert thresholds == sorted(thresholds)
        assert fnmrs == sorted(fnmrs)
        assert len(set(thresholds)) > 2


def test_policy_threshold_is_that_of_the_worst_kind() -> None:
    loud = World(voice=(0.6, 0.1, 0.3))  # a weak voice: the right face with another's voice passes most often
    evidence = calibrate(loud.trials(30, seed=1), cross_modal=False).evidence.sets["face+voice"]
    table = dict(evidence.kinds["other_voice"].thresholds)
    assert all(point.threshold == table[point.fmr] for point in evidence.points)
    assert dict(evidence.kinds["stranger"].thresholds)[0.1] < table[0.1]


def test_no_fmr_is_kept_that_the_pairs_do_not_carry() -> None:
    evidence = calibrate(EASY.trials(10, seed=1), cross_modal=True).evidence
    assert {kind.pairs for kind in evidence.sets["face+voice"].kinds.values()} == {45}
    assert [point.fmr for point in evidence.sets["face+voice"].points] == [0.3, 0.2, 0.1]


def test_repeated_recordings_of_the_same_pairs_are_no_more_evidence() -> None:
    once = EASY.trials(12, seed=1)
    again = [EASY.trials(12, seed=seed) for seed in (1, 2, 3, 4)]
    columns = ("face", "voice", "face_voice", "voice_face", "subject_a", "subject_b", "kind")
    many = TrialSet(**{name: np.concatenate([getattr(part, name) for part in again]) for name in columns})
    few, lots = (calibrate(trials, cross_modal=True).evidence.sets["face+voice"] for trials in (once, many))
    assert lots.pairs == few.pairs == 66
    assert lots.kinds["stranger"].trials == 4 * few.kinds["stranger"].trials
    assert [point.fmr for point in lots.points] == [point.fmr for point in few.points]


def test_impostors_at_the_limit_of_the_llr_leave_no_threshold() -> None:
    trials = EASY.trials(20, seed=1)
    same = np.full(len(trials), 0.5)
    evidence = calibrate(
        replace(trials, face=same, voice=same, face_voice=same, voice_face=same), cross_modal=True
    ).evidence
    # Everyone has one score: every threshold must lie above it, and rejects every genuine attempt.
    assert all(point.fnmr == 1.0 for point in evidence.sets["face+voice"].points)


def test_every_llr_comes_from_a_fit_that_saw_neither_person(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = WORLD.trials(10, seed=1)
    seen: list[set[int]] = []

    def spy(part: TrialSet, **options: object) -> object:
        seen.append({*part.subject_a.tolist(), *part.subject_b.tolist()})
        return fit_fusion(part, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(_calibration, "fit_fusion", spy)
    cross_fitted_llrs(trials, cross_modal=True, l2=1e-3)
    assert len(seen) == 15
    for people in seen:
        assert len(people) in (6, 8)  # ten people less one fold or two
    kept_out = {frozenset(range(10)) - people for people in seen}
    pairs = zip(trials.subject_a.tolist(), trials.subject_b.tolist(), strict=True)
    assert all(any({a, b} <= out for out in kept_out) for a, b in pairs)


def test_scores_of_two_people_do_not_reach_their_own_llr() -> None:
    trials = WORLD.trials(12, seed=1)
    # A genuine score of person 3 is changed: what 3 and 4 score against each other must not notice.
    theirs = np.isin(trials.subject_a, (3, 4)) & np.isin(trials.subject_b, (3, 4))
    one = np.flatnonzero(theirs)[0]
    changed = trials.face.copy()
    changed[one] += 0.9
    before, after = (
        cross_fitted_llrs(part, cross_modal=True, l2=1e-3) for part in (trials, replace(trials, face=changed))
    )
    between = theirs & (trials.subject_a != trials.subject_b)
    np.testing.assert_array_equal(before.joint[between], after.joint[between])
    assert np.isfinite(before.joint).all()
    assert before.joint[one] != after.joint[one]
    face = modality_trials(trials, "face")
    theirs = np.isin(face.subject_a, (3, 4)) & np.isin(face.subject_b, (3, 4)) & ~face.genuine
    np.testing.assert_array_equal(before.alone["face"][theirs], after.alone["face"][theirs])
    assert np.isfinite(before.alone["face"]).all()


def test_half_forged_trials_do_not_count_as_single_modality_impostors_with_the_right_capture() -> None:
    sets = calibrate(WORLD.trials(12, seed=1), cross_modal=True).evidence.sets
    assert sets["face"].kinds["stranger"].trials == 2 * 12 * 11  # stranger and other_face
    assert sets["voice"].kinds["stranger"].trials == 2 * 12 * 11  # stranger and other_voice


def test_floor_is_where_one_impostor_in_five_passes_on_that_modality_alone() -> None:
    fusion = calibrate(WORLD.trials(50, seed=1), cross_modal=True)
    fresh = WORLD.trials(60, seed=2)
    strangers = fresh.kind == "stranger"
    face = fusion.model.face.llr(fresh.face)[strangers]
    assert np.mean(face >= fusion.evidence.floors["face"]) == pytest.approx(0.2, abs=0.03)


def test_genuine_attempts_below_a_floor_count_as_false_non_matches() -> None:
    # One trial of each of 45 pairs, whoever they are.
    impostors = np.random.default_rng(2).permutation(np.linspace(-9.0, -1.0, 45))
    a, b = np.triu_indices(10, 1)
    llr, subjects = np.full(4, 29.0), np.array([0, 0, 0, 1])  # all above the threshold
    measured = MeasuredSet(
        llr=np.concatenate([llr, impostors]),
        subject_a=np.concatenate([subjects, a]),
        subject_b=np.concatenate([subjects, b]),
        kind=np.array(["genuine"] * 4 + ["stranger"] * 45),
        cleared=np.array([True, True, False, False] + [True] * 45),
    )
    *_, point = measured.evidence(("stranger",)).points
    assert point.fnmr == pytest.approx((1 / 3 + 1) / 2)  # the mean over the two people


def test_same_trials_give_the_same_bytes() -> None:
    one, two = (calibrate(WORLD.trials(12, seed=1), cross_modal=True) for _ in range(2))
    assert json.dumps(one.to_json()) == json.dumps(two.to_json())


def test_chimeric_people_are_stated() -> None:
    trials = replace(WORLD.trials(10, seed=1), chimeric=True)
    assert calibrate(trials, cross_modal=False).to_json()["evidence"]["chimeric"] is True


def test_too_few_people_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 10 people, not 9"):
        calibrate(WORLD.trials(9, seed=1), cross_modal=True)


@pytest.mark.parametrize("kind", ["genuine", *KINDS])
def test_a_missing_kind_is_refused_by_name(kind: str) -> None:
    trials = WORLD.trials(10, seed=1)
    with pytest.raises(UsageError, match=kind):
        calibrate(trials.subset(trials.kind != kind), cross_modal=True)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("voice", math.nan, "not finite"),
        ("subject_a", 0.5, "integers"),
        ("kind", "friend", "friend"),
        ("kind", "genuine", "same person"),
    ],
)
def test_trials_that_do_not_fit_together_are_refused(column: str, value: object, message: str) -> None:
    trials = WORLD.trials(10, seed=1)
    with pytest.raises(UsageError, match=message):
        replace(trials, **{column: np.full(len(trials), value)})


def test_trials_of_different_lengths_are_refused() -> None:
    trials = WORLD.trials(10, seed=1)
    with pytest.raises(UsageError, match="one length"):
        replace(trials, face=trials.face[:-1])


@pytest.mark.parametrize(
    ("pairs", "fmr", "errors"),
    [
        (28, 0.1, None),
        (29, 0.1, 0),
        (45, 0.1, 0),
        (46, 0.1, 1),
        (2994, 1e-3, None),
        (2995, 1e-3, 0),
        (29956, 1e-4, 0),
    ],
)
def test_allowed_errors_follow_the_exact_bound(pairs: int, fmr: float, errors: int | None) -> None:
    assert allowed_errors(fmr, pairs) == errors
    if errors is not None:
        assert fmr_upper_bound(errors, pairs) <= fmr < fmr_upper_bound(errors + 1, pairs)


@pytest.mark.parametrize("fmr", FMR_LADDER)
def test_pairs_needed_is_the_rule_of_three(fmr: float) -> None:
    pairs = pairs_needed(fmr)
    assert fmr_upper_bound(0, pairs) <= fmr * (1 + 1e-9)
    assert fmr_upper_bound(0, pairs - 1) > fmr
    assert pairs == pytest.approx(3 / fmr, rel=0.06, abs=1.5)
    people = people_needed(fmr)
    assert people * (people - 1) // 2 >= pairs > (people - 1) * (people - 2) // 2


def test_threshold_counts_a_pair_by_its_mean_frequency() -> None:
    # Pair 0 passes in two of four trials (0.5), pair 1 always (1.0): above 2.0 only pair 0's half is left.
    llr = np.array([5.0, 5.0, -1.0, -1.0, 2.0])
    weights = Pairs.of(np.array([0, 0, 0, 0, 1]), np.array([1, 1, 1, 1, 2])).weights
    np.testing.assert_allclose(weights, [0.25, 0.25, 0.25, 0.25, 1.0])
    assert threshold_for_errors(llr, weights, 0.5) == 2.00000001
    assert threshold_for_errors(llr, weights, 0.4) == 5.00000001
    assert threshold_for_errors(llr, weights, 1.5) == -0.99999999
    assert threshold_for_errors(llr, weights, 2.0) is None


@given(st.floats(-30.0, 30.0))
def test_rounding_above_is_strictly_above_and_close(value: float) -> None:
    above = rounded_above(value)
    assert above > value
    assert above - value <= max(abs(value), 1e-8) * 2e-8 + 1e-8
    assert rounded(above) == above
