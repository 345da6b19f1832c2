"""Made `schema_1.store`, with the version of EdgePIN whose stores had schema 1. Kept to say what is in it.

Run by that version: `python make_schema_1.py schema_1.store`. The nonces and the data key are random, so that another
run gives another file with the same people in it.
"""

from __future__ import annotations

import sys

import numpy as np

from edgepin._store.keys import MemoryKey
from edgepin._store.store import Store
from edgepin._store.template import Template

KEY = bytes(range(32))
DIGEST = "5c" * 32


def template(seed: int, captures: int) -> Template:
    """Rows of small integers, exact on every machine; not of unit length, which a store does not ask for."""
    values = np.arange(2 * captures * 256, dtype=np.int64) * (2 * seed + 1) % 31 - 15
    return Template(*values.astype(np.float32).reshape(2, captures, 256))


PEOPLE = {
    "badge-0042": ({"face": template(1, 3), "voice": template(2, 2)}, "form 7, 2026-11-23"),
    "Zoë": ({"voice": template(3, 1)}, None),
}

if __name__ == "__main__":
    with Store.open(sys.argv[1], MemoryKey(KEY), DIGEST) as store:
        for subject, (templates, consent) in PEOPLE.items():
            store.put(subject, templates, consent)
