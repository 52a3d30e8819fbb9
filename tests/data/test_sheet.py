import numpy as np

from neural_env.data.shards import Dataset
from neural_env.data.sheet import COLUMNS, sheet_rows, write_sheet


def test_a_row_shows_the_frames_that_its_events_led_to(toy_folder):
    dataset = Dataset.open(toy_folder)
    rows = dict(sheet_rows(dataset))
    assert list(rows) == ["start", "any", "kill", "death"]
    episodes = [e for split in ("train", "validation", "test") for e in dataset.episodes(split)]
    kills = {e.frames[3].tobytes() for e in episodes}
    assert all(frame.tobytes() in kills for frame in rows["kill"]) and len(rows["kill"]) == COLUMNS
    starts = {e.frames[0].tobytes() for e in episodes}
    assert all(frame.tobytes() in starts for frame in rows["start"])


def test_the_sheet_is_a_picture(toy_folder, tmp_path):
    write_sheet(Dataset.open(toy_folder), tmp_path / "new" / "sheet.png")
    import matplotlib.image

    picture = matplotlib.image.imread(tmp_path / "new" / "sheet.png")
    assert picture.shape[1] > 1000 and np.std(picture) > 0.05
