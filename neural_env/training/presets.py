"""What `--preset` takes: a preset's name, or a JSON file of what is to be different from one."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from neural_env.checkpoint import from_json
from neural_env.world.distilled import Distilled
from neural_env.world.model import PRESETS, ModelConfig


def model_of(preset: str) -> ModelConfig:
    """The sizes and choices that `preset` stands for.

    A file, which must be called .json, holds fields of `ModelConfig` and, under "preset", the name of the one that has
    all others ("small" if it says none): `{"unet": {"context": 8}, "objective": {"kind": "v"}}`. Where a part is of
    another kind than the preset's, its other fields have that kind's defaults.

    Raises:
        ValueError: there is no such preset or file, or the file describes no model, or a distilled one.
    """
    if not preset.endswith(".json"):
        return _named(preset)
    try:
        asked = json.loads(Path(preset).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"the preset {preset} can't be read: {error}") from error
    if not isinstance(asked, dict):
        raise ValueError(f"the preset {preset} must hold a JSON object, fields of ModelConfig, got {asked!r}")
    base = _named(str(asked.pop("preset", "small")))
    try:
        model = from_json(ModelConfig, _changed(asdict(base), asked))
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(f"the preset {preset} describes no model: {error}") from error
    if isinstance(model.objective, Distilled):
        cure = "give its teacher's objective"
        raise ValueError(f"the preset {preset} is of a distilled world, which learns from its teacher alone: {cure}")
    return model


def label_of(preset: str) -> str:
    """What a world's provenance calls it: a name, or a file's without its folder."""
    return Path(preset).name if preset.endswith(".json") else preset


def _named(name: str) -> ModelConfig:
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}; there are {sorted(PRESETS)}, or give a .json file")
    return PRESETS[name]


def _changed(base: Any, asked: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(asked, dict):
        return asked
    if asked.get("kind", base.get("kind")) != base.get("kind"):
        return asked
    return {**base, **{name: _changed(base.get(name), value) for name, value in asked.items()}}
