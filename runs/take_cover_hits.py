"""How well take_cover's deaths could be foretold: by who knows each hit, and by who foresees a share of them.

A fireball takes 21 times a die of eight, so that who knows that one hits, and the health, still knows the death only by
its odds. Average precision of termination, on training episodes: what a world's figure is to be read against.

    .venv/bin/python runs/take_cover_hits.py data/take_cover_agent data/take_cover_sticky
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from neural_env.data.corpus import Corpus
from neural_env.data.episode import Episode
from neural_env.evaluation.calibration import average_precision


def steps_of(episode: Episode) -> np.ndarray:
    """[t, 3]: health before each step, health lost in it, whether it was a life's last; a death loses what is left."""
    health = episode.variables[:, 0]
    dies = np.zeros(len(episode.actions), bool)
    dies[-1] = episode.terminated
    lost = np.where(dies, health[:-1], health[:-1] - health[1:])
    return np.stack([health[:-1], lost, dies], axis=1)


def main(folders: list[str]) -> None:
    """Prints the table."""
    corpus = Corpus.open([Path(folder) for folder in folders], verify=False)
    steps = np.concatenate([steps_of(e) for data in corpus.datasets for e in data.episodes("train")])
    health, lost, dies = steps[:, 0], steps[:, 1], steps[:, 2] == 1
    hit, rng = lost > 0, np.random.default_rng(0)
    deadly = np.mean([21 * die >= health for die in range(1, 9)], axis=0)
    print(f"{len(steps)} steps, {hit.sum()} with a hit, {dies.sum()} deaths")
    known = average_precision(np.where(hit, deadly, 0.0), dies)
    print(f"average precision of who knows every hit, and the health: {known:.2f}")
    for share in (0.8, 0.5, 0.3):
        alarm = (hit & (rng.random(len(hit)) < share)) | (rng.random(len(hit)) < (1 - share) * hit.mean())
        found = average_precision(np.where(alarm, deadly, 1e-3 * deadly), dies)
        print(f"of who foresees {share:.0%} of the hits, with as many false alarms as misses: {found:.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
