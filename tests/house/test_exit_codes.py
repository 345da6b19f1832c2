"""The tree of errors in the docstring of `_errors` is the tree of errors, exit codes included."""

from __future__ import annotations

import inspect
import re

import pytest

from edgepin import _errors

# name: (its base, its exit code)
ERRORS = {
    "EdgePinError": ("Exception", 6),
    "UsageError": ("EdgePinError", 2),
    "AlreadyEnrolledError": ("UsageError", 2),
    "PolicyError": ("UsageError", 2),
    "UnknownSubjectError": ("EdgePinError", 1),
    "CaptureError": ("EdgePinError", 3),
    "LockedOutError": ("EdgePinError", 4),
    "IntegrityError": ("EdgePinError", 5),
    "BundleError": ("IntegrityError", 5),
    "StoreError": ("IntegrityError", 5),
    "EnvironmentFault": ("EdgePinError", 6),
    "BundleNotFoundError": ("EnvironmentFault", 6),
    "DeadlineExceededError": ("EnvironmentFault", 6),
    "MissingExtraError": ("EnvironmentFault", 6),
}


def documented() -> dict[str, tuple[str, int]]:
    """The tree as the docstring draws it; a line without a number has its parent's."""
    tree: dict[str, tuple[str, int]] = {}
    above: list[str] = ["EdgePinError"]
    for line in (_errors.__doc__ or "").splitlines():
        drawn = re.match(r"((?:│   |    )*)[├└]── (\w+)(?: +(\d))? ", line)
        if drawn is None:
            continue
        depth = len(drawn[1]) // 4 + 1
        parent = above[depth - 1]
        code = int(drawn[3]) if drawn[3] else tree[parent][1]
        tree[drawn[2]] = (parent, code)
        above[depth:] = [drawn[2]]
    return tree


def test_the_docstring_draws_this_tree() -> None:
    assert documented() == {name: entry for name, entry in ERRORS.items() if name != "EdgePinError"}


def test_there_is_no_error_besides_these() -> None:
    classes = {
        name: value
        for name, value in vars(_errors).items()
        if inspect.isclass(value) and value.__module__ == _errors.__name__
    }
    assert {name: (value.__base__.__name__, value.exit_code) for name, value in classes.items()} == ERRORS


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_carries_its_message_and_hint(name: str) -> None:
    kind = getattr(_errors, name)
    options = {"code": "damaged"} if name == "CaptureError" else {}
    error = kind("what happened", hint="what to do", **options)
    assert (str(error), error.hint) == ("what happened", "what to do")
    assert kind("what happened", **options).hint is None
    # 0 is yes; 1 is no, which an error may say only of an id that its caller has named as enrolled.
    assert error.exit_code != 0
    assert (error.exit_code == 1) == (name == "UnknownSubjectError")
