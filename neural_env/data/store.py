"""Where a dataset lies: a folder, or whatever fsspec reaches (`s3://`, `gs://`, `file://`, ...).

Elsewhere than in a folder a shard is made in a scratch folder, uploaded under a temporary name, read back, compared and
then moved to its name; the manifest is replaced last, in the same way. So what is true of a folder is true of a URL:
a shard counts only once the manifest names it, and whatever dies leaves a dataset that can be gone on with.

Readers need local files, since shards are read at random: `fetch` copies a dataset, by hash.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from neural_env.data.card import write_card
from neural_env.data.shards import (
    MANIFEST,
    TEMPORARY,
    Manifest,
    Shard,
    ShardError,
    load_manifest,
    publish,
    save_manifest,
)

_CHUNK = 2**20  # bytes read at a time


class Store(Protocol):
    """What a collection needs of the place where its shards land."""

    def load(self) -> Manifest | None:
        """The manifest, or None where there is no dataset yet; raises `ShardError`."""
        ...

    def save(self, manifest: Manifest) -> None:
        """Replace the manifest in one move."""
        ...

    def scratch(self) -> AbstractContextManager[Path]:
        """A folder to write a shard into, before it is kept."""
        ...

    def keep(self, scratch: Path, shard: Shard) -> None:
        """Put a shard that was written in `scratch` in its place; raises `ShardError` if it doesn't arrive whole."""
        ...

    def has(self, shard: Shard) -> bool:
        """Whether a file of its name and size is there."""
        ...

    def describe(self, manifest: Manifest) -> None:
        """Write the dataset's card beside it, unless it says the same already."""
        ...

    def remove_leftovers(self) -> None:
        """Remove what killed runs have left unfinished."""
        ...


def store_at(place: str | Path) -> Store:
    """The store at a path or URL; raises `ImportError` and `ValueError` for a URL that can't be reached."""
    return Remote(str(place)) if is_url(place) else Folder(Path(place))


def is_url(place: str | Path) -> bool:
    """Whether it is one of fsspec's, `scheme://...`, and no plain path."""
    return isinstance(place, str) and "://" in place


@dataclass(frozen=True)
class Folder:
    """A local folder: shards are written where they stay."""

    path: Path

    def load(self) -> Manifest | None:
        """The manifest, or None."""
        self.path.mkdir(parents=True, exist_ok=True)
        return load_manifest(self.path) if (self.path / MANIFEST).exists() else None

    def save(self, manifest: Manifest) -> None:
        """Replace the manifest in one move."""
        save_manifest(manifest, self.path)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """The folder itself."""
        self.path.mkdir(parents=True, exist_ok=True)
        yield self.path

    def keep(self, scratch: Path, shard: Shard) -> None:
        """It is there already."""

    def has(self, shard: Shard) -> bool:
        """Whether a file of its name and size is there."""
        path = self.path / shard.file
        return path.is_file() and path.stat().st_size == shard.bytes

    def describe(self, manifest: Manifest) -> None:
        """Write the card."""
        write_card(self.path)

    def remove_leftovers(self) -> None:
        """Remove temporary files."""
        for path in self.path.glob(f"*{TEMPORARY}"):
            path.unlink()


@dataclass(frozen=True)
class Remote:
    """A folder of any fsspec file system."""

    url: str

    def load(self) -> Manifest | None:
        """The manifest, or None."""
        files, root = self._files()
        if not files.exists(f"{root}/{MANIFEST}"):
            files.makedirs(root, exist_ok=True)
            return None
        with tempfile.TemporaryDirectory() as folder:
            files.get_file(f"{root}/{MANIFEST}", str(Path(folder) / MANIFEST))
            return load_manifest(Path(folder))

    def save(self, manifest: Manifest) -> None:
        """Replace the manifest in one move."""
        with tempfile.TemporaryDirectory() as folder:
            save_manifest(manifest, Path(folder))
            self._upload(Path(folder) / MANIFEST)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A temporary folder, which is then removed."""
        with tempfile.TemporaryDirectory(prefix="neural_env-shard-") as folder:
            yield Path(folder)

    def keep(self, scratch: Path, shard: Shard) -> None:
        """Upload the index, then the shard."""
        self._upload(scratch / shard.index_file)
        self._upload(scratch / shard.file)

    def has(self, shard: Shard) -> bool:
        """Whether a file of its name and size is there."""
        files, root = self._files()
        path = f"{root}/{shard.file}"
        return bool(files.exists(path) and files.size(path) == shard.bytes)

    def describe(self, manifest: Manifest) -> None:
        """Write the card, which needs the indices alone."""
        with self.scratch() as folder:
            save_manifest(manifest, folder)
            for shard in manifest.shards:
                self.fetch({shard.index_file: shard.index_sha256}, folder)
            self._upload(write_card(folder))

    def remove_leftovers(self) -> None:
        """Remove temporary files."""
        files, root = self._files()
        for path in files.glob(f"{root}/*{TEMPORARY}"):
            files.rm_file(path)

    def fetch(self, names: dict[str, str], folder: Path) -> None:
        """Copy the files of these sha256 into `folder`, those that are there already left out."""
        files, root = self._files()
        for name, sha256 in names.items():
            path, temporary = folder / name, folder / (name + TEMPORARY)
            if path.is_file() and _sha256_of_file(path) == sha256:
                continue
            try:
                files.get_file(f"{root}/{name}", str(temporary))
            except FileNotFoundError:
                raise ShardError(Path(name), f"it is missing in {self.url}: restore it, or collect again") from None
            if _sha256_of_file(temporary) != sha256:
                temporary.unlink()
                raise ShardError(
                    Path(name), f"it is altered in {self.url}: its sha256 isn't the manifest's; restore it"
                )
            publish(temporary, path)

    def _upload(self, local: Path) -> None:
        files, root = self._files()
        temporary = f"{root}/{local.name}.{os.getpid()}{TEMPORARY}"
        files.put_file(str(local), temporary)
        size, sha256 = files.size(temporary), self._sha256(temporary)
        if (size, sha256) != (local.stat().st_size, _sha256_of_file(local)):
            files.rm_file(temporary)
            cure = "what arrived isn't what was sent; collect again to go on"
            raise ShardError(Path(local.name), f"the upload to {self.url} failed: {cure}")
        files.mv(temporary, f"{root}/{local.name}")

    def _sha256(self, path: str) -> str:
        digest, (files, _) = hashlib.sha256(), self._files()
        with files.open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        return digest.hexdigest()

    def _files(self) -> tuple[Any, str]:
        """The file system and the folder in it; asked for each time, since it can't be sent to other processes."""
        files, root = _file_system(self.url)
        return files, root.rstrip("/")


def fetch(url: str, folder: Path | str) -> Path:
    """Copy the dataset at `url` into a local folder and return it; `Dataset.open` reads that.

    What is there already with the right sha256 isn't copied again, so an interrupted copy goes on. Shards of a dataset
    that was extended since are replaced. Raises `ShardError` for files that are missing or altered.
    """
    remote, folder = Remote(url), Path(folder)
    manifest = remote.load()
    if manifest is None:
        raise ShardError(Path(MANIFEST), f"there is no dataset at {url}: collect one, or correct the address")
    folder.mkdir(parents=True, exist_ok=True)
    for shard in manifest.shards:
        remote.fetch({shard.file: shard.sha256, shard.index_file: shard.index_sha256}, folder)
    save_manifest(manifest, folder)
    write_card(folder)
    return folder


@dataclass(frozen=True, kw_only=True)
class FetchConfig:
    """Copy a dataset from elsewhere, so that it can be read; interrupted and run again, it goes on."""

    url: str  # where it is: any fsspec URL
    out: Path  # the local folder


def _file_system(url: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise ImportError(f'{url} needs fsspec: pip install "neural-env[ray]"') from error
    open_url: Any = url_to_fs
    try:
        files, root = open_url(url)
    except (ImportError, ValueError) as error:  # of a protocol that is unknown, or whose package is missing
        raise ValueError(f"{url} can't be reached: {error}") from error
    return files, str(root)


def _sha256_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
