from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from edgepin_export._gates import LIMITS, Gate, Limits
from edgepin_export._parity import Captured


def people(count: int = 30, each: int = 6, spread: float = 0.9, seed: int = 0) -> Captured:
    random = np.random.default_rng(seed)
    centers = random.normal(size=(count, 64))
    rows = np.repeat(centers, each, axis=0) + spread * random.normal(size=(count * each, 64))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return Captured(rows, rows.copy(), np.repeat(np.arange(count), each))


def noisy(captured: Captured, size: float, *, pin: bool = True, identity: bool = True) -> Captured:
    random = np.random.default_rng(5)

    def stir(rows):
        return (rows + size * random.normal(size=rows.shape) / np.sqrt(rows.shape[1])).astype(np.float32)

    return Captured(
        stir(captured.identity) if identity else captured.identity,
        stir(captured.pin) if pin else captured.pin,
        captured.owner,
    )


@pytest.fixture(scope="module")
def reference():
    return people()


@pytest.fixture(scope="module")
def gate(reference):
    return Gate(reference)


def test_the_limits_of_every_precision_are_those_that_are_promised():
    assert LIMITS["int8"] == Limits(0.99, 0.003, 0.01)
    assert LIMITS["fp16"] == LIMITS["portable"] == Limits(0.9999, 0.001, 0.003)
    assert LIMITS["fp32"] == Limits(0.99999, 0.0005, 0.001)


def test_the_reference_passes_its_own_gate(gate, reference):
    report = gate.check(reference, LIMITS["fp32"])
    assert report.passed
    assert (report.eer_rise, report.cllr_rise) == (0.0, 0.0)
    assert report.identity.mean_cosine == pytest.approx(1.0)
    assert (report.genuine, report.impostor) == (30 * 15, 180 * 179 // 2 - 30 * 15)


@pytest.mark.parametrize("which", ["identity", "pin"])
def test_either_embedding_that_turns_away_fails(gate, reference, which):
    report = gate.check(
        noisy(reference, 0.5, pin=which == "pin", identity=which == "identity"), LIMITS["int8"]
    )
    assert [failure for failure in report.failures if f"cosine of {which}" in failure]


def test_embeddings_that_stay_pass(gate, reference):
    assert gate.check(noisy(reference, 0.02), LIMITS["int8"]).passed


def test_scores_that_mean_something_else_fail_by_cllr_where_the_error_rate_is_as_it_was(gate, reference):
    # Every score is twice what it was: their order, and with it the EER, stays, but not what they mean.
    moved = dataclasses.replace(reference, identity=reference.identity * np.float32(np.sqrt(2)))
    report = gate.check(moved, Limits(0.9, 1.0, 0.01))
    assert report.eer_rise == pytest.approx(0.0, abs=1e-12)
    assert report.cllr_rise > 0.01
    assert [failure.split()[0] for failure in report.failures] == ["Cllr"]


def test_an_error_rate_that_rises_fails(gate, reference):
    report = gate.check(noisy(reference, 3.0), Limits(0.01, 0.003, 10.0))
    assert report.eer_rise > 0.003
    assert any(failure.startswith("EER") for failure in report.failures)


def test_an_error_rate_that_falls_passes():
    worse, better = people(spread=2.0), people(spread=1.0)
    report = Gate(worse).check(better, Limits(0.01, 0.0, 0.0))
    assert report.eer_rise < 0
    assert report.passed


def test_few_trials_are_allowed_the_worth_of_one(reference):
    few = people(5, 2)
    assert Gate(few).check(few, LIMITS["int8"]).limits.eer_rise == pytest.approx(1 / 5)
    many = people(30, 6)
    assert Gate(many).check(many, LIMITS["int8"]).limits.eer_rise == pytest.approx(0.003)


def test_an_embedding_that_is_not_finite_never_passes(gate, reference):
    broken = dataclasses.replace(reference, identity=np.full_like(reference.identity, np.nan))
    with pytest.raises(ValueError, match="not finite"):
        gate.check(broken, LIMITS["int8"])


@pytest.mark.parametrize("owner", [[0, 0, 0, 0], [0, 1, 2, 3]])
def test_people_that_allow_no_trial_are_refused(owner):
    rows = np.eye(4, dtype=np.float32)
    with pytest.raises(ValueError, match="two captures"):
        Gate(Captured(rows, rows, np.array(owner)))


@pytest.mark.parametrize("values", [(0.0, 0, 0), (1.1, 0, 0), (0.9, -1, 0), (0.9, 0, float("nan"))])
def test_limits_out_of_range_are_refused(values):
    with pytest.raises(ValueError):
        Limits(*values)


def test_a_report_is_plain_json_that_says_whether_it_passed(gate, reference):
    values = json.loads(json.dumps(gate.check(reference, LIMITS["int8"]).to_json()))
    assert values["passed"] is True
    assert values["limits"] == {"mean_cosine": 0.99, "eer_rise": 0.003, "cllr_rise": 0.01}
    assert {
        "identity",
        "pin",
        "eer",
        "eer_rise",
        "cllr",
        "cllr_rise",
        "genuine",
        "impostor",
        "failures",
    } < set(values)
