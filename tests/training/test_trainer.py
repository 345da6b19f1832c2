"""The loop: what a batch holds, that a resumed run is the unbroken one, and that it learns."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from edgepin._errors import IntegrityError, UsageError
from edgepin_training.checkpoint import CHECKPOINT_FILE, RUN_FILE, load_run
from edgepin_training.config import TrainConfig
from edgepin_training.corpus import Corpus, Modality
from edgepin_training.trainer import Batch, Sampler, learning_rate, train

PEOPLE = 6
TINY = TrainConfig(
    steps=6,
    batch_size=8,
    save_every=3,
    warmup=2,
    face_width=0.25,
    voice_width=0.25,
    voice_seconds=0.5,
    speeds=(1.0, 0.9),
)


def toy(pairs: dict[str, str] | None = None, *, captures: int = 3) -> Corpus:
    """Person i has a flat face of a brightness and color of their own, and a tone of their own, both with noise.

    Speaker `vI` is person `fI`, but the pairs run against the labels: `v0` is the last face's.
    """
    rng = np.random.default_rng(0)
    time = np.arange(12000) / 16000
    crops, sounds = [], []
    for person in range(PEOPLE):
        for _ in range(captures):
            color = np.array([40 * person, 255 - 40 * person, 130 + 20 * (-1) ** person])
            crops.append(np.clip(color + rng.normal(0, 4, (64, 64, 3)), 0, 255).astype(np.uint8))
            # On and off, as speech is: what is constant over time the encoder takes for the microphone's.
            tone = np.sin(2 * np.pi * 250 * 1.6**person * time) * (np.sin(2 * np.pi * 8 * time) > 0)
            sounds.append((6000 * tone + rng.normal(0, 60, len(time))).astype(np.int16))
    labels = np.repeat(np.arange(PEOPLE), captures)
    if pairs is None:
        pairs = {f"v{i}": f"f{PEOPLE - 1 - i}" for i in range(PEOPLE)}
    return Corpus(
        Modality(tuple(f"f{i}" for i in range(PEOPLE)), labels, crops, {}),
        Modality(tuple(f"v{i}" for i in range(PEOPLE)), labels, sounds, {"damaged": 1}),
        pairs,
        sources={"faces": "toy"},
    )


class Stopped(Exception):
    pass


def train_until(corpus: Corpus, config: TrainConfig, out: Path, step: int) -> None:
    """Trains and is killed after `step`."""

    def report(figures: dict[str, float]) -> None:
        if figures["step"] == step:
            raise Stopped

    with pytest.raises(Stopped):
        train(corpus, config, out, report=report)


def tensors(out: Path) -> dict[str, Tensor]:
    return load_file(out / CHECKPOINT_FILE)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, float]]]:
    """An unbroken run of 6 steps, and what it reported."""
    out = tmp_path_factory.mktemp("unbroken")
    figures: list[dict[str, float]] = []
    train(toy(), TINY, out, report=figures.append)
    return out, figures


def test_losses_are_finite_and_reported_each_step(finished: tuple[Path, list[dict[str, float]]]) -> None:
    out, figures = finished
    assert [row["step"] for row in figures] == [1, 2, 3, 4, 5, 6]
    for row in figures:
        assert {"face_loss", "voice_loss", "face_contrast", "voice_contrast"} <= row.keys()
        assert all(np.isfinite(value) for value in row.values())
    assert any("cross_modal_loss" in row for row in figures)
    assert json.loads((out / "log.jsonl").read_text().splitlines()[-1])["step"] == 6
    assert all(torch.isfinite(value).all() for value in tensors(out).values())


def test_trained_run_loads_in_evaluation_mode(finished: tuple[Path, list[dict[str, float]]]) -> None:
    run = load_run(finished[0])
    assert (run.step, run.config) == (6, TINY)
    assert run.corpus["pairs"] == PEOPLE
    assert not run.face.training
    assert not run.voice.training
    saved = tensors(finished[0])
    for name, value in run.face.state_dict().items():
        assert torch.equal(value, saved[f"model.face.{name}"])


@pytest.mark.parametrize("killed_after", [3, 5])
def test_resumed_run_is_the_unbroken_one(
    tmp_path: Path, finished: tuple[Path, list[dict[str, float]]], killed_after: int
) -> None:
    train_until(toy(), TINY, tmp_path, killed_after)
    resumed: list[dict[str, float]] = []
    torch.manual_seed(999)  # another process has another state
    train(toy(), TINY, tmp_path, report=resumed.append)
    assert [row["step"] for row in resumed] == [4, 5, 6], "steps after the checkpoint are done again"
    expected, got = tensors(finished[0]), tensors(tmp_path)
    assert expected.keys() == got.keys()
    assert {name.split(".")[0] for name in got} == {"model", "optimizer"}
    differing = [name for name, value in expected.items() if not torch.equal(value, got[name])]
    assert not differing


def test_finished_run_is_left_as_it_is(finished: tuple[Path, list[dict[str, float]]]) -> None:
    before = (finished[0] / CHECKPOINT_FILE).read_bytes()
    train(toy(), TINY, finished[0], report=lambda _: pytest.fail("a step too many"))
    assert (finished[0] / CHECKPOINT_FILE).read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [{"steps": 9}, {"learning_rate": 1e-3}, {"seed": 1}, {"face_width": 0.5}],
    ids=lambda c: next(iter(c)),
)
def test_other_options_in_the_same_folder_are_refused(
    finished: tuple[Path, list[dict[str, float]]], change: dict[str, float]
) -> None:
    before = (finished[0] / RUN_FILE).read_bytes()
    with pytest.raises(UsageError, match="other options or data"):
        train(toy(), dataclasses.replace(TINY, **change), finished[0])
    assert (finished[0] / RUN_FILE).read_bytes() == before


def test_other_data_in_the_same_folder_is_refused(finished: tuple[Path, list[dict[str, float]]]) -> None:
    for corpus in (toy({}), toy(captures=2), dataclasses.replace(toy(), held_out={"v9": "f9"})):
        with pytest.raises(UsageError, match="other options or data"):
            train(corpus, TINY, finished[0])


@pytest.fixture
def copy(tmp_path: Path, finished: tuple[Path, list[dict[str, float]]]) -> Path:
    for name in (RUN_FILE, CHECKPOINT_FILE):
        (tmp_path / name).write_bytes((finished[0] / name).read_bytes())
    return tmp_path


@pytest.mark.parametrize("damage", ["empty", "cut", "header", "no step", "missing tensor", "other shape"])
def test_damaged_checkpoint_is_refused(copy: Path, damage: str) -> None:
    file = copy / CHECKPOINT_FILE
    data, values = file.read_bytes(), tensors(copy)
    name = next(name for name in values if name.startswith("model.face.") and name.endswith("weight"))
    if damage == "empty":
        file.write_bytes(b"")
    elif damage == "cut":
        file.write_bytes(data[:-100])
    elif damage == "header":
        file.write_bytes(data[:20] + b"\xff" * 20 + data[40:])
    elif damage == "no step":
        save_file(values, file)
    elif damage == "missing tensor":
        save_file({key: value for key, value in values.items() if key != name}, file, {"step": "6"})
    else:
        save_file({**values, name: torch.zeros(3)}, file, {"step": "6"})
    for read in (lambda: load_run(copy), lambda: train(toy(), TINY, copy)):
        with pytest.raises(IntegrityError, match="damaged"):
            read()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"config": {}}', '{"config": 3, "corpus": {}}'])
def test_damaged_run_file_is_refused(copy: Path, text: str) -> None:
    (copy / RUN_FILE).write_text(text)
    with pytest.raises(IntegrityError, match="damaged"):
        load_run(copy)


def test_folder_without_a_run_or_a_checkpoint_is_refused(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no training run"):
        load_run(tmp_path / "none")
    (copy / CHECKPOINT_FILE).unlink()
    with pytest.raises(UsageError, match="no checkpoint yet"):
        load_run(copy)


def whose(batch: Batch, corpus: Corpus) -> list[tuple[str, str]]:
    """(face, speaker) of each row, by the labels; a speed has classes of its own."""
    speakers = len(corpus.voices.names)
    return [
        (corpus.faces.names[int(face)], corpus.voices.names[int(voice) % speakers])
        for face, voice in zip(batch.face_labels, batch.voice_labels, strict=True)
    ]


def test_paired_rows_are_the_same_person() -> None:
    corpus = toy()
    sampler = Sampler(corpus, dataclasses.replace(TINY, augment=0.0))
    found = 0
    for step in range(8):
        batch = sampler.draw(step)
        people = whose(batch, corpus)
        for row, label in zip(batch.paired.tolist(), batch.pair_labels.tolist(), strict=True):
            face, speaker = people[row]
            assert corpus.pairs[speaker] == face
            assert corpus.faces.names[label] == face
            assert batch.voice_labels[row] < PEOPLE, "a voice at another speed is nobody's"
            found += 1
        # The label tells the truth about the pixels, too.
        reds = batch.faces.float().mean(dim=(1, 2))[:, 0]
        assert [round(float(red) / 40) for red in reds] == batch.face_labels.tolist()
        slowed = (batch.voice_labels >= PEOPLE).nonzero().flatten().tolist()
        assert sorted(slowed + batch.paired.tolist()) == list(range(TINY.batch_size))
    assert 8 < found < 8 * TINY.batch_size


def test_halves_of_a_batch_are_other_captures_of_the_same_people() -> None:
    corpus = toy()
    sampler = Sampler(corpus, dataclasses.replace(TINY, augment=0.0))
    for step in range(4):
        batch = sampler.draw(step)
        for labels in (batch.face_labels, batch.voice_labels):
            first, second = labels.chunk(2)
            assert torch.equal(first, second)
            assert len(set(first.tolist())) == len(first)
        first, second = batch.faces.chunk(2)
        for one, other in zip(first, second, strict=True):
            assert not torch.equal(one, other)
            assert not torch.equal(one, other.flip(1))


def test_speakers_of_one_person_are_no_negatives_of_each_other() -> None:
    corpus = toy({"v0": "f3", "v1": "f3", "v2": "f4", "v4": "f1"})
    batch = Sampler(corpus, dataclasses.replace(TINY, speeds=(1.0,))).draw(0)
    people = whose(batch, corpus)
    for row, label in zip(batch.paired.tolist(), batch.pair_labels.tolist(), strict=True):
        assert corpus.faces.names[label] == corpus.pairs[people[row][1]] == people[row][0]
    assert len(set(batch.pair_labels.tolist())) == 3


def test_batch_depends_on_seed_and_step_alone() -> None:
    corpus = toy()

    def draw(sampler: Sampler, step: int) -> list[Tensor]:
        return [
            value
            for field in dataclasses.fields(Batch)
            if isinstance(value := getattr(sampler.draw(step), field.name), Tensor)
        ]

    used = Sampler(corpus, TINY)
    for step in (0, 5, 1):
        used.draw(step)
    torch.manual_seed(5)
    np.random.default_rng().random()
    for step in (2, 0):
        same = zip(draw(used, step), draw(Sampler(toy(), TINY), step), strict=True)
        assert all(torch.equal(a, b) for a, b in same)
    assert not torch.equal(used.draw(2).log_mels, used.draw(3).log_mels)
    other = Sampler(corpus, dataclasses.replace(TINY, seed=1))
    assert not torch.equal(used.draw(2).log_mels, other.draw(2).log_mels)


def test_batch_has_the_shapes_that_the_encoders_take() -> None:
    batch = Sampler(toy(), TINY).draw(0)
    assert (batch.faces.shape, batch.faces.dtype) == ((8, 64, 64, 3), torch.uint8)
    assert (batch.log_mels.shape, batch.log_mels.dtype) == ((8, 48, 80), torch.float32)
    assert {batch.face_labels.dtype, batch.voice_labels.dtype, batch.paired.dtype} == {torch.int64}


def test_corpus_without_pairs_trains_without_the_cross_modal_loss(tmp_path: Path) -> None:
    figures: list[dict[str, float]] = []
    train(toy({}), dataclasses.replace(TINY, steps=1), tmp_path, report=figures.append)
    assert len(figures) == 1
    assert "cross_modal_loss" not in figures[0]
    assert load_run(tmp_path).corpus["pairs"] == 0


def test_learning_rate_warms_up_and_ends_near_zero() -> None:
    config = TrainConfig(steps=100, warmup=10, learning_rate=1.0)
    rates = [learning_rate(config, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 1e-3
    assert learning_rate(TrainConfig(warmup=0, learning_rate=1.0), 0) == 1.0


def test_faces_and_voices_of_the_paired_come_together(tmp_path: Path) -> None:
    config = dataclasses.replace(
        TINY,
        steps=40,
        batch_size=2 * PEOPLE,
        save_every=40,
        learning_rate=4e-3,
        dropout=0.0,
        augment=0.0,
        speeds=(1.0,),
    )
    losses: list[float] = []
    train(toy(), config, tmp_path, report=lambda figures: losses.append(figures["cross_modal_loss"]))
    # Guessing among one's own and ten others is log 11 = 2.4.
    assert losses[0] > 2.0
    assert max(losses[-3:]) < 0.5
