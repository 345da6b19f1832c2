"""The paper's encoders and their spectrogram: shapes, sizes, definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgepin_training.encoders import parameter_count
from edgepin_training.vggm import VggmFace, VggmVoice, spectrogram


def test_three_seconds_are_300_frames_of_512_frequencies() -> None:
    pcm = np.zeros((2, 48000), np.int16)
    found = spectrogram(pcm)
    assert (found.shape, found.dtype) == ((2, 300, 512), np.float32)


def test_the_spectrogram_is_the_windowed_transform() -> None:
    rng = np.random.default_rng(0)
    pcm = rng.integers(-20000, 20000, (1, 4800)).astype(np.int16)
    found = spectrogram(pcm)
    hamming = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(400) / 399)
    for frame in (0, 7, 27):
        piece = np.zeros(1024)
        piece[:400] = pcm[0, 160 * frame : 160 * frame + 400] * hamming
        expected = [
            abs(np.sum(piece * np.exp(-2j * np.pi * k * np.arange(1024) / 1024))) for k in (0, 3, 511)
        ]
        assert found[0, frame, [0, 3, 511]] == pytest.approx(expected, rel=1e-4)


def test_a_tone_lies_at_its_frequency() -> None:
    tone = (8000 * np.sin(2 * np.pi * 1000 * np.arange(48000) / 16000)).astype(np.int16)
    assert set(spectrogram(tone[None])[0, :298].argmax(axis=1)) == {64}  # 15.6 Hz a bin


@torch.no_grad()
def test_the_papers_sizes_pass_through_the_papers_layers() -> None:
    with torch.device("meta"):
        face, voice = VggmFace(), VggmVoice()
        assert face.trunk(torch.zeros(1, 3, 224, 224)).shape == (1, 512, 6, 6)
        assert face.fc6[0].kernel_size == (6, 6)
        assert voice.trunk(torch.zeros(1, 1, 512, 300)).shape[:3] == (1, 256, 9)
        assert voice.fc6[0].kernel_size == (9, 1)
        shapes = [x.shape for x in (*face(torch.zeros(2, 224, 224, 3)), *voice(torch.zeros(2, 300, 512)))]
    assert shapes == [(2, 256)] * 4
    assert 90e6 < parameter_count(face) < 110e6
    assert 10e6 < parameter_count(voice) < 20e6


@torch.no_grad()
@pytest.mark.parametrize("seconds", [2, 3, 5])
def test_a_voice_of_any_length_gives_unit_vectors(seconds: int) -> None:
    encoder = VggmVoice(0.06).eval()
    for output in encoder(torch.rand(2, 100 * seconds, 512)):
        torch.testing.assert_close(output.norm(dim=1), torch.ones(2))


@torch.no_grad()
def test_a_voice_is_heard_alike_through_any_fixed_gain_of_a_frequency() -> None:
    encoder = VggmVoice(0.06).eval()
    heard = 1e4 * torch.rand(2, 300, 512)
    gain = torch.linspace(0.5, 2.0, 512)
    torch.testing.assert_close(encoder(heard)[1], encoder(heard * gain)[1], atol=1e-4, rtol=0)
