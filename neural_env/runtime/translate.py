"""A JAX function as an OpenVINO graph, its randomness left in JAX.

    split(function, drawn, given)        function(drawn, given): any pytrees of arrays
        |
        +--> draws(drawn) -> noise       a JAX program: all that follows from `drawn` alone (keys, temperature)
        +--> model(noise, given)         an OpenVINO graph of the rest

So the graph sees the very numbers that XLA would draw, and no random generator is written twice. The function is read
as a jaxpr, equation by equation; loops are unrolled, and what is the same in every round is computed once.

Pictures are `[b, h, w, c]` in JAX and `[b, c, h, w]` in OpenVINO. A `Node` says in which order its axes lie, so that
nothing is turned round between two convolutions; RMS norms and SiLU become the single operations that OpenVINO has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import openvino as ov
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun
from openvino import opset13 as ops

from neural_env.runtime import Untranslatable

Shape: TypeAlias = tuple[int, ...]
_NCHW = (0, 3, 1, 2)


@dataclass(frozen=True, eq=False)
class Node:
    """A value inside the graph."""

    output: Any  # ov.Output, [1] if a scalar; axes of size 1 may stand for longer ones: OpenVINO broadcasts like NumPy
    shape: Shape  # as JAX sees it
    order: Shape  # axis j of the output is axis order[j] of `shape`
    hint: Any = None  # how it was made, if that matters to what is made of it: `_Repeat`, `_MeanSquare` or `_Norm`


class _Repeat(NamedTuple):
    source: Node
    axis: int


class _Joined(NamedTuple):
    parts: tuple[Any, ...]  # nodes and constants
    axis: int


class _Doubled(NamedTuple):
    small: Node
    axes: Shape


@dataclass(frozen=True)
class _MeanSquare:
    """sum of x^2 over the channels, / count, + epsilon, as far as it has come."""

    source: Node
    count: int | None = None
    epsilon: float = 0.0


class _Norm(NamedTuple):
    """factor / sqrt(mean of source^2 + epsilon), waiting to be multiplied by `source`."""

    mean_square: _MeanSquare
    factor: Any = 1.0  # constant


class Split(NamedTuple):
    """A function in two programs."""

    draws: Callable[..., list[jax.Array]]  # flat `drawn` -> [noise..., results that need no graph...]
    model: ov.Model  # (noise..., flat `given` that is used...) -> results
    inputs: list[int]  # which leaves of `given` the model takes, after the noise
    noise: int  # how many of the draws are inputs of the model
    results: list[int]  # leaf i of the function's result is model output results[i], or draw -1 - results[i]
    shapes: list[Shape]  # of the leaves of the function's result


def split(function: Callable[[Any, Any], Any], drawn: Any, given: Any) -> Split:
    """Reads `function(drawn, given)` as two programs.

    Args:
        function: of any pytrees of arrays; its closed-over arrays become constants.
        drawn: shapes (or examples) of what the randomness is made from.
        given: shapes of the rest.

    Raises:
        Untranslatable: an operation without a translation.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(drawn, given)
    leaves = [described(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(drawn)]
    free = jax.tree.leaves(given)
    parameters = [_parameter(leaf.shape, leaf.dtype) for leaf in free]
    translation = _Translation()
    found: list[Any] = []

    def draw(*leaves: Any) -> list[Any]:
        inputs = [*leaves, *(_node(p.output(0), leaf.shape) for p, leaf in zip(parameters, free, strict=True))]
        found.extend(translation.read(closed.jaxpr, closed.consts, inputs))
        return [*translation.drawn, *(value for value in found if not isinstance(value, Node))]

    draws = jax.make_jaxpr(draw)(*leaves)
    outputs = [_unshaped(_plain(_whole(value))) for value in found if isinstance(value, Node)]
    model = ov.Model([ops.result(output) for output in outputs], [*translation.noise, *parameters], "step")
    inputs = [i for i, parameter in enumerate(parameters) if parameter.output(0).get_target_inputs()]
    for i, parameter in enumerate(parameters):
        if i not in inputs:
            model.remove_parameter(parameter)
    model.validate_nodes_and_infer_types()
    noise = len(translation.drawn)
    return Split(
        jaxpr_as_fun(draws),
        model,
        inputs,
        noise,
        _places(found, noise),
        [leaf.shape for leaf in jax.tree.leaves(shapes)],
    )


def _unshaped(output: Any) -> Any:
    """The output before it was reshaped, which the host does as well.

    OpenVINO 2026.4 overwrites a value that is both reshaped into a result, in place, and read by another operation.
    """
    while output.get_node().get_type_name() == "Reshape":
        output = output.get_node().input_value(0)
    return output


def described(shape: Sequence[int], dtype: Any) -> Any:
    """What stands for an array that isn't there yet."""
    return jax.ShapeDtypeStruct(tuple(shape), dtype)  # type: ignore[no-untyped-call]


def _places(found: Sequence[Any], noise: int) -> list[int]:
    places, graph, draw = [], 0, noise
    for value in found:
        if isinstance(value, Node):
            places.append(graph)
            graph += 1
        else:
            places.append(-1 - draw)
            draw += 1
    return places


class _Translation:
    """One reading of a jaxpr. A value is an array (known now), a tracer (drawn at run time) or a `Node`."""

    def __init__(self) -> None:
        self.drawn: list[Any] = []  # tracers that the graph takes in
        self.noise: list[Any] = []  # the parameters that stand for them
        self._entered: dict[int, Node] = {}
        self._made: dict[Any, list[Node]] = {}  # equations already in the graph
        self._alive: list[Any] = []  # values whose id is a key above

    def read(self, jaxpr: Jaxpr, consts: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
        """The values of the jaxpr's results."""
        values: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *inputs], strict=True))

        def value_of(atom: Any) -> Any:
            if isinstance(atom, Literal):
                return np.asarray(atom.val, atom.aval.dtype)  # type: ignore[attr-defined]
            return values[atom]

        for equation in jaxpr.eqns:
            results = self._apply(equation, [value_of(atom) for atom in equation.invars])
            values.update(zip(equation.outvars, results, strict=True))
        return [value_of(atom) for atom in jaxpr.outvars]

    def _apply(self, equation: Any, values: list[Any]) -> list[Any]:
        name, params = equation.primitive.name, equation.params
        if name in _CALLS:
            return _CALLS[name](self, params, values)
        if (simple := _simplified(name, values, equation.outvars[0].aval)) is not None:
            return [simple]
        if not any(isinstance(value, Node) for value in values):
            return _in_jax(equation.primitive, params, values)
        nodes = [self.enter(value) for value in values]
        key = (name, str(params), *(id(value) for value in nodes))
        if key not in self._made:
            self._alive += nodes
            self._made[key] = _emitted(name, params, nodes, [variable.aval for variable in equation.outvars])
        return list(self._made[key])

    def enter(self, value: Any) -> Any:
        """A drawn value as an input of the graph; others as they are."""
        if not isinstance(value, jax.core.Tracer):
            return value
        if id(value) not in self._entered:
            parameter = _parameter(value.shape, value.dtype)
            self.drawn.append(value)
            self.noise.append(parameter)
            self._entered[id(value)] = _node(parameter.output(0), tuple(value.shape))
        return self._entered[id(value)]


def _in_jax(primitive: Any, params: dict[str, Any], values: list[Any]) -> list[Any]:
    if any(isinstance(value, jax.core.Tracer) for value in values):
        results = primitive.bind(*values, **params)
    else:
        with jax.ensure_compile_time_eval():
            results = jax.tree.map(_known, primitive.bind(*values, **params))
    return list(results) if primitive.multiple_results else [results]


def _known(value: jax.Array) -> Any:
    """As NumPy array, unless it is a random key, of which NumPy has none."""
    return value if jnp.issubdtype(value.dtype, jax.dtypes.prng_key) else np.asarray(value)


def _simplified(name: str, values: list[Any], aval: Any) -> Any:
    """What times or plus nothing is; so that noise at level 0 isn't even drawn."""
    if name == "mul" and any(_is_nothing(value) for value in values):
        return np.zeros(aval.shape, aval.dtype)
    if name in ("add", "sub") and _is_nothing(values[1]) and tuple(values[0].shape) == aval.shape:
        return values[0]
    if name == "add" and _is_nothing(values[0]) and tuple(values[1].shape) == aval.shape:
        return values[1]
    return None


def _is_nothing(value: Any) -> bool:
    known = not isinstance(value, (Node, jax.core.Tracer))
    return known and value.dtype == np.float32 and not np.any(np.asarray(value))


# -- calls: read through


def _inline(translation: _Translation, params: dict[str, Any], values: list[Any]) -> list[Any]:
    closed: ClosedJaxpr = params.get("jaxpr") or params["call_jaxpr"]
    if params.get("name") == "silu" and isinstance(values[0], Node):
        return [replace(values[0], output=ops.swish(values[0].output).output(0), hint=None)]
    return translation.read(closed.jaxpr, closed.consts, values)


def _unrolled(translation: _Translation, params: dict[str, Any], values: list[Any]) -> list[Any]:
    consts, carries = params["num_consts"], params["num_carry"]
    fixed, carry, rows = values[:consts], values[consts : consts + carries], values[consts + carries :]
    if any(isinstance(row, (Node, jax.core.Tracer)) for row in rows):
        raise Untranslatable("a scan along values that are not constant")
    body, collected = params["jaxpr"], []
    order = reversed(range(params["length"])) if params["reverse"] else range(params["length"])
    for i in order:
        results = translation.read(body.jaxpr, body.consts, [*fixed, *carry, *(np.asarray(row)[i] for row in rows)])
        carry, ys = results[:carries], results[carries:]
        collected.append(ys)
    if any(collected):
        raise Untranslatable("a scan that collects results")
    return carry


_CALLS: dict[str, Callable[[_Translation, dict[str, Any], list[Any]], list[Any]]] = {
    "jit": _inline,
    "pjit": _inline,
    "closed_call": _inline,
    "custom_jvp_call": _inline,
    "scan": _unrolled,
}


# -- operations


def _emitted(name: str, params: dict[str, Any], values: list[Any], avals: list[Any]) -> list[Node]:
    if name not in _OPERATIONS:
        raise Untranslatable(f"there is no translation of {name!r}")
    return _OPERATIONS[name](params, values, avals)


def _unary(make: Callable[[Any], Any]) -> Callable[..., list[Node]]:
    def emit(params: dict[str, Any], values: list[Any], avals: list[Any]) -> list[Node]:
        return [replace(values[0], output=make(values[0].output).output(0), hint=None)]

    return emit


def _elementwise(make: Callable[..., Any]) -> Callable[..., list[Node]]:
    def emit(params: dict[str, Any], values: list[Any], avals: list[Any]) -> list[Node]:
        return [_together(make, values, avals[0])]

    return emit


def _together(make: Callable[..., Any], values: list[Any], aval: Any) -> Node:
    """An operation on values whose axes are brought into one order."""
    orders = [value.order for value in values if isinstance(value, Node) and len(value.shape) == len(aval.shape)]
    order = orders[0] if orders and all(other == orders[0] for other in orders) else _identity(aval.shape)
    return Node(make(*(_ordered(value, order) for value in values)).output(0), aval.shape, order)


def _multiply(params: dict[str, Any], values: list[Any], avals: list[Any]) -> list[Node]:
    for one, other in (values, values[::-1]):
        if isinstance(one, Node) and isinstance(one.hint, _Norm):
            if other is one.hint.mean_square.source:
                return [_normalised(other, one.hint)]
            if not isinstance(other, Node) and isinstance(one.hint.factor, float):
                scaled = _together(ops.multiply, values, avals[0])
                return [replace(scaled, hint=one.hint._replace(factor=np.asarray(other)))]
    return [_together(ops.multiply, values, avals[0])]


def _normalised(x: Node, norm: _Norm) -> Node:
    """x factor / sqrt(mean x^2 + epsilon), as NormalizeL2, which divides by sqrt(sum x^2 + epsilon)."""
    count = norm.mean_square.count
    assert count is not None
    axis = x.order.index(len(x.shape) - 1)
    axes = ops.constant(np.array([axis], np.int64))
    unit = ops.normalize_l2(x.output, axes, norm.mean_square.epsilon * count, "add")
    factor = np.sqrt(np.float32(count)) * np.asarray(norm.factor, np.float32)
    return Node(ops.multiply(unit, _ordered(factor, x.order)).output(0), x.shape, x.order)


def _add(params: dict[str, Any], values: list[Any], avals: list[Any]) -> list[Node]:
    hint = _hint(values)
    result = _together(ops.add, values, avals[0])
    if isinstance(hint, _MeanSquare) and hint.count and np.size(values[1]) == 1:
        return [replace(result, hint=replace(hint, epsilon=float(np.ravel(values[1])[0])))]
    return [result]


def _divide(params: dict[str, Any], values: list[Any], avals: list[Any]) -> list[Node]:
    hint = _hint(values)
    result = _together(ops.divide, values, avals[0])
    if isinstance(hint, _MeanSquare) and np.size(values[1]) == 1 and np.ravel(values[1])[0] == hint.source.shape[-1]:
        return [replace(result, hint=replace(hint, count=hint.source.shape[-1]))]
    return [result]


def _hint(values: list[Any]) -> Any:
    first, second = values
    return first.hint if isinstance(first, Node) and not isinstance(second, Node) else None


def _rsqrt(params: dict[str, Any], values: list[Any], avals: list[Any]) -> list[Node]:
    (x,) = values
    result = ops.divide(ops.constant(np.float32(1)), ops.sqrt(x.output)).output(0)
    return [replace(x, output=result, hint=_Norm(x.hint) if isinstance(x.hint, _MeanSquare) else None)]


def _square(params: dict[str, Any], values: list[Any], avals: list[Any]) -> list[Node]:
    (x,) = values
    return [replace(x, output=ops.multiply(x.output, x.output).output(0), hint=_MeanSquare(x))]


def _reduce_sum(params: dict[str, Any], values: list[Any], avals: list[Any]) -> list[Node]:
    (x,) = values
    axes = [x.order.index(axis) for axis in params["axes"]]
    total = ops.reduce_sum(_whole(x).output, ops.constant(np.array(axes, np.int64)), keep_dims=False).output(0)
    is_norm = isinstance(x.hint, _MeanSquare) and params["axes"] == (len(x.shape) - 1,)
    return [Node(total, avals[0].shape, _without(x.order, params["axes"]), x.hint if is_norm else None)]


def _reduce_max(params: dict[str, Any], values: list[Any], avals: list[Any]) -> list[Node]:
    (x,) = values
    axes = [x.order.index(axis) for axis in params["axes"]]
    most = ops.reduce_max(_whole(x).output, ops.constant(np.array(axes, np.int64)), keep_dims=False).output(0)
    return [Node(most, avals[0].shape, _without(x.order, params["axes"]))]


def _integer_pow(params: dict[str, Any], values: list[Any], avals: list[Any]) -> list[Node]:
    power = ops.constant(np.asarray(params["y"], avals[0].dtype))
    return [replace(values[0], output=ops.power(values[0].output, power).output(0), hint=None)]


def _expm1(x: Any) -> Any:
    return ops.subtract(ops.exp(x), ops.constant(np.float32(1)))


def _log1p(x: Any) -> Any:
    return ops.log(ops.add(x, ops.constant(np.float32(1))))


def _select(params: dict[str, Any], values: list[Any], avals: list[Any]) -> list[Node]:
    return [_together(lambda which, no, yes: ops.select(which, yes, no), values, avals[0])]


def _convert(params: dict[str, Any], values: list[Any], avals: list[Any]) -> list[Node]:
    (x,) = values
    return [replace(x, output=ops.convert(x.output, _type(avals[0].dtype)).output(0), hint=None)]


def _copy(params: dict[str, Any], values: list[Any], avals: list[Any]) -> list[Node]:
    return [values[0]]


def _transpose(params: dict[str, Any], values: list[Any], avals: list[Any]) -> list[Node]:
    (x,) = values
    return [_turned(x, params["permutation"])]


def _turned(x: Node, permutation: Sequence[int]) -> Node:
    """Nothing moves: only the names of the axes change."""
    new_name = {old: new for new, old in enumerate(permutation)}
    shape = tuple(x.shape[axis] for axis in permutation)
    return Node(x.output, shape, tuple(new_name[axis] for axis in x.order))


def _reshape(params: dict[str, Any], values: list[Any], avals: list[Any]) -> list[Node]:
    (x,), shape = values, avals[0].shape
    if params.get("dimensions") is not None:
        x = _turned(x, params["dimensions"])
    if isinstance(x.hint, _Repeat) and (repeated := _repeated(x, shape)) is not None:
        return [repeated]
    hint = x.hint if isinstance(x.hint, _MeanSquare) and shape == (*x.shape, 1) else None
    return [replace(_node(_to_shape(_plain(_whole(x)), shape), shape), hint=hint)]


def _squeeze(params: dict[str, Any], values: list[Any], avals: list[Any]) -> list[Node]:
    (x,), shape = values, avals[0].shape
    order = _without(x.order, params["dimensions"])
    return [Node(_to_shape(_whole(x).output, tuple(shape[axis] for axis in order)), shape, order)]


def _broadcast(params: dict[str, Any], values: list[Any], avals: list[Any]) -> list[Node]:
    (x,), shape, places = values, avals[0].shape, params["broadcast_dimensions"]
    thin = [1] * len(shape)  # what was long enough stays, the rest is left to OpenVINO's own broadcasting
    for axis, place in enumerate(places):
        thin[place] = _length(x, axis)
    added = [axis for axis in range(len(shape)) if axis not in places]
    hint = _Repeat(x, places.index(added[0] - 1)) if _repeats(x, shape, added, places) else None
    return [replace(_node(_to_shape(_plain(x), tuple(thin)), shape), hint=hint)]


def _repeats(x: Node, shape: Shape, added: list[int], places: Sequence[int]) -> bool:
    """Whether every entry along one axis comes twice, one beside the other, once the result is reshaped."""
    return len(x.shape) == 4 and len(added) == 1 and shape[added[0]] == 2 and added[0] - 1 in places


def _repeated(x: Node, shape: Shape) -> Node | None:
    """Twice as long along an axis, by nearest neighbour; both sides of a picture in one operation."""
    source, axis = x.hint
    doubled = tuple(2 * length if i == axis else length for i, length in enumerate(source.shape))
    if shape != doubled or axis not in (1, 2):
        return None
    if isinstance(source.hint, _Doubled) and axis not in source.hint.axes:
        small, axes = source.hint.small, (*source.hint.axes, axis)
    else:
        small, axes = _whole(source), (axis,)
    larger = ops.interpolate(
        _ordered(small, _NCHW),
        ops.constant(np.full(len(axes), 2.0, np.float32)),
        mode="nearest",
        shape_calculation_mode="scales",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
        axes=ops.constant(np.array([_NCHW.index(a) for a in axes], np.int64)),
    )
    return Node(larger.output(0), shape, _NCHW, _Doubled(small, axes))


def _concatenate(params: dict[str, Any], values: list[Any], avals: list[Any]) -> list[Node]:
    wholes = [_whole(value) if isinstance(value, Node) else value for value in values]
    axis = params["dimension"]
    orders = [value.order for value in wholes if isinstance(value, Node)]
    order = orders[0] if all(other == orders[0] for other in orders) else _identity(avals[0].shape)
    joined = ops.concat([_ordered(value, order) for value in wholes], order.index(axis))
    return [Node(joined.output(0), avals[0].shape, order, _Joined(tuple(values), axis))]


def _slice(params: dict[str, Any], values: list[Any], avals: list[Any]) -> list[Node]:
    (x,) = values
    starts, limits, strides = params["start_indices"], params["limit_indices"], params["strides"]
    if isinstance(x.hint, _Joined) and (part := _part(x, starts, avals[0].shape)) is not None:
        return [part]
    return [_cut(_whole(x), starts, limits, strides or (1,) * len(x.shape))]


def _part(x: Node, starts: Sequence[int], shape: Shape) -> Node | None:
    """The node that was put just there when `x` was joined, if it is what is cut out: nothing is copied."""
    parts, axis = x.hint
    place = 0
    for part in parts:
        if isinstance(part, Node) and part.shape == shape and starts[axis] == place:
            return part
        place += np.shape(part)[axis] if not isinstance(part, Node) else part.shape[axis]
    return None


def _cut(x: Node, starts: Sequence[int], limits: Sequence[int], strides: Sequence[int]) -> Node:
    changed = [a for a in range(len(x.shape)) if (starts[a], limits[a], strides[a]) != (0, x.shape[a], 1)]
    shape = tuple(-(-(limit - start) // stride) for start, limit, stride in zip(starts, limits, strides, strict=True))
    if not changed:
        return x
    rows = [np.array([bound[a] for a in changed], np.int64) for bound in (starts, limits, strides)]
    axes = np.array([x.order.index(a) for a in changed], np.int64)
    cut = ops.slice(x.output, *(ops.constant(row) for row in rows), ops.constant(axes))
    return Node(cut.output(0), shape, x.order)


def _split(params: dict[str, Any], values: list[Any], avals: list[Any]) -> list[Node]:
    x, parts, start = _whole(values[0]), [], 0
    for size in params["sizes"]:
        begin = [0] * len(x.shape)
        end = list(x.shape)
        begin[params["axis"]], end[params["axis"]] = start, start + size
        parts.append(_cut(x, begin, end, [1] * len(x.shape)))
        start += size
    return parts


def _gather(params: dict[str, Any], values: list[Any], avals: list[Any]) -> list[Node]:
    """Rows of a table, which is all that an embedding asks for."""
    table, indices = values
    numbers = params["dimension_numbers"]
    rows_of_table = (1, *np.shape(table)[1:]) if not isinstance(table, Node) else None
    if (
        numbers.start_index_map != (0,)
        or numbers.collapsed_slice_dims != (0,)
        or params["slice_sizes"] != rows_of_table
    ):
        raise Untranslatable("a gather of other things than rows of a constant table")
    rows = _to_shape(_plain(_whole(indices)), indices.shape[:-1])
    picked = ops.gather(ops.constant(np.asarray(table)), rows, ops.constant(np.int64(0)))
    return [_node(picked.output(0), avals[0].shape)]


def _dot(params: dict[str, Any], values: list[Any], avals: list[Any]) -> list[Node]:
    """A product of matrices; a constant left factor goes to the right, where OpenVINO packs it beforehand."""
    ((left_sum, right_sum), (left_batch, right_batch)) = params["dimension_numbers"]
    left, right = values
    if not isinstance(left, Node):
        product = _matmul(right, left, right_sum, left_sum, right_batch, left_batch)
        batch = len(left_batch)
        rows = len(right.shape) - len(right_sum) - batch
        columns = np.ndim(left) - len(left_sum) - batch
        # JAX: batch, left's axes, right's axes; here right's come first
        names = [*range(batch), *range(batch + rows, batch + rows + columns), *range(batch, batch + rows)]
        return [_turned(product, names)]
    return [_matmul(left, right, left_sum, right_sum, left_batch, right_batch)]


def _matmul(
    left: Node,
    right: Any,
    left_sum: Sequence[int],
    right_sum: Sequence[int],
    left_batch: Sequence[int],
    right_batch: Sequence[int],
) -> Node:
    shapes = [tuple(np.shape(v)) if not isinstance(v, Node) else v.shape for v in (left, right)]
    left_free = [a for a in range(len(shapes[0])) if a not in (*left_sum, *left_batch)]
    right_free = [a for a in range(len(shapes[1])) if a not in (*right_sum, *right_batch)]

    def size(shape: Shape, axes: Sequence[int]) -> int:
        return int(np.prod([shape[a] for a in axes], dtype=int))

    batch = tuple(shapes[0][a] for a in left_batch)
    terms = size(shapes[0], left_sum)
    a = _matrix(left, [*left_batch, *left_free, *left_sum], (*batch, size(shapes[0], left_free), terms))
    b = _matrix(right, [*right_batch, *right_sum, *right_free], (*batch, terms, size(shapes[1], right_free)))
    product = ops.matmul(a, b, False, False).output(0)
    shape = (*batch, *(shapes[0][i] for i in left_free), *(shapes[1][i] for i in right_free))
    return _node(_to_shape(product, shape), shape)


def _matrix(value: Any, axes: Sequence[int], shape: Shape) -> Any:
    if isinstance(value, Node):
        return _to_shape(_plain(_turned(_whole(value), axes)), shape)
    return ops.constant(np.ascontiguousarray(np.asarray(value).transpose(axes).reshape(shape))).output(0)


def _convolution(params: dict[str, Any], values: list[Any], avals: list[Any]) -> list[Node]:
    x, kernel = values
    numbers = params["dimension_numbers"]
    plain = (
        len(x.shape) == 4
        and params["feature_group_count"] == 1
        and params["batch_group_count"] == 1
        and params["lhs_dilation"] == (1, 1)
        and not isinstance(kernel, Node)
    )
    if not plain:
        raise Untranslatable("a convolution that is grouped, dilated, not of pictures, or of a kernel that is computed")
    picture = _turned(_whole(x), numbers.lhs_spec)  # b, c, h, w
    weights = ops.constant(np.ascontiguousarray(np.asarray(kernel).transpose(numbers.rhs_spec)))
    before, after = zip(*params["padding"], strict=True)
    made = ops.convolution(
        _plain(picture), weights, params["window_strides"], before, after, params["rhs_dilation"], auto_pad="explicit"
    ).output(0)
    out = numbers.out_spec  # place of b, c, h, w in the result
    return [Node(made, avals[0].shape, tuple(out))]


_OPERATIONS: dict[str, Callable[[dict[str, Any], list[Any], list[Any]], list[Node]]] = {
    "abs": _unary(ops.abs),
    "add": _add,
    "and": _elementwise(ops.logical_and),
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "convert_element_type": _convert,
    "copy": _copy,
    "cos": _unary(ops.cos),
    "div": _divide,
    "dot_general": _dot,
    "eq": _elementwise(ops.equal),
    "exp": _unary(ops.exp),
    "expm1": _unary(_expm1),
    "floor": _unary(ops.floor),
    "gather": _gather,
    "ge": _elementwise(ops.greater_equal),
    "gt": _elementwise(ops.greater),
    "integer_pow": _integer_pow,
    "le": _elementwise(ops.less_equal),
    "log": _unary(ops.log),
    "log1p": _unary(_log1p),
    "logistic": _unary(ops.sigmoid),
    "lt": _elementwise(ops.less),
    "max": _elementwise(ops.maximum),
    "min": _elementwise(ops.minimum),
    "mul": _multiply,
    "neg": _unary(ops.negative),
    "reduce_max": _reduce_max,
    "reduce_sum": _reduce_sum,
    "reshape": _reshape,
    "round": _unary(lambda x: ops.round(x, "half_to_even")),
    "rsqrt": _rsqrt,
    "select_n": _select,
    "sign": _unary(ops.sign),
    "sin": _unary(ops.sin),
    "slice": _slice,
    "split": _split,
    "sqrt": _unary(ops.sqrt),
    "square": _square,
    "squeeze": _squeeze,
    "stop_gradient": _copy,
    "sub": _elementwise(ops.subtract),
    "tanh": _unary(ops.tanh),
    "transpose": _transpose,
}


# -- nodes


def _parameter(shape: Sequence[int], dtype: Any) -> Any:
    return ops.parameter(list(shape) or [1], _type(dtype))


def _type(dtype: Any) -> Any:
    return ov.Type(np.dtype(dtype))


def _node(output: Any, shape: Shape) -> Node:
    return Node(output, shape, _identity(shape))


def _identity(shape: Sequence[int]) -> Shape:
    return tuple(range(len(shape)))


def _without(order: Shape, axes: Sequence[int]) -> Shape:
    """The order of the axes that are left when some go."""
    left = [axis for axis in order if axis not in axes]
    return tuple(sorted(left).index(axis) for axis in left)


def _length(x: Node, axis: int) -> int:
    return int(x.output.get_shape()[x.order.index(axis)])


def _whole(x: Node) -> Node:
    """With every axis at its full length."""
    lengths = [x.shape[axis] for axis in x.order] or [1]
    if list(x.output.get_shape()) == lengths:
        return x
    return replace(x, output=ops.broadcast(x.output, ops.constant(np.array(lengths, np.int64))).output(0))


def _plain(x: Node) -> Any:
    """The output with its axes in JAX's order."""
    return _ordered(x, _identity(x.shape))


def _ordered(value: Any, order: Shape) -> Any:
    """The output of a node, or a constant, with its axes in this order; scalars and vectors fit any."""
    if not isinstance(value, Node):
        array = np.asarray(value)
        return ops.constant(np.ascontiguousarray(array.transpose(order)) if array.ndim == len(order) else array)
    if value.order == order or len(value.shape) != len(order):
        return value.output
    places = [value.order.index(axis) for axis in order]
    lengths = value.output.get_shape()
    if _moves_nothing(places, lengths):
        return _to_shape(value.output, tuple(lengths[place] for place in places))
    return ops.transpose(value.output, ops.constant(np.array(places, np.int64))).output(0)


def _moves_nothing(places: Sequence[int], lengths: Any) -> bool:
    longer = [place for place in places if lengths[place] != 1]
    return longer == sorted(longer)


def _to_shape(output: Any, shape: Shape) -> Any:
    """Reshaped; a scalar is `[1]` in the graph, because OpenVINO's CPU plugin crashes on some operations of scalars."""
    shape = shape or (1,)
    if tuple(output.get_shape()) == tuple(shape):
        return output
    return ops.reshape(output, ops.constant(np.array(shape, np.int64)), False).output(0)
