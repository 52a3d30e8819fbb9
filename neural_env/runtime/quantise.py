"""The large convolutions of a graph in 8-bit integers: what a CPU with VNNI computes several times as fast as float32.

Everything between them stays float32, and so do the small ones, where rounding costs as much as it saves. A picture
that is convolved has one scale, the largest number seen in dreams that are played for the purpose; kernels have one for
each channel they make. Zero is exact, so that padding stays what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as ops

Inputs = list[npt.NDArray[Any]]

LEAST = 64  # channels that go in and come out of a convolution that is worth it
HEADROOM = 1.1  # between the largest number seen and the largest that can be said


def quantised(model: ov.Model, played: Sequence[Inputs]) -> ov.Model | None:
    """The graph with its large convolutions in 8 bits; None if it has none.

    Args:
        model: of floats; stays as it is.
        played: inputs of the graph, from as many moments as show how large its numbers become.
    """
    names = [node.get_friendly_name() for node in model.get_ordered_ops() if _is_large(node)]
    if not names:
        return None
    copy: ov.Model = model.clone()
    nodes = {node.get_friendly_name(): node for node in copy.get_ordered_ops()}
    for name, largest in zip(names, _largest(model, names, played), strict=True):
        _round(nodes[name], HEADROOM * max(float(largest), 1e-6))
    return copy


def peak_to_noise(floats: Sequence[npt.NDArray[Any]], others: Sequence[npt.NDArray[Any]]) -> float:
    """The range of `floats` over the root mean square of what `others` differ from them, in dB: PSNR, if of frames."""
    right, wrong = (np.stack([np.asarray(value, np.float64) for value in values]) for values in (floats, others))
    error = np.square(right - wrong).mean()
    return float(10 * np.log10(max(np.ptp(right) ** 2, 1e-12) / error)) if error > 0 else float("inf")


def _is_large(node: Any) -> bool:
    if node.get_type_name() != "Convolution" or node.input_value(1).get_node().get_type_name() != "Constant":
        return False
    made, taken, *size = node.input_value(1).get_shape()
    return bool(min(made, taken) >= LEAST and max(size) > 1)


def _largest(model: ov.Model, names: Sequence[str], played: Sequence[Inputs]) -> npt.NDArray[Any]:
    """The largest absolute number that each convolution is given."""
    watched: ov.Model = model.clone()
    nodes = {node.get_friendly_name(): node for node in watched.get_ordered_ops()}
    axes = ops.constant(np.arange(4))
    seen = [ops.result(ops.reduce_max(ops.abs(nodes[name].input_value(0)), axes, False)) for name in names]
    watching = ov.Model(seen, watched.get_parameters(), "watched")
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    request = ov.Core().compile_model(watching, "CPU", options).create_infer_request()
    found = []
    for inputs in played:
        request.infer(inputs)
        found.append([float(tensor.data) for tensor in request.output_tensors])
    return np.max(found, axis=0)  # type: ignore[no-any-return]


def _round(convolution: Any, largest: float) -> None:
    """Lets the convolution's picture and kernel take 256 and 255 values."""
    kernel = convolution.input_value(1).get_node().data
    scale = np.maximum(np.abs(kernel).max(axis=(1, 2, 3), keepdims=True), 1e-8).astype(np.float32)
    low, high = np.float32(-largest), np.float32(largest * 127 / 128)
    picture = ops.fake_quantize(convolution.input_value(0), low, high, low, high, 256)
    weights = ops.fake_quantize(ops.constant(kernel), -scale, scale, -scale, scale, 255)
    convolution.input(0).replace_source_output(picture.output(0))
    convolution.input(1).replace_source_output(weights.output(0))
