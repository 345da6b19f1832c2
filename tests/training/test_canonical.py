"""Canonical pins: that they find what two modalities share, by the closed form, and go into encoders."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgepin._errors import UsageError
from edgepin_training.canonical import _auc, choose_canonical, fit_canonical
from edgepin_training.edge_encoders import EdgeFaceEncoder, EdgeVoiceEncoder


def people(count: int, seed: int = 0, shared: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
    """Two captures each of 12 and 9 numbers, the first two of which agree by `shared`, turned by fixed matrices."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(99)
    common = rng.standard_normal((count, 2))
    sides = []
    for size in (12, 9):
        own = rng.standard_normal((count, size))
        own[:, :2] = np.sqrt(shared) * common + np.sqrt(1 - shared) * own[:, :2]
        noisy = own[:, None] + 0.1 * rng.standard_normal((count, 2, size))
        sides.append(noisy @ np.linalg.qr(fixed.standard_normal((size, size)))[0] + 5)
    return sides[0], sides[1]


def test_correlations_are_those_that_the_people_have() -> None:
    fit = fit_canonical(*people(4000), ridge=1e-6, dimensions=4)
    # Noise of 0.1 takes one percent of each side's variance.
    np.testing.assert_allclose(fit.correlations[:2], 0.9 / 1.01, atol=0.02)
    assert fit.correlations[2] < 0.1


def test_a_chosen_fit_tells_new_people_from_others() -> None:
    fit, told = choose_canonical(*people(600))
    assert told["people"] == 600
    assert told["auc"] > 0.8
    faces, voices = people(300, seed=1)
    assert _auc(fit, faces, voices) == pytest.approx(told["auc"], abs=0.04)


def test_a_ridge_helps_where_people_are_few() -> None:
    more = people(300, seed=100)
    none, some = (
        np.mean([_auc(fit_canonical(*people(40, seed), ridge=r, dimensions=4), *more) for seed in range(6)])
        for r in (1e-9, 0.3)
    )
    assert some > none + 0.01


def test_too_few_people_are_refused() -> None:
    with pytest.raises(UsageError, match="20 people"):
        fit_canonical(*people(19), ridge=1.0, dimensions=2)


@torch.no_grad()
def test_put_into_encoders_it_is_what_their_pins_say() -> None:
    torch.manual_seed(0)
    face, voice = EdgeFaceEncoder(0.25).eval(), EdgeVoiceEncoder(0.25).eval()
    sizes = [encoder.get_submodule("heads.pin").in_features for encoder in (face, voice)]
    rng = np.random.default_rng(0)
    rows = [rng.standard_normal((30, 2, size)) for size in sizes]
    fit = fit_canonical(rows[0], rows[1], ridge=1.0, dimensions=6)
    fit.put_into(face, voice)
    for encoder, (weight, bias), given in ((face, fit.face, rows[0]), (voice, fit.voice, rows[1])):
        pin = encoder.get_submodule("heads.pin")(torch.from_numpy(given[0]).float())
        expected = given[0] @ weight.T + bias
        np.testing.assert_allclose(pin[:, :6].numpy(), expected, rtol=1e-3, atol=1e-5)
        assert not pin[:, 6:].any()
