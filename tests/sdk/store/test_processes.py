"""Several processes, one store: they wait for each other, see each other, and lose nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from .people import opened, template

WRITER = """
import sys, numpy as np
from edgepin._store.keys import MemoryKey
from edgepin._store.store import Store
from edgepin._store.template import Template
path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
ones = Template(np.ones((1, 256), np.float32), np.ones((1, 256), np.float32))
with Store.open(path, MemoryKey(bytes(range(32))), "ab" * 32, timeout=30.0) as store:
    for i in range(count):
        store.put(f"{name}{i}", {"face": ones}, "yes")
        store.append("shared", {"voice": ones})
        if i % 2:
            store.delete(f"{name}{i}")
"""


def test_writers_in_processes_of_their_own_lose_no_update(tmp_path: Path) -> None:
    path, rounds = tmp_path / "s.db", 12
    with opened(path) as store:
        store.put("shared", {"face": template()})
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(path), name, str(rounds)], stderr=subprocess.PIPE
            )
            for name in "abc"
        ]
        while any(writer.poll() is None for writer in writers):
            store.subjects()  # a reader that verifies what the others write
            time.sleep(0.02)
        for writer in writers:
            _, errors = writer.communicate()
            assert (writer.returncode, errors) == (0, b"")
        expected = sorted([f"{name}{i}" for name in "abc" for i in range(0, rounds, 2)] + ["shared"])
        assert store.subjects() == expected
        found = store.get("shared")
        assert found is not None
        assert len(found["voice"].identity) == 3 * rounds
        assert store.verify().tombstones == 3 * rounds // 2
    with opened(path) as store:
        assert store.subjects() == expected
    assert len(Path(f"{path}.erased").read_bytes().splitlines()) == 3 * rounds // 2
