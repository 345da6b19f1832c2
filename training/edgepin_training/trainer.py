"""The training loop: an identity loss for faces and for voices, and a joint loss of all modalities of who is paired."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgepin._errors import EnvironmentFault, UsageError

from .checkpoint import CHECKPOINT_FILE, build_encoders, load_checkpoint, read_run, save_checkpoint, write_run
from .config import TrainConfig
from .corpus import Corpus, sound_lengths
from .data.loader import batches
from .encoders import EMBEDDING_DIM
from .grad_cache import GradientCache
from .objective import Objective, step_seed
from .parallel import Replica, Team, joined, synchronized
from .precision import gradient_scaler
from .run_log import RunLog
from .sampler import Batch, Sampler
from .warm_start import start_from

Report = Callable[[dict[str, float]], None]


def train(
    corpus: Corpus,
    config: TrainConfig,
    out: Path,
    *,
    report: Report | None = None,
    workers: int = 0,
    sampler: Sampler | None = None,
    device: str = "auto",
    board: bool = False,
) -> None:
    """Trains to `config.steps`, from the checkpoint in `out` if there is one. Raises UsageError if that one differs.

    `workers` processes make the batches (0: this one), the same ones however many. `sampler` draws them where the corpus's
    captures are elsewhere, such as `ShardSampler`. `device` is "cpu", "cuda", or "auto", a GPU where there is one. `board`
    writes curves for TensorBoard.

    Called in each of several processes that `torchrun` started, they train together, and each batch is shared by them.
    `report` is called in the first of them alone.
    """
    with joined(device) as team:
        _train(corpus, config, out, team, report, workers, sampler or Sampler(corpus, config), board)


def _train(
    corpus: Corpus,
    config: TrainConfig,
    out: Path,
    team: Team,
    report: Report | None,
    workers: int,
    sampler: Sampler,
    board: bool,
) -> None:
    summary = _summarize(corpus)
    told = json.dumps([config.to_json(), summary], sort_keys=True)
    team.agree(
        hashlib.sha256(told.encode()).hexdigest(),
        UsageError("the processes were given other options or data than each other", hint="start all alike"),
    )
    if config.batch_size < team.size:
        raise UsageError(f"a batch of {config.batch_size} has not a row for each of {team.size} processes")
    sampler.part = (team.rank, team.size)
    scaler = gradient_scaler(config.precision, team.device)
    torch.manual_seed(config.seed)
    encoders = build_encoders(config, {name: other.items[0].shape for name, other in corpus.others.items()})
    modules = nn.ModuleDict(encoders)
    if config.identity_weight:
        centers = {
            "face": nn.Parameter(torch.randn(len(corpus.faces.names), EMBEDDING_DIM)),
            "voice": nn.Parameter(torch.randn(sampler.voice_classes, EMBEDDING_DIM)),
        }
        modules["centers"] = nn.ParameterDict(centers)
    modules = synchronized(modules.train(), team, config.chunk).to(team.device)
    if config.precision != "fp32":
        # A quarter less time for dense convolutions on a processor, and what tensor cores take; in single precision see
        # `distill`.
        modules = modules.to(memory_format=torch.channels_last)
    if team.device.type == "cuda":
        # A step has the shapes of the one before: the algorithms that are tried first serve all of them.
        torch.backends.cudnn.benchmark = True
    optimizer = _optimizer(modules, config, team.device)
    if team.first(lambda: _begins(out, config, summary)):
        if config.init:
            start_from(Path(config.init), {name: modules[name] for name in encoders})
        team.first(lambda: write_run(out, config, summary))
        start = 0
    else:
        start = load_checkpoint(out, modules, optimizer, scaler)
        _lay_out_as_parameters(optimizer)
    team.agree(
        str(start),
        EnvironmentFault(
            "the processes do not see the same checkpoint", hint="--out must be one shared folder"
        ),
    )
    objective = Objective(modules, config, team)
    replica = Replica(modules, team, spares=objective.spares(corpus))
    log = RunLog(out, start, 2 * config.batch_size, board=board) if team.leads else None
    began = time.monotonic()
    for step, batch in enumerate(batches(sampler, start, config.steps, workers), start):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        losses = _step(batch.to(team.device), objective, replica, optimizer, scaler, step)
        done = step + 1
        if done % config.save_every == 0 or done == config.steps:
            team.first(lambda done=done: save_checkpoint(out, done, modules, optimizer, scaler))
        if log is None:
            continue
        figures = {
            "step": done,
            "steps": config.steps,
            **losses,
            "learning_rate": learning_rate(config, step),
            "seconds_left": (time.monotonic() - began) / (done - start) * (config.steps - done),
        }
        log(figures)
        if report:
            report(figures)
    if log is not None:
        log.close()


def _begins(out: Path, config: TrainConfig, summary: dict[str, Any]) -> bool:
    """Whether `out` holds no checkpoint yet. Raises UsageError if it holds another run, or this one cannot begin."""
    if (out / CHECKPOINT_FILE).exists():
        if read_run(out) != (config, summary):
            raise UsageError(f"{out} holds a run with other options or data", hint="choose another --out")
        return False
    if config.matching_head and not config.init:
        raise UsageError("a matching head needs trained encoders", hint="give their run with --init")
    return True


def learning_rate(config: TrainConfig, step: int) -> float:
    """A linear warm-up, then a half cosine to zero at the last step."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def _optimizer(modules: nn.ModuleDict, config: TrainConfig, device: torch.device) -> torch.optim.Optimizer:
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            modules.parameters(), lr=config.learning_rate, momentum=0.9, weight_decay=config.weight_decay
        )
    return torch.optim.AdamW(
        modules.parameters(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=device.type == "cuda",  # one launch for all parameters
    )


def _lay_out_as_parameters(optimizer: torch.optim.Optimizer) -> None:
    """A checkpoint has everything contiguous, and the fused optimizer takes no other layout than the parameter's."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter).copy_(value)


def _step(
    batch: Batch,
    objective: Objective,
    replica: Replica,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    step: int,
) -> dict[str, float]:
    config, items = objective.config, objective.items(batch)
    optimizer.zero_grad()
    torch.manual_seed(step_seed(config, step, objective.team.rank))
    if config.chunk:
        with replica.alone():
            cache = GradientCache(objective.encode, objective.modules, items, config.chunk)
            loss, figures = objective.loss(cache.embeddings, batch, step)
            scaler.scale(loss).backward()
            *parts, last = cache.surrogates()
            for part in parts:
                part().backward()
        replica(last).backward()
    else:
        loss, figures = replica(
            lambda: objective.loss(
                {modality: objective.encode(modality, rows) for modality, rows in items.items()}, batch, step
            )
        )
        scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(objective.modules.parameters(), 5.0)
    scaler.step(optimizer)
    scaler.update()
    return _reported(figures)


def _reported(figures: dict[str, Tensor | float]) -> dict[str, float]:
    """The figures of a step as numbers, for which a GPU is waited for once. Raises UsageError if the loss is not finite."""
    there = {name: value for name, value in figures.items() if isinstance(value, Tensor)}
    numbers = dict(zip(there, torch.stack(list(there.values())).tolist(), strict=True))
    found = {name: numbers[name] if name in numbers else float(value) for name, value in figures.items()}
    if not math.isfinite(found["loss"]):
        raise UsageError("the loss is not finite any more", hint="lower learning_rate")
    return found


def _summarize(corpus: Corpus) -> dict[str, Any]:
    face, voice = corpus.faces, corpus.voices
    summary = {
        "faces": {"people": len(face.names), "captures": len(face.items), "refused": face.refused},
        "voices": {
            "people": len(voice.names),
            "captures": len(voice.items),
            "refused": voice.refused,
            "minutes": round(sum(sound_lengths(voice.items)) / 16000 / 60, 1),
        },
        "pairs": len(corpus.pairs),
        "held_out": corpus.held_out,
        "sources": corpus.sources,
    }
    if corpus.others:
        summary["others"] = {
            name: {
                "people": len(other.names),
                "captures": len(other.items),
                "shape": list(other.items[0].shape),
            }
            for name, other in corpus.others.items()
        }
    return summary
