"""How like the truth single frames are: the auto-encoder's ceiling, the next frame, the status bar, by every D."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from neural_env.evaluation.bootstrap import mean
from neural_env.evaluation.frames import hud, psnr, ssim
from neural_env.evaluation.jpeg import quality_of_equal_psnr
from neural_env.evaluation.lpips import lpips
from neural_env.evaluation.rows import Row
from neural_env.evaluation.weights import Net
from neural_env.evaluation.world import Forced

SECTION = "next frame, teacher-forced"
CEILING = "auto-encoder alone"
COPY = "copy the last frame"


@dataclass(frozen=True)
class Distance:
    """A D of the objective E[D(o_q, o_p)]."""

    name: str
    unit: str
    digits: int
    measure: Callable[[np.ndarray, np.ndarray], np.ndarray]


def distances(nets: tuple[Net, ...]) -> list[Distance]:
    """PSNR, SSIM, and LPIPS by these networks."""
    named = {"alexnet": "AlexNet", "vgg16": "VGG16"}
    perceptual = [Distance(f"LPIPS ({named[n]})", "", 3, lambda a, b, n=n: lpips(a, b, n)) for n in nets]  # type: ignore[misc]
    return [Distance("PSNR", "dB", 2, psnr), Distance("SSIM", "", 3, ssim), *perceptual]


def frame_rows(forced: Forced, costly: int, nets: tuple[Net, ...]) -> list[Row]:
    """The next frame by every distance; the perceptual ones on at most `costly` pictures, spread evenly."""
    shown = forced.shown
    some = np.linspace(0, len(shown) - 1, min(costly, len(shown))).astype(int)
    rows = []
    for distance in distances(nets):
        chosen = np.arange(len(shown)) if distance.name == "PSNR" else some
        picked = shown[chosen]
        groups, after = picked.episode, picked.after
        value, ceiling, copied = (
            mean(distance.measure(frames, after), groups)
            for frames in (forced.frames[chosen], forced.reconstructed[chosen], picked.present)
        )
        baselines = {CEILING: ceiling, COPY: copied}
        note = f"{len(chosen)} frames"
        rows.append(Row(SECTION, distance.name, value, distance.unit, distance.digits, baselines, note))
    return [*rows, hud_row(forced), jpeg_row(forced, some)]


def policy_rows(forced: Forced, players: Sequence[str]) -> list[Row]:
    """PSNR by who played; `players` names the one of each episode. Nothing where all are the same."""
    who = np.array(players)[forced.shown.episode]
    names = list(dict.fromkeys(players))
    return [_of_player(forced, name, np.flatnonzero(who == name)) for name in names] if len(names) > 1 else []


def _of_player(forced: Forced, name: str, rows: np.ndarray) -> Row:
    if not len(rows):
        return Row(SECTION, f"PSNR, {name}", None, "dB", note="no picture of these episodes")
    shown = forced.shown[rows]
    value, copied = (mean(psnr(frames, shown.after), shown.episode) for frames in (forced.frames[rows], shown.present))
    return Row(SECTION, f"PSNR, {name}", value, "dB", 2, {COPY: copied}, f"{len(rows)} frames")


def hud_row(forced: Forced) -> Row:
    """PSNR of the status bar alone, where the numbers are."""
    shown = forced.shown
    after = hud(shown.after)
    value, ceiling, copied = (
        mean(psnr(hud(frames), after), shown.episode) for frames in (forced.frames, forced.reconstructed, shown.present)
    )
    return Row(SECTION, "PSNR of the HUD", value, "dB", 2, {CEILING: ceiling, COPY: copied})


def jpeg_row(forced: Forced, some: np.ndarray) -> Row:
    """The quality at which JPEG is as far from the truth: the paper's yardstick (about 20 to 30 for its world)."""
    shown = forced.shown[some]
    after, groups = shown.after, shown.episode
    name, note = "JPEG quality of equal PSNR", "GameNGen's world: about 20 to 30"
    try:
        value, ceiling = (
            quality_of_equal_psnr(after, psnr(frames[some], after), groups)
            for frames in (forced.frames, forced.reconstructed)
        )
    except ImportError:
        return Row(SECTION, name, None, note="needs pip install pillow")
    return Row(SECTION, name, value, "", 0, {CEILING: ceiling}, note)
