"""A key and a counter in the machine's TPM 2.0, by the commands of tpm2-tools.

The key is 32 random bytes, sealed under a storage primary and kept in the TPM at a persistent handle; the counter is
an NV index that only counts up. Which TPM: `TPM2TOOLS_TCTI`, else the kernel's `/dev/tpmrm0`. Secrets pass through
pipes, never on a command line. The owner's authorization is taken to be empty, as it is unless someone has set one.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import tempfile
from pathlib import Path

from .._errors import EnvironmentFault, UsageError
from .keys import KEY_BYTES, MemoryKey

DEFAULT_HANDLE = 0x81014550
DEFAULT_INDEX = 0x01814550
# Handles that the owner may give out: persistent objects (TCG registry of reserved handles, 2.3.1), NV indices.
_HANDLES = range(0x81000000, 0x81800000)
_INDICES = range(0x01800000, 0x01C00000)
_TCTI, _DEVICE = "TPM2TOOLS_TCTI", "/dev/tpmrm0"
_COUNTER_ATTRIBUTES = "nt=counter|ownerread|ownerwrite|authread|authwrite|no_da"


def tpm_is_here() -> bool:
    """Whether there seems to be a TPM; nothing is asked of it."""
    return bool(os.environ.get(_TCTI)) or Path(_DEVICE).exists()


def parse_handle(text: str, *, index: bool = False) -> int:
    """`0x81014550` as a persistent handle, `0x01814550` as an NV index. Raises `UsageError`."""
    allowed = _INDICES if index else _HANDLES
    value = int(text, 16) if re.fullmatch(r"0[xX][0-9a-fA-F]{1,8}", text) else -1
    if value not in allowed:
        raise UsageError(f"{text!r} is no handle from {allowed.start:#010x} to {allowed.stop - 1:#010x}")
    return value


class TpmKey(MemoryKey):
    """A key sealed in the TPM of this machine: the disk without the machine does not open the store.

    Whoever is root on the running machine, or may use the TPM's device, can have it unsealed; it is bound to no state of
    the software, and on the wires between processor and a separate TPM chip it can be seen.

    Args:
        handle: where it is kept; a number of its own for each key on the machine.
        create: seal a random key there if there is none. Pass False where a store exists already.
        timeout: seconds that one command may take.

    Raises `EnvironmentFault` if there is no TPM, it does not answer in time, or holds no key at that handle (it was
    cleared, or is another machine's).
    """

    def __init__(self, handle: int = DEFAULT_HANDLE, *, create: bool = True, timeout: float = 10.0) -> None:
        tpm = _Tools(timeout)
        if handle not in tpm.handles("handles-persistent"):
            if not create:
                raise EnvironmentFault(
                    f"the TPM holds no key at {handle:#010x}: it was cleared, or is another machine's",
                    hint="restore a backup that is locked with a key kept elsewhere (docs/keys.md)",
                )
            _seal(tpm, handle)
        key = tpm.run("tpm2_unseal", "-c", f"{handle:#010x}")
        if len(key) != KEY_BYTES:
            raise EnvironmentFault(
                f"what the TPM holds at {handle:#010x} is not a store's key",
                hint="choose another handle: tpm:0x81…",
            )
        super().__init__(key)

    @property
    def tier(self) -> str:
        return "tpm"


class TpmCounter:
    """An NV counter of the TPM. It cannot be set back: made anew, even after the TPM was cleared, it goes on above
    the highest value that any counter of this TPM had.

    Every `increment` wears the TPM's memory, which is made for hundreds of thousands of writes: it is for enrollments
    and erasures, not for every verification.

    Args:
        index: the NV index; a number of its own for each store.
        create: make the counter if there is none.
        timeout: seconds that one command may take.

    Raises `EnvironmentFault` if there is no TPM, it does not answer in time, or has no such counter.
    """

    def __init__(self, index: int = DEFAULT_INDEX, *, create: bool = False, timeout: float = 10.0) -> None:
        self._tpm, self._index = _Tools(timeout), f"{index:#010x}"
        if index not in self._tpm.handles("handles-nv-index"):
            if not create:
                raise EnvironmentFault(
                    f"the TPM has no counter {self._index}: it was cleared, or is another machine's",
                    hint="restore the store knowingly (edgepin store restore), bound to a new counter",
                )
            define = ("tpm2_nvdefine", "-Q", "-C", "o", "-s", "8", "-a", _COUNTER_ATTRIBUTES)
            self._tpm.run(*define, self._index)
            self.increment()  # before its first increment a counter cannot be read

    def read(self) -> int:
        """The counter now."""
        data = self._tpm.run("tpm2_nvread", "-C", self._index, "-s", "8", self._index)
        if len(data) != 8:
            raise EnvironmentFault(f"what the TPM has at {self._index} is no counter")
        return int.from_bytes(data, "big")

    def increment(self) -> int:
        """Adds 1."""
        self._tpm.run("tpm2_nvincrement", "-Q", "-C", self._index, self._index)
        return self.read()


def open_counter(text: str, *, create: bool = False, timeout: float = 10.0) -> TpmCounter:
    """The counter that a text names: `tpm` or `tpm:0x01…`, an NV index. Raises `UsageError` for another text."""
    kind, _, rest = text.partition(":")
    if kind != "tpm" or (text != kind and not rest):
        raise UsageError(f"{text!r} names no counter", hint="tpm or tpm:0x01…")
    index = parse_handle(rest, index=True) if rest else DEFAULT_INDEX
    return TpmCounter(index, create=create, timeout=timeout)


def _seal(tpm: _Tools, handle: int) -> None:
    with tempfile.TemporaryDirectory(prefix="edgepin-tpm-") as folder:
        primary, sealed, public, private = (
            str(Path(folder, name)) for name in ("primary", "sealed", "pub", "priv")
        )
        for step, data in (
            (("tpm2_createprimary", "-Q", "-C", "o", "-g", "sha256", "-G", "ecc", "-c", primary), b""),
            (
                ("tpm2_create", "-Q", "-C", primary, "-i", "-", "-u", public, "-r", private),
                secrets.token_bytes(KEY_BYTES),
            ),
            (("tpm2_load", "-Q", "-C", primary, "-u", public, "-r", private, "-c", sealed), b""),
        ):
            tpm.run(*step, stdin=data)
            tpm.run("tpm2_flushcontext", "-t")  # without a resource manager three objects fill a TPM
        try:
            tpm.run("tpm2_evictcontrol", "-Q", "-C", "o", "-c", sealed, f"{handle:#010x}")
        except EnvironmentFault:
            if handle not in tpm.handles(
                "handles-persistent"
            ):  # else another process was first: its key is the one
                raise
        finally:
            tpm.run("tpm2_flushcontext", "-t")


class _Tools:
    """Runs commands of tpm2-tools."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._environment = {"TSS2_LOG": "all+none", **os.environ}
        if _TCTI not in os.environ:
            self._environment[_TCTI] = f"device:{_DEVICE}"

    def run(self, tool: str, *arguments: str, stdin: bytes = b"") -> bytes:
        """What it prints. Raises `EnvironmentFault` if it is missing, fails, or takes too long."""
        try:
            done = subprocess.run(
                [tool, *arguments],
                input=stdin,
                capture_output=True,
                check=False,
                timeout=self._timeout,
                env=self._environment,
            )
        except FileNotFoundError:
            raise EnvironmentFault(f"{tool} is missing", hint="apt install tpm2-tools") from None
        except subprocess.TimeoutExpired:
            raise EnvironmentFault(
                f"the TPM did not answer {tool} within {self._timeout:g} s",
                hint="try again; restart the machine",
            ) from None
        except OSError as error:
            raise EnvironmentFault(f"cannot run {tool}: {error.strerror}") from error
        if done.returncode != 0:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"]
            raise EnvironmentFault(
                f"the TPM refused {tool}: {lines[0]}",
                hint="check that there is a TPM and that this user may use it (group tss): tpm2_getcap properties-fixed",
            )
        return done.stdout

    def handles(self, capability: str) -> set[int]:
        """The handles that the TPM lists."""
        listed = self.run("tpm2_getcap", capability).decode("ascii", "replace")
        return {int(text, 16) for text in re.findall(r"^- (0x[0-9a-fA-F]+)$", listed, re.MULTILINE)}
