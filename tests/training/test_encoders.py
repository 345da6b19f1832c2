"""What the encoders take, give and weigh."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from edgepin_training.encoders import (
    EMBEDDING_DIM,
    FaceEncoder,
    VoiceEncoder,
    attentive_statistics,
    channels,
    parameter_count,
    scaled_pixels,
)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def faces(count: int, size: int = 64) -> Tensor:
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8)


def check_embeddings(outputs: tuple[Tensor, Tensor], count: int) -> None:
    for output in outputs:
        assert output.shape == (count, EMBEDDING_DIM) == (count, 256)
        assert output.dtype == torch.float32
        torch.testing.assert_close(output.norm(dim=1), torch.ones(count), atol=1e-5, rtol=0)
    assert not torch.allclose(*outputs, atol=1e-3)


@pytest.mark.parametrize("encoder", [FaceEncoder(), VoiceEncoder()], ids=["face", "voice"])
def test_full_width_is_about_a_million_parameters(encoder: torch.nn.Module) -> None:
    assert 500_000 < parameter_count(encoder) <= 1_500_000


@torch.no_grad()
@pytest.mark.parametrize("size", [48, 64, 112])
def test_face_gives_two_unit_vectors(size: int) -> None:
    check_embeddings(FaceEncoder(0.25, size=size).eval()(faces(3, size)), 3)


def test_pixels_come_channels_first_in_the_range_of_two() -> None:
    face = torch.tensor([[[[0, 127, 255], [128, 64, 1]]]], dtype=torch.uint8)  # (1, 1, 2, 3)
    expected = torch.tensor([[[[0.0, 128.0]], [[127.0, 64.0]], [[255.0, 1.0]]]])
    torch.testing.assert_close(scaled_pixels(face), (expected - 127.5) / 64, atol=0, rtol=0)


def test_statistics_are_the_weighted_mean_and_deviation_over_time() -> None:
    x, attention = torch.randn(2, 3, 1, 7), torch.randn(2, 3, 1, 7)
    weights = np.exp(attention.double().numpy())
    found = attentive_statistics(x.half(), attention.half()).numpy()
    for row in range(2):
        for channel in range(3):
            values, weight = x.half().double().numpy()[row, channel, 0], weights[row, channel, 0]
            mean = np.average(values, weights=weight)
            deviation = np.sqrt(np.average((values - mean) ** 2, weights=weight))
            assert found[row, channel] == pytest.approx(mean, abs=2e-3)
            assert found[row, 3 + channel] == pytest.approx(deviation, abs=2e-3)
    assert found.dtype == np.float32


def test_the_statistics_of_what_does_not_change_have_a_gradient() -> None:
    x = torch.ones(1, 2, 1, 5, requires_grad=True)
    attentive_statistics(x, torch.zeros_like(x)).sum().backward()
    assert x.grad is not None
    assert bool(torch.isfinite(x.grad).all())


@torch.no_grad()
@pytest.mark.parametrize("frames", [98, 298, 501])
def test_voice_takes_any_length(frames: int) -> None:
    check_embeddings(VoiceEncoder().eval()(torch.randn(2, frames, 80)), 2)


@torch.no_grad()
@pytest.mark.parametrize("mels", [40, 80])
def test_voice_takes_other_mel_counts(mels: int) -> None:
    check_embeddings(VoiceEncoder(0.25, mels=mels).eval()(torch.randn(2, 98, mels)), 2)


@torch.no_grad()
@pytest.mark.parametrize("width", [0.25, 0.5, 1.0])
def test_both_heads_stay_256_wide_at_any_width(width: int) -> None:
    check_embeddings(FaceEncoder(width).eval()(faces(2)), 2)
    check_embeddings(VoiceEncoder(width).eval()(torch.randn(2, 98, 80)), 2)


def test_parameters_grow_with_the_width() -> None:
    for kind in (FaceEncoder, VoiceEncoder):
        counts = [parameter_count(kind(width)) for width in (0.25, 0.5, 1.0)]
        assert counts == sorted(set(counts))


@pytest.mark.parametrize(("width", "expected"), [(1.0, 48), (0.5, 24), (0.25, 16), (0.01, 8)])
def test_channels_are_multiples_of_8(width: float, expected: int) -> None:
    assert channels(48, width) == expected


@torch.no_grad()
def test_voice_ignores_the_coloring_of_a_microphone() -> None:
    encoder = VoiceEncoder(0.25).eval()
    log_mel = torch.randn(2, 98, 80)
    identity, pin = encoder(log_mel)
    for shift, same in ((torch.linspace(-3, 3, 80), True), (torch.linspace(-3, 3, 98)[:, None], False)):
        shifted_identity, shifted_pin = encoder(log_mel + shift)
        # An untrained encoder tells little apart, so what must differ is held to the same small figure.
        assert ((identity - shifted_identity).abs().max() < 1e-5) == same
        assert ((pin - shifted_pin).abs().max() < 1e-5) == same


@torch.no_grad()
def test_rows_of_a_batch_do_not_influence_each_other() -> None:
    encoder, batch = FaceEncoder(0.25).eval(), faces(3)
    torch.testing.assert_close(encoder(batch)[0][1:2], encoder(batch[1:2])[0], atol=1e-5, rtol=0)
