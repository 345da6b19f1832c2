"""Error rates by group of people: whether a threshold treats them alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._errors import UsageError
from ..metrics import BootstrapInterval, bootstrap_by_subject, rate_by_subject
from .trials import read_table


@dataclass(frozen=True)
class GroupRates:
    """Trials within one group, or, if `groups` are two, impostor trials between them.

    `people`, `genuine` and `impostor` count. `eer`, `fmr` and `fnmr` are fractions with an interval by subject
    bootstrap; None where there are no such trials, too few people, or no threshold.
    """

    groups: tuple[str, ...]
    people: int
    genuine: int
    impostor: int
    eer: BootstrapInterval | None
    fmr: BootstrapInterval | None
    fnmr: BootstrapInterval | None

    def to_json(self) -> dict[str, Any]:
        def interval(value: BootstrapInterval | None) -> dict[str, float] | None:
            return None if value is None else {"rate": value.estimate, "low": value.low, "high": value.high}

        return {
            "groups": list(self.groups),
            "people": self.people,
            "genuine": self.genuine,
            "impostor": self.impostor,
            "eer": interval(self.eer),
            "fmr": interval(self.fmr),
            "fnmr": interval(self.fnmr),
        }


def rates_by_group(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    enroll_subjects: npt.ArrayLike,
    test_subjects: npt.ArrayLike,
    groups: Mapping[str, str],
    *,
    threshold: float | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> tuple[GroupRates, ...]:
    """Rates within each group and between each two, with 95 % intervals by subject bootstrap.

    scores, labels: (n,) as in `edgepin.metrics`. enroll_subjects, test_subjects: (n,) strings. groups: by subject its
    group. threshold: accepted at it and above; without it there is no FMR and no FNMR.

    Raises UsageError for a subject without a group.
    """
    values, genuine = np.asarray(scores, np.float64), np.asarray(labels, np.bool_)
    enroll, test = np.asarray(enroll_subjects, np.str_), np.asarray(test_subjects, np.str_)
    people = np.unique(np.concatenate([enroll, test]))
    lacking = [name for name in people.tolist() if name not in groups]
    if lacking:
        raise UsageError(
            f"no group is given for {len(lacking)} people, the first of them {lacking[0]!r}",
            hint="each person of the trials needs a line: person, tab, group",
        )
    of_enroll, of_test = (
        np.array([groups[name] for name in people.tolist()])[np.searchsorted(people, side)]
        for side in (enroll, test)
    )
    names = sorted({groups[name] for name in people.tolist()})
    results = []
    for position, one in enumerate(names):
        for other in names[position:]:
            mask = ((of_enroll == one) & (of_test == other)) | ((of_enroll == other) & (of_test == one))
            if not mask.any():
                continue
            results.append(
                _rates(
                    (one,) if one == other else (one, other),
                    values[mask],
                    genuine[mask],
                    enroll[mask],
                    test[mask],
                    threshold,
                    {"replicates": replicates, "seed": seed},
                )
            )
    return tuple(results)


def read_groups(path: Path, column: str | None = None) -> dict[str, str]:
    """By person the group, from lines of person and group with tabs between; a first line that names the columns
    `speaker`, `person` or `subject` is a header, and then `column` chooses which holds the group (the second one by
    default). Raises UsageError, with the line's number, for anything else, and for a person that comes twice with
    different groups."""
    groups: dict[str, str] = {}
    chosen, seen_header = 1, False
    for number, fields in read_table(path, "list of groups"):
        if number == 1 and fields[0] in ("speaker", "person", "subject"):
            seen_header = True
            if column is not None:
                if column not in fields[1:]:
                    raise UsageError(f"{path} has no column {column!r}; it has {', '.join(fields[1:])}")
                chosen = fields.index(column)
            continue
        if len(fields) <= chosen or not fields[0] or not fields[chosen]:
            raise UsageError(f"{path}, line {number}: expected a person and a group between tabs")
        if groups.setdefault(fields[0], fields[chosen]) != fields[chosen]:
            raise UsageError(f"{path}, line {number}: {fields[0]!r} came before, in another group")
    if column is not None and not seen_header:
        raise UsageError(f"{path} has no header, so no column {column!r}")
    if not groups:
        raise UsageError(f"{path} holds no groups", hint="one line per person: person, tab, group")
    return groups


def _rates(
    groups: tuple[str, ...],
    scores: npt.NDArray[np.float64],
    genuine: npt.NDArray[np.bool_],
    enroll: npt.NDArray[np.str_],
    test: npt.NDArray[np.str_],
    threshold: float | None,
    options: dict[str, int],
) -> GroupRates:
    def rate(mask: npt.NDArray[np.bool_], events: npt.NDArray[np.bool_]) -> BootstrapInterval | None:
        if threshold is None or not mask.any():
            return None
        return rate_by_subject(events[mask], enroll[mask], test[mask], **options)

    passed = scores >= (np.inf if threshold is None else threshold)
    eer = None
    if genuine.any() and not genuine.all():
        try:
            eer = bootstrap_by_subject(scores, genuine, enroll, test, "eer", **options)
        except UsageError:
            eer = None  # too few people to resample
    return GroupRates(
        groups,
        len(np.unique(np.concatenate([enroll, test]))),
        int(genuine.sum()),
        int((~genuine).sum()),
        eer,
        rate(~genuine, passed),
        rate(genuine, ~passed),
    )
