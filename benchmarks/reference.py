"""The reference setting: how near the packaged `reference` configuration comes to the oracle, and in what time.

    python -m benchmarks.reference --out build/reference --json benchmarks/results/reference.json

The same call goes on where one stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.rendered_people import UNSEEN_FIRST, against_oracle, load_people
from edgepin._safe_files import write_atomic
from edgepin_training._cli import CONFIGS
from edgepin_training.checkpoint import load_run
from edgepin_training.config import TrainConfig
from edgepin_training.encoders import parameter_count
from edgepin_training.trainer import train


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for people and the run")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=CONFIGS / "reference.toml")
    parser.add_argument("--people", type=int, default=4000)
    parser.add_argument("--unseen", type=int, default=300)
    parser.add_argument("--steps", type=int)
    told = parser.parse_args(arguments)
    config = TrainConfig.read(told.config)
    if told.steps:
        config = dataclasses.replace(config, steps=told.steps)
    training = load_people(told.out / "people", people=told.people, spec=config.face_spec)
    unseen = load_people(told.out / "unseen", people=told.unseen, first=UNSEEN_FIRST, spec=config.face_spec)
    began, started = time.monotonic(), time.process_time()
    losses: list[dict[str, float]] = []
    train(training, config, told.out / "run", report=losses.append)
    minutes, cpu_minutes = (time.monotonic() - began) / 60, (time.process_time() - started) / 60
    run = load_run(told.out / "run")
    figures: dict[str, Any] = {
        **against_oracle(run, unseen),
        "training_people": told.people,
        "steps": config.steps,
        "steps_of_this_call": len(losses),
        "minutes": round(minutes, 1),
        "cpu_minutes": round(cpu_minutes, 1),
        "parameters": {"face": parameter_count(run.face), "voice": parameter_count(run.voice)},
        "machine": {
            "processor": platform.machine(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        },
    }
    write_atomic(told.json, [(json.dumps(figures, indent=1) + "\n").encode()])
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
