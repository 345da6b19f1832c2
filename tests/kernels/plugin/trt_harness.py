"""The plugin compiled against TensorRT's own headers, with the emulated GPU behind it and the tests in TensorRT's place."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgepin_kernels import LogMelSpec, log_mel_onnx

from ..cuda.emulated_gpu import NVCC, EmulatedGpu, compile_cpp

HERE = Path(__file__).resolve().parent
PLUGIN = Path(__file__).resolve().parents[3] / "kernels" / "tensorrt_plugin"
VARIABLE = "EDGEPIN_TENSORRT_INCLUDE"
_USUAL = (
    "/usr/include/aarch64-linux-gnu",
    "/usr/include/x86_64-linux-gnu",
    "/usr/local/tensorrt/include",
)

# nvinfer1::DataType, TensorFormat and PluginFieldType.
FLOAT, HALF, INT8, INT32 = 0, 1, 2, 3
LINEAR, CHW4 = 0, 3
FIELD_TYPES = {"FLOAT": 1, "INT": 5, "STRING": 6, "FLOATS": 1, "INTS": 5}
KINDS = {1: np.float32, 5: np.int32, 6: np.uint8}
BUILD, RUNTIME = 0, 1


def tensorrt_headers() -> list[Path]:
    """The folders with TensorRT's headers: those of the variable, which may be several, or a usual one."""
    named = os.environ.get(VARIABLE, "")
    folders = named.split(os.pathsep) if named else _USUAL
    found = [Path(folder) for folder in folders if (Path(folder) / "NvInferRuntime.h").is_file()]
    if named and len(found) != len(folders):
        pytest.fail(f"{VARIABLE} names a folder without NvInferRuntime.h: {named}")
    return found


def cuda_headers() -> Path | None:
    """The folder with the CUDA runtime's headers, which TensorRT's include."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    folders = [Path(home) / "include" for home in homes if home]
    return next((folder for folder in folders if (folder / "cuda_runtime_api.h").is_file()), None)


def include_flags(tensorrt: Path) -> list[str]:
    cuda = cuda_headers()
    if cuda is None:
        pytest.skip("the CUDA runtime's headers are not here, and TensorRT's need them; set CUDA_HOME")
    return ["-isystem", str(tensorrt), "-isystem", str(cuda), f"-I{PLUGIN}"]


def version(tensorrt: Path) -> str:
    text = (tensorrt / "NvInferVersion.h").read_text("utf-8")
    parts = []
    for part in ("MAJOR", "MINOR"):
        found = re.search(rf"define (?:NV_TENSORRT_{part}|TRT_{part}_ENTERPRISE) (\d+)", text)
        assert found, text
        parts.append(found[1])
    return ".".join(parts)


class _Field(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("type", ctypes.c_int32),
        ("length", ctypes.c_int32),
    )


@dataclasses.dataclass(frozen=True)
class Field:
    """A plugin field: its values as TensorRT hands them over."""

    name: str
    values: npt.NDArray[Any]
    type: int

    @property
    def data(self) -> tuple[str, bytes, int]:
        return self.name, self.values.tobytes(), self.type


def text_field(name: str, text: str, *, end: str = "\0") -> Field:
    return Field(name, np.frombuffer((text + end).encode(), np.uint8), FIELD_TYPES["STRING"])


def fields_of(spec: LogMelSpec) -> list[Field]:
    """The node's attributes as TensorRT's parser of ONNX makes fields of them: strings get a zero byte at their end, and
    attributes that the creator does not name are left out."""
    onnx = pytest.importorskip("onnx", reason="the onnx package is not installed (extra: export)")
    (node,) = log_mel_onnx(spec, samples="float32", form="node").graph.node
    fields = []
    for attribute in node.attribute:
        kind = onnx.AttributeProto.AttributeType.Name(attribute.type)
        value = onnx.helper.get_attribute_value(attribute)
        if attribute.name in ("plugin_version", "plugin_namespace"):
            continue
        if kind == "STRING":
            fields.append(text_field(attribute.name, value.decode()))
        else:
            dtype = KINDS[FIELD_TYPES[kind]]
            fields.append(Field(attribute.name, np.array(value, dtype), FIELD_TYPES[kind]))
    return fields


class Plugin:
    """One object of the plugin; deleted with this."""

    def __init__(self, trt: PluginHarness, handle: int) -> None:
        self._trt, self.handle = trt, handle

    def __del__(self) -> None:
        self._trt.library.test_destroy(self.handle)

    def fields(self) -> list[Field]:
        """What an engine would keep."""
        found = (_Field * 16)()
        count = self._trt.library.test_fields(self.handle, found, len(found))
        fields = []
        for field in found[:count]:
            size = field.length * np.dtype(KINDS[field.type]).itemsize
            data = ctypes.string_at(field.data, size) if size else b""
            fields.append(Field(field.name.decode(), np.frombuffer(data, KINDS[field.type]), field.type))
        return fields

    def clone(self) -> Plugin | None:
        return self._trt.adopt(self._trt.library.test_clone(self.handle))

    def attach(self) -> Plugin | None:
        return self._trt.adopt(self._trt.library.test_attach(self.handle))

    def identity(self) -> list[str]:
        return self._trt.library.test_identity(self.handle).decode().split("|")

    def shape(
        self, batch: int, samples: int, *, known: bool = False, rank: int = 2
    ) -> tuple[int, ...] | None:
        out = (ctypes.c_int64 * 3)()
        code = self._trt.library.test_shapes(self.handle, rank, int(known), batch, samples, out)
        return tuple(out) if code == 0 else None

    def configure(self, least: Sequence[int], usual: Sequence[int], most: Sequence[int]) -> bool:
        bounds = [(ctypes.c_int64 * 2)(*bound) for bound in (least, usual, most)]
        return self._trt.library.test_configure(self.handle, *bounds) == 0

    def workspace(self, batch: int, samples: int, out_type: int, *, known: bool = False) -> int:
        return self._trt.library.test_workspace(self.handle, batch, samples, out_type, int(known))

    def shape_change(self, spec: LogMelSpec, batch: int, samples: int) -> bool:
        sizes = (batch, samples, spec.num_frames(samples), spec.num_mels)
        return self._trt.library.test_shape_change(self.handle, *sizes, FLOAT) == 0


@dataclasses.dataclass(frozen=True)
class PluginHarness:
    gpu: EmulatedGpu

    @property
    def library(self) -> Any:
        return self.gpu.library

    def adopt(self, handle: int | None) -> Plugin | None:
        return Plugin(self, handle) if handle else None

    def create(self, fields: Sequence[Field], phase: int = BUILD) -> Plugin | None:
        given = (_Field * max(len(fields), 1))()
        for slot, field in zip(given, fields, strict=False):
            data = field.values.ctypes.data if field.values.size else None
            slot.name, slot.data, slot.type, slot.length = (
                field.name.encode(), data, field.type, field.values.size,
            )  # fmt: skip
        return self.adopt(self.library.test_create(given, len(fields), phase))

    def plugin(self, spec: LogMelSpec) -> Plugin:
        plugin = self.create(fields_of(spec))
        assert plugin is not None, self.log()
        return plugin

    def log(self) -> str:
        """What the plugin said to TensorRT's logger since the last time."""
        return self.library.test_log().decode()

    def launches(self) -> list[str]:
        return self.library.test_launches().decode().splitlines()

    def enqueue(
        self,
        plugin: Plugin,
        spec: LogMelSpec,
        pcm: npt.NDArray[np.float32],
        *,
        dtype: Any = np.float32,
        frames: int | None = None,
        lend: bool = True,
        at_end: bool = False,
        stream: int = 7,
    ) -> npt.NDArray[Any] | None:
        """One call on new arrays, or None if it is refused; ``out`` starts out as NaN."""
        batch, samples = pcm.shape
        frames = spec.num_frames(samples) if frames is None else frames
        kind = HALF if dtype == np.float16 else FLOAT
        source = self.gpu.array(pcm, at_end=at_end)
        out = self.gpu.array(np.full((batch, frames, spec.num_mels), np.nan, dtype))
        size = plugin.workspace(batch, samples, kind)
        lent = self.gpu.array(np.full(size // 4, np.nan, np.float32)) if size and lend else None
        code = self.library.test_enqueue(
            plugin.handle, batch, samples, frames, spec.num_mels, kind, source.address, out.address,
            lent.address if lent else None, stream,
        )  # fmt: skip
        return out.values.copy() if code == 0 else None

    def log_mel(
        self, spec: LogMelSpec, pcm: npt.NDArray[np.float32], *, resident: int = 12, **options: Any
    ) -> npt.NDArray[Any]:
        """As an execution context of an engine does it."""
        self.gpu.resident(resident)
        plugin = self.plugin(spec).attach()
        assert plugin is not None, self.log()
        result = self.enqueue(plugin, spec, pcm, **options)
        assert result is not None, self.log()
        return result


def build_harness(folder: Path) -> Iterator[PluginHarness]:
    found = tensorrt_headers()
    if not found:
        pytest.skip(
            f"TensorRT's headers are not here, and the plugin is tested against them alone; set {VARIABLE}"
        )
    # One version for what runs; all are compiled elsewhere. The newest, for it is the strictest.
    newest = max(found, key=lambda folder: [int(part) for part in version(folder).split(".")])
    flags = include_flags(newest)
    objects = []
    # The emulation and CUDA's headers have the same names, so that each file is compiled by itself.
    common = ("-O1", "-g0", "-fPIC", "-fsanitize=undefined", "-fno-sanitize-recover=all")
    cuda_tests = HERE.parent / "cuda"
    for source in ("emulated_libcuda.cpp", "emulation_fibers.cpp"):
        objects.append(compile_cpp(folder / f"{source}.o", *common, "-c", str(cuda_tests / source)))
    objects.append(
        compile_cpp(folder / "emulated_float.o", *common, f"-I{HERE}", "-c", str(HERE / "emulated_float.cpp"))
    )
    for path in (HERE / "emulated_cudart.cpp", HERE / "harness.cpp", *sorted(PLUGIN.glob("*.cpp"))):
        objects.append(compile_cpp(folder / f"{path.name}.o", *common, *flags, f"-I{HERE}", "-c", str(path)))
    library = compile_cpp(
        folder / "plugin.so", "-shared", "-fsanitize=undefined", "-Wl,--no-undefined", *map(str, objects)
    )
    nvcc = folder / "nvcc"
    nvcc.write_text(NVCC.format(release="13.0"))
    nvcc.chmod(0o755)
    gpu = EmulatedGpu(library, folder)
    loaded = gpu.library
    for name in ("creator", "identity", "log", "launches", "float_kernel"):
        getattr(loaded, f"test_{name}").restype = ctypes.c_char_p
    for name in ("create", "clone", "attach"):
        getattr(loaded, f"test_{name}").restype = ctypes.c_void_p
    loaded.test_workspace.restype = ctypes.c_size_t
    pointer, long = ctypes.c_void_p, ctypes.c_int64
    loaded.test_create.argtypes = [pointer, ctypes.c_int, ctypes.c_int]
    for name in ("identity", "destroy", "clone", "attach", "outputs"):
        getattr(loaded, f"test_{name}").argtypes = [pointer]
    loaded.test_fields.argtypes = [pointer, pointer, ctypes.c_int]
    loaded.test_shapes.argtypes = [pointer, ctypes.c_int, ctypes.c_int, long, long, pointer]
    loaded.test_output_type.argtypes = [pointer, ctypes.c_int]
    loaded.test_supports.argtypes = [pointer] + [ctypes.c_int] * 5
    loaded.test_configure.argtypes = [pointer] * 4
    loaded.test_workspace.argtypes = [pointer, long, long, ctypes.c_int, ctypes.c_int]
    loaded.test_shape_change.argtypes = [pointer, long, long, long, long, ctypes.c_int]
    loaded.test_enqueue.argtypes = [
        pointer, long, long, long, long, ctypes.c_int, pointer, pointer, pointer, ctypes.c_size_t,
    ]  # fmt: skip
    loaded.test_float_kernel.argtypes = (
        [ctypes.c_int, ctypes.c_int, pointer] + [ctypes.c_uint] * 3 + [ctypes.c_int]
    )
    yield PluginHarness(gpu)
