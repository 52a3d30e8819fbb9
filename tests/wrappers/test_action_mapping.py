import itertools

import gymnasium as gym
import numpy as np
import pytest

from neural_env.data.vizdoom import SCENARIOS
from neural_env.wrappers import ActionMapping
from neural_env.wrappers.buttons import buttons_of, delta_buttons_first, is_delta
from neural_env.wrappers.keyboard import KEYS
from neural_env.wrappers.sources import Combinations, Pressed, WithDeltas, _vizdoom


class Named(gym.Env):
    """A world that has these actions and remembers what it was told."""

    observation_space = gym.spaces.Box(0, 255, (1,), np.uint8)

    def __init__(self, names):
        self.action_names = tuple(names)
        self.action_space = gym.spaces.Discrete(len(names))
        self.taken = []

    def step(self, action):
        self.taken.append(action)
        return np.zeros(1, np.uint8), 0.0, False, False, {}


COVER = ("noop", "move_left", "move_right")
CENTER = ("noop", "turn_left", "turn_right", "attack", "turn_left+attack")


def mapped(names, taken, /, **arguments):
    env = ActionMapping(Named(names), **arguments)
    for action in taken:
        env.step(action)
    assert all(type(action) is np.int64 for action in env.unwrapped.taken)
    return [int(action) for action in env.unwrapped.taken]


def test_a_named_subset_is_discrete_in_its_own_order():
    env = ActionMapping(Named(CENTER), actions=["attack", "noop"])
    assert env.action_space == gym.spaces.Discrete(2) and env.action_names == ("attack", "noop")
    assert mapped(CENTER, [0, 1], actions=["attack", "noop"]) == [3, 0]


def test_buttons_are_multibinary_and_only_exact_sets_are_actions():
    env = ActionMapping(Named(CENTER), buttons=["ATTACK", "turn_left", "TURN_RIGHT"])
    assert env.action_space == gym.spaces.MultiBinary(3)
    assert [int(env.action(a)) for a in ([0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1])] == [0, 3, 1, 4, 2]
    with pytest.raises(gym.error.InvalidAction, match=r"no action for ATTACK\+TURN_RIGHT; it has noop, turn_left, "):
        env.action([1, 0, 1])


def test_the_nearest_action_has_the_fewest_buttons_of_difference_and_of_several_the_first():
    env = ActionMapping(Named(CENTER), buttons=["ATTACK", "TURN_LEFT", "TURN_RIGHT", "SPEED"], unmapped="nearest")
    nearest = {
        (1, 0, 1, 0): 2,  # turn_right and attack are one button off: turn_right comes first
        (0, 1, 1, 0): 1,  # left and right at once
        (1, 1, 1, 0): 4,
        (0, 0, 0, 1): 0,
        (1, 1, 0, 1): 4,
    }
    for pressed, expected in nearest.items():
        assert env.action(np.array(pressed, np.int8)) == expected
        asked = {
            name for name, down in zip(("ATTACK", "TURN_LEFT", "TURN_RIGHT", "SPEED"), pressed, strict=True) if down
        }
        distances = [len(asked ^ buttons_of(name)) for name in CENTER]
        assert distances.index(min(distances)) == expected


def test_groups_are_multidiscrete_and_their_buttons_go_together():
    groups = [["noop", "turn_left", "turn_right"], ["noop", "attack"]]
    env = ActionMapping(Named(CENTER), groups=groups)
    assert env.action_space == gym.spaces.MultiDiscrete([3, 2])
    assert mapped(CENTER, [[0, 0], [1, 0], [2, 0], [0, 1], [1, 1]], groups=groups) == [0, 1, 2, 3, 4]
    with pytest.raises(gym.error.InvalidAction, match="no action for ATTACK"):
        env.action(np.array([2, 1]))


def test_another_scenarios_actions_go_by_their_names():
    env = ActionMapping(Named(COVER), scenario="deadly_corridor")
    assert env.action_space.n == 8 and env.action_names == SCENARIOS["deadly_corridor"].action_names
    assert [int(env.action(env.action_names.index(name))) for name in COVER] == [0, 1, 2]
    with pytest.raises(gym.error.InvalidAction, match="no action for ATTACK"):
        env.action(env.action_names.index("attack"))


def test_mappings_can_be_stacked():
    env = ActionMapping(ActionMapping(Named(CENTER), actions=["attack", "noop"]), buttons=["ATTACK"])
    assert [int(env.action([down])) for down in (0, 1)] == [1, 0]
    env.step([1])
    assert env.unwrapped.taken == [3]


# ViZDoom's own Gymnasium environments, in its own order.


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_the_table_of_a_scenario_is_the_engines(scenario):
    import vizdoom as vzd

    game = vzd.DoomGame()
    game.load_config(f"{vzd.scenarios_path}/{scenario}.cfg")
    assert SCENARIOS[scenario].buttons == tuple(button.name for button in game.get_available_buttons())


def test_buttons_with_a_strength_are_the_engines():
    import vizdoom as vzd

    for name, button in vzd.Button.__members__.items():
        assert is_delta(name) == vzd.is_delta_button(button), name


def vizdooms(id, **arguments):
    import vizdoom.gymnasium_wrapper  # noqa: F401  registers its environments

    env = gym.make(id, **arguments).unwrapped
    names = [button.name for button in env.game.get_available_buttons()]
    env.close()
    return env, names


@pytest.mark.parametrize(
    ("id", "scenario"),
    [("VizdoomTakeCover-v1", "take_cover"), ("VizdoomDeadlyCorridor-v1", "deadly_corridor")],
)
@pytest.mark.parametrize("at_most", [1, 2, 7])
@pytest.mark.filterwarnings("ignore:.*max_buttons_pressed.*:UserWarning")
def test_vizdooms_discrete_presses_what_vizdoom_presses(id, scenario, at_most):
    env, names = vizdooms(id, max_buttons_pressed=at_most)
    ours = _vizdoom(scenario, max_buttons_pressed=at_most)
    assert ours.space == env.action_space
    for action, row in enumerate(env.button_map):
        assert ours.buttons(action) == frozenset(itertools.compress(names, row))


@pytest.mark.parametrize("multi_binary", [True, False])
def test_vizdooms_buttons_are_in_its_order(multi_binary):
    env, names = vizdooms("VizdoomDeadlyCorridor-v1", max_buttons_pressed=0, use_multi_binary_action_space=multi_binary)
    ours = _vizdoom("deadly_corridor", max_buttons_pressed=0, use_multi_binary_action_space=multi_binary)
    assert ours.space == env.action_space
    for i, name in enumerate(names):
        pressed = np.eye(len(names), dtype=ours.space.dtype)[i]
        assert ours.buttons(pressed) == {name}


def test_vizdooms_strengths_come_first_and_any_but_zero_presses():
    env, names = vizdooms("VizdoomDeathmatch-v1", max_buttons_pressed=1)
    assert delta_buttons_first(names) == tuple(names)
    deltas = [name for name in names if is_delta(name)]
    held = [name for name in names if not is_delta(name)]
    ours = WithDeltas(Combinations(held, 1), deltas)
    assert ours.space == env.action_space
    still = np.zeros(len(deltas), np.float32)
    assert ours.buttons({"binary": 0, "continuous": still}) == frozenset()
    moving = still.copy()
    moving[1] = -0.5
    assert ours.buttons({"binary": np.int64(len(held)), "continuous": moving}) == {held[0], deltas[1]}


def test_vizdooms_arguments_have_vizdooms_defaults():
    assert ActionMapping(Named(COVER), vizdoom="take_cover").action_space == gym.spaces.Discrete(3)
    assert mapped(COVER, [0, 1, 2], vizdoom="take_cover") == [0, 2, 1]  # its first button is the highest bit
    for wrong, message in (
        ({"scenario": "take_cover", "max_buttons": 1}, "got .'max_buttons'."),
        ({"scenario": "take_cover", "max_buttons_pressed": -1}, "at least 0"),
        ("nowhere", "unknown scenario"),
    ):
        with pytest.raises(ValueError, match=message):
            ActionMapping(Named(COVER), vizdoom=wrong)


# The keyboard.


def down(env, *keys):
    return np.array([key in keys for key in env.keys], np.int8)


def test_keys_press_the_first_of_their_buttons_that_the_world_has():
    cover, center = (ActionMapping(Named(names), keys="all") for names in (COVER, CENTER))
    assert cover.keys == tuple(KEYS) and cover.action_space == gym.spaces.MultiBinary(len(KEYS))
    for env, key, expected in (
        (cover, "ArrowLeft", "move_left"),
        (cover, "KeyD", "move_right"),
        (cover, "Space", "noop"),  # nothing to use, nothing to fire
        (center, "ArrowLeft", "turn_left"),
        (center, "KeyA", "turn_left"),
        (center, "Space", "attack"),
        (center, "ControlLeft", "attack"),
    ):
        assert env.unwrapped.action_names[env.action(down(env, key))] == expected
    assert center.action(down(center, "ArrowLeft", "Space")) == 4
    with pytest.raises(gym.error.InvalidAction, match=r"MOVE_LEFT\+MOVE_RIGHT"):
        cover.action(down(cover, "ArrowLeft", "KeyD"))


def test_every_key_is_of_a_button_that_doom_has():
    import vizdoom as vzd

    for key, buttons in KEYS.items():
        assert buttons and set(buttons) <= set(vzd.Button.__members__), key


def test_gymnasiums_play_finds_the_keys():
    import pygame

    env = ActionMapping(Named(CENTER), keys=["ArrowLeft", "ArrowRight", "Space", "KeyW"])
    found = env.get_keys_to_action()
    assert {keys: int(env.action(action)) for keys, action in found.items()} == {
        (): 0,
        (pygame.K_LEFT,): 1,
        (pygame.K_RIGHT,): 2,
        (pygame.K_SPACE,): 3,
        tuple(sorted((pygame.K_LEFT, pygame.K_SPACE))): 4,
    }  # left and right at once, and right and space, mean nothing here; W has no button
    everything = ActionMapping(Named(CENTER), keys="all", unmapped="nearest").get_keys_to_action()
    assert all(isinstance(code, int) for keys in everything for code in keys) and (pygame.K_a,) in everything


# Errors.


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ({"actions": ["noop", "attack"]}, [2, -1, 0.5, None, "noop"]),
        ({"buttons": ["ATTACK"]}, [[2], [0, 1], 1, None]),
        ({"groups": [["noop"], ["noop", "attack"]]}, [[0, 2], [0], 1]),
        ({"vizdoom": "take_cover"}, [3, [0, 1]]),
    ],
)
def test_what_the_space_does_not_hold_is_refused_with_what_there_is(arguments, wrong):
    env = ActionMapping(Named(CENTER), **arguments, unmapped="nearest")
    for action in wrong:
        with pytest.raises(gym.error.InvalidAction, match=r"is not in .*: .*"):
            env.step(action)
    assert env.unwrapped.taken == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"actions": ["jump"]}, "no action 'jump'; choose of noop, turn_left"),
        ({"groups": [["noop", "jump"]]}, "no action 'jump'"),
        ({"actions": []}, "at least one entry"),
        ({"groups": [[]]}, "a group must be a list with at least one entry"),
        ({"buttons": "ATTACK"}, "must be a list"),
        ({"buttons": ["ATTACK", "attack"]}, "must differ"),
        ({"scenario": "nowhere"}, "unknown scenario 'nowhere'"),
        ({"keys": ["Escape"]}, "unknown key 'Escape'; choose of ArrowLeft"),
        ({"actions": ["noop"], "unmapped": "ignore"}, '"error" or "nearest"'),
    ],
)
def test_unknown_names_are_refused_at_once_with_those_there_are(arguments, message):
    with pytest.raises(ValueError, match=message):
        ActionMapping(Named(CENTER), **arguments)


@pytest.mark.parametrize("arguments", [{}, {"actions": ["noop"], "buttons": ["ATTACK"]}])
def test_exactly_one_source_is_wanted(arguments):
    with pytest.raises(TypeError, match="exactly one of actions, buttons, groups, scenario, vizdoom, keys"):
        ActionMapping(Named(CENTER), **arguments)


def test_a_world_without_names_cannot_be_mapped():
    with pytest.raises(TypeError, match="action_names"):
        ActionMapping(gym.make("CartPole-v1"), actions=["noop"])


def test_only_a_keyboard_has_keys_and_only_discrete_actions_have_names():
    env = ActionMapping(Named(CENTER), buttons=["ATTACK"])
    with pytest.raises(AttributeError, match="keys"):
        env.keys  # noqa: B018
    with pytest.raises(AttributeError, match="have no names"):
        env.action_names  # noqa: B018
    assert Pressed(["ATTACK"]).space == env.action_space
