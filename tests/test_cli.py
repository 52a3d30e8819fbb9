import pytest

from neural_env import cli
from neural_env.cli import main


def ended(capsys, *arguments):
    """Exit status, output and errors of a command that ends by itself."""
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    return caught.value.code, *capsys.readouterr()


def test_help_names_every_verb(capsys):
    code, out, _ = ended(capsys, "--help")
    assert code == 0
    verbs = ("collect", "train", "bundle", "release", "evaluate", "demo", "bench", "tpu-report")
    assert all(verb in out for verb in ("neural-env", *verbs))


VERBS = [
    *("train rollout", "train distill", "train sampler", "train decoder", "train dream-agent"),
    *("collect", "data", "data fetch", "data import", "train", "train denoiser", "train agent", "bundle"),
    *("evaluate world", "evaluate compare", "evaluate card", "evaluate agent", "evaluate truth", "transfer"),
    *("evaluate planning", "release", "world", "ablate", "demo", "bench", "tpu-report"),
]


@pytest.mark.parametrize("verb", map(str.split, VERBS))
def test_every_verb_has_help(capsys, verb):
    code, out, _ = ended(capsys, *verb, "--help")
    assert code == 0 and "neural-env " + " ".join(verb) in out


def test_the_help_of_a_stage_explains_its_options_without_prefixes(capsys):
    _, out, _ = ended(capsys, "train", "outcome", "--help")
    assert "--steps" in out and "--data" in out and "--preset" in out and "--loop.steps" not in out


def test_an_unknown_verb_fails(capsys):
    code, _, errors = ended(capsys, "dream")
    assert code == 2 and "dream" in errors


def test_a_missing_option_is_named(capsys):
    code, _, errors = ended(capsys, "train", "denoiser", "--data", "somewhere")
    assert code == 2 and "--out" in errors


def test_an_error_that_users_can_mend_is_one_message_without_a_traceback(capsys, tmp_path):
    assert main(["train", "denoiser", "--data", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 1
    _, errors = capsys.readouterr()
    assert errors.startswith("error: ") and "there is no dataset here" in errors and "Traceback" not in errors


def test_a_missing_checkpoint_is_one_message_too(capsys, tmp_path):
    assert main(["evaluate", "world", "--checkpoint", str(tmp_path / "none")]) == 1
    assert "there is no folder of that name" in capsys.readouterr().err


def test_brackets_in_a_message_are_printed_as_they_are(capsys, tmp_path):
    odd = tmp_path / "run[bold]1[/]"
    assert main(["evaluate", "world", "--checkpoint", str(odd)]) == 1
    assert str(odd) in capsys.readouterr().err


def test_an_error_of_ours_keeps_its_traceback(monkeypatch, tmp_path):
    def broken(config):
        raise AssertionError("this can't be")

    monkeypatch.setattr(cli, "demo", broken)
    with pytest.raises(AssertionError, match="this can't be"):
        main(["demo", "--out", str(tmp_path)])
