"""Distillation: the losses, the target space, and a training that learns, resumes exactly and can be made longer."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from edgepin._errors import IntegrityError, UsageError
from edgepin_training.distill import (
    DistillBatch,
    DistillOptions,
    TargetSpace,
    angle_loss,
    around,
    distill,
    learning_rate,
    relation_loss,
)
from edgepin_training.distill_state import STATE_FILE, load_average, read_told
from edgepin_training.encoders import Heads

TINY = DistillOptions(steps=8, batch_size=16, warmup=2, save_every=4, learning_rate=5e-3, average=4)


class Linear(nn.Module):
    """What distillation needs of an encoder: `trunk`, `heads`, and a state with running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(12, 32), nn.BatchNorm1d(32), nn.ReLU())
        self.heads = Heads(32, 0.1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.heads(self.trunk(x))


class People:
    """Captures are a person's vector with noise; the teacher is a fixed map of the vector."""

    classes = 20

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(9)
        self.vectors = rng.standard_normal((self.classes, 12)).astype(np.float32)
        teacher = np.tanh(self.vectors @ rng.standard_normal((12, 64)).astype(np.float32) / 3)
        space = TargetSpace(teacher, 1.0)
        self.targets, self.center, self.seed = space(teacher), space.center, seed

    def draw(self, step: int) -> DistillBatch:
        rng = np.random.default_rng((self.seed, step))
        half = rng.permutation(self.classes)[:8]
        people = np.concatenate([half, half])
        noise = rng.standard_normal((16, 12)).astype(np.float32)
        return DistillBatch(
            torch.from_numpy(self.vectors[people] + 0.2 * noise),
            torch.from_numpy(self.targets[people]),
            torch.from_numpy(np.where(people == 3, -1, people)),
            torch.from_numpy(half),
        )


def run(
    out: Path, options: DistillOptions = TINY, told: str = "", source: People | None = None
) -> dict[str, Tensor]:
    torch.manual_seed(5)
    encoder = Linear()
    distill(encoder, source or People(), options, out, told={"told": told})
    return encoder.state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def units(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(count, 256, generator=generator), dim=1)


def test_angle_loss_is_0_for_the_teacher_and_1_for_strangers() -> None:
    a = units(2000)
    shared = functional.normalize(torch.ones(256), dim=0)
    a = functional.normalize(a + shared, dim=1)  # around a mean, as teachers' embeddings are
    center = a.mean(dim=0)
    assert angle_loss(a, a, center).item() == pytest.approx(0, abs=1e-5)
    assert angle_loss(a, a.roll(1, 0), center).item() == pytest.approx(1, abs=0.01)


def test_relation_loss_sees_distances_and_not_rotations() -> None:
    a = units(12)
    rotation = torch.linalg.qr(torch.randn(256, 256, generator=torch.Generator().manual_seed(1)))[0]
    none = torch.zeros(256)
    assert relation_loss(a @ rotation, a, none).item() == pytest.approx(0, abs=1e-9)
    one, two, three = (functional.one_hot(torch.tensor(i), 256).float() for i in range(3))
    student = torch.stack([one, one, three])
    teacher = torch.stack([one, two, three])
    assert relation_loss(student, teacher, none).item() == pytest.approx(
        2 / 6
    )  # one pair of three, both ways


@pytest.mark.parametrize("centering", [0.0, 0.4, 1.0])
def test_the_target_space_keeps_the_angles_around_its_shift(centering: float) -> None:
    rng = np.random.default_rng(3)
    teacher = (rng.standard_normal((50, 20)) + 2).astype(np.float32)
    mapped = TargetSpace(teacher, centering)(teacher)
    assert mapped.shape == (50, 256)
    shifted = teacher - centering * teacher.mean(axis=0)
    shifted /= np.linalg.norm(shifted, axis=1, keepdims=True)
    np.testing.assert_allclose(mapped @ mapped.T, shifted @ shifted.T, atol=1e-5)


def test_a_teacher_of_too_many_dimensions_is_refused() -> None:
    with pytest.raises(UsageError, match="300 dimensions"):
        TargetSpace(np.ones((4, 300), np.float32), 0.0)


def test_around_the_center_are_unit_vectors() -> None:
    torch.testing.assert_close(around(units(5), units(1)[0] * 0.5).norm(dim=1), torch.ones(5))


def test_learning_rate_rises_stays_and_falls_to_0() -> None:
    options = DistillOptions(steps=100, warmup=10, decay=0.5, learning_rate=1.0)
    assert learning_rate(options, 0) == pytest.approx(0.1)
    assert {learning_rate(options, step) for step in range(10, 51)} == {1.0}
    assert learning_rate(options, 75) == pytest.approx(0.5)
    assert learning_rate(options, 99) == pytest.approx(0.5 * (1 + math.cos(math.pi * 49 / 50)))


def test_the_student_comes_near_the_teacher(tmp_path: Path) -> None:
    options = dataclasses.replace(
        TINY, steps=150, average=20, save_every=150, class_weight=0.0, contrast_weight=0.0
    )
    run(tmp_path, options)
    people, encoder = People(), Linear()
    assert load_average(encoder, tmp_path) == 150
    with torch.no_grad():
        identity = encoder(torch.from_numpy(people.vectors))[0]
    assert angle_loss(identity, torch.from_numpy(people.targets), people.center).item() < 0.25


@pytest.mark.parametrize("bfloat16", [False, True])
def test_a_resumed_run_is_the_unbroken_one(tmp_path: Path, bfloat16: bool) -> None:
    options = dataclasses.replace(TINY, bfloat16=bfloat16)
    unbroken = run(tmp_path / "unbroken", options)

    class Killed(People):
        def draw(self, step: int) -> DistillBatch:
            if step == 6:
                raise KeyboardInterrupt
            return super().draw(step)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", options, source=Killed())
    assert same(run(tmp_path / "broken", options), unbroken)


def test_a_longer_run_goes_on_from_the_shorter_one(tmp_path: Path) -> None:
    run(tmp_path)
    before = (tmp_path / "log.jsonl").read_text()
    run(tmp_path, dataclasses.replace(TINY, steps=20))
    after = (tmp_path / "log.jsonl").read_text()
    assert after.startswith(before)
    assert load_average(Linear(), tmp_path) == 20


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"learning_rate": 1e-3}, {"class_weight": 0.0}, {"told": "other"}]
)
def test_a_state_of_another_run_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    run(tmp_path)
    kept = (tmp_path / STATE_FILE).read_bytes()
    told = str(change.pop("told", ""))
    with pytest.raises(UsageError, match="other options or data"):
        run(tmp_path, dataclasses.replace(TINY, **change), told)
    assert (tmp_path / STATE_FILE).read_bytes() == kept


def test_a_state_says_what_its_run_was_told(tmp_path: Path) -> None:
    run(tmp_path, told="captures")
    told = read_told(tmp_path)
    assert (told["told"], told["batch_size"]) == ("captures", TINY.batch_size)
    assert "steps" not in told  # more of them is the same run


class OnePlane(Linear):
    """Its first weights are (32, 1), which would broadcast into (32, 12)."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk[0] = nn.Linear(1, 32)


def test_weights_of_another_encoder_are_refused_and_not_stretched(tmp_path: Path) -> None:
    run(tmp_path)
    state = load_file(tmp_path / STATE_FILE)
    with pytest.raises(UsageError, match=r"another encoder: its trunk\.0\.weight"):
        load_average(OnePlane(), tmp_path)
    with pytest.raises(UsageError, match="another encoder"):
        distill(OnePlane(), People(), dataclasses.replace(TINY, steps=9), tmp_path, told={"told": ""})
    narrow = {n: v[:, :1].contiguous() if n == "average.trunk.0.weight" else v for n, v in state.items()}
    save_file(narrow, tmp_path / STATE_FILE, metadata={"step": "8", "identity": "{}"})
    with pytest.raises(UsageError, match="another encoder"):
        load_average(Linear(), tmp_path)


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    data = (tmp_path / STATE_FILE).read_bytes()
    (tmp_path / STATE_FILE).write_bytes(data[: len(data) // 2])
    with pytest.raises(IntegrityError, match="damaged"):
        run(tmp_path, dataclasses.replace(TINY, steps=20))
    with pytest.raises(UsageError, match="no distillation"):
        load_average(Linear(), tmp_path / "nowhere")


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    class Broken(People):
        def draw(self, step: int) -> DistillBatch:
            batch = super().draw(step)
            return dataclasses.replace(batch, inputs=batch.inputs * math.nan)

    with pytest.raises(UsageError, match="not finite"):
        run(tmp_path, source=Broken())


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"batch_size": 7},
        {"learning_rate": 0.0},
        {"decay": 0.0},
        {"class_weight": -1.0},
        {"temperature": 0.0},
    ],
)
def test_options_out_of_range_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        DistillOptions(**change)  # type: ignore[arg-type]
