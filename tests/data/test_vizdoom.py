import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from neural_env.data import wads
from neural_env.data.vizdoom import RESOLUTIONS, SCENARIOS, SIGNALS, DoomEngine, EngineCrashed, scenario_named


@pytest.fixture
def engine():
    engine = DoomEngine("basic")
    yield engine
    engine.close()


def play(engine, seed, steps=20):
    frame, variables = engine.new_episode(seed)
    frames, values = [frame], [variables]
    for i in range(steps):
        step = engine.act(i % 3)
        frames.append(step.frame)
        values.append(step.variables)
        if step.terminated or step.truncated:
            break
    return np.stack(frames), np.stack(values)


def engine_process(engine):
    """The process id of the engine, found by its private folder."""
    home = engine._game.get_doom_config_path()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
            if home.encode() in command and not command.startswith(b"/bin/sh"):  # that is the shell that watches it
                return int(path.parent.name)
        except OSError:
            continue
    return None


def test_the_catalogue_repeats_the_scenario_files():
    import vizdoom as vzd

    for scenario in SCENARIOS.values():
        game = vzd.DoomGame()
        game.load_config(str(Path(vzd.scenarios_path) / f"{scenario.name}.cfg"))
        assert scenario.buttons == tuple(button.name for button in game.get_available_buttons())
        assert scenario.variables == tuple(v.name for v in game.get_available_game_variables())
        assert scenario.timeout_tics == (game.get_episode_timeout() or None)


def test_action_names_are_the_buttons_in_lower_case_after_the_no_op():
    assert SCENARIOS["take_cover"].action_names == ("noop", "move_left", "move_right")


def test_importing_the_package_does_not_import_vizdoom():
    code = "import sys, neural_env, neural_env.data.vizdoom; print('vizdoom' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


EVERY = (*SCENARIOS, "freedoom1:E1M1", "freedoom2:MAP01")


@pytest.mark.parametrize("name", EVERY)
def test_every_scenario_is_played_alike_for_equal_seeds_with_its_hud_on(name):
    engine, other = DoomEngine(name), DoomEngine(name)
    actions = [*range(len(engine.scenario.actions)), 0]

    def episode(engine):
        frame, variables = engine.new_episode(5)
        steps = [engine.act(action) for action in actions[:1]]
        while len(steps) < len(actions) and not (steps[-1].terminated or steps[-1].truncated):
            steps.append(engine.act(actions[len(steps)]))
        values = [variables, *(step.variables for step in steps)]
        return np.stack([frame, *(step.frame for step in steps)]), np.stack(values), engine.signals()

    first, again, fresh = episode(engine), episode(engine), episode(other)
    engine.close()
    other.close()
    for there in (again, fresh):
        assert all(np.array_equal(a, b) for a, b in zip(first, there, strict=True))
    frames, variables, _ = first
    assert frames.std() > 5 and np.isfinite(variables).all()
    assert variables.shape[1] == len(engine.scenario.variable_names)
    assert all(
        np.array_equal(frame[-3:, :8], frames[0, -3:, :8]) for frame in frames
    )  # the bar's corner: no world there
    assert len(np.unique(frames[0, -3:, :8].reshape(-1, 3), axis=0)) > 1


def test_a_combination_holds_its_buttons_together():
    engine = DoomEngine("freedoom2:MAP01")
    names = engine.scenario.action_names
    moved = {}
    for name in ("move_forward", "move_forward+speed", "move_forward+turn_left"):
        engine.new_episode(1)
        before, angle = signals_of(engine), engine._game.get_game_variable(_variable("ANGLE"))
        for _ in range(4):
            engine.act(names.index(name))
        after, turned = signals_of(engine), engine._game.get_game_variable(_variable("ANGLE")) != angle
        moved[name] = abs(after["position_x"] - before["position_x"]) + abs(after["position_y"] - before["position_y"])
        assert turned == ("turn_left" in name)
    engine.close()
    assert moved["move_forward+speed"] > 1.5 * moved["move_forward"] > 0 and moved["move_forward+turn_left"] > 0


def _variable(name):
    import vizdoom as vzd

    return getattr(vzd.GameVariable, name)


def test_ammo_is_counted_whatever_weapon_is_in_hand():
    engine = DoomEngine("freedoom2:MAP01")
    engine.new_episode(1)
    before = signals_of(engine)
    for _ in range(6):
        engine.act(0)  # the weapon at hand must be up before it can be put away
    engine.act(engine.scenario.action_names.index("select_next_weapon"))
    for _ in range(10):
        engine.act(0)
    after = signals_of(engine)
    engine.close()
    assert (before["selected_weapon"], before["selected_weapon_ammo"]) == (2, 50)
    assert (after["selected_weapon"], after["selected_weapon_ammo"]) == (1, 0)
    assert after["ammo"] == before["ammo"] == 50 and after["weapons"] == before["weapons"] == 2


@pytest.mark.parametrize(
    ("name", "actions"),
    [
        ("basic", ("noop", "move_left", "move_right", "attack")),
        ("deathmatch", ("noop", "move_forward", "move_backward", "move_left", "move_right", "turn_left")),
    ],
)
def test_actions_are_named_by_their_buttons(name, actions):
    names = scenario_named(name).action_names
    assert names[: len(actions)] == actions and len(set(names)) == len(names)


def test_every_button_that_an_action_presses_is_one_of_the_scenario():
    for name in EVERY:
        scenario = scenario_named(name)
        assert {button for buttons in scenario.actions for button in buttons} <= set(scenario.buttons)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("freedoom1:E9M1", r"freedoom1\.wad has no map 'E9M1'; choose one of E1M1, E1M2"),
        ("freedoom2:E1M1", r"freedoom2\.wad has no map 'E1M1'; choose one of MAP01"),
        ("nowhere.wad:MAP01", "there is no WAD nowhere.wad: give the file's path, or one of freedoom1, freedoom2"),
        ("freedoom3", "choose one of basic.*or a map as in freedoom1:E1M1"),
    ],
)
def test_a_map_that_is_not_there_is_refused_with_those_that_are(name, message):
    with pytest.raises(ValueError, match=message):
        DoomEngine(name)


def own_map(folder):
    """A WAD of one's own that adds to Freedoom 2."""
    import vizdoom as vzd

    return shutil.copy(Path(vzd.scenarios_path) / "basic.wad", folder / "own.wad")


def test_a_map_of_ones_own_is_played(tmp_path):
    engine = DoomEngine(f"{own_map(tmp_path)}:map01")
    frame, variables = engine.new_episode(0)
    for _ in range(5):
        step = engine.act(engine.scenario.action_names.index("turn_left"))
    engine.close()
    assert engine.scenario.name == "own.wad:MAP01"
    assert not np.array_equal(frame, step.frame) and step.reward == 0.0 and variables.tolist()[0] == 100


def test_a_game_of_ones_own_replaces_freedoom(tmp_path):
    iwad = tmp_path / "mine.wad"
    iwad.symlink_to(wads.bundled("freedoom1"))
    engine = DoomEngine("take_cover", iwad=str(iwad))
    engine.new_episode(0)
    command = Path(f"/proc/{engine_process(engine)}/cmdline").read_bytes().split(b"\0")
    engine.close()
    assert command[command.index(b"-iwad") + 1] == str(iwad).encode() and engine.scenario.name == "take_cover@mine"
    assert DoomEngine(f"{iwad}:E1M1").scenario.name == "mine.wad:E1M1"


def test_a_game_that_is_none_or_not_needed_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is no whole game, it adds to one: play it as scenario"):
        DoomEngine("basic", iwad=str(own_map(tmp_path)))
    with pytest.raises(ValueError, match="a map of a game of its own: leave iwad out"):
        DoomEngine("freedoom1:E1M1", iwad=str(wads.bundled("freedoom2")))


def test_an_unknown_scenario_is_refused_with_the_list_of_those_there_are():
    with pytest.raises(ValueError, match=r"take_kover.*choose one of.*take_cover"):
        DoomEngine("take_kover")


def test_an_unknown_resolution_is_refused_with_the_list_of_those_there_are():
    with pytest.raises(ValueError, match=r"\(64, 64\).*\(120, 160\), \(240, 320\)"):
        DoomEngine("basic", (64, 64))


def test_a_frame_skip_of_zero_is_refused():
    with pytest.raises(ValueError, match="frame_skip must be at least 1 tic, got 0"):
        DoomEngine("basic", frame_skip=0)


@pytest.mark.parametrize("resolution", list(RESOLUTIONS))
def test_frames_are_rgb_bytes_of_the_asked_size(resolution):
    engine = DoomEngine("take_cover", resolution)
    frame, variables = engine.new_episode(0)
    engine.close()
    assert frame.shape == (*resolution, 3) and frame.dtype == np.uint8
    assert variables.dtype == np.float32 and variables.tolist() == [100.0]


def test_the_hud_is_drawn():
    """It fills the bottom of the screen with the same picture whatever the player sees."""
    engine = DoomEngine("take_cover")
    (first, _), (second, _) = engine.new_episode(0), engine.new_episode(1)
    engine.close()
    assert np.array_equal(first[-12:, :40], second[-12:, :40])
    assert first[-12:, :40].std() > 5


def test_equal_seeds_give_equal_frames_whatever_was_played_before(engine):
    first, first_values = play(engine, seed=7)
    play(engine, seed=8, steps=5)
    again, again_values = play(engine, seed=7)
    assert np.array_equal(first, again) and np.array_equal(first_values, again_values)


def test_equal_seeds_give_equal_frames_in_a_fresh_engine(engine):
    play(engine, seed=3, steps=9)
    here, _ = play(engine, seed=7)
    fresh = DoomEngine("basic")
    there, _ = play(fresh, seed=7)
    fresh.close()
    assert np.array_equal(here, there)


@pytest.mark.parametrize("name", ["basic", "deadly_corridor"])
def test_the_weapon_does_not_go_on_swaying_from_the_last_episode(name):
    """The engine itself carries the sway over; it shows only after an episode that ended on the move."""
    engine = DoomEngine(name)
    fresh, _ = play(engine, seed=8)
    for _ in range(25):
        engine.act(1)
    again, _ = play(engine, seed=8)
    engine.close()
    assert np.array_equal(fresh, again)


def test_different_seeds_give_different_frames(engine):
    assert not np.array_equal(play(engine, seed=1)[0][0], play(engine, seed=2)[0][0])


def test_a_timeout_truncates_and_keeps_the_last_rendered_frame(engine):
    engine.new_episode(0)
    previous = engine.act(0)
    while True:
        step = engine.act(0)
        if step.terminated or step.truncated:
            break
        previous = step
    assert (step.terminated, step.truncated) == (False, True)
    assert step.frame.any() and np.array_equal(step.frame, previous.frame)
    assert step.frame is not previous.frame


def test_death_terminates_and_variables_are_those_of_the_end():
    engine = DoomEngine("take_cover")
    engine.new_episode(0)
    step = engine.act(0)
    while not (step.terminated or step.truncated):
        step = engine.act(0)
    engine.close()
    assert (step.terminated, step.truncated) == (True, False)
    assert step.variables[0] <= 0


def test_a_killed_engine_is_reported_and_the_next_episode_starts_a_fresh_one(engine):
    before, _ = play(engine, seed=5, steps=3)
    os.kill(engine_process(engine), signal.SIGKILL)
    with pytest.raises(EngineCrashed, match=r"'basic' stopped.*reset to start a fresh one"):
        engine.act(0)
    after, _ = play(engine, seed=5, steps=3)
    assert np.array_equal(before, after)


def test_an_engine_killed_between_episodes_is_reported_too(engine):
    engine.new_episode(0)
    os.kill(engine_process(engine), signal.SIGKILL)
    with pytest.raises(EngineCrashed):
        engine.new_episode(1)
    engine.new_episode(1)


def test_acting_before_the_first_episode_is_refused(engine):
    with pytest.raises(EngineCrashed, match="start an episode before acting"):
        engine.act(0)


def test_the_engine_leaves_no_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    engine = DoomEngine("basic")
    engine.new_episode(0)
    home = Path(engine._game.get_doom_config_path()).parent
    assert home.exists()
    engine.close()
    assert not home.exists() and not list(tmp_path.iterdir())


def test_a_temporary_folder_that_forbids_programs_is_reported(engine, monkeypatch):
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "vizdoom.sh" and allowed(path, mode))
    with pytest.raises(EngineCrashed, match="may not be executed; set TMPDIR"):
        engine.new_episode(0)
    monkeypatch.undo()
    engine.new_episode(0)


def test_closing_twice_is_harmless_and_play_can_go_on_afterwards(engine):
    frame, variables = engine.new_episode(0)
    engine.close()
    engine.close()
    again, same_variables = engine.new_episode(0)
    assert (again == frame).all() and (same_variables == variables).all()


@pytest.mark.parametrize("kill", [lambda python: python.kill(), lambda python: os.killpg(python.pid, signal.SIGTERM)])
def test_no_engine_outlives_a_killed_python(tmp_path, kill):
    code = (
        "import time; from neural_env.data.vizdoom import DoomEngine\n"
        "engine = DoomEngine('basic'); engine.new_episode(0)\n"
        "print(engine._game.get_doom_config_path(), flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=tmp_path, start_new_session=True
    )
    config = Path(process.stdout.readline().strip())
    kill(process)
    process.communicate()
    deadline = time.monotonic() + 10
    while config.parent.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not config.parent.exists()
    assert not list(tmp_path.iterdir())


def signals_of(engine):
    return dict(zip(SIGNALS, engine.signals().tolist(), strict=True))


def test_signals_count_shots_hits_and_the_kill():
    engine = DoomEngine("defend_the_center")
    engine.new_episode(3)
    before = signals_of(engine)
    assert before["health"] == 100 and before["ammo"] == before["selected_weapon_ammo"] == 26
    assert before["killcount"] == before["hitcount"] == before["damagecount"] == before["dead"] == 0
    reward = 0.0
    for i in range(120):
        step = engine.act(3 if i % 3 else 1)
        reward += step.reward
        if step.terminated:
            break
    after = signals_of(engine)
    engine.close()
    assert after["killcount"] == reward + after["dead"] > 0  # the scenario pays 1 a kill and takes 1 for the death
    assert after["hitcount"] > 0 and after["damagecount"] > 0 and after["ammo"] < 26
    assert after["health"] == 100 - after["damage_taken"]


def test_signals_work_after_the_last_tic_and_tell_of_the_death():
    engine = DoomEngine("take_cover")
    engine.new_episode(0)
    while not (step := engine.act(0)).terminated:
        pass
    signals = signals_of(engine)
    engine.close()
    assert signals["dead"] == 1 and signals["health"] == step.variables[0] <= 0
    assert signals["hits_taken"] >= 1 and signals["damage_taken"] == 100 - signals["health"]


def test_signals_start_anew_after_a_death():
    engine = DoomEngine("defend_the_center")
    engine.new_episode(4)
    before = signals_of(engine)
    while not engine.act(3).terminated:
        pass
    assert signals_of(engine)["dead"] == 1
    engine.new_episode(4)
    after = signals_of(engine)
    engine.close()
    assert after == before and after["dead"] == after["killcount"] == after["hits_taken"] == 0


def test_signals_tell_where_the_player_is(engine):
    engine.new_episode(0)
    here = signals_of(engine)
    for _ in range(5):
        engine.act(1)
    there = signals_of(engine)
    assert there["position_y"] - here["position_y"] > 10 and there["position_x"] == here["position_x"]


def test_signals_before_the_first_episode_are_refused(engine):
    with pytest.raises(EngineCrashed, match="start an episode before reading"):
        engine.signals()


def test_engines_that_start_in_threads_at_once_do_not_crash_python():
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from neural_env.data.vizdoom import DoomEngine\n"
        "for _ in range(4):\n"
        "    engines = [DoomEngine('take_cover') for _ in range(4)]\n"
        "    with ThreadPoolExecutor(4) as pool:\n"
        "        starts = list(pool.map(lambda engine: engine.new_episode(1)[0], engines))\n"
        "    for engine in engines:\n"
        "        engine.close()\n"
        "    print(all((frame == starts[0]).all() for frame in starts))\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stdout.split()) == (0, ["True"] * 4), ran.stderr


def pictures(scenario, steps, **how):
    """The screens of an episode with random actions, and what else the engine tells of it."""
    engine, rng = DoomEngine(scenario, **how), np.random.default_rng(0)
    first, _ = engine.new_episode(5)
    screens, signals, maps = [first], [engine.signals()], []
    for _ in range(steps):
        step = engine.act(int(rng.integers(len(engine.scenario.actions))))
        screens.append(step.frame)
        signals.append(engine.signals())
        maps += [engine.automap()] if how.get("automap") else []
        if step.terminated or step.truncated:
            break
    engine.close()
    shown = np.stack(screens)
    return shown if engine.palette is None else engine.palette[shown], np.stack(signals), maps


@pytest.mark.parametrize("scenario", [name for name, scenario in SCENARIOS.items() if not scenario.tints])
def test_the_screen_in_its_palette_has_the_same_colours(scenario):
    indexed, signals, _ = pictures(scenario, 60, indexed=True)
    rgb, same_signals, _ = pictures(scenario, 60)
    assert len(rgb) > 10 and (indexed == rgb).all() and (signals == same_signals).all()


def test_the_same_colours_while_the_player_is_hurt_shoots_and_dies():
    indexed, signals, _ = pictures("defend_the_center", 300, indexed=True)
    columns = dict(zip(SIGNALS, signals.T, strict=True))
    assert columns["damage_taken"].max() > 50 and np.ptp(columns["ammo"]) > 0
    assert (indexed == pictures("defend_the_center", 300)[0]).all()


def test_only_scenarios_whose_file_forbids_tints_are_drawn_in_a_palette():
    import vizdoom as vzd

    for name, scenario in SCENARIOS.items():
        content = (Path(vzd.scenarios_path) / f"{name}.cfg").read_text().lower().replace(" ", "")
        assert scenario.tints == ("render_screen_flashes=false" not in content)
        assert (scenario.palette is None) == scenario.tints
    assert DoomEngine("freedoom2:MAP01", indexed=True).palette is None


def test_a_map_shows_how_far_the_player_has_come_and_changes_nothing_else():
    screens, signals, maps = pictures("health_gathering", 40, automap=True)
    without, same_signals, _ = pictures("health_gathering", 40)
    assert (screens == without).all() and (signals == same_signals).all()
    assert maps[0].shape == (120, 160, 3) and maps[0].dtype == np.uint8
    assert any((first != last).any() for first, last in pairwise(maps))
    assert not (maps[5] == screens[6]).all()
    in_palette = pictures("health_gathering", 40, automap=True, indexed=True)[2]
    assert all((a == b).all() for a, b in zip(maps, in_palette, strict=True))


def test_a_map_that_wasnt_asked_for_is_refused(engine):
    engine.new_episode(0)
    with pytest.raises(ValueError, match="make it with automap=True"):
        engine.automap()
