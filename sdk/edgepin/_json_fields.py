"""Strict reading of JSON-able dicts: what a bundle says is taken exactly, or not at all.

Every function raises `BundleError` naming the place, so that a damaged or made-up manifest never becomes a
half-read object. Numbers are written with nine significant digits: more than any estimate here deserves, and
few enough that the same input gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ._errors import BundleError

SIGNIFICANT_DIGITS = 9


def rounded(value: float) -> float:
    """The nearest float of nine significant digits; -0.0 becomes 0.0."""
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}") + 0.0


def rounded_above(value: float) -> float:
    """A float of nine significant digits that is strictly greater than `value`, by little."""
    candidate = rounded(value)
    if candidate > value:
        return candidate
    exponent = math.floor(math.log10(abs(candidate))) if candidate else 0
    return rounded(candidate + max(10.0 ** (exponent - SIGNIFICANT_DIGITS + 1), 1e-12))


def fields(value: object, names: Sequence[str], where: str) -> Mapping[str, Any]:
    """`value` as an object with exactly these keys."""
    if not isinstance(value, Mapping):
        raise BundleError(f"{where}: an object is expected, not {type(value).__name__}")
    missing = [name for name in names if name not in value]
    unknown = sorted(str(name) for name in value if name not in names)
    if missing:
        raise BundleError(f"{where}: {', '.join(missing)} is missing")
    if unknown:
        raise BundleError(f"{where}: unknown key {ascii(', '.join(unknown))[1:-1]:.200}")
    return value


def number(
    value: object, where: str, *, low: float = -math.inf, high: float = math.inf, positive: bool = False
) -> float:
    """`value` as a finite float in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BundleError(f"{where}: a number is expected, not {type(value).__name__}")
    try:
        result = float(value)
    except OverflowError:
        raise BundleError(f"{where}: the number is too large") from None
    if not math.isfinite(result):
        raise BundleError(f"{where}: {result} is not a finite number")
    if not low <= result <= high or (positive and result <= 0.0):
        raise BundleError(f"{where}: {result:g} is out of range")
    return result


def count(value: object, where: str, *, low: int = 0) -> int:
    """`value` as an integer of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise BundleError(f"{where}: an integer is expected, not {type(value).__name__}")
    if value < low:
        raise BundleError(f"{where}: {value} is out of range")
    return value


def flag(value: object, where: str) -> bool:
    """`value` as a bool."""
    if not isinstance(value, bool):
        raise BundleError(f"{where}: true or false is expected, not {type(value).__name__}")
    return value


def items(value: object, where: str, *, length: int | None = None) -> Sequence[Any]:
    """`value` as an array, of `length` items where that is given."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise BundleError(f"{where}: an array is expected, not {type(value).__name__}")
    if length is not None and len(value) != length:
        raise BundleError(f"{where}: {length} items are expected, not {len(value)}")
    return value
