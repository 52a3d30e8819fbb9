from neural_env.cli import main


def test_info_prints_the_counts_and_draws_the_sheet(toy_folder, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    assert main(["data", "info", "--data", str(toy_folder), "--sheet", str(sheet)]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("toy", "validation", "ppo", "10 to 170", "noop", "kill", "bytes a frame"))
    assert sheet.read_bytes().startswith(b"\x89PNG")


def test_the_tools_of_a_missing_dataset_end_with_one_message(tmp_path, capsys):
    for tool in ("info", "verify", "card"):
        assert main(["data", tool, "--data", str(tmp_path)]) == 1
        assert "there is no dataset here" in capsys.readouterr().err


def test_films_are_exported_by_name(toy_folder, tmp_path):
    arguments = ["data", "export", "--data", str(toy_folder), "--out", str(tmp_path / "films"), "--format", "mp4"]
    assert main(arguments) == 0
    assert len(list((tmp_path / "films").rglob("*.mp4"))) == 24
