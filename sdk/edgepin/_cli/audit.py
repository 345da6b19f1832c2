"""`edgepin audit show`, `verify` and `head`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .console import emit_json, exit_codes, say
from .options import FILE
from .store_access import Access, store_access

if TYPE_CHECKING:
    from .._guard.audit import AuditLog
    from .._guard.entries import AuditEntry
    from .._guard.head import SignedHead

INTEGRITY = 5
_MAX_HEAD_BYTES = 8192


@click.group()
def audit() -> None:
    """Read the audit of attempts, check it, or sign how far it reaches.

    \b
    Examples:
      edgepin audit show --kind alarm
      edgepin audit verify
      edgepin audit head --json > head.json
    """


@audit.command()
@click.option(
    "--last", type=click.IntRange(0), default=50, show_default=True, help="How many; 0 is all that is kept."
)
@click.option("--id", "subject", metavar="ID", help="Only what concerns this id.")
@click.option("--kind", "kinds", metavar="KIND", multiple=True, help="Only these kinds; may be repeated.")
@store_access
@click.option("--json", "as_json", is_flag=True, help="Print the entries as JSON.")
@exit_codes
def show(last: int, subject: str | None, kinds: tuple[str, ...], access: Access, as_json: bool) -> None:
    """Show who tried when and how it ended, ids and scores revealed with the store's key.

    Entries are checked first; from the first bad one on nothing is shown, and it is an error (5).

    \b
    Examples:
      edgepin audit show --last 20
      edgepin audit show --kind alarm --kind unlocked --json
    """
    from .._errors import IntegrityError

    with _log(access) as log:
        report = log.verify()
        right = takewhile(
            lambda entry: report.first_bad is None or entry.sequence < report.first_bad, log.entries()
        )
        found = [
            entry
            for entry in right
            if (not kinds or entry.kind in kinds)
            and (subject is None or (entry.details or {}).get("id") == subject)
        ]
    found = found[-last:] if last else found
    if as_json:
        emit_json("audit", {"entries": [entry.to_json() for entry in found]})
    else:
        for entry in found:
            click.echo(_line(entry))
    if not report.intact:
        where = "" if report.first_bad is None else f" at entry {report.first_bad}"
        raise IntegrityError(
            f"the audit was altered{where}: {report.problem}", hint="edgepin audit verify --json"
        )


@audit.command()
@click.option(
    "--head", "head_file", type=FILE, metavar="HEAD.json", help="A signed head that was kept elsewhere."
)
@click.option(
    "--public-key",
    type=FILE,
    metavar="audit.pub",
    help="Whose signature is expected. Default: this device's.",
)
@store_access
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@exit_codes
def verify(head_file: Path | None, public_key: Path | None, access: Access, as_json: bool) -> None:
    """Recompute the audit's chain and check its signatures. Exits with 0 if all is right, with 5 if not.

    Without --head, an older copy of the whole file put in its place is not noticed.

    \b
    Example:
      edgepin audit verify --head /media/usb/head-2026-11-23.json
    """
    from .._bundle.signing import PublicKey

    head = None if head_file is None else _read_head(head_file)
    key = None if public_key is None else PublicKey.load(public_key)
    with _log(access) as log:
        report = log.verify(head, key)
    if as_json:
        emit_json(
            "audit-verification",
            {**report.to_json(), "held_against": None if head is None else head.sequence},
        )
    else:
        click.echo("intact" if report.intact else "altered")
        say(f"entries {report.first} to {report.last}")
        if report.problem:
            say(("" if report.first_bad is None else f"entry {report.first_bad}: ") + report.problem)
        elif head is None:
            say("not held against a head that was kept elsewhere (--head)")
    sys.exit(0 if report.intact else INTEGRITY)


@audit.command()
@store_access
@click.option(
    "--json", "as_json", is_flag=True, help="Print the signed head as JSON: the file to keep elsewhere."
)
@exit_codes
def head(access: Access, as_json: bool) -> None:
    """Sign how far the audit reaches now. Keep the JSON on another machine, for `edgepin audit verify --head`.

    \b
    Example:
      edgepin audit head --json > /media/usb/head-2026-11-23.json
    """
    with _log(access) as log:
        signed = log.head()
    if as_json:
        emit_json("audit-head", signed.to_json())
        return
    click.echo(f"entry {signed.sequence}, chain {signed.chain}")
    say(f"signed with the key {signed.key_id}; --json prints what `edgepin audit verify --head` reads")


@contextmanager
def _log(access: Access) -> Iterator[AuditLog]:
    with access.open(read_only=True) as opened, access.existing_guard(opened) as guard:
        yield guard.audit


def _read_head(path: Path) -> SignedHead:
    from .._errors import EnvironmentFault
    from .._guard.head import SignedHead

    try:
        with path.open("rb") as file:
            data = file.read(_MAX_HEAD_BYTES)
    except OSError as error:
        raise EnvironmentFault(f"cannot read {path}: {error.strerror}") from error
    return SignedHead.read(data)


def _line(entry: AuditEntry) -> str:
    try:
        when = datetime.fromtimestamp(entry.at, timezone.utc).isoformat(timespec="seconds")
    except (OverflowError, OSError, ValueError):  # a wall clock may say anything
        when = f"{entry.at:.0f}"
    parts = [f"{entry.sequence:>7}", when, f"{entry.kind:<11}"]
    if entry.subject is not None:
        parts.append(str((entry.details or {}).get("id", f"({entry.subject})")))
    if entry.door:
        parts.append(f"door {entry.door}")
    if entry.codes:
        parts.append(", ".join(entry.codes))
    parts += [f"{name} {value}" for name, value in (entry.details or {}).items() if name != "id"]
    return "  ".join(parts)
