"""Images in, uint8 RGB out. Decoding is Pillow's; what is here decides what may reach it."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._errors import CaptureError, UsageError
from .media import read_bounded

# What cameras and phones write and data sets keep. Pillow reads 40 more, some through external programs.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM")

_RETRY = "capture it again as JPEG or PNG"


def decode_image(
    source: str | Path | bytes, *, max_pixels: float = 50e6, max_bytes: int = 32 << 20
) -> npt.NDArray[np.uint8]:
    """Decode a JPEG, PNG, WebP, BMP or PPM file to RGB: uint8 `(height, width, 3)`.

    The EXIF orientation is applied; gray and palette images become RGB, what is transparent shows white,
    and 16-bit gray is brought to 8 bits.

    Raises `UsageError` where there is no such file, and `CaptureError` with code `damaged` (no such image,
    cut short, or broken inside) or `too_large` (over `max_bytes`, or a header that declares more than
    `max_pixels`: checked before decoding).
    """
    data = read_bounded(source, max_bytes=max_bytes, kind="image")
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            # Pillow's own bomb warning and its remarks on odd metadata: the cap is ours.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise CaptureError(
                        f"the image declares {width}x{height} px, over {max_pixels / 1e6:g} million",
                        code="too_large",
                        hint="give a smaller image",
                    )
                image.load()
                # In place, and below without a copy: each would be 200 MB at the largest size.
                ImageOps.exif_transpose(image, in_place=True)
                rgb = _to_rgb(image)
    except CaptureError:
        raise
    except Image.DecompressionBombError:  # Pillow's own cap, 179 million pixels, is checked before ours
        raise CaptureError("the image is too large", code="too_large", hint="give a smaller image") from None
    # Pillow's parsers raise whatever damage makes them trip over, `struct.error` and `IndexError` among it.
    except Exception as error:
        raise CaptureError("the image cannot be decoded", code="damaged", hint=_RETRY) from error
    return check_image(rgb)


def check_image(image: Any) -> npt.NDArray[np.uint8]:
    """`image` itself if it is RGB as uint8 `(height, width, 3)` with a pixel in it; raises `UsageError` otherwise."""
    if not isinstance(image, np.ndarray):
        raise UsageError(f"the image must be a numpy array, not {type(image).__name__}")
    if image.dtype != np.uint8:
        raise UsageError(f"the image must be uint8, not {image.dtype}")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise UsageError(f"the image must be RGB, (height, width, 3), not {image.shape}")
    return image


def _to_rgb(image: Any) -> npt.NDArray[np.uint8]:
    from PIL import Image

    if image.mode.startswith("I;16"):
        return _gray_to_rgb((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        # No range is declared: 16-bit PNG lands here in older Pillow, and anything else is scaled by its own
        # maximum.
        values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
        top = 65535.0 if image.mode == "I" and values.max() > 255 else max(255.0, float(values.max()))
        return _gray_to_rgb(np.clip(values * (255.0 / top), 0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(ground, image)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"), dtype=np.uint8)


def _gray_to_rgb(gray: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(np.repeat(gray[:, :, None], 3, axis=2))
