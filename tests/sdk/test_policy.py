"""The decision: policies against evidence, floors, and never an acceptance on an error."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepin._decision.calibration import calibrate
from edgepin._decision.evidence import Evidence
from edgepin._decision.fusion import Fusion, Scores
from edgepin._decision.policy import Policy
from edgepin._decision.sessions import NOT_COUNTED, ResolvedSession, SessionVerdict, decide, resolve_session
from edgepin._errors import PolicyError, UsageError

from .simulated_people import KINDS, World

EASY = World(face=(0.7, 0.1, 0.1), voice=(0.7, 0.1, 0.1))
resolve: Callable[[Policy, Fusion], ResolvedSession] = functools.partial(resolve_session, attempts=1)
GENUINE = Scores(face=0.8, voice=0.8, face_voice=0.3, voice_face=0.3)


@pytest.fixture(scope="module")
def fusion() -> Fusion:
    return calibrate(EASY.trials(30, seed=1), cross_modal=True)


def with_points(fusion: Fusion, name: str, count: int) -> Fusion:
    """The same fusion with only the loosest `count` points for one modality set."""
    sets = dict(fusion.evidence.sets)
    sets[name] = replace(sets[name], points=sets[name].points[:count])
    evidence: Evidence = replace(fusion.evidence, sets=sets)
    return replace(fusion, evidence=evidence)


def accepts(verdict: SessionVerdict) -> bool:
    return verdict.outcome == "accept"


def codes(verdict: SessionVerdict) -> list[str]:
    return [reason.code for reason in verdict.reasons]


def test_policy_defaults() -> None:
    assert Policy() == Policy(
        fmr=None,
        allow_face_alone=True,
        allow_voice_alone=False,
        allow_cross_modal_alone=False,
        max_attempts=None,
    )


@pytest.mark.parametrize("fmr", [0.0, 1.0, -0.1, math.nan, math.inf, True, "0.1"])
def test_an_fmr_that_is_no_rate_is_refused(fmr: object) -> None:
    with pytest.raises(UsageError):
        Policy(fmr=fmr)  # type: ignore[arg-type]


def test_default_is_the_strictest_fmr_that_the_evidence_carries_where_right_people_pass_at_it(
    fusion: Fusion,
) -> None:
    resolved = resolve(Policy(), fusion)
    assert decide(GENUINE, fusion, resolved).fmr == 0.01  # 435 pairs carry 0.0069
    assert resolved.floors == fusion.evidence.floors


@pytest.mark.parametrize(
    ("fnmrs", "fmr"),
    [((0.1, 0.2, 0.33, 0.34), 0.1), ((0.1, 0.4, 0.9, 1.0), 0.3), ((0.6, 0.7, 0.8, 0.9), 0.3)],
)
def test_default_goes_no_stricter_than_two_in_three_right_attempts_bear(
    fusion: Fusion, fnmrs: tuple[float, ...], fmr: float
) -> None:
    few = with_points(fusion, "face+voice", 4)  # FMR 0.3, 0.2, 0.1, 0.05
    joint = few.evidence.sets["face+voice"]
    points = tuple(replace(point, fnmr=fnmr) for point, fnmr in zip(joint.points, fnmrs, strict=True))
    evidence = replace(few.evidence, sets={**few.evidence.sets, "face+voice": replace(joint, points=points)})
    changed = replace(few, evidence=evidence)
    assert decide(GENUINE, changed, resolve(Policy(), changed)).fmr == fmr
    # Whoever asks for a stricter one that the evidence carries gets it.
    assert decide(GENUINE, changed, resolve(Policy(fmr=0.05), changed)).fmr == 0.05


@pytest.mark.parametrize(("asked", "given"), [(0.3 / 3, 0.1), (0.3 / 6, 0.05)])
def test_a_part_of_a_step_that_is_a_step_is_that_step(fusion: Fusion, asked: float, given: float) -> None:
    assert asked < given  # by rounding alone
    assert decide(GENUINE, fusion, resolve(Policy(fmr=asked), fusion)).fmr == given


@pytest.mark.parametrize(
    ("asked", "given"), [(0.9, 0.3), (0.25, 0.2), (0.1, 0.1), (0.07, 0.05), (0.01, 0.01)]
)
def test_an_fmr_between_two_steps_gets_the_stricter_one(fusion: Fusion, asked: float, given: float) -> None:
    assert decide(GENUINE, fusion, resolve(Policy(fmr=asked), fusion)).fmr == given


def test_an_fmr_stricter_than_the_evidence_is_refused_with_what_it_takes(fusion: Fusion) -> None:
    with pytest.raises(
        PolicyError, match=r"0\.001 is stricter .* 435 distinct subject pairs carry none below 0\.01"
    ) as e:
        resolve(Policy(fmr=1e-3), fusion)
    assert "edgepin calibrate" in str(e.value.hint)
    assert "2995 distinct pairs (78 people" in str(e.value.hint)


def test_no_evidence_at_all_is_refused(fusion: Fusion) -> None:
    with pytest.raises(PolicyError, match="no false match rate at all"):
        resolve(Policy(), with_points(fusion, "face+voice", 0))


def test_a_modality_whose_evidence_is_thinner_is_refused_alone_but_not_jointly(fusion: Fusion) -> None:
    thin = with_points(fusion, "face", 1)
    resolved = resolve(Policy(fmr=0.01), thin)
    assert accepts(decide(GENUINE, thin, resolved))
    alone = decide(Scores(0.8, None), thin, resolved)
    assert (accepts(alone), alone.threshold, alone.fmr, codes(alone)) == (
        False,
        None,
        None,
        ["insufficient_evidence"],
    )
    assert "0.3" in alone.reasons[0].text


def test_by_default_a_modality_alone_gets_its_own_strictest_fmr(fusion: Fusion) -> None:
    thin = with_points(fusion, "face", 1)
    assert decide(Scores(0.8, None), thin, resolve(Policy(), thin)).fmr == 0.3
    none = with_points(fusion, "face", 0)
    assert codes(decide(Scores(0.8, None), none, resolve(Policy(), none))) == ["no_calibration"]


def test_voice_alone_needs_the_policys_leave(fusion: Fusion) -> None:
    voice = Scores(None, 0.9)
    refused = decide(voice, fusion, resolve(Policy(), fusion))
    assert (accepts(refused), codes(refused)) == (False, ["voice_alone_not_allowed"])
    assert accepts(decide(voice, fusion, resolve(Policy(allow_voice_alone=True), fusion)))


def test_cross_modal_matching_alone_has_no_evidence_to_be_allowed_on(fusion: Fusion) -> None:
    with pytest.raises(PolicyError, match="cross-modal"):
        resolve(Policy(allow_cross_modal_alone=True), fusion)


def test_an_accepted_attempt_says_so_and_nothing_else(fusion: Fusion) -> None:
    verdict = decide(GENUINE, fusion, resolve(Policy(), fusion))
    assert accepts(verdict)
    assert codes(verdict) == ["accepted"]
    assert verdict.threshold is not None
    assert verdict.statistic >= verdict.threshold


def test_a_stranger_is_told_every_reason(fusion: Fusion) -> None:
    verdict = decide(Scores(0.0, 0.0, 0.0, 0.0), fusion, resolve(Policy(), fusion))
    assert codes(verdict) == ["below_threshold", "face_below_floor", "voice_below_floor"]


@pytest.mark.parametrize(
    ("scores", "code"),
    [(Scores(1.0, 0.05, 0.9, 0.9), "voice_below_floor"), (Scores(0.05, 1.0, 0.9, 0.9), "face_below_floor")],
)
def test_a_perfect_modality_cannot_carry_a_wrong_one(fusion: Fusion, scores: Scores, code: str) -> None:
    lax = resolve(Policy(), fusion)
    sets = {name: replace(chosen, point=replace(chosen.point, threshold=-30.0)) if chosen.point else chosen
            for name, chosen in lax.sets.items()}  # fmt: skip
    verdict = decide(scores, fusion, replace(lax, sets=sets))
    assert (accepts(verdict), codes(verdict)) == (False, [code])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("which", ["face", "voice", "face_voice", "voice_face"])
def test_a_score_that_is_not_finite_is_a_rejection(fusion: Fusion, which: str, bad: float) -> None:
    verdict = decide(replace(GENUINE, **{which: bad}), fusion, resolve(Policy(), fusion))
    assert (verdict.outcome, verdict.statistic) == ("reject", NOT_COUNTED)
    assert codes(verdict) == ["below_threshold", "not_finite"]


def test_nothing_captured_is_a_usage_error(fusion: Fusion) -> None:
    with pytest.raises(UsageError, match="neither"):
        decide(Scores(None, None, None, None), fusion, resolve(Policy(), fusion))


def test_a_damaged_policy_that_compares_with_nan_rejects(fusion: Fusion) -> None:
    resolved = resolve(Policy(), fusion)
    floors = replace(resolved, floors={"face": math.nan, "voice": math.nan})
    assert codes(decide(GENUINE, fusion, floors)) == ["face_below_floor", "voice_below_floor"]


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.floats(-1.0, 1.0), min_size=4, max_size=4),
    st.lists(st.floats(0.0, 1.0), min_size=4, max_size=4),
)
def test_higher_scores_never_turn_an_acceptance_into_a_rejection(
    fusion: Fusion, scores: list[float], rises: list[float]
) -> None:
    resolved = resolve(Policy(fmr=0.1), fusion)
    before = decide(Scores(*scores), fusion, resolved)
    after = decide(
        Scores(*(score + rise for score, rise in zip(scores, rises, strict=True))), fusion, resolved
    )
    near = before.statistic == pytest.approx(before.threshold, abs=1e-9)
    assert accepts(after) or not accepts(before) or near


@pytest.mark.parametrize("kind", KINDS)
def test_fresh_impostors_are_accepted_no_more_often_than_promised(fusion: Fusion, kind: str) -> None:
    resolved = resolve(Policy(), fusion)
    fresh = EASY.trials(60, seed=2, attempts=3000)
    mine = fresh.subset(fresh.kind == kind)
    columns = (mine.face, mine.voice, mine.face_voice, mine.voice_face)
    attempts = [Scores(*(float(score) for score in row)) for row in zip(*columns, strict=True)]
    accepted = [accepts(decide(scores, fusion, resolved)) for scores in attempts]
    assert len(accepted) == 3000
    assert np.mean(accepted) <= 0.01
