"""A key that systemd hands to the service: `LoadCredentialEncrypted=` seals it to the machine's TPM or host key."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .._errors import EnvironmentFault, UsageError
from .keys import KEY_BYTES, MemoryKey, parse_key

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,254}")
_VARIABLE = "CREDENTIALS_DIRECTORY"


class SystemdCredential(MemoryKey):
    """The key in the credential `name`: 32 raw bytes, or 64 hex digits and a newline.

    Raises `EnvironmentFault` if systemd gave no such credential, `IntegrityError` if it does not hold a key.
    """

    def __init__(self, name: str) -> None:
        data = read_credential(name)
        if data is None:
            raise EnvironmentFault(
                f"systemd has given this process no credential {name!r}",
                hint=f"add LoadCredentialEncrypted={name} to the service (docs/keys.md)",
            )
        super().__init__(data if len(data) == KEY_BYTES else parse_key(f"the credential {name!r}", data))

    @property
    def tier(self) -> str:
        return "systemd"


def read_credential(name: str) -> bytes | None:
    """The bytes of a credential, at most 4 KiB and one; None if this process was given no such one."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot be the name of a credential")
    folder = os.environ.get(_VARIABLE)
    if not folder:
        return None
    try:
        # Who may read the folder is systemd's business; it may say so by an access list, which the mode shows as
        # rights of the group.
        with (Path(folder) / name).open("rb") as file:
            return file.read(4097)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EnvironmentFault(f"cannot read the credential {name!r}: {error.strerror}") from error
