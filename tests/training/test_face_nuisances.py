"""The student's nuisances in batches: each is what its name says, and none of strength 0 changes anything but the side."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Generator, Tensor

from edgepin_training.face_nuisances import (
    blurring,
    compress,
    cover,
    degrade,
    lenses,
    light,
    moves,
    shrinking,
)


def pictures(count: int, seed: int = 0) -> Tensor:
    coarse = torch.rand(count, 3, 12, 12, generator=Generator().manual_seed(seed)) * 255
    return torch.nn.functional.interpolate(coarse, size=64, mode="bicubic").clamp(0, 255)


def test_without_strength_nothing_is_degraded_and_crops_are_only_flipped() -> None:
    images = pictures(5)
    made = degrade(images, Generator().manual_seed(0), 0.0)
    assert made.shape == (5, 64, 64, 3)
    assert made.dtype == torch.uint8
    assert torch.equal(made, images.round().to(torch.uint8).permute(0, 2, 3, 1))
    found = moves(40, 64, Generator().manual_seed(0), 0.0)
    still, flip = torch.eye(2, 3), torch.tensor([[-1.0, 0, 63], [0, 1, 0]])
    assert all(torch.allclose(one, still) or torch.allclose(one, flip) for one in found)
    assert 10 < int((found[:, 0, 0] < 0).sum()) < 30


def test_moves_are_of_the_size_of_those_of_single_crops() -> None:
    found = moves(4000, 64, Generator().manual_seed(0), 1.0)
    angle = torch.rad2deg(torch.atan(found[:, 1, 0] / found[:, 0, 0]))
    scale = (found[:, 0, 0] * found[:, 1, 1] - found[:, 0, 1] * found[:, 1, 0]).abs().sqrt().log()
    middle = found[:, :, :2].sum(dim=2) * 31.5 + found[:, :, 2] - 31.5
    assert 4.5 < angle.std() < 5.5
    assert 0.06 < scale.std() < 0.08
    assert 2.0 < middle.std() < 2.5


def test_the_same_generator_degrades_alike_and_rows_differ() -> None:
    images = pictures(1).expand(8, -1, -1, -1)
    one, two = (degrade(images, Generator().manual_seed(4), 1.0) for _ in range(2))
    assert torch.equal(one, two)
    assert len({row.numpy().tobytes() for row in one}) == 8
    assert not torch.equal(one, degrade(images, Generator().manual_seed(5), 1.0))


def test_some_rows_are_blurred_some_noisy_and_some_covered() -> None:
    line = torch.arange(64)
    checks = 60 + 120 * ((line[:, None] + line) % 2).float().expand(300, 3, 64, 64)
    made = degrade(checks, Generator().manual_seed(0), 1.0).float()
    contrast = (made[:, :, 1:] - made[:, :, :-1]).abs().mean(dim=(1, 2, 3))
    assert 0.25 < (contrast < 50).float().mean() < 0.5  # 1 - 0.7 x 0.85

    flat = degrade(torch.full((300, 3, 64, 64), 128.0), Generator().manual_seed(0), 1.0).float()
    bends = (flat[:, :, 2:] - 2 * flat[:, :, 1:-1] + flat[:, :, :-2]).abs().mean(dim=3)
    assert 0.2 < (bends.flatten(1).median(dim=1).values > 1).float().mean() < 0.4
    steps = (flat[:, 1:] - flat[:, :-1]).mean(dim=3).abs()
    edges = (steps.amax(dim=1) > 25).sum(dim=1)  # columns that a box ends in
    assert 0.15 < (edges > 6).float().mean() < 0.35


def test_a_blur_is_opencvs_and_none_is_exactly_none() -> None:
    images = pictures(2)
    lens = blurring(64, torch.tensor([1.2, 0.0]))[:, None]
    made = lens @ images @ lens.transpose(2, 3)
    expected = cv2.GaussianBlur(images[0].permute(1, 2, 0).numpy(), (0, 0), 1.2)
    inner = slice(6, 58)  # OpenCV reflects the border
    assert np.abs(made[0].permute(1, 2, 0).numpy() - expected)[inner, inner].max() < 0.5
    assert torch.equal(made[1], images[1])


def test_a_lower_resolution_is_opencvs_and_the_full_one_changes_nothing() -> None:
    images = pictures(2)
    lens = shrinking(64, torch.tensor([32.0, 64.0]))[:, None]
    made = lens @ images @ lens.transpose(2, 3)
    small = cv2.resize(images[0].permute(1, 2, 0).numpy(), (32, 32), interpolation=cv2.INTER_AREA)
    expected = cv2.resize(small, (64, 64), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(made[0].permute(1, 2, 0).numpy(), expected, atol=0.01)
    torch.testing.assert_close(made[1], images[1], atol=1e-3, rtol=0)
    odd = shrinking(64, torch.tensor([27.0]))
    torch.testing.assert_close(odd.sum(dim=2), torch.ones(1, 64))


def test_most_lenses_are_clear_and_none_changes_the_level() -> None:
    drawn = lenses(400, 64, Generator().manual_seed(0), 1.0)
    torch.testing.assert_close(drawn.sum(dim=2), torch.ones(400, 64))
    clear = (drawn - torch.eye(64)).abs().amax(dim=(1, 2)) < 1e-4
    assert 0.5 < clear.float().mean() < 0.7  # 0.7 x 0.85


def test_light_is_even_on_average_and_some_is_gray() -> None:
    lit = light(torch.full((600, 3, 8, 8), 128.0), Generator().manual_seed(0), 1.0)
    assert abs(float(lit.mean()) - 128) < 8
    colorful = torch.tensor([200.0, 120.0, 60.0]).view(1, 3, 1, 1).expand(600, 3, 8, 8)
    lit = light(colorful, Generator().manual_seed(0), 1.0)
    gray = (lit.amax(dim=1) - lit.amin(dim=1)).amax(dim=(1, 2)) < 0.01
    assert 0.07 < gray.float().mean() < 0.17  # 0.3 x 0.4


def test_a_cover_is_one_box_of_one_color_on_the_chosen_rows() -> None:
    images = torch.full((40, 3, 64, 64), -1.0)
    chosen = torch.arange(40) % 2 == 0
    made = cover(images, chosen, Generator().manual_seed(0))
    assert torch.equal(made[~chosen], images[~chosen])
    for image in made[chosen]:
        covered = image[0] >= 0
        rows, columns = covered.any(dim=1).sum(), covered.any(dim=0).sum()
        assert covered.sum() == rows * columns  # a box
        assert 7 <= rows <= 26
        assert 7 <= columns <= 26
        assert all(len(plane[covered].unique()) == 1 for plane in image)


def test_compression_leaves_what_jpeg_leaves() -> None:
    images = (30 + 0.75 * pictures(3)).round()
    qualities = torch.tensor([25.0, 50.0, 80.0])
    made = compress(images, qualities).clamp(0, 255)
    for image, coded, quality in zip(images, made, qualities.tolist(), strict=True):
        file = io.BytesIO()
        pixels = image.permute(1, 2, 0).to(torch.uint8).numpy()
        Image.fromarray(pixels).save(file, "JPEG", quality=int(quality), subsampling=0)
        expected = np.asarray(Image.open(file), np.float32)
        mine = coded.permute(1, 2, 0).numpy()
        lost, gone = np.abs(expected - pixels).mean(), np.abs(mine - pixels).mean()
        assert lost > 2.5
        assert gone == pytest.approx(lost, rel=0.03)
        assert np.abs(mine - expected).mean() < 1.2  # a coder rounds colors and pixels to whole numbers
