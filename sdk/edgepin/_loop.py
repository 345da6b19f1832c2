"""`edgepin verify --loop`: requests as JSON lines in, answers as JSON lines out, with the models kept open.

The lines are documented in docs/loop.md. One request is answered before the next one is read, each by exactly one line.
A request that cannot be right is answered by an error and changes nothing; the loop goes on.
"""

from __future__ import annotations

import base64
import binascii
import json
import traceback
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ._attempts import AttemptSession
from ._decision.decision import Decision
from ._errors import CaptureError, EdgePinError, EnvironmentFault, LockedOutError, UsageError
from ._runtime.memory import give_back_memory
from ._verifier import Verifier

MAX_LINE = 96 << 20
"""Bytes of one request: a sound and an image of the largest allowed sizes, as base64, fit."""
MAX_SESSIONS = 64
"""Open sessions of attempts at once; the oldest one is closed (rejected) for a new one."""
OPS = ("verify", "attempt", "status", "ping", "quit")

_KEYS = {
    "verify": {"id", "face", "voice", "face_cropped", "door"},
    "attempt": {"id", "face", "voice", "face_cropped", "door", "session"},
    "status": set(),
    "ping": set(),
    "quit": set(),
}
_COMMON = {"op", "request"}

Write = Callable[[dict[str, Any]], None]


def serve(verifier: Verifier, lines: Iterable[bytes], write: Write, *, door: str = "") -> None:
    """Answers every line until `quit` or the end. `lines` are at most `MAX_LINE` + 1 bytes each (see `read_lines`).

    `door`: of requests that name none.
    """
    sessions: dict[str, AttemptSession] = {}
    write(
        {
            "schema": "edgepin.hello/1",
            "version": version("edgepin"),
            "runtime": verifier.about,
            "policy_fmr": {
                name: None if chosen.point is None else chosen.point.fmr
                for name, chosen in verifier.policy.sets.items()
            },
            "ops": list(OPS),
        }
    )
    for line in lines:
        request: Any = None
        try:
            message = _parse(line)
            request = message.get("request")
            op = message["op"]
            reply = _answer(verifier, sessions, op, {"door": door, **message})
        except Exception as error:
            # Whatever it was, the next request is answered; nobody was let in by this one.
            if not isinstance(error, EdgePinError):
                traceback.print_exc()
                error = EnvironmentFault(f"this request failed: {type(error).__name__}")
            write(
                {
                    "schema": "edgepin.reply/1",
                    "request": request,
                    "ok": False,
                    "error": error_json(error),
                }
            )
            continue
        write({"schema": "edgepin.reply/1", "request": request, "ok": True, "op": op, **reply})
        if op == "quit":
            return
        give_back_memory()  # while nobody waits


def error_json(error: EdgePinError) -> dict[str, Any]:
    """An error for programs: `code`, the command's `exit_code` for it, and what is said to people."""
    told: dict[str, Any] = {
        "code": error.code if isinstance(error, CaptureError) else _NAMES.get(error.exit_code, "error"),
        "exit_code": error.exit_code,
        "message": str(error),
        "hint": error.hint,
    }
    if isinstance(error, LockedOutError):
        told["retry_after"], told["disabled"] = error.retry_after, error.disabled
    return told


_NAMES = {2: "usage", 4: "locked_out", 5: "integrity", 6: "environment"}


def read_lines(stream: Any) -> Iterable[bytes]:
    """The lines of a binary stream. One that is too long is cut to `MAX_LINE` + 1 bytes, which `serve` refuses."""
    while line := stream.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE and not line.endswith(b"\n"):
            while (rest := stream.readline(1 << 20)) and not rest.endswith(b"\n"):
                pass
        if line.strip():
            yield line


def _parse(line: bytes) -> dict[str, Any]:
    if len(line) > MAX_LINE:
        raise UsageError(f"a request has at most {MAX_LINE >> 20} MiB")
    try:
        message = json.loads(line, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise UsageError("a request is one JSON object on a line") from None
    if not isinstance(message, dict) or not isinstance(message.get("op"), str):
        raise UsageError('a request is a JSON object with an "op"')
    op = message["op"]
    if op not in OPS:
        raise UsageError(f"there is no op {op!r:.40}", hint=f"one of {', '.join(OPS)}")
    if not isinstance(message.get("request"), (str, int, type(None))):
        raise UsageError('"request" is a string or a whole number')
    unknown = sorted(message.keys() - _COMMON - _KEYS[op])
    if unknown:
        raise UsageError(f"{op} does not know {', '.join(unknown)!r:.80}")
    return message


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    message = dict(pairs)
    if len(message) != len(pairs):
        raise ValueError("a key twice")
    return message


def _answer(
    verifier: Verifier, sessions: dict[str, AttemptSession], op: str, message: dict[str, Any]
) -> dict[str, Any]:
    if op == "status":
        return {"enrolled": verifier.store.count(), "sessions": len(sessions)}
    if op in ("ping", "quit"):
        return {}
    captures = {
        "face": _image(message.get("face")),
        "cropped": _flag(message, "face_cropped"),
    }
    sound, rate = _sound(message.get("voice"))
    captures |= {"voice": sound, "sample_rate": rate}
    asked = op == "attempt" and captures["face"] is None and sound is None
    subject, door = _text(message, "id"), _text(message, "door", default="")
    if op == "verify":
        return {"decision": _decision(subject, verifier.verify(subject, door=door, **captures))}
    name = _text(message, "session", default="") or _new_name(sessions)
    session = sessions.get(name)
    if session is None:
        session = verifier.attempts(subject, door=door)
        if len(sessions) >= MAX_SESSIONS:
            del sessions[next(iter(sessions))]
        sessions[name] = session
    elif (session.subject, session.door) != (subject, door):
        raise UsageError(f"session {name!r:.40} is another person's, or at another door")
    if asked:
        return {"session": name, "prompt": session.prompt}
    try:
        decision = session.verify(**captures)
    finally:
        if session.outcome != "another":
            sessions.pop(name, None)
    return {"session": name, "prompt": session.prompt, "decision": _decision(subject, decision)}


def _decision(subject: str, decision: Decision) -> dict[str, Any]:
    return {"id": subject, **decision.to_json()}


def _new_name(sessions: dict[str, AttemptSession]) -> str:
    import secrets

    while (name := secrets.token_hex(8)) in sessions:
        pass
    return name


def _text(message: dict[str, Any], key: str, default: str | None = None) -> str:
    value = message.get(key, default)
    if not isinstance(value, str):
        raise UsageError(f'"{key}" must be a string')
    return value


def _flag(message: dict[str, Any], key: str) -> bool:
    value = message.get(key, False)
    if not isinstance(value, bool):
        raise UsageError(f'"{key}" must be true or false')
    return value


def _image(value: Any) -> Any:
    """A path, `{"base64": …}`, or a list of them (frames of one person, for liveness); None if there is none."""
    if isinstance(value, list):
        if not 1 <= len(value) <= 32:
            raise UsageError('"face" lists 1 to 32 images')
        return [_source(item, "face") for item in value]
    return None if value is None else _source(value, "face")


def _sound(value: Any) -> tuple[Any, int | None]:
    """A path, `{"base64": …}` of a file, or `{"pcm16": base64, "sample_rate": Hz}`: little-endian mono samples."""
    if isinstance(value, dict) and value.keys() == {"pcm16", "sample_rate"}:
        rate = value["sample_rate"]
        if isinstance(rate, bool) or not isinstance(rate, int):
            raise UsageError('"sample_rate" must be a whole number of Hz')
        data = _decoded(value["pcm16"], "voice")
        if len(data) % 2:
            raise UsageError("the samples of pcm16 have two bytes each")
        return np.frombuffer(data, "<i2").astype(np.int16), rate
    return (None if value is None else _source(value, "voice")), None


def _source(value: Any, key: str) -> str | Path | bytes:
    if isinstance(value, str):
        return Path(value)
    if isinstance(value, dict) and value.keys() == {"base64"}:
        return _decoded(value["base64"], key)
    raise UsageError(f'"{key}" must be a path or {{"base64": …}}')


def _decoded(value: Any, key: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise UsageError(f'"{key}" holds no base64') from None
