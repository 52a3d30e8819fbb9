"""The real game: the only wrapper of `vizdoom.DoomGame`.

ViZDoom runs the engine as a child process that talks through shared memory. What is notable here:

* importing this module doesn't import vizdoom, and the engine starts at the first episode;
* the engine writes its files into a temporary directory of its own, not into the caller's;
* an engine whose Python process was killed would wait for orders for ever; the launcher script ends it;
* equal seeds give equal frames, bit for bit, whatever the engine has played before;
* an engine that dies while it starts takes Python with it (a fault of ViZDoom 1.3); later, `EngineCrashed` is raised;
* ViZDoom has no frame after the last tic of an episode: the terminal frame is the last one that was rendered;
* the engine draws in 256 colours. Where it doesn't tint the screen when the player is hurt or takes something, these
  are always the first of its game's PLAYPAL, and the screen can be had as rows of that: the same picture (tested).
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from neural_env.arrays import Frame
from neural_env.data import wads

if TYPE_CHECKING:
    import vizdoom

NO_OP = "noop"
_SWAY_UNITS = 17  # the weapon never sways by more than 16
_STARTING = threading.Lock()  # two engines that start in two threads at once crash Python (a fault of ViZDoom 1.3)


@dataclass(frozen=True)
class Scenario:
    """A game: one of ViZDoom's own collection, or a map of a WAD.

    An action is a set of buttons that are held together. `buttons` and `variables` repeat the scenario file, where
    there is one (a test compares them), so that spaces need no engine.
    """

    name: str  # of a scenario file, without `.cfg`, or `game:MAP`
    buttons: tuple[str, ...]  # in the file's order
    variables: tuple[str, ...]  # game variables the agent may read, in the file's order
    timeout_tics: int | None  # the scenario's own time limit
    combinations: tuple[tuple[str, ...], ...] = ()  # what each action after the no-op presses; empty: each button alone
    iwad: str | None = None  # path of the game that is played; None: the scenario file's, which is Freedoom 2
    wad: str | None = None  # path of a WAD that is added to it
    map: str | None = None  # which of its maps; None: the scenario file says it all
    tints: bool = True  # whether the screen flashes when the player is hurt or takes something; the file says so

    @property
    def actions(self) -> tuple[tuple[str, ...], ...]:
        """The buttons that each action presses; 0, the no-op, presses none."""
        return ((), *(self.combinations or ((button,) for button in self.buttons)))

    @property
    def action_names(self) -> tuple[str, ...]:
        """`noop`, then the buttons of each action, in lower case, as in `move_forward+attack`."""
        return tuple("+".join(buttons).lower() or NO_OP for buttons in self.actions)

    @property
    def variable_names(self) -> tuple[str, ...]:
        """The game variables, in lower case."""
        return tuple(variable.lower() for variable in self.variables)

    @property
    def palette(self) -> np.ndarray | None:
        """The colours of its screen, uint8 [256, 3], read-only; None where they change with the tints."""
        return None if self.tints else wads.palette_of(Path(self.iwad) if self.iwad else wads.bundled("freedoom2"))

    @property
    def weapon_sways(self) -> bool:
        """Whether the player walks with a weapon on the screen, which sways with the steps."""
        return "ATTACK" in self.buttons and any(button.startswith("MOVE_") for button in self.buttons)


_AIM = ("TURN_LEFT", "TURN_RIGHT", "ATTACK")
_GATHER = ("TURN_LEFT", "TURN_RIGHT", "MOVE_FORWARD")
_FIGHT = (
    ("MOVE_FORWARD",),
    ("MOVE_BACKWARD",),
    ("MOVE_LEFT",),
    ("MOVE_RIGHT",),
    ("TURN_LEFT",),
    ("TURN_RIGHT",),
    ("ATTACK",),
    ("MOVE_FORWARD", "TURN_LEFT"),
    ("MOVE_FORWARD", "TURN_RIGHT"),
    ("MOVE_FORWARD", "SPEED"),
    ("MOVE_FORWARD", "ATTACK"),
    ("MOVE_LEFT", "ATTACK"),
    ("MOVE_RIGHT", "ATTACK"),
    ("TURN_LEFT", "ATTACK"),
    ("TURN_RIGHT", "ATTACK"),
    ("SELECT_NEXT_WEAPON",),
)
"""What a player does in a fight: one key, or two that go together."""

_EXPLORE = (*_FIGHT, ("USE",))
"""A whole map has doors and switches too."""

_CATALOGUE = (
    Scenario("basic", ("MOVE_LEFT", "MOVE_RIGHT", "ATTACK"), ("AMMO2",), 300),
    Scenario(
        "deadly_corridor",
        ("MOVE_LEFT", "MOVE_RIGHT", "ATTACK", "MOVE_FORWARD", "MOVE_BACKWARD", "TURN_LEFT", "TURN_RIGHT"),
        ("HEALTH",),
        2100,
        tints=False,
    ),
    Scenario(
        "deathmatch",  # against the scenario's monsters; its three analogue axes stay at 0
        (
            *("ATTACK", "SPEED", "STRAFE"),
            *("MOVE_RIGHT", "MOVE_LEFT", "MOVE_BACKWARD", "MOVE_FORWARD", "TURN_RIGHT", "TURN_LEFT"),
            *(f"SELECT_WEAPON{slot}" for slot in range(1, 7)),
            *("SELECT_NEXT_WEAPON", "SELECT_PREV_WEAPON"),
            *("LOOK_UP_DOWN_DELTA", "TURN_LEFT_RIGHT_DELTA", "MOVE_LEFT_RIGHT_DELTA"),
        ),
        ("KILLCOUNT", "HEALTH", "ARMOR", "SELECTED_WEAPON", "SELECTED_WEAPON_AMMO"),
        4200,
        _FIGHT,
        tints=False,
    ),
    Scenario("defend_the_center", _AIM, ("AMMO2", "HEALTH"), 2100, tints=False),
    Scenario("defend_the_line", _AIM, ("AMMO2", "HEALTH"), None, tints=False),
    Scenario("health_gathering", _GATHER, ("HEALTH",), 2100, tints=False),
    Scenario("health_gathering_supreme", _GATHER, ("HEALTH",), 2100, tints=False),
    Scenario("my_way_home", (*_GATHER, "MOVE_LEFT", "MOVE_RIGHT"), (), 2100),
    Scenario("predict_position", _AIM, (), 300),
    Scenario("take_cover", ("MOVE_LEFT", "MOVE_RIGHT"), ("HEALTH",), None, tints=False),
)

SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in _CATALOGUE}
"""Every scenario file that can be played, by name."""

_COUNTERS = (
    "health",
    "armor",
    "selected_weapon",  # its slot; -1 unarmed
    "selected_weapon_ammo",  # -1 where it needs none
    "killcount",  # of all monsters that died, those that killed each other too
    "hitcount",  # the player's shots that hit
    "hits_taken",
    "damagecount",  # points of damage that the player did
    "damage_taken",
    "itemcount",  # not of medikits and the like: what they give shows in its own column
    "secretcount",
    "dead",  # 1 from the player's death on
    "position_x",  # map units
    "position_y",
)
_SUMS = {
    "ammo": ("AMMO2", "AMMO3", "AMMO5", "AMMO6"),  # bullets, shells, rockets, cells; whatever weapon is in hand
    "weapons": tuple(f"WEAPON{slot}" for slot in range(1, 8)),  # how many the player has
}

SIGNALS: tuple[str, ...] = (*_COUNTERS, *_SUMS)
"""What the engine tells of any game beside the screen, for rewards and the index of events; no agent sees it.

Counts run from the start of the episode; ViZDoom's DEATHCOUNT, which goes on from episode to episode, is left out.
Measured in ViZDoom 1.3.2: a medikit is no item to `itemcount`; `defend_the_line` hands out a bullet a tic, so there
`ammo` grows without a pick-up.
"""

RESOLUTIONS: dict[tuple[int, int], str] = {(120, 160): "RES_160X120", (240, 320): "RES_320X240"}
"""Screen sizes, height and width in pixels, and ViZDoom's name for each."""


def scenario_named(name: str, iwad: str | None = None) -> Scenario:
    """What `name` means: a key of `SCENARIOS`, or a map as in `freedoom1:E1M1` or `path/to/own.wad:MAP01`.

    `iwad` is the path of a game to play it in, instead of Freedoom; the scenario's name says so, as in
    `take_cover@doom2`. Raises `ValueError` with the names, WADs or maps there are.
    """
    path, colon, map_name = name.rpartition(":")
    if name in SCENARIOS:
        scenario = SCENARIOS[name]
    elif colon:
        scenario = _map_scenario(path, map_name)
    else:
        maps = "a map as in freedoom1:E1M1, freedoom2:MAP01, path/to/own.wad:MAP01"
        raise ValueError(f"unknown scenario {name!r}; choose one of {', '.join(SCENARIOS)}, or {maps}")
    return scenario if iwad is None else _in_game(scenario, Path(iwad))


def _map_scenario(game: str, map_name: str) -> Scenario:
    """A map as a scenario: every way to move, shoot and open doors; no reward of its own, no time limit."""
    wad = wads.bundled(game) if game in wads.BUNDLED else Path(game)
    map_name = wads.checked_map(wad, map_name)
    whole = wads.is_game(wad)
    return Scenario(
        name=f"{wad.stem if game in wads.BUNDLED else wad.name}:{map_name}",
        buttons=tuple(dict.fromkeys(button for buttons in _EXPLORE for button in buttons)),
        variables=("HEALTH", "ARMOR", "SELECTED_WEAPON", "SELECTED_WEAPON_AMMO"),
        timeout_tics=None,
        combinations=_EXPLORE,
        iwad=str(wad.absolute() if whole else wads.game_for(map_name)),
        wad=None if whole else str(wad.absolute()),
        map=map_name,
    )


def _in_game(scenario: Scenario, iwad: Path) -> Scenario:
    if not wads.is_game(iwad):
        raise ValueError(f"{iwad} is no whole game, it adds to one: play it as scenario {iwad}:MAP01")
    if scenario.map is not None and scenario.wad is None:
        raise ValueError(
            f"{scenario.name} is a map of a game of its own: leave iwad out, or name {iwad}:{scenario.map}"
        )
    return replace(scenario, name=f"{scenario.name}@{iwad.stem}", iwad=str(iwad.absolute()))


def checked_resolution(resolution: tuple[int, int]) -> tuple[int, int]:
    """`resolution` as a tuple; raises `ValueError` with the screen sizes there are."""
    size = (int(resolution[0]), int(resolution[1])) if len(resolution) == 2 else None
    if size not in RESOLUTIONS:
        choices = ", ".join(map(str, RESOLUTIONS))
        raise ValueError(f"unknown resolution {resolution!r}; choose one of {choices} (height, width)")
    return size


class EngineCrashed(RuntimeError):
    """The game's process ended or stopped answering; the next episode starts a fresh one."""


@dataclass(frozen=True, eq=False)
class Step:
    """What one action led to."""

    frame: Frame  # the screen after the action; at the end of an episode, the last one rendered. See `palette`
    reward: float  # the scenario's, summed over the tics of the step
    terminated: bool  # the player died or the scenario ended
    truncated: bool  # the scenario's own time ran out, and the player lives
    variables: np.ndarray  # float32 [v]


class DoomEngine:
    """One running game: RGB screens with the HUD on, no window, no sound.

    `frame_skip` is the number of tics an action is held; `scenario` and `iwad` are those of `scenario_named`. With
    `indexed`, frames are uint8 [H, W], rows of `palette`, if the game has one that doesn't change; `palette` is None if
    it hasn't, and without `indexed`. With `automap`, the engine draws the in-game map too. Raises `ValueError` for an
    unknown scenario or resolution.
    """

    def __init__(
        self,
        scenario: str,
        resolution: tuple[int, int] = (120, 160),
        frame_skip: int = 4,
        iwad: str | None = None,
        *,
        indexed: bool = False,
        automap: bool = False,
    ) -> None:
        if frame_skip < 1:
            raise ValueError(f"frame_skip must be at least 1 tic, got {frame_skip}")
        self.scenario = scenario_named(scenario, iwad)
        self.resolution = checked_resolution(resolution)
        self.frame_skip = frame_skip
        self.palette = self.scenario.palette if indexed else None
        self._automap = automap
        self._game: vizdoom.DoomGame | None = None
        self._shut: weakref.finalize[..., DoomEngine] | None = None
        self._presses = _presses(self.scenario)
        self._frame: np.ndarray | None = None
        self._map: np.ndarray | None = None
        self._values: np.ndarray = np.zeros(0)  # of all available game variables, at this moment

    def new_episode(self, seed: int) -> tuple[Frame, np.ndarray]:
        """Start the episode of `seed` (0 to 2**32 - 1): the first frame and the variables, float32 [v]."""
        try:
            game = self._settled(seed)
            return self._screen(game), self.variables_of(self._values)
        except BaseException as error:
            self._fail(error)

    def act(self, action: int) -> Step:
        """Hold the buttons of `action` (0 is none) for `frame_skip` tics; raises `EngineCrashed`."""
        if self._game is None:
            raise EngineCrashed("no game is running: start an episode before acting")
        game = self._game
        try:
            reward = float(game.make_action(self._presses[action], self.frame_skip))
            finished = game.is_episode_finished()
            truncated = finished and game.is_episode_timeout_reached() and not game.is_player_dead()
            frame = self._last_screen(game) if finished else self._screen(game)
            return Step(frame, reward, finished and not truncated, truncated, self.variables_of(self._values))
        except BaseException as error:
            self._fail(error)

    def signals(self) -> np.ndarray:
        """The `SIGNALS` of this moment, float32 [s], after the last tic too; raises `EngineCrashed`."""
        if self._game is None:
            raise EngineCrashed("no game is running: start an episode before reading its signals")
        return self.signals_of(self._values)

    @property
    def values(self) -> np.ndarray:
        """All that is known of this moment beside the screen: float64 [n], for `variables_of` and `signals_of`."""
        return self._values

    def variables_of(self, values: np.ndarray) -> np.ndarray:
        """The scenario's variables, float32 [..., v], of values [..., n]."""
        return values[..., : len(self.scenario.variables)].astype(np.float32)

    def signals_of(self, values: np.ndarray) -> np.ndarray:
        """The `SIGNALS`, float32 [..., s], of values [..., n]."""
        columns, starts = _signal_columns(self.scenario.variables)
        return np.add.reduceat(values[..., columns], starts, axis=-1).astype(np.float32)

    def automap(self) -> Frame:
        """The in-game map at the moment of the last frame: what the player has seen of the level, uint8 [H, W, 3].

        Raises `EngineCrashed` before the first episode, `ValueError` if the engine draws none.
        """
        if not self._automap:
            raise ValueError("this engine draws no map: make it with automap=True")
        if self._map is None:
            raise EngineCrashed("there is no map yet: start an episode before looking at it")
        return self._map if self.palette is None else self.palette.take(self._map, axis=0)

    def close(self) -> None:
        """End the game's process and remove its files; may be called again."""
        if self._shut is not None:
            self._shut()
        self._game = self._shut = self._frame = self._map = None

    def _settled(self, seed: int) -> vizdoom.DoomGame:
        """The game at the start of the episode, with nothing on the screen that the last episode left behind.

        The engine keeps the weapon's sway from episode to episode, and lets it fade by a unit for each screen it draws.
        So a player who stands still for a moment makes all starts equal, and then the episode begins again.
        """
        used = self._game is not None
        game = self._running()
        _begin(game, seed)
        if used and self.scenario.weapon_sways:
            for _ in range(_SWAY_UNITS):
                game.make_action(self._presses[0], 1)
            _begin(game, seed)
        return game

    def _running(self) -> vizdoom.DoomGame:
        """The game, started if it wasn't."""
        if self._game is None:
            home = Path(tempfile.mkdtemp(prefix="neural_env-doom-"))
            game = _configured(self.scenario, self.resolution, home)
            _set_buffers(game, indexed=self.palette is not None, automap=self._automap)
            self._shut = weakref.finalize(self, _shut_down, game, home, _lifeline(home))
            game.set_vizdoom_path(str(_launcher(home)))
            with _STARTING:
                game.init()
            self._game = game
        return self._game

    def _fail(self, error: BaseException) -> NoReturn:
        """Leave nothing of the engine behind, and turn ViZDoom's failures into `EngineCrashed`.

        Ctrl-C ends it too: an engine that was interrupted is out of step with us.
        """
        self.close()
        if isinstance(error, _failures()):
            cure = "reset to start a fresh one"
            raise EngineCrashed(f"the Doom engine of {self.scenario.name!r} stopped ({error}); {cure}") from error
        raise error

    def _screen(self, game: vizdoom.DoomGame) -> Frame:
        """The screen now; ViZDoom hands out a buffer of its own at every state, so it may be kept."""
        state = game.get_state()
        frame: np.ndarray = state.screen_buffer
        self._frame = frame
        values = state.game_variables
        assert values is not None  # the signals' are always asked for
        self._values = values
        if self._automap:
            self._map = state.automap_buffer
        return frame

    def _last_screen(self, game: vizdoom.DoomGame) -> Frame:
        """After the last tic there is no state: variables are read one by one."""
        if self._frame is None:
            raise EngineCrashed("the episode has no frame: start an episode before acting")
        self._values = np.array([game.get_game_variable(v) for v in game.get_available_game_variables()])
        return self._frame.copy()


_SOURCES = [_SUMS.get(name, (name.upper(),)) for name in SIGNALS]
"""The game variables that add up to each of the `SIGNALS`."""


def _read_variables(scenario_variables: Sequence[str]) -> tuple[str, ...]:
    """All game variables that the engine is asked for at every step: the scenario's, then those of the signals."""
    return tuple(dict.fromkeys([*scenario_variables, *(name for sources in _SOURCES for name in sources)]))


@cache
def _failures() -> tuple[type[BaseException], ...]:
    """ViZDoom's, of an engine that ended or doesn't answer."""
    import vizdoom as vzd

    return (
        vzd.ViZDoomErrorException,
        vzd.ViZDoomUnexpectedExitException,
        vzd.ViZDoomIsNotRunningException,
        vzd.SharedMemoryException,
        vzd.MessageQueueException,
    )


@cache
def _signal_columns(scenario_variables: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Which of `_read_variables` add up to the signals, one signal after the other, and where each one begins."""
    read = _read_variables(scenario_variables)
    columns = [read.index(name) for sources in _SOURCES for name in sources]
    return np.array(columns), np.cumsum([0, *map(len, _SOURCES[:-1])])


def _begin(game: vizdoom.DoomGame, seed: int) -> None:
    game.set_seed(seed)
    game.new_episode()


def _presses(scenario: Scenario) -> list[list[bool]]:
    """What to press for each action, a flag a button."""
    return [[button in pressed for button in scenario.buttons] for pressed in scenario.actions]


def _configured(scenario: Scenario, resolution: tuple[int, int], home: Path) -> vizdoom.DoomGame:
    """A game with the scenario's rules and our screen, not yet started."""
    import vizdoom as vzd

    game = vzd.DoomGame()
    if scenario.map is None:
        game.load_config(str(Path(vzd.scenarios_path) / f"{scenario.name.split('@')[0]}.cfg"))
    else:
        _set_map(game, scenario, scenario.map)
    if scenario.iwad is not None:
        game.set_doom_game_path(scenario.iwad)
    game.set_doom_config_path(str(home / "vizdoom.ini"))
    game.set_mode(vzd.Mode.PLAYER)
    game.set_available_game_variables([getattr(vzd.GameVariable, name) for name in _read_variables(scenario.variables)])
    game.set_screen_resolution(getattr(vzd.ScreenResolution, RESOLUTIONS[resolution]))
    game.set_render_hud(True)
    game.set_window_visible(False)
    game.set_sound_enabled(False)
    return game


def _set_map(game: vizdoom.DoomGame, scenario: Scenario, map_name: str) -> None:
    """What a scenario file says, for a map that has none."""
    import vizdoom as vzd

    if scenario.wad is not None:
        game.set_doom_scenario_path(scenario.wad)
    game.set_doom_map(map_name)
    game.set_available_buttons([getattr(vzd.Button, name) for name in scenario.buttons])


def _set_buffers(game: vizdoom.DoomGame, *, indexed: bool, automap: bool) -> None:
    """What the engine draws; the map shows walls as lines, as the game's own does, and no monsters."""
    import vizdoom as vzd

    game.set_screen_format(vzd.ScreenFormat.DOOM_256_COLORS8 if indexed else vzd.ScreenFormat.RGB24)
    if automap:
        game.set_automap_buffer_enabled(True)
        game.set_automap_mode(vzd.AutomapMode.NORMAL)
        game.set_automap_render_textures(False)


_LAUNCHER = """#!/bin/sh
trap '' INT
cd {home} || exit 1
exec 3<lifeline || exit 1
( trap '' HUP TERM; read -r _ <&3 || {{ kill -9 $$; cd /; rm -rf {home}; }} ) >/dev/null 2>&1 &
exec {engine} "$@" 3<&-
"""


def _launcher(home: Path) -> Path:
    """A script that starts the engine in `home`, and ends it if the lifeline is cut without a word.

    The engine makes `_vizdoom/` in its working directory and has no option against it, and changing ours would be
    felt by every thread. Ctrl-C is for Python alone: the engine ignores it, and is then closed in order. A signal to
    the whole process group mustn't take the watcher before it has done its work.
    """
    import vizdoom as vzd

    engine = Path(vzd.__file__).parent / "vizdoom"
    script = home / "vizdoom.sh"
    script.write_text(_LAUNCHER.format(home=shlex.quote(str(home)), engine=shlex.quote(str(engine))))
    os.chmod(script, 0o700)
    if not (os.access(script, os.X_OK) and os.access(engine, os.X_OK)):  # ViZDoom would crash the interpreter
        cure = "set TMPDIR to a folder that may hold programs, or install vizdoom again"
        raise EngineCrashed(f"{script} or {engine} may not be executed; {cure}")
    return script


def _lifeline(home: Path) -> int:
    """The writing end of a FIFO, which the system closes when this process dies, however it dies."""
    os.mkfifo(home / "lifeline")
    return os.open(home / "lifeline", os.O_RDWR)  # for writing only, it would wait for the reader


def _shut_down(game: vizdoom.DoomGame, home: Path, lifeline: int) -> None:
    game.close()
    os.write(lifeline, b"closed\n")
    os.close(lifeline)
    shutil.rmtree(home, ignore_errors=True)
