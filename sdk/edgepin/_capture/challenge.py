"""A challenge: something to be said that nobody could have recorded before.

EdgePIN recognizes no words. `DigitChallenge` makes prompts and keeps account of them; what was said must be
recognized by a function of yours, and without one there is no challenge.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .._errors import EnvironmentFault, UsageError

_WAITING = 64  # prompts that may be open at a time: bounds the memory


class Challenge(Protocol):
    """Asks for something to be said, and says whether it was. May be called from several threads."""

    def prompt(self) -> str:
        """What is to be said now; never what was asked for before."""
        ...

    def check(self, pcm: npt.NDArray[np.int16], prompt: str) -> bool:
        """Whether int16 `(samples,)` at 16 kHz says the prompt."""
        ...


class DigitChallenge:
    """Digits to speak: drawn by `secrets`, all different; a prompt is good for one answer and some seconds.

    Prompts of n digits are 10!/(10-n)! in number: 151,200 of the default six. That is what a guess, or a
    recording of one prompt, has against it; it is nothing against a voice that is synthesized as the prompt
    is seen.
    """

    def __init__(
        self,
        recognize: Callable[[npt.NDArray[np.int16]], str] | None,
        *,
        digits: int = 6,
        seconds: float = 30.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`recognize` takes int16 `(samples,)` at 16 kHz and returns the digits that it heard, as text; what
        is no digit in it is passed over.

        Raises `EnvironmentFault` if it is None, and `UsageError` for `digits` outside 4-10 or `seconds` that
        are none.
        """
        if recognize is None:
            raise EnvironmentFault(
                "a challenge needs something that recognizes spoken digits",
                hint="give a function of yours as `recognize`: EdgePIN brings none",
            )
        if isinstance(digits, bool) or not isinstance(digits, int) or not 4 <= digits <= 10:
            raise UsageError(f"digits must be a whole number in 4-10, not {digits!r}")
        if not (isinstance(seconds, (int, float)) and 0.0 < seconds <= 3600.0):
            raise UsageError(f"seconds must lie in (0, 3600], not {seconds!r}")
        self._recognize, self._digits, self._seconds, self._now = recognize, digits, float(seconds), monotonic
        self._lock = threading.Lock()
        self._open: dict[str, float] = {}  # prompt -> until when
        self._recent: list[str] = []

    def prompt(self) -> str:
        """Digits with spaces between, such as `4 0 7 1 9 2`; none of the last 64 again."""
        with self._lock:
            while True:
                left = list("0123456789")
                prompt = " ".join(left.pop(secrets.randbelow(len(left))) for _ in range(self._digits))
                if prompt not in self._recent:
                    break
            self._recent = [*self._recent, prompt][-_WAITING:]
            now = self._now()
            self._open = {
                text: until for text, until in self._open.items() if until >= now and text in self._recent
            }
            self._open[prompt] = now + self._seconds
            return prompt

    def check(self, pcm: npt.NDArray[np.int16], prompt: str) -> bool:
        """Whether the digits of the prompt, and no others, were heard in their order. False as well for a
        prompt that was not given out, was answered before, or is too old. An exception of `recognize` passes
        through, and the prompt is used up.
        """
        with self._lock:
            until = self._open.pop(prompt, -1.0)
        if until < self._now():
            return False
        heard = re.sub(r"[^0-9]", "", self._recognize(pcm))
        return secrets.compare_digest(heard, prompt.replace(" ", ""))
