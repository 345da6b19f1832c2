"""Made `schema_2.store`: what a store of this schema looks like, so that a later version is held to reading it.

`python make_schema_2.py schema_2.store` makes another one; nonces and keys are random. The journal is not kept beside it.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from edgepin._store.consent import Consent
from edgepin._store.keys import MemoryKey
from edgepin._store.store import Store

FIRST = runpy.run_path(str(Path(__file__).with_name("make_schema_1.py")))
KEY, DIGEST = FIRST["KEY"], FIRST["DIGEST"]
PEOPLE = {
    "badge-0042": (
        FIRST["PEOPLE"]["badge-0042"][0],
        Consent("form 7, 2026-11-23", 1795392000.0, 1826928000.0, "front desk"),
    ),
    "Zoë": (FIRST["PEOPLE"]["Zoë"][0], None),
}

if __name__ == "__main__":
    with Store.open(sys.argv[1], MemoryKey(KEY), DIGEST) as store:
        for subject, (templates, consent) in PEOPLE.items():
            store.put(subject, templates, consent)
        store.put("erased", FIRST["PEOPLE"]["Zoë"][0])
        store.delete("erased")
