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
HEADROOM = 1.5  # between the largest number seen and the largest that can be said


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
        _round(nodes[name], np.maximum(largest, 1e-6))
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


def _largest(model: ov.Model, names: Sequence[str], played: Sequence[Inputs]) -> list[npt.NDArray[Any]]:
    """The largest absolute number that each convolution is given in each channel, [c]."""
    watched: ov.Model = model.clone()
    nodes = {node.get_friendly_name(): node for node in watched.get_ordered_ops()}
    axes = ops.constant(np.array([0, 2, 3]))
    seen = [ops.result(ops.reduce_max(ops.abs(nodes[name].input_value(0)), axes, False)) for name in names]
    watching = ov.Model(seen, watched.get_parameters(), "watched")
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    request = ov.Core().compile_model(watching, "CPU", options).create_infer_request()
    found = [np.zeros(tensor.shape) for tensor in request.output_tensors]
    for inputs in played:
        request.infer(inputs)
        found = [np.maximum(seen, tensor.data) for seen, tensor in zip(found, request.output_tensors, strict=True)]
    return found


def _round(convolution: Any, largest: npt.NDArray[Any]) -> None:
    """Lets the convolution's picture and kernel take 256 and 255 values.

    What is large in a channel is shared between picture and kernel, half each by ratio, so that one channel of large
    numbers doesn't leave few values to the others (SmoothQuant: Xiao et al. 2023, arXiv 2211.10438, eq. 4, alpha 0.5).
    """
    kernel = convolution.input_value(1).get_node().data
    shared = np.sqrt(largest / np.maximum(np.abs(kernel).max(axis=(0, 2, 3)), 1e-6)).astype(np.float32)
    high = np.float32(HEADROOM * (largest / shared).max())
    kernel = kernel * shared[:, None, None]
    scale = np.maximum(np.abs(kernel).max(axis=(1, 2, 3), keepdims=True), 1e-8).astype(np.float32)
    given = high * shared[None, :, None, None]
    top = np.float32(127 / 128)  # 0 is one of the 256 values
    picture = ops.fake_quantize(convolution.input_value(0), -given, given * top, -high, high * top, 256)
    weights = ops.fake_quantize(ops.constant(kernel), -scale, scale, -scale, scale, 255)
    convolution.input(0).replace_source_output(picture.output(0))
    convolution.input(1).replace_source_output(weights.output(0))
