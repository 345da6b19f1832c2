"""Image files: what is decoded to RGB, and what is refused."""

from __future__ import annotations

import io
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from edgepin._capture.image import check_image, decode_image
from edgepin._errors import CaptureError, UsageError

from .mutations import mutated

ORIENTATION = 274  # the EXIF tag


def picture(height: int = 40, width: int = 60) -> np.ndarray:
    """Red grows to the right and green to the bottom; blue marks the top left quarter."""
    rgb = np.zeros((height, width, 3), dtype=np.uint8)
    rgb[..., 0] = np.linspace(0, 255, width).astype(np.uint8)
    rgb[..., 1] = np.linspace(0, 255, height).astype(np.uint8)[:, None]
    rgb[: height // 2, : width // 2, 2] = 200
    return rgb


def encoded(image: np.ndarray | Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image.save(file, format, **options)
    return file.getvalue()


def refused(source: Any, **options: Any) -> str:
    with pytest.raises(CaptureError) as caught:
        decode_image(source, **options)
    assert caught.value.hint
    return caught.value.code


def png(width: int, height: int) -> bytes:
    """A PNG that declares a size and brings one row."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1 + 3 * min(width, 1_000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("format", "options"), [("PNG", {}), ("BMP", {}), ("PPM", {}), ("WEBP", {"lossless": True})]
)
def test_lossless_formats_decode_exactly(format: str, options: dict[str, Any]) -> None:
    decoded = decode_image(encoded(picture(), format, **options))
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, picture())


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_jpeg_decodes_to_the_picture(options: dict[str, Any]) -> None:
    decoded = decode_image(encoded(picture(), "JPEG", quality=95, **options))
    assert np.abs(decoded.astype(int) - picture()).mean() < 4


def test_a_path_and_its_bytes_decode_alike(tmp_path: Path) -> None:
    path = tmp_path / "face.jpg"
    path.write_bytes(encoded(picture()))
    for source in (path, str(path)):
        np.testing.assert_array_equal(decode_image(source), picture())


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, lambda i: i),
        (2, lambda i: i[:, ::-1]),
        (3, lambda i: i[::-1, ::-1]),
        (4, lambda i: i[::-1]),
        (5, lambda i: i.transpose(1, 0, 2)),
        (6, lambda i: np.rot90(i, -1)),
        (7, lambda i: np.rot90(i, 2).transpose(1, 0, 2)),
        (8, lambda i: np.rot90(i, 1)),
    ],
)
@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_the_exif_orientation_is_applied(orientation: int, turned: Any, format: str) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"lossless": True} if format == "WEBP" else {}
    decoded = decode_image(encoded(picture(), format, exif=exif, **options))
    np.testing.assert_array_equal(decoded, turned(picture()))


def test_gray_palette_and_cmyk_become_rgb() -> None:
    image = Image.fromarray(picture())
    gray = np.asarray(image.convert("L"))
    np.testing.assert_array_equal(decode_image(encoded(image.convert("L"))), np.stack([gray] * 3, axis=2))
    palette = image.convert("P", palette=Image.Palette.ADAPTIVE)
    np.testing.assert_array_equal(decode_image(encoded(palette)), np.asarray(palette.convert("RGB")))
    bits = decode_image(encoded(image.convert("1")))
    assert set(np.unique(bits)) == {0, 255}
    assert decode_image(encoded(image.convert("CMYK"), "JPEG")).shape == (40, 60, 3)


def test_sixteen_bit_gray_keeps_its_upper_byte() -> None:
    wide = np.linspace(0, 65535, 2_400).astype(np.uint16).reshape(40, 60)
    for format in ("PNG", "PPM"):
        decoded = decode_image(encoded(Image.fromarray(wide), format))
        assert np.abs(decoded[..., 0].astype(int) - (wide >> 8)).max() <= 1
        assert (decoded[..., 0] == decoded[..., 2]).all()


def test_what_is_transparent_shows_white() -> None:
    rgba = np.dstack([picture(), np.full((40, 60), 255, dtype=np.uint8)])
    rgba[:20, :, 3] = 0
    decoded = decode_image(encoded(rgba))
    assert (decoded[:20] == 255).all()
    np.testing.assert_array_equal(decoded[20:], picture()[20:])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"this is text, not a picture\n" * 50,
        b"\xff\xd8\xff\xe0",
        b"GIF89a" + bytes(50),
    ],
    ids=["empty", "one byte", "text", "jpeg magic", "gif"],
)
def test_what_is_no_image_is_damaged(data: bytes) -> None:
    assert refused(data) == "damaged"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "PPM"])
@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
def test_an_image_cut_short_is_damaged(format: str, part: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    data = encoded(noise, format)
    assert refused(data[: int(len(data) * part)]) == "damaged"


@pytest.mark.parametrize(("width", "height"), [(10_000, 10_000), (60_000, 60_000), (2**31 - 1, 2)])
def test_a_header_that_declares_too_many_pixels_is_refused_before_decoding(width: int, height: int) -> None:
    started = time.perf_counter()
    assert refused(png(width, height)) == "too_large"
    assert time.perf_counter() - started < 1.0


def test_caps_can_be_lowered() -> None:
    data = encoded(picture())
    assert refused(data, max_pixels=2_399) == "too_large"
    assert refused(data, max_bytes=len(data) - 1) == "too_large"
    assert decode_image(data, max_pixels=2_400, max_bytes=len(data)).shape == (40, 60, 3)


def test_a_missing_file_and_a_folder_are_usage_errors(tmp_path: Path) -> None:
    for source in (tmp_path / "none.jpg", tmp_path, "nul\0byte.jpg", None, picture()):
        with pytest.raises(UsageError):
            decode_image(source)  # type: ignore[arg-type]


def test_check_image_takes_uint8_rgb_and_gives_it_back() -> None:
    image = picture()
    assert check_image(image) is image


@pytest.mark.parametrize(
    "image",
    [
        None,
        [[[0, 0, 0]]],
        np.zeros((4, 4), dtype=np.uint8),
        np.zeros((4, 4, 4), dtype=np.uint8),
        np.zeros((3, 4, 4), dtype=np.uint8),
        np.zeros((0, 4, 3), dtype=np.uint8),
        np.zeros((4, 4, 3), dtype=np.float32),
        np.zeros((1, 4, 4, 3), dtype=np.uint8),
    ],
)
def test_check_image_refuses_anything_else(image: Any) -> None:
    with pytest.raises(UsageError):
        check_image(image)


SMALL = Image.fromarray(picture(24, 20))
VALID = [
    encoded(SMALL, "JPEG", exif=Image.Exif()),
    encoded(SMALL, "JPEG", progressive=True),
    encoded(SMALL, "PNG"),
    encoded(SMALL.convert("P"), "PNG"),
    encoded(SMALL.convert("RGBA"), "WEBP", lossless=True),
    encoded(SMALL, "WEBP"),
    encoded(SMALL, "BMP"),
    encoded(SMALL, "PPM"),
]


def decodes_or_refuses(data: bytes) -> None:
    try:
        image = decode_image(data, max_pixels=1e6)
    except CaptureError:
        return
    check_image(image)


@given(
    st.sampled_from(
        [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"P6 2 2 255\n", b"RIFF\xff\0\0\0WEBP"]
    ),
    st.binary(max_size=300),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_random_bytes_are_refused_and_never_crash(start: bytes, rest: bytes) -> None:
    decodes_or_refuses(start + rest)


@given(mutated(VALID))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_mutated_files_decode_or_are_refused(data: bytes) -> None:
    decodes_or_refuses(data)
