"""Tiny encoders as others export them: made with onnx.helper, of random weights that still tell captures apart."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def model(nodes, inputs, outputs, constants, *, opset=18, ir_version=9, **kwargs) -> bytes:
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version, **kwargs
    )
    return made.SerializeToString()


def face_model(
    dim=64, size=32, batch="n", *, opset=18, layout="nchw", kind=TensorProto.FLOAT, seed=0
) -> bytes:
    """Convolution, batch normalization, ReLU, a coarse mean over places, and a linear map of it all; not normalized."""
    random = np.random.default_rng(seed)
    cells = (size // 8) ** 2
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "g", "b", "m", "v"], ["d"], "norm"),
        helper.make_node("Relu", ["d"], ["r"], "relu"),
        helper.make_node("AveragePool", ["r"], ["p"], "pool", kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Reshape", ["p", "shape"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "h"], ["fc1"], "head", transB=1),
    ]
    shape = [batch, 3, size, size]
    if layout == "nhwc":
        shape = [batch, size, size, 3]
        nodes.insert(0, helper.make_node("Transpose", ["data"], ["t"], "to_nchw", perm=[0, 3, 1, 2]))
    nodes.insert(
        1 if layout == "nhwc" else 0,
        helper.make_node("Cast", ["t" if layout == "nhwc" else "data"], ["x"], "cast", to=TensorProto.FLOAT),
    )
    constants = {
        "w": random.standard_normal((8, 3, 3, 3)).astype(np.float32),
        "g": random.uniform(0.5, 1.5, 8).astype(np.float32),
        "b": random.standard_normal(8).astype(np.float32),
        "m": random.standard_normal(8).astype(np.float32),
        "v": random.uniform(0.5, 2.0, 8).astype(np.float32),
        "shape": np.array([-1 if isinstance(batch, str) else batch, 8 * cells], np.int64),
        "h": (random.standard_normal((dim, 8 * cells)) / 8).astype(np.float32),
    }
    rows = batch if isinstance(batch, int) else "n"
    return model(
        nodes,
        [("data", kind, shape)],
        [("fc1", TensorProto.FLOAT, [rows, dim])],
        constants,
        opset=opset,
    )


def voice_model(dim=48, mels=80, frames="t", layout="ntm", *, opset=18, seed=1) -> bytes:
    """Mean and spread of every mel over time, and a linear map; the mean alone would be nothing once it is removed."""
    random = np.random.default_rng(seed)
    axes = {"n": "n", "1": 1, "t": frames, "m": mels}
    shape = [axes[letter] for letter in layout]
    nodes = []
    x = "feats"
    if layout.startswith("n1"):
        nodes.append(helper.make_node("Squeeze", [x, "one"], ["squeezed"], "squeeze"))
        x = "squeezed"
    if layout.endswith("mt"):
        nodes.append(helper.make_node("Transpose", [x], ["timed"], "transpose", perm=[0, 2, 1]))
        x = "timed"
    nodes += [
        helper.make_node("ReduceMean", [x, "one"], ["mean"], "mean", keepdims=1),
        helper.make_node("Sub", [x, "mean"], ["centered"], "center"),
        helper.make_node("Abs", ["centered"], ["abs"], "abs"),
        helper.make_node("ReduceMean", ["abs", "one"], ["spread"], "spread", keepdims=0),
        helper.make_node("Flatten", ["mean"], ["level"], "level"),
        helper.make_node("Concat", ["spread", "level"], ["both"], "both", axis=1),
        helper.make_node("MatMul", ["both", "w"], ["embs"], "head"),
    ]
    constants = {
        "one": np.array([1], np.int64),
        "w": random.standard_normal((2 * mels, dim)).astype(np.float32),
    }
    return model(
        nodes,
        [("feats", TensorProto.FLOAT, shape)],
        [("embs", TensorProto.FLOAT, ["n", dim])],
        constants,
        opset=opset,
    )


def lstm_model(dim=32, mels=40, frames=20, hidden=16, seed=2) -> bytes:
    """A small recurrent encoder with a fixed time axis: the last hidden state."""
    random = np.random.default_rng(seed)
    nodes = [
        helper.make_node("Transpose", ["mels"], ["x"], "transpose", perm=[1, 0, 2]),
        helper.make_node("LSTM", ["x", "w", "r"], ["", "h"], "lstm", hidden_size=hidden),
        helper.make_node("Squeeze", ["h", "zero"], ["last"], "squeeze"),
        helper.make_node("Gemm", ["last", "p"], ["embedding"], "head", transB=1),
    ]
    constants = {
        "w": (random.standard_normal((1, 4 * hidden, mels)) / 4).astype(np.float32),
        "r": (random.standard_normal((1, 4 * hidden, hidden)) / 4).astype(np.float32),
        "p": random.standard_normal((dim, hidden)).astype(np.float32),
        "zero": np.array([0], np.int64),
    }
    return model(
        nodes,
        [("mels", TensorProto.FLOAT, ["n", frames, mels])],
        [("embedding", TensorProto.FLOAT, ["n", dim])],
        constants,
    )


def changed(data: bytes, change) -> bytes:
    """A model after `change` has worked on it."""
    made = onnx.load_model_from_string(data)
    change(made)
    return made.SerializeToString()
