import pytest

from neural_env.data import wads


def test_the_bundled_games_have_their_maps():
    assert len(wads.maps_of(wads.bundled("freedoom1"))) == 36 and len(wads.maps_of(wads.bundled("freedoom2"))) == 32
    assert wads.is_game(wads.bundled("freedoom1"))


def test_an_added_map_goes_with_the_game_that_has_such_names():
    assert wads.game_for("E2M3").stem == "freedoom1" and wads.game_for("MAP31").stem == "freedoom2"


def test_a_map_is_found_whatever_its_case():
    assert wads.checked_map(wads.bundled("freedoom1"), "e1m1") == "E1M1"


@pytest.mark.parametrize(
    "content", [b"", b"PWAD", b"\x89PNG" + bytes(40), b"IWAD" + b"\xff" * 8, b"PWAD\1\0\0\0\x0c\0\0\0xx"]
)
def test_a_file_that_is_no_wad_is_refused(tmp_path, content):
    path = tmp_path / "broken.wad"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.wad is no WAD"):
        wads.maps_of(path)


def test_a_wad_without_maps_says_so(tmp_path):
    path = tmp_path / "sounds.wad"
    path.write_bytes(b"PWAD\0\0\0\0\x0c\0\0\0")
    with pytest.raises(ValueError, match="choose one of none: it has no maps"):
        wads.checked_map(path, "MAP01")
