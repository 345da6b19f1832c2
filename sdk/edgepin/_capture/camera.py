"""Frames from a camera, or from a file that stands in for one. Capturing and decoding are OpenCV's."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._errors import CaptureError, EnvironmentFault, UsageError

_MAX_SIDE = 4096  # px
_DEFAULT_RATE = 25.0  # frames a second, for a file that does not say


class Camera:
    """`source` is a device's number (`0`), a GStreamer pipeline (text with `!` in it), or a video file or a
    numbered image sequence (`frames/%03d.png`).

    `is_file` says that it ends; then `at` in `read` counts in the file's own time. Raises `UsageError` where
    there is no such file, `CaptureError` (`damaged`) for one that is no video, and `EnvironmentFault` for a
    camera that does not open.
    """

    def __init__(self, source: str) -> None:
        import cv2

        self.source = source
        self.is_file = False
        if re.fullmatch(r"[0-9]{1,4}", source):
            self._capture = cv2.VideoCapture(int(source))
            hint = "check that the camera is plugged in, and that no other program has it"
        elif "!" in source:
            if not _has_gstreamer(cv2.getBuildInformation()):
                raise EnvironmentFault(
                    "this OpenCV has no GStreamer",
                    hint="use the OpenCV that comes with JetPack or the system, or a device's number",
                )
            self._capture = cv2.VideoCapture(source, cv2.CAP_GSTREAMER)
            hint = "try the pipeline with gst-launch-1.0; it must end in appsink"
        else:
            self.is_file = True
            path = Path(source)
            if "%" not in source and not path.is_file():
                raise UsageError(
                    f"no such video file: {source}", hint="give a device's number, a file or a pipeline"
                )
            # Named, so that no other of OpenCV's readers fetches what a name may point to.
            sequence = "%" in source
            self._capture = cv2.VideoCapture(str(path), cv2.CAP_IMAGES if sequence else cv2.CAP_FFMPEG)
            hint = ""
        if not self._capture.isOpened():
            self._capture.release()
            if self.is_file:
                raise CaptureError(f"{source} is no video", code="damaged", hint="record it again")
            raise EnvironmentFault(f"the camera {source} does not open", hint=hint)
        # For an image sequence OpenCV says 1.
        rate = 0.0 if "%" in source else float(self._capture.get(cv2.CAP_PROP_FPS))
        self._rate = rate if 1.0 <= rate <= 1000.0 else _DEFAULT_RATE
        self._count = 0

    def read(self) -> tuple[npt.NDArray[np.uint8], float] | None:
        """The next frame, uint8 RGB `(height, width, 3)`, and its time in s; None at the end of a file.

        Raises `EnvironmentFault` if a camera gives none (it was unplugged), `CaptureError` (`too_large`) for
        one over 4096 px.
        """
        import cv2

        try:
            there, bgr = self._capture.read()
        except cv2.error:
            there, bgr = False, None
        if not there or bgr is None:
            if self.is_file:
                return None
            raise EnvironmentFault(
                f"the camera {self.source} gives no more frames",
                hint="check that it is plugged in, then try again",
            )
        if max(bgr.shape[:2]) > _MAX_SIDE:
            raise CaptureError(
                f"a frame has more than {_MAX_SIDE} px a side",
                code="too_large",
                hint="set the camera to a smaller size",
            )
        at = self._count / self._rate if self.is_file else time.monotonic()
        self._count += 1
        rgb: Any = cv2.cvtColor(bgr, cv2.COLOR_GRAY2RGB if bgr.ndim == 2 else cv2.COLOR_BGR2RGB)
        return np.asarray(rgb, dtype=np.uint8), at

    def close(self) -> None:
        self._capture.release()

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _has_gstreamer(build: str) -> bool:
    found = re.search(r"GStreamer:\s+(\w+)", build)
    return found is not None and found.group(1) == "YES"
