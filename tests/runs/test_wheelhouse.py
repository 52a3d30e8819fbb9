import importlib.util
import zipfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "runs" / "wheelhouse.py"


@pytest.fixture(scope="module")
def wheelhouse():
    spec = importlib.util.spec_from_file_location("wheelhouse", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def wheel(tmp_path, wheelhouse):
    """A wheel with an engine, two games and a RECORD."""
    files = {"game/engine": b"e", "game/one.wad": b"1" * 1000, "game/two.wad": b"2" * 1000}
    rows = [[name, wheelhouse._digest(content), str(len(content))] for name, content in files.items()]
    rows.append(["game-1.dist-info/RECORD", "", ""])
    path = tmp_path / "game-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as out:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o100755 << 16
            out.writestr(info, content)
        out.writestr(rows[-1][0], wheelhouse._recorded(rows))
    return path


def test_a_wheel_loses_what_is_left_out_from_its_record_too(wheelhouse, wheel):
    wheelhouse.pack_again(wheel, r"game/one\.wad")
    with zipfile.ZipFile(wheel) as packed:
        assert packed.namelist() == ["game/engine", "game/two.wad", "game-1.dist-info/RECORD"]
        assert b"one.wad" not in packed.read("game-1.dist-info/RECORD")
        assert packed.getinfo("game/engine").external_attr >> 16 == 0o100755


def test_leaving_out_what_is_not_there_is_refused(wheelhouse, wheel):
    before = wheel.read_bytes()
    with pytest.raises(ValueError, match=r"has no file like game/three"):
        wheelhouse.pack_again(wheel, "game/three")
    assert wheel.read_bytes() == before


def test_every_package_of_the_wheelhouse_has_a_tested_version(wheelhouse):
    assert all(wheelhouse.version(name) for name in wheelhouse.PACKAGES)
