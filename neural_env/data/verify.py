"""Verification: everything that a dataset says of itself is checked against what it holds."""

from __future__ import annotations

from pathlib import Path

from neural_env.data.index import index_bytes, index_of
from neural_env.data.shards import Dataset, Shard, ShardError, check_file, load_index


def verify(folder: Path, *, partial: bool = False) -> Dataset:
    """Read all of the dataset in `folder` and compare: hashes, schema, records, counts, seeds, splits, indices.

    `partial` accepts a collection that isn't finished. Raises `ShardError` that names every file at fault.
    """
    dataset = Dataset.open(folder, verify=False, partial=partial)
    found = [problem for shard in dataset.manifest.shards if (problem := _problem(dataset, shard))]
    if len(found) == 1:
        raise found[0]
    if found:
        raise ShardError(dataset.folder, f"{len(found)} shards are at fault:\n" + "\n".join(map(str, found)))
    return dataset


def _problem(dataset: Dataset, shard: Shard) -> ShardError | None:
    try:
        check_file(dataset.folder / shard.file, shard)
        _check_index(dataset, shard)
    except ShardError as error:
        return error
    return None


def _check_index(dataset: Dataset, shard: Shard) -> None:
    """Reads every record on the way."""
    made = index_of(dataset.stored(shard), dataset.manifest.signal_names)
    if index_bytes(load_index(dataset.folder, shard)) != index_bytes(made):
        why = "the index isn't that of its shard's records; collect the shard again"
        raise ShardError(dataset.folder / shard.index_file, why)
