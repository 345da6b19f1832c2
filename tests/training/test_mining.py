"""Mined negatives against matrices worked out by hand: the indices, and not the ranks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgepin_training.mining import (
    MINING,
    curriculum,
    every,
    hard,
    hardness_at,
    miner,
    random,
    semi_hard,
)

# Anchor i's positive is candidate i. Row 0, from the farthest negative: 3 (0.9), 1 (0.7), 4 (0.5), 2 (0.2).
DISTANCES = torch.tensor(
    [
        [0.40, 0.70, 0.20, 0.90, 0.50],
        [0.10, 0.30, 0.80, 0.60, 1.20],
        [1.00, 0.90, 0.95, 1.10, 0.30],
        [0.60, 0.50, 0.40, 0.00, 0.20],
        [0.90, 0.80, 0.70, 0.60, 0.10],
    ]
)
NOBODY_TWICE = torch.arange(5)


def pairs(mined: tuple[Tensor, Tensor]) -> list[tuple[int, int]]:
    anchors, negatives = mined
    assert anchors.dtype == negatives.dtype == torch.int64
    return list(zip(anchors.tolist(), negatives.tolist(), strict=True))


@pytest.mark.parametrize(
    ("hardness", "negatives"),
    [
        (0.0, [3, 4, 3, 0, 0]),  # the farthest
        (1 / 3, [1, 2, 0, 1, 1]),
        (0.30, [1, 2, 0, 1, 1]),
        (2 / 3, [4, 3, 1, 2, 2]),
        (0.80, [4, 3, 1, 2, 2]),
        (1.0, [2, 0, 4, 4, 3]),  # the nearest
    ],
)
def test_curriculum_takes_the_negative_at_the_percentile_of_hardness(
    hardness: float, negatives: list[int]
) -> None:
    assert pairs(curriculum(DISTANCES, NOBODY_TWICE, hardness=hardness)) == list(enumerate(negatives))


def test_curriculum_returns_the_candidate_and_not_its_rank() -> None:
    """In this row the candidates stand in the reverse order of their distances, so ranks and indices differ everywhere."""
    row = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4, 0.5]).repeat(6, 1)
    for rank, hardness in enumerate((0.0, 0.25, 0.5, 0.75, 1.0)):
        anchors, negatives = curriculum(row, torch.arange(6), hardness=hardness)
        assert (anchors[0], negatives[0]) == (0, 5 - rank)
        assert negatives[0] != rank


def test_curriculum_at_one_is_hard_mining() -> None:
    distances = torch.rand(40, 40, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(40) % 17
    assert pairs(curriculum(distances, labels, hardness=1.0)) == pairs(hard(distances, labels))


def test_a_harder_curriculum_takes_nearer_negatives() -> None:
    distances = torch.rand(64, 64, generator=torch.Generator().manual_seed(2))
    means = []
    for hardness in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8):
        anchors, negatives = curriculum(distances, torch.arange(64), hardness=hardness)
        means.append(distances[anchors, negatives].mean().item())
    assert means == sorted(means, reverse=True)
    # Uniform distances: the mean at percentile h is 1 - h.
    assert means == pytest.approx([0.7, 0.6, 0.5, 0.4, 0.3, 0.2], abs=0.03)


def test_hard_takes_the_nearest() -> None:
    assert pairs(hard(DISTANCES, NOBODY_TWICE)) == [(0, 2), (1, 0), (2, 4), (3, 4), (4, 3)]


def test_semi_hard_takes_the_nearest_beyond_the_positive_and_within_the_margin() -> None:
    # Row 0: positive at 0.4 (0.16), so squares in (0.16, 0.76): 4 (0.25) before 1 (0.49).
    # Row 1: 0.3 (0.09), up to 0.69: 3 (0.36). Row 2: 0.95, up to 1.50: 0 (1.00) before 3 (1.21).
    # Row 3: 0, up to 0.60: 4 (0.04). Row 4: 0.1, up to 0.61: 3 (0.36).
    assert pairs(semi_hard(DISTANCES, NOBODY_TWICE, margin=0.6)) == [(0, 4), (1, 3), (2, 0), (3, 4), (4, 3)]


def test_semi_hard_leaves_out_an_anchor_without_any() -> None:
    # With 0.05: row 0 needs a square in (0.16, 0.21), row 1 in (0.09, 0.14), row 2 in (0.9025, 0.9525): none.
    assert pairs(semi_hard(DISTANCES, NOBODY_TWICE, margin=0.05)) == [(3, 4)]


def test_random_draws_every_negative_alike() -> None:
    torch.manual_seed(0)
    labels = torch.tensor([0, 1, 0, 2, 2])
    seen = torch.zeros(5, 5)
    for _ in range(600):
        for anchor, negative in pairs(random(DISTANCES, labels)):
            seen[anchor, negative] += 1
    same = labels[:, None] == labels[None, :]
    assert (seen[same] == 0).all()
    assert (seen.sum(dim=1) == 600).all()
    expected = (600 / (~same).sum(dim=1, keepdim=True)).expand(5, 5)
    assert ((seen - expected)[~same].abs() < 0.25 * expected[~same]).all()


@pytest.mark.parametrize("name", MINING)
def test_nobody_is_a_negative_of_themselves(name: str) -> None:
    torch.manual_seed(3)
    labels = torch.tensor([4, 1, 4, 1, 4, 9])
    anchors, negatives = miner(name, hardness=0.5, margin=1.0)(torch.rand(6, 6), labels)
    assert len(anchors) > 0
    assert (labels[anchors] != labels[negatives]).all()


@pytest.mark.parametrize("name", MINING)
def test_a_batch_of_one_person_has_no_negatives(name: str) -> None:
    anchors, negatives = miner(name, hardness=0.5, margin=1.0)(torch.rand(3, 3), torch.zeros(3).long())
    assert len(anchors) == len(negatives) == 0


def test_every_gives_all_of_them() -> None:
    assert pairs(every(DISTANCES[:3, :3], torch.tensor([0, 1, 0]))) == [(0, 1), (1, 0), (1, 2), (2, 1)]


def test_the_schedule_rises_in_equal_shares() -> None:
    schedule = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
    levels = [hardness_at(schedule, step, 60) for step in range(60)]
    assert levels == [level for level in schedule for _ in range(10)]
    assert [hardness_at(schedule, step, 4) for step in range(4)] == [0.3, 0.4, 0.6, 0.7]
    assert hardness_at((0.5,), 99, 3) == 0.5
