"""Datasets to Minari and back, without loss: raw frames, where Minari's own default would be JPEG.

What Minari has no place for goes into its metadata: the manifest into the dataset's, who played into each episode's
`options`, with the palette that its frames are stored in. So the way back gives the same files, bit for bit (those of
schema 2 come back as schema 3).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from neural_env.data.episode import SCHEMA_VERSION, SPLITS, Episode
from neural_env.data.shards import (
    MANIFEST,
    Dataset,
    Manifest,
    ShardError,
    manifest_of,
    save_manifest,
    write_shard,
)

_KEY = "neural_env_manifest"


def export_minari(dataset: Dataset, out: Path, dataset_id: str) -> int:
    """Write the dataset as Minari's `dataset_id`, such as `doom/take_cover-v0`; how many episodes it has.

    `out` is the folder of Minari datasets, what `MINARI_DATASETS_PATH` names; `minari.load_dataset(dataset_id)` finds
    it there. Infos hold variables and signals by name. Raises `ImportError` without Minari, and `ValueError` if the id
    isn't one or is taken.
    """
    minari = _minari()
    _check_id(dataset_id)
    data = out / dataset_id / "data"
    if data.exists():
        raise ValueError(f"{data} exists already: choose another dataset id or folder")
    from minari.dataset.minari_storage import MinariStorage

    data.parent.mkdir(parents=True, exist_ok=True)
    storage = MinariStorage.new(
        data,
        observation_space=gym.spaces.Box(0, 255, (*dataset.resolution, 3), np.uint8),
        action_space=gym.spaces.Discrete(len(dataset.action_names)),
        data_format="hdf5",
        jpeg_encoding=False,
    )
    count = 0
    for split in SPLITS:
        for shard in dataset.manifest.of_split(split):
            for index, episode in dataset.stored(shard):
                storage.update_episodes([_buffer(dataset.manifest, episode, index, count)])
                count += 1
    storage.update_metadata(_metadata(dataset, dataset_id, minari.__version__))
    return count


def _minari() -> Any:
    try:
        import h5py  # noqa: F401
        import minari
    except ImportError as error:
        raise ImportError('Minari is missing: pip install "neural-env[minari]"') from error
    return minari


def _check_id(dataset_id: str) -> None:
    from minari.dataset.minari_dataset import parse_dataset_id

    try:
        parse_dataset_id(dataset_id)
    except Exception as error:
        raise ValueError(f"{dataset_id!r} is no dataset id of Minari's: use one as in doom/take_cover-v0") from error


def _metadata(dataset: Dataset, dataset_id: str, version: str) -> dict[str, Any]:
    return {
        "dataset_id": dataset_id,
        "minari_version": version,
        "algorithm_name": dataset.manifest.policy,
        "description": f"{dataset.scenario}, recorded by neural-env; actions: {', '.join(dataset.action_names)}",
        _KEY: json.dumps(asdict(dataset.manifest), sort_keys=True),
    }


def _buffer(m: Manifest, episode: Episode, index: int, number: int) -> Any:
    from minari.data_collector import EpisodeBuffer

    ends = np.arange(len(episode)) == len(episode) - 1
    columns = {"variables": (m.variable_names, episode.variables), "signals": (m.signal_names, episode.signals)}
    skill = {} if episode.skill is None else {"skill": episode.skill}
    palette = {} if episode.palette is None else {"palette": episode.palette.tobytes().hex()}
    played = {"policy": episode.policy, "policy_version": episode.policy_version, "episode": index, **skill, **palette}
    return EpisodeBuffer(
        id=number,
        seed=episode.seed,
        options=played,
        observations=episode.in_rgb().frames,  # arrays are stored as they are
        actions=episode.actions,
        rewards=episode.rewards,
        terminations=ends & episode.terminated,
        truncations=ends & episode.truncated,
        infos={key: dict(zip(names, array.T, strict=True)) for key, (names, array) in columns.items()},
    )


def import_minari(source: Path, out: Path) -> Dataset:
    """Read a dataset that `export_minari` wrote at `source`, the folder of one dataset id, into the folder `out`.

    Raises `ShardError` if `source` isn't one, and `ValueError` if `out` has a dataset already.
    """
    _minari()
    from minari.dataset.minari_storage import MinariStorage

    if (out / MANIFEST).exists():
        raise ValueError(f"{out} holds a dataset already: choose another folder")
    if not (source / "data").is_dir():
        raise ShardError(source, "there is no Minari dataset here: give the folder that holds its `data`")
    storage = MinariStorage.read(source / "data")
    manifest = _exported(source, storage)
    out.mkdir(parents=True, exist_ok=True)
    episodes = _episodes(storage, manifest)
    shards = []
    for shard in sorted(manifest.shards, key=lambda shard: SPLITS.index(shard.split)):
        mine = [next(episodes) for _ in range(shard.episodes)]
        path = out / shard.file
        written = write_shard(
            path, mine, scenario=manifest.scenario, split=shard.split, signal_names=manifest.signal_names
        )
        shards.append(written)
    content = {
        **asdict(manifest),
        "schema": SCHEMA_VERSION,
        "shards": [asdict(s) for s in sorted(shards, key=lambda s: s.file)],
    }
    save_manifest(manifest_of(content), out)
    return Dataset.open(out, verify=False, partial=True)


def _exported(source: Path, storage: Any) -> Manifest:
    with suppress(KeyError, TypeError, ValueError):
        return manifest_of(json.loads(storage.metadata[_KEY]))
    raise ShardError(source, "it wasn't exported by neural-env, or by another version: only its own exports come back")


def _episodes(storage: Any, m: Manifest) -> Iterator[tuple[int, Episode]]:
    for number in range(storage.total_episodes):
        (content,), (metadata,) = storage.get_episodes([number]), storage.get_episode_metadata([number])
        yield int(metadata["options"]["episode"]), _episode(content, metadata, m)


def _episode(content: dict[str, Any], metadata: dict[str, Any], m: Manifest) -> Episode:
    frames, played, infos = content["observations"], metadata["options"], content["infos"] or {}

    def columns(key: str, names: tuple[str, ...]) -> np.ndarray:
        found = [infos[key][name] for name in names]
        return np.stack(found, axis=1) if found else np.zeros((len(frames), 0), np.float32)

    episode = Episode(
        frames=frames,
        actions=content["actions"],
        rewards=content["rewards"],
        variables=columns("variables", m.variable_names),
        signals=columns("signals", m.signal_names),
        terminated=bool(content["terminations"][-1]),
        truncated=bool(content["truncations"][-1]),
        seed=int(metadata["seed"]),
        policy=str(played["policy"]),
        policy_version=int(played["policy_version"]),
        skill=float(played["skill"]) if "skill" in played else None,
    )
    if "palette" not in played:
        return episode
    return episode.in_palette(np.frombuffer(bytes.fromhex(played["palette"]), np.uint8).reshape(-1, 3))
