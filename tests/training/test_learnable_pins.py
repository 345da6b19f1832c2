"""The paper's method, the two-stage form and further modalities, trained end to end on tiny corpora.

Reduced for the test: encoders of a sixteenth of the paper's channels, crops of 64 px for 224, 1 s of sound for 3, batches of
8 to 24 for 256, and a few steps. What the configurations say otherwise is what runs.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from edgepin._errors import IntegrityError, UsageError
from edgepin.metrics import auc
from edgepin_training import registry
from edgepin_training._cli import CONFIGS
from edgepin_training.checkpoint import CHECKPOINT_FILE, load_run
from edgepin_training.config import TrainConfig
from edgepin_training.corpus import Corpus, Modality, tracks_of
from edgepin_training.registry import build_encoder, register_encoder
from edgepin_training.rendered import GAIT_SHAPE, SETTINGS, make_people, render_gait
from edgepin_training.trainer import Sampler, train

REDUCED = {"face_width": 0.06, "voice_width": 0.06, "face_size": 64, "voice_seconds": 1.0, "batch_size": 8}


def noise_corpus(people: int = 6, tracks: int = 2) -> Corpus:
    """Flat faces and tones, two recordings of each person, two captures of each recording."""
    rng = np.random.default_rng(0)
    time = np.arange(16000) / 16000
    crops, sounds, names = [], [], []
    for person in range(people):
        for track in range(tracks):
            for _ in range(2):
                crops.append(np.clip(40 * person + rng.normal(0, 4, (64, 64, 3)), 0, 255).astype(np.uint8))
                tone = 6000 * np.sin(2 * np.pi * 250 * 1.6**person * time) + rng.normal(0, 60, 16000)
                sounds.append(tone.astype(np.int16))
                names.append(f"video{track}")
    labels = np.repeat(np.arange(people), 2 * tracks)
    people_names = tuple(f"p{i}" for i in range(people))
    return Corpus(
        Modality(people_names, labels, crops, {}, tuple(names)),
        Modality(people_names, labels, sounds, {}, tuple(names)),
        {name: name for name in people_names},
    )


def packaged(name: str, **changes: object) -> TrainConfig:
    return dataclasses.replace(TrainConfig.read(CONFIGS / f"{name}.toml"), **changes)


def weights(out: Path) -> dict[str, Tensor]:
    return load_file(out / CHECKPOINT_FILE)


class Stopped(Exception):
    pass


def train_until(corpus: Corpus, config: TrainConfig, out: Path, step: int) -> None:
    def report(figures: dict[str, float]) -> None:
        if figures["step"] == step:
            raise Stopped

    with pytest.raises(Stopped):
        train(corpus, config, out, report=report)


def test_the_packaged_configuration_is_the_papers() -> None:
    config = TrainConfig.read(CONFIGS / "learnable_pins.toml")
    assert (config.encoders, config.face_size, config.voice_seconds, config.face_width) == (
        "vggm",
        224,
        3.0,
        1.0,
    )
    assert (config.cross_modal_loss, config.cross_modal_margin, config.mining) == (
        "contrastive",
        0.6,
        "curriculum",
    )
    assert config.hardness == (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
    assert (config.optimizer, config.batch_size, config.positives) == ("sgd", 256, "track")
    assert config.identity_weight == config.contrastive_weight == 0


def test_the_papers_method_trains_and_resumes_exactly(tmp_path: Path) -> None:
    config = packaged("learnable_pins", **REDUCED, steps=6, save_every=2, warmup=1)
    corpus = noise_corpus()
    figures: list[dict[str, float]] = []
    train(corpus, config, tmp_path / "whole", report=figures.append)
    assert [row["hardness"] for row in figures] == [0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    assert all(np.isfinite(row["cross_modal_loss"]) for row in figures)
    assert not {"face_loss", "voice_loss"} & figures[0].keys(), "nobody is labelled"
    train_until(corpus, config, tmp_path / "halves", 5)
    train(corpus, config, tmp_path / "halves")
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "halves")
    assert one.keys() == other.keys()
    assert any("momentum" in name for name in one)
    assert [name for name, value in one.items() if not torch.equal(value, other[name])] == []
    run = load_run(tmp_path / "whole")
    with torch.no_grad():
        identity, pin = run.face(torch.zeros(2, 64, 64, 3, dtype=torch.uint8))
    assert identity.shape == pin.shape == (2, 256)


def test_the_papers_encoders_are_not_exported(tmp_path: Path) -> None:
    export = pytest.importorskip("edgepin_export._cli", reason="the export package is not here").export
    train(noise_corpus(), packaged("learnable_pins", **REDUCED, steps=1), tmp_path / "run")
    result = CliRunner().invoke(export, [str(tmp_path / "run"), "--out", str(tmp_path / "x.pin")])
    assert result.exit_code == 2
    assert "spectrograms" in result.stderr


def test_a_pair_is_a_face_and_a_voice_of_one_recording() -> None:
    corpus = noise_corpus()
    assert len(tracks_of(corpus)) == 12
    sampler = Sampler(corpus, packaged("learnable_pins", **REDUCED))
    for step in range(3):
        batch = sampler.draw(step)
        assert batch.log_mels.shape == (8, 100, 512)
        assert torch.equal(batch.face_labels, batch.voice_labels)
        assert batch.paired.tolist() == list(range(8))
        assert len(set(batch.pair_labels.tolist())) == 8, "each recording is a class of its own"
        assert len(set(batch.face_labels.tolist())) < 8


def test_a_recording_that_only_one_side_has_makes_no_pair() -> None:
    corpus = noise_corpus(people=2)
    heard = tuple("other" if name == "video1" else name for name in corpus.voices.tracks)
    corpus = dataclasses.replace(corpus, voices=dataclasses.replace(corpus.voices, tracks=heard))
    assert tracks_of(corpus) == [("p0", [0, 1], [0, 1]), ("p1", [4, 5], [4, 5])]
    flat = dataclasses.replace(
        corpus,
        faces=dataclasses.replace(corpus.faces, tracks=()),
        voices=dataclasses.replace(corpus.voices, tracks=()),
    )
    assert [len(faces) for _, faces, _ in tracks_of(flat)] == [4, 4]


def test_training_starts_from_a_runs_encoders(tmp_path: Path) -> None:
    config = packaged("learnable_pins", **REDUCED, steps=1, save_every=1)
    train(noise_corpus(), config, tmp_path / "first")
    again = dataclasses.replace(config, init=str(tmp_path / "first"), learning_rate=1e-12, seed=5)
    train(noise_corpus(), again, tmp_path / "second")
    one, other = weights(tmp_path / "first"), weights(tmp_path / "second")
    name = "model.face.trunk.0.0.weight"
    assert torch.allclose(one[name], other[name], atol=1e-7)


def test_init_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    config = packaged("learnable_pins", **REDUCED, steps=1)
    save_file({"face.something": torch.zeros(3)}, tmp_path / "other.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0nonsense")
    cases = (("none", UsageError), ("other.safetensors", UsageError), ("damaged.safetensors", IntegrityError))
    for number, (name, error) in enumerate(cases):
        with pytest.raises(error):
            train(
                noise_corpus(), dataclasses.replace(config, init=str(tmp_path / name)), tmp_path / str(number)
            )
        assert not (tmp_path / str(number) / CHECKPOINT_FILE).exists()


TINY = {
    "face_width": 0.25,
    "voice_width": 0.25,
    "batch_size": 8,
    "voice_seconds": 0.5,
    "warmup": 1,
    "speeds": (1.0,),
}


def test_the_two_stages_train_a_head_on_frozen_encoders_and_resume(tmp_path: Path) -> None:
    corpus = noise_corpus()
    train(corpus, TrainConfig(**TINY, steps=2, cross_modal_weight=0.0, save_every=2), tmp_path / "unimodal")
    config = packaged("siamese_triplet", **TINY, steps=4, save_every=2)
    with pytest.raises(UsageError, match="trained encoders"):
        train(corpus, config, tmp_path / "untrained")
    config = dataclasses.replace(config, init=str(tmp_path / "unimodal"))
    train(corpus, config, tmp_path / "whole")
    train_until(corpus, config, tmp_path / "halves", 3)
    train(corpus, config, tmp_path / "halves")
    whole, halves, before = (weights(tmp_path / name) for name in ("whole", "halves", "unimodal"))
    assert all(torch.equal(value, halves[name]) for name, value in whole.items())
    for modality in ("face", "voice"):
        frozen = [name for name in before if name.startswith(f"model.{modality}.")]
        assert frozen
        for name in frozen:
            kept = whole[name.replace(f"model.{modality}.", f"model.{modality}.encoder.")]
            assert torch.equal(before[name], kept), f"{name} has moved"
    start = load_run(tmp_path / "halves").face.state_dict()
    assert any(name.startswith("head.") for name in start)


class GaitEncoder(nn.Module):
    """The power of each joint's swing over frequency, (N, 50, 8), and two layers."""

    def __init__(self) -> None:
        super().__init__()
        frames, joints = GAIT_SHAPE
        self.body = nn.Sequential(nn.Linear((frames // 2 + 1) * joints, 64), nn.BatchNorm1d(64), nn.ReLU())
        self.identity, self.pin = nn.Linear(64, 256), nn.Linear(64, 256)

    def forward(self, gait: Tensor) -> tuple[Tensor, Tensor]:
        x = self.body(torch.log(torch.fft.rfft(gait, dim=1).abs() + 0.1).flatten(1))
        return functional.normalize(self.identity(x), dim=1), functional.normalize(self.pin(x), dim=1)


class FactorEncoder(nn.Module):
    """Stands for a face or voice encoder: a flat crop or a tone tells it the factor, and little has to be learnt."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.body = nn.Sequential(nn.Linear(4, 64), nn.BatchNorm1d(64), nn.ReLU())
        self.identity, self.pin = nn.Linear(64, 256), nn.Linear(64, 256)

    def forward(self, item: Tensor) -> tuple[Tensor, Tensor]:
        if self.kind == "face":
            x = (item.float()[:, ::16, 32, 0] - 128) / 30
        else:
            x = item.mean(dim=1).unflatten(1, (4, -1)).mean(dim=2)
        x = self.body(x)
        return functional.normalize(self.identity(x), dim=1), functional.normalize(self.pin(x), dim=1)


def walking_corpus(first: int, count: int) -> Corpus:
    """People whose expressed factors are bands of a crop and of a noise, and whose gaits are rendered."""
    rng = np.random.default_rng(first)
    crops, sounds, gaits = [], [], []
    bands = np.repeat(np.arange(4), 16)
    for person in make_people(count, seed=1, first=first, setting=SETTINGS["reference"]):
        for capture in range(2):
            rows = 128 + 30 * person.expressed("face")[bands] + rng.normal(0, 2, 64)
            crops.append(np.clip(np.tile(rows[:, None, None], (1, 64, 3)), 0, 255).astype(np.uint8))
            spectrum = np.fft.rfft(rng.standard_normal(8000))
            gain = np.exp(0.4 * person.expressed("voice"))[np.minimum(np.arange(4001) // 1000, 3)]
            sounds.append((800 * np.fft.irfft(spectrum * gain, 8000)).astype(np.int16))
            gaits.append(render_gait(person, 2 * person.index + capture))
    labels = np.repeat(np.arange(count), 2)
    names = tuple(f"person-{first + i:04d}" for i in range(count))
    return Corpus(
        Modality(names, labels, crops, {}),
        Modality(names, labels, sounds, {}),
        {name: name for name in names},
        others={"gait": Modality(names, labels, gaits, {})},
    )


@pytest.fixture
def third(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        registry, "_ENCODERS", {key: dict(value) for key, value in registry._ENCODERS.items()}
    )
    register_encoder("gait", lambda config, shape: GaitEncoder())
    register_encoder("face", lambda config, shape: FactorEncoder("face"))
    register_encoder("voice", lambda config, shape: FactorEncoder("voice"))


@pytest.mark.usefixtures("third")
def test_a_third_modality_is_matched_with_face_and_voice(tmp_path: Path) -> None:
    config = TrainConfig(
        steps=60, batch_size=64, warmup=5, learning_rate=5e-3, augment=0.0, voice_seconds=0.4, speeds=(1.0,),
        save_every=100, identity_weight=0.0, contrastive_weight=0.0,
    )  # fmt: skip
    train(walking_corpus(0, 200), config, tmp_path)
    run = load_run(tmp_path)
    assert list(run.others) == ["gait"]
    unseen = walking_corpus(1000, 60)
    sampler = Sampler(unseen, dataclasses.replace(config, batch_size=120))
    batch = sampler.draw(0)
    with torch.no_grad():
        pins = {
            "face": run.face(batch.faces)[1],
            "voice": run.voice(batch.log_mels)[1],
            "gait": run.others["gait"](batch.others["gait"])[1],
        }
    same = (batch.pair_labels[:, None] == batch.pair_labels[None, :]).numpy().ravel()
    for one, other in (("face", "voice"), ("face", "gait"), ("voice", "gait")):
        assert auc((pins[one] @ pins[other].T).numpy().ravel(), same) > 0.7, (one, other)


@pytest.mark.usefixtures("third")
def test_who_lacks_the_third_modality_is_named(tmp_path: Path) -> None:
    corpus = walking_corpus(0, 6)
    gait = corpus.others["gait"]
    short = Modality(gait.names[:5], gait.labels[:10], gait.items[:10], {})
    with pytest.raises(UsageError, match="1 paired people have no gait, the first is 'person-0005'"):
        train(dataclasses.replace(corpus, others={"gait": short}), TrainConfig(**TINY), tmp_path)


def test_a_modality_that_nobody_registered_is_refused() -> None:
    with pytest.raises(UsageError, match="'iris'") as caught:
        build_encoder("iris", TrainConfig(), GAIT_SHAPE)
    assert "face" in (caught.value.hint or "")
