"""A cache folder of the tests' own, kept from test to test."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURAL_ENV_CACHE", str(folder))
        yield folder
