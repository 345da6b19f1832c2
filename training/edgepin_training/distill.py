"""Distillation: an encoder learns to say of an augmented capture what a teacher says of the clean one.

One modality at a time. Four losses on the encoder's identity embedding: its angle to the teacher's (Romero et al.
2015 call it a hint), the matrix of similarities within the batch against the teacher's (Park et al. 2019, relational
distillation; here of cosines), and, from who is known to be whom, symmetric InfoNCE between two captures of a person and
an additive-margin softmax over all people. The weights that are kept for use are an exponential moving average (Polyak
and Juditsky 1992).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from edgepin._errors import UsageError

from .distill_state import STATE_FILE, floats, load_average, load_state, save_state
from .encoders import EMBEDDING_DIM
from .losses import additive_margin_softmax, symmetric_info_nce

LOG_FILE = "log.jsonl"
_LOG_EVERY = 20  # steps


@dataclass(frozen=True)
class DistillOptions:
    """How long and by which losses. A longer run starts from a shorter one's state: see `distill`."""

    seed: int = 0
    steps: int = 3000
    batch_size: int = 128
    learning_rate: float = (
        2e-3  # AdamW's: flat after `warmup` steps, then a half cosine over the last `decay` of all
    )
    warmup: int = 100
    decay: float = 0.4
    weight_decay: float = 5e-2
    save_every: int = 100  # steps
    average: float = 200.0  # steps over which the kept weights average, roughly
    angle_weight: float = 1.0
    relation_weight: float = 1.0
    class_weight: float = 0.5
    contrast_weight: float = 1.0
    margin: float = 0.2
    scale: float = 30.0
    temperature: float = 0.1
    bfloat16: bool = False  # the trunk in bfloat16: twice as fast where the processor has units for it

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "save_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1")
        for name in ("learning_rate", "average", "scale", "temperature"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} must be above 0")
        for name in (
            "angle_weight",
            "relation_weight",
            "class_weight",
            "contrast_weight",
            "weight_decay",
            "margin",
            "warmup",
            "seed",
        ):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} must not be negative")
        if self.batch_size % 2:
            raise UsageError("batch_size must be even: two captures of each person")
        if not 0 < self.decay <= 1:
            raise UsageError("decay must lie in (0, 1]")


@dataclass(frozen=True)
class DistillBatch:
    inputs: Tensor  # what the encoder takes, N of them
    targets: Tensor  # (N, 256) unit vectors, the teacher's in the space of the student
    labels: Tensor  # (N,) int64: who that is, or -1 where nobody knows
    groups: Tensor  # (N/2,) int64: who row i and row i + N/2 are, different numbers for different people


class Source(Protocol):
    """Where batches come from. Batch `step` depends on the source's seed and the step alone."""

    @property
    def classes(self) -> int: ...

    @property
    def center(self) -> Tensor:
        """(256,): the mean of the targets."""
        ...

    def draw(self, step: int) -> DistillBatch: ...


class TargetSpace:
    """From a teacher's space to the student's: shifted by part of the mean, turned into 256 dimensions, unit length.

    A fixed matrix with orthonormal rows keeps every angle, so nothing has to be learned for it and the student's
    cosines are the teacher's. `centering` in 0-1 says how much of the mean of all embeddings goes: some teachers
    verify better with it (0) and some without (1). The matrix is the same for every run, so that one may start from
    another's weights.
    """

    def __init__(self, embeddings: NDArray[np.float32], centering: float) -> None:
        dimensions = embeddings.shape[1]
        if dimensions > EMBEDDING_DIM:
            raise UsageError(f"the teacher has {dimensions} dimensions; at most {EMBEDDING_DIM} fit")
        self.shift = centering * embeddings.mean(axis=0)
        normal = np.random.default_rng(0).standard_normal((EMBEDDING_DIM, dimensions))
        self.matrix = np.linalg.qr(normal)[0].T.astype(np.float32)
        self.center = torch.from_numpy(self(embeddings).mean(axis=0))

    def __call__(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, D) -> (n, 256), unit vectors."""
        turned: NDArray[np.float32] = (embeddings - self.shift) @ self.matrix
        return turned / np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-9)

    def on(self, device: torch.device) -> Callable[[Tensor], Tensor]:
        """The same for tensors of `device`."""
        shift, matrix = (
            torch.from_numpy(np.asarray(a, np.float32)).to(device) for a in (self.shift, self.matrix)
        )
        return lambda embeddings: functional.normalize((embeddings - shift) @ matrix, dim=1)


def angle_loss(student: Tensor, teacher: Tensor, center: Tensor) -> Tensor:
    """Mean of 1 - cosine, in units of what it is between strangers; both (N, D), unit vectors.

    The mean 1 - cosine of two independent embeddings around `center` is 1 - |center|^2.
    """
    return (1 - (student * teacher).sum(dim=1)).mean() / (1 - center @ center).clamp(min=1e-3)


def relation_loss(student: Tensor, teacher: Tensor, center: Tensor) -> Tensor:
    """Mean squared difference of the two matrices of cosines around the center, without their diagonals."""
    a, b = around(student, center), around(teacher, center)
    count = len(a)
    squares = (a @ a.T - b @ b.T).square()
    return (squares.sum() - squares.diagonal().sum()) / (count * (count - 1))


def around(embeddings: Tensor, center: Tensor) -> Tensor:
    """Directions from the center: unit vectors, (N, D)."""
    return functional.normalize(embeddings - center, dim=1)


def distill(
    encoder: nn.Module,
    source: Source,
    options: DistillOptions,
    out: Path,
    *,
    told: dict[str, Any],
    init: Path | None = None,
    report: Callable[[dict[str, float]], None] | None = None,
) -> None:
    """Trains `encoder` to `options.steps`, from the state in `out` if there is one, and leaves the averaged weights in it.

    It trains where the source's tensors are. A killed call goes on where its last state was saved, and ends where an unbroken
    one would: on a CPU exactly, on a GPU but for roundings. A run that was made longer (more `steps`, nothing else) goes on
    from its state too: the learning rate rises again to its plateau.
    `told` is what else the run depends on; a state of another is refused. `init` is the folder of another run: where
    `out` has no state, its averaged weights are the first ones, if it has any.

    Raises:
        UsageError: `out` holds a run with other options, `init` one of another encoder, or the loss is not finite.
        IntegrityError: the state is damaged.
    """
    torch.manual_seed(options.seed)
    device = source.center.device
    if init is not None and (init / STATE_FILE).exists():
        load_average(encoder, init)
    else:
        start_at_center(encoder, source.center.cpu())
    modules = nn.ModuleDict({"encoder": encoder})
    modules["classes"] = nn.ParameterDict(
        {"centers": nn.Parameter(torch.randn(source.classes, EMBEDDING_DIM))}
    )
    modules.to(device)
    if options.bfloat16:
        # A quarter less time than planes by channel. In single precision oneDNN 3's backward pass of convolutions with 8
        # channels writes out of bounds in this layout.
        encoder.to(memory_format=torch.channels_last)
        _run_in_bfloat16(encoder.get_submodule("trunk"), device)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    optimizer = torch.optim.AdamW(_groups(modules, options.weight_decay), lr=options.learning_rate)
    average = {name: value.detach().clone() for name, value in floats(encoder)}
    identity = json.dumps({**_unlimited(options), **told}, sort_keys=True)
    step = load_state(out, modules, optimizer, average, identity) if (out / STATE_FILE).exists() else 0
    out.mkdir(parents=True, exist_ok=True)
    modules.train()
    began, first = time.monotonic(), step
    while step < options.steps:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(options, step)
        torch.manual_seed(1_000_003 * options.seed + step)
        losses = _step(source.draw(step), modules, optimizer, source.center, options)
        step += 1
        keep = 1 - 1 / min(options.average, 1 + step / 5)
        with torch.no_grad():
            torch._foreach_lerp_(list(average.values()), [value for _, value in floats(encoder)], 1 - keep)
        saves, logs = (
            step % every == 0 or step == options.steps for every in (options.save_every, _LOG_EVERY)
        )
        if device.type == "cuda" and not saves and not logs:
            continue  # to look at a loss is to wait for the GPU
        left = (time.monotonic() - began) / (step - first) * (options.steps - step)
        figures = {name: value.item() for name, value in losses.items()}
        if not math.isfinite(sum(figures.values())):
            raise UsageError("the loss is not finite any more", hint="lower learning_rate")
        figures = {"step": step, "steps": options.steps, **figures, "seconds_left": left}
        if saves:
            save_state(out, step, modules, optimizer, average, identity)
        if logs:
            with (out / LOG_FILE).open("a", encoding="utf-8") as log:
                log.write(json.dumps({name: round(value, 4) for name, value in figures.items()}) + "\n")
        if report:
            report(figures)
    if options.bfloat16:
        del encoder.get_submodule("trunk").forward
    with torch.no_grad():
        for name, value in floats(encoder):
            value.copy_(average[name])
    encoder.cpu().eval()


def start_at_center(encoder: nn.Module, center: Tensor) -> None:
    """Makes a new encoder say little more than the teacher's mean, so that not even that is to be learned first."""
    identity = encoder.get_submodule("heads.identity")
    with torch.no_grad():
        identity.get_parameter("weight").mul_(0.3)
        identity.get_parameter("bias").copy_(center)


def learning_rate(options: DistillOptions, step: int) -> float:
    """A linear warm-up, a plateau, and a half cosine to zero over the last `decay` of the steps."""
    if step < options.warmup:
        return options.learning_rate * (step + 1) / options.warmup
    start = options.steps * (1 - options.decay)
    if step < start:
        return options.learning_rate
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - start) / (options.steps - start)))


def _step(
    batch: DistillBatch,
    modules: nn.ModuleDict,
    optimizer: torch.optim.Optimizer,
    center: Tensor,
    options: DistillOptions,
) -> dict[str, Tensor]:
    identity, _ = modules["encoder"](batch.inputs)
    angle = angle_loss(identity, batch.targets, center)
    relation = relation_loss(identity, batch.targets, center)
    loss = options.angle_weight * angle + options.relation_weight * relation
    figures = {"angle": angle, "relation": relation}
    if options.contrast_weight > 0:
        first, second = around(identity, center).chunk(2)
        contrast = symmetric_info_nce(first, second, batch.groups, temperature=options.temperature)
        loss = loss + options.contrast_weight * contrast
        figures["contrast"] = contrast
    known = batch.labels >= 0
    if options.class_weight > 0 and known.any():
        classes, accuracy = additive_margin_softmax(
            around(identity, center)[known],
            modules["classes"]["centers"],
            batch.labels[known],
            margin=options.margin,
            scale=options.scale,
        )
        loss = loss + options.class_weight * classes
        figures |= {"class": classes, "accuracy": accuracy}
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(modules.parameters(), 5.0)
    optimizer.step()
    return {name: value.detach() for name, value in figures.items()}


def _run_in_bfloat16(trunk: nn.Module, device: torch.device) -> None:
    """Until its `forward` is deleted again. Pooling and heads stay in single precision: angles need the digits."""
    exact = trunk.forward

    def forward(x: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            made: Tensor = exact(x)
        return made.float()

    trunk.forward = forward


def _groups(modules: nn.ModuleDict, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels, none for what scales and shifts."""
    parameters = list(modules.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _unlimited(options: DistillOptions) -> dict[str, Any]:
    return {name: value for name, value in asdict(options).items() if name not in ("steps", "save_every")}
