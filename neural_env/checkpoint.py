"""Worlds on disk: a folder of safetensors and JSON, checked before it is believed.

config.json          model and game configuration, provenance, measured scores
weights.safetensors  every array of the world, in the form that config.json names; statistics float32
starts.safetensors   real starting contexts, as latents, with the actions between them
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, get_args, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError
from safetensors.flax import load_file, save_file

from neural_env import bundled
from neural_env.bundled import CONFIG as _CONFIG
from neural_env.game import GameConfig
from neural_env.version import __version__
from neural_env.world.model import ModelConfig, WorldModel
from neural_env.world.parameters import all_arrays, parameters, replaced
from neural_env.world.rounding import in_eight_bits, widened

FORMAT = "neural_env.world/1"
_WEIGHTS, _STARTS = "weights.safetensors", "starts.safetensors"
FILES = (_CONFIG, _WEIGHTS, _STARTS)
Form: TypeAlias = Literal["bfloat16", "int8"]  # of weights on disk; int8: of the kernels of what makes pictures alone
_PICTURES = ("unet.", "autoencoder.decoder.")  # the encoder stays, so that what learned from its latents still fits
HUB = "hf://"  # how the address of a world on the Hugging Face Hub begins
T = TypeVar("T")
M = TypeVar("M", bound=nnx.Module)


class CheckpointError(ValueError):
    """A checkpoint can't be used; the message says which file and why."""

    def __init__(self, path: Path | str, why: str):
        super().__init__(f"{path}: {why}")
        self.path = path


@dataclass(frozen=True)
class Starts:
    """Real starting contexts that a dream can begin from."""

    latents: np.ndarray  # [k, n, h, w, c] float32: the first n frames of k episodes
    actions: np.ndarray  # [k, n - 1] int32: the actions between them


@dataclass(frozen=True)
class Checkpoint:
    """A world with all that is known about it."""

    world: WorldModel
    model: ModelConfig
    game: GameConfig
    starts: Starts
    provenance: dict[str, Any]  # data manifest hash, seeds, steps, code version, commands
    scores: dict[str, Any]  # measured on test seeds, with the command that measured them
    form: Form = "bfloat16"


def bundled_names() -> list[str]:
    """Names of the worlds that ship with the package."""
    return sorted(path.parent.name for path in bundled.BUNDLED.glob(f"*/{_CONFIG}"))


def resolve(name_or_path: str | Path) -> Path:
    """The folder of a bundled world's name, of a path, or of a world on the Hugging Face Hub (`neural_env.hub`).

    Raises:
        CheckpointError: neither a bundled world nor a folder with a config.json, or the Hub doesn't give it.
        ImportError: the Hub is asked for and huggingface_hub isn't installed.
    """
    if str(name_or_path).startswith(HUB):
        from neural_env.hub import fetched  # which raises this file's errors

        return fetched(str(name_or_path))
    for folder in (bundled.BUNDLED / str(name_or_path), Path(name_or_path)):
        if (folder / _CONFIG).is_file():
            return folder
    why = "there is no folder of that name" if not Path(name_or_path).exists() else f"it holds no {_CONFIG}"
    raise CheckpointError(
        Path(name_or_path), f"{why}; give a folder made by `neural-env bundle` or a bundled world: {bundled_names()}"
    )


def load(name_or_path: str | Path) -> Checkpoint:
    """Loads a world by bundled name ("take_cover"), by folder, or from the Hugging Face Hub ("hf://owner/name").

    Raises:
        CheckpointError: missing, damaged or foreign files.
    """
    folder = resolve(name_or_path)
    config = read_config(folder)
    model, game = _parsed(ModelConfig, config, "model", folder), _parsed(GameConfig, config, "game", folder)
    try:
        world = nnx.eval_shape(lambda: WorldModel(model, game, rngs=nnx.Rngs(0)))
    except Exception as error:  # sizes that make no network fail in a dozen ways
        raise CheckpointError(folder / _CONFIG, f"it describes no model ({error}): restore the file") from error
    world = fitted(world, _arrays(folder / _WEIGHTS), folder / _WEIGHTS)
    starts = _starts(folder / _STARTS, model, world.latent_shape)
    return Checkpoint(world, model, game, starts, config["provenance"], config["scores"], config["weights"])


def load_starts(name_or_path: str | Path) -> Starts:
    """The starting contexts of a world, without its weights.

    Raises:
        CheckpointError: missing, damaged or foreign files.
    """
    folder = resolve(name_or_path)
    model, game = read_model(folder), read_game(folder)
    return _starts(folder / _STARTS, model, (*model.autoencoder.grid(game.resolution), model.autoencoder.channels))


def fingerprint(name_or_path: str | Path) -> bytes:
    """sha256 of all that decides what a world dreams: its configuration and the file of its weights.

    Raises:
        CheckpointError: missing files, or a foreign configuration.
    """
    folder = resolve(name_or_path)
    config = read_config(folder)
    digest = hashlib.sha256(json.dumps([config["model"], config["game"]], sort_keys=True).encode())
    try:
        digest.update((folder / _WEIGHTS).read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(folder / _WEIGHTS, "it is missing: the checkpoint is incomplete, restore it") from error
    return digest.digest()


def read_config(folder: Path) -> dict[str, Any]:
    """The checked config.json of a world, without its weights.

    Raises:
        CheckpointError: not JSON, or not of this format.
    """
    path = folder / _CONFIG
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(path, f"it is not JSON ({error}): restore the file") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise CheckpointError(path, f"its format is {found!r}, this version reads {FORMAT!r}")
    if missing := sorted({"model", "game", "provenance", "scores"} - config.keys()):
        raise CheckpointError(path, f"it lacks {missing}: restore the file")
    if (form := config.setdefault("weights", "bfloat16")) not in get_args(Form):
        raise CheckpointError(path, f"its weights are in {form!r}, this version reads {get_args(Form)}")
    return _up_to_date(config)


def read_game(name_or_path: str | Path) -> GameConfig:
    """The game that a world dreams, without loading weights or starting JAX."""
    folder = resolve(name_or_path)
    return _parsed(GameConfig, read_config(folder), "game", folder)


def read_model(name_or_path: str | Path) -> ModelConfig:
    """The sizes of a world, without loading weights or starting JAX."""
    folder = resolve(name_or_path)
    return _parsed(ModelConfig, read_config(folder), "model", folder)


def save(checkpoint: Checkpoint, folder: Path) -> None:
    """Writes a world; config.json comes last, so that a folder cut short is no checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _CONFIG).unlink(missing_ok=True)  # of a world that lay there
    _replace_with(folder / _WEIGHTS, lambda path: save_file(_weights(checkpoint), path))
    starts = {
        "latents": jnp.asarray(checkpoint.starts.latents, jnp.float16),
        "actions": jnp.asarray(checkpoint.starts.actions, jnp.int32),
    }
    _replace_with(folder / _STARTS, lambda path: save_file(starts, path))
    _write_config(checkpoint, folder)


def _weights(checkpoint: Checkpoint) -> dict[str, jax.Array]:
    """The arrays as they lie on disk."""
    learned = parameters(checkpoint.world)
    kept: dict[str, jax.Array] = {}
    for name, array in all_arrays(checkpoint.world).items():
        if checkpoint.form == "int8" and name.startswith(_PICTURES) and name.endswith(".kernel"):
            kept |= {key: jnp.asarray(part) for key, part in in_eight_bits(name, np.asarray(array)).items()}
        else:
            kept[name] = array.astype(jnp.bfloat16) if name in learned else array
    return kept


def write_scores(checkpoint: Checkpoint, folder: Path) -> None:
    """Replaces a saved world's scores by those of `checkpoint`, its weights left as they are."""
    _write_config(checkpoint, folder)


def _write_config(checkpoint: Checkpoint, folder: Path) -> None:
    config = {
        "format": FORMAT,
        "weights": checkpoint.form,
        "model": asdict(checkpoint.model),
        "game": asdict(checkpoint.game),
        "provenance": {"code_version": __version__, **checkpoint.provenance},
        "scores": checkpoint.scores,
    }
    _replace_with(folder / _CONFIG, lambda path: path.write_text(json.dumps(config, indent=2) + "\n"))


def as_kept(module: M) -> M:
    """The module as `save` keeps it in a world of bfloat16: what is learned is rounded to that."""
    learned = parameters(module).items()
    return replaced(module, {name: array.astype(jnp.bfloat16).astype(jnp.float32) for name, array in learned})


def save_module(module: nnx.Module, path: Path) -> None:
    """Writes one module's arrays, exactly, atomically: what a training stage hands to the next."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace_with(path, lambda temporary: save_file(all_arrays(module), temporary))


def load_module(module: M, path: Path) -> M:
    """The module with the arrays of `save_module`.

    Raises:
        CheckpointError: missing, damaged, or of a module of another shape.
    """
    if not path.is_file():
        raise CheckpointError(path, f"it is missing: run the {path.parent.name} stage first")
    return fitted(module, _arrays(path), path)


def _replace_with(path: Path, write: Any) -> None:
    temporary = path.with_name(path.name + ".tmp")
    write(temporary)
    temporary.replace(path)


def _arrays(path: Path) -> dict[str, jax.Array]:
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise CheckpointError(path, "it is missing: the checkpoint is incomplete, restore it") from error
    except (SafetensorError, ValueError, TypeError) as error:
        raise CheckpointError(path, f"it is damaged ({error}): restore it") from error


def fitted(module: M, arrays: Mapping[str, jax.Array], path: Path) -> M:
    """The module with all of its arrays replaced by those of `path`; raises `CheckpointError` if they don't fit."""
    expected = all_arrays(module)
    try:  # by NumPy: JAX would compile a conversion for every shape, which takes longer than all the rest
        arrays = {name: jnp.asarray(array) for name, array in widened(_on_host(arrays)).items()}
    except ValueError as error:
        raise CheckpointError(path, f"it is damaged ({error}): restore it") from error
    if missing := sorted(expected.keys() - arrays.keys()):
        lacks = f"it lacks {missing[0]!r} ({len(missing)} arrays missing)"
        raise CheckpointError(path, f"{lacks}: it is of another model; give the preset it was trained with")
    try:
        return replaced(module, arrays)
    except ValueError as error:
        raise CheckpointError(path, f"it doesn't fit the configuration: {error}") from error


def _on_host(arrays: Mapping[str, jax.Array]) -> dict[str, np.ndarray]:
    return {name: np.asarray(array) for name, array in arrays.items()}


def _starts(path: Path, model: ModelConfig, latent_shape: tuple[int, ...]) -> Starts:
    arrays = _arrays(path)
    latents, actions = arrays.get("latents"), arrays.get("actions")
    n = model.unet.context
    if latents is None or actions is None:
        raise CheckpointError(path, f"it must hold 'latents' and 'actions', it holds {sorted(arrays)}")
    if latents.shape[1:] != (n, *latent_shape) or actions.shape != (len(latents), n - 1):
        raise CheckpointError(
            path, f"shapes {latents.shape}, {actions.shape} don't fit the configuration's context {n}"
        )
    return Starts(np.asarray(latents, np.float32), np.asarray(actions, np.int32))


def _parsed(kind: type[T], config: dict[str, Any], key: str, folder: Path) -> T:
    try:
        return from_json(kind, config[key])
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise CheckpointError(folder / _CONFIG, f"its {key!r} is not a {kind.__name__}: {error}") from error


def from_json(kind: type[T], values: dict[str, Any]) -> T:
    """Builds a (nested, frozen) configuration dataclass from JSON values.

    Raises:
        TypeError: a field is unknown or missing.
    """
    hints = get_type_hints(kind)
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(values.keys() - known):
        raise TypeError(f"unknown fields {unknown}")
    return kind(**{name: _converted(hints[name], value) for name, value in values.items()})


def _converted(hint: Any, value: Any) -> Any:
    if variants := [kind for kind in get_args(hint) if is_dataclass(kind)]:
        if not isinstance(value, dict):
            raise TypeError(f"expected an object that names its kind, got {value!r}")
        return from_json(_variant(variants, value.get("kind")), value)
    if is_dataclass(hint) and isinstance(hint, type):
        return from_json(hint, value)
    return _tuples(value)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _variant(variants: list[Any], kind: Any) -> Any:
    """The one of several configurations that calls itself so."""
    by_kind = {next(f.default for f in fields(variant) if f.name == "kind"): variant for variant in variants}
    if kind not in by_kind:
        raise TypeError(f"unknown kind {kind!r}, there are {sorted(map(str, by_kind))}")
    return by_kind[kind]


def _up_to_date(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration as versions up to 0.1.0 wrote it, which knew one objective and one outcome model, in today's."""
    model = config["model"]
    if not isinstance(model, dict) or "noise" not in model:
        return config
    named = {"objective": ("edm", model["noise"]), "outcome": ("points", model.get("outcome", {}))}
    rest = {name: value for name, value in model.items() if name != "noise"}
    today = {name: {"kind": kind, **sizes} for name, (kind, sizes) in named.items() if isinstance(sizes, dict)}
    return config | {"model": {**rest, **today}}
