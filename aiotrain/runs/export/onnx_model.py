"""A policy as an ONNX model, built node by node: torch is not needed, and what comes out is small and plain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from aiotrain.play.policy import INPUT_CLIP, NumpyPolicy
from aiotrain.play.spaces import EnvSpec
from aiotrain.runs.export.about import MARK
from aiotrain.runs.policy_files import tensors_of

__all__ = ["onnx_model"]

_OPSET: Final = 17
_IR_VERSION: Final = 8
"""Both of ONNX 1.12, of 2022, which older runtimes read too."""


def onnx_model(policy: NumpyPolicy, spec: EnvSpec, metadata: Mapping[str, str]) -> bytes:
    """Return the model in ONNX's binary form, with ``metadata`` in it.

    Inputs: ``observation`` ``[batch, *spec.observation_shape]``, float32, or int64 for a Discrete space. Where there
    are masks, ``action_mask`` ``[batch, actions]``, int8, 1 for each action that may be taken, else 0.
    Outputs, float32: ``logits`` ``[batch, actions]``, -inf where the mask is 0; or of a Gaussian, ``mean``
    ``[batch, outputs]`` and ``log_std`` ``[outputs]``.
    """
    graph = _Graph()
    is_gaussian, one_hot = policy.shape.kind == "gaussian", spec.observation_kind == "one_hot"
    dtype = TensorProto.INT64 if one_hot else TensorProto.FLOAT
    hidden = graph.input("observation", dtype, ["batch", *spec.observation_shape])
    if one_hot:
        hidden = graph.node("Sub", hidden, graph.constant("observation_start", np.int64(spec.observation_start)))
        depth = graph.constant("depth", np.int64(spec.inputs))
        hidden = graph.node("OneHot", hidden, depth, graph.constant("off_and_on", np.array([0, 1], np.float32)))
    else:
        hidden = graph.node("Flatten", hidden)
    tensors = tensors_of(policy)
    if policy.normalizes:
        hidden = graph.node("Sub", hidden, graph.constant("input_mean", tensors["input_mean"]))
        hidden = graph.node("Mul", hidden, graph.constant("input_scale", tensors["input_scale"]))
        low, high = graph.constant("low", np.float32(-INPUT_CLIP)), graph.constant("high", np.float32(INPUT_CLIP))
        hidden = graph.node("Clip", hidden, low, high)
    for index in range(len(policy.shape.layers)):
        if index > 0:
            hidden = graph.node("Tanh", hidden)
        names = [f"actor.{2 * index}.{kind}" for kind in ("weight", "bias")]
        hidden = graph.node("Gemm", hidden, *(graph.constant(name, tensors[name]) for name in names), transB=1)
    if spec.has_action_mask:
        mask = graph.input("action_mask", TensorProto.INT8, ["batch", spec.outputs])
        allowed = graph.node("Cast", mask, to=TensorProto.BOOL)
        hidden = graph.node("Where", allowed, hidden, graph.constant("barred", np.float32(-np.inf)))
    graph.output("mean" if is_gaussian else "logits", hidden, ["batch", spec.outputs])
    if is_gaussian:
        graph.output("log_std", graph.constant("actor.log_std", tensors["log_std"]), [spec.outputs])
    return graph.model(metadata)


class _Graph:
    """Gathers the parts of a model. Values are known by their names."""

    def __init__(self) -> None:
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def input(self, name: str, dtype: int, shape: list[str | int]) -> str:
        self._inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def constant(self, name: str, value: npt.ArrayLike) -> str:
        self._constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def output(self, name: str, value: str, shape: list[str | int]) -> None:
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def model(self, metadata: Mapping[str, str]) -> bytes:
        graph = helper.make_graph(self._nodes, "policy", self._inputs, self._outputs, self._constants)
        model = helper.make_model(
            graph, producer_name=MARK, ir_version=_IR_VERSION, opset_imports=[helper.make_opsetid("", _OPSET)]
        )
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString())
