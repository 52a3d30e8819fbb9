from dataclasses import replace

import pytest

from neural_env.data.card import CARD, card_of, write_card
from neural_env.data.shards import Dataset, ShardError, load_manifest, save_manifest


def test_the_card_tells_sizes_players_events_and_the_command(toy_folder):
    card = (toy_folder / CARD).read_text()  # the recorder wrote it
    for line in ("# toy", "make toy", "| train | 18 |", "| kill | 24 |", "| ppo | 17 |", "10 to 170", "0.3 to 5.7"):
        assert line in card
    assert "| random | 7 |" in card and "| noop |" in card and str(toy_folder) not in card


def test_a_card_that_says_the_same_is_left_alone(toy_folder):
    before = (toy_folder / CARD).stat().st_mtime_ns
    write_card(toy_folder)
    assert (toy_folder / CARD).stat().st_mtime_ns == before
    (toy_folder / CARD).write_text("old")
    write_card(toy_folder)
    assert (toy_folder / CARD).read_text() == card_of(Dataset.open(toy_folder))


@pytest.mark.parametrize(
    ("scenario", "licence"),
    [
        ("take_cover", "3-clause BSD"),
        ("freedoom1:E1M1", "3-clause BSD"),
        ("take_cover@doom2", "its owner's licence"),
        ("own.wad:MAP01", "its owner's licence"),
    ],
)
def test_the_licence_is_that_of_what_the_frames_show(toy_folder, scenario, licence):
    save_manifest(replace(load_manifest(toy_folder), scenario=scenario), toy_folder)
    assert licence in card_of(Dataset.open(toy_folder))


def test_a_folder_without_a_dataset_has_no_card(tmp_path):
    with pytest.raises(ShardError, match="no dataset here"):
        write_card(tmp_path)
