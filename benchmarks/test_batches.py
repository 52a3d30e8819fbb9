"""Drawing training batches: windows by number, as the loop does, beside the same windows through Grain."""

import numpy as np
import pytest

from neural_env.training.latents import LatentData, Windows

FRAMES, BATCH, BATCHES = 20_000, 16, 32


@pytest.fixture(scope="module")
def windows():
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((FRAMES, 15, 20, 16), np.float32).astype(np.float16)
    zeros = np.zeros(FRAMES, np.float32)
    starts = np.arange(0, FRAMES + 1, 100)
    data = LatentData(latents, zeros.astype(np.int32), zeros, zeros[:, None], zeros.astype(np.uint8), starts)
    return Windows(data, 4, 0, pictures_only=False)


def test_windows_by_number(benchmark, windows):
    benchmark(lambda: [windows.batch(step, BATCH) for step in range(BATCHES)])


@pytest.mark.parametrize("threads", [0, 2])
def test_windows_through_grain(benchmark, windows, threads):
    grain = pytest.importorskip("grain")
    source = grain.MapDataset.source(windows.index).seed(0).shuffle().repeat()
    one = source.map(lambda row: {name: array[0] for name, array in windows.gather(np.array([row])).items()})
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=BATCH if threads else 0)
    batches = iter(one.batch(BATCH).to_iter_dataset(options))
    benchmark(lambda: [next(batches) for _ in range(BATCHES)])
