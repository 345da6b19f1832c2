"""Names for unnamed faces by named voices, or the reverse, in the shared space."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from .._errors import UsageError
from .assignment import assign
from .draws import Floats, Indices

RESAMPLES = 200


@dataclasses.dataclass(frozen=True)
class Label:
    """The name that a group of captures gets, and what speaks for it.

    name: None where there are more groups than names. score: the cosine of the two means. margin: by how much it exceeds the best
    other name's; negative where a one-to-one assignment gave that one to somebody else. agreement: the share of
    resamples of the captures in which the group got the same name; None where every group and name has a single capture.
    It says how steady the answer is, not how likely it is right: a wrong one can be steady.
    """

    group: str
    name: str | None
    score: float | None
    margin: float | None
    agreement: float | None
    captures: int


def group_of(path: str) -> str:
    """The first folder of a capture's name; a capture in no folder is a group of its own."""
    return path.split("/")[0]


def label(
    unnamed: Sequence[str],
    unnamed_rows: Floats,
    named: Sequence[str],
    named_rows: Floats,
    *,
    one_to_one: bool = True,
    seed: int = 0,
) -> list[Label]:
    """A label for each group of unnamed captures, sorted by group.

    Captures are named `group/file`; rows are unit vectors (n, d). With `one_to_one` no name is given twice and the sum of the
    scores is the highest possible; else each group gets the nearest name. Raises UsageError where either side is empty or the
    dimensions differ.
    """
    if not len(unnamed) or not len(named):
        raise UsageError("there is nothing to label, or nothing to label it by")
    if unnamed_rows.shape[1] != named_rows.shape[1]:
        raise UsageError(f"embeddings have {unnamed_rows.shape[1]} and {named_rows.shape[1]} dimensions")
    groups, names = _grouped(unnamed), _grouped(named)
    scores = _means(unnamed_rows, groups.values()) @ _means(named_rows, names.values()).T
    chosen = _choose(scores, one_to_one)
    agreement = None
    if len(unnamed) > len(groups) or len(named) > len(names):
        rng = np.random.default_rng(seed)
        same = np.zeros(len(groups))
        for _ in range(RESAMPLES):
            drawn = [
                _means(rows, [rng.choice(members, len(members)) for members in sides.values()])
                for rows, sides in ((unnamed_rows, groups), (named_rows, names))
            ]
            same += _choose(drawn[0] @ drawn[1].T, one_to_one) == chosen
        agreement = same / RESAMPLES
    listed = list(names)
    labels = []
    for number, (group, members) in enumerate(groups.items()):
        got = int(chosen[number])
        others = np.delete(scores[number], got) if got >= 0 else np.empty(0)
        labels.append(
            Label(
                group=group,
                name=listed[got] if got >= 0 else None,
                score=float(scores[number, got]) if got >= 0 else None,
                margin=float(scores[number, got] - others.max()) if len(others) else None,
                agreement=None if agreement is None or got < 0 else float(agreement[number]),
                captures=len(members),
            )
        )
    return labels


def _grouped(captures: Sequence[str]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for index, capture in enumerate(captures):
        groups.setdefault(group_of(capture), []).append(index)
    return dict(sorted(groups.items()))


def _means(rows: Floats, members: Iterable[Sequence[int] | Indices]) -> Floats:
    means = np.stack([rows[np.asarray(some)].mean(axis=0) for some in members])
    norms: Floats = np.linalg.norm(means, axis=1, keepdims=True)
    return np.asarray(means / np.maximum(norms, 1e-12))


def _choose(scores: Floats, one_to_one: bool) -> npt.NDArray[np.int64]:
    return assign(scores) if one_to_one else np.argmax(scores, axis=1).astype(np.int64)
