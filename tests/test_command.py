from pathlib import Path

import pytest

from neural_env.command import command_line


def test_settings_are_options_in_the_shells_own_words():
    settings = {
        "data": (Path("a b"), Path("c")),
        "max_frames": 3,
        "film": True,
        "write": False,
        "agent": None,
        "wad": "",
    }
    assert command_line("neural-env x", settings) == "neural-env x --data 'a b' c --max-frames 3 --film --no-write"


def test_what_is_as_usual_or_changes_nothing_is_left_out():
    settings = {"out": "o", "steps": 3, "seed": 1}
    assert command_line("v", settings, usual={"steps": 3, "seed": 0}, left_out=("out",)) == "v --seed 1"


def test_what_was_turned_off_is_said():
    assert (
        command_line("v", {"wad": None, "seeds": ()}, usual={"wad": "doom.wad", "seeds": (1,)})
        == "v --wad None --seeds"
    )


def test_settings_within_settings_are_refused():
    with pytest.raises(TypeError, match="loop holds settings of its own"):
        command_line("v", {"loop": {"steps": 3}})
