"""`edgepin doctor` on machines that are not here: Jetsons, a desktop, a bare processor, and ones that lie."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from edgepin import EnvironmentFault, _starter
from edgepin._cli import doctor as command
from edgepin._cli.gaps import find_gaps
from edgepin._cli.hardware import GPU_PROBE, Machine, run_command, survey
from edgepin._runtime import backends
from edgepin._runtime.tensorrt_api import Gpu

from .commands import ENVIRONMENT, INTEGRITY, YES, invoke
from .conftest import Pins
from .fake_gpu import FakeGpu
from .test_backends import compile_engines

NO_TENSORRT = {"version": None, "flavor": None, "why": "TensorRT is not installed", "mend": "install it"}
CPU_ONLY = ["CPUExecutionProvider"]


def machine(
    root: Path, *, commands: dict[str, str | None], versions: dict[str, str], files: dict[str, str]
) -> Machine:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)

    def run(asked: Sequence[str]) -> str | None:
        if tuple(asked) == GPU_PROBE:
            return commands.get("gpu")
        return commands.get(asked[0])

    return Machine(root, run, versions.get)


def orin(root: Path) -> Machine:
    """A Jetson Orin Nano with JetPack 6.2 as it is after flashing: TensorRT, and nothing set up for speed."""
    cpus = {
        f"sys/devices/system/cpu/cpu{number}/cpufreq/{name}": text
        for number in range(6)
        for name, text in (
            ("scaling_min_freq", "729600\n"),
            ("scaling_max_freq", "1728000\n"),
            ("scaling_governor", "schedutil\n"),
        )
    }
    return machine(
        root,
        commands={
            "gpu": json.dumps({"name": "Orin", "capability": "sm_87", "cuda": "12.6", "memory_mib": 7620}),
            "dpkg-query": "6.2+b77",
            "nvpmodel": "NV Power Mode: 25W\n1\n",
        },
        versions={},
        files={
            "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
            "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64,"
            " DATE: Wed Jan  8 01:49:37 UTC 2025\n# KERNEL_VARIANT: oot\n",
            "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0"
            "  Release Build  (buildbrain@mobile)\nGCC version:  gcc version 11.4.0\n",
            "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=1 NAME=25W >\n"
            "< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n< PM_CONFIG DEFAULT=1 >\n",
            "sys/class/devfreq/17000000.gpu/min_freq": "306000000\n",
            "sys/class/devfreq/17000000.gpu/max_freq": "1020000000\n",
            "sys/class/devfreq/17000000.gpu/cur_freq": "306000000\n",
            "usr/lib/python3.10/dist-packages/tensorrt/__init__.py": "",
            **cpus,
        },
    )


def thor(root: Path) -> Machine:
    """A Thor with JetPack 7, everything installed, fixed clocks."""
    return machine(
        root,
        commands={
            "gpu": json.dumps(
                {"name": "NVIDIA Thor", "capability": "sm_110", "cuda": "13.0", "memory_mib": 125772}
            ),
            "nvcc": "Cuda compilation tools, release 13.0, V13.0.48\n",
            "nvpmodel": "NV Power Mode: MAXN\n0\n",
        },
        versions={"pycuda": "2026.1", "cuda-bindings": "13.0.3"},
        files={
            "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
            "etc/nv_tegra_release": "# R38 (release), REVISION: 2.0, GCID: 41844464, BOARD: generic, EABI: aarch64\n",
            "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=120W >\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq": "2601000\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "2601000\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
        },
    )


def desktop(root: Path) -> Machine:
    """A desktop with an RTX card and its driver, and no more."""
    return machine(
        root,
        commands={
            "gpu": json.dumps(
                {
                    "name": "NVIDIA GeForce RTX 4070",
                    "capability": "sm_89",
                    "cuda": "12.8",
                    "memory_mib": 11865,
                }
            ),
            "nvidia-smi": "570.86.10\n",
        },
        versions={},
        files={},
    )


def bare(root: Path) -> Machine:
    return machine(root, commands={"gpu": '{"error": "the CUDA driver is not here"}'}, versions={}, files={})


def mends(on: Machine, tensorrt: dict[str, Any], providers: list[str] = CPU_ONLY) -> dict[str, str | None]:
    return {gap["what"]: gap["mend"] for gap in find_gaps(on, survey(on), tensorrt, providers)}


HERE = {"version": "10.3.0", "flavor": "tensorrt", "why": None, "mend": None}


# --- What machines say


def test_a_jetson_orin_with_jetpack_6(tmp_path: Path) -> None:
    on = orin(tmp_path)
    found = survey(on)
    assert found["jetson"] == {
        "module": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        "l4t": "36.4.3",
        "jetpack": "6.2",
    }
    assert found["gpu"] == {
        "name": "Orin",
        "capability": "sm_87",
        "cuda": "12.6",
        "memory_mib": 7620,
        "why": None,
    }
    assert found["driver"] == "540.4.0"
    assert found["power"] == {"mode": "25W", "fastest": {"mode": "MAXN_SUPER", "id": 2}}
    assert found["clocks"] == {
        "cpu_fixed": False,
        "gpu_fixed": False,
        "governor": "schedutil",
        "gpu_mhz": 306,
    }
    assert mends(on, NO_TENSORRT) == {
        "tensorrt": "python3 -m venv --system-site-packages edgepin, and install edgepin there: TensorRT is the"
        " system's",
        "pycuda": "pip install 'edgepin[jetson]' (with nvcc on PATH: it is compiled)",
        "nvcc": "sudo apt install cuda-nvcc-12-6",
        "cuda-bindings": "pip install 'cuda-bindings==12.*'",
        "power": "sudo nvpmodel -m 2",
        "clocks": "sudo jetson_clocks",
    }


def test_a_thor_with_jetpack_7_that_lacks_nothing(tmp_path: Path) -> None:
    on = thor(tmp_path)
    found = survey(on)
    assert found["jetson"] == {
        "module": "NVIDIA Jetson AGX Thor Developer Kit",
        "l4t": "38.2.0",
        "jetpack": "7",
    }
    assert found["clocks"]["cpu_fixed"] is True
    assert found["clocks"]["gpu_fixed"] is None
    assert found["cuda"] == {"nvcc": "13.0"}
    assert mends(on, {**HERE, "version": "10.13.2"}) == {}


def test_a_desktop_with_a_card(tmp_path: Path) -> None:
    on = desktop(tmp_path)
    found = survey(on)
    assert (found["jetson"], found["power"], found["driver"]) == (None, None, "570.86.10")
    assert mends(on, NO_TENSORRT) == {
        "tensorrt": "pip install 'edgepin[tensorrt]'",
        "pycuda": "pip install 'edgepin[tensorrt]' (with nvcc on PATH: it is compiled)",
        "nvcc": "install the CUDA toolkit 12.8 or older, and set CUDA_HOME to it",
        "cuda-bindings": "pip install 'cuda-bindings==12.*'",
        "onnxruntime-cuda": "pip uninstall onnxruntime && pip install onnxruntime-gpu",
    }
    assert "onnxruntime-cuda" not in mends(on, NO_TENSORRT, ["CUDAExecutionProvider", *CPU_ONLY])


def test_a_bare_processor_is_told_of_no_package_that_would_not_help(tmp_path: Path) -> None:
    on = bare(tmp_path)
    assert survey(on)["gpu"]["why"] == "the CUDA driver is not here"
    assert mends(on, NO_TENSORRT) == {}


def test_a_driver_without_its_library_is_a_gap(tmp_path: Path) -> None:
    on = bare(tmp_path)
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/version").write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024\n"
    )
    assert survey(on)["driver"] == "550.54.14"
    assert set(mends(on, NO_TENSORRT)) == {"gpu"}


def test_jetpack_5_is_said_to_be_too_old(tmp_path: Path) -> None:
    six = orin(tmp_path)
    (tmp_path / "etc/nv_tegra_release").write_text("# R35 (release), REVISION: 4.1, GCID: 1\n")
    on = Machine(tmp_path, lambda asked: None if asked[0] == "dpkg-query" else six.run(asked), six.version)
    assert survey(on)["jetson"]["jetpack"] == "5"
    assert "JetPack 6.1" in (mends(on, NO_TENSORRT)["jetpack"] or "")


# --- Machines that lie, hang or are absent


GARBAGE = ("", "\0\0\0", "null", "[]", "{}", "[" * 5000, '{"name": 3}', "ü\x1b[31m" * 9000, '{"name": ""}',
           '{"name": "x", "memory_mib": -1, "cuda": "a", "capability": []}', "R99999 (release), REVISION: x",
           "NV Power Mode:", "release 99999999.9", "POWER_MODEL ID=999999 NAME=MAXN", "9" * 400)  # fmt: skip


@pytest.mark.parametrize("text", GARBAGE, ids=range(len(GARBAGE)))
@pytest.mark.parametrize("build", [orin, thor, desktop])
def test_garbage_in_every_file_and_from_every_command_is_no_exception(
    tmp_path: Path, build: Callable[[Path], Machine], text: str
) -> None:
    build(tmp_path)
    for path in [path for path in tmp_path.rglob("*") if path.is_file()]:
        path.write_text(text)
    on = Machine(tmp_path, lambda asked: text, lambda name: None)
    found = survey(on)
    find_gaps(on, found, NO_TENSORRT, [])
    said = json.dumps(found)
    assert "\\u001b" not in said
    assert len(said) < 4000


def test_folders_pipes_and_unreadable_files_in_place_of_files_are_no_exception(tmp_path: Path) -> None:
    import os

    on = orin(tmp_path)
    for name, make in (
        ("proc/device-tree/model", os.mkfifo),
        ("etc/nv_tegra_release", os.mkdir),
        ("etc/nvpmodel.conf", lambda path: os.symlink(path, path)),
    ):
        (tmp_path / name).unlink()
        make(tmp_path / name)
    assert survey(on)["jetson"] is None


def test_a_command_that_hangs_fails_or_is_absent_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgepin._cli.hardware._SECONDS", 0.5)
    began = time.monotonic()
    assert run_command((sys.executable, "-c", "import time; time.sleep(60)")) is None
    assert time.monotonic() - began < 10
    assert run_command((sys.executable, "-c", "raise SystemExit(3)")) is None
    assert run_command(("edgepin-no-such-command",)) is None
    assert run_command(("bad\0name",)) is None


def test_a_command_that_prints_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    said = run_command((sys.executable, "-c", "print('x' * 10_000_000)"))
    assert said is not None
    assert len(said) <= 64 << 10


def test_the_probe_of_the_gpu_answers_in_json_whatever_is_here() -> None:
    answer = json.loads(run_command(GPU_PROBE) or "")
    assert answer.get("name") or answer.get("error")


# --- The verb


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch, device: Path) -> Callable[..., None]:
    def place(it: Machine, tensorrt: dict[str, Any] = NO_TENSORRT) -> None:
        monkeypatch.setattr(command, "this_machine", lambda: it)
        monkeypatch.setattr(command, "_tensorrt", lambda: tensorrt)

    return place


def answer(*arguments: object) -> dict[str, Any]:
    result = invoke("doctor", "--json", *arguments)
    assert result.exit_code == YES, result.output
    return dict(json.loads(result.stdout))


def test_without_any_bundle_it_says_what_can_run(
    on: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_starter, "DIGEST", tmp_path / "none")
    assert answer()["bundle"]["path"] is None
    on(bare(tmp_path / "bare"))
    assert answer()["runtime"]["backend"] == "onnxruntime-cpu"
    on(thor(tmp_path / "thor"), HERE)
    runtime = answer()["runtime"]
    assert runtime["backend"] == "tensorrt"
    assert "edgepin compile" in runtime["why"]
    assert runtime["precision"] is None


def test_with_a_bundle_it_says_what_runs_first_and_why_nothing_better(
    on: Callable[..., None], tmp_path: Path, pins: Pins, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> Gpu:
        raise EnvironmentFault("there is no GPU to use", hint="plug one in")

    monkeypatch.setattr(backends, "this_gpu", none)
    on(bare(tmp_path / "bare"))
    runtime = answer("--bundle", pins.site)["runtime"]
    assert (runtime["backend"], runtime["precision"]) == ("onnxruntime-cpu", "fp32")
    assert [one["name"] for one in runtime["passed_over"]] == ["tensorrt", "onnxruntime-cuda"]
    text = invoke("doctor", "--bundle", pins.site)
    first, second, *_ = text.stdout.splitlines()
    assert first.startswith("runs     onnxruntime-cpu on ")
    assert first.endswith(", fp32")
    assert second.strip() == "not tensorrt, onnxruntime-cuda: there is no GPU to use"


def test_a_missing_engine_is_told_with_the_command_that_builds_it(
    on: Callable[..., None], tmp_path: Path, pins: Pins, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = FakeGpu()
    gpu.install(monkeypatch)
    tensorrt = gpu.tensorrt()
    monkeypatch.setattr(backends, "this_gpu", lambda: Gpu("Orin", "sm_87"))
    monkeypatch.setattr(backends, "load_tensorrt", lambda: tensorrt)
    on(orin(tmp_path / "orin"), HERE)
    text = invoke("doctor", "--bundle", pins.site)
    assert text.stdout.splitlines()[0].startswith("runs     onnxruntime-cpu on ")
    assert "not tensorrt: there is no fp32 engine of face" in text.stdout
    assert "to mend it: edgepin compile" in text.stderr


def test_with_engines_it_says_tensorrt_and_an_altered_one_is_told_with_its_exit_code(
    on: Callable[..., None], tmp_path: Path, pins: Pins, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgepin import Bundle

    gpu = FakeGpu()
    gpu.install(monkeypatch)
    tensorrt = gpu.tensorrt()
    monkeypatch.setattr(backends, "this_gpu", lambda: Gpu("Orin", "sm_87"))
    monkeypatch.setattr(backends, "load_tensorrt", lambda: tensorrt)
    on(orin(tmp_path / "orin"), HERE)
    path, _ = compile_engines(Bundle.open(pins.site), gpu)
    value = answer("--bundle", pins.site)
    assert value["runtime"]["backend"] == "tensorrt"
    assert value["runtime"]["engines"]["count"] == 2
    assert value["runtime"]["log_mel"]["on_gpu"] is True
    assert gpu.memory == {}
    path.write_bytes(path.read_bytes()[:-1])
    result = invoke("doctor", "--json", "--bundle", pins.site)
    assert result.exit_code == INTEGRITY
    value = json.loads(result.stdout)
    assert value["runtime"]["ready"] is False
    assert value["runtime"]["mend"].startswith("edgepin compile")
    assert invoke("doctor", "--bundle", pins.site).stdout.startswith("runs     nothing: ")


def test_the_encoders_of_a_bundle_that_is_not_trusted_are_not_run(
    on: Callable[..., None], tmp_path: Path, pins: Pins, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(bare(tmp_path / "bare"))
    (device / "trusted" / "maker.pub").unlink()
    monkeypatch.setattr(backends, "open_runtime", lambda *_, **__: pytest.fail("its encoders were run"))
    runtime = answer("--bundle", pins.site)["runtime"]
    assert "not trusted" in runtime["why"]
    monkeypatch.undo()


@pytest.mark.parametrize("build", [orin, thor, desktop, bare])
def test_every_machine_is_printed_for_people(
    on: Callable[..., None], tmp_path: Path, build: Callable[[Path], Machine]
) -> None:
    on(build(tmp_path))
    result = invoke("doctor")
    assert result.exit_code == YES
    assert result.stdout.startswith("runs     ")
    assert "None" not in result.stdout + result.stderr


def test_a_device_without_onnxruntime_is_not_ready(
    on: Callable[..., None], tmp_path: Path, pins: Pins, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(bare(tmp_path))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = invoke("doctor", "--json", "--bundle", pins.site)
    assert result.exit_code == ENVIRONMENT
    assert json.loads(result.stdout)["runtime"]["mend"] == "pip install onnxruntime"
