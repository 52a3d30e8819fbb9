import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from neural_env.cli import main
from neural_env.data.card import CARD
from neural_env.data.minari import export_minari, import_minari
from neural_env.data.recorder import Recorder
from neural_env.data.shards import Dataset, ShardError
from neural_env.game import GameConfig

minari = pytest.importorskip("minari")
ID = "doom/toy-v0"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_there_and_back_gives_the_same_files_bit_for_bit(toy_folder, tmp_path):
    out, back = tmp_path / "minari", tmp_path / "back"
    assert main(["data", "export", "--data", str(toy_folder), "--out", str(out)]) == 0
    assert main(["data", "import", "--source", str(out / ID), "--out", str(back)]) == 0
    assert contents(back) == contents(toy_folder) and CARD in contents(back)


def test_minari_itself_reads_the_export_without_loss(toy_folder, tmp_path, monkeypatch):
    dataset = Dataset.open(toy_folder)
    assert export_minari(dataset, tmp_path, ID) == 24
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    there = minari.load_dataset(ID)
    assert there.total_episodes == 24
    ours = [e for split in ("train", "validation", "test") for e in dataset.episodes(split)]
    for theirs, episode in zip(there.iterate_episodes(), ours, strict=True):
        assert theirs.observations.dtype == np.uint8 and np.array_equal(theirs.observations, episode.frames)
        assert np.array_equal(theirs.actions, episode.actions) and np.array_equal(theirs.rewards, episode.rewards)
        assert theirs.terminations.tolist() == [False] * (len(episode) - 1) + [episode.terminated]
        assert theirs.truncations.tolist() == [False] * (len(episode) - 1) + [episode.truncated]
        assert np.array_equal(theirs.infos["variables"]["health"], episode.variables[:, 0])
        assert np.array_equal(theirs.infos["signals"]["killcount"], episode.signals[:, 0])


def test_a_foreign_minari_dataset_is_refused(toy_folder, tmp_path):
    export_minari(Dataset.open(toy_folder), tmp_path, ID)
    path = tmp_path / ID / "data" / "metadata.json"
    metadata = json.loads(path.read_text())
    del metadata["neural_env_manifest"]
    path.write_text(json.dumps(metadata))
    with pytest.raises(ShardError, match="only its own exports come back"):
        import_minari(tmp_path / ID, tmp_path / "back")


def test_what_would_be_overwritten_is_refused(toy_folder, tmp_path):
    dataset = Dataset.open(toy_folder)
    export_minari(dataset, tmp_path, ID)
    with pytest.raises(ValueError, match="exists already: choose another dataset id"):
        export_minari(dataset, tmp_path, ID)
    with pytest.raises(ValueError, match="holds a dataset already"):
        import_minari(tmp_path / ID, toy_folder)


def test_a_folder_that_is_no_dataset_and_an_id_that_is_none_are_refused(toy_folder, tmp_path):
    with pytest.raises(ShardError, match="no Minari dataset here"):
        import_minari(tmp_path, tmp_path / "back")
    with pytest.raises(ValueError, match="no dataset id of Minari's"):
        export_minari(Dataset.open(toy_folder), tmp_path, "not an id")


def test_without_minari_the_extra_is_named(toy_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(ImportError, match=r"neural-env\[minari\]"):
        export_minari(Dataset.open(toy_folder), tmp_path, ID)


def test_frames_in_a_palette_come_back_as_the_same_files(toy_folder, tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (9, 3), np.uint8)
    toy, first = Dataset.open(toy_folder), tmp_path / "first"
    game = GameConfig(toy.scenario, toy.action_names, toy.variable_names, toy.frame_skip, toy.resolution)
    with Recorder(first, game, policy="ppo", signal_names=toy.manifest.signal_names) as recorder:
        for episode in toy.episodes("train"):
            recorder.add(replace(episode, frames=episode.frames[..., 0] % 9, palette=colours))
    export_minari(Dataset.open(first), tmp_path / "minari", ID)
    import_minari(tmp_path / "minari" / ID, tmp_path / "second")
    assert Dataset.open(tmp_path / "second").manifest_hash == Dataset.open(first).manifest_hash
