"""Rendered people in memory: what is drawn of them, and that a run trains on them and is measured."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.reference import fit_pins
from benchmarks.rendered_people import against_oracle
from benchmarks.resident_people import (
    CAPTURES,
    ResidentPeople,
    ResidentSampler,
    corpus_of,
    load_resident,
    render_here,
)

from edgepin_training.checkpoint import load_run
from edgepin_training.config import TrainConfig
from edgepin_training.trainer import train

CONFIG = TrainConfig(
    steps=2, batch_size=6, warmup=1, voice_seconds=0.5, speeds=(1.0,), face_width=0.25, voice_width=0.25,
    identity_weight=0.0,
)  # fmt: skip
FRAMES = 48  # of half a second


@pytest.fixture
def people() -> ResidentPeople:
    """Row r is filled with r, in frames 10 * r + their own number; the crops' left half alone."""
    rows = 5 * CAPTURES
    counts = torch.arange(FRAMES, FRAMES + rows)
    starts = torch.cumsum(counts, 0) - counts
    crops = torch.zeros((rows, 64, 64, 3), dtype=torch.uint8)
    crops[:, :, :32] = 1 + torch.arange(rows, dtype=torch.uint8)[:, None, None, None]
    frames = torch.cat([100.0 * row + torch.arange(int(count)) for row, count in enumerate(counts)])
    return ResidentPeople(crops, frames[:, None].expand(-1, 80).half().contiguous(), starts, counts)


def test_a_row_has_a_face_and_a_voice_of_its_person_and_the_other_half_the_other_captures(
    people: ResidentPeople,
) -> None:
    sampler = ResidentSampler(people, CONFIG)
    flips, offsets = set(), set()
    for step in range(60):
        batch = sampler.draw(step)
        rows = batch.faces.flatten(1).amax(dim=1).long() - 1
        voices = batch.log_mels[:, 0, 0].long() // 100
        assert torch.equal(rows // CAPTURES, batch.face_labels)
        assert torch.equal(voices // CAPTURES, batch.voice_labels)
        assert len(set(batch.face_labels.tolist())) == 3
        for drawn in (rows, voices):
            assert torch.all(drawn.chunk(2)[0] != drawn.chunk(2)[1])
        assert batch.log_mels.shape == (6, FRAMES, 80)
        last = batch.log_mels[:, -1, 0] - 100 * voices
        assert torch.all((last >= FRAMES - 1) & (last < people.counts[voices]))
        flips |= set((batch.faces[:, 0, 0, 0] == 0).tolist())
        offsets |= set((last - FRAMES + 1).tolist())
    assert flips == {False, True}
    assert {0.0, 1.0, 2.0} <= offsets


def test_a_batch_depends_on_the_seed_and_the_step_alone(people: ResidentPeople) -> None:
    first, again = ResidentSampler(people, CONFIG), ResidentSampler(people, CONFIG)
    again.draw(0)
    assert torch.equal(first.draw(3).log_mels, again.draw(3).log_mels)
    other = ResidentSampler(people, dataclasses.replace(CONFIG, seed=1))
    assert not torch.equal(first.draw(3).log_mels, other.draw(3).log_mels)


def test_a_run_trains_on_them_and_is_held_against_the_oracle(people: ResidentPeople, tmp_path: Path) -> None:
    train(corpus_of(people, CONFIG), CONFIG, tmp_path, sampler=ResidentSampler(people, CONFIG), device="cpu")
    run = load_run(tmp_path)
    assert (run.step, run.corpus["pairs"]) == (2, 5)
    unseen = render_here(4, 100_000, CONFIG)
    assert against_oracle(run, unseen)["people"] == 4
    assert {crop.shape for crop in unseen.faces.items} == {(64, 64, 3)}


def test_what_was_rendered_is_read_up_to_the_first_gap(tmp_path: Path) -> None:
    for start in (0, 100, 300):
        counts = np.array([3, 4])
        np.savez(
            tmp_path / f"people-{start:07d}.npz",
            crops=np.full((2, 64, 64, 3), start // 100, np.uint8),
            frames=np.full((7, 80), start, np.float16),
            counts=counts,
        )
    there = load_resident(tmp_path, 400, torch.device("cpu"))
    assert there.counts.tolist() == [3, 4, 3, 4]
    assert there.starts.tolist() == [0, 3, 7, 10]
    assert there.crops[:, 0, 0, 0].tolist() == [0, 0, 1, 1]
    assert there.frames[6:8, 0].tolist() == [0, 100]


@torch.no_grad()
def test_canonical_pins_take_the_place_of_a_runs(tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(1)
    rows = 40 * CAPTURES
    counts = torch.full((rows,), FRAMES)
    people = ResidentPeople(
        torch.randint(0, 256, (rows, 64, 64, 3), dtype=torch.uint8, generator=rng),
        torch.randn(rows * FRAMES, 80, generator=rng).half(),
        torch.arange(rows) * FRAMES,
        counts,
    )
    with torch.enable_grad():
        train(corpus_of(people, CONFIG), CONFIG, tmp_path / "run", sampler=ResidentSampler(people, CONFIG))
    run = load_run(tmp_path / "run")
    before = run.face(people.crops[:4])
    chosen = fit_pins(run, people)
    assert chosen["people"] == 40
    identity, pin = run.face(people.crops[:4])
    assert torch.equal(identity, before[0])
    assert not pin[:, chosen["dimensions"] :].any()
    torch.testing.assert_close(pin.norm(dim=1), torch.ones(4))
