"""Voices as tensors: each change against its counterpart for arrays, or against what it is said to do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from edgepin_training.sound import change_speed, shift_formants, telephone
from edgepin_training.sound_tensors import (
    Nuisances,
    _telephone,
    color,
    curve,
    mask,
    play,
    reshape_spectrum,
    some,
)

CPU = torch.device("cpu")


def speech(samples: int = 16_000, pitch: float = 140.0) -> np.ndarray:
    """A buzz with two formants, and a little noise."""
    time = np.arange(samples) / 16_000
    buzz = sum(
        np.sin(2 * np.pi * pitch * k * time) * np.exp(-(((pitch * k - 700) / 900) ** 2)) for k in range(1, 25)
    )
    noise = np.random.default_rng(1).normal(0, 0.01, samples)
    return np.clip(4000 * (buzz + noise), -32768, 32767).astype(np.int16)


def played(clip: np.ndarray, speed: float, samples: int, first: float = 0.0) -> Tensor:
    pcm = torch.from_numpy(np.concatenate([np.full(500, 9999, np.int16), clip, np.full(500, 9999, np.int16)]))
    one = torch.ones(1, dtype=torch.float64)
    return play(pcm, torch.tensor([500]), torch.tensor([len(clip)]), first * one, speed * one, samples)[0]


def ratio_db(expected: np.ndarray, got: np.ndarray) -> float:
    away = expected.astype(np.float64) - got
    return 10 * np.log10((expected.astype(np.float64) ** 2).sum() / max((away**2).sum(), 1e-9))


def test_playing_at_speed_1_gives_the_clip_and_starts_over_at_its_end() -> None:
    clip = speech(3000)
    got = played(clip, 1.0, 4000, first=1500.0).numpy()
    np.testing.assert_allclose(got, np.concatenate([clip[1500:], clip[:2500]]), atol=0.01)


@pytest.mark.parametrize("speed", [0.85, 1.2])
def test_playing_faster_is_what_a_resampler_does(speed: float) -> None:
    clip = speech()
    expected = change_speed(clip, speed)[200:-200]
    got = played(clip, speed, len(expected) + 400).numpy()[200:-200]
    assert ratio_db(expected, got[: len(expected)]) > 25


@pytest.mark.parametrize("ratio", [0.9, 1.0, 1.12])
def test_formants_move_as_they_do_for_arrays(ratio: float) -> None:
    clip = speech()
    got = reshape_spectrum(torch.from_numpy(clip).float()[None], torch.tensor([ratio]), torch.zeros(1, 257))[
        0
    ]
    assert ratio_db(shift_formants(clip, ratio)[600:-600], got.numpy()[600:-600]) > 45


def test_a_filter_amplifies_what_its_knots_say() -> None:
    time = torch.arange(16_000) / 16_000
    tone = (1000 * torch.sin(2 * torch.pi * 1000 * time))[None]
    gains = torch.zeros(1, 8)
    gains[0, 3] = 6.0206  # at 1 kHz: a factor of 2
    colors = curve(gains, torch.arange(257.0))
    got = reshape_spectrum(tone, torch.ones(1), colors)[0, 1000:-1000]
    assert got.std().item() == pytest.approx(2 * tone.std().item(), rel=0.01)
    bins = torch.tensor([0.0, 32.0, 48.0, 256.0])  # 0, 1000, 1500, 8000 Hz
    torch.testing.assert_close(
        curve(gains, bins)[0].exp(), torch.tensor([1.0, 2.0, 2.0**0.5, 1.0]), atol=1e-4, rtol=0
    )


def test_the_color_of_another_voice_can_be_put_on() -> None:
    voices = torch.from_numpy(np.stack([speech(), speech(pitch=230.0)])).float()
    colors = color(voices)
    got = reshape_spectrum(voices[:1], torch.ones(1), colors[1:] - colors[:1])
    before, after = ((colors[1] - c[0]).abs().mean() for c in (colors, color(got)))
    assert after < 0.35 * before


def test_the_telephone_is_that_for_arrays() -> None:
    voice = speech().astype(np.float32)
    assert ratio_db(telephone(voice), _telephone(torch.from_numpy(voice)[None])[0].numpy()) > 30


def test_some_changes_a_fixed_share_of_the_rows() -> None:
    voices = torch.zeros(40, 8)
    got = some(voices, 0.25, lambda rows: rows + 1, Generator().manual_seed(3))
    assert got.sum(dim=1).count_nonzero() == 10
    assert some(voices, 0.0, lambda rows: rows + 1, Generator()) is voices


def test_nuisances_leave_pcm_of_about_the_usual_level_and_repeat_by_their_seed() -> None:
    voices = torch.from_numpy(np.stack([speech(8000, pitch) for pitch in np.linspace(90, 250, 16)])).float()
    nuisances = Nuisances(CPU)
    made = [nuisances(voices, voices.roll(1, 0), 1.0, Generator().manual_seed(seed)) for seed in (5, 5, 6)]
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    assert made[0].abs().max() <= 32768
    assert torch.equal(made[0], made[0].round())
    assert 500 < made[0].square().mean(dim=1).sqrt().median() < 8000


def test_strength_0_changes_the_level_alone() -> None:
    voices = torch.from_numpy(speech(8000)).float().repeat(4, 1)
    got = Nuisances(CPU)(voices, voices, 0.0, Generator().manual_seed(1))
    cosines = torch.nn.functional.cosine_similarity(got, voices)
    assert cosines.min() > 0.9999


def test_a_mask_covers_one_band_and_one_stretch() -> None:
    features = torch.randn(20, 100, 80, generator=Generator().manual_seed(2))
    got = mask(features, 1.0, Generator().manual_seed(4))
    changed = got != features
    assert changed.any(dim=(1, 2)).float().mean() > 0.8
    for row in changed:
        times, bands = row.all(dim=1).sum(), row.all(dim=0).sum()
        assert times <= 21
        assert bands <= 13
        assert row.sum() == times * 80 + bands * 100 - times * bands
    assert torch.equal(mask(features, 0.0, Generator()), features)
