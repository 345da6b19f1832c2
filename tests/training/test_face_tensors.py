"""New faces: nothing changes where nothing is warped, and the teacher and the student are shown the same picture."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from edgepin._errors import UsageError
from edgepin_training.face_nuisances import moves
from edgepin_training.face_tensors import (
    LANDMARKS,
    Known,
    NewFaces,
    Warp,
    WarpOptions,
    inverse,
    pixels,
    similarity,
    transform,
)
from edgepin_training.teachers import CHIP_SIDE

# A crop is smaller than its chip, turned and shifted a little.
MAP = torch.tensor([[2.3, 0.2, 1.0], [-0.2, 2.3, 6.0]])
STILL = torch.eye(2, 3)


def known(count: int, seed: int = 0) -> Known:
    """Smooth pictures."""
    coarse = torch.rand(count, 3, 9, 9, generator=Generator().manual_seed(seed)) * 255
    crops = torch.nn.functional.interpolate(coarse, size=64, mode="bicubic").clamp(0, 255)
    return Known(crops.permute(0, 2, 3, 1).to(torch.uint8), MAP.expand(count, -1, -1))


def straight(count: int) -> Warp:
    return Warp.of(torch.zeros(count, 2, 4, 4), torch.ones(count), torch.zeros(count))


def none_of(faces: Known) -> tuple[Known, Tensor]:
    return faces[slice(0, 0)], torch.zeros(0)


def dot(x: float, y: float, maps: Tensor = MAP) -> Known:
    """A bright, soft dot at (x, y) of a dark crop."""
    square = (pixels(64, torch.device("cpu"))[0] - torch.tensor([x, y])).square().sum(dim=-1)
    image = 250 * torch.exp(-square / (2 * 1.5**2))
    return Known(image[None, :, :, None].expand(1, 64, 64, 3).to(torch.uint8), maps[None])


def place(image: Tensor) -> Tensor:
    """The center of mass (x, y) of an image (S, S)."""
    weights = image.square()
    return (pixels(len(image), image.device)[0] * weights[..., None]).sum(dim=(0, 1)) / weights.sum()


def test_defaults() -> None:
    assert WarpOptions() == WarpOptions(plain=0.15, shift=0.03, width=0.16, halves=0.1, blend=(0.25, 0.75))


@pytest.mark.parametrize(
    "wrong", [{"plain": 1.1}, {"halves": -0.1}, {"shift": 0.2}, {"width": 0.6}, {"blend": (0.7, 0.3)}]
)
def test_options_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        WarpOptions(**wrong)  # type: ignore[arg-type]


def test_without_a_warp_the_student_sees_the_crop_itself() -> None:
    faces = known(3)
    seen = NewFaces(faces, straight(3), *none_of(faces)).crops(STILL.expand(3, -1, -1))
    torch.testing.assert_close(seen, faces.crops.permute(0, 3, 1, 2).float(), atol=0.1, rtol=0)


def test_without_a_warp_the_teacher_sees_the_chip_that_an_affine_map_cuts() -> None:
    faces = known(1)
    chip = NewFaces(faces, straight(1), *none_of(faces)).chips()[0]
    crop = faces.crops[0].float().numpy()
    expected = cv2.warpAffine(
        crop, MAP.numpy(), (CHIP_SIDE, CHIP_SIDE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    # OpenCV's places are whole 32nds of a pixel.
    assert np.abs(chip.numpy() - expected.clip(0, 255)).max() < 2.5


def test_known_chips_are_those_of_faces_without_a_warp() -> None:
    faces = known(2)
    torch.testing.assert_close(
        faces.chips(), NewFaces(faces, straight(2), *none_of(faces)).chips(), atol=0.05, rtol=0
    )


@pytest.mark.parametrize("at", [(18.0, 38.0), (44.0, 30.0), (31.0, 45.0)])
@pytest.mark.parametrize("half", [0.0, 1.0])
def test_teacher_and_student_see_a_dot_at_the_same_place(at: tuple[float, float], half: float) -> None:
    generator = Generator().manual_seed(3)
    warp = Warp.of(
        torch.randn(1, 2, 4, 4, generator=generator) * 4, torch.tensor([1.12]), torch.tensor([half])
    )
    # Halves alike make two dots or none: the chip's other half is left out of the account.
    faces = NewFaces(dot(*at), warp, *none_of(dot(*at)))
    move = torch.tensor([[[0.97, 0.06, 1.0], [-0.06, 0.97, 2.0]]])
    chip, crop = faces.chips()[0, :, :, 0], faces.crops(move)[0, 0]
    points = transform(MAP[None], transform(move, pixels(64, torch.device("cpu"))))[0]
    seen = torch.where(points[..., 0] > 75, crop, 0) if half else crop
    chip = torch.where(pixels(CHIP_SIDE, torch.device("cpu"))[0, ..., 0] > 75, chip, 0) if half else chip
    if half and at[0] < 31:
        assert seen.max() < 30
        assert chip.max() < 30
        return
    expected = transform(MAP[None], transform(move, place(seen)[None, None, None]))[0, 0, 0]
    assert (place(chip) - expected).norm() < 1.0  # of 150 px
    assert (place(chip) - transform(MAP[None], torch.tensor(at)[None, None, None])[0, 0, 0]).norm() > 1.0


def test_a_warp_leaves_no_turn_no_zoom_and_no_shift_of_the_landmarks() -> None:
    generator = Generator().manual_seed(0)
    nodes = torch.randn(6, 2, 4, 4, generator=generator) * 3
    nodes[:, 0] += 6  # all of it moves aside
    warp = Warp.of(nodes, torch.full((6,), 0.9), torch.zeros(6))
    wanted = torch.tensor(LANDMARKS).expand(6, -1, -1)
    found = wanted
    for _ in range(20):
        found = found - (warp(found[:, None])[:, 0] - wanted)
    torch.testing.assert_close(similarity(wanted, found), STILL.expand(6, -1, -1), atol=0.2, rtol=0.02)
    assert (found - wanted).norm(dim=2).max() > 1


def test_two_like_halves_are_mirror_images() -> None:
    faces = known(2)
    warp = Warp.of(torch.zeros(2, 2, 4, 4), torch.ones(2), torch.tensor([1.0, -1.0]))
    chips = NewFaces(faces, warp, *none_of(faces)).chips()
    plain = faces.chips()
    middle = LANDMARKS[4][0]
    assert middle == pytest.approx(74, abs=0.05)
    left, right = chips[:, 20:130, 10:74], chips[:, 20:130, 75:139].flip(2)
    torch.testing.assert_close(left, right, atol=1.5, rtol=0)
    torch.testing.assert_close(chips[0, :, 80:], plain[0, :, 80:], atol=0.1, rtol=0)
    torch.testing.assert_close(chips[1, :, :70], plain[1, :, :70], atol=0.1, rtol=0)


def test_a_blend_holds_both_faces_at_the_same_landmarks() -> None:
    """The partner's crop has another map; what is seen of it is its chip."""
    other = torch.tensor([[2.0, -0.1, 9.0], [0.1, 2.0, 12.0]])
    faces = known(3)
    partner = Known(known(1, seed=5).crops, other[None])
    new = NewFaces(faces, straight(3), partner, torch.tensor([0.25]))
    chips = new.chips()
    torch.testing.assert_close(chips[:2], faces.chips()[:2], atol=0.1, rtol=0)
    torch.testing.assert_close(
        chips[2], 0.75 * faces.chips()[2] + 0.25 * partner.chips()[0], atol=0.1, rtol=0
    )
    assert torch.equal(new.first(2).chips(), chips[:2])
    crop = new.crops(STILL.expand(3, -1, -1))[2].permute(1, 2, 0)
    sampled = cv2.warpAffine(
        chips[2].numpy(), inverse(MAP[None])[0].numpy(), (64, 64), flags=cv2.INTER_LINEAR
    )
    inner = slice(12, 52)
    assert np.abs(crop.numpy() - sampled)[inner, inner].max() < 5


def test_drawn_warps_depend_on_the_generator_alone_and_some_are_none() -> None:
    options = WarpOptions(plain=0.5, halves=0.5)
    one, plain = Warp.draw(200, Generator().manual_seed(1), options)
    two, _ = Warp.draw(200, Generator().manual_seed(1), options)
    other, _ = Warp.draw(200, Generator().manual_seed(2), options)
    assert torch.equal(one.nodes, two.nodes)
    assert torch.equal(one.upright, two.upright)
    assert not torch.equal(one.nodes, other.nodes)
    assert 60 < int(plain.sum()) < 140
    assert (one.nodes[plain] == 0).all()
    assert (one.width[plain] == 1).all()
    assert (one.half[plain] == 0).all()
    assert set(one.half[~plain].tolist()) == {-1.0, 0.0, 1.0}
    assert one.width.min() > np.exp(-0.16) - 1e-6
    assert one.width.max() < np.exp(0.16) + 1e-6
    assert one.nodes[~plain].std() == pytest.approx(0.03 * 150 * 0.64, rel=0.15)  # strengths of 0.2-1


def test_inverse_and_similarity_undo_maps() -> None:
    maps = moves(7, 64, Generator().manual_seed(0), 1.0)
    points = torch.rand(7, 4, 5, 2, generator=Generator().manual_seed(1)) * 64
    torch.testing.assert_close(transform(inverse(maps), transform(maps, points)), points, atol=1e-3, rtol=0)
    turned = maps.clone()
    turned[:, :, 0] *= torch.sign(maps[:, 0, 0] * maps[:, 1, 1])[:, None]  # without the mirror
    flat = points.flatten(1, 2)
    goal = transform(turned, points).flatten(1, 2)
    torch.testing.assert_close(similarity(flat, goal), turned, atol=1e-3, rtol=1e-4)
