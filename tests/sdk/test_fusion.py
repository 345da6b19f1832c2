"""The fusion: from scores to a log-likelihood ratio, and to JSON and back."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepin._decision.calibration import MIN_SLOPE, TrialSet, calibrate
from edgepin._decision.fusion import LLR_LIMIT, Fusion, JointModel, ScoreCalibration, Scores, both_genuine_llr
from edgepin._decision.logistic import fit_logistic
from edgepin._errors import BundleError, UsageError

from .simulated_people import World, balanced_cllr

COSINE = st.floats(-1.0, 1.0)
WORLD = World()


@pytest.fixture(scope="module")
def fusion() -> Fusion:
    return calibrate(WORLD.trials(30, seed=1), cross_modal=True)


def joint_llr(fusion: Fusion, trials: TrialSet) -> np.ndarray:
    return fusion.model.joint_llr(trials.face, trials.voice, trials.face_voice, trials.voice_face)


@pytest.mark.parametrize(("cross_modal", "margin"), [(False, 0.01), (True, 0.02)])
def test_joint_llr_is_nearly_as_calibrated_as_the_best_possible_one(cross_modal: bool, margin: float) -> None:
    fresh = WORLD.trials(60, seed=2)
    fusion = calibrate(WORLD.trials(60, seed=1), cross_modal=cross_modal)
    best = balanced_cllr(WORLD.best_llr(fresh, cross_modal=cross_modal), fresh)
    assert balanced_cllr(joint_llr(fusion, fresh), fresh) <= best + margin


def test_cross_modal_scores_help_when_the_encoders_were_trained_on_pairs() -> None:
    fresh, trials = WORLD.trials(60, seed=2), WORLD.trials(40, seed=1)
    with_cross, without = (calibrate(trials, cross_modal=flag) for flag in (True, False))
    gain = balanced_cllr(joint_llr(without, fresh), fresh) - balanced_cllr(
        joint_llr(with_cross, fresh), fresh
    )
    assert gain > 0.005


def test_cross_modal_scores_change_nothing_when_the_encoders_were_not_trained_on_pairs() -> None:
    fusion = calibrate(WORLD.trials(12, seed=1), cross_modal=False)
    assert fusion.model.joint.weights[2:4] == (0.0, 0.0)
    assert fusion.llr(Scores(0.5, 0.5, -1.0, 1.0)) == fusion.llr(Scores(0.5, 0.5, None, None))


@pytest.mark.parametrize("modality", ["face", "voice"])
def test_single_modality_llr_matches_the_gaussian_formula(modality: str) -> None:
    fusion = calibrate(WORLD.trials(60, seed=1), cross_modal=False)
    own, other, spread = getattr(WORLD, modality)
    for score in (other, (own + other) / 2, own):
        expected = ((score - other) ** 2 - (score - own) ** 2) / (2 * spread**2)
        scores = Scores(score, None) if modality == "face" else Scores(None, score)
        assert fusion.llr(scores) == pytest.approx(expected, abs=0.6)


@settings(deadline=None, max_examples=200)
@given(st.lists(COSINE, min_size=4, max_size=4), st.integers(0, 3), st.floats(0.0, 2.0))
def test_a_higher_score_never_lowers_the_llr(
    fusion: Fusion, scores: list[float], which: int, rise: float
) -> None:
    higher = list(scores)
    higher[which] += rise
    assert fusion.llr(Scores(*higher)) >= fusion.llr(Scores(*scores)) - 1e-9


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=4, max_size=4))
def test_scores_out_of_any_range_stay_within_the_limits(fusion: Fusion, scores: list[float]) -> None:
    assert abs(fusion.llr(Scores(*scores))) <= LLR_LIMIT


def test_a_forged_voice_outweighs_a_perfect_face(fusion: Fusion) -> None:
    assert fusion.llr(Scores(1.0, WORLD.voice[1], 0.1, 0.25)) < 0.0


@pytest.mark.parametrize("weak", [-20.0, -1.0, 3.0])
def test_both_genuine_llr_is_led_by_the_weaker_modality(weak: float) -> None:
    llr = both_genuine_llr(np.array([weak, 25.0]), np.array([25.0, weak]))
    np.testing.assert_allclose(llr, weak, atol=1e-6)


def test_both_genuine_llr_follows_from_the_densities() -> None:
    # log 2 apart: p(f|g) p(v|g) over the mean of the two half-forged densities.
    f_g, f_i, v_g, v_i = 0.7, 0.2, 0.4, 0.9
    expected = math.log(f_g * v_g / (0.5 * f_i * v_g + 0.5 * f_g * v_i))
    llr = both_genuine_llr(np.array([math.log(f_g / f_i)]), np.array([math.log(v_g / v_i)]))
    assert llr[0] + math.log(2.0) == pytest.approx(expected)


def test_perfectly_separated_scores_give_a_finite_fit_that_still_separates() -> None:
    apart = World(face=(0.9, 0.0, 0.01), voice=(0.9, 0.0, 0.01), cross=(0.9, 0.0, 0.01))
    fusion = calibrate(apart.trials(10, seed=1), cross_modal=True)
    fresh = apart.trials(20, seed=2)
    llr = joint_llr(fusion, fresh)
    assert np.isfinite(llr).all()
    assert llr[fresh.kind == "genuine"].min() > 2.0
    assert llr[fresh.kind != "genuine"].max() < -2.0


@pytest.mark.parametrize("spread", [0.1, 0.0])
def test_scores_that_tell_nothing_give_an_llr_near_zero(spread: float) -> None:
    blind = World(face=(0.3, 0.3, spread), voice=(0.3, 0.3, spread), cross=(0.3, 0.3, spread))
    fusion = calibrate(blind.trials(10, seed=1), cross_modal=True)
    assert abs(fusion.llr(Scores(0.3, 0.3, 0.3, 0.3))) < 0.5
    assert fusion.model.face.slope >= MIN_SLOPE
    assert min(fusion.model.joint.weights) >= 0.0


def test_scores_that_run_backwards_get_the_smallest_slope_not_a_negative_one() -> None:
    backwards = World(face=(0.1, 0.5, 0.1), cross=(0.0, 0.5, 0.1))
    fusion, without_cross = (
        calibrate(backwards.trials(12, seed=1), cross_modal=flag) for flag in (True, False)
    )
    assert fusion.model.face.slope == MIN_SLOPE
    # Cross-modal scores that mislead are left out by the fit, not cut off after it.
    assert fusion.model.joint.weights[2:4] == (0.0, 0.0)
    np.testing.assert_allclose(fusion.model.joint.weights, without_cross.model.joint.weights, atol=1e-5)


def test_bounded_fit_satisfies_the_optimality_conditions() -> None:
    random = np.random.default_rng(3)
    features = random.normal(size=(400, 4))
    genuine = features @ np.array([1.0, -0.7, 0.4, 0.0]) + random.logistic(size=400) > 0.0
    weights = np.full(400, 1 / 400)
    found, intercept = fit_logistic(features, genuine, weights, l2=1e-3, lower=np.zeros(4))
    odds = features @ found + intercept
    residual = weights * (1.0 / (1.0 + np.exp(-odds)) - genuine)
    gradient = features.T @ residual + 1e-3 * found
    assert found[1] == 0.0
    assert gradient[1] > 0.0
    np.testing.assert_allclose(gradient[found > 0.0], 0.0, atol=1e-7)
    assert residual.sum() == pytest.approx(0.0, abs=1e-7)


def test_no_score_at_all_is_a_usage_error(fusion: Fusion) -> None:
    with pytest.raises(UsageError, match="neither"):
        fusion.llr(Scores(None, None, 0.5, 0.5))


def test_missing_cross_modal_scores_are_a_usage_error_where_they_weigh(fusion: Fusion) -> None:
    with pytest.raises(UsageError, match="cross-modal"):
        fusion.llr(Scores(0.5, 0.5))


def test_json_round_trip_keeps_every_bit(fusion: Fusion) -> None:
    text = json.dumps(fusion.to_json(), allow_nan=False)
    again = Fusion.from_json(json.loads(text))
    assert again == fusion
    assert json.dumps(again.to_json()) == text


def test_json_states_evidence_per_set_and_kind(fusion: Fusion) -> None:
    sets = fusion.to_json()["evidence"]["sets"]
    assert list(sets) == ["face+voice", "face", "voice"]
    assert list(sets["face+voice"]["kinds"]) == ["stranger", "other_voice", "other_face"]
    kind = sets["face+voice"]["kinds"]["other_voice"]
    assert (kind["pairs"], kind["people"], kind["trials"]) == (435, 30, 870)
    assert [fmr for fmr, _, _ in sets["face+voice"]["points"]] == [0.3, 0.2, 0.1, 0.05, 0.02, 0.01]
    assert all(0.0 <= fnmr <= 1.0 for _, _, fnmr in sets["face+voice"]["points"])


def change(path: str, value: Any) -> Any:
    def apply(data: dict[str, Any]) -> None:
        *parents, last = path.split("/")
        place: Any = data
        for key in parents:
            place = place[int(key)] if isinstance(place, list) else place[key]
        if value is KeyError:
            del place[last]
        elif isinstance(place, list):
            place[int(last)] = value
        else:
            place[last] = value

    return apply


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("surprise", 1),
        ("joint", KeyError),
        ("format", 1),
        ("format", True),
        ("cross_modal", 1),
        ("cross_modal", False),
        ("face", [1, 2]),
        ("face/slope", 0.0),
        ("face/slope", math.nan),
        ("face/slope", "1"),
        ("face/scale", 0.0),
        ("face/offset", 10**400),
        ("joint/weights/0", -1e-9),
        ("joint/weights", [1.0]),
        ("joint/weights", "12345"),
        ("joint/scale/1", -1.0),
        ("joint/offset", math.inf),
        ("evidence/chimeric", None),
        ("evidence/floors/face", math.nan),
        ("evidence/sets/iris", {}),
        ("evidence/sets/face+voice/points/0/1", -30.0),
        ("evidence/sets/face+voice/points/0/2", 1.5),
        ("evidence/sets/face+voice/kinds/stranger", KeyError),
        ("evidence/sets/face+voice/kinds/stranger/pairs", 40),
        ("evidence/sets/face+voice/kinds/stranger/people", 5),
        ("evidence/sets/face+voice/kinds/stranger/thresholds/0/0", 0.4),
        ("evidence/sets/face+voice/kinds/stranger/thresholds/0/1", 40.0),
    ],
)
def test_json_that_was_altered_is_refused(fusion: Fusion, path: str, value: Any) -> None:
    data = json.loads(json.dumps(fusion.to_json()))
    change(path, value)(data)
    with pytest.raises(BundleError):
        Fusion.from_json(data)


def test_calibrations_hold_scores_far_outside_to_the_fitted_span() -> None:
    calibration = ScoreCalibration(center=0.3, scale=0.1, slope=1.0, offset=0.0)
    llr = calibration.llr(np.array([0.4, 50.0, -50.0]))
    np.testing.assert_allclose(llr, [1.0, 8.0, -8.0])
    joint = JointModel((0.0,) * 5, (1.0,) * 5, (0.0, 0.0, 2.0, 0.0, 0.0), 0.5)
    np.testing.assert_allclose(joint.llr(np.array([[0.0, 0.0, 1e9, 0.0, 0.0]])), [16.5])
