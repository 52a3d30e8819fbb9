import json
from dataclasses import replace

import pytest

from neural_env.training.presets import label_of, model_of
from neural_env.world.conditioning import CrossAttention
from neural_env.world.model import PRESETS
from neural_env.world.velocity import VPrediction


def written(tmp_path, content):
    path = tmp_path / "mine.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_a_name_stands_for_its_preset():
    assert model_of("tiny") == PRESETS["tiny"]


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path):
    changes = {
        "unet": {"context": 8, "context_dropout": 0.1, "conditioning": {"kind": CrossAttention().kind}},
        "objective": {"kind": "v"},
        "num_steps": 4,
    }
    small = PRESETS["small"]
    unet = replace(small.unet, context=8, context_dropout=0.1, conditioning=CrossAttention())
    expected = replace(small, unet=unet, objective=VPrediction(), num_steps=4)
    assert model_of(written(tmp_path, changes)) == expected


def test_a_file_may_begin_with_another_preset_and_change_a_field_of_the_same_kind(tmp_path):
    tiny = PRESETS["tiny"]
    asked = written(tmp_path, {"preset": "tiny", "objective": {"first": 0.0}})
    assert model_of(asked) == replace(tiny, objective=replace(tiny.objective, first=0.0))


def test_the_model_of_a_worlds_configuration_is_a_preset_file(tmp_path):
    from neural_env import checkpoint

    config = json.loads((checkpoint.resolve("take_cover") / "config.json").read_text())
    assert model_of(written(tmp_path, config["model"])) == checkpoint.read_model("take_cover")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "can't be read"),
        ([1], "must hold a JSON object"),
        ({"preset": "huge"}, "there is no preset 'huge'"),
        ({"unit": {}}, r"unknown fields \['unit'\]"),
        ({"unet": {"contexts": 8}}, r"unknown fields \['contexts'\]"),
        ({"unet": {"context": 0}}, "context"),
        ({"objective": {"kind": "w"}}, "unknown kind 'w'"),
        ({"objective": {"kind": "distilled", "teacher": {"kind": "edm"}}}, "give its teacher's objective"),
    ],
)
def test_what_describes_no_model_is_refused_with_the_reason(tmp_path, content, why):
    with pytest.raises(ValueError, match=why):
        model_of(written(tmp_path, content))


def test_a_missing_file_is_named():
    with pytest.raises(ValueError, match=r"nowhere.json can't be read"):
        model_of("nowhere.json")


def test_provenance_names_no_folder(tmp_path):
    assert label_of(str(tmp_path / "mine.json")) == "mine.json"
    assert label_of("small") == "small"
