"""The command `edgepin`. Verbs are found by entry points, so that a machine without an extra is told its name."""

from __future__ import annotations

import copy
import importlib
from importlib import metadata
from typing import Any

import click

from .._errors import MissingExtraError
from .console import exit_codes

# The device's own verbs, and the extra that brings each of the others.
DEVICE_VERBS = {
    "audit": "edgepin._cli.audit:audit",
    "bundle": "edgepin._cli.bundle:bundle",
    "calibrate": "edgepin._cli.calibrate:calibrate",
    "completion": "edgepin._cli.completion:completion",
    "compile": "edgepin._cli.compile:compile_engines",
    "demo": "edgepin._cli.demo:demo",
    "doctor": "edgepin._cli.doctor:doctor",
    "embed": "edgepin._cli.embed:embed",
    "enroll": "edgepin._cli.enroll:enroll",
    "evaluate": "edgepin._cli.evaluate:evaluate",
    "identify": "edgepin._cli.identify:identify",
    "keygen": "edgepin._cli.keygen:keygen",
    "label": "edgepin._cli.label:label",
    "live": "edgepin._cli.live:live",
    "store": "edgepin._cli.store:store",
    "unlock": "edgepin._cli.unlock:unlock",
    "verify": "edgepin._cli.verify:verify",
}
EXTRA_VERBS = {
    "export": ("export", "Quantize trained encoders, calibrate them and write a signed bundle."),
    "index": ("train", "Check a data set's captures, report what is broken, index it, write shards."),
    "render": ("train", "Draw and voice synthetic people into a folder corpus."),
    "train": ("train", "Train a face and a voice encoder from a folder corpus."),
}


class Verbs(click.Group):
    """Imports a verb when it is called: `edgepin verify` must not pay for what trains."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*DEVICE_VERBS, *EXTRA_VERBS})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in DEVICE_VERBS:
            module, _, name = DEVICE_VERBS[cmd_name].partition(":")
            command: click.Command = getattr(importlib.import_module(module), name)
            return command
        for entry in metadata.entry_points(group="edgepin.verbs"):
            if entry.name == cmd_name:
                try:
                    loaded: click.Command = entry.load()
                    return _naming_its_extra(cmd_name, loaded)
                except ImportError as error:
                    return _missing(cmd_name, error.name)
        return _missing(cmd_name, None) if cmd_name in EXTRA_VERBS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the verbs without importing what the extras bring."""
        rows = []
        for name in self.list_commands(ctx):
            if name in EXTRA_VERBS:
                rows.append((name, EXTRA_VERBS[name][1]))
            else:
                command = self.get_command(ctx, name)
                rows.append((name, command.get_short_help_str(80) if command else ""))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _naming_its_extra(verb: str, command: click.Command) -> click.Command:
    """The verb, with a package that it misses when it runs told as its extra: verbs import late."""
    run = command.callback
    if verb not in EXTRA_VERBS or run is None:
        return command

    @exit_codes
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return run(*args, **kwargs)
        except ModuleNotFoundError as error:
            if (error.name or "edgepin").startswith("edgepin"):
                raise  # a module of our own: a bug
            raise _lacking(verb, error.name) from error

    named = copy.copy(command)
    named.callback = guarded
    return named


def _lacking(verb: str, module: str | None) -> MissingExtraError:
    extra = EXTRA_VERBS[verb][0]
    which = f" ({module} is missing)" if module else ""
    return MissingExtraError(
        f"`edgepin {verb}` needs the `{extra}` extra{which}", hint=f"pip install 'edgepin[{extra}]'"
    )


def _missing(verb: str, module: str | None) -> click.Command:
    @exit_codes
    def refuse() -> None:
        raise _lacking(verb, module)

    return click.Command(
        verb,
        callback=refuse,
        help=EXTRA_VERBS[verb][1],
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="edgepin")
def main() -> None:
    """Face-and-voice verification that runs on the device itself.

    Data goes to stdout, everything for people to stderr.

    \b
    Exit codes: 0 yes, 1 no, 2 usage, 3 capture not usable, 4 locked out,
    5 integrity (bundle or store), 6 environment.
    """
