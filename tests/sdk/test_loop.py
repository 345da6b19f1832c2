"""`edgepin verify --loop`: one answer for each line, in order, and no line that opens a door by mistake."""

from __future__ import annotations

import base64
import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgepin import MemoryKey, Verifier
from edgepin._loop import MAX_LINE, read_lines, serve

from .commands import invoke, process
from .conftest import Pins
from .synthetic_captures import RATE, picture, png, voice, write_face, write_voice

pytestmark = pytest.mark.usefixtures("device")
ADA, EVE = 1, 2
KEY = MemoryKey(bytes(range(32)))
CAPTURES = itertools.count(9)


@pytest.fixture
def verifier(pins: Pins, tmp_path: Path) -> Iterator[Verifier]:
    with Verifier.open(pins.site, tmp_path / "e.db", key=KEY) as verifier:
        with verifier.enroll("ada") as session:
            for capture in range(2):
                session.add_face(picture(ADA, capture), cropped=True)
                session.add_voice(voice(ADA, capture), sample_rate=RATE)
        yield verifier


def ask(verifier: Verifier, *requests: Any) -> list[dict[str, Any]]:
    """The answers, without the first line."""
    lines = [
        request if isinstance(request, bytes) else json.dumps(request).encode() + b"\n"
        for request in requests
    ]
    answers: list[dict[str, Any]] = []
    serve(verifier, lines, answers.append, door="north")
    assert answers[0]["schema"] == "edgepin.hello/1"
    assert all(json.loads(json.dumps(answer, allow_nan=False)) == answer for answer in answers)
    return answers[1:]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def sample(person: int, **more: Any) -> dict[str, Any]:
    number = next(CAPTURES)
    return {
        "op": "verify",
        "id": "ada",
        "face": {"base64": b64(png(picture(person, number)))},
        "voice": {"pcm16": b64(voice(person, number).tobytes()), "sample_rate": RATE},
        "face_cropped": True,
        **more,
    }


def test_answers_come_one_for_each_line_and_in_order(verifier: Verifier) -> None:
    answers = ask(
        verifier,
        {**sample(ADA), "request": 1},
        {**sample(EVE), "request": "two"},
        {"op": "ping", "request": 3},
        {"op": "status"},
    )
    assert [answer["request"] for answer in answers] == [1, "two", 3, None]
    assert [answer["ok"] for answer in answers] == [True] * 4
    assert [answers[0]["decision"]["accepted"], answers[1]["decision"]["accepted"]] == [True, False]
    assert answers[0]["decision"]["id"] == "ada"
    assert (answers[3]["enrolled"], answers[3]["sessions"]) == (1, 0)


def test_files_are_named_by_their_paths(verifier: Verifier, tmp_path: Path) -> None:
    face, sound = write_face(tmp_path / "f.png", ADA, 70), write_voice(tmp_path / "v.wav", voice(ADA, 70))
    (answer,) = ask(verifier, {**sample(ADA), "face": str(face), "voice": str(sound)})
    assert answer["decision"]["accepted"]


def test_the_door_is_counted_by(verifier: Verifier) -> None:
    ask(verifier, sample(ADA), sample(ADA, door="south"))
    assert [entry.door for entry in verifier.guard.audit.entries() if entry.kind == "accepted"] == [
        "north",
        "south",
    ]


def test_a_session_goes_on_over_requests_and_is_closed_by_its_end(verifier: Verifier) -> None:
    first = {**sample(EVE), "op": "attempt", "session": "s1"}
    answers = ask(
        verifier, first, {"op": "status"}, {**sample(ADA), "op": "attempt", "session": "s1"}, {"op": "status"}
    )
    assert [answers[0]["decision"]["outcome"], answers[2]["decision"]["outcome"]] == ["another", "accepted"]
    assert [answers[1]["sessions"], answers[3]["sessions"]] == [1, 0]


def test_a_session_is_one_persons_at_one_door(verifier: Verifier) -> None:
    first = {**sample(EVE), "op": "attempt", "session": "s1"}
    second = {**sample(ADA), "op": "attempt", "session": "s1", "id": "eve"}
    assert ask(verifier, first, second)[1]["error"]["code"] == "usage"


def test_after_five_failures_the_answer_says_how_long_to_wait(verifier: Verifier) -> None:
    answer = ask(verifier, *(sample(EVE) for _ in range(6)))[-1]
    assert not answer["ok"]
    assert (answer["error"]["code"], answer["error"]["exit_code"]) == ("locked_out", 4)
    assert 0 < answer["error"]["retry_after"] <= 30
    assert answer["error"]["disabled"] is False


def test_a_capture_that_cannot_be_used_is_told_by_its_code(verifier: Verifier) -> None:
    (answer,) = ask(verifier, {**sample(ADA), "face": {"base64": b64(b"no image")}})
    assert (answer["ok"], answer["error"]["exit_code"]) == (False, 3)


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\n",
        b"[]\n",
        b"{}\n",
        b'{"op": "open the door"}\n',
        b'{"op": "verify"}\n',
        b'{"op": "verify", "id": "ada"}\n',
        b'{"op": "verify", "id": 7, "face": "f.jpg"}\n',
        b'{"op": "verify", "id": "ada", "face": 7}\n',
        b'{"op": "verify", "id": "ada", "face": []}\n',
        b'{"op": "verify", "id": "ada", "face": {"base64": "***"}}\n',
        b'{"op": "verify", "id": "ada", "voice": {"pcm16": "AA==", "sample_rate": 16000}}\n',
        b'{"op": "verify", "id": "ada", "voice": {"pcm16": "AAA=", "sample_rate": 16000.5}}\n',
        b'{"op": "verify", "id": "ada", "face": "f.jpg", "policy_fmr": 0.5}\n',
        b'{"op": "verify", "op": "ping"}\n',
        b'{"op": "ping", "request": {}}\n',
        b'{"op": "ping"' + b"[" * 100_000 + b"\n",
    ],
)
def test_a_line_that_cannot_be_right_is_an_error_and_the_loop_goes_on(
    verifier: Verifier, line: bytes
) -> None:
    answers = ask(verifier, line, {"op": "ping"})
    assert [answer["ok"] for answer in answers] == [False, True]
    assert answers[0]["error"]["code"] == "usage"


def test_half_a_character_breaks_nothing(verifier: Verifier) -> None:
    lines = [b'{"op": "ping", "request": "\\ud800"}\n', b'{"op": "verify", "id": "ada", "face": "\\ud800"}\n']
    answers = ask(verifier, *lines, {"op": "ping"})
    assert [answer["ok"] for answer in answers] == [True, False, True]


def test_a_bug_is_answered_as_a_failure_and_the_loop_goes_on(
    verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgepin._attempts.compare", lambda *_: 1 // 0)
    answers = ask(verifier, sample(ADA), {"op": "ping"})
    assert [answer["ok"] for answer in answers] == [False, True]
    assert answers[0]["error"]["exit_code"] == 6


def test_a_session_can_be_begun_for_its_prompt(verifier: Verifier) -> None:
    class Digits:
        def prompt(self) -> str:
            return "4 0 7"

        def check(self, pcm: object, prompt: str) -> bool:
            return prompt == "4 0 7"

    verifier.challenge = Digits()
    first = {"op": "attempt", "id": "ada", "session": "s1"}
    answers = ask(verifier, first, {**sample(ADA), "op": "attempt", "session": "s1"})
    assert (answers[0]["prompt"], answers[1]["decision"]["accepted"]) == ("4 0 7", True)


def test_quit_ends_the_loop(verifier: Verifier) -> None:
    answers = ask(verifier, {"op": "quit"}, {"op": "ping"})
    assert [answer["op"] for answer in answers] == ["quit"]


def test_a_line_without_end_is_refused_and_takes_no_memory(verifier: Verifier) -> None:
    class Endless(io.RawIOBase):
        left = MAX_LINE + (3 << 20)

        def readline(self, size: int = -1) -> bytes:  # type: ignore[override]
            taken = min(size, self.left)
            self.left -= taken
            return b"x" * taken

    lines = list(read_lines(Endless()))
    assert [len(line) for line in lines] == [MAX_LINE + 1]
    assert ask(verifier, *lines)[0]["error"]["code"] == "usage"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
REQUEST = st.dictionaries(
    st.sampled_from(["op", "request", "id", "face", "voice", "face_cropped", "door", "session", "x"]),
    JSON
    | st.sampled_from(
        ["verify", "attempt", "ping", "ada", {"base64": "AAAA"}, {"pcm16": "AAAA", "sample_rate": 1}]
    ),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request=REQUEST)
def test_no_request_of_any_shape_is_accepted_or_breaks_the_loop(
    verifier: Verifier, request: dict[str, Any]
) -> None:
    (answer, *_) = ask(verifier, request)
    assert answer["schema"] == "edgepin.reply/1"
    assert not answer.get("decision", {}).get("accepted", False)


def test_the_verb_serves_until_the_end_of_its_input(pins: Pins, tmp_path: Path) -> None:
    store = ("--store", str(tmp_path / "s.db"), "--bundle", str(pins.site))
    captures = [
        argument
        for number in range(2)
        for argument in (
            "--face", str(write_face(tmp_path / f"f{number}.png", ADA, number)),
            "--voice", str(write_voice(tmp_path / f"v{number}.wav", voice(ADA, number))),
        )
    ]  # fmt: skip
    assert invoke("enroll", "ada", *captures, "--face-cropped", *store).exit_code == 0
    lines = "".join(json.dumps(one) + "\n" for one in (sample(ADA), sample(EVE)))
    result = process("verify", "--loop", *store, stdin=lines)
    assert result.returncode == 0, result.stderr
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [answer["schema"] for answer in answers] == [
        "edgepin.hello/1",
        "edgepin.reply/1",
        "edgepin.reply/1",
    ]
    assert [answer["decision"]["accepted"] for answer in answers[1:]] == [True, False]
