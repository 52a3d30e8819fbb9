import pytest

pytest.importorskip("stable_baselines3")


@pytest.mark.slow
def test_both_trainers_have_a_rate(benchmark_module, tiny_world_folder, capsys):
    ppo_in_dream = benchmark_module("ppo_in_dream")
    config = ppo_in_dream.PpoConfig(str(tiny_world_folder), "tiny", envs=2, n_steps=4, minibatch=8, seconds=0.01)
    rates = ppo_in_dream.main(config)
    assert rates.keys() == {"compiled end to end", "Stable-Baselines3"} and min(rates.values()) > 0.1
    assert "| Stable-Baselines3 |" in capsys.readouterr().out
