"""Calls timed in turn, so that what else the machine does falls on all of them."""

from __future__ import annotations

from time import perf_counter

import numpy as np


def in_turns(*runs, rounds=12, calls=8):
    """Seconds of each call, `[rounds, runs, calls]`.

    A few calls a turn, of which the first doesn't count: nobody uses two runtimes at once, and the threads of the one
    spin for a while after each call, on the cores of the other. Whose turn is first changes from round to round.
    """
    taken = np.zeros((rounds, len(runs), calls))
    for run in runs:
        run()
    for number in range(rounds):
        for place in np.roll(np.arange(len(runs)), number):
            runs[place]()
            for call in range(calls):
                began = perf_counter()
                runs[place]()
                taken[number, place, call] = perf_counter() - began
    return taken
