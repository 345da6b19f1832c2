"""Online faces: batches that repeat by step, whose rows belong together, labeled by the teacher's own view of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgepin._errors import IntegrityError, UsageError
from edgepin_training.distill import DistillOptions as Distillation
from edgepin_training.distill import TargetSpace, distill
from edgepin_training.edge_encoders import EdgeFaceEncoder
from edgepin_training.face_chips import FaceChips
from edgepin_training.face_tensors import WarpOptions
from edgepin_training.online_faces import OnlineFaceOptions, OnlineFaceSource

STILL = WarpOptions(plain=1.0)
SIZE = 20  # pairs: 2 of rendered people, 18 of real ones, of which 4 are of two captures and 7 blended


class Means(nn.Module):
    """A teacher that says the mean colors of 4x4 parts of a chip."""

    def forward(self, chips: Tensor) -> Tensor:
        parts = nn.functional.adaptive_avg_pool2d(chips.float().permute(0, 3, 1, 2), 4)
        return parts.flatten(1) / 255


def faces(people: int, captures: int, seed: int) -> FaceChips:
    """Each person is a picture; captures differ a little."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(people), captures)
    coarse = rng.uniform(20, 235, (people, 4, 4, 3))[labels] + rng.normal(0, 4, (len(labels), 4, 4, 3))
    crops = np.kron(coarse, np.ones((1, 16, 16, 1))).clip(0, 255).astype(np.uint8)
    maps = np.tile(np.array([[2.35, 0, 0], [0, 2.35, 0]], np.float32), (len(labels), 1, 1))
    return FaceChips(crops, labels, maps)


REAL, RENDERED = faces(30, 2, 1), faces(6, 3, 2)


def source(options: OnlineFaceOptions | None = None, **changes: object) -> OnlineFaceSource:
    given = {"batch_size": 2 * SIZE, "seed": 4, **changes}
    return OnlineFaceSource(REAL, RENDERED, Means(), options or OnlineFaceOptions(), **given)  # type: ignore[arg-type]


def test_defaults() -> None:
    options = OnlineFaceOptions()
    assert dataclasses.asdict(options) == {
        "warp": dataclasses.asdict(WarpOptions()),
        "blended": 0.4,
        "captures": 0.2,
        "rendered": 0.1,
        "augment": 1.0,
        "centering": 1.0,
    }


@pytest.mark.parametrize(
    "wrong", [{"blended": 1.2}, {"captures": -0.1}, {"blended": 0.7, "captures": 0.4}, {"augment": 4}]
)
def test_options_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        OnlineFaceOptions(**wrong)  # type: ignore[arg-type]


def test_a_batch_has_the_shapes_that_distillation_takes() -> None:
    made = source()
    batch = made.draw(0)
    assert batch.inputs.shape == (2 * SIZE, 64, 64, 3)
    assert batch.inputs.dtype == torch.uint8
    assert batch.targets.shape == (2 * SIZE, 256)
    torch.testing.assert_close(batch.targets.norm(dim=1), torch.ones(2 * SIZE))
    assert batch.labels.shape == (2 * SIZE,)
    assert batch.groups.shape == (SIZE,)
    assert made.classes == 36
    assert made.center.shape == (256,)
    assert not batch.targets.requires_grad


def test_the_same_step_gives_the_same_batch_and_another_step_another() -> None:
    one, again, other = source().draw(7), source().draw(7), source().draw(8)
    assert torch.equal(one.inputs, again.inputs)
    assert torch.equal(one.targets, again.targets)
    assert torch.equal(one.labels, again.labels)
    assert torch.equal(one.groups, again.groups)
    assert not torch.equal(one.inputs, other.inputs)
    assert not torch.equal(one.inputs, source(seed=5).draw(7).inputs)


def test_without_changes_a_target_is_what_the_teacher_says_of_a_clean_capture() -> None:
    made = source(OnlineFaceOptions(STILL, blended=0, augment=0))
    batch = made.draw(0)
    with torch.no_grad():
        clean = Means()(torch.from_numpy(_chips(REAL))).numpy()
        rendered = Means()(torch.from_numpy(_chips(RENDERED))).numpy()
    space = TargetSpace(clean, 1.0)
    torch.testing.assert_close(made.center, space.center, atol=2e-3, rtol=0)
    known = torch.from_numpy(np.concatenate([space(clean), space(rendered)]))
    labels = torch.from_numpy(np.concatenate([REAL.labels, 30 + RENDERED.labels]))
    nearest = (batch.targets @ known.T).max(dim=1)
    assert nearest.values.min() > 0.999
    assert torch.equal(labels[nearest.indices], batch.labels)
    # The student sees the capture that the teacher speaks of, or its mirror image.
    crops = torch.from_numpy(np.concatenate([REAL.crops, RENDERED.crops]))[nearest.indices].int()
    seen = batch.inputs.int()
    gap = torch.minimum((seen - crops).abs().amax((1, 2, 3)), (seen - crops.flip(2)).abs().amax((1, 2, 3)))
    assert gap.max() <= 1


def test_pairs_of_captures_are_two_of_one_person_and_other_pairs_one_capture() -> None:
    batch = source(OnlineFaceOptions(STILL, captures=0.5, blended=0)).draw(0)
    first, second = batch.targets.chunk(2)
    alike = (first == second).all(dim=1)
    assert int((~alike).sum()) == 2 + 9
    assert bool((~alike)[: 2 + 9].all())
    assert torch.equal(*batch.labels.chunk(2))
    assert (first * second).sum(dim=1).min() > 0.5  # the other capture of that person, and not of another


def test_people_are_known_only_where_nothing_was_warped_or_blended() -> None:
    plain = source(OnlineFaceOptions(STILL)).draw(0)
    assert (plain.labels[: SIZE - 7] >= 0).all()
    assert (plain.labels[SIZE - 7 : SIZE] == -1).all()
    assert (plain.labels[:2] >= 30).all()
    assert (plain.labels[2 : SIZE - 7] < 30).all()
    warped = source(OnlineFaceOptions(WarpOptions(plain=0.0))).draw(0)
    assert (warped.labels == -1).all()
    # Warps of one person are no strangers to each other; a blend is nobody else.
    assert torch.equal(warped.groups[: SIZE - 7], plain.groups[: SIZE - 7])
    assert (warped.groups[SIZE - 7 :] < 0).all()
    assert len(warped.groups[SIZE - 7 :].unique()) == 7


def test_a_capture_of_a_pair_is_never_blended_even_where_both_shares_are_rounded_up() -> None:
    made = source(OnlineFaceOptions(STILL, blended=0.7, captures=0.3, rendered=0), batch_size=10)
    batch = made.draw(0)
    assert (batch.labels[:2] >= 0).all()  # 0.3 x 5, rounded
    assert (batch.labels[2:5] == -1).all()


def test_a_blend_is_to_the_teacher_in_between() -> None:
    options = OnlineFaceOptions(dataclasses.replace(STILL, blend=(0.5, 0.5)), captures=0, centering=0)
    made, unblended = source(options), source(dataclasses.replace(options, blended=0))
    blends, known = made.draw(3).targets[SIZE - 7 : SIZE], unblended.draw(3).targets[:SIZE]
    cosines = blends @ known[SIZE - 7 :].T
    own = cosines.diagonal()
    assert own.max() < 0.999
    assert (own >= cosines.amax(dim=1) - 0.03).float().mean() > 0.5


def test_embeddings_that_are_there_already_define_the_same_space() -> None:
    with torch.no_grad():
        clean = Means()(torch.from_numpy(_chips(REAL))).numpy()
    given, found = source(clean=clean), source()
    torch.testing.assert_close(given.center, found.center, atol=2e-3, rtol=0)
    with pytest.raises(UsageError, match="do not go with"):
        source(clean=clean[:-1])


def test_a_batch_that_the_captures_cannot_fill_is_refused() -> None:
    with pytest.raises(UsageError, match="more captures"):
        source(batch_size=400)
    with pytest.raises(UsageError, match="more captures"):
        source(batch_size=2)


def test_people_with_one_capture_are_enough() -> None:
    single = faces(30, 1, 1)
    made = OnlineFaceSource(single, RENDERED, Means(), OnlineFaceOptions(), batch_size=20)
    assert made.draw(0).inputs.shape == (20, 64, 64, 3)


def test_unknown_people_stay_unknown() -> None:
    unknown = FaceChips(REAL.crops, np.where(REAL.labels < 20, REAL.labels, -1), REAL.maps)
    made = OnlineFaceSource(unknown, RENDERED, Means(), OnlineFaceOptions(STILL), batch_size=2 * SIZE)
    batches = [made.draw(step) for step in range(4)]
    labels = torch.cat([batch.labels for batch in batches])
    assert set(labels.tolist()) <= {-1, *range(26)}
    for batch in batches:
        assert len(batch.groups[batch.groups < 0].unique()) == int((batch.groups < 0).sum())


def test_maps_that_do_not_go_with_their_crops_are_refused() -> None:
    with pytest.raises(IntegrityError):
        FaceChips(REAL.crops, REAL.labels, REAL.maps[:-1])


def test_distillation_runs_on_it(tmp_path: object) -> None:
    options = Distillation(steps=2, batch_size=2 * SIZE, warmup=1, save_every=2)
    figures: list[dict[str, float]] = []
    distill(EdgeFaceEncoder(0.25), source(), options, tmp_path, told={}, report=figures.append)  # type: ignore[arg-type]
    assert len(figures) == 2
    assert all(np.isfinite(value) for line in figures for value in line.values())


def _chips(given: FaceChips) -> np.ndarray:
    import cv2

    return np.stack(
        [
            cv2.warpAffine(crop, matrix, (150, 150), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
            for crop, matrix in zip(given.crops, given.maps, strict=True)
        ]
    )
