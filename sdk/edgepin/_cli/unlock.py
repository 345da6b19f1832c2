"""`edgepin unlock`."""

from __future__ import annotations

import getpass

import click

from .console import emit_json, exit_codes, say
from .store_access import Access, store_access


@click.command()
@click.argument("subject", metavar="ID")
@click.option(
    "--why", metavar="TEXT", help="The reason. Kept in the audit, sealed; without it nothing is unlocked."
)
@click.option("--by", metavar="NAME", help="Who unlocks. Default: this user's login name.")
@click.option("--door", metavar="NAME", help="Only at this door, where the person was accepted before.")
@click.option("--status", is_flag=True, help="Only say what is counted, and unlock nothing.")
@store_access
@click.option("--json", "as_json", is_flag=True, help="Print what was counted as JSON.")
@exit_codes
def unlock(
    subject: str,
    why: str | None,
    by: str | None,
    door: str | None,
    status: bool,
    access: Access,
    as_json: bool,
) -> None:
    """Let face and voice be used again for an id that failed too often.

    See that it is the right person by other means first. An id that is not enrolled is unlocked like any other.

    \b
    Examples:
      edgepin unlock badge-0042 --status
      edgepin unlock badge-0042 --why "seen in person, passport"
    """
    from .._errors import UsageError

    if not status and not why:
        raise UsageError(
            "an unlocking says why", hint='--why "seen in person, passport", or --status to only look'
        )
    with access.open(read_only=True) as opened, access.existing_guard(opened) as guard:
        before = guard.status(subject)
        if why and not status:
            guard.unlock(subject, door=door, by=by or _login(), why=why)
    if as_json:
        emit_json("unlock", {"id": subject, "unlocked": not status, "door": door, "before": before.to_json()})
        return
    for place in before.doors:
        where = (
            "at doors where not yet accepted"
            if place.door is None
            else (f"at the door {place.door!r}" if place.door else "where no door was named")
        )
        state = (
            "disabled"
            if place.disabled
            else f"wait {place.retry_after:.0f} s"
            if place.retry_after
            else "open"
        )
        click.echo(f"{where}: {place.failures} failures, {state}")
    if not status:
        say(f"unlocked {subject}" + ("" if door is None else f" at the door {door!r}"))


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
