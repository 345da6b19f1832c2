"""`edgepin store list`, `show`, `export`, `erase`, `expire`, `purge`, `rotate`, `backup`, `restore` and `verify`."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .._errors import UnknownSubjectError, UsageError
from .console import emit_json, exit_codes, say
from .options import FILE
from .store_access import Access, store_access

if TYPE_CHECKING:
    from .._store.store import Store

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask. Needed where nobody is at a terminal.")


@click.group()
def store() -> None:
    """Keep house in the enrollments: look, export, erase, rotate keys, back up, restore.

    None of these needs the bundle: the store says itself which it was made for.

    \b
    Examples:
      edgepin store list
      edgepin store erase badge-0042
      edgepin store rotate --to tpm
      edgepin store backup /media/usb/enrollments.db
    """


@store.command(name="list")
@store_access
@as_json_option
@exit_codes
def list_people(access: Access, as_json: bool) -> None:
    """List the ids of all who are enrolled.

    \b
    Examples:
      edgepin store list
      edgepin store list --json | jq .count
    """
    with access.open(read_only=True) as opened:
        subjects = opened.subjects()
        about = {"store_id": opened.store_id, "bundle_digest": opened.bundle_digest}
    if as_json:
        emit_json("store-list", {**about, "count": len(subjects), "ids": subjects})
        return
    for subject in subjects:
        click.echo(subject)
    say(f"{len(subjects)} people")


@store.command()
@click.argument("subject", metavar="ID")
@store_access
@as_json_option
@exit_codes
def show(subject: str, access: Access, as_json: bool) -> None:
    """Say what is kept of a person, but for the templates themselves. An unknown id is a no (1).

    \b
    Example:
      edgepin store show badge-0042
    """
    with access.open(read_only=True) as opened:
        about = opened.export(subject)
    captures = {modality: template["captures"] for modality, template in about.pop("templates").items()}
    about = {"id": about.pop("subject"), "captures": captures, **about}
    if as_json:
        emit_json("store-subject", about)
        return
    click.echo(subject)
    say(f"captures  {', '.join(f'{count} of the {modality}' for modality, count in captures.items())}")
    say(f"enrolled  {about['enrolled_at'] or 'not on record'}, last changed {about['updated_at'] or 'never'}")
    say(f"consent   {_consent_in_words(about['consent'])}")


@store.command()
@click.argument("subject", metavar="ID")
@click.option("--out", type=FILE, metavar="FILE.json", help="Write to this file, of mode 0600.")
@store_access
@as_json_option
@exit_codes
def export(subject: str, out: Path | None, access: Access, as_json: bool) -> None:
    """Write everything that is kept of a person as JSON: templates, consent, dates.

    What is written is not encrypted: hand it over in a way that is.

    \b
    Examples:
      edgepin store export badge-0042 --out ada.json
      edgepin store export badge-0042 | gpg --encrypt --recipient ada@example.org > ada.json.gpg
    """
    from .._safe_files import create_once

    with access.open(read_only=True) as opened:
        about = opened.export(subject)
    values = {"id": about.pop("subject"), **about}
    if out is None:
        emit_json("store-export", values)
        return
    text = json.dumps({"schema": "edgepin.store-export/1", **values}, ensure_ascii=False, indent=1)
    if not create_once(out, text.encode() + b"\n"):
        raise UsageError(f"there is something at {out}", hint="choose another name")
    if as_json:
        emit_json("store-exported", {"id": subject, "path": str(out)})
    else:
        click.echo(str(out))


@store.command()
@click.argument("subjects", metavar="ID...", nargs=-1, required=True)
@yes_option
@store_access
@as_json_option
@exit_codes
def erase(subjects: tuple[str, ...], yes: bool, access: Access, as_json: bool) -> None:
    """Erase people: key, templates, consent, counters, earlier samples. An unknown id is a no (1), and nobody is erased.

    An older copy of the store does not bring them back as long as its journal, STORE.erased, is kept beside it.

    \b
    Example:
      edgepin store erase badge-0042 --yes
    """
    with access.open() as opened:
        for subject in subjects:
            if opened.get(subject) is None:
                raise UnknownSubjectError(f"{subject!r} is not enrolled")
        _confirm(f"Erase {', '.join(subjects)} for good?", yes)
        _forget(access, opened, subjects)
        for subject in dict.fromkeys(subjects):
            opened.delete(subject)
    _tell_erased(list(dict.fromkeys(subjects)), as_json)


@store.command()
@click.option("--dry-run", is_flag=True, help="Say whose consent has run out, and erase nobody.")
@yes_option
@store_access
@as_json_option
@exit_codes
def expire(dry_run: bool, yes: bool, access: Access, as_json: bool) -> None:
    """Erase all whose consent has run out by this machine's clock, and say whom.

    \b
    Examples:
      edgepin store expire --dry-run
      edgepin store expire --yes --json
    """
    now = time.time()
    with access.open(read_only=dry_run) as opened:
        subjects = opened.run_out(now)
        if subjects and not dry_run:
            _confirm(f"Erase {len(subjects)} people whose consent has run out?", yes)
            _forget(access, opened, subjects)
            subjects = opened.expire(now)
    _tell_erased(subjects, as_json, dry_run=dry_run)


@store.command()
@yes_option
@store_access
@as_json_option
@exit_codes
def purge(yes: bool, access: Access, as_json: bool) -> None:
    """Erase everybody. The empty store stays, and so does the journal of erasures.

    \b
    Example:
      edgepin store purge --yes
    """
    with access.open() as opened:
        _confirm(f"Erase all {opened.count()} people for good?", yes)
        _forget(access, opened, opened.subjects())
        subjects = opened.purge()
    _tell_erased(subjects, as_json)


@store.command()
@click.option(
    "--to", "new_key", metavar="KEY", help="The key to lock it with from now on; made if there is none."
)
@click.option(
    "--data-key", is_flag=True, help="Draw another data key too: after the old key was seen by others."
)
@click.option(
    "--bind-counter",
    metavar="COUNTER",
    help="Bind the store to a TPM's counter (tpm, tpm:0x01…), made if there is none.",
)
@store_access
@as_json_option
@exit_codes
def rotate(
    new_key: str | None, data_key: bool, bind_counter: str | None, access: Access, as_json: bool
) -> None:
    """Lock the store with another key, or bind it to a counter against being rolled back.

    Records stay as they are: the key wraps 32 bytes. KEY is tpm, tpm:0x81…, systemd:NAME, passphrase:FILE or
    file:PATH. Name it from then on with --key or EDGEPIN_KEY, and the counter with --counter or EDGEPIN_COUNTER. Older
    backups keep the key that they were written with.

    \b
    Examples:
      edgepin store rotate --to tpm
      edgepin store rotate --key tpm --to file:new.key --data-key
      edgepin store rotate --key tpm --bind-counter tpm
    """
    if new_key is None and bind_counter is None:
        raise UsageError("nothing to do", hint="give --to KEY, --bind-counter COUNTER, or both")
    if data_key and new_key is None:
        raise UsageError("--data-key goes with --to")
    with access.open() as opened:
        if new_key is not None:
            provider = access.other_key(new_key, create=True)
            opened.rotate(provider, data_key=data_key)
            access.note(opened, "rotated")
        if bind_counter is not None:
            from .._store.tpm import open_counter

            opened.bind_counter(open_counter(bind_counter, create=True))
    if as_json:
        emit_json(
            "store-rotation",
            {
                "store": str(access.path),
                "key": new_key,
                "key_id": provider.key_id if new_key is not None else None,
                "tier": provider.tier if new_key is not None else None,
                "data_key": data_key,
                "counter": bind_counter,
            },
        )
        return
    if new_key is not None:
        click.echo(provider.key_id)
        say(
            f"locked with {new_key} (tier {provider.tier}); from now on: --key {new_key}, or EDGEPIN_KEY={new_key}"
        )
    if bind_counter is not None:
        say(
            f"bound to {bind_counter}; from now on: --counter {bind_counter}, or EDGEPIN_COUNTER={bind_counter}"
        )


@store.command()
@click.argument("path", metavar="FILE", type=FILE)
@click.option("--to", "copy_key", metavar="KEY", help="Lock the copy with this key. Default: the store's.")
@store_access
@as_json_option
@exit_codes
def backup(path: Path, copy_key: str | None, access: Access, as_json: bool) -> None:
    """Write a copy of the store, of one moment, while it is in use. Encrypted as the store is; mode 0600.

    Keep STORE.erased with your backups as well: it says who must not come back. A copy under a TPM's key opens on this
    machine only; give it a passphrase or a key file with --to, and keep that elsewhere.

    \b
    Examples:
      edgepin store backup /media/usb/enrollments-2026-11-25.db
      edgepin store backup /media/usb/enrollments.db --key tpm --to passphrase:/media/usb/enrollments.salt
    """
    with access.open(read_only=True) as opened:
        provider = None if copy_key is None else access.other_key(copy_key, create=True)
        opened.backup(path, provider)
        people = opened.count()
    if as_json:
        emit_json("store-backup", {"path": str(path), "people": people, "key": copy_key})
    else:
        click.echo(str(path))
        say(f"{people} people")


@store.command()
@click.argument("path", metavar="FILE", type=FILE)
@click.option("--from", "copy_key", metavar="KEY", help="The key of the backup. Default: the store's.")
@yes_option
@store_access
@as_json_option
@exit_codes
def restore(path: Path, copy_key: str | None, yes: bool, access: Access, as_json: bool) -> None:
    """Put a backup into the place of the store, without those who were erased since.

    Who was erased is read from the store in that place and from STORE.erased beside it. Whoever was enrolled since the
    backup is gone. Stop every other program that uses the store first.

    \b
    Examples:
      edgepin store restore /media/usb/enrollments-2026-11-25.db --yes
      edgepin store restore /media/usb/enrollments.db --from passphrase:/media/usb/enrollments.salt --key tpm --yes
    """
    from .._store.store import Store

    place = access.path
    there = os.path.exists(place)
    _confirm(f"Replace {place} by the backup?" if there else f"Restore the backup as {place}?", yes)
    backup_key = None if copy_key is None else access.other_key(copy_key, create=False)
    key = access.key(create=not there and backup_key is not None)
    restored = Store.restore(path, place, key, None, backup_key=backup_key, counter=access.counter())
    with access.open() as opened:
        access.note(opened, "restored")
    if as_json:
        emit_json(
            "store-restoration",
            {"store": str(place), "people": restored.people, "erased_again": list(restored.erased_again)},
        )
        return
    click.echo(str(place))
    again = f"; erased again: {', '.join(restored.erased_again)}" if restored.erased_again else ""
    say(f"{restored.people} people{again}")


@store.command()
@store_access
@as_json_option
@exit_codes
def verify(access: Access, as_json: bool) -> None:
    """Read everything in the store: every page, every record, the journal of erasures. Exits with 5 at the first wrong one.

    A store of an older schema is migrated, and people whom the journal names are erased again: opening does that.

    \b
    Example:
      edgepin store verify --json
    """
    with access.open() as opened:
        report = opened.verify()
    if as_json:
        emit_json("store-verification", {"store": str(access.path), **vars(report)})
        return
    click.echo("sound")
    say(f"{report.people} people, {report.records} records, {report.tombstones} erasures noted")
    if report.journal_damaged:
        say(f"{report.journal_damaged} lines of {access.path}.erased were altered; the store has them itself")


def _consent_in_words(consent: dict[str, Any] | None) -> str:
    if consent is None:
        return "none on record"
    given = f"given {consent['given_at']}" if consent["given_at"] else "when it was given is not on record"
    ends = f", runs out {consent['expires_at']}" if consent["expires_at"] else ", does not run out"
    by = f", recorded by {consent['recorded_by']}" if consent["recorded_by"] else ""
    return f"{given}{ends}{by}: {' '.join(consent['text'].split())}"


def _confirm(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("nobody is here to be asked", hint="add --yes")
    if not click.confirm(question, err=True):
        raise UsageError("nothing was changed: the answer was no")


def _forget(access: Access, opened: Store, subjects: Sequence[str]) -> None:
    """What the guard keeps of people goes before the people: cut off between, erasing them again does the rest."""
    with access.guard(opened) as guard:
        if guard is not None:
            for subject in dict.fromkeys(subjects):
                guard.note("erased", subject)
                guard.forget(subject)


def _tell_erased(subjects: list[str], as_json: bool, *, dry_run: bool = False) -> None:
    if as_json:
        emit_json(
            "store-erasure",
            {"erased": [] if dry_run else subjects, "would_erase": subjects if dry_run else []},
        )
        return
    for subject in subjects:
        click.echo(subject)
    say(f"{'would erase' if dry_run else 'erased'} {len(subjects)} people")
