import json

import pytest

from neural_env.training import carry


@pytest.fixture
def folder(tmp_path):
    """Two files to carry and three that need not be."""
    out = tmp_path / "world"
    for name, content in {
        "progress.json": b"{}",
        "run/denoiser/weights.safetensors": bytes(range(256)) * 200,
        "run/denoiser/tensorboard/events": b"x",
        "run/autoencoder/state/1/array": b"x",
        "data/random_play/half.tmp": b"x",
    }.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(content)
    return out


@pytest.fixture
def carried(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(carry, "PART_BYTES", 20_000)
    carry.pack(folder, tmp_path / "carry", left_out=["run/autoencoder/state"])
    return tmp_path / "carry"


def test_what_was_packed_comes_back_and_nothing_else(folder, carried, tmp_path):
    assert max(path.stat().st_size for path in carried.iterdir()) <= 20_000
    (tmp_path / "again").mkdir()
    carry.unpack(carried, tmp_path / "again")
    back = {
        str(p.relative_to(tmp_path / "again")): p.read_bytes() for p in (tmp_path / "again").rglob("*") if p.is_file()
    }
    names = ("progress.json", "run/denoiser/weights.safetensors")
    assert back == {name: (folder / name).read_bytes() for name in names}


def test_packing_less_leaves_no_part_of_before(folder, carried):
    before = len(list(carried.iterdir()))
    (folder / "run/denoiser/weights.safetensors").unlink()
    carry.pack(folder, carried, left_out=["run/autoencoder/state"])
    named = {part["name"] for part in json.loads((carried / "carry.json").read_text())}
    assert {path.name for path in carried.iterdir()} == named | {"carry.json"} and len(named) + 1 < before


def test_a_part_that_was_lost_or_cut_short_is_named(carried, tmp_path):
    part = carried / "carry-001"
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(ValueError, match="carry-001 is missing or damaged: carry all files"):
        carry.unpack(carried, tmp_path)


def test_where_nothing_was_carried_yet_nothing_comes(tmp_path):
    carry.unpack(tmp_path / "none", tmp_path)
    assert list(tmp_path.iterdir()) == []
