"""The steps of a dream as OpenVINO graphs on a CPU, their randomness drawn by JAX from the same keys as XLA's.

Everything is on the host, as NumPy arrays. A graph is made for each static choice (denoising steps, way of ending,
whether the context is corrupted), when it is first asked for, and kept in the user's cache folder under a hash of all
that went into it: weights, configuration, source code, versions, machine.

The large convolutions of a step are computed in 8-bit integers where this CPU is faster by them and they show the
same: a graph plays in floats and in integers when it is made. `$NEURAL_ENV_PRECISION` overrules it.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import numpy as np
import numpy.typing as npt
import openvino as ov
from jax import export

import neural_env
from neural_env.checkpoint import Starts
from neural_env.envs import core
from neural_env.envs.arguments import CONTEXT_NOISE_MAX
from neural_env.envs.core import Carry, DreamState, Info, Step
from neural_env.envs.dials import Dials
from neural_env.runtime import cache, precision, usable_cores
from neural_env.runtime.progress import Note
from neural_env.runtime.quantise import Inputs, peak_to_noise, quantised
from neural_env.runtime.translate import Split, described, split
from neural_env.version import __version__

Array = npt.NDArray[Any]
Play = Callable[["Program"], list[Inputs]]
_STAND_INS: Any = (0, (0, 0), 0, 0, Info(*cast(Any, (0, 0, 0))))  # a step with a number for each array
_LEAST_PEAK = 45.0  # dB of PSNR between pictures in floats and in integers
_MOMENTS, _MOMENT_STEPS = 16, 4  # dreams, and steps of each, that integers are fitted to and judged by
_WARMEST = 1.3  # temperature that integers are fitted to; above it numbers are larger than they can say
_TRIED = ((1.0, 0.1), (_WARMEST, CONTEXT_NOISE_MAX))  # temperature and context noise of these dreams, in turn
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
        self.precision: str = about["precision"]  # "f32", "bf16" or "i8"
        self._draws = jax.jit(export.deserialize(bytearray(draws)).call)
        self._noise, self._inputs, self._results = about["noise"], about["inputs"], about["results"]
        self._structure, self._shapes = structure, [tuple(shape) for shape in about["shapes"]]
        places = jax.tree.unflatten(structure, self._results)
        self._next_key = -1 - places.state[0] if isinstance(places, Step) else None  # among the draws
        # Told again, because the compiler's own choice is bfloat16 wherever there are instructions for it.
        options = {**options, "INFERENCE_PRECISION_HINT": _hint(self.precision)}
        compiled = _core().import_model(io.BytesIO(graph), "CPU", options)
        # One request a stream: with several, rows are computed beside each other, each by one core.
        self._requests = [_Request(compiled) for _ in range(options["NUM_STREAMS"])]
        self._ahead: tuple[bytes, list[Any]] | None = None  # what is drawn next, if all goes on as it does

    def __call__(self, drawn: Sequence[Any], given: Sequence[Any]) -> Any:
        """The function's result, in arrays of its own."""
        return self.rows([(drawn, given)])[0]

    def rows(self, calls: Sequence[tuple[Sequence[Any], Sequence[Any]]]) -> list[Any]:
        """The results of several calls, as many at a time as there are streams."""
        results: list[Any] = []
        begun: list[tuple[_Request, list[Any]]] = []
        try:
            for i, (drawn, given) in enumerate(calls):
                draws = self._draw(drawn)  # while others are at work
                request = self._requests[i % len(self._requests)]
                if i >= len(self._requests):
                    results.append(self._finish(*begun[0]))
                    del begun[0]
                request.start(self._inputs_of(draws, given))
                begun.append((request, draws))
            if len(calls) == 1:
                self._draw_ahead(calls[0][0], begun[0][1])
            results += [self._finish(*one) for one in begun]
        finally:  # an interrupted call must not leave a graph at work on buffers that the next one fills
            for request, _ in begun:
                request.wait()
        return results

    def inputs(self, drawn: Sequence[Any], given: Sequence[Any]) -> Inputs:
        """What the graph is given in that call."""
        return self._inputs_of(self._draw(drawn), given)

    def picture(self, inputs: Inputs) -> Array:
        """The largest array that the graph makes of these inputs."""
        self._requests[0].start(inputs)
        return np.array(max(self._requests[0].outputs(), key=np.size))

    def _draw(self, drawn: Sequence[Any]) -> list[Any]:
        if self._ahead is not None and self._ahead[0] == _as_bytes(drawn):
            return self._ahead[1]
        return list(self._draws(*drawn))

    def _draw_ahead(self, drawn: Sequence[Any], draws: list[Any]) -> None:
        """While the graph is at work, draws what the next step will want if nothing is changed before it."""
        if self._next_key is not None:
            following = (np.asarray(draws[self._next_key]), *drawn[1:])
            self._ahead = _as_bytes(following), list(self._draws(*following))

    def _inputs_of(self, draws: list[Any], given: Sequence[Any]) -> Inputs:
        inputs = [*draws[: self._noise], *(given[i] for i in self._inputs)]
        return [np.asarray(value).reshape(np.shape(value) or (1,)) for value in inputs]  # scalars are [1]

    def _finish(self, request: _Request, draws: list[Any]) -> Any:
        outputs = request.outputs()
        leaves = [
            np.array(outputs[place] if place >= 0 else draws[-1 - place]).reshape(shape)
            for place, shape in zip(self._results, self._shapes, strict=True)
        ]
        return jax.tree.unflatten(self._structure, leaves)


class _Request:
    """One run of a graph at a time, in buffers of its own: to hand arrays over takes longer than to copy them."""

    def __init__(self, compiled: ov.CompiledModel) -> None:
        self._request = compiled.create_infer_request()
        self._inputs = [tensor.data for tensor in self._request.input_tensors]
        self._outputs = [tensor.data for tensor in self._request.output_tensors]

    def start(self, inputs: Inputs) -> None:
        """Copies the inputs and begins."""
        for buffer, value in zip(self._inputs, inputs, strict=True):
            if buffer.shape != value.shape:
                raise ValueError(f"the graph takes {buffer.shape} here, got {value.shape}")
            np.copyto(buffer, value, casting="same_kind")
        self._request.start_async()

    def wait(self) -> None:
        """Until it isn't at work."""
        self._request.wait()

    def outputs(self) -> list[Array]:
        """What comes of it, in buffers that the next start overwrites."""
        self.wait()
        return self._outputs


def _as_bytes(arrays: Sequence[Any]) -> bytes:
    return b"".join(np.asarray(array).tobytes() for array in arrays)


class OpenVino:
    """The programs of one world.

    Args:
        world: gives the model when a graph must be made.
        about: what the world is, as bytes to be hashed: its weights and configuration.
        starts: real contexts, from which a graph is tried.
        num_actions: of the game.
        decodes: whether a step shows frames; else latents.
        streams: rows that are stepped beside each other, each by its share of the cores.
    """

    def __init__(
        self,
        world: Callable[[], Any],
        about: bytes,
        starts: Starts,
        num_actions: int,
        decodes: bool,
        streams: int = 1,
    ):
        self._world, self._about, self._starts, self._num_actions = world, about, starts, num_actions
        context = described(starts.latents.shape[1:], np.float32)
        self._shapes = DreamState(context, described(starts.actions.shape[1:], np.int32))
        self._decodes, self._streams = decodes, streams
        self._programs: dict[Any, Program] = {}

    def advance(self, carry: Carry, action: int, dials: Dials) -> Step:
        """`core.advance`, on the host."""
        return self.advance_rows([carry], [action], [dials])[0]

    def advance_rows(self, carries: Sequence[Carry], actions: Sequence[int], dials: Sequence[Dials]) -> list[Step]:
        """`core.advance` of each row; their dials differ in numbers at most."""
        steps: list[Any] = [None] * len(carries)
        kinds = [_Kind.of(dial) for dial in dials]
        for kind in sorted(set(kinds)):
            rows = [i for i, its in enumerate(kinds) if its == kind]
            calls = [_call(carries[i], actions[i], dials[i], kind.noisy) for i in rows]
            for i, step in zip(rows, self._step(dials[rows[0]], kind).rows(calls), strict=True):
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

    @property
    def steps(self) -> list[Program]:
        """The programs of steps that were made so far."""
        return [program for name, program in self._programs.items() if name.startswith("step")]

    def screen(self, state: DreamState) -> Array:
        """`core.screen`."""
        program = self._program(
            "screen", lambda world: lambda drawn, given: core.screen(world, given), (), 0, self._shapes
        )
        return program((), tuple(map(np.asarray, state)))  # type: ignore[no-any-return]

    def variables(self, state: DreamState) -> Array:
        """`core.variables`."""
        program = self._program(
            "variables", lambda world: lambda drawn, given: core.variables(world, given), (), 0, self._shapes
        )
        return program((), tuple(map(np.asarray, state)))  # type: ignore[no-any-return]

    def _step(self, dials: Dials, kind: _Kind) -> Program:
        num_steps, termination = dials.num_steps, dials.termination
        observe: core.Observe = core.screen if self._decodes else core.latent

        def stepping(world: Any) -> Any:
            def step(drawn: Any, given: Any) -> Step:
                key, temperature, *level = drawn
                state, action = given
                turned = Dials(
                    context_noise=level[0] if kind.noisy else 0.0,
                    temperature=temperature,
                    num_steps=num_steps,
                    termination=termination,
                )
                after = core.advance(world, Carry(key, state), action, turned, observe)
                return after._replace(state=(after.state.key, after.state.state.context[-1]))

            return step

        key, number = described((2,), np.uint32), described((), np.float32)
        drawn = (key, number, number) if kind.noisy else (key, number)
        name = f"step {num_steps} {termination} {kind.noisy} {kind.hot} {self._decodes}"
        leaves: Any = Step(*_STAND_INS)
        play = None if kind.hot else lambda program: self._played(program, kind.noisy)
        return self._program(name, stepping, drawn, leaves, (self._shapes, described((), np.int32)), play)

    def _played(self, program: Program, noisy: bool) -> list[Inputs]:
        """The inputs of the steps of a few dreams, of random actions, whatever the dials of who asks first."""
        rng, rows = np.random.default_rng(0), []
        for number, i in enumerate(np.linspace(0, len(self._starts.latents) - 1, _MOMENTS).astype(int)):
            temperature, level = _TRIED[number % len(_TRIED)]
            dials = Dials(temperature=temperature, context_noise=level)
            past = DreamState(self._starts.latents[i].astype(np.float32), self._starts.actions[i])
            carry = core.carry_from(jax.random.key(i), past)
            for _ in range(_MOMENT_STEPS):
                action = int(rng.integers(self._num_actions))
                call = _call(carry, action, dials, noisy)
                rows.append(program.inputs(*call))
                carry = _moved_on(program(*call), carry, action).state
        return rows

    def _program(
        self, name: str, make: Any, drawn: Any, structure: Any, given: Any, play: Play | None = None
    ) -> Program:
        if name not in self._programs:
            self._programs[name] = self._made(name, make, drawn, jax.tree.structure(structure), given, play)
        return self._programs[name]

    def _made(self, name: str, make: Any, drawn: Any, structure: Any, given: Any, play: Play | None) -> Program:
        """`play` gives inputs that a graph in integers is fitted to and judged by; without it there is none."""
        options = {"NUM_STREAMS": self._streams, "INFERENCE_NUM_THREADS": usable_cores()}
        asked = precision.asked()
        entry = hashlib.sha256(self._seed + f"{name} {options} {asked}".encode()).hexdigest()[:32] + ".openvino"
        with Note(f"preparing {name.split()[0]!r} for this CPU"):
            if (kept := cache.read(entry)) is not None and (program := _loaded(kept, structure, options)) is not None:
                return program
            found = split(make(self._world()), drawn, given)
            draws = bytes(export.export(jax.jit(found.draws))(*jax.tree.leaves(drawn)).serialize())
            chosen = precision.floats() if asked in ("auto", "i8") else asked
            parts = [draws, *_compiled(found, found.model, chosen, options)]
            program = _loaded(parts, structure, options)
            if play is not None and (asked == "i8" or (asked == "auto" and precision.integers_are_faster())):
                played = play(_there(program))
                rounded = quantised(found.model, played[::2])
                if rounded is not None:
                    others = [draws, *_compiled(found, rounded, "i8", options)]
                    other = _there(_loaded(others, structure, options))
                    if asked == "i8" or _alike(other, _there(program), played[1::2]):
                        parts, program = others, other
            cache.write(entry, parts)
        return _there(program)

    @cached_property
    def _seed(self) -> bytes:
        code = b"".join(path.read_bytes() for path in _source_files())
        versions = repr((precision.machine(), __version__, jax.__version__, np.__version__)).encode()
        starts = self._starts.latents.tobytes() + self._starts.actions.tobytes()
        return hashlib.sha256(self._about + hashlib.sha256(starts).digest() + code + versions).digest()


class _Kind(NamedTuple):
    """What a step's graph depends on beside the static dials."""

    noisy: bool  # the context is corrupted
    hot: bool  # it is drawn at a temperature that integers weren't fitted to

    @classmethod
    def of(cls, dials: Dials) -> _Kind:
        """The kind of a step with these dials."""
        return cls(bool(dials.context_noise > 0), bool(dials.temperature > _WARMEST))


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


def _compiled(found: Split, model: ov.Model, chosen: str, options: dict[str, Any]) -> list[bytes]:
    """The graph for this CPU, and what is to be known of it."""
    compiled = _core().compile_model(model, "CPU", {**options, "INFERENCE_PRECISION_HINT": _hint(chosen)})
    graph = io.BytesIO()
    compiled.export_model(graph)
    about = {
        "inputs": found.inputs,
        "noise": found.noise,
        "results": found.results,
        "shapes": found.shapes,
        "precision": chosen,
    }
    return [json.dumps(about).encode(), graph.getvalue()]


def _hint(chosen: str) -> str:
    """What OpenVINO is to compute floats in."""
    return "f32" if chosen == "i8" else chosen


def _alike(integers: Program, floats: Program, played: Sequence[Inputs]) -> bool:
    """Whether integers show the same, of inputs that they weren't fitted to."""
    pictures = [[program.picture(inputs) for inputs in played] for program in (floats, integers)]
    return peak_to_noise(*pictures) > _LEAST_PEAK


def _there(program: Program | None) -> Program:
    assert program is not None, "a graph that was just made can be loaded"
    return program


def _loaded(parts: Sequence[bytes], structure: Any, options: dict[str, Any]) -> Program | None:
    try:
        draws, about, graph = parts
        return Program(draws, graph, json.loads(about), structure, options)
    except (RuntimeError, ValueError, KeyError):  # of another version of OpenVINO or JAX, or cut short
        return None


_CORES: list[ov.Core] = []


def _core() -> ov.Core:
    if not _CORES:
        _CORES.append(ov.Core())
    return _CORES[0]


def _source_files() -> list[Path]:
    root = Path(neural_env.__file__).parent
    places = [root / source for source in _SOURCES]
    return sorted(path for place in places for path in ([place] if place.is_file() else place.glob("*.py")))
