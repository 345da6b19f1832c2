"""One target under atheris, which sees which branches a case takes and goes on from those that take new ones.

    python -m tests.fuzz.guided TARGET FINDINGS SEED SECONDS ANSWER

The mutator is the target's own, so that changes go behind checksums and signatures; what libFuzzer keeps is what it
changes next. Findings are kept, and the run goes on. Writes its count as JSON into the file ANSWER, every second, as
libFuzzer ends the process by itself. Called by `python -m tests.fuzz --atheris`.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["edgepin", "edgepin_kernels", "edgepin_export", "edgepin_training"]):
    from .registry import TARGETS
    from .runner import describe, save

TELL_SECONDS = 1.0


def main() -> None:
    name, keep, seed, seconds, answer = sys.argv[1:6]
    target, found, outcomes = TARGETS[name], Counter[str](), Counter[str]()
    Path(keep).mkdir(parents=True, exist_ok=True)
    told = 0.0

    def one(data: bytes) -> None:
        nonlocal told
        try:
            outcomes[target.check(data)] += 1
        except Exception as error:
            kind = describe(error)
            found[kind] += 1
            outcomes["finding"] += 1
            save(Path(keep), target, kind, data)
        if time.monotonic() > told + TELL_SECONDS:
            told = time.monotonic()
            said = {"cases": outcomes.total(), "outcomes": dict(outcomes), "findings": dict(found)}
            Path(answer).write_text(json.dumps(said), "utf-8")

    def mutate(data: bytes, size: int, choice: int) -> bytes:
        random = Random(choice)
        return target.mutate(random, data if len(data) > 1 else random.choice(target.valid))[:size]

    with tempfile.TemporaryDirectory() as corpus:
        for i, data in enumerate(target.valid):
            (Path(corpus) / f"seed-{i}").write_bytes(data)
        options = [f"-max_total_time={seconds}", f"-seed={seed}", "-max_len=1048576", "-timeout=30", "-rss_limit_mb=2048",
                   "-verbosity=0", f"-artifact_prefix={keep}/{name}-native-"]  # fmt: skip
        atheris.Setup([sys.argv[0], *options, corpus], one, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
