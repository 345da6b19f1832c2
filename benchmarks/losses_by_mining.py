"""Losses by mining: what each combination reaches on rendered people, over several seeds.

    python -m benchmarks.losses_by_mining --out build/losses --json benchmarks/results/losses_by_mining.json
    python -m benchmarks.losses_by_mining --frozen build/starter --out build/losses --json build/losses_by_mining_frozen.json

The first trains encoders and all; the second only heads on the encoders of a finished run (`frozen_heads`), in minutes.
Every run is kept under `--out`, so that the same call goes on where one stopped, within a run too; the JSON is written after
each. InfoNCE holds every negative of the batch against the positive and mines none.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.frozen_heads import Features, cross_modal_auc, train_heads
from benchmarks.rendered_people import UNSEEN_FIRST, against_oracle, load_people, share_of_oracle
from edgepin._safe_files import write_atomic
from edgepin_training._cli import CONFIGS
from edgepin_training.checkpoint import CHECKPOINT_FILE, load_run
from edgepin_training.config import TrainConfig
from edgepin_training.corpus import Corpus
from edgepin_training.trainer import train

OTHERS_FIRST = 200_000
"""The unseen people of frozen encoders: the starter's captures had some from 100,000 on."""
COMBINATIONS = (
    ("info_nce", "all"),
    *((loss, mining) for loss in ("contrastive", "triplet") for mining in (
        "random", "semi_hard", "curriculum", "hard", "all")),
)  # fmt: skip


def variant(base: TrainConfig, loss: str, mining: str, seed: int, steps: int) -> TrainConfig:
    """The base with this loss and mining, and nothing but the cross-modal loss: what is compared is that."""
    return dataclasses.replace(
        base,
        cross_modal_loss=loss,
        mining=mining,
        seed=seed,
        steps=steps,
        cross_modal_weight=1.0,
        identity_weight=0.0,
        contrastive_weight=0.0,
    )


def measure(config: TrainConfig, training: Corpus, unseen: Corpus, folder: Path) -> dict[str, Any]:
    """Trains, or goes on training, in the folder, and holds the run against the oracle; kept beside the run."""
    kept = folder / "against_oracle.json"
    if kept.is_file():
        return dict(json.loads(kept.read_text("utf-8")))
    began = time.monotonic()
    resumed = (folder / CHECKPOINT_FILE).exists()
    train(training, config, folder)
    figures: dict[str, Any] = against_oracle(load_run(folder), unseen)
    figures["minutes"] = None if resumed else round((time.monotonic() - began) / 60, 2)
    write_atomic(kept, [json.dumps(figures).encode()])
    return figures


def measure_heads(config: TrainConfig, training: Features, unseen: Features) -> dict[str, Any]:
    """Trains heads alone."""
    return dict(share_of_oracle(cross_modal_auc(train_heads(training, config), unseen)))


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By loss and mining: the mean, least and greatest share of the oracle over the seeds that are there."""
    found = []
    for loss, mining in COMBINATIONS:
        reached = [row["reached"] for row in rows if (row["loss"], row["mining"]) == (loss, mining)]
        if reached:
            found.append(
                {
                    "loss": loss,
                    "mining": mining,
                    "seeds": len(reached),
                    "reached": statistics.fmean(reached),
                    "least": min(reached),
                    "greatest": max(reached),
                }
            )
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for people and runs")
    parser.add_argument("--json", type=Path, required=True, help="the table, written after each run")
    parser.add_argument("--config", type=Path, default=CONFIGS / "reference.toml")
    parser.add_argument("--people", type=int, default=1000)
    parser.add_argument("--unseen", type=int, default=300)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--frozen", type=Path, help="a run whose encoders stay as they are")
    parser.add_argument("--only", help="one combination, such as contrastive:curriculum")
    told = parser.parse_args(arguments)
    base = TrainConfig.read(told.config)
    frozen = None if told.frozen is None else load_run(told.frozen)
    spec = base.face_spec if frozen is None else frozen.config.face_spec
    training = load_people(told.out / "people", people=told.people, spec=spec)
    folder, first = ("unseen", UNSEEN_FIRST) if frozen is None else ("others", OTHERS_FIRST)
    unseen = load_people(told.out / folder, people=told.unseen, first=first, spec=spec)
    if frozen is not None:
        seen, others = Features.of(frozen, training), Features.of(frozen, unseen)
    rows: list[dict[str, Any]] = []
    # Seeds outside: after the first round there is a whole table.
    for seed in range(told.seeds):
        for loss, mining in COMBINATIONS:
            if told.only not in (None, f"{loss}:{mining}"):
                continue
            config = variant(base, loss, mining, seed, told.steps)
            if frozen is None:
                figures = measure(config, training, unseen, told.out / f"{loss}-{mining}-{seed}")
            else:
                figures = measure_heads(config, seen, others)
            rows.append({"loss": loss, "mining": mining, "seed": seed, **figures})
            print(
                f"{loss:12} {mining:11} seed {seed}: {100 * figures['reached']:.1f} % of the oracle",
                flush=True,
            )
            report = {
                "what": "share of the oracle's way from chance, cross-modal, single captures of unseen people",
                "people": told.people,
                "unseen": told.unseen,
                "steps": told.steps,
                "frozen": None
                if frozen is None
                else {"steps": frozen.step, "config": frozen.config.to_json()},
                "config": base.to_json(),
                "machine": {
                    "processor": platform.machine(),
                    "torch": torch.__version__,
                    "threads": torch.get_num_threads(),
                },
                "table": table(rows),
                "runs": rows,
            }
            write_atomic(told.json, [(json.dumps(report, indent=1) + "\n").encode()])


if __name__ == "__main__":
    main()
