"""Worlds on the Hugging Face Hub: those that are too many, or too large, to ship with the package.

::

    neural-env release --checkpoint worlds/mine --licence MIT --out release/mine
    hf upload owner/name release/mine
    hf repos tag create owner/name v1

    gym.make("neural_env:NeuralDoom-v0", checkpoint="hf://owner/name")             # as it is now
    gym.make("neural_env:NeuralDoom-v0", checkpoint="hf://owner/name@revision")    # a tag or a commit: as it was

manifest.json says what a world consists of, how good it is and what one may do with it; files that differ are refused.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rich.console import Console

from neural_env.checkpoint import FILES, HUB, CheckpointError, bundled_names, from_json, load, resolve
from neural_env.data.shards import write_whole

MANIFEST = "manifest.json"
_README = "README.md"
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

    checkpoint: str  # bundled world, a checkpoint folder, or hf://owner/name
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
    world, folder = load(config.checkpoint), resolve(config.checkpoint)
    _check_free(config.out, folder)
    for name in FILES:
        write_whole(config.out / name, (folder / name).read_bytes())
    bars = world.scores.get("bars", [])
    scores = {bar["name"]: f"{bar['found']} (asked: {bar['asked']}; {bar['verdict']})" for bar in bars}
    files = {name: _measured(config.out / name) for name in FILES}
    manifest = Manifest(FORMAT, world.game.scenario, config.licence, files, scores)
    if not (config.out / _README).exists():
        write_whole(config.out / _README, _front_page(manifest).encode())
    write_whole(config.out / MANIFEST, (json.dumps(asdict(manifest), indent=2) + "\n").encode())
    size = sum(file.size for file in files.values()) / 1e6
    Console().print(f"{config.out}: {size:.1f} MB; next: hf upload OWNER/NAME {config.out}", soft_wrap=True)
    return config.out / MANIFEST


def _check_free(out: Path, folder: Path) -> None:
    """Makes the folder; raises `ValueError` if it is the world's own, or holds what is no part of a release."""
    out.mkdir(parents=True, exist_ok=True)
    if out.resolve() == folder.resolve():
        raise ValueError(f"{out} is the world itself: choose another folder")
    ours = (*FILES, MANIFEST, _README, ".gitattributes")
    if other := sorted(path.name for path in out.iterdir() if path.name not in ours):
        raise ValueError(f"{out} holds {other[0]!r}, which is no part of a world: choose another folder")


def _front_page(manifest: Manifest) -> str:
    """What the Hub shows, and where it looks for a licence; the author may write more."""
    scores = "".join(f"| {name} | {found} |\n" for name, found in manifest.scores.items()) or "| none yet | |\n"
    return f"""---
license: {manifest.licence.lower()}
library_name: neural-env
---

# A dream of `{manifest.scenario}`

A world for neural_env, after GameNGen (arXiv 2408.14837):

```python
env = gym.make("neural_env:NeuralDoom-v0", checkpoint="hf://OWNER/NAME")
```

| score | |
|---|---|
{scores}"""


@cache
def fetched(address: str) -> Path:
    """The folder of the world at `hf://owner/name[@revision]`: downloaded once, verified once in a process.

    Raises:
        ImportError: huggingface_hub isn't installed.
        CheckpointError: there is no such world, the Hub can't be reached, or what came differs from the manifest.
    """
    repository, _, revision = address.removeprefix(HUB).partition("@")
    folder = _downloaded(address, repository, revision or None)
    if _differing(folder):  # what a cache holds isn't downloaded again by itself
        folder = _downloaded(address, repository, revision or None, anew=True)
    if different := _differing(folder):
        raise CheckpointError(
            address, f"{different}, although it was downloaded anew: its author must release it again"
        )
    return folder


def _downloaded(address: str, repository: str, revision: str | None, *, anew: bool = False) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        cure = 'pip install "neural-env[hub]"'
        raise ImportError(f"worlds on the Hugging Face Hub need huggingface_hub: {cure}") from error
    # Proxies and time-outs, of whichever HTTP library this version of the client has.
    transport: type[Exception] = HfHubHTTPError.__bases__[0]
    wanted = [MANIFEST, *FILES]
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=wanted, force_download=anew))
    except LocalEntryNotFoundError as error:
        why = f"the Hugging Face Hub can't be reached, and the world isn't here from before ({error})"
        cure = f"connect once, or take a bundled world, which needs no network: {bundled_names()}"
        raise CheckpointError(address, f"{why}; {cure}") from error
    except HFValidationError as error:
        raise CheckpointError(
            address, f"it is no address; write {HUB}owner/name or {HUB}owner/name@revision"
        ) from error
    except (transport, OSError) as error:  # what the Hub answers, what lies between, or a full disk
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


def _differing(folder: Path) -> str | None:
    """What isn't as the manifest says, if anything."""
    for name, file in read_manifest(folder).files.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if (found := _measured(folder / name)) != file:
            has = f"{name} has {found.size} bytes and sha256 {found.sha256}"
            return f"{has}, the manifest says {file.size} and {file.sha256}"
    return None


def _measured(path: Path) -> File:
    with path.open("rb") as file:
        return File(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)
