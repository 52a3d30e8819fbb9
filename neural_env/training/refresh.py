"""On-policy refresh: an agent's own games teach the world it learned in, where it went and no data had been.

::

    agent --real games--> OUT/games
    world + (old data, OUT/games) --denoiser, outcome--> OUT/world

The auto-encoder stays what it is, and so do latents that are encoded already, and agents that look at them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from neural_env import checkpoint as checkpoints
from neural_env.data.collect import CollectConfig, collect
from neural_env.data.corpus import Corpus
from neural_env.training.denoiser import DenoiserStage
from neural_env.training.latents import Windows, encoded
from neural_env.training.loop import LoopConfig, train
from neural_env.training.outcome import OutcomeStage
from neural_env.world.distilled import Distilled


@dataclass(frozen=True, kw_only=True)
class RefreshConfig:
    """Let an agent play, and its world learn from that. Raises `ValueError`."""

    out: Path  # folder of the new games and the new world
    checkpoint: str  # the world to go on from: bundled, or a checkpoint folder
    data: tuple[Path, ...]  # datasets that it was trained on
    agent: Path  # folder of who plays
    episodes: int = 200  # games it plays; a tenth each are for validation and test
    first_seed: int = 2_000_000  # of these games; none of `data` should hold them: `world` plays from 1,000,000 on
    denoiser_steps: int = 2_000  # updates
    outcome_steps: int = 1_000  # updates
    learning_rate: float = 3e-4  # of both at its highest: a third of what they were trained with
    max_frames_per_dataset: int | None = None  # bounds what is read of each split of the data
    max_episode_steps: int = 525  # a game is cut off after so many steps

    def __post_init__(self) -> None:
        for name, least in (("episodes", 10), ("denoiser_steps", 1), ("outcome_steps", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")

    @property
    def games(self) -> Path:
        """The agent's games, a dataset."""
        return self.out / "games"


def refresh(config: RefreshConfig) -> Path:
    """The folder of the refreshed world; interrupted and run again, it goes on.

    Raises:
        CheckpointError, ShardError: an unusable world, agent or dataset.
        ValueError: the world is distilled, they are of different games, or there are too few of them.
        NonFiniteLoss: training diverged.
    """
    folder = config.out / "world"
    if (folder / "config.json").is_file():
        return folder
    require_teachable(config.checkpoint)
    old = checkpoints.load(config.checkpoint)
    collect(
        CollectConfig(
            out=config.games,
            scenario=old.game.scenario,
            policy=config.agent,
            episodes=config.episodes,
            first_seed=config.first_seed,
            resolution=old.game.resolution,
            frame_skip=old.game.frame_skip,
            max_episode_steps=config.max_episode_steps,
        )
    )
    corpus = Corpus.open((*config.data, config.games), max_frames=config.max_frames_per_dataset)
    checkpoints.save(_trained(config, old, corpus), folder)
    Console().print(f"refreshed world: {folder}", soft_wrap=True)
    return folder


def require_teachable(checkpoint: str) -> None:
    """Raise `ValueError` unless the world's denoiser can go on learning from data."""
    if isinstance(checkpoints.read_model(checkpoint).objective, Distilled):
        cure = "give the world that it was distilled from, which is the run bundled without its distill stage"
        raise ValueError(f"{checkpoint} is distilled and learns from its teacher alone, not from games: {cure}")


def _trained(config: RefreshConfig, old: checkpoints.Checkpoint, corpus: Corpus) -> checkpoints.Checkpoint:
    """The world after its denoiser and its outcome model have gone on learning from all of the data."""
    world = old.world
    cache = config.out / "latents"
    data = {split: encoded(corpus, split, world.autoencoder, cache) for split in ("train", "validation")}

    def windows(*, pictures_only: bool) -> tuple[Windows, Windows]:
        training, validation = (
            Windows(data[split], world.context, 0, pictures_only=pictures_only) for split in ("train", "validation")
        )
        return training, validation

    stage = DenoiserStage(world, *windows(pictures_only=True))
    loop = LoopConfig(steps=config.denoiser_steps, batch=16, learning_rate=config.learning_rate)
    world.unet, _ = train(stage, world.unet, loop, config.out / "denoiser")
    loop = LoopConfig(steps=config.outcome_steps, batch=64, learning_rate=config.learning_rate)
    outcomes = OutcomeStage(*windows(pictures_only=False), seed=0)
    outcome, _ = train(outcomes, world.outcome, loop, config.out / "outcome")
    world.outcome, _ = outcomes.calibrated(outcome)
    provenance = {
        **old.provenance,
        "data": corpus.provenance(),
        "refreshed": {"from": config.checkpoint, "agent": str(config.agent), "episodes": config.episodes},
    }
    return replace(old, world=world, provenance=provenance, scores={})
