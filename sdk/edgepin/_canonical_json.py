"""JSON with one spelling: what is signed or hashed must not have two.

Sorted keys, no blanks, UTF-8, a newline at the end; no NaN, no infinity, no key twice.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

# Integers in our files fit into 64 bits; longer digit strings only cost time (conversion is quadratic).
_MAX_DIGITS = 20


def encode(value: object) -> bytes:
    """The canonical bytes of `value`. Raises `ValueError` on anything that JSON cannot hold."""
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode() + b"\n"
    except (TypeError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error


def decode(data: bytes) -> Any:
    """The value of canonical bytes. Raises `ValueError` if they are not JSON, or not in the canonical
    spelling."""
    try:
        value = json.loads(
            data.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_int=_short_int
        )
    except RecursionError:
        raise ValueError("nested too deep") from None
    if encode(value) != data:
        raise ValueError("not in the canonical spelling (sorted keys, no blanks, one newline at the end)")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {key[:80]!r} comes twice")
        result[key] = value
    return result


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


def _short_int(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError("an integer is too long")
    return int(text)
