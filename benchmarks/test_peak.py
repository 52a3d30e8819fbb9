"""What this machine can do at best: large matrix products, float32 and bfloat16, in XLA and in PyTorch."""

from __future__ import annotations

import pytest

from neural_env.bench.clock import matrix_products

SIDE = 2048


def products(library):
    if library == "xla":
        return matrix_products(SIDE)
    torch = pytest.importorskip("torch")
    matrices = {kind: torch.ones(SIDE, SIDE, dtype=getattr(torch, kind)) for kind in ("float32", "bfloat16")}
    return {kind: lambda matrix=matrix: matrix @ matrix for kind, matrix in matrices.items()}


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("library", ["xla", "torch"])
def test_peak(benchmark, library, kind):
    benchmark.pedantic(products(library)[kind], rounds=15, warmup_rounds=2)
    if benchmark.stats is not None:  # None under --benchmark-disable
        benchmark.extra_info["gflop_per_s"] = 2 * SIDE**3 / benchmark.stats.stats.median / 1e9
