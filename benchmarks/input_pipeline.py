"""How fast batches are made, and what part of a training step the features are.

    python -m benchmarks.input_pipeline [--people 40] [--batches 12] [--config small] [--json FILE]

Rendered people are written to a temporary folder and indexed; the default training configuration draws batches from
the index, from disk, with 0, 1 and 2 workers, and from shards. A training step is the batch and both encoders, forward
and backward, on the processor, with one thread.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _ms(run: Callable[[], Any], times: int) -> dict[str, float]:
    run()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        run()
        taken.append(1000 * (time.perf_counter() - began))
    return {"median": round(statistics.median(taken), 2), "min": round(min(taken), 2)}


def _rate(sampler: Any, config: Any, count: int, workers: int) -> dict[str, float]:
    """Samples a second once all workers run: a sample is one face and one voice."""
    from edgepin_training.data.loader import AHEAD, batches

    warm = 1 + workers * (AHEAD + 1)  # what was made while the workers started
    made = batches(sampler, 0, warm + count, workers)
    began = time.perf_counter()
    for _ in range(warm):
        next(made)
    ready = time.perf_counter()
    for _ in made:
        pass
    seconds = time.perf_counter() - ready
    return {
        "samples_per_second": round(count * config.batch_size / seconds, 1),
        "seconds_to_start": round(ready - began, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--config", help="name of a packaged configuration; default: the training's own")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    import numpy as np
    import torch

    from edgepin_training.checkpoint import build_encoders
    from edgepin_training.config import TrainConfig
    from edgepin_training.data.layouts import find_layout
    from edgepin_training.data.lazy import open_corpus
    from edgepin_training.data.scan import scan
    from edgepin_training.rendered import write_corpus
    from edgepin_training.trainer import Sampler

    torch.set_num_threads(1)
    folder = Path(__file__).resolve().parents[1] / "training" / "edgepin_training" / "configs"
    config = TrainConfig.read(folder / f"{options.config}.toml") if options.config else TrainConfig()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "people"
        print("rendering people", file=sys.stderr)
        write_corpus(root, people=options.people, seed=1, faces=4, voices=4)
        began = time.perf_counter()
        index = scan(find_layout(root))
        seconds = time.perf_counter() - began
        captures = sum(len(row.names) for row in index.recordings)
        sampler = Sampler(open_corpus(index, config.face_spec), config)

        print("a step", file=sys.stderr)
        encoders = build_encoders(config, {})
        batch = sampler.draw(0)
        samples = int(config.voice_seconds * 16000)
        pcm = np.random.default_rng(0).normal(0, 2000, (config.batch_size, samples)).astype(np.int16)

        def step() -> None:
            loss = sum(
                out.square().sum()
                for name, x in (("face", batch.faces), ("voice", batch.log_mels))
                for out in encoders[name](x)
            )
            loss.backward()

        parts = {
            "batch": _ms(lambda: sampler.draw(1), options.batches),
            "features": _ms(lambda: sampler.features(pcm), options.batches),
            "encoders": _ms(step, max(3, options.batches // 3)),
        }
        whole = parts["batch"]["median"] + parts["encoders"]["median"]
        rates: dict[str, Any] = {}
        for workers in (0, 1, 2):
            print(f"{workers} workers", file=sys.stderr)
            rates[f"index, {workers} workers"] = _rate(sampler, config, options.batches, workers)
        if importlib.util.find_spec("webdataset"):
            from edgepin_training.data.shards import write_shards
            from edgepin_training.data.stream import ShardSampler

            made = write_shards(index, Path(place) / "shards", shard_bytes=4_000_000)
            rates["shards, 0 workers"] = _rate(ShardSampler(made, config), config, options.batches, 0)
        result = {
            "command": f"python -m benchmarks.input_pipeline {' '.join(sys.argv[1:])}".strip(),
            "machine": {
                "processors": os.cpu_count(),
                "machine": platform.machine(),
                "load": [round(load, 1) for load in os.getloadavg()],
                "python": platform.python_version(),
                "torch": torch.__version__,
                "numpy": np.__version__,
            },
            "config": options.config or "default",
            "batch_size": config.batch_size,
            "voice_seconds": config.voice_seconds,
            "scan_captures_per_second": round(captures / seconds, 1),
            "ms": parts,
            "features_share_of_step": round(parts["features"]["median"] / whole, 4),
            "encoders_samples_per_second": round(1000 * config.batch_size / parts["encoders"]["median"], 1),
            "rates": rates,
        }
    text = json.dumps(result, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
