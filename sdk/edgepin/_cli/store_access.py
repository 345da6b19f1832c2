"""Which store a verb of `edgepin store` works on, and with which key and counter."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import store_options

if TYPE_CHECKING:
    from .._guard.guard import Guard
    from .._store.counter import MonotonicCounter
    from .._store.keys import KeyProvider
    from .._store.store import Store


@dataclass(frozen=True)
class Access:
    """What --store, --key-file, --key, --counter and --guard-counter say."""

    store: Path | None
    key_file: Path | None
    key_text: str | None
    counter_text: str | None
    guard_counter_text: str | None = None

    @property
    def path(self) -> Path:
        """The store's file."""
        from .._paths import enrollments_path

        return self.store if self.store is not None else enrollments_path()

    def key(self, *, create: bool = False) -> KeyProvider:
        from .._paths import store_key_path

        return self.other_key(self.key_text or f"file:{self.key_file or store_key_path()}", create=create)

    def other_key(self, text: str, *, create: bool) -> KeyProvider:
        from .._store.keys import open_key

        return open_key(text, create=create, ask=_ask if sys.stdin.isatty() else None)

    def counter(self) -> MonotonicCounter | None:
        return _counter(self.counter_text)

    def guard_counter(self) -> MonotonicCounter | None:
        return _counter(self.guard_counter_text)

    def open(self, *, read_only: bool = False) -> Store:
        """The store, which must exist, of whatever bundle."""
        from .._errors import EnvironmentFault
        from .._store.store import Store

        if not os.path.exists(self.path):  # before a key is asked for
            raise EnvironmentFault(
                f"there is no store at {self.path}", hint="enroll someone first, or name it with --store"
            )
        return Store.open(
            self.path, self.key(), None, read_only=read_only, must_exist=True, counter=self.counter()
        )

    @contextmanager
    def guard(self, opened: Store) -> Iterator[Guard | None]:
        """The guard beside the store; None if nothing was ever verified there."""
        from .._guard.guard import Guard, guard_path

        place = guard_path(self.path)
        if not os.path.exists(place):
            yield None
            return
        with Guard.open(place, opened, must_exist=True, counter=self.guard_counter()) as guard:
            yield guard

    @contextmanager
    def existing_guard(self, opened: Store) -> Iterator[Guard]:
        """The guard beside the store. Raises `EnvironmentFault` if there is none."""
        from .._errors import EnvironmentFault
        from .._guard.guard import guard_path

        with self.guard(opened) as guard:
            if guard is None:
                raise EnvironmentFault(
                    f"there is no guard at {guard_path(self.path)}", hint="the first verification makes it"
                )
            yield guard

    def note(self, opened: Store, kind: str) -> None:
        """Tells the audit, if there is one."""
        with self.guard(opened) as guard:
            if guard is not None:
                guard.note(kind)


def store_access(verb: Callable[..., Any]) -> Callable[..., Any]:
    """--store, --key-file, --key, --counter and --guard-counter, as one `access`."""

    @functools.wraps(verb)
    def with_access(
        *args: Any,
        store: Path | None,
        key_file: Path | None,
        key: str | None,
        counter: str | None,
        guard_counter: str | None,
        **kwargs: Any,
    ) -> Any:
        return verb(*args, access=Access(store, key_file, key, counter, guard_counter), **kwargs)

    decorated = click.option(
        "--guard-counter",
        metavar="COUNTER",
        envvar="EDGEPIN_GUARD_COUNTER",
        show_envvar=True,
        help="The counter, another one, that the guard beside the store is bound to: tpm:0x01….",
    )(with_access)
    decorated = click.option(
        "--counter",
        metavar="COUNTER",
        envvar="EDGEPIN_COUNTER",
        show_envvar=True,
        help="The counter that the store is bound to: tpm or tpm:0x01….",
    )(decorated)
    decorated = click.option(
        "--key",
        metavar="KEY",
        envvar="EDGEPIN_KEY",
        show_envvar=True,
        help="What locks the store, in place of a key file: tpm, tpm:0x81…, systemd:NAME, passphrase:FILE, file:PATH.",
    )(decorated)
    return store_options(decorated)


def _counter(text: str | None) -> MonotonicCounter | None:
    if text is None:
        return None
    from .._store.tpm import open_counter

    return open_counter(text)


def _ask() -> str:
    answer: str = click.prompt("passphrase", hide_input=True, err=True)
    return answer
