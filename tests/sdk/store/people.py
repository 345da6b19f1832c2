"""Templates and stores that the tests of this folder share."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgepin._store.keys import MemoryKey
from edgepin._store.store import Store
from edgepin._store.template import Template

KEY, OTHER_KEY = MemoryKey(bytes(range(32))), MemoryKey(bytes(range(1, 33)))
DIGEST = "ab" * 32
_rng = np.random.default_rng(5)


def template(captures: int = 1) -> Template:
    return Template(*_rng.standard_normal((2, captures, 256)).astype(np.float32))


def same(one: Template, other: Template) -> bool:
    return bool(np.array_equal(one.identity, other.identity) and np.array_equal(one.pin, other.pin))


def opened(path: Path, **options: object) -> Store:
    return Store.open(path, KEY, DIGEST, **{"timeout": 0.2, **options})  # type: ignore[arg-type]


def filled(path: Path, *subjects: str, **options: object) -> None:
    with opened(path, **options) as store:
        for subject in subjects:
            store.put(subject, {"face": template()})


class FakeCounter:
    """A counter in memory. `fail_after` makes that many increments work and the next one raise, as a crash would."""

    def __init__(self, value: int = 1) -> None:
        self.value, self.fail_after = value, 10**9

    def read(self) -> int:
        return self.value

    def increment(self) -> int:
        if self.fail_after <= 0:
            raise KeyboardInterrupt
        self.fail_after -= 1
        self.value += 1
        return self.value
