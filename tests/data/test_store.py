import fsspec
import pytest

from neural_env.cli import main
from neural_env.data.collect import CollectConfig, collect
from neural_env.data.shards import MANIFEST, Dataset, ShardError
from neural_env.data.store import Remote, fetch, store_at


def short(out, **changes):
    return CollectConfig(out=out, **{"scenario": "basic", "episodes": 6, "episodes_per_shard": 3, **changes})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A dataset in a folder."""
    out = tmp_path_factory.mktemp("whole")
    collect(short(out))
    return out


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def memory():
    """A URL of a file system in this process's memory, empty."""
    yield "memory://store/dataset"
    fsspec.filesystem("memory").store.clear()
    fsspec.filesystem("memory").pseudo_dirs[:] = [""]


def stored(url):
    files, root = fsspec.url_to_fs(url)
    return {path.rpartition("/")[2]: files.cat_file(path) for path in files.ls(root, detail=False)}


def test_a_collection_to_a_url_is_the_same_as_one_to_a_folder(whole, memory):
    collect(short(memory))
    assert stored(memory) == contents(whole)


def test_a_fetched_dataset_is_the_collected_one(whole, memory, tmp_path):
    collect(short(memory))
    assert main(["data", "fetch", "--url", memory, "--out", str(tmp_path / "here")]) == 0
    assert contents(tmp_path / "here") == contents(whole)
    Dataset.open(tmp_path / "here")


def test_what_is_there_already_is_not_fetched_again(memory, tmp_path, monkeypatch):
    collect(short(memory))
    fetch(memory, tmp_path)
    (lost := next(tmp_path.glob("train*.array_record"))).write_bytes(b"cut short")
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.array_record")}
    fetch(memory, tmp_path)
    assert {path for path in times if path.stat().st_mtime_ns != times[path]} == {lost}
    Dataset.open(tmp_path)


def test_an_altered_or_missing_shard_is_not_fetched(memory, tmp_path):
    collect(short(memory))
    files, root = fsspec.url_to_fs(memory)
    shard = next(name for name in stored(memory) if name.startswith("train"))
    files.pipe_file(f"{root}/{shard}", stored(memory)[shard][:-1] + b"?")
    with pytest.raises(ShardError, match="altered"):
        fetch(memory, tmp_path)
    files.rm_file(f"{root}/{shard}")
    with pytest.raises(ShardError, match="missing"):
        fetch(memory, tmp_path)
    assert not (tmp_path / MANIFEST).exists()


def test_an_upload_that_arrives_damaged_is_refused_and_leaves_no_shard(memory, monkeypatch):
    files, _ = fsspec.url_to_fs(memory)
    whole_upload = type(files).put_file

    def damaged(self, local, remote, **more):
        whole_upload(self, local, remote, **more)
        if ".array_record" in remote:
            self.pipe_file(remote, self.cat_file(remote)[:-1])

    monkeypatch.setattr(type(files), "put_file", damaged)
    with pytest.raises(ShardError, match=r"the upload to memory.* failed"):
        collect(short(memory))
    assert not any(name.endswith((".array_record", ".tmp")) for name in stored(memory))


def test_an_interrupted_collection_to_a_url_goes_on(whole, memory):
    files, root = fsspec.url_to_fs(memory)
    files.makedirs(root, exist_ok=True)
    collect(short(memory, episodes=3))
    files.pipe_file(f"{root}/train-00000.array_record.77.tmp", b"left over")
    collect(short(memory))
    assert stored(memory) == contents(whole)


def test_a_place_that_cannot_be_reached_is_named():
    with pytest.raises(ValueError, match="nosuch://bucket/data can't be reached"):
        Remote("nosuch://bucket/data").load()
    with pytest.raises(ShardError, match="there is no dataset at memory://empty"):
        fetch("memory://empty", "unused")


def test_plain_paths_are_folders(tmp_path):
    assert type(store_at(tmp_path)).__name__ == type(store_at(str(tmp_path))).__name__ == "Folder"


def test_readers_refuse_a_url_with_the_cure():
    with pytest.raises(ValueError, match=r"s3://bucket/data is no folder: .*neural-env data fetch"):
        Dataset.open("s3://bucket/data")
