"""`edgepin keygen`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from .console import emit_json, exit_codes, say
from .options import FILE


@click.command()
@click.option(
    "--out",
    type=FILE,
    metavar="PATH",
    help="The key's file, or a folder for signing.key. Default: this machine's signing key.",
)
@click.option("--json", "as_json", is_flag=True, help="Print where the key is, and its id, as JSON.")
@exit_codes
def keygen(out: Path | None, as_json: bool) -> None:
    """Make a key that signs bundles, and its public half, a `.pub`, which others trust.

    Never overwrites a key. Without --out it is the key that this machine signs with and trusts; `edgepin export`
    makes that one by itself.

    \b
    Examples:
      edgepin keygen
      edgepin keygen --out /media/usb/release.key
    """
    from .._bundle.signing import SigningKey
    from .._paths import signing_key_path

    path = signing_key_path() if out is None else out / "signing.key" if os.path.isdir(out) else out
    key = SigningKey.create(path.absolute())
    public = path.with_suffix(".pub")
    if as_json:
        emit_json("key", {"key_id": key.key_id, "private_key": str(path), "public_key": str(public)})
        return
    click.echo(key.key_id)
    say(f"private key: {path} (keep it to yourself, and keep a copy: bundles that it signs need it)")
    say(f"public key:  {public}")
    say(f"others trust it by: edgepin bundle trust {public.name}, after comparing the id {key.key_id}")
