"""ONNX Runtime as a peer: its STFT operator, and edgepin's own ONNX form, where the transform is one convolution."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.log_mel.method import Inputs, Method, Pipeline, Unavailable


def methods() -> list[Method]:
    """One row each."""
    needs = ("onnxruntime", "onnx")
    return [
        Method(
            "ONNX Runtime, STFT operator",
            "torchaudio",
            "Pad, STFT, power, MatMul, Log as one graph; STFT cannot remove a frame's mean as kaldi does",
            _stft,
            needs,
            threaded=True,
        ),
        Method(
            "ONNX Runtime, Conv form",
            "kaldi",
            "edgepin's own ONNX form, inlined: the transform as one Conv, the filters as one MatMul",
            _conv,
            needs,
            threaded=True,
        ),
    ]


def _conv(inputs: Inputs) -> Pipeline:
    try:
        from edgepin_kernels._onnx import log_mel_onnx
    except ImportError as error:
        raise Unavailable(f"edgepin_kernels._onnx cannot be imported ({error})") from error

    model = log_mel_onnx(inputs.spec, samples="float32", form="inlined")
    return _pipeline(model, inputs, inputs.unit_floats)


def _stft(inputs: Inputs) -> Pipeline:
    return _pipeline(stft_model(inputs), inputs, inputs.floats)


def stft_model(inputs: Inputs) -> Any:
    """A graph of the STFT operator for a preset that `torch.stft` could compute: centered, reflected at the ends."""
    from onnx import TensorProto, checker, helper, numpy_helper

    spec = inputs.spec
    half, lead = spec.fft_length // 2, (spec.fft_length - spec.frame_length) // 2
    # The operator's window is as long as its transform.
    window = np.zeros(spec.fft_length, np.float32)
    window[lead : lead + spec.frame_length] = inputs.window
    constants: dict[str, npt.NDArray[Any]] = {
        "pads": np.array([0, half, 0, half], np.int64),
        "last": np.array([2], np.int64),
        "parts": np.array([3], np.int64),
        "hop": np.array(spec.hop_length, np.int64),
        "window": window,
        "length": np.array(spec.fft_length, np.int64),
        "filters": inputs.filters,
        "floor": np.array(spec.log_floor, np.float32),
    }
    nodes = [
        helper.make_node("Pad", ["pcm", "pads"], ["padded"], mode="reflect"),
        helper.make_node("Unsqueeze", ["padded", "last"], ["signal"]),
        helper.make_node("STFT", ["signal", "hop", "window", "length"], ["spectrum"], onesided=1),
        helper.make_node("Mul", ["spectrum", "spectrum"], ["squares"]),
        helper.make_node("ReduceSum", ["squares", "parts"], ["power"], keepdims=0),
        helper.make_node("MatMul", ["power", "filters"], ["energies"]),
        helper.make_node("Max", ["energies", "floor"], ["floored"]),
        helper.make_node("Log", ["floored"], ["log_mel"]),
    ]
    graph = helper.make_graph(
        nodes,
        "stft",
        [helper.make_tensor_value_info("pcm", TensorProto.FLOAT, ["N", "samples"])],
        [helper.make_tensor_value_info("log_mel", TensorProto.FLOAT, ["N", "frames", spec.num_mels])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    checker.check_model(model, full_check=True)
    return model


def _pipeline(model: Any, inputs: Inputs, samples: Any) -> Pipeline:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = inputs.threads
    options.inter_op_num_threads = 1
    # Its threads would spin on after a call, on the cores of the next method.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feed = {"pcm": samples}
    return Pipeline(lambda: session.run(None, feed), lambda outputs: outputs[0])
