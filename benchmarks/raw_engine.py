"""The raw engine's rate, one game in this process: `raw_engine.py SCENARIO START SECONDS` prints steps a second.

What it does and why is told in `neural_env/bench/engine.py`.
"""

from __future__ import annotations

import sys

from neural_env.bench.engine import play

if __name__ == "__main__":
    print(play(sys.argv[1], float(sys.argv[2]), float(sys.argv[3])))
