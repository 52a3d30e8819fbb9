import sys

import gymnasium as gym
import numpy as np
import pytest

from neural_env.data.collect import CollectConfig, collect
from neural_env.data.foreign import Foreign
from neural_env.data.shards import Dataset

MODULE = '''
import enum
import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Actions(enum.IntEnum):
    LEFT = 0
    RIGHT = 1


class Game(gym.Env):
    """A dot that walks; it is over at the left wall."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, kind="rgb", render_mode=None):
        self.kind, self.render_mode = kind, render_mode
        self.action_space = spaces.Discrete(2, start=5 if kind == "start" else 0)
        shape = {"grey": (8, 12), "column": (8, 12, 1)}.get(kind, (8, 12, 3))
        image = spaces.Box(0, 255, shape, np.uint8)
        self.observation_space = {
            "dict": spaces.Dict({"screen": image, "speed": spaces.Box(0, 1, (2,))}),
            "tuple": spaces.Tuple((spaces.Discrete(3), image)),
            "float": spaces.Box(0, 1, (8, 12, 3)),
            "vector": spaces.Box(0, 255, (4,), np.uint8),
        }.get(kind, image)
        if kind == "continuous":
            self.action_space = spaces.Box(-1, 1, (1,))
        if kind == "named":
            self.actions = Actions

    def _seen(self):
        shape = self.observation_space.shape or (8, 12, 3)
        image = np.zeros((9, 12, 3) if self.kind == "growing" and self.steps else shape, np.uint8)
        image[self.steps % 8, self.x % 12] = 200
        return {"dict": {"screen": image, "speed": np.zeros(2, np.float32)}, "tuple": (1, image)}.get(self.kind, image)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.steps = int(self.np_random.integers(3, 9)), 0
        return self._seen(), self._info()

    def _info(self):
        return {"x": self.x, "word": "ten", "luck": float("nan")}

    def step(self, action):
        self.x += 2 * (int(action) - self.action_space.start) - 1
        self.steps += 1
        return self._seen(), 1.5, self.x <= 0, self.steps == 30, self._info()

    def render(self):
        return np.full((16, 24, 3), self.x, np.uint8)


KINDS = ("rgb", "grey", "column", "dict", "tuple", "float", "vector", "continuous", "named", "start", "growing")
for kind in KINDS:
    gym.register(f"Dot-{kind}-v0", entry_point=Game, kwargs={"kind": kind})
'''


@pytest.fixture
def dot(tmp_path, monkeypatch):
    """The id of a kind of tiny game that a module of the user's registers."""
    (tmp_path / "dots.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda kind: f"dots:Dot-{kind}-v0"
    sys.modules.pop("dots", None)
    for name in [name for name in gym.registry if name.startswith("Dot-")]:
        gym.registry.pop(name)


def opened(game):
    game.reset(seed=0)
    game.close()


@pytest.mark.parametrize(
    ("kind", "observation"),
    [("rgb", None), ("grey", None), ("column", None), ("dict", "screen"), ("tuple", "1"), ("float", "render")],
)
def test_images_of_every_kind_become_rgb_frames(dot, kind, observation):
    game = Foreign(dot(kind), observation)
    frame, info = game.reset(seed=3)
    assert frame.dtype == np.uint8 and frame.shape == ((16, 24, 3) if observation == "render" else (8, 12, 3))
    assert info == {}
    after = game.step(1)[0]
    assert not np.array_equal(frame, after) and (frame[..., 0] == frame[..., 2]).all()
    game.close()


@pytest.mark.parametrize(
    ("kind", "observation", "message"),
    [
        ("continuous", None, "actions must be Discrete, got Box.*TransformAction"),
        ("float", None, r"must be a uint8 image .*--observation render"),
        ("vector", None, "must be a uint8 image"),
        ("dict", None, "--observation screen or render"),
        ("dict", "speed", "'speed' must be a uint8 image"),
        ("dict", "sreen", "--observation screen or render"),
        ("tuple", "2", "--observation 1 or render"),
        ("rgb", "screen", "--observation render"),
        ("growing", None, None),
    ],
)
def test_what_cannot_be_recorded_is_refused_with_the_cure(dot, kind, observation, message):
    if message is not None:
        with pytest.raises(ValueError, match=message):
            Foreign(dot(kind), observation)
        return
    game = Foreign(dot(kind))
    game.reset(seed=0)
    with pytest.raises(ValueError, match=r"keep their shape, got \(9, 12, 3\) after \(8, 12, 3\)"):
        game.step(0)


@pytest.mark.parametrize("name", ["nowhere:Dot-v0", "Dot-unknown-v7"])
def test_an_unknown_game_is_refused_with_the_cure(name):
    with pytest.raises(ValueError, match=r"there is no environment .*module:EnvId"):
        Foreign(name)


@pytest.mark.parametrize(
    ("variable", "message"),
    [("y", "info has no 'y', it has luck, word, x"), ("word", "must be one number"), ("luck", "must be finite")],
)
def test_a_variable_that_is_no_number_is_refused(dot, variable, message):
    with pytest.raises(ValueError, match=message):
        opened(Foreign(dot("rgb"), variables=(variable,)))


def test_actions_have_the_names_that_the_game_gives_them(dot):
    def names(kind):
        game = Foreign(dot(kind))
        described = game.describe("dot")
        game.close()
        return described.action_names

    assert names("named") == ("left", "right")
    assert names("rgb") == ("action_0", "action_1")


def test_actions_that_do_not_start_at_zero_are_counted_from_zero(dot):
    game = Foreign(dot("start"), variables=("x",))
    before = game.reset(seed=0)[1]["x"]
    assert game.step(1)[4]["x"] == before + 1
    game.close()


def test_a_held_action_sums_its_rewards_and_stops_at_the_end(dot):
    game = Foreign(dot("rgb"), variables=("x",), frame_skip=4)
    x = game.reset(seed=0)[1]["x"]
    _, reward, terminated, _, info = game.step(0)
    assert (reward, terminated, info["x"]) == (1.5 * min(4, x), x <= 4, max(x - 4, 0))
    while not terminated:
        _, reward, terminated, truncated, info = game.step(0)
    assert info["x"] == 0 and not truncated
    game.close()


def test_resizing_averages_areas(dot):
    game, small = Foreign(dot("rgb")), Foreign(dot("rgb"), resize=(4, 3))
    frame, shrunk = game.reset(seed=0)[0], small.reset(seed=0)[0]
    blocks = frame.reshape(4, 2, 3, 4, 3).astype(float).mean(axis=(1, 3))
    assert np.array_equal(shrunk, np.rint(blocks))
    odd = Foreign(dot("rgb"), resize=(7, 5))
    assert abs(odd.reset(seed=0)[0].mean() - frame.mean()) < 0.5
    for each in (game, small, odd):
        each.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_users_own_game_becomes_a_dataset(dot, tmp_path, workers):
    env = dot("named")
    collect(CollectConfig(out=tmp_path / "data", env=env, variables="x", episodes=12, workers=workers))
    dataset = Dataset.open(tmp_path / "data")
    assert (dataset.scenario, dataset.action_names, dataset.variable_names) == (env, ("left", "right"), ("x",))
    assert (dataset.resolution, dataset.frame_skip) == ((8, 12), 1)
    game = Foreign(env, variables=("x",))
    for episode in dataset.episodes("train"):
        frames = [game.reset(seed=episode.seed)[0]] + [game.step(int(action))[0] for action in episode.actions]
        assert np.array_equal(np.stack(frames), episode.frames)
        assert episode.variables[-1, 0] == 0 if episode.terminated else len(episode) == 30
    game.close()
    with pytest.raises(ValueError, match="resolution"):
        collect(CollectConfig(out=tmp_path / "data", env=env, variables="x", episodes=12, resize=(8, 8)))


def test_options_of_an_own_game_are_refused_for_a_scenario(tmp_path):
    for changes in ({"observation": "render"}, {"variables": "x"}, {"resize": (8, 8)}):
        with pytest.raises(ValueError, match="is for a game of your own"):
            CollectConfig(out=tmp_path, **changes)


@pytest.mark.slow
def test_minigrid_is_collected_and_trained_on(tmp_path):
    pytest.importorskip("minigrid")
    from neural_env.training.loop import LoopConfig
    from neural_env.training.run import AutoencoderRun, train_autoencoder

    env = "minigrid:MiniGrid-Empty-5x5-v0"
    data, out = tmp_path / "data", tmp_path / "run"
    collect(CollectConfig(out=data, env=env, observation="render", resize=(40, 48), episodes=12, max_episode_steps=20))
    dataset = Dataset.open(data)
    assert dataset.action_names == ("left", "right", "forward", "pickup", "drop", "toggle", "done")
    assert dataset.resolution == (40, 48) and dataset.scenario.endswith("[render]")
    train_autoencoder(AutoencoderRun(data=(data,), out=out, preset="tiny", loop=LoopConfig(steps=1, batch=2)))
    assert (out / "autoencoder" / "weights.safetensors").exists()


def test_training_names_the_cure_for_frames_that_do_not_fit():
    from neural_env.world.autoencoder import AutoencoderConfig

    with pytest.raises(ValueError, match=r"\(42, 42\) must be a multiple of the patch size 8: .*--resize HEIGHT WIDTH"):
        AutoencoderConfig().grid((42, 42))
