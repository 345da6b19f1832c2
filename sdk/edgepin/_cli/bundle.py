"""`edgepin bundle inspect`, `verify`, `sign`, `slim` and `trust`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from .._bundle.manifest import PRECISIONS
from .._starter import BUNDLE as STARTER
from .._starter import is_starter, open_starter, starter_digest
from .console import emit_json, exit_codes, say
from .options import FILE

INTEGRITY = 5
TRUST_IN_WORDS = {
    "trusted": "by a key that this machine trusts",
    "pinned": "packaged with this version, which vouches for it by its digest",
    "unknown-key": "by a key that this machine does not know: it proves nothing here",
    "unsigned": "unsigned: nobody vouches for it",
}


@click.group()
def bundle() -> None:
    """Look into a bundle, check it, sign it, make it smaller, or trust its maker."""


@bundle.command()
@click.argument("path", metavar="[FILE]", type=FILE, required=False)
@click.option("--card", is_flag=True, help="Print the model card alone, as Markdown.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@exit_codes
def inspect(path: Path | None, card: bool, as_json: bool) -> None:
    """Say what a bundle is and what it promises. Runs nothing of it. Without FILE it is the packaged starter.

    Shows bundles that are not trusted, and says so. A damaged one is an error (5).

    \b
    Examples:
      edgepin bundle inspect --card
      edgepin bundle inspect site.pin
      edgepin bundle inspect site.pin --json | jq .evidence
    """
    from .._bundle.bundle import Bundle
    from .._bundle.report import describe_bundle

    opened = open_starter() if path is None or is_starter(path) else Bundle.open(path, allow_unsigned=True)
    if card:
        click.echo(opened.card.rstrip())
        return
    about = describe_bundle(opened)
    if as_json:
        emit_json("bundle", about)
        return
    for line in _lines(about):
        click.echo(line)
    if about["signature"] not in ("trusted", "pinned"):
        say(
            f"note: the bundle is {_signature_in_words(about)}; all of the above is only what it says of itself"
        )


@bundle.command()
@click.argument("path", metavar="[FILE]", type=FILE, required=False)
@click.option(
    "--allow-unsigned", is_flag=True, help="Exit with 0 if it is intact, whoever signed it or did not."
)
@click.option("--json", "as_json", is_flag=True, help="Print what became of the checks as JSON.")
@exit_codes
def verify(path: Path | None, allow_unsigned: bool, as_json: bool) -> None:
    """Check a bundle: is every byte as its maker wrote it, and is the maker trusted? Without FILE it is the packaged starter.

    Exits with 0 if both are so, and with 5 if not. Runs nothing of it.

    \b
    Examples:
      edgepin bundle verify site.pin
      edgepin bundle verify site.pin --json | jq -r .failed
    """
    from .._bundle.report import verify_bundle
    from .._bundle.signing import how_to_trust

    path = path or STARTER
    result = verify_bundle(path, trusted_digests=(starter_digest(),) if is_starter(path) else ())
    good = result.intact and (result.trusted or allow_unsigned)
    values = result.to_json()
    if as_json:
        emit_json("bundle-verification", values)
    elif result.error is not None:
        click.echo(f"damaged: the check `{result.failed}` failed")
        say(f"error: {result.error}")
        if result.error.hint:
            say(f"hint: {result.error.hint}")
    else:
        click.echo("intact and trusted" if result.trusted else "intact, not trusted")
        say(f"{values['name']}, digest {values['digest']}, {_signature_in_words(values)}")
        if not result.trusted:
            say(f"hint: {how_to_trust()}")
    sys.exit(0 if good else INTEGRITY)


@bundle.command()
@click.argument("path", metavar="FILE", type=FILE)
@click.option("--key", type=FILE, help="The private key. Default: this machine's, made on first use.")
@click.option("--out", type=FILE, help="Where to write the signed bundle. Default: in place of the other.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
@exit_codes
def sign(path: Path, key: Path | None, out: Path | None, as_json: bool) -> None:
    """Vouch for a bundle: sign it, in place of whoever signed it before.

    Every other byte stays as it is, and so does the digest: stores that belong to the bundle go on with it. A
    damaged bundle is refused (5). Look into it first: `edgepin bundle inspect FILE`.

    \b
    Examples:
      edgepin bundle sign site.pin
      edgepin bundle sign vendor.pin --key our.key --out ours.pin
    """
    from .._bundle.bundle import sign_bundle
    from .._bundle.report import verify_bundle
    from .._bundle.signing import SigningKey, trusted_keys

    found = verify_bundle(path)
    if found.error is not None:
        raise found.error
    assert found.bundle is not None
    signing_key = SigningKey.load(key) if key else SigningKey.load_or_create()
    # Behind a link the file itself is replaced, not the link.
    target = (out or path).resolve()
    sign_bundle(found.bundle, target, signing_key)
    before = found.bundle.key_id
    if as_json:
        emit_json(
            "bundle-signature",
            {
                "path": str(target),
                "digest": found.bundle.digest,
                "key_id": signing_key.key_id,
                "replaced_key_id": before,
            },
        )
        return
    click.echo(str(target))
    say(f"signed by {signing_key.key_id}, digest {found.bundle.digest}")
    if before not in (None, signing_key.key_id):
        say(f"in place of the signature by {before}")
    if signing_key.key_id not in trusted_keys():
        say("this machine does not trust that key: edgepin bundle trust FILE.pub")


@bundle.command()
@click.argument("source", metavar="FILE", type=FILE)
@click.option("--out", required=True, type=FILE, help="Where to write the smaller bundle.")
@click.option(
    "--precision",
    "precisions",
    required=True,
    multiple=True,
    type=click.Choice(PRECISIONS),
    help="A precision to keep. May be repeated.",
)
@click.option("--portable", is_flag=True, help="Also keep the voice encoder that takes PCM.")
@click.option("--unsigned", is_flag=True, help="Do not sign the smaller bundle.")
@click.option("--allow-unsigned", is_flag=True, help="Make it of a bundle that no trusted key has signed.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
@exit_codes
def slim(
    source: Path,
    out: Path,
    precisions: tuple[str, ...],
    portable: bool,
    unsigned: bool,
    allow_unsigned: bool,
    as_json: bool,
) -> None:
    """Make a smaller bundle that holds some precisions of another, for a device that runs no other.

    The encoders that are kept stay byte for byte, and so do calibration and evidence. Signs with this machine's key, as
    `edgepin export` does. The digest is another: enrollments of FILE do not carry over.

    \b
    Examples:
      edgepin bundle slim site.pin --out door.pin --precision int8
      edgepin bundle slim site.pin --out door.pin --precision fp16 --precision int8 --portable
    """
    from .._bundle.bundle import Bundle
    from .._bundle.signing import SigningKey
    from .._bundle.slim import SLIM_OF, check_slim, left_out, slim_bundle

    opened = Bundle.open(source, allow_unsigned=allow_unsigned)
    # Behind a link the file itself is replaced, not the link.
    target = Path(os.path.realpath(out))
    check_slim(opened, target, precisions, portable=portable)  # before a key is made
    signing_key = None if unsigned else SigningKey.load_or_create()
    digest = slim_bundle(opened, target, precisions, portable=portable, signing_key=signing_key)
    made = Bundle.open(target, trusted_digests=(digest,))
    if as_json:
        emit_json(
            "bundle-slim",
            {
                "path": str(target),
                "digest": digest,
                "key_id": made.key_id,
                "precisions": list(made.precisions("face")),
                "portable_voice": made.portable_voice is not None,
                "bytes": target.stat().st_size,
                "left_out": left_out(opened, made),
                "slim_of": made.manifest.usage[SLIM_OF],
            },
        )
    else:
        click.echo(str(target))
    sizes = " of ".join(f"{sum(one.sizes.values()) / 1e6:.1f}" for one in (made, opened))
    say(f"{sizes} MB; left out: {', '.join(left_out(opened, made))}")
    say(f"{'unsigned' if signing_key is None else f'signed by {signing_key.key_id}'}, digest {digest}")
    if signing_key is not None and opened.signature != "trusted":
        say(
            f"note: {source} is {_signature_in_words({'signature': opened.signature, 'key_id': opened.key_id})}"
        )
        say("note: the new signature vouches for what was kept of it; --unsigned leaves it out")
    say(f"note: enrollments of {source} do not carry over, as a store belongs to one digest: enroll anew")


@bundle.command()
@click.argument("path", metavar="FILE", type=FILE)
@click.option("--yes", is_flag=True, help="Do not ask: its id has been compared with what the maker says.")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
@exit_codes
def trust(path: Path, yes: bool, as_json: bool) -> None:
    """Trust a maker: from now on this machine opens what the key in FILE, a `.pub`, signs.

    Shows the key's id and asks. Compare it with the id that the maker tells you in another way than the file came.

    \b
    Examples:
      edgepin bundle trust signing.pub
      edgepin bundle trust signing.pub --yes
    """
    from .._bundle.signing import PublicKey, trusted_keys
    from .._bundle.signing import trust as trust_key
    from .._errors import UsageError

    key = PublicKey.load(path)
    known = key.key_id in trusted_keys()
    if not (known or yes):
        say(f"key id {key.key_id}")
        if not sys.stdin.isatty():
            raise UsageError(
                "nobody is here to be asked", hint="compare the id with the maker's, then add --yes"
            )
        if not click.confirm("Does the maker name the same id? Trust all bundles that it signs?", err=True):
            raise UsageError("the key is not trusted: the answer was no")
    written = trust_key(key)
    if as_json:
        emit_json(
            "trust", {"key_id": key.key_id, "path": None if written is None else str(written), "known": known}
        )
        return
    click.echo(key.key_id)
    say("it was trusted already" if written is None else f"trusted from now on; to undo it, remove {written}")


def _signature_in_words(about: Mapping[str, Any]) -> str:
    words = TRUST_IN_WORDS[about["signature"]]
    return words if about["key_id"] is None else f"signed {words} ({about['key_id']})"


def _lines(about: Mapping[str, Any]) -> Iterator[str]:
    """For a person, from what `describe_bundle` gives."""
    yield f"{about['name']}, made by {about['created_by']}"
    yield f"digest      {about['digest']}"
    yield f"signature   {_signature_in_words(about)}"
    for name, member in about["members"].items():
        yield f"            {name:20} {member['bytes']:>12,} bytes"
    face, log_mel = about["face"], about["log_mel"]
    eyes = " and ".join(f"({x:g}, {y:g})" for x, y in (face["left_eye"], face["right_eye"]))
    yield f"face        {face['size']}x{face['size']} px, eyes at {eyes} of the side"
    yield f"log-mel     {', '.join(_choices(log_mel))}"
    yield f"cross-modal {'compared' if about['cross_modal'] else 'not compared: no face was trained with its voice'}"
    policies = about["policies"]
    if not policies:
        yield "policy      none: the evidence carries no promise, so nothing can be accepted"
    for number, point in enumerate(policies):
        yield (
            f"{'' if number else 'policy':11} false match rate at most {point['fmr']:g}: LLR from {point['threshold']:+.2f}, "
            f"rejects {100 * point['fnmr']:.1f} % of right people"
            + (" (the default)" if point["fmr"] == about["default_fmr"] else "")
        )
    for title in ("evidence", "accuracy", "training", "usage"):
        # The card has the figures on trials as tables.
        rows = [(key, value) for key, value in _flat(about[title]) if not key.startswith("trials.")]
        for number, (key, value) in enumerate(rows or [("", "not stated")]):
            label = title if number == 0 else ""
            yield f"{label:11} {key + ': ' if key else ''}{value}"


def _choices(log_mel: Mapping[str, Any]) -> Iterator[str]:
    """The size of the spectrogram, and every field that is not the default's."""
    from edgepin_kernels import LogMelSpec

    default = LogMelSpec().to_json()
    shown = ("sample_rate", "num_mels", "frame_length", "hop_length", "window")
    for name in shown:
        yield f"{name} {log_mel[name]}"
    for name, value in log_mel.items():
        if name not in shown and value != default[name]:
            yield f"{name} {value}"


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of a JSON value with the way to each; line ends within a text become blanks."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list) and any(isinstance(item, (Mapping, list)) for item in value):
        for number, item in enumerate(value):
            yield from _flat(item, f"{prefix}[{number}]")
    elif isinstance(value, list):
        yield prefix, " ".join(", ".join(map(_leaf, value)).split())
    else:
        yield prefix, " ".join(_leaf(value).split())


def _leaf(value: Any) -> str:
    words = {None: "-", True: "yes", False: "no"}
    return words[value] if value is None or isinstance(value, bool) else str(value)
