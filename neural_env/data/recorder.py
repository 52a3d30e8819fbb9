"""Recording a run whose episodes nobody has counted beforehand: a learning agent's, from its first to its best.

::

    game = GameConfig("take_cover", ...)
    with Recorder(folder, game, policy="ppo", signal_names=SIGNALS) as recorder:
        recorder.add(episode)
        ...
        recorder.flush()  # and save recorder.count in the run's checkpoint

Whole shards are written as they fill up. A killed run loses the episodes since the last `flush`, no others. To go on
from a checkpoint, open the recorder again and `truncate_to` the count that the checkpoint holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from neural_env.data.card import write_card
from neural_env.data.episode import SPLITS, Episode, Split
from neural_env.data.shards import (
    MANIFEST,
    TEMPORARY,
    Manifest,
    Shard,
    load_index,
    load_manifest,
    read_numbered,
    save_manifest,
    write_shard,
)
from neural_env.game import GameConfig
from neural_env.version import __version__

BUFFER_BYTES = 2**28  # frames held in memory before a shard is written, full or not


class Recorder:
    """Appends episodes to a dataset, new or finished.

    Args:
        folder: of the dataset; made if missing. One recorder at a time.
        game: what is played; a dataset that is there already must be of the same.
        policy: who plays, for the manifest.
        signal_names: the columns of the episodes' signals, `data.vizdoom.SIGNALS` for Doom.
        episodes_per_shard: how many episodes share a file, at most.
        max_episode_steps: after how many steps the run cuts its episodes off; None if it doesn't.
        command: the command line that makes the dataset, for its card.

    Raises:
        ValueError: the folder holds another game, or a collection that isn't finished.
        ShardError: the folder's manifest or an index can't be read.
    """

    def __init__(
        self,
        folder: Path | str,
        game: GameConfig,
        *,
        policy: str,
        signal_names: Sequence[str] = (),
        episodes_per_shard: int = 16,
        max_episode_steps: int | None = None,
        command: str = "",
    ) -> None:
        if episodes_per_shard < 1:
            raise ValueError(f"episodes_per_shard must be at least 1, got {episodes_per_shard}")
        self.folder = Path(folder)
        self._per_shard = episodes_per_shard
        self.folder.mkdir(parents=True, exist_ok=True)
        self._manifest = self._begun(
            Manifest(
                scenario=game.scenario,
                action_names=game.action_names,
                variable_names=game.variable_names,
                signal_names=tuple(signal_names),
                resolution=game.resolution,
                frame_skip=game.frame_skip,
                policy=policy,
                first_seed=0,
                episodes=None,
                episodes_per_shard=episodes_per_shard,
                max_episode_steps=max_episode_steps,
                code_version=__version__,
                command=command,
            )
        )
        for path in self.folder.glob(f"*{TEMPORARY}"):
            path.unlink()
        self._count = self._stored()
        self._seeds = {seed for shard in self._manifest.shards for seed in shard.seeds}
        self._buffers: dict[Split, list[tuple[int, Episode]]] = {split: [] for split in SPLITS}

    @property
    def count(self) -> int:
        """How many episodes were ever added, those of earlier runs and those still in memory included."""
        return self._count

    @property
    def manifest(self) -> Manifest:
        """Of what is on disk."""
        return self._manifest

    def add(self, episode: Episode) -> None:
        """Append one; writes a shard when enough of its split have come together.

        Raises `ValueError` for a seed that is there already, or an episode of another shape than the dataset's.
        """
        self._check(episode)
        self._buffers[episode.split].append((self._count, episode))
        self._seeds.add(episode.seed)
        self._count += 1
        if len(self._buffers[episode.split]) >= self._per_shard:
            self._write(episode.split)
        while sum(map(self._buffered, SPLITS)) > BUFFER_BYTES:
            self._write(max(SPLITS, key=self._buffered))

    def flush(self) -> None:
        """Write whatever is in memory: from here on it outlives the run."""
        for split in SPLITS:
            if self._buffers[split]:
                self._write(split)

    def truncate_to(self, count: int) -> None:
        """Forget all episodes but the first `count`: those that a run played after the checkpoint it goes on from.

        Raises `ValueError` if there aren't so many, which means that the run saved its count without a `flush`.
        """
        if not 0 <= count <= self._count:
            cure = "flush before saving the count in a checkpoint"
            raise ValueError(f"the recording holds {self._count} episodes, not {count}: {cure}")
        self.flush()
        before = self._manifest.shards
        kept = [shard for old in before for shard in self._cut(old, count)]
        self._manifest = replace(self._manifest, shards=tuple(sorted(kept, key=lambda shard: shard.file)))
        save_manifest(self._manifest, self.folder)
        for shard in set(before) - set(kept):
            (self.folder / shard.file).unlink(missing_ok=True)
            (self.folder / shard.index_file).unlink(missing_ok=True)
        self._count = count
        self._seeds = {seed for shard in self._manifest.shards for seed in shard.seeds}

    def close(self) -> None:
        """Flush and write the dataset's card; the recorder may be used again."""
        self.flush()
        if self._manifest.shards:
            write_card(self.folder)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begun(self, fresh: Manifest) -> Manifest:
        """The folder's manifest, opened for more."""
        if not (self.folder / MANIFEST).exists():
            save_manifest(fresh, self.folder)
            return fresh
        found = load_manifest(self.folder)
        for name in ("schema", "scenario", "action_names", "variable_names", "signal_names", "resolution", "frame_skip"):
            here, asked = getattr(found, name), getattr(fresh, name)
            if here != asked:
                raise ValueError(f"{self.folder} holds a dataset with {name} {here!r}, not {asked!r}; choose another")
        if not found.complete:
            raise ValueError(f"the collection in {self.folder} isn't finished: collect again with its settings first")
        policies = dict.fromkeys((*found.policy.split(" + "), fresh.policy))
        commands = dict.fromkeys(filter(None, (*found.command.split("\n"), fresh.command)))
        return replace(found, episodes=None, policy=" + ".join(policies), command="\n".join(commands))

    def _stored(self) -> int:
        last = [load_index(self.folder, shard).episodes.max() for shard in self._manifest.shards]
        return int(max(last, default=-1)) + 1

    def _check(self, episode: Episode) -> None:
        if episode.seed in self._seeds:
            raise ValueError(f"seed {episode.seed} is recorded already: give each episode a seed of its own")
        m = self._manifest
        found = (episode.frames.shape[1:3], episode.variables.shape[1], episode.signals.shape[1])
        expected = (m.resolution, len(m.variable_names), len(m.signal_names))
        if found != expected:
            raise ValueError(f"resolution, variables and signals must be {expected}, got {found}: record one game")
        if not 0 <= episode.actions.min() <= episode.actions.max() < len(m.action_names):
            raise ValueError(f"actions must index {m.action_names}, got {episode.actions.max()}")

    def _buffered(self, split: Split) -> int:
        return sum(episode.frames.nbytes for _, episode in self._buffers[split])

    def _write(self, split: Split) -> None:
        shard = self._stored_as(split, self._buffers[split])
        self._manifest = self._manifest.with_shard(shard)
        save_manifest(self._manifest, self.folder)
        self._buffers[split] = []

    def _stored_as(self, split: Split, episodes: Sequence[tuple[int, Episode]]) -> Shard:
        numbers = [int(shard.file.split("-")[1].split(".")[0]) for shard in self._manifest.of_split(split)]
        path = self.folder / f"{split}-{max(numbers, default=-1) + 1:05d}.array_record"
        m = self._manifest
        return write_shard(path, episodes, scenario=m.scenario, split=split, signal_names=m.signal_names)

    def _cut(self, shard: Shard, count: int) -> list[Shard]:
        """The shard without the episodes from `count` on: itself, a shorter one under a new name, or none."""
        keep = load_index(self.folder, shard).episodes < count
        if keep.all():
            return [shard]
        if not keep.any():
            return []
        read = read_numbered(self.folder / shard.file, shard, scenario=self._manifest.scenario)
        return [self._stored_as(shard.split, [(index, episode) for index, episode in read if index < count])]
