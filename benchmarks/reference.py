"""The reference setting: how near the packaged `reference` configuration comes to the oracle, and in what time.

    python -m benchmarks.reference --out build/reference --json benchmarks/results/reference.json

The same call goes on where one stopped. With a GPU, many more people in less time, rendered straight into its memory
(`benchmarks.resident_people`), and by steps that fit into so many minutes:

    python -m benchmarks.reference --out build/gpu --resident --people 80000 --render-minutes 4 --render-only
    python -m benchmarks.reference --out build/gpu --resident --people 80000 --minutes 4 --json build/gpu/found.json \\
        --set batch_size=1024 --set identity_weight=0
    python -m benchmarks.reference --evaluate build/gpu/run --out build/gpu --json benchmarks/results/reference_gpu.json

`--pins N` also fits the pins in closed form (`edgepin_training.canonical`) on N more rendered people, of whom the training knows
nothing, and measures these.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.rendered_people import UNSEEN_FIRST, against_oracle, load_people
from benchmarks.resident_people import (
    CAPTURES,
    ResidentPeople,
    ResidentSampler,
    corpus_of,
    load_resident,
    render_here,
    render_people,
)
from edgepin._errors import EnvironmentFault
from edgepin._safe_files import write_atomic
from edgepin_training._cli import CONFIGS
from edgepin_training.canonical import choose_canonical
from edgepin_training.checkpoint import RUN_FILE, Run, load_run, read_run
from edgepin_training.config import TrainConfig
from edgepin_training.corpus import Corpus
from edgepin_training.encoders import parameter_count
from edgepin_training.parallel import pick_device
from edgepin_training.pins import seen_by_pin
from edgepin_training.sampler import Sampler
from edgepin_training.trainer import train

_TRIED, _WARMING = 60, 20  # steps that are timed, after which of them


def main(arguments: list[str] | None = None) -> None:
    told = _told(arguments)
    config = _config(told)
    if told.evaluate:
        before = json.loads(told.json.read_text("utf-8")) if told.json.exists() else {}
        _write(told.json, {**before, **_unseen(told.evaluate, told, config)})
        return
    device = pick_device(told.device)
    measured: dict[str, Any] = {"training_people": told.people}
    if told.resident:
        measured = _rendered(told, config)
        print(json.dumps(measured), flush=True)
        if told.render_only:
            return
    corpus, sampler = _training_people(told, config, device)
    if told.minutes and not (told.out / "run" / RUN_FILE).exists():
        config = dataclasses.replace(config, steps=_steps_in(told.minutes, corpus, config, sampler, device))
    measured |= _trained(corpus, config, told.out / "run", sampler, device, told.workers)
    measured["changed"] = _changed(TrainConfig.read(told.config), config)
    _write(told.json, {**_unseen(told.out / "run", told, config), **measured})


def _write(path: Path, figures: dict[str, Any]) -> None:
    write_atomic(path, [(json.dumps(figures, indent=1) + "\n").encode()])
    print(json.dumps(figures, indent=1))


def _told(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for people and the run")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--config", type=Path, default=CONFIGS / "reference.toml")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=JSON", help="an option of the training"
    )
    parser.add_argument("--people", type=int, default=4000)
    parser.add_argument("--unseen", type=int, default=300)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--minutes", type=float, help="as many steps as fit, by the pace of the first ones")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument(
        "--workers", type=int, default=0, help="processes that make batches of people on disk"
    )
    parser.add_argument("--resident", action="store_true", help="people in the memory of the device")
    parser.add_argument("--render-only", action="store_true")
    parser.add_argument(
        "--render-minutes", type=float, default=0.0, help="stop rendering then; 0: with the last one"
    )
    parser.add_argument("--processes", type=int, default=0, help="that render; 0: one for each processor")
    parser.add_argument(
        "--pins", type=int, default=0, metavar="N", help="fit canonical pins on N more people"
    )
    parser.add_argument(
        "--pins-first", type=int, help="the number of their first one; by default behind all others"
    )
    parser.add_argument("--evaluate", type=Path, metavar="RUN", help="no training: measure this run")
    told = parser.parse_args(arguments)
    if told.json is None and not told.render_only:
        parser.error("--json says where the figures go")
    if max(told.people, told.pins + (told.pins_first or told.people)) > UNSEEN_FIRST:
        parser.error(f"the people from number {UNSEEN_FIRST} on are kept from training")
    return told


def _config(told: argparse.Namespace) -> TrainConfig:
    if told.evaluate:
        return read_run(told.evaluate)[0]
    if (told.out / "run" / RUN_FILE).exists() and told.minutes:
        return read_run(told.out / "run")[0]
    values = TrainConfig.read(told.config).to_json()
    values |= {name: json.loads(value) for name, _, value in (pair.partition("=") for pair in told.set)}
    return TrainConfig.from_json(values | ({"steps": told.steps} if told.steps else {}))


def _rendered(told: argparse.Namespace, config: TrainConfig) -> dict[str, Any]:
    """Renders people for the device's memory, unless a call with --render-only did; how many there are, and in what time."""
    record = told.out / "rendering.json"
    before: dict[str, Any] = json.loads(record.read_text("utf-8")) if record.exists() else {}
    if before and not told.render_only:
        return before
    began = time.monotonic()
    there = render_people(
        told.out / "resident", told.people, config,
        seconds=60 * told.render_minutes, processes=told.processes,
    )  # fmt: skip
    minutes = round(before.get("render_minutes", 0.0) + _minutes(began), 1)
    made = {"training_people": there, "render_minutes": minutes}
    write_atomic(record, [json.dumps(made).encode()])
    return made


def _training_people(
    told: argparse.Namespace, config: TrainConfig, device: torch.device
) -> tuple[Corpus, Sampler | None]:
    if not told.resident:
        return load_people(told.out / "people", people=told.people, spec=config.face_spec), None
    people = load_resident(told.out / "resident", told.people, device)
    return corpus_of(people, config), ResidentSampler(people, config)


def _steps_in(
    minutes: float, corpus: Corpus, config: TrainConfig, sampler: Sampler | None, device: torch.device
) -> int:
    """How many steps take so long, by the pace of a few that are thrown away."""
    clock: list[float] = []
    tried = dataclasses.replace(config, steps=_TRIED, save_every=_TRIED)
    with tempfile.TemporaryDirectory() as folder:
        train(
            corpus, tried, Path(folder) / "run", sampler=sampler, device=device.type,
            report=lambda _: clock.append(time.monotonic()),
        )  # fmt: skip
    pace = (clock[-2] - clock[_WARMING]) / (_TRIED - 2 - _WARMING)  # the last one writes a checkpoint
    print(f"{1 / pace:.1f} steps a second", flush=True)
    return max(1, int(60 * minutes / pace))


def _trained(
    corpus: Corpus,
    config: TrainConfig,
    out: Path,
    sampler: Sampler | None,
    device: torch.device,
    workers: int,
) -> dict[str, Any]:
    began, started = time.monotonic(), time.process_time()
    losses: list[dict[str, float]] = []

    def report(figures: dict[str, float]) -> None:
        losses.append(figures)
        if len(losses) % 200 == 0:
            print(json.dumps({name: round(value, 4) for name, value in figures.items()}), flush=True)

    train(corpus, config, out, report=report, sampler=sampler, device=device.type, workers=workers)
    run = load_run(out)
    return {
        "steps": config.steps,
        "steps_of_this_call": len(losses),
        "minutes": _minutes(began),
        "cpu_minutes": round((time.process_time() - started) / 60, 1),
        "parameters": {"face": parameter_count(run.face), "voice": parameter_count(run.voice)},
        "machine": {
            "processor": platform.machine(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        },
    }


def _unseen(path: Path, told: argparse.Namespace, config: TrainConfig) -> dict[str, Any]:
    """What the run at `path` makes of people that it has not seen, found as a device would where OpenCV can."""
    try:
        people = load_people(
            told.out / "unseen", people=told.unseen, first=UNSEEN_FIRST, spec=config.face_spec
        )
        eyes = "the Haar finder's"
    except EnvironmentFault:
        people = render_here(told.unseen, UNSEEN_FIRST, config)
        eyes = "the generator's, moved as the Haar finder moves them"
    run = load_run(path)
    figures = {**against_oracle(run, people), "eyes": eyes}
    if told.pins:
        figures["canonical_pins"] = {**_fit_pins(run, told, config), **against_oracle(run, people)}
    return figures


def _fit_pins(run: Run, told: argparse.Namespace, config: TrainConfig) -> dict[str, Any]:
    """Gives the run canonical pins, of people rendered for that; what was chosen, and in what time."""
    began = time.monotonic()
    first = told.people if told.pins_first is None else told.pins_first
    render_people(told.out / "resident", told.pins, config, first=first, processes=told.processes)
    rendered = _minutes(began)
    people = load_resident(told.out / "resident", told.pins, torch.device("cpu"), first=first)
    chosen = fit_pins(run, people)
    return {"fitted": chosen, "render_minutes": rendered, "minutes": round(_minutes(began) - rendered, 1)}


def fit_pins(run: Run, people: ResidentPeople) -> dict[str, Any]:
    """Gives the run's encoders the canonical pins of these people; what was chosen."""
    ends = people.starts + people.counts
    voices = (people.frames[a:b].float()[None] for a, b in zip(people.starts, ends, strict=True))
    rows = [seen_by_pin(run.face, people.crops.split(64)), seen_by_pin(run.voice, voices)]
    fit, chosen = choose_canonical(
        *(side.double().numpy().reshape(len(people), CAPTURES, -1) for side in rows)
    )
    fit.put_into(run.face, run.voice)
    return chosen


def _changed(packaged: TrainConfig, config: TrainConfig) -> dict[str, Any]:
    """The options that are not the configuration's own."""
    before = packaged.to_json()
    return {name: value for name, value in config.to_json().items() if value != before[name]}


def _minutes(since: float) -> float:
    return round((time.monotonic() - since) / 60, 1)


if __name__ == "__main__":
    main()
