"""Whitening of identity embeddings, folded into an encoder's last linear map: nothing more to compute on the device.

What an encoder says of any capture has a common part, and varies much along few directions. Taking the mean away and most of
that difference, by captures that it was trained on and nobody's labels, lets the cosine weigh directions more alike, as is usual
before the length is normalized in speaker verification (Garcia-Romero and Espy-Wilson 2011). The whitening is partial:

    y -> (S + ridge * tr(S) / D * I)^(-1/2) (y - mean)

with the covariance S of the training captures' y, which is what `heads.identity` gives before its length is normalized.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from edgepin._errors import UsageError

from .pins import seen_by_pin

RIDGE = 5.0
"""Chosen by the EER of the starter's calibration people, for both modalities alike; it is flat from 3 to 10."""

_LEAST = 2  # captures: the ridge stands in for more


def whiten_identity(encoder: nn.Module, inputs: Iterable[Tensor], *, ridge: float = RIDGE) -> int:
    """Changes `heads.identity` of an encoder, in evaluation mode, by batches of what it takes; how many captures they had.

    Raises:
        UsageError: fewer than 2 captures.
    """
    identity = encoder.get_submodule("heads.identity")
    with torch.no_grad():
        rows = identity(seen_by_pin(encoder, inputs)).double()  # both maps take the same
    if len(rows) < _LEAST:
        raise UsageError(f"whitening needs {_LEAST} captures, not {len(rows)}")
    mean = rows.mean(dim=0)
    values, vectors = torch.linalg.eigh(torch.cov(rows.T, correction=0))
    # Directions in which nothing varies have an eigenvalue of 0, but for roundings.
    scales = (values.clamp_min(0) + ridge * values.mean()).rsqrt()
    whitening = (vectors * scales) @ vectors.T
    weight, bias = identity.get_parameter("weight"), identity.get_parameter("bias")
    with torch.no_grad():
        weight.copy_(whitening @ weight.double())
        bias.copy_(whitening @ (bias.double() - mean))
    return len(rows)
