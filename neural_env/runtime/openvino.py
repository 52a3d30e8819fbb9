"""The steps of a dream as OpenVINO graphs on a CPU, their randomness drawn by JAX from the same keys as XLA's.

Everything is on the host, as NumPy arrays. A graph is made for each static choice (denoising steps, way of ending,
whether the context is corrupted), when it is first asked for, and kept in the user's cache folder under a hash of all
that went into it: weights, configuration, source code, versions, machine.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import numpy.typing as npt
import openvino as ov
from jax import export

import neural_env
from neural_env.envs import core
from neural_env.envs.core import Carry, DreamState, Info, Step
from neural_env.envs.dials import Dials
from neural_env.runtime import cache, usable_cores
from neural_env.runtime.progress import Note
from neural_env.runtime.translate import described, split
from neural_env.version import __version__

Array = npt.NDArray[Any]
_STAND_INS: Any = (0, (0, 0), 0, 0, Info(*cast(Any, (0, 0))))  # a step with a number for each array
_SOURCES = ("world", "runtime", "envs/core.py", "envs/dials.py", "arrays.py")  # what a graph is made of


class Program:
    """A function in two programs, ready to run.

    Args:
        draws: the JAX program, serialised.
        graph: the OpenVINO graph, exported by the compiler.
        about: `inputs`, `noise` and `results` of the `Split`.
        structure: of the function's result.
        shapes: of the leaves of the result.
    """

    def __init__(self, draws: bytes, graph: bytes, about: dict[str, Any], structure: Any, options: dict[str, Any]):
        self._draws = jax.jit(export.deserialize(bytearray(draws)).call)
        self._noise, self._inputs, self._results = about["noise"], about["inputs"], about["results"]
        self._structure, self._shapes = structure, [tuple(shape) for shape in about["shapes"]]
        # Told again, because the compiler's own choice is bfloat16 wherever there are instructions for it.
        options = {**options, "INFERENCE_PRECISION_HINT": about["precision"]}
        compiled = _core().import_model(io.BytesIO(graph), "CPU", options)
        # One request a stream: with several, rows are computed beside each other, each by one core.
        self._requests = [compiled.create_infer_request() for _ in range(options["NUM_STREAMS"])]

    def __call__(self, drawn: Sequence[Any], given: Sequence[Any]) -> Any:
        """The function's result, in arrays of its own."""
        return self.rows([(drawn, given)])[0]

    def rows(self, calls: Sequence[tuple[Sequence[Any], Sequence[Any]]]) -> list[Any]:
        """The results of several calls, as many at a time as there are streams."""
        results = []
        for start in range(0, len(calls), len(self._requests)):
            begun = [
                (request, *self._begin(request, *call))
                for request, call in zip(self._requests, calls[start:], strict=False)
            ]
            results += [self._finish(request, draws) for request, draws, _ in begun]
        return results

    def _begin(
        self, request: ov.InferRequest, drawn: Sequence[Any], given: Sequence[Any]
    ) -> tuple[list[Any], list[Array]]:
        """Returns the draws, and the inputs, which must live until the request has ended."""
        draws = self._draws(*drawn)
        inputs = [*draws[: self._noise], *(given[i] for i in self._inputs)]
        tensors = [np.ascontiguousarray(value).reshape(np.shape(value) or (1,)) for value in inputs]  # scalars are [1]
        request.start_async(tensors, share_inputs=True)
        return list(draws), tensors

    def _finish(self, request: ov.InferRequest, draws: list[Any]) -> Any:
        request.wait()
        outputs = [tensor.data for tensor in request.output_tensors]
        leaves = [
            np.array(outputs[place] if place >= 0 else draws[-1 - place]).reshape(shape)
            for place, shape in zip(self._results, self._shapes, strict=True)
        ]
        return jax.tree.unflatten(self._structure, leaves)


class OpenVino:
    """The programs of one world.

    Args:
        world: gives the model when a graph must be made.
        about: what the world is, as bytes to be hashed: its weights and configuration.
        decodes: whether a step shows frames; else latents.
        streams: rows that are stepped beside each other, each by its share of the cores.
    """

    def __init__(self, world: Callable[[], Any], about: bytes, shapes: DreamState, decodes: bool, streams: int = 1):
        self._world, self._about, self._shapes = world, about, shapes
        self._decodes, self._streams = decodes, streams
        self._programs: dict[Any, Program] = {}

    def advance(self, carry: Carry, action: int, dials: Dials) -> Step:
        """`core.advance`, on the host."""
        return self.advance_rows([carry], [action], [dials])[0]

    def advance_rows(self, carries: Sequence[Carry], actions: Sequence[int], dials: Sequence[Dials]) -> list[Step]:
        """`core.advance` of each row; their dials differ in numbers at most."""
        steps: list[Any] = [None] * len(carries)
        for noisy in (False, True):
            rows = [i for i, dial in enumerate(dials) if (dial.context_noise > 0) == noisy]
            if rows:
                calls = [_call(carries[i], actions[i], dials[i], noisy) for i in rows]
                for i, step in zip(rows, self._step(dials[rows[0]], noisy).rows(calls), strict=True):
                    steps[i] = _moved_on(step, carries[i], actions[i])
        return steps

    def rollout(self, carry: Carry, actions: Sequence[int], dials: Dials) -> Step:
        """`core.rollout`: every field but the state with a leading axis `t`."""
        steps = []
        for action in actions:
            step = self.advance(carry, int(action), dials)
            carry = step.state
            steps.append(step._replace(state=None))
        played: Step = jax.tree.map(lambda *rows: np.stack(rows), *steps)
        return played._replace(state=carry)

    def screen(self, state: DreamState) -> Array:
        """`core.screen`."""
        program = self._program("screen", lambda world: lambda drawn, given: core.screen(world, given), (), 0)
        return program((), tuple(map(np.asarray, state)))  # type: ignore[no-any-return]

    def variables(self, state: DreamState) -> Array:
        """`core.variables`."""
        program = self._program("variables", lambda world: lambda drawn, given: core.variables(world, given), (), 0)
        return program((), tuple(map(np.asarray, state)))  # type: ignore[no-any-return]

    def _step(self, dials: Dials, noisy: bool) -> Program:
        num_steps, termination = dials.num_steps, dials.termination
        observe: core.Observe = core.screen if self._decodes else core.latent

        def stepping(world: Any) -> Any:
            def step(drawn: Any, given: Any) -> Step:
                key, temperature, *level = drawn
                state, action = given
                turned = Dials(
                    context_noise=level[0] if noisy else 0.0,
                    temperature=temperature,
                    num_steps=num_steps,
                    termination=termination,
                )
                after = core.advance(world, Carry(key, state), action, turned, observe)
                return after._replace(state=(after.state.key, after.state.state.context[-1]))

            return step

        key, number = described((2,), np.uint32), described((), np.float32)
        drawn = (key, number, number) if noisy else (key, number)
        name = f"step {num_steps} {termination} {noisy} {self._decodes}"
        leaves: Any = Step(*_STAND_INS)
        return self._program(name, stepping, drawn, leaves, acts=True)

    def _program(self, name: str, make: Any, drawn: Any, structure: Any, acts: bool = False) -> Program:
        if name not in self._programs:
            self._programs[name] = self._made(name, make, drawn, jax.tree.structure(structure), acts)
        return self._programs[name]

    def _made(self, name: str, make: Any, drawn: Any, structure: Any, acts: bool) -> Program:
        options = {"NUM_STREAMS": self._streams, "INFERENCE_NUM_THREADS": usable_cores()}
        entry = hashlib.sha256(self._seed + f"{name} {options}".encode()).hexdigest()[:32] + ".openvino"
        with Note(f"preparing {name.split()[0]!r} for this CPU"):
            if (kept := cache.read(entry)) is not None and (program := _loaded(kept, structure, options)) is not None:
                return program
            given = (self._shapes, described((), np.int32)) if acts else self._shapes
            parts = _built(make(self._world()), drawn, given, options)
            cache.write(entry, parts)
            program = _loaded(parts, structure, options)
        assert program is not None, "a graph that was just made can be loaded"
        return program

    @cached_property
    def _seed(self) -> bytes:
        machine = _core().get_property("CPU", "FULL_DEVICE_NAME"), platform.machine(), os.cpu_count()
        versions = __version__, ov.__version__, jax.__version__, np.__version__
        code = b"".join(path.read_bytes() for path in _source_files())
        return hashlib.sha256(self._about + code + repr((machine, versions)).encode()).digest()


def _call(carry: Carry, action: int, dials: Dials, noisy: bool) -> tuple[Sequence[Any], Sequence[Any]]:
    numbers = (dials.temperature, dials.context_noise) if noisy else (dials.temperature,)
    drawn = (np.asarray(carry.key), *map(np.float32, numbers))
    state = carry.state
    return drawn, (np.asarray(state.context), np.asarray(state.actions), np.int32(action))


def _moved_on(step: Step, carry: Carry, action: int) -> Step:
    """The step with the window of the past that follows."""
    key, latent = step.state
    context = np.concatenate([np.asarray(carry.state.context)[1:], latent[None]])
    actions = np.append(np.asarray(carry.state.actions), np.int32(action))[1:]
    return step._replace(state=Carry(key, DreamState(context, actions)))  # type: ignore[arg-type]


def _built(function: Any, drawn: Any, given: Any, options: dict[str, Any]) -> list[bytes]:
    found = split(function, drawn, given)
    leaves = jax.tree.leaves(drawn)
    draws = export.export(jax.jit(found.draws))(*leaves).serialize()
    chosen = precision()
    compiled = _core().compile_model(found.model, "CPU", {**options, "INFERENCE_PRECISION_HINT": chosen})
    graph = io.BytesIO()
    compiled.export_model(graph)
    about = {
        "inputs": found.inputs,
        "noise": found.noise,
        "results": found.results,
        "shapes": found.shapes,
        "precision": chosen,
    }
    return [json.dumps(about).encode(), bytes(draws), graph.getvalue()]


def _loaded(parts: Sequence[bytes], structure: Any, options: dict[str, Any]) -> Program | None:
    try:
        about, draws, graph = parts
        return Program(draws, graph, json.loads(about), structure, options)
    except (RuntimeError, ValueError, KeyError):  # of another version of OpenVINO or JAX, or cut short
        return None


def precision() -> str:
    """What products are computed in: bfloat16 if this CPU multiplies it faster than float32, else float32.

    Measured, on one thread and by processor time: there are CPUs that have the instructions and are slower by them.
    """
    if "BF16" not in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return "f32"
    return "bf16" if _seconds_of_a_product("bf16") < 0.8 * _seconds_of_a_product("f32") else "f32"


def _seconds_of_a_product(precision: str, side: int = 512) -> float:
    matrix = np.ones((side, side), np.float32)
    left = ov.opset13.parameter([side, side], ov.Type.f32)
    product = ov.opset13.matmul(left, ov.opset13.constant(matrix), False, False)
    model = ov.Model([product.output(0)], [left], "product")
    options = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    request = _core().compile_model(model, "CPU", options).create_infer_request()
    seconds = []
    for _ in range(5):
        began = time.process_time()
        request.infer([matrix])
        seconds.append(time.process_time() - began)
    return min(seconds)


_CORES: list[ov.Core] = []


def _core() -> ov.Core:
    if not _CORES:
        _CORES.append(ov.Core())
    return _CORES[0]


def _source_files() -> list[Path]:
    root = Path(neural_env.__file__).parent
    places = [root / source for source in _SOURCES]
    return sorted(path for place in places for path in ([place] if place.is_file() else place.glob("*.py")))
