"""kaldi-native-fbank as a peer: from Python, and its C++ core alone."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.log_mel.compiler import load_library
from benchmarks.log_mel.method import Floats, Inputs, Method, Pipeline, Unavailable

_SOURCE = Path(__file__).with_name("kaldi_core.cpp")

# A constructor that takes a std::string, in the mangling of the C++ ABI before C++11.
_OLD_ABI_SYMBOL = "_ZN3knf21FeatureWindowFunctionC1ERKSsif"


def methods() -> list[Method]:
    """One row each."""
    needs = ("kaldi-native-fbank",)
    return [
        Method(
            "kaldi-native-fbank, Python",
            "kaldi",
            "an OnlineFbank for each utterance, samples as a list (faster than an array), get_frame for each frame, stack",
            _python,
            needs,
        ),
        Method(
            "kaldi-native-fbank, C++ OnlineFbank",
            "kaldi",
            "the same in C++: the wheel's own code, a stream for each utterance, frames copied out",
            _online,
            needs,
        ),
        Method(
            "kaldi-native-fbank, C++ FbankComputer",
            "kaldi",
            "the wheel's own code, tables made once, frame by frame into the result: nothing but the core",
            _computer,
            needs,
        ),
    ]


def _python(inputs: Inputs) -> Pipeline:
    import kaldi_native_fbank as knf

    spec = inputs.spec
    options = knf.FbankOptions()
    options.frame_opts.samp_freq = spec.sample_rate
    options.frame_opts.frame_length_ms = 1000 * spec.frame_length / spec.sample_rate
    options.frame_opts.frame_shift_ms = 1000 * spec.hop_length / spec.sample_rate
    options.frame_opts.preemph_coeff = spec.preemphasis
    options.frame_opts.dither = 0
    options.mel_opts.num_bins = spec.num_mels
    options.mel_opts.low_freq = spec.low_hz
    options.mel_opts.high_freq = spec.high_hz
    floats = inputs.floats

    def call() -> list[Floats]:
        values = []
        for samples in floats:
            stream = knf.OnlineFbank(options)
            stream.accept_waveform(spec.sample_rate, samples.tolist())
            stream.input_finished()
            values.append(np.stack([stream.get_frame(i) for i in range(stream.num_frames_ready)]))
        return values

    return Pipeline(call, np.asarray)


def _online(inputs: Inputs) -> Pipeline:
    return _core(inputs, "core_online")


def _computer(inputs: Inputs) -> Pipeline:
    return _core(inputs, "core_frames")


def _core(inputs: Inputs, function: str) -> Pipeline:
    library, spec = _library(), inputs.spec
    library.core_new.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(
        library.core_new(
            ctypes.c_float(spec.sample_rate),
            ctypes.c_float(1000 * spec.frame_length / spec.sample_rate),
            ctypes.c_float(1000 * spec.hop_length / spec.sample_rate),
            ctypes.c_float(spec.preemphasis),
            spec.num_mels,
            ctypes.c_float(spec.low_hz),
            ctypes.c_float(spec.high_hz),
        )
    )
    batch, samples = inputs.pcm.shape
    library.core_load(handle, _pointer(inputs.floats), batch, samples)
    out = inputs.empty_output()
    run, values = getattr(library, function), _pointer(out)
    run.restype = ctypes.c_bool

    def call() -> None:
        if not run(handle, values):
            raise RuntimeError("kaldi-native-fbank refused its input")

    return Pipeline(call, lambda _: out)


def _pointer(array: Floats) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_float))


def _library() -> ctypes.CDLL:
    """The driver, linked to the extension module of the installed wheel."""
    import kaldi_native_fbank

    package = Path(kaldi_native_fbank.__file__).parent
    extension = next(package.rglob("_kaldi_native_fbank*.so"), None)
    include = package / "include"
    if extension is None or not include.is_dir():
        raise Unavailable("this wheel of kaldi-native-fbank brings no headers to compile against")
    old_abi = hasattr(ctypes.CDLL(str(extension)), _OLD_ABI_SYMBOL)
    return load_library(
        _SOURCE,
        f"-I{include}",
        f"-D_GLIBCXX_USE_CXX11_ABI={0 if old_abi else 1}",
        str(extension),
        f"-Wl,-rpath,{extension.parent}",
    )
