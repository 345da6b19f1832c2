"""Projections to 256 dimensions, and pins, in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from edgepin.metrics import eer
from edgepin_export._foreign_projection import (
    MIN_PAIRS,
    Embedded,
    Pins,
    Projection,
    fit_identity,
    fit_pins,
    kept_energy,
)


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def people(count, captures, shared, dim, noise, seed):
    """Unit embeddings of people who have `shared` (count, k) in them, through a random map, with noise."""
    random = np.random.default_rng(seed)
    owner = np.repeat(np.arange(count), captures)
    mixed = shared @ random.standard_normal((shared.shape[1], dim))
    return Embedded(unit(mixed[owner] + noise * random.standard_normal((len(owner), dim))), owner)


def pair_of_modalities(count=200, shared=6, seed=0):
    factors = np.random.default_rng(seed).standard_normal((count, shared))
    return people(count, 4, factors, 96, 1.0, seed + 1), people(count, 3, factors, 40, 1.0, seed + 2)


def everyone(count):
    return [(number, number) for number in range(count)]


def low_rank(count, dim, rank, seed=0):
    random = np.random.default_rng(seed)
    basis = np.random.default_rng(99).standard_normal((rank, dim))
    return Embedded(unit(random.standard_normal((count, rank)) @ basis), np.arange(count) // 2)


@pytest.mark.parametrize("dim", [8, 192, 255])
def test_fewer_dimensions_are_padded_and_every_cosine_is_kept_to_the_bit(dim):
    embedded = low_rank(20, dim, min(dim, 30))
    assert fit_identity(embedded) is None
    identity, pin = Projection(dim, None, None).apply(embedded.embedding)
    assert identity.shape == (20, 256)
    assert np.array_equal(identity[:, :dim], embedded.embedding)
    assert not identity[:, dim:].any()
    assert np.array_equal(identity, pin)  # nothing is claimed of the other modality


def test_256_dimensions_are_taken_as_they_are():
    embedded = low_rank(20, 256, 30)
    assert fit_identity(embedded) is None
    assert np.array_equal(Projection(256, None, None).apply(embedded.embedding)[0], embedded.embedding)


def test_more_dimensions_lose_nothing_where_the_energy_is_in_256():
    fitted, fresh = low_rank(900, 512, 200, seed=1), low_rank(50, 512, 200, seed=2)
    projection = Projection(512, fit_identity(fitted), None)
    identity, _ = projection.apply(fresh.embedding)
    assert kept_energy(fresh.embedding, projection.identity) == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_allclose(identity @ identity.T, fresh.embedding @ fresh.embedding.T, atol=1e-4)


def test_the_projection_is_the_one_that_keeps_most_energy():
    random = np.random.default_rng(0)
    spread = np.exp(-np.arange(400) / 60)
    turn = np.linalg.qr(random.standard_normal((400, 400)))[0]
    embedded = Embedded(unit((random.standard_normal((2000, 400)) * spread) @ turn), np.arange(2000))
    projection = fit_identity(embedded)
    np.testing.assert_allclose(projection @ projection.T, np.eye(256), atol=1e-5)
    kept = kept_energy(embedded.embedding, projection)
    for seed in range(3):
        other = np.linalg.qr(np.random.default_rng(seed).standard_normal((400, 256)))[0].T
        assert kept > kept_energy(embedded.embedding, other) + 0.2
    assert kept > 0.99


def test_with_few_captures_the_rest_is_filled_by_the_seed():
    embedded = low_rank(60, 400, 400)
    first, again, other = fit_identity(embedded, 1), fit_identity(embedded, 1), fit_identity(embedded, 2)
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)
    np.testing.assert_allclose(first @ first.T, np.eye(256), atol=1e-5)
    assert kept_energy(embedded.embedding, first) == pytest.approx(1.0, abs=1e-4)
    fresh = low_rank(40, 400, 400, seed=8)
    assert 0.5 < kept_energy(fresh.embedding, first) < 0.75  # what others have in the rest is kept by chance


def test_everybody_counts_alike_however_many_captures_there_are():
    random = np.random.default_rng(0)
    one, many = np.eye(300)[:1], np.eye(300)[1:2]
    rest = random.standard_normal((500, 300)) * 0.1
    rows = np.concatenate([np.repeat(many, 400, axis=0), one, rest])
    owner = np.concatenate([np.zeros(400), [1], 2 + np.arange(500)]).astype(np.int64)
    lone = np.concatenate([many, one, rest]), np.concatenate([[0], [1], 2 + np.arange(500)]).astype(np.int64)
    first, second = fit_identity(Embedded(unit(rows), owner)), fit_identity(Embedded(unit(lone[0]), lone[1]))
    np.testing.assert_allclose(first.T @ first, second.T @ second, atol=1e-3)


def test_pins_bring_the_face_and_the_voice_of_a_person_together():
    faces, voices = pair_of_modalities()
    # The first 150 are fitted on, the others are strangers.
    seen = faces.owner < 150, voices.owner < 150
    pins = fit_pins(
        Embedded(faces.embedding[seen[0]], faces.owner[seen[0]]),
        Embedded(voices.embedding[seen[1]], voices.owner[seen[1]]),
        everyone(150),
    )
    assert isinstance(pins, Pins)
    face = Projection(96, None, pins.face).apply(faces.embedding[~seen[0]])[1]
    voice = Projection(40, None, pins.voice).apply(voices.embedding[~seen[1]])[1]
    np.testing.assert_allclose(np.linalg.norm(face, axis=1), 1.0, atol=1e-5)
    same = faces.owner[~seen[0]][:, None] == voices.owner[~seen[1]][None]
    found = eer((face @ voice.T).reshape(-1), same.reshape(-1))
    assert found < 0.2
    assert pins.eer < 0.2
    assert pins.to_json()["pairs"] == 150


def test_pins_of_people_who_share_nothing_are_refused_with_the_figure():
    factors = np.random.default_rng(0).standard_normal((2, 120, 6))
    faces, voices = people(120, 4, factors[0], 96, 1.0, 1), people(120, 3, factors[1], 40, 1.0, 2)
    reason = fit_pins(faces, voices, everyone(120))
    assert isinstance(reason, str)
    assert "EER" in reason
    assert "must be beaten" in reason


def test_pins_of_shuffled_pairs_are_refused():
    """Chimeric people passed off as real ones do not make a shared space."""
    faces, voices = pair_of_modalities(150)
    shuffled = np.random.default_rng(3).permutation(150).tolist()
    assert isinstance(fit_pins(faces, voices, list(zip(range(150), shuffled, strict=True))), str)


def test_too_few_pairs_make_no_pins():
    faces, voices = pair_of_modalities(MIN_PAIRS)
    assert isinstance(fit_pins(faces, voices, everyone(MIN_PAIRS)), Pins)
    reason = fit_pins(faces, voices, everyone(MIN_PAIRS - 1))
    assert isinstance(reason, str)
    assert str(MIN_PAIRS - 1) in reason


def test_pins_follow_the_seed_and_nothing_else():
    faces, voices = pair_of_modalities(80)
    first, second = (fit_pins(faces, voices, everyone(80), seed=4) for _ in range(2))
    assert all(
        np.array_equal(a, b)
        for a, b in zip(first.face + first.voice, second.face + second.voice, strict=True)
    )
