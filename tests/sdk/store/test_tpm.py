"""The TPM's key and counter, on a software TPM (swtpm); and what is said where there is none, or a bad one."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgepin._errors import EnvironmentFault, UsageError
from edgepin._store.keys import KeyProvider, open_key
from edgepin._store.store import Store
from edgepin._store.tpm import DEFAULT_INDEX, TpmCounter, TpmKey, open_counter, tpm_is_here

from .people import DIGEST, template

HANDLE, INDEX = 0x81014551, 0x01814551
missing = [tool for tool in ("swtpm", "tpm2_unseal") if shutil.which(tool) is None]
needs_swtpm = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The TCTI of a software TPM that runs for this module."""
    folder = tmp_path_factory.mktemp("tpm")
    socket = folder / "s"
    process = subprocess.Popen(
        [
            "swtpm", "socket", "--tpm2", "--tpmstate", f"dir={folder}", "--server", f"type=unixio,path={socket}",
            "--ctrl", f"type=unixio,path={socket}.ctrl", "--flags", "not-need-init,startup-clear",
        ]
    )  # fmt: skip
    for _ in range(100):
        if socket.exists():
            break
        time.sleep(0.05)
    yield f"swtpm:path={socket}"
    process.terminate()
    process.wait()


@pytest.fixture
def tpm(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TPM2TOOLS_TCTI", machine)
    subprocess.run(["tpm2_clear"], check=True, capture_output=True)


def fake_tool(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    for name in names:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@needs_swtpm
def test_a_key_is_sealed_once_and_unsealed_ever_after(tpm: None) -> None:
    with pytest.raises(EnvironmentFault, match="holds no key") as caught:
        TpmKey(HANDLE, create=False)
    assert "backup" in (caught.value.hint or "")
    first: KeyProvider = TpmKey(HANDLE)
    again = open_key(f"tpm:{HANDLE:#x}", create=False)
    assert len(first.key()) == 32
    assert (again.key(), again.key_id, again.tier) == (first.key(), first.key_id, "tpm")
    assert open_key("tpm").key() != first.key()


@needs_swtpm
def test_a_store_under_the_tpm_is_lost_to_a_cleared_one_and_comes_back_from_a_copy_under_another_key(
    tpm: None, tmp_path: Path
) -> None:
    path, copy, other = tmp_path / "s.db", tmp_path / "copy.db", open_key(f"file:{tmp_path / 'recovery.key'}")
    with Store.open(path, TpmKey(HANDLE), DIGEST) as store:
        store.put("a", {"face": template()})
        store.backup(copy, other)
    subprocess.run(["tpm2_clear"], check=True, capture_output=True)
    with pytest.raises(EnvironmentFault, match="cleared"):
        TpmKey(HANDLE, create=False)
    path.unlink()
    assert Store.restore(copy, path, TpmKey(HANDLE), DIGEST, backup_key=other).people == 1
    with Store.open(path, TpmKey(HANDLE, create=False), DIGEST) as store:
        assert store.subjects() == ["a"]


@needs_swtpm
def test_what_is_no_key_at_the_handle_is_refused(tpm: None, tmp_path: Path) -> None:
    steps = (
        "tpm2_createprimary -Q -C o -g sha256 -G ecc -c primary.ctx",
        "printf short | tpm2_create -Q -C primary.ctx -i - -u pub -r priv",
        "tpm2_load -Q -C primary.ctx -u pub -r priv -c sealed.ctx",
        f"tpm2_evictcontrol -Q -C o -c sealed.ctx {HANDLE:#x}",
    )
    for step in steps:
        subprocess.run(f"{step} && tpm2_flushcontext -t", shell=True, check=True, cwd=tmp_path)
    with pytest.raises(EnvironmentFault, match="not a store's key"):
        TpmKey(HANDLE)


@needs_swtpm
def test_a_counter_counts_up_and_cannot_be_set_back_by_making_it_anew(tpm: None) -> None:
    with pytest.raises(EnvironmentFault, match="no counter"):
        TpmCounter(INDEX)
    counter = TpmCounter(INDEX, create=True)
    start = counter.read()
    assert start >= 1
    assert [counter.increment(), counter.increment()] == [start + 1, start + 2]
    assert TpmCounter(INDEX).read() == start + 2
    subprocess.run(["tpm2_nvundefine", "-Q", "-C", "o", f"{INDEX:#x}"], check=True)
    assert TpmCounter(INDEX, create=True).read() > start + 2
    subprocess.run(["tpm2_clear"], check=True, capture_output=True)
    assert TpmCounter(INDEX, create=True).read() > start + 3


@needs_swtpm
def test_a_store_bound_to_the_tpms_counter_cannot_be_rolled_back(tpm: None, tmp_path: Path) -> None:
    from edgepin._errors import StoreError

    path, counter = tmp_path / "s.db", TpmCounter(INDEX, create=True)
    with Store.open(path, TpmKey(HANDLE), DIGEST, counter=counter) as store:
        store.put("a", {"face": template()})
    old = shutil.copy(path, tmp_path / "old.db")
    with Store.open(path, TpmKey(HANDLE), DIGEST, counter=counter) as store:
        store.delete("a")
    shutil.copy(old, path)
    Path(f"{path}.erased").unlink()  # the journal rolled back with it
    with pytest.raises(StoreError, match="rolled back"):
        Store.open(path, TpmKey(HANDLE), DIGEST, counter=open_counter(f"tpm:{INDEX:#010x}"))


@needs_swtpm
def test_no_secret_is_on_a_command_line_or_left_in_a_file(
    tpm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    seen: list[str] = []
    run = subprocess.run

    def recorded(command: list[str], **options: object) -> object:
        seen.extend(command)
        return run(command, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", recorded)
    key = TpmKey(HANDLE).key()
    assert key.hex() not in " ".join(seen)
    assert list(tmp_path.iterdir()) == []


def test_without_the_tools_it_says_which_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for use in (TpmKey, TpmCounter):
        with pytest.raises(EnvironmentFault, match="missing") as caught:
            use()
        assert "tpm2-tools" in (caught.value.hint or "")


@needs_swtpm
def test_without_a_tpm_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TPM2TOOLS_TCTI", f"device:{tmp_path / 'none'}")
    with pytest.raises(EnvironmentFault, match="refused tpm2_getcap"):
        TpmKey(HANDLE)


def test_a_tpm_that_does_not_answer_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_tool(tmp_path, "exec sleep 20", monkeypatch, "tpm2_getcap")
    begin = time.monotonic()
    with pytest.raises(EnvironmentFault, match="did not answer"):
        TpmKey(HANDLE, timeout=0.2)
    assert time.monotonic() - begin < 5


def test_a_refusal_is_told_in_the_tools_own_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_tool(tmp_path, "echo 'ERROR: lockout' >&2; exit 1", monkeypatch, "tpm2_getcap")
    with pytest.raises(EnvironmentFault, match="refused tpm2_getcap: ERROR: lockout"):
        TpmCounter(DEFAULT_INDEX)


def test_what_answers_nonsense_is_no_counter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_tool(tmp_path, f"echo '- {INDEX:#x}'", monkeypatch, "tpm2_getcap", "tpm2_nvread")
    with pytest.raises(EnvironmentFault, match="no counter"):
        TpmCounter(INDEX).read()


@pytest.mark.parametrize("text", ["", "tpm:", "file:x", "tpm:0x81000000", "0x01814550"])
def test_a_text_that_names_no_counter_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        open_counter(text)


def test_whether_there_is_a_tpm_is_seen_without_asking_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TPM2TOOLS_TCTI", "swtpm")
    assert tpm_is_here()
