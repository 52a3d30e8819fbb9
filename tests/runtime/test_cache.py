from neural_env.runtime import cache


def test_an_entry_comes_back_as_it_was(monkeypatch, tmp_path):
    monkeypatch.setenv("NEURAL_ENV_CACHE", str(tmp_path / "new" / "folder"))
    cache.write("entry", [b"one\n", b"", b"\x00three"])
    assert cache.read("entry") == [b"one\n", b"", b"\x00three"]


def test_what_was_never_written_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("NEURAL_ENV_CACHE", str(tmp_path))
    assert cache.read("entry") is None


def test_a_damaged_entry_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv("NEURAL_ENV_CACHE", str(tmp_path))
    cache.write("entry", [b"a program"])
    whole = (tmp_path / "entry").read_bytes()
    for damaged in (whole[:-1], whole[:-1] + b"X", b"", b"\n\n\n", b"another/1\n" + whole.split(b"\n", 1)[1]):
        (tmp_path / "entry").write_bytes(damaged)
        assert cache.read("entry") is None


def test_no_temporary_file_is_left(monkeypatch, tmp_path):
    monkeypatch.setenv("NEURAL_ENV_CACHE", str(tmp_path))
    cache.write("entry", [b"a program"])
    assert [path.name for path in tmp_path.iterdir()] == ["entry"]


def test_a_folder_that_cannot_be_made_is_no_error(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("NEURAL_ENV_CACHE", str(tmp_path / "file" / "folder"))
    cache.write("entry", [b"a program"])
    assert cache.read("entry") is None


def test_the_folder_is_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("NEURAL_ENV_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "neural_env"
