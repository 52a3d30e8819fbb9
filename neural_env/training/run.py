"""The stages of a run, each from the files of the one before: `OUT/<stage>/weights.safetensors` and `stage.json`."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from flax import nnx
from rich.console import Console

from neural_env.checkpoint import Checkpoint, Starts, fitted, from_json, load, load_module, save, save_module
from neural_env.data.corpus import Corpus
from neural_env.data.episode import SPLITS, Split
from neural_env.data.mixture import EVENLY, Mixture
from neural_env.data.shards import write_whole
from neural_env.evaluation.calibration import plot_reliability
from neural_env.training.autoencoder import AutoencoderStage, fit_linear, measure_latents
from neural_env.training.danger import DangerStage, danger_of, latents_of
from neural_env.training.decoder import DecoderStage, pairs_of, with_decoder
from neural_env.training.denoiser import DenoiserStage
from neural_env.training.distill import DistillConfig, DistillStage
from neural_env.training.latents import LatentData, Weigh, Windows, encoded, frames_at, weighed
from neural_env.training.loop import Batch, LoopConfig, Stage, finished, train
from neural_env.training.outcome import OutcomeStage, measured
from neural_env.training.presets import label_of, model_of
from neural_env.training.rollout import HORIZONS, RolloutConfig, RolloutStage
from neural_env.training.sampler import SamplerConfig, choice_of, scored
from neural_env.training.state import TrainState, has_state
from neural_env.version import __version__
from neural_env.world.conditioning import ContextNoise
from neural_env.world.diffusion import EDM
from neural_env.world.model import ModelConfig, WorldModel, distilled
from neural_env.world.parameters import all_arrays, fingerprint, replaced
from neural_env.world.unet import UNet

M = TypeVar("M", bound=nnx.Module)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What is common to all stages of a run."""

    data: tuple[Path, ...]  # dataset folders, of one game, made by `neural-env collect`
    out: Path  # folder of the run; each stage has its own folder in it
    preset: str = "small"  # the model: a preset, or a .json file of what differs from one
    max_frames_per_dataset: int | None = None  # bounds what is read of each split, in whole shards drawn evenly
    loop: LoopConfig = field(default_factory=LoopConfig)


@dataclass(frozen=True, kw_only=True)
class FreshRun(TrainConfig):
    """What is common to the stages that needn't begin with what another stage trained."""

    init_from: str | None = None  # begin with the weights of this run's folder, checkpoint or bundled world


@dataclass(frozen=True, kw_only=True)
class AutoencoderRun(FreshRun):
    """Train the auto-encoder."""

    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=2_600, batch=16, learning_rate=1e-3))
    max_frames: int = 60_000  # training frames held in memory, drawn evenly from the data


@dataclass(frozen=True, kw_only=True)
class DenoiserRun(FreshRun):
    """Train the denoiser, on the latents of the run's auto-encoder."""

    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=8_000, batch=16, learning_rate=1e-3))
    mixture: Mixture = EVENLY  # which training windows, how often
    noise: ContextNoise = field(default_factory=ContextNoise)  # by which the past is corrupted


@dataclass(frozen=True, kw_only=True)
class RolloutRun(TrainConfig):
    """Train the run's denoiser on, after frames that it dreamed itself."""

    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=1_500, batch=4, learning_rate=2e-4))
    mixture: Mixture = EVENLY  # which training windows, how often
    rollout: RolloutConfig = field(default_factory=RolloutConfig)


@dataclass(frozen=True, kw_only=True)
class DistillRun(TrainConfig):
    """Distil the run's denoiser, as its last stage left it, to one step."""

    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=2_000, batch=16, learning_rate=2e-4))
    mixture: Mixture = EVENLY  # which training windows, how often
    distill: DistillConfig = field(default_factory=DistillConfig)


@dataclass(frozen=True, kw_only=True)
class SamplerRun:
    """Choose, on validation windows, the noise levels at which a few steps are made; nothing is learnt."""

    data: tuple[Path, ...]  # dataset folders that the run was trained on
    out: Path  # folder of the run
    preset: str = "small"  # the model: a preset, or a .json file of what differs from one
    max_frames_per_dataset: int | None = None  # as in training
    sampler: SamplerConfig = field(default_factory=SamplerConfig)


@dataclass(frozen=True, kw_only=True)
class DecoderRun(TrainConfig):
    """Fine-tune the decoder, on real latents and on those that the run's denoiser predicts."""

    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=2_000, batch=16, learning_rate=3e-4))
    max_frames: int = 8_000  # training frames held in memory, drawn evenly from the data


@dataclass(frozen=True, kw_only=True)
class OutcomeRun(FreshRun):
    """Train reward, termination and variables, on the latents of the run's auto-encoder."""

    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=3_000, batch=64, learning_rate=5e-4))


@dataclass(frozen=True, kw_only=True)
class DangerRun(TrainConfig):
    """Learn how soon the player is hurt, on the latents of the run's auto-encoder: for agents that dream."""

    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=2_500, batch=64, learning_rate=1e-3))


def train_autoencoder(run: AutoencoderRun) -> None:
    """The first stage: frames to latents and back."""
    corpus = _corpus(run)
    world = _world(run, corpus)
    training = some_frames(corpus, "train", run.max_frames)
    stage = AutoencoderStage(training, some_frames(corpus, "validation", 512), run.loop.seed)
    module = _begun(run, "autoencoder", world.autoencoder)
    if run.init_from is None and not has_state(
        run.out / "autoencoder" / "state"
    ):  # else the weights are replaced anyway
        count = _FITTED_PIXELS // (corpus.game.resolution[0] * corpus.game.resolution[1])
        module = fit_linear(module, training[:: max(1, len(training) // count)])
    module, state = _run(stage, module, run)
    if int(state.step):  # one that was only handed on keeps its latents, to the last bit
        module = measure_latents(module, training[:: max(1, len(training) // 4096)])
    _hand_over(stage, module, run, state, corpus, **_origin(run))


def train_denoiser(run: DenoiserRun) -> None:
    """The second stage: the next latent from the past and the action."""
    corpus = _corpus(run)
    world = _with_autoencoder(run, corpus)
    model = _trained_as(model_of(run.preset))
    parents = _begun_from(run.out / DenoiserStage.name, model, autoencoder=world.autoencoder)
    stage = DenoiserStage(world, *_windows(run, corpus, world, pictures_only=True, mixture=run.mixture), run.noise)
    module, state = _run(stage, _begun(run, "unet", world.unet), run)
    made = {"model": model, "mixture": asdict(run.mixture), "noise": asdict(run.noise)}
    _hand_over(stage, module, run, state, corpus, **made, **parents, **_origin(run))


def train_rollout(run: RolloutRun) -> None:
    """The denoiser's last part: the same, after frames of its own."""
    corpus = _corpus(run)
    world = _with_autoencoder(run, corpus)
    world.unet, _ = _denoiser(world, model_of(run.preset), run.out, ())
    training, _ = _windows(run, corpus, world, pictures_only=True, mixture=run.mixture, ahead=run.rollout.frames)
    stage = RolloutStage(world, training, _horizons(run, corpus, world), run.rollout, _noise(run.out))
    parents = _begun_from(run.out / stage.name, autoencoder=world.autoencoder, parent=world.unet)
    module, state = _run(stage, world.unet, run)
    _hand_over(stage, module, run, state, corpus, mixture=asdict(run.mixture), **parents)


def train_distill(run: DistillRun) -> None:
    """The denoiser in one step."""
    corpus = _corpus(run)
    world = _with_autoencoder(run, corpus)
    world.unet, _ = _denoiser(world, model_of(run.preset), run.out, ("rollout",))
    windows = _windows(run, corpus, world, pictures_only=True, mixture=run.mixture)
    stage = DistillStage(world, *windows, run.distill, _noise(run.out))
    parents = _begun_from(run.out / stage.name, autoencoder=world.autoencoder, parent=world.unet)
    module, state = _run(stage, world.unet, run)
    _hand_over(stage, module, run, state, corpus, mixture=asdict(run.mixture), **parents)


def choose_sampler(run: SamplerRun) -> None:
    """The levels of the run's denoiser's few steps; `bundle` takes them."""
    common = TrainConfig(
        data=run.data, out=run.out, preset=run.preset, max_frames_per_dataset=run.max_frames_per_dataset
    )
    corpus = _corpus(common)
    world = _with_autoencoder(common, corpus)
    world.unet, _ = _denoiser(world, model_of(run.preset), run.out, ("rollout",))
    _, validation = _windows(common, corpus, world, pictures_only=True)
    scores = scored(world, validation, run.sampler)
    folder = run.out / "sampler"
    folder.mkdir(parents=True, exist_ok=True)
    written = {
        **choice_of(scores, run.sampler),
        "parent": fingerprint(all_arrays(world.unet)),
        "autoencoder": fingerprint(all_arrays(world.autoencoder)),
        "code_version": __version__,
    }
    write_whole(folder / "stage.json", (json.dumps(written, indent=2) + "\n").encode())
    for score in scores:
        Console().print("  ".join(f"{name} {value:.4g}" for name, value in score._asdict().items()))
    Console().print(
        f"sampler: {run.sampler.num_steps} steps, the last at {scores[0].sigma_last}, see {folder}", soft_wrap=True
    )


def train_decoder(run: DecoderRun) -> None:
    """Better pictures of the same latents."""
    corpus = _corpus(run)
    world, _, _ = _with_denoiser(_with_autoencoder(run, corpus), model_of(run.preset), corpus, run.out)
    parents = _begun_from(run.out / DecoderStage.name, autoencoder=world.autoencoder, denoiser=world.unet)
    training, validation = _windows(run, corpus, world, pictures_only=True)
    pairs = pairs_of(world, corpus, "train", training, run.max_frames)
    stage = DecoderStage(
        world.autoencoder, pairs, pairs_of(world, corpus, "validation", validation, 512), run.loop.seed
    )
    module, state = _run(stage, world.autoencoder.decoder, run)
    _hand_over(stage, module, run, state, corpus, **parents)


def train_outcome(run: OutcomeRun) -> None:
    """Reward, termination, variables."""
    corpus = _corpus(run)
    world = _with_autoencoder(run, corpus)
    parents = _begun_from(run.out / OutcomeStage.name, autoencoder=world.autoencoder)
    training, validation = _windows(run, corpus, world, pictures_only=False)
    stage = OutcomeStage(training, validation, run.loop.seed)
    module, state = _run(stage, _begun(run, "outcome", measured(world.outcome, training.data)), run)
    calibration = None
    if int(state.step):  # one that was only handed on foretells what it did
        module, calibration = stage.calibrated(module)
    title = f"termination on validation data, step {int(state.step)}" + (", calibrated" if calibration else "")
    try:
        plot_reliability(stage.reliability(module), run.out / stage.name / "reliability.png", title=title)
    except ImportError as error:  # a machine that trains needn't draw
        Console().print(f"there is no reliability.png: {error}")
    made = {"calibration": calibration and calibration._asdict()}
    _hand_over(stage, module, run, state, corpus, **made, **parents, **_origin(run))


def train_danger(run: DangerRun) -> None:
    """How soon the player is hurt: no part of a world, but of what its agents are paid."""
    corpus = _corpus(run)
    names = corpus.game.variable_names
    if "health" not in names:
        raise ValueError(f"danger is read off the variable health; {corpus.name} has {names}: collect it with health")
    world = _with_autoencoder(run, corpus)
    parents = _begun_from(run.out / DangerStage.name, autoencoder=world.autoencoder)
    training, validation = _windows(run, corpus, world, pictures_only=False)
    stage = DangerStage(training, validation, names.index("health"), run.loop.seed)
    module, state = _run(stage, danger_of(world, run.loop.seed), run)
    _hand_over(stage, module, run, state, corpus, encoder=latents_of(world), **parents)


@dataclass(frozen=True, kw_only=True)
class BundleRun:
    """Assemble the stages of a run into a checkpoint that `neural_env.load` reads."""

    data: tuple[Path, ...]  # dataset folders that the run was trained on
    run: Path  # folder of the run
    out: Path  # checkpoint folder to write
    preset: str = "small"  # the model: a preset, or a .json file of what differs from one
    starts: int = 32  # real starting contexts to include, from validation episodes
    max_frames_per_dataset: int | None = None  # as in training


def bundle(config: BundleRun) -> None:
    """Writes the checkpoint; scores are added by `neural-env evaluate world --write`."""
    corpus = Corpus.open(config.data, verify=False, max_frames=config.max_frames_per_dataset)
    game, model = corpus.game, model_of(config.preset)
    world = nnx.eval_shape(lambda: WorldModel(model, game, rngs=nnx.Rngs(0)))
    for name in ("autoencoder", "outcome"):
        setattr(world, name, load_module(getattr(world, name), config.run / name / "weights.safetensors"))
    _check_parents(config.run / "outcome", autoencoder=world.autoencoder)
    world, model, stages = _with_denoiser(world, model, corpus, config.run)
    stages = ["autoencoder", *stages, "outcome", *_with_finetuned_decoder(world, config.run / "decoder")]
    latents = encoded(corpus, "validation", world.autoencoder, config.run / "latents")
    provenance = {
        "preset": label_of(config.preset),
        "data": corpus.provenance(),
        "stages": {name: json.loads((config.run / name / "stage.json").read_text()) for name in stages},
    }
    starts = _starting_contexts(latents, world.context, config.starts)
    save(Checkpoint(world, model, game, starts, provenance, {}), config.out)
    Console().print(f"bundled {config.out}", soft_wrap=True)


def _with_denoiser(
    world: WorldModel, model: ModelConfig, corpus: Corpus, folder: Path
) -> tuple[WorldModel, ModelConfig, list[str]]:
    """The world with the denoiser of the run's last stage, its configuration, and the stages that made the denoiser."""
    unet, stages = _denoiser(world, model, folder, ("rollout", "distill"))
    choice = folder / "sampler" / "stage.json"
    if "distill" not in stages and choice.is_file():
        _check_parents(choice.parent, autoencoder=world.autoencoder)
        model = _with_sampler(model, unet, choice)
        world.objective, world.num_steps = model.objective, model.num_steps
        stages.append("sampler")
    if "distill" in stages:
        model = distilled(model)
        student = nnx.eval_shape(lambda: WorldModel(model, corpus.game, rngs=nnx.Rngs(0)))
        learned = all_arrays(unet)
        unet = replaced(student.unet, {name: learned[name] for name in all_arrays(student.unet)})
        student.autoencoder, student.outcome = world.autoencoder, world.outcome
        world = student
    world.unet = unet
    return world, model, stages


def _with_sampler(model: ModelConfig, unet: UNet, path: Path) -> ModelConfig:
    """The configuration with the levels and steps chosen for this denoiser."""
    choice = json.loads(path.read_text())
    if choice["parent"] != fingerprint(all_arrays(unet)):
        cure = f"choose it again, or remove {path.parent}"
        raise ValueError(f"the sampler was chosen for other weights than the run's denoiser has: {cure}")
    assert isinstance(model.objective, EDM)
    objective = replace(model.objective, sigma_last=choice["sigma_last"], eta=choice["eta"])
    return replace(model, objective=objective, num_steps=choice["num_steps"])


def _denoiser(world: WorldModel, model: ModelConfig, folder: Path, later: tuple[str, ...]) -> tuple[UNet, list[str]]:
    """The run's denoiser after those `later` stages that it went through, and the names of its stages.

    Raises:
        ValueError: it was trained as another model, on another auto-encoder's latents than the world's, or a later
            stage began from other weights than the one before it left.
    """
    unet, stages = load_module(world.unet, folder / "denoiser" / "weights.safetensors"), ["denoiser"]
    trained = json.loads((folder / "denoiser" / "stage.json").read_text()).get("model")
    if trained is not None:
        _check_model(folder / "denoiser", trained, _trained_as(model))
    _check_parents(folder / "denoiser", autoencoder=world.autoencoder)
    for name in later:
        if (folder / name / "stage.json").is_file():
            _check_parents(folder / name, autoencoder=world.autoencoder)
            record = json.loads((folder / name / "stage.json").read_text())
            if record["parent"] != fingerprint(all_arrays(unet)):
                cure = f"run it again in an empty folder, or remove {folder / name}"
                raise ValueError(f"the {name} stage began from other weights than the {stages[-1]} stage left: {cure}")
            unet = load_module(unet, folder / name / "weights.safetensors")
            stages.append(name)
    return unet, stages


def _begun_from(folder: Path, model: dict[str, Any] | None = None, **parts: nnx.Module) -> dict[str, str]:
    """Fingerprints of what a stage begins from, for its record; written down so that it goes on from nothing else.

    Raises:
        ValueError: the folder holds a training that began from others, or as another `model`.
    """
    path, parents = folder / "parents.json", _fingerprints(parts)
    begun: dict[str, Any] = parents if model is None else {**parents, "model": model}
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, (json.dumps(begun, indent=2) + "\n").encode())
    found = json.loads(path.read_text())
    if model is not None and "model" in found:
        _check_model(folder, found.pop("model"), model)
    if found != parents:
        cure = "remove that folder to begin anew"
        raise ValueError(f"{folder} holds a training that began from other weights than the run has now: {cure}")
    return parents


def _trained_as(model: ModelConfig) -> dict[str, Any]:
    """What the denoiser's weights depend on, as JSON has it: not the levels and steps that are chosen afterwards."""
    objective = model.objective
    if isinstance(objective, EDM):
        objective = replace(objective, sigma_last=None, eta=0.0)
    trained: dict[str, Any] = json.loads(json.dumps({"unet": asdict(model.unet), "objective": asdict(objective)}))
    return trained


def _check_model(folder: Path, trained: dict[str, Any], now: dict[str, Any]) -> None:
    """Weights may fit a model that they were not trained as: one of another objective.

    Raises:
        ValueError: they were trained as another one.
    """
    then = _trained_as(from_json(ModelConfig, trained))  # with the defaults of fields that there weren't
    if then == now:
        return
    fields = [f"{part}.{name}" for part in now for name in now[part] if then[part].get(name) != now[part][name]]
    cure = "give the --preset that it was trained with, or remove that folder"
    raise ValueError(f"the denoiser in {folder} was trained with another {', '.join(fields)}: {cure}")


def _noise(folder: Path) -> ContextNoise:
    """By which the past was corrupted when the run's denoiser was trained."""
    return from_json(ContextNoise, json.loads((folder / "denoiser" / "stage.json").read_text()).get("noise", {}))


def _check_parents(folder: Path, **parts: nnx.Module) -> None:
    """Compares what a stage began from, as far as its record tells, with what the run has.

    Raises:
        ValueError: it began from others.
    """
    record = json.loads((folder / "stage.json").read_text())
    for part, now in _fingerprints(parts).items():
        if record.get(part, now) != now:
            cure = f"remove {folder} and run the stage again"
            raise ValueError(f"the {folder.name} stage began from another {part} than the run has now: {cure}")


def _fingerprints(parts: dict[str, nnx.Module]) -> dict[str, str]:
    return {name: fingerprint(all_arrays(part)) for name, part in parts.items()}


def _with_finetuned_decoder(world: WorldModel, folder: Path) -> list[str]:
    """Gives the world the run's fine-tuned decoder, if there is one; returns the stages that this adds."""
    if not (folder / "stage.json").is_file():
        return []
    _check_parents(folder, autoencoder=world.autoencoder, denoiser=world.unet)
    decoder = load_module(world.autoencoder.decoder, folder / "weights.safetensors")
    world.autoencoder = with_decoder(world.autoencoder, decoder)
    return ["decoder"]


def some_frames(corpus: Corpus, split: Split, limit: int) -> np.ndarray:
    """At most `limit` frames of a split, spread evenly over it."""
    total = corpus.num_frames(split)
    return frames_at(corpus, split, np.arange(0, total, max(1, -(-total // limit))))


_FITTED_PIXELS = 1024 * 120 * 160  # of the frames that the linear path is fitted on: 20 million


def _begun(run: FreshRun, part: str, module: M) -> M:
    """The module with the weights that `run.init_from` has of that part of a world; without one, as it is."""
    if run.init_from is None:
        return module
    stage = {"unet": "denoiser"}.get(part, part)
    weights = Path(run.init_from) / stage / "weights.safetensors"
    if weights.is_file():
        return load_module(module, weights)
    arrays = all_arrays(getattr(load(run.init_from).world, part))
    return fitted(module, arrays, Path(run.init_from))


def _origin(run: FreshRun) -> dict[str, str]:
    return {} if run.init_from is None else {"init_from": run.init_from}


def _run(stage: Stage[M], module: M, run: TrainConfig) -> tuple[M, TrainState]:
    return train(stage, module, run.loop, run.out / stage.name)


def _hand_over(stage: Stage[M], module: M, run: TrainConfig, state: TrainState, corpus: Corpus, **more: Any) -> None:
    folder = run.out / stage.name
    save_module(module, folder / "weights.safetensors")
    record = {
        "steps": int(state.step),
        "of_steps": run.loop.steps,
        "samples": int(state.step) * run.loop.batch,
        "seed": run.loop.seed,
        "loop": asdict(run.loop),
        "data": corpus.provenance(),
        **more,
        "code_version": __version__,
        "finished": time.strftime("%Y-%m-%d"),
    }
    write_whole(folder / "stage.json", (json.dumps(record, indent=2) + "\n").encode())
    done = "finished" if finished(state, run.loop) else "stopped early; run again to go on"
    Console().print(
        f"{stage.name}: {done} at step {record['steps']} of {record['of_steps']}, see {folder}", soft_wrap=True
    )


def _corpus(run: TrainConfig) -> Corpus:
    """The run's data; training and validation episodes must be in it, in whichever dataset."""
    corpus = Corpus.open(run.data, max_frames=run.max_frames_per_dataset)
    for split in SPLITS[:2]:
        if not corpus.num_frames(split):
            raise ValueError(f"{corpus.name} has no {split} episodes: collect at least 10, seeds are split by digit")
    return corpus


def _world(run: TrainConfig, corpus: Corpus) -> WorldModel:
    return WorldModel(model_of(run.preset), corpus.game, rngs=nnx.Rngs(run.loop.seed))


def _with_autoencoder(run: TrainConfig, corpus: Corpus) -> WorldModel:
    world = _world(run, corpus)
    world.autoencoder = load_module(world.autoencoder, run.out / "autoencoder" / "weights.safetensors")
    return world


def _windows(
    run: TrainConfig,
    corpus: Corpus,
    world: WorldModel,
    *,
    pictures_only: bool,
    mixture: Mixture | None = None,
    ahead: int = 1,
) -> tuple[Windows, Windows]:
    """Windows of the training split, drawn as `mixture` says and going on for `ahead` frames, and of validation."""

    def of(split: Split, weigh: Weigh | None, ahead: int) -> Windows:
        data = encoded(corpus, split, world.autoencoder, run.out / "latents")
        return Windows(data, world.context, run.loop.seed, pictures_only=pictures_only, weigh=weigh, ahead=ahead)

    weigh = weighed(mixture, corpus, "train") if mixture not in (None, EVENLY) else None
    return of("train", weigh, ahead), of("validation", None, 1)


def _horizons(run: RolloutRun, corpus: Corpus, world: WorldModel) -> list[Batch]:
    """Validation windows that go on for as many of the steps of interest as the episodes last."""
    data = encoded(corpus, "validation", world.autoencoder, run.out / "latents")
    long_enough = (steps for steps in reversed(HORIZONS) if len(data.windows(world.context, steps + 1)))
    ahead = next(long_enough, run.rollout.frames)
    return Windows(data, world.context, 0, pictures_only=True, ahead=ahead).evenly(16, 4)


def _starting_contexts(data: LatentData, context: int, count: int) -> Starts:
    firsts = data.starts[:-1][np.diff(data.starts) > context][:count]
    if not len(firsts):
        raise ValueError(f"no validation episode is longer than the context of {context} frames: collect more episodes")
    rows = firsts[:, None] + np.arange(context)
    return Starts(data.latents[rows].astype(np.float32), data.actions[rows[:, :-1]])
