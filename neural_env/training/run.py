"""The stages of a run, each from the files of the one before: `OUT/<stage>/weights.safetensors` and `stage.json`."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from flax import nnx
from rich.console import Console

from neural_env.checkpoint import Checkpoint, Starts, load_module, save, save_module
from neural_env.data.corpus import Corpus
from neural_env.data.episode import SPLITS, Split
from neural_env.data.mixture import Mixture
from neural_env.training.autoencoder import AutoencoderStage, fit_linear, measure_latents
from neural_env.training.decoder import DecoderStage, pairs_of, with_decoder
from neural_env.training.denoiser import DenoiserStage
from neural_env.training.latents import LatentData, Weigh, Windows, encoded, frames_at, weighed
from neural_env.training.loop import LoopConfig, Stage, finished, train
from neural_env.training.outcome import OutcomeStage, measure_variables
from neural_env.training.state import TrainState, has_state
from neural_env.version import __version__
from neural_env.world.model import PRESETS, ModelConfig, WorldModel
from neural_env.world.parameters import all_arrays, fingerprint

M = TypeVar("M", bound=nnx.Module)
STAGES = ("autoencoder", "denoiser", "outcome")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What is common to all stages of a run."""

    data: tuple[Path, ...]  # dataset folders, of one game, made by `neural-env collect`
    out: Path  # folder of the run; each stage has its own folder in it
    preset: str = "small"  # sizes of the model
    max_frames_per_dataset: int | None = None  # bounds what is read of each split, in whole shards drawn evenly
    loop: LoopConfig = field(default_factory=LoopConfig)


@dataclass(frozen=True, kw_only=True)
class AutoencoderRun(TrainConfig):
    """Train the auto-encoder."""

    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=2_600, batch=16, learning_rate=1e-3))
    max_frames: int = 60_000  # training frames held in memory, drawn evenly from the data


@dataclass(frozen=True, kw_only=True)
class DenoiserRun(TrainConfig):
    """Train the denoiser, on the latents of the run's auto-encoder."""

    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=8_000, batch=16, learning_rate=1e-3))
    mixture: Mixture = field(default_factory=lambda: Mixture(uniform=1.0))  # which training windows, how often


@dataclass(frozen=True, kw_only=True)
class DecoderRun(TrainConfig):
    """Fine-tune the decoder, on real latents and on those that the run's denoiser predicts."""

    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=2_000, batch=16, learning_rate=3e-4))
    max_frames: int = 8_000  # training frames held in memory, drawn evenly from the data


@dataclass(frozen=True, kw_only=True)
class OutcomeRun(TrainConfig):
    """Train reward, termination and variables, on the latents of the run's auto-encoder."""

    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=3_000, batch=64, learning_rate=5e-4))


def train_autoencoder(run: AutoencoderRun) -> None:
    """The first stage: frames to latents and back."""
    corpus = _corpus(run)
    world = _world(run, corpus)
    training = some_frames(corpus, "train", run.max_frames)
    stage = AutoencoderStage(training, some_frames(corpus, "validation", 512), run.loop.seed)
    module = world.autoencoder
    if not has_state(run.out / "autoencoder" / "state"):  # else the trained weights replace it anyway
        module = fit_linear(module, training[:: max(1, len(training) // 1024)])
    module, state = _run(stage, module, run)
    module = measure_latents(module, training[:: max(1, len(training) // 4096)])
    _hand_over(stage, module, run, state, corpus)


def train_denoiser(run: DenoiserRun) -> None:
    """The second stage: the next latent from the past and the action."""
    corpus = _corpus(run)
    world = _with_autoencoder(run, corpus)
    stage = DenoiserStage(world, *_windows(run, corpus, world, pictures_only=True, mixture=run.mixture))
    module, state = _run(stage, world.unet, run)
    _hand_over(stage, module, run, state, corpus)


def train_decoder(run: DecoderRun) -> None:
    """The fourth stage: better pictures of the same latents."""
    corpus = _corpus(run)
    world = _with_autoencoder(run, corpus)
    world.unet = load_module(world.unet, run.out / "denoiser" / "weights.safetensors")
    training, validation = _windows(run, corpus, world, pictures_only=True)
    pairs = pairs_of(world, corpus, "train", training, run.max_frames)
    stage = DecoderStage(
        world.autoencoder, pairs, pairs_of(world, corpus, "validation", validation, 512), run.loop.seed
    )
    module, state = _run(stage, world.autoencoder.decoder, run)
    _hand_over(stage, module, run, state, corpus, autoencoder=fingerprint(all_arrays(world.autoencoder)))


def train_outcome(run: OutcomeRun) -> None:
    """The third stage: reward, termination, variables."""
    corpus = _corpus(run)
    world = _with_autoencoder(run, corpus)
    training, validation = _windows(run, corpus, world, pictures_only=False)
    stage = OutcomeStage(training, validation)
    module, state = _run(stage, measure_variables(world.outcome, training.data), run)
    _hand_over(stage, module, run, state, corpus)


@dataclass(frozen=True, kw_only=True)
class BundleRun:
    """Assemble the stages of a run into a checkpoint that `neural_env.load` reads."""

    data: tuple[Path, ...]  # dataset folders that the run was trained on
    run: Path  # folder of the run
    out: Path  # checkpoint folder to write
    preset: str = "small"  # sizes of the model
    starts: int = 32  # real starting contexts to include, from validation episodes
    max_frames_per_dataset: int | None = None  # as in training


def bundle(config: BundleRun) -> None:
    """Writes the checkpoint; scores are added by `neural-env evaluate world --write`."""
    corpus = Corpus.open(config.data, verify=False, max_frames=config.max_frames_per_dataset)
    game, model = corpus.game, _preset(config.preset)
    world = nnx.eval_shape(lambda: WorldModel(model, game, rngs=nnx.Rngs(0)))
    for name, attribute in zip(STAGES, ("autoencoder", "unet", "outcome"), strict=True):
        module = load_module(getattr(world, attribute), config.run / name / "weights.safetensors")
        setattr(world, attribute, module)
    stages = [*STAGES, *_with_finetuned_decoder(world, config.run / "decoder")]
    latents = encoded(corpus, "validation", world.autoencoder, config.run / "latents")
    provenance = {
        "preset": config.preset,
        "data": corpus.provenance(),
        "stages": {name: json.loads((config.run / name / "stage.json").read_text()) for name in stages},
    }
    starts = _starting_contexts(latents, world.context, config.starts)
    save(Checkpoint(world, model, game, starts, provenance, {}), config.out)
    Console().print(f"bundled {config.out}")


def _with_finetuned_decoder(world: WorldModel, folder: Path) -> list[str]:
    """Gives the world the run's fine-tuned decoder, if there is one; returns the stages that this adds."""
    if not (folder / "stage.json").is_file():
        return []
    record = json.loads((folder / "stage.json").read_text())
    if record["autoencoder"] != fingerprint(all_arrays(world.autoencoder)):
        cure = f"fine-tune it again, or remove {folder}"
        raise ValueError(f"the decoder was fine-tuned from another auto-encoder than the run's: {cure}")
    decoder = load_module(world.autoencoder.decoder, folder / "weights.safetensors")
    world.autoencoder = with_decoder(world.autoencoder, decoder)
    return ["decoder"]


def some_frames(corpus: Corpus, split: Split, limit: int) -> np.ndarray:
    """At most `limit` frames of a split, spread evenly over it."""
    total = corpus.num_frames(split)
    return frames_at(corpus, split, np.arange(0, total, max(1, -(-total // limit))))


def _run(stage: Stage[M], module: M, run: TrainConfig) -> tuple[M, TrainState]:
    return train(stage, module, run.loop, run.out / stage.name)


def _hand_over(stage: Stage[M], module: M, run: TrainConfig, state: TrainState, corpus: Corpus, **parents: str) -> None:
    folder = run.out / stage.name
    save_module(module, folder / "weights.safetensors")
    record = {
        "steps": int(state.step),
        "of_steps": run.loop.steps,
        "samples": int(state.step) * run.loop.batch,
        "seed": run.loop.seed,
        "loop": asdict(run.loop),
        "data": corpus.provenance(),
        **parents,
        "code_version": __version__,
        "finished": time.strftime("%Y-%m-%d"),
    }
    (folder / "stage.json").write_text(json.dumps(record, indent=2) + "\n")
    done = "finished" if finished(state, run.loop) else "stopped early; run again to go on"
    Console().print(f"{stage.name}: {done} at step {record['steps']} of {record['of_steps']}, see {folder}")


def _corpus(run: TrainConfig) -> Corpus:
    """The run's data; training and validation episodes must be in it, in whichever dataset."""
    corpus = Corpus.open(run.data, max_frames=run.max_frames_per_dataset)
    for split in SPLITS[:2]:
        if not corpus.num_frames(split):
            raise ValueError(f"{corpus.name} has no {split} episodes: collect at least 10, seeds are split by digit")
    return corpus


def _world(run: TrainConfig, corpus: Corpus) -> WorldModel:
    return WorldModel(_preset(run.preset), corpus.game, rngs=nnx.Rngs(run.loop.seed))


def _with_autoencoder(run: TrainConfig, corpus: Corpus) -> WorldModel:
    world = _world(run, corpus)
    world.autoencoder = load_module(world.autoencoder, run.out / "autoencoder" / "weights.safetensors")
    return world


def _windows(
    run: TrainConfig, corpus: Corpus, world: WorldModel, *, pictures_only: bool, mixture: Mixture | None = None
) -> tuple[Windows, Windows]:
    """Windows of the training split, drawn as `mixture` says, and of the validation split."""

    def of(split: Split, weigh: Weigh | None) -> Windows:
        data = encoded(corpus, split, world.autoencoder, run.out / "latents")
        return Windows(data, world.context, run.loop.seed, pictures_only=pictures_only, weigh=weigh)

    weigh = weighed(mixture, corpus, "train") if mixture not in (None, Mixture(uniform=1.0)) else None
    return of("train", weigh), of("validation", None)


def _preset(name: str) -> ModelConfig:
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}; there are {sorted(PRESETS)}")
    return PRESETS[name]


def _starting_contexts(data: LatentData, context: int, count: int) -> Starts:
    firsts = data.starts[:-1][np.diff(data.starts) > context][:count]
    if not len(firsts):
        raise ValueError(f"no validation episode is longer than the context of {context} frames: collect more episodes")
    rows = firsts[:, None] + np.arange(context)
    return Starts(data.latents[rows].astype(np.float32), data.actions[rows[:, :-1]])
