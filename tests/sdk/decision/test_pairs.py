"""Pairs of people that share someone count for fewer, and the bound then holds."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.dependent_pairs import coverage

from edgepin._decision.evidence import allowed_errors
from edgepin._decision.measure import kind_evidence
from edgepin._decision.pairs import Pairs


def all_pairs(people: int) -> Pairs:
    return Pairs.of(*np.triu_indices(people, 1))


def test_trials_of_a_pair_are_one_whichever_of_the_two_is_enrolled() -> None:
    pairs = Pairs.of(np.array([4, 9, 4, 7]), np.array([9, 4, 7, 4]))
    assert (len(pairs), pairs.people) == (2, 3)
    assert pairs.index.tolist() == [1, 1, 0, 0]
    np.testing.assert_allclose(pairs.weights, 0.5)
    np.testing.assert_allclose(pairs.means(np.array([1.0, 0.0, 0.0, 0.0])), [0.0, 0.5])


def test_the_variance_is_the_sum_over_all_pairs_of_pairs_that_share_a_person() -> None:
    pairs, rng = all_pairs(9), np.random.default_rng(3)
    level = rng.standard_normal(9)
    passed = level[pairs.first] + level[pairs.second] + rng.standard_normal(len(pairs)) > 0.5
    deviation = passed - passed.mean()
    people = [set(pair) for pair in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)]
    shared = np.array([[bool(one & other) for other in people] for one in people])
    variance = deviation @ shared @ deviation / len(pairs) ** 2
    rate = passed.mean()
    expected = min(len(pairs), rate * (1 - rate) / variance)
    assert 1.0 < expected < 30.0
    assert pairs.effective(passed) == pytest.approx(expected)


def test_independent_pairs_count_nearly_in_full_and_never_for_more() -> None:
    pairs, rng = all_pairs(80), np.random.default_rng(1)
    counted = [pairs.effective(rng.random(len(pairs)) < 0.05) for _ in range(20)]
    assert 0.75 * len(pairs) < np.mean(counted)
    assert max(counted) <= len(pairs)


def test_one_person_whom_everybody_resembles_makes_pairs_count_for_few() -> None:
    pairs = all_pairs(40)
    passed = (pairs.first == 0) | (pairs.second == 0)  # 39 false matches, all of one person's making
    assert pairs.effective(passed) < 0.1 * len(pairs)


@pytest.mark.parametrize("value", [False, True])
def test_where_nothing_or_everything_passes_nothing_is_known_of_dependence(value: bool) -> None:
    pairs = all_pairs(12)
    assert pairs.effective(np.full(len(pairs), value)) == 66


def test_a_threshold_states_the_pairs_it_counts_on() -> None:
    pairs, rng = all_pairs(60), np.random.default_rng(5)
    level = (rng.random(60) < 0.1).astype(float)
    evidence = kind_evidence(level[pairs.first] + level[pairs.second] + rng.standard_normal(1770), pairs)
    assert len(evidence.effective_pairs) == len(evidence.thresholds)
    assert evidence.effective_pairs[0] < 0.5 * evidence.pairs
    for (fmr, _), effective in zip(evidence.thresholds, evidence.effective_pairs, strict=True):
        assert allowed_errors(fmr, effective) is not None


@pytest.mark.parametrize("world", ["varied", "lambs"])
def test_the_bound_holds_where_some_people_are_easy_to_match(world: str) -> None:
    row = coverage(world, 60, 0.05, worlds=150, seed=1)
    assert row["plain"] < 0.85  # pairs taken as independent promise too much
    assert row["ours"] >= 0.90
    assert row["carried"] > 0.95


def test_the_bound_costs_little_where_people_are_alike() -> None:
    row = coverage("even", 60, 0.05, worlds=100, seed=1)
    assert row["ours"] >= 0.93
    assert row["ours_p95"] > 0.85
    assert row["carried"] == 1.0
