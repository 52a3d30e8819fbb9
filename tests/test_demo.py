import av
import pytest

from neural_env.cli import main
from neural_env.demo import DemoConfig, run_shadow


@pytest.mark.slow
def test_the_demo_films_a_shadow_run_and_prints_how_true_it_is(tiny_world_folder, tmp_path, capsys):
    command = ["demo", "--checkpoint", str(tiny_world_folder), "--out", str(tmp_path), "--steps", "6"]
    assert main([*command, "--episodes", "1", "--rollouts", "1"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "teacher-forced PSNR" in out and "6 shadow steps" in out and "shadow.mp4" in out
    assert (tmp_path / "drift.png").is_file()
    with av.open(str(tmp_path / "shadow.mp4")) as film:
        assert sum(1 for _ in film.decode(video=0)) == 7  # the first frame, and one a step


@pytest.mark.slow
def test_the_filmed_run_goes_on_with_the_next_episode_when_one_ends(mortal_world_folder, tmp_path):
    shadow = run_shadow(DemoConfig(checkpoint=str(mortal_world_folder), out=tmp_path, steps=20))
    assert len(shadow.psnr) == 20 and len(shadow.frames) == 21 and shadow.seconds_per_step > 0
