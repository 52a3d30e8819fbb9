import re
from dataclasses import replace

import pytest

from neural_env.cli import main
from neural_env.data import episode as episode_module
from neural_env.data.index import index_bytes, index_from
from neural_env.data.shards import ShardError, load_manifest, save_manifest, write_shard
from neural_env.data.verify import verify

SHARD = "train-00001.array_record"
INDEX = "train-00001.index"


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def claim(folder, **changes):
    """Let the manifest say something else of the shard."""
    manifest = load_manifest(folder)
    shards = tuple(replace(s, **changes) if s.file == SHARD else s for s in manifest.shards)
    save_manifest(replace(manifest, shards=shards), folder)


def entry(folder):
    return next(shard for shard in load_manifest(folder).shards if shard.file == SHARD)


def foreign_schema(folder):
    """The shard as another version would have written it, in a manifest that agrees."""
    from neural_env.data.shards import Dataset

    dataset, shard = Dataset.open(folder), entry(folder)
    episodes = list(dataset.numbered(shard))
    episode_module.SCHEMA_VERSION, ours = 1, episode_module.SCHEMA_VERSION
    try:
        names = dataset.manifest.signal_names
        written = write_shard(folder / SHARD, episodes, scenario="toy", split="train", signal_names=names)
    finally:
        episode_module.SCHEMA_VERSION = ours
    claim(folder, sha256=written.sha256, bytes=written.bytes)


def wrong_index(folder):
    """An index with an event that never was, in a manifest that agrees."""
    import hashlib

    index = index_from((folder / INDEX).read_bytes())
    index.events[0] ^= 1
    content = index_bytes(index)
    (folder / INDEX).write_bytes(content)
    claim(folder, index_sha256=hashlib.sha256(content).hexdigest())


def count_one_more(folder):
    shard = entry(folder)
    claim(folder, transitions=shard.transitions + 1, frames=shard.frames + 1)


FAULTS = {
    "a flipped byte": (lambda folder: flip(folder / SHARD), f"{SHARD}.*altered"),
    "a flipped byte of an index": (lambda folder: flip(folder / INDEX), f"{INDEX}.*altered"),
    "a missing shard": (lambda folder: (folder / SHARD).unlink(), f"{SHARD}.*missing"),
    "a missing index": (lambda folder: (folder / INDEX).unlink(), f"{INDEX}.*missing"),
    "another schema": (foreign_schema, f"{SHARD}.*schema version 1, this reader knows 2"),
    "an index that lies": (wrong_index, f"{INDEX}.*isn't that of its shard's records"),
    "counts that lie": (count_one_more, f"{SHARD}.*the manifest says frames"),
    "segments that lie": (lambda folder: claim(folder, segments=99), f"{SHARD}.*says segments 99"),
    "a split that lies": (lambda folder: claim(folder, split="test"), f"{SHARD}.*belongs to 'train'"),
}


def test_a_sound_dataset_passes(toy_folder, capsys):
    assert main(["data", "verify", "--data", str(toy_folder)]) == 0
    assert "24 episodes in 6 shards, all as the manifest says" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("fault", FAULTS)
def test_verification_finds_and_ends_with_status_1_naming_the_file(toy_folder, capsys, fault):
    harm, message = FAULTS[fault]
    harm(toy_folder)
    assert main(["data", "verify", "--data", str(toy_folder)]) == 1
    assert re.search(message, capsys.readouterr().err)


def test_every_shard_at_fault_is_named(toy_folder):
    flip(toy_folder / SHARD)
    (toy_folder / "test-00000.array_record").unlink()
    with pytest.raises(ShardError, match=r"2 shards are at fault:\n.*test-00000[^\n]*\n.*train-00001"):
        verify(toy_folder)


def test_an_unfinished_collection_passes_only_if_that_is_said(toy_folder):
    save_manifest(replace(load_manifest(toy_folder), episodes=50), toy_folder)
    with pytest.raises(ShardError, match="24 of 50 episodes"):
        verify(toy_folder)
    assert verify(toy_folder, partial=True).manifest.num_episodes == 24
