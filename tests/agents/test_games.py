import os
import signal
from itertools import pairwise
from multiprocessing import active_children

import numpy as np
import pytest

from neural_env.agents.games import Games, GamesConfig, make_game, training_seed
from neural_env.data.episode import split_of
from neural_env.data.workers import WorkersHung


def few(**changes):
    return GamesConfig(**{"scenario": "basic", "games": 3, "workers": 2, **changes})


def test_every_training_seed_comes_once_and_none_of_another_split():
    seeds = [training_seed(number) for number in range(1000)]
    assert len(set(seeds)) == 1000 and {split_of(seed) for seed in seeds} == {"train"}
    assert seeds == sorted(seeds) and seeds[:9] == [2, 3, 4, 5, 6, 7, 8, 9, 12]


@pytest.fixture(scope="module")
def played():
    """150 steps of three games, the board copied after each, and the actions told."""
    rng = np.random.default_rng(0)
    config = few(repeat=0.3, max_episode_steps=40, first_episode=8)
    with Games(config) as games:
        boards, told = [snapshot(games)], []
        for _ in range(150):
            told.append(rng.integers(4, size=3).astype(np.int32))
            games.send(told[-1])
            assert games.receive() == slice(0, 3)
            boards.append(snapshot(games))
    assert not active_children()
    return config, boards, np.stack(told)


def snapshot(games):
    return {name: array.copy() for name, array in vars(games.board).items()}


def test_the_games_are_those_of_the_environment(played):
    config, boards, _ = played
    env = make_game(config)
    episodes = 0
    for row in range(3):
        seed = int(boards[0]["seeds"][row])
        frame, _ = env.reset(seed=seed)
        assert seed == training_seed(8 + row) and (frame == boards[0]["frames"][row]).all()
        for before, after in pairwise(boards):
            frame, reward, terminated, _, info = env.step(after["executed"][row])
            assert (reward, terminated) == (after["rewards"][row], after["terminated"][row])
            if after["terminated"][row] or after["truncated"][row]:
                episodes += 1
                assert (frame == after["final_frames"][row]).all()
                assert list(info["signals"].values()) == after["final_signals"][row].tolist()
                frame, info = env.reset(seed=int(after["seeds"][row]))
                assert after["seeds"][row] > before["seeds"][row]
            assert (frame == after["frames"][row]).all()
            assert [info[name] for name in env.unwrapped.variable_names] == after["variables"][row].tolist()
    env.close()
    assert episodes >= 9


def test_a_game_repeats_its_last_action_as_often_as_told(played):
    _, boards, told = played
    executed = np.stack([board["executed"] for board in boards[1:]])
    began = np.stack([board["terminated"] | board["truncated"] for board in boards[:-1]])
    before = np.concatenate([np.zeros((1, 3), np.int32), executed[:-1]])
    before[began] = 0
    other = told != before
    repeated = executed != told
    assert (executed[repeated] == before[repeated]).all()
    assert repeated[other].mean() == pytest.approx(0.3, abs=0.07)


def test_an_episode_is_cut_off_at_the_limit_and_not_called_ended(played):
    _, boards, _ = played
    cut, ended = (np.stack([board[name] for board in boards[1:]]) for name in ("truncated", "terminated"))
    assert cut.any() and not (cut & ended).any()
    ends = [0, *(np.flatnonzero(cut[:, 0] | ended[:, 0]) + 1)]
    assert max(np.diff(ends)) == 40


def test_no_two_games_ever_have_the_same_seed(played):
    _, boards, _ = played
    seeds = [{int(seed) for seed in np.unique([board["seeds"][row] for board in boards])} for row in range(3)]
    assert sum(map(len, seeds)) == len(set.union(*seeds)) > 9


def test_a_group_of_games_is_stepped_while_the_others_wait():
    with Games(few()) as games:
        first, second = games.groups(2)
        assert (games.span(first), games.span(second)) == (slice(0, 1), slice(1, 3))
        still = games.board.frames[1:].copy()
        for _ in range(3):
            games.send(np.array([1]), first)
            assert games.receive(first) == slice(0, 1)
        assert (games.board.frames[1:] == still).all()
        games.send(np.array([1, 1]), second)
        games.receive(second)
        assert (games.board.frames[1:] != still).any()


def test_there_are_no_more_groups_than_workers():
    with Games(few(games=1, workers=1)) as games:
        assert games.groups(2) == [range(1)]


def test_a_worker_that_dies_is_named():
    with Games(few()) as games:
        os.kill(active_children()[0].pid, signal.SIGKILL)
        with pytest.raises(RuntimeError, match=r"a worker died with exit code -9; train again"):
            for _ in range(3):
                games.send(np.zeros(3, np.int32))
                games.receive()
    assert not active_children()


def test_a_worker_that_hangs_is_given_up(monkeypatch):
    with Games(few(games=1, workers=1)) as games:
        monkeypatch.setattr("neural_env.agents.games.SILENCE_SECONDS", 1.0)
        os.kill(active_children()[0].pid, signal.SIGSTOP)
        games.send(np.zeros(1, np.int32))
        with pytest.raises(WorkersHung, match=r"silent for 1\.0 s; train again"):
            games.receive()
    assert not active_children()


def test_an_error_in_a_worker_reaches_the_caller():
    with Games(few(games=1, workers=1)) as games:
        games.send(np.array([99]))
        with pytest.raises(Exception, match="action"):
            games.receive()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"games": 0}, "games must be at least 1, got 0"),
        ({"workers": 4}, "workers=4 is more than games=3"),
        ({"repeat": 1.0}, "repeat is a probability below 1"),
        ({"scenario": "doom3"}, "take_cover"),
        ({"max_episode_steps": 0}, "max_episode_steps"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        few(**changes)


def test_the_map_lies_beside_the_screen_and_is_the_games():
    config = few(games=2, scenario="health_gathering", automap=True)
    with Games(config) as games:
        games.send(np.array([1, 2]))
        seen = games.board.seen(games.receive())
        assert seen.shape == (2, 120, 160, 6) and (seen[..., :3] == games.board.frames).all()
        seed = int(games.board.seeds[1])
    env = make_game(config)
    env.reset(seed=seed)
    frame, _, _, _, info = env.step(2)
    env.close()
    assert (seen[1] == np.concatenate([frame, info["automap"]], axis=-1)).all()


def test_without_a_map_the_screen_is_all_that_is_seen(played):
    config, boards, _ = played
    assert boards[0]["maps"].shape == (3, 120, 160, 0) and not config.automap
