import pytest


def test_every_product_of_a_step_is_found_once_for_each_call(benchmark_module, tiny_world_folder, capsys):
    layers = benchmark_module("layers")
    found = layers.main(layers.LayersConfig(str(tiny_world_folder), seconds=0.0, top=3))
    stem = next(layer for layer in found if "by 3x3x20x8" in layer.what)  # five latents of four channels, eight wide
    assert stem.calls == 1 and stem.flops == pytest.approx(2 * 15 * 20 * 20 * 8 * 9, rel=0.15)  # less at the border
    assert sum(layer.calls for layer in found) > 20 and all(layer.seconds > 0 for layer in found)
    assert "| the whole step, one program |" in capsys.readouterr().out
