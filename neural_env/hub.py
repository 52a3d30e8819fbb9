"""Worlds on the Hugging Face Hub: those that are too many, or too large, to ship with the package.

::

    neural-env release --checkpoint worlds/mine --licence MIT --out release/mine
    hf upload owner/name release/mine

    gym.make("neural_env:NeuralDoom-v0", checkpoint="hf://owner/name")             # as it is now
    gym.make("neural_env:NeuralDoom-v0", checkpoint="hf://owner/name@revision")    # a tag or a commit: as it was

manifest.json says what a world consists of, how good it is and what one may do with it; files that differ are refused.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rich.console import Console

from neural_env.checkpoint import FILES, HUB, CheckpointError, bundled_names, from_json, read_config, resolve
from neural_env.data.shards import write_whole

MANIFEST = "manifest.json"
FORMAT = "neural_env.release/1"


@dataclass(frozen=True)
class File:
    """One file of a world."""

    sha256: str
    size: int  # bytes


@dataclass(frozen=True)
class Manifest:
    """What a released world consists of; a JSON file."""

    format: str
    scenario: str
    licence: str
    files: dict[str, File]
    scores: dict[str, str]  # each bar, what was found and whether it is met; none: it was never scored


@dataclass(frozen=True, kw_only=True)
class ReleaseConfig:
    """Make a folder of a world that can be uploaded to the Hugging Face Hub."""

    checkpoint: str  # bundled world, or a checkpoint folder
    licence: str  # under which others may use it, for example MIT
    out: Path  # the folder to write


def release(config: ReleaseConfig) -> Path:
    """Copies the world's files, and writes manifest.json last; the path of the latter.

    Raises:
        CheckpointError: an unusable world.
        ValueError: no licence, or there is something else in the folder.
    """
    if not config.licence.strip():
        raise ValueError("a released world needs a licence, got none: name one, for example --licence MIT")
    folder = resolve(config.checkpoint)
    described = read_config(folder)
    config.out.mkdir(parents=True, exist_ok=True)
    if other := sorted(path.name for path in config.out.iterdir() if path.name not in (*FILES, MANIFEST)):
        raise ValueError(f"{config.out} holds {other[0]!r}, which is no part of a world: choose another folder")
    for name in FILES:
        shutil.copyfile(folder / name, config.out / name)
    bars = described["scores"].get("bars", [])
    scores = {bar["name"]: f"{bar['found']} (asked: {bar['asked']}; {bar['verdict']})" for bar in bars}
    files = {name: _measured(config.out / name) for name in FILES}
    manifest = Manifest(FORMAT, described["game"]["scenario"], config.licence, files, scores)
    write_whole(config.out / MANIFEST, (json.dumps(asdict(manifest), indent=2) + "\n").encode())
    size = sum(file.size for file in files.values())
    Console().print(
        f"{config.out}: {size / 1e6:.1f} MB; upload it with: hf upload OWNER/NAME {config.out}", soft_wrap=True
    )
    return config.out / MANIFEST


@cache
def fetched(address: str) -> Path:
    """The folder of the world at `hf://owner/name[@revision]`: downloaded once, verified once in a process.

    Raises:
        ImportError: huggingface_hub isn't installed.
        CheckpointError: there is no such world, the Hub can't be reached, or what came differs from the manifest.
    """
    repository, _, revision = address.removeprefix(HUB).partition("@")
    folder = _downloaded(address, repository, revision or None)
    _verify(folder, read_manifest(folder))
    return folder


def _downloaded(address: str, repository: str, revision: str | None) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        cure = 'pip install "neural-env[hub]"'
        raise ImportError(f"worlds on the Hugging Face Hub need huggingface_hub: {cure}") from error
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=[MANIFEST, *FILES]))
    except LocalEntryNotFoundError as error:
        why = "the Hugging Face Hub can't be reached, and the world hasn't been downloaded before"
        cure = f"connect once, or take a bundled world, which needs no network: {bundled_names()}"
        raise CheckpointError(address, f"{why}; {cure}") from error
    except HFValidationError as error:
        raise CheckpointError(
            address, f"it is no address; write {HUB}owner/name or {HUB}owner/name@revision"
        ) from error
    except OSError as error:  # all that the Hub answers, or a full disk
        raise CheckpointError(address, f"the Hub doesn't give it: {error}") from error


def read_manifest(folder: Path) -> Manifest:
    """The checked manifest of a released world.

    Raises:
        CheckpointError: there is none, or it isn't of this format.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise CheckpointError(path, "it is missing: this is no world released by `neural-env release`")
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}, this version reads {FORMAT!r}")
        files = {name: from_json(File, file) for name, file in content["files"].items()}
        if files.keys() != set(FILES):
            raise ValueError(f"it lists {sorted(files)}, a world consists of {sorted(FILES)}")
        return Manifest(**{**content, "files": files})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(path, f"it is no manifest of this version ({error}): release the world again") from error


def _verify(folder: Path, manifest: Manifest) -> None:
    for name, file in manifest.files.items():
        if not (folder / name).is_file():
            raise CheckpointError(folder / name, "it is missing, though the manifest lists it: download it again")
        if (found := _measured(folder / name)) != file:
            why = (
                f"it has {found.size} bytes and sha256 {found.sha256}, the manifest says {file.size} and {file.sha256}"
            )
            raise CheckpointError(folder / name, f"{why}: remove it and download it again")


def _measured(path: Path) -> File:
    with path.open("rb") as file:
        return File(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)
