"""What docs/environment.md tells a reader to type runs as it stands, on a world whose episodes soon end."""

import re
import shutil
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs/environment.md").read_text()
CHAPTER = "## Agents and other libraries"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
BEFORE, _, AFTER = PAGE.partition(f"\n{CHAPTER}\n")
PRELUDE, *RECIPES = AFTER.split("\n### ")


@pytest.fixture(scope="module")
def bundled(tmp_path_factory, mortal_world_folder):
    """A folder of bundled worlds that holds a small one under the name of the usual one."""
    folder = tmp_path_factory.mktemp("bundled")
    shutil.copytree(mortal_world_folder, folder / "take_cover")
    return folder


@pytest.fixture
def run(bundled, tmp_path, monkeypatch):
    """Runs the code blocks of a text in a folder of their own, and closes what they leave open."""
    monkeypatch.setattr("neural_env.bundled.BUNDLED", bundled)
    monkeypatch.chdir(tmp_path)
    left = {}

    def run(text):
        blocks = BLOCK.findall(text)
        assert blocks
        for block in blocks:
            exec(compile(block, "docs/environment.md", "exec"), left)  # what the page says, in its words
        return left

    yield run
    for value in left.values():
        if not isinstance(value, type) and hasattr(value, "close"):
            value.close()


def test_the_page_up_to_the_recipes(run):
    left = run(BEFORE)
    assert left["observations"].shape == (16, 120, 160, 3)
    assert left["tried"].frames.shape[0] > 1


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.partition("\n")[0])
def test_a_recipe(run, recipe):
    left = run(PRELUDE + recipe.partition("\n## ")[0])
    if "agent" in left:
        assert left["agent"].num_timesteps >= left["agent"]._total_timesteps


def test_there_is_a_recipe_for_each_library():
    titles = {recipe.partition("\n")[0] for recipe in RECIPES}
    assert titles >= {"Pure JAX", "Stable-Baselines3", "SBX", "TorchRL", "dm_env", "PettingZoo"}
