import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from neural_env.world.parameters import all_arrays, parameters, replaced


class Leaf(nnx.Module):
    def __init__(self, value):
        self.weight = nnx.Param(jnp.full((2, 3), value))


class Tree(nnx.Module):
    def __init__(self):
        self.leaves = nnx.List([Leaf(1.0), Leaf(2.0)])
        self.bias = nnx.Param(jnp.zeros(3))
        self.mean = nnx.Variable(jnp.ones(3))

    def __call__(self, x):
        return x @ self.leaves[0].weight[...] + self.bias[...] - self.mean[...]


def test_names_are_dotted_paths():
    assert set(all_arrays(Tree())) == {"leaves.0.weight", "leaves.1.weight", "bias", "mean"}


def test_measured_statistics_are_arrays_but_not_parameters():
    assert set(all_arrays(Tree())) - set(parameters(Tree())) == {"mean"}


def test_all_arrays_put_into_another_module_make_it_equal(perturbed):
    tree = perturbed(Tree())
    tree.mean[...] = jnp.array([1.0, 2.0, 3.0])
    copy = replaced(Tree(), all_arrays(tree))
    x = jnp.array([[1.0, -1.0]])
    assert (copy(x) == tree(x)).all() and not (Tree()(x) == tree(x)).all()


def test_only_the_named_arrays_are_replaced_and_only_in_the_copy():
    tree = Tree()
    copy = replaced(tree, {"leaves.1.weight": jnp.zeros((2, 3))})
    assert (copy.leaves[1].weight[...] == 0).all() and (copy.leaves[0].weight[...] == 1).all()
    assert (tree.leaves[1].weight[...] == 2).all()
    copy.bias[...] = jnp.ones(3)
    np.testing.assert_array_equal(tree.bias[...], np.zeros(3))


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"no array 'leaves.2.weight' \(2 unknown names\)"):
        replaced(Tree(), {"leaves.2.weight": jnp.zeros(3), "width": jnp.zeros(3)})


def test_an_array_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"leaves.0.weight has shape \(3, 2\), the model's is \(2, 3\)"):
        replaced(Tree(), {"leaves.0.weight": jnp.zeros((3, 2))})
