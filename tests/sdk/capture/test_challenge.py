"""Digits to speak: what is asked for, and what counts as the answer."""

from __future__ import annotations

import numpy as np
import pytest

from edgepin._capture.challenge import DigitChallenge
from edgepin._errors import EnvironmentFault, UsageError

PCM = np.zeros(16_000, dtype=np.int16)


class Hears:
    def __init__(self) -> None:
        self.text = ""

    def __call__(self, pcm: np.ndarray) -> str:
        return self.text


def test_without_a_recognizer_there_is_no_challenge() -> None:
    with pytest.raises(EnvironmentFault) as caught:
        DigitChallenge(None)
    assert caught.value.hint


def test_prompts_are_different_digits_and_never_the_last_ones_again() -> None:
    challenge = DigitChallenge(Hears(), digits=4)
    prompts = [challenge.prompt() for _ in range(200)]
    for prompt in prompts:
        digits = prompt.split()
        assert len(digits) == len(set(digits)) == 4
        assert all(digit in "0123456789" for digit in digits)
    assert all(len(set(prompts[i : i + 64])) == len(prompts[i : i + 64]) for i in range(136))


def test_what_was_asked_for_passes_once() -> None:
    hears = Hears()
    challenge = DigitChallenge(hears)
    prompt = challenge.prompt()
    hears.text = prompt.replace(" ", "-")
    assert challenge.check(PCM, prompt)
    assert not challenge.check(PCM, prompt)


@pytest.mark.parametrize("change", ["", "reversed", "one more", "one less"])
def test_other_digits_do_not_pass(change: str) -> None:
    hears = Hears()
    challenge = DigitChallenge(hears)
    prompt = challenge.prompt()
    hears.text = {"": "", "reversed": prompt[::-1], "one more": prompt + " 1", "one less": prompt[:-2]}[
        change
    ]
    assert not challenge.check(PCM, prompt)


def test_a_prompt_that_was_not_given_out_does_not_pass() -> None:
    hears = Hears()
    hears.text = "1 2 3 4 5 6"
    assert not DigitChallenge(hears).check(PCM, "1 2 3 4 5 6")


def test_an_old_prompt_does_not_pass() -> None:
    now, hears = [100.0], Hears()
    challenge = DigitChallenge(hears, seconds=10.0, monotonic=lambda: now[0])
    prompt = challenge.prompt()
    hears.text = prompt
    now[0] = 110.1
    assert not challenge.check(PCM, prompt)


def test_a_recognizer_that_fails_uses_the_prompt_up() -> None:
    def fails(pcm: np.ndarray) -> str:
        raise RuntimeError("broken")

    challenge = DigitChallenge(fails)
    prompt = challenge.prompt()
    with pytest.raises(RuntimeError):
        challenge.check(PCM, prompt)
    assert not challenge.check(PCM, prompt)


def test_open_prompts_are_bounded() -> None:
    challenge = DigitChallenge(Hears())
    for _ in range(300):
        challenge.prompt()
    assert len(challenge._open) <= 64


@pytest.mark.parametrize(
    "arguments",
    [{"digits": 3}, {"digits": 11}, {"digits": True}, {"seconds": 0.0}, {"seconds": float("nan")}],
)
def test_impossible_settings_are_a_usage_error(arguments: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        DigitChallenge(Hears(), **arguments)  # type: ignore[arg-type]
