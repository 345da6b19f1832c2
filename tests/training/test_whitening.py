"""Whitening folded into an encoder: what it does to the embeddings, and that it is the formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgepin._errors import UsageError
from edgepin_training.encoders import Heads
from edgepin_training.whitening import whiten_identity


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.heads = Heads(12, 0.0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.heads(x)


def captures(count: int = 400) -> Tensor:
    torch.manual_seed(4)
    return torch.randn(count, 12) * torch.linspace(0.2, 3, 12) + 2


def before_length(encoder: Plain, x: Tensor) -> Tensor:
    with torch.no_grad():
        return encoder.heads.identity(encoder.heads.norm(x))


def test_the_mean_goes_and_the_spread_evens_out() -> None:
    encoder, x = Plain().eval(), captures()
    first = before_length(encoder, x)
    assert whiten_identity(encoder, x.split(64), ridge=0.01) == len(x)
    then = before_length(encoder, x)
    assert then.mean(dim=0).abs().max() < 1e-4
    strongest = [torch.linalg.eigvalsh(torch.cov(rows.T))[-12:] for rows in (first, then)]
    assert strongest[0][-1] / strongest[0][0] > 20
    assert strongest[1][-1] / strongest[1][0] < 2


def test_it_is_the_formula() -> None:
    encoder, x = Plain().eval(), captures()
    y = before_length(encoder, x).double()
    covariance = torch.cov(y.T, correction=0)
    covariance += 5.0 * covariance.trace() / len(covariance) * torch.eye(len(covariance), dtype=torch.float64)
    values, vectors = torch.linalg.eigh(covariance)
    expected = (y - y.mean(dim=0)) @ (vectors * values.rsqrt()) @ vectors.T
    whiten_identity(encoder, [x])
    torch.testing.assert_close(before_length(encoder, x).double(), expected, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(
            encoder(x)[0].double(), functional.normalize(expected, dim=1), atol=1e-5, rtol=0
        )


def test_pins_stay_as_they_are() -> None:
    encoder, x = Plain().eval(), captures()
    with torch.no_grad():
        first = encoder(x)[1]
        whiten_identity(encoder, [x])
        assert torch.equal(encoder(x)[1], first)


def test_too_few_captures_are_refused() -> None:
    with pytest.raises(UsageError, match="2 captures"):
        whiten_identity(Plain(), [captures(1)])
