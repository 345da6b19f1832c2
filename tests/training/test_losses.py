"""The losses against their formulas, written out in float64 numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from edgepin_training.losses import (
    additive_margin_softmax,
    contrastive,
    orthogonality,
    symmetric_info_nce,
    triplet,
)


def units(rng: np.random.Generator, rows: int, size: int) -> np.ndarray:
    values = rng.standard_normal((rows, size))
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def margin_softmax_by_hand(
    x: np.ndarray, w: np.ndarray, labels: np.ndarray, margin: float, scale: float
) -> float:
    """Wang et al. 2018, eq. 6, term by term."""
    total = 0.0
    for row, label in zip(x, labels, strict=True):
        cosines = [float(row @ center) / float(np.linalg.norm(center)) for center in w]
        wanted = math.exp(scale * (cosines[label] - margin))
        rest = sum(math.exp(scale * cosine) for j, cosine in enumerate(cosines) if j != label)
        total -= math.log(wanted / (wanted + rest))
    return total / len(x)


def info_nce_by_hand(a: np.ndarray, b: np.ndarray, labels: list[int], temperature: float) -> float:
    """The mean of both directions; a row of the same person is in no denominator but its own."""
    total = 0.0
    for left, right in ((a, b), (b, a)):
        for i, label in enumerate(labels):
            logits = [math.exp(float(left[i] @ other) / temperature) for other in right]
            kept = sum(value for j, value in enumerate(logits) if j == i or labels[j] != label)
            total -= math.log(logits[i] / kept)
    return total / (2 * len(labels))


@pytest.mark.parametrize(("margin", "scale"), [(0.0, 1.0), (0.2, 30.0), (0.35, 12.0)])
def test_additive_margin_softmax_is_equation_6(margin: float, scale: float) -> None:
    rng = np.random.default_rng(1)
    x, w = units(rng, 7, 16), 3.0 * rng.standard_normal((5, 16))
    labels = np.array([0, 1, 2, 3, 4, 0, 2])
    loss, _ = additive_margin_softmax(
        torch.from_numpy(x), torch.from_numpy(w), torch.from_numpy(labels), margin=margin, scale=scale
    )
    assert loss.item() == pytest.approx(margin_softmax_by_hand(x, w, labels, margin, scale), rel=1e-10)


def test_additive_margin_softmax_of_two_right_angles() -> None:
    # cosines 1 and 0: -log(e^(10*0.8) / (e^(10*0.8) + e^0)) = log(1 + e^-8)
    loss, accuracy = additive_margin_softmax(
        torch.eye(2, dtype=torch.float64),
        5.0 * torch.eye(2, dtype=torch.float64),
        torch.tensor([0, 1]),
        margin=0.2,
        scale=10.0,
    )
    assert loss.item() == pytest.approx(math.log1p(math.exp(-8.0)), rel=1e-10)
    assert accuracy.item() == 1.0


def test_accuracy_is_counted_without_the_margin() -> None:
    # The right center leads by 0.1, less than the margin of 0.2; the last row is wrong either way.
    centers = torch.eye(2)
    rows = torch.nn.functional.normalize(torch.tensor([[0.75, 0.65], [0.65, 0.75], [0.0, 1.0]]), dim=1)
    _, accuracy = additive_margin_softmax(rows, centers, torch.tensor([0, 1, 0]), margin=0.2, scale=30.0)
    assert accuracy.item() == pytest.approx(2 / 3)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 4, 5], [0, 1, 2, 0, 1, 2], [3, 3, 3, 8, 1, 8]])
def test_symmetric_info_nce_is_the_formula(labels: list[int], temperature: float) -> None:
    rng = np.random.default_rng(2)
    a, b = units(rng, 6, 16), units(rng, 6, 16)
    loss = symmetric_info_nce(
        torch.from_numpy(a), torch.from_numpy(b), torch.tensor(labels), temperature=temperature
    )
    assert loss.item() == pytest.approx(info_nce_by_hand(a, b, labels, temperature), rel=1e-10)


def test_rows_of_the_same_person_are_no_negatives() -> None:
    rng = np.random.default_rng(3)
    a, b = torch.from_numpy(units(rng, 4, 8)), torch.from_numpy(units(rng, 4, 8))
    assert symmetric_info_nce(a, b, torch.zeros(4, dtype=torch.int64), temperature=0.1).item() == 0.0
    assert symmetric_info_nce(a, b, torch.arange(4), temperature=0.1).item() > 0.1


def test_same_person_rows_leave_gradients_finite() -> None:
    a = torch.nn.functional.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(4)), dim=1)
    a.requires_grad_()
    symmetric_info_nce(a, a.detach().flip(0), torch.tensor([0, 1, 0, 1]), temperature=0.1).backward()
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()
    assert a.grad.abs().sum() > 0


def rows(seed: int, count: int, size: int = 5) -> torch.Tensor:
    return torch.from_numpy(units(np.random.default_rng(seed), count, size)).requires_grad_()


MINED = (torch.tensor([0, 0, 2, 3]), torch.tensor([1, 3, 0, 2]))


def test_contrastive_is_the_formula() -> None:
    a, p, c = (rows(seed, 4) for seed in (5, 6, 7))
    pull = [float((x - y).detach().square().sum()) for x, y in zip(a, p, strict=True)]
    push = [
        max(0.0, 1.8 - float((a[i] - c[j]).detach().norm())) ** 2
        for i, j in zip(*(m.tolist() for m in MINED), strict=True)
    ]
    expected = sum(pull) / 4 + sum(push) / 4
    assert contrastive(a, p, MINED, c, margin=1.8).item() == pytest.approx(expected, rel=1e-10)
    assert 0 < sum(value == 0 for value in push) < len(push)


def test_triplet_is_the_formula() -> None:
    a, p, c = (rows(seed, 4) for seed in (8, 9, 10))
    terms = [
        max(0.0, float(((a[i] - p[i]).square().sum() - (a[i] - c[j]).square().sum()).detach()) + 0.6)
        for i, j in zip(*(m.tolist() for m in MINED), strict=True)
    ]
    assert triplet(a, p, MINED, c, margin=0.6).item() == pytest.approx(sum(terms) / 4, rel=1e-10)


def test_orthogonality_is_the_formula() -> None:
    x, labels = rows(11, 6), torch.tensor([0, 1, 0, 2, 1, 0])
    same, other = [], []
    for i in range(6):
        for j in range(i):
            (same if labels[i] == labels[j] else other).append(float(x[i] @ x[j]))
    expected = 1 - np.mean(same) + abs(np.mean(other))
    assert orthogonality(x, labels).item() == pytest.approx(expected, rel=1e-10)
    apart = torch.eye(4, dtype=torch.float64).repeat(2, 1)
    assert orthogonality(apart, torch.arange(4).repeat(2)).item() == pytest.approx(0.0, abs=1e-12)


NOTHING = (torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))


def test_a_batch_in_which_nothing_was_mined_still_has_a_loss_with_a_gradient() -> None:
    a, p = rows(1, 3), rows(2, 3)
    pulled = contrastive(a, p, NOTHING, p, margin=0.6)
    assert pulled.item() == pytest.approx(float((a - p).square().sum(dim=1).mean()))
    still = triplet(a, p, NOTHING, p, margin=0.6)
    assert still.item() == 0.0
    still.backward()
    assert a.grad is not None
    assert (a.grad == 0).all()
    assert orthogonality(rows(3, 1), torch.tensor([0])).item() == 0.0


def test_equal_embeddings_leave_the_contrastive_gradient_finite() -> None:
    a = rows(4, 3)
    contrastive(a, a.detach(), (torch.arange(3), torch.arange(3)), a.detach(), margin=0.6).backward()
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()


LABELS = torch.tensor([0, 1, 0, 2])
GRADIENTS = {
    "contrastive": lambda a, b: contrastive(a, b, MINED, b, margin=1.5),
    "triplet": lambda a, b: triplet(a, b, MINED, b, margin=0.6),
    "info_nce": lambda a, b: symmetric_info_nce(a, b, LABELS, temperature=0.2),
    "margin_softmax": lambda a, b: additive_margin_softmax(
        a, b, torch.tensor([0, 1, 3, 2]), margin=0.2, scale=5.0
    )[0],
    "orthogonality": lambda a, b: orthogonality(torch.cat([a, b]), LABELS.repeat(2)),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    assert torch.autograd.gradcheck(GRADIENTS[name], (rows(12, 4), rows(13, 4)))
