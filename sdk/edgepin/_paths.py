"""Where EdgePIN keeps what belongs to this machine.

`EDGEPIN_HOME` puts everything into one folder. Without it, the XDG base directories hold: keys and trust
under the configuration (`~/.config/edgepin`), enrollments under the data (`~/.local/share/edgepin`), engines
under the cache (`~/.cache/edgepin`), so that a backup of the data does not carry the key that opens it.
Nothing here creates a folder.
"""

from __future__ import annotations

import os
from pathlib import Path

from ._errors import EnvironmentFault

HOME_VARIABLE = "EDGEPIN_HOME"


def config_dir() -> Path:
    """The folder of keys and trusted makers."""
    return _base("XDG_CONFIG_HOME", ".config")


def data_dir() -> Path:
    """The folder of enrollments."""
    return _base("XDG_DATA_HOME", ".local/share")


def cache_dir() -> Path:
    """The folder of what can be made again; under `EDGEPIN_HOME` it is `cache`."""
    home = os.environ.get(HOME_VARIABLE)
    return _home(home) / "cache" if home else _base("XDG_CACHE_HOME", ".cache")


def signing_key_path() -> Path:
    """The private key with which this machine signs bundles."""
    return config_dir() / "signing.key"


def signing_public_path() -> Path:
    """Its public half: the file that another machine copies into its trusted folder."""
    return config_dir() / "signing.pub"


def trusted_dir() -> Path:
    """The folder of public keys, `*.pub`, whose bundles this machine opens."""
    return config_dir() / "trusted"


def store_key_path() -> Path:
    """The key that locks the store, where no other key provider is used."""
    return config_dir() / "store.key"


def enrollments_path() -> Path:
    """The store that is used when none is named."""
    return data_dir() / "enrollments.db"


def _base(variable: str, fallback: str) -> Path:
    home = os.environ.get(HOME_VARIABLE)
    if home:
        return _home(home)
    # The XDG base directory specification: a relative path in these variables is invalid and ignored.
    base = os.environ.get(variable, "")
    if os.path.isabs(base):
        return Path(base) / "edgepin"
    return _home("~") / fallback / "edgepin"


def _home(text: str) -> Path:
    try:
        return Path(text).expanduser().absolute()
    except (RuntimeError, OSError):
        raise EnvironmentFault(
            "this user has no home folder",
            hint=f"set {HOME_VARIABLE} to a folder that only this user can read",
        ) from None
