"""`edgepin completion`."""

from __future__ import annotations

import click

from .console import exit_codes

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@exit_codes
def completion(shell: str) -> None:
    """Print the script that completes verbs and options in a shell.

    \b
    Examples:
      eval "$(edgepin completion bash)"                              # this shell
      edgepin completion bash > /etc/bash_completion.d/edgepin       # everybody's
      edgepin completion fish > ~/.config/fish/completions/edgepin.fish
    """
    from click.shell_completion import get_completion_class

    from .main import main

    kind = get_completion_class(shell)
    assert kind is not None  # click has all three
    click.echo(kind(main, {}, "edgepin", "_EDGEPIN_COMPLETE").source())
