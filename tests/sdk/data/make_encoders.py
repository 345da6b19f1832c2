"""Makes the two tiny encoders beside it, with which the tests build a bundle that works.

They are no good at recognizing people, but what they answer depends on the whole capture: a face is the
picture averaged to 8x8 gray values, a voice the mean and deviation of its log-mel over time, each multiplied
by a fixed random matrix. Run it where the `onnx` package is installed: python make_encoders.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

HERE = Path(__file__).resolve().parent
DIM = 256


def face() -> ModelProto:
    """uint8 (N, 64, 64, 3) -> identity, pin: float32 (N, 256), unit rows."""
    nodes = [
        helper.make_node("Cast", ["face"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["gray"], axes=[3], keepdims=0),
        helper.make_node("Reshape", ["gray", "blocks_shape"], ["blocks"]),
        helper.make_node("ReduceMean", ["blocks"], ["pooled"], axes=[2, 4], keepdims=0),
        helper.make_node("Flatten", ["pooled"], ["raw"]),
    ]
    shape = numpy_helper.from_array(np.array([0, 8, 8, 8, 8], np.int64), "blocks_shape")
    inputs = helper.make_tensor_value_info("face", TensorProto.UINT8, ["N", 64, 64, 3])
    return _model("face", inputs, nodes, [shape], features=64, seed=1)


def voice() -> ModelProto:
    """Log-mel float32 (N, T, 80) -> identity, pin: float32 (N, 256), unit rows."""
    nodes = [
        helper.make_node("ReduceMean", ["log_mel"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Sub", ["log_mel", "mean"], ["apart"]),
        helper.make_node("Mul", ["apart", "apart"], ["squares"]),
        helper.make_node("ReduceMean", ["squares"], ["variance"], axes=[1], keepdims=1),
        helper.make_node("Sqrt", ["variance"], ["deviation"]),
        helper.make_node("Concat", ["mean", "deviation"], ["both"], axis=1),
        helper.make_node("ReduceMean", ["both"], ["level"], axes=[2], keepdims=1),  # loudness says nothing
        helper.make_node("Sub", ["both", "level"], ["shapes"]),
        helper.make_node("Flatten", ["shapes"], ["raw"]),
    ]
    inputs = helper.make_tensor_value_info("log_mel", TensorProto.FLOAT, ["N", "T", 80])
    return _model("voice", inputs, nodes, [], features=160, seed=2)


def _model(
    name: str, inputs: object, nodes: list, initializers: list, *, features: int, seed: int
) -> ModelProto:
    """Adds the two heads. Weights are int8, which keeps the files small; pin flips half the features' signs."""
    random = np.random.default_rng(seed)
    drawn = random.normal(0.0, 40.0, (features, DIM))
    if name == "voice":  # blind to the slow shape over mel that all voices share
        slow = np.cos(np.pi * np.outer(np.arange(80) + 0.5, np.arange(6)) / 80)
        basis = np.linalg.qr(np.kron(np.eye(2), slow))[0]
        drawn -= basis @ (basis.T @ drawn)
    weights = np.clip(np.rint(drawn), -127, 127).astype(np.int8)
    signs = random.permutation(np.repeat([-1.0, 1.0], features // 2)).astype(np.float32)
    heads = [
        helper.make_node("ReduceMean", ["raw"], ["offset"], axes=[1], keepdims=1),
        helper.make_node("Sub", ["raw", "offset"], ["centered"]),
        helper.make_node("Mul", ["centered", "signs"], ["flipped"]),
        helper.make_node("Cast", ["weights"], ["matrix"], to=TensorProto.FLOAT),
    ]
    for head, source in (("identity", "centered"), ("pin", "flipped")):
        heads += [
            helper.make_node("MatMul", [source, "matrix"], [f"{head}_long"]),
            helper.make_node("ReduceL2", [f"{head}_long"], [f"{head}_norm"], axes=[1], keepdims=1),
            helper.make_node("Max", [f"{head}_norm", "tiny"], [f"{head}_length"]),
            helper.make_node("Div", [f"{head}_long", f"{head}_length"], [head]),
        ]
    constants = [
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(signs, "signs"),
        numpy_helper.from_array(np.array(1e-6, np.float32), "tiny"),
    ]
    outputs = [
        helper.make_tensor_value_info(head, TensorProto.FLOAT, ["N", DIM]) for head in ("identity", "pin")
    ]
    graph = helper.make_graph([*nodes, *heads], name, [inputs], outputs, [*initializers, *constants])
    # Old enough for every runtime that the device package allows.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model, full_check=True)
    return model


if __name__ == "__main__":
    for make in (face, voice):
        (HERE / f"{make.__name__}.onnx").write_bytes(make().SerializeToString(deterministic=True))
