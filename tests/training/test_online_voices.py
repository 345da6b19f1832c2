"""Voices that are made and labeled while the student trains: features, teacher, targets, batches."""

from __future__ import annotations

import importlib.util
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from edgepin._errors import EnvironmentFault, IntegrityError, UsageError
from edgepin_kernels import LogMelSpec, reference_log_mel
from edgepin_training import teachers
from edgepin_training.ge2e_network import Ge2eNetwork
from edgepin_training.log_mel_tensors import LogMelTensors
from edgepin_training.online_voices import STRETCH, Clips, OnlineVoiceSource, targets
from edgepin_training.views import HOP, WINDOW

CPU = torch.device("cpu")


class Loud(nn.Module):
    """Says of a voice how its power is spread over eight bands and sixteen times."""

    def forward(self, voices: Tensor) -> Tensor:
        power = torch.fft.rfft(voices).abs()[:, :8000].reshape(len(voices), 8, -1).mean(dim=2)
        times = voices[:, : WINDOW - WINDOW % 16].reshape(len(voices), 16, -1).square().mean(dim=2)
        padded = torch.zeros(len(voices), 256)
        padded[:, :24] = torch.cat([(power + 1).log(), (times + 1).log()], dim=1)
        return functional.normalize(padded, dim=1)


def clips(count: int = 5, seed: int = 0) -> Clips:
    rng = np.random.default_rng(seed)
    pcm = [rng.normal(0, 900 * (1 + i), 20_000 + 31_000 * i).astype(np.int16) for i in range(count)]
    return Clips(pcm, np.array([0, 1, 1, -1, 2][:count]))


def source(**options: object) -> OnlineVoiceSource:
    told = {"batch_size": 8, "device": CPU} | options
    return OnlineVoiceSource([clips(), clips(2, 1)], (0.75, 0.25), Loud(), **told)  # type: ignore[arg-type]


def test_the_features_are_the_definition() -> None:
    pcm = np.random.default_rng(2).normal(30, 900, (2, 8000)).astype(np.int16)
    got = LogMelTensors(LogMelSpec.preset("kaldi"))(torch.from_numpy(pcm).float())
    for row, samples in zip(got.numpy(), pcm, strict=True):
        np.testing.assert_allclose(row, reference_log_mel(LogMelSpec.preset("kaldi"), samples), atol=2e-3)


@pytest.mark.parametrize("name", ["librosa", "wespeaker", "whisper"])
def test_features_that_are_not_made_on_a_gpu_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="log-mel"):
        LogMelTensors(LogMelSpec.preset(name))


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    one, other = source(seed=3), source(seed=3)
    first = one.draw(4)
    one.draw(5)
    again = one.draw(4)
    for batch in (again, other.draw(4)):
        assert torch.equal(batch.inputs, first.inputs)
        assert torch.equal(batch.targets, first.targets)


@pytest.mark.parametrize("seed", [4, 1 << 40])
def test_another_seed_is_another_batch(seed: int) -> None:
    # Of the same stream and step, and of steps where crops are as long.
    drawn = [source(seed=s).draw(step) for s in (3, seed) for step in range(12)]
    lengths = {batch.inputs.shape[1] for batch in drawn}
    assert len(lengths) > 1
    for length in lengths:
        alike = [batch.targets for batch in drawn if batch.inputs.shape[1] == length]
        assert all(not torch.equal(one, two) for one, two in itertools.combinations(alike, 2))


def test_a_batch_is_pairs_of_crops_of_one_stretch() -> None:
    batch = source(augment=0.0).draw(1)
    assert batch.inputs.shape[0] == 8
    assert batch.inputs.shape[2] == 80
    assert batch.targets.shape == (8, 256)
    torch.testing.assert_close(batch.targets.norm(dim=1), torch.ones(8))
    assert batch.labels.tolist() == [-1] * 8
    assert len(batch.groups) == 4
    here, there = batch.targets.chunk(2)
    own = (here * there).sum(dim=1)
    others = (here * there.roll(1, 0)).sum(dim=1)
    assert own.mean() > others.mean()


def test_targets_are_of_what_a_crop_covers_and_of_the_whole() -> None:
    rows = functional.one_hot(torch.arange(6), 8).float()[None].repeat(2, 1, 1)
    at = torch.tensor([0, 4 * HOP])
    got = targets(rows, at, 25_600)
    whole = functional.normalize(rows.mean(dim=1), dim=1)[0]
    inside = [0, 1], [4, 5]
    for row, chosen in zip(got, inside, strict=True):
        covered = functional.normalize(rows[0, chosen].sum(dim=0), dim=0)
        torch.testing.assert_close(row, functional.normalize(covered + whole, dim=0))


@pytest.mark.parametrize("samples", [25_600, 57_600])
def test_every_crop_covers_the_middle_of_a_window(samples: int) -> None:
    at = torch.arange(0, STRETCH - samples + 1, 160)
    rows = torch.rand(1, 6, 8, generator=Generator().manual_seed(1)).expand(len(at), 6, 8)
    got = targets(rows, at, samples)
    assert torch.isfinite(got).all()
    middles = torch.arange(6) * HOP + WINDOW // 2
    assert all(((middles >= a) & (middles <= a + samples)).any() for a in at)


def written(folder: Path) -> tuple[Path, Ge2eNetwork]:
    torch.manual_seed(1)
    network = Ge2eNetwork()
    state = {**network.state_dict(), "similarity_weight": torch.ones(1)}
    path = folder / "pretrained.pt"
    torch.save({"step": 1, "model_state": state}, path)
    return path, network


def test_the_teacher_is_read_from_its_file(tmp_path: Path) -> None:
    path, network = written(tmp_path)
    voices = torch.from_numpy(clips().pcm[1][: 2 * WINDOW - WINDOW % 2].astype(np.float32))[None, :WINDOW]
    got = Ge2eNetwork.load(path)(voices)
    torch.testing.assert_close(got, network(voices))
    assert got.norm().item() == pytest.approx(1, abs=1e-5)
    assert got.min() >= 0
    torch.testing.assert_close(Ge2eNetwork.load(path)(voices * 7), got, atol=1e-4, rtol=0)


def test_a_damaged_or_missing_teacher_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = written(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(IntegrityError, match="resemblyzer"):
        Ge2eNetwork.load(path)
    torch.save({"model_state": {"linear.weight": torch.zeros(3)}}, path)
    with pytest.raises(IntegrityError, match="resemblyzer"):
        Ge2eNetwork.load(path)
    with pytest.raises(EnvironmentFault, match="cannot be read"):
        Ge2eNetwork.load(tmp_path / "none.pt")
    monkeypatch.setattr(teachers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentFault, match="not installed"):
        Ge2eNetwork.load()


def test_the_teacher_says_what_the_package_says() -> None:
    if importlib.util.find_spec("resemblyzer") is None:
        pytest.skip("resemblyzer is not installed")
    from edgepin_training.teachers import VoiceTeacher

    time = np.arange(WINDOW) / 16_000
    pcm = (3000 * np.sin(2 * math.pi * 180 * time) * np.sin(2 * math.pi * 3 * time)).astype(np.int16)
    expected = VoiceTeacher().embed([pcm])
    got = Ge2eNetwork.load()(torch.from_numpy(pcm).float()[None]).numpy()
    np.testing.assert_allclose(got, expected, atol=1e-5)
