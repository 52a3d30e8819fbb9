import gymnasium as gym
import pytest

from neural_env.wrappers import Disagreement, ShadowMode
from neural_env.wrappers.plain import plain, threshold


def test_sequences_become_lists_down_to_the_last():
    assert plain((1, ["a", (2, 3)], {"b": (4,)})) == [1, ["a", [2, 3]], {"b": [4]}]


def test_a_threshold_is_a_number_or_none():
    assert [threshold("x", value) for value in (18, 0.5, None)] == [18, 0.5, None]


@pytest.mark.parametrize("value", ["a", float("nan"), True, [1.0]])
@pytest.mark.parametrize(("wrapper", "name"), [(ShadowMode, "truncate_below"), (Disagreement, "truncate_above")])
def test_what_nothing_compares_with_is_no_threshold(tiny_world_folder, wrapper, name, value):
    env = gym.make("neural_env:NeuralDoom-v0", checkpoint=str(tiny_world_folder))
    with pytest.raises(ValueError, match=f"{name} must be a number, or None for never"):
        wrapper(env, **{name: value})
    env.close()
