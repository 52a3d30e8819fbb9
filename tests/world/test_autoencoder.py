import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from neural_env.world.autoencoder import Autoencoder, AutoencoderConfig, from_patches, to_frames, to_patches, to_pixels
from neural_env.world.parameters import replaced

TINY = AutoencoderConfig(channels=4, encoder_width=8, encoder_blocks=1, decoder_width=8, decoder_blocks=1)


@pytest.fixture(scope="module")
def autoencoder(perturbed):
    return perturbed(Autoencoder(TINY, (32, 40), rngs=nnx.Rngs(0)))


def pixels(*shape):
    return jax.random.uniform(jax.random.key(0), shape, minval=-1.0)


def test_every_grey_level_survives_the_way_to_pixels_and_back():
    levels = jnp.arange(256, dtype=jnp.uint8).repeat(3).reshape(1, 16, 16, 3)
    there = to_pixels(levels)
    assert there.dtype == jnp.float32 and (there.min(), there.max()) == (-1, 1)
    back = to_frames(there)
    assert back.dtype == jnp.uint8 and (back == levels).all()


def test_pixels_out_of_range_are_clipped_not_wrapped():
    assert to_frames(jnp.array([-1.5, 1.5, 0.0]).reshape(1, 1, 3)).ravel().tolist() == [0, 255, 128]


def test_a_patch_holds_one_square_of_the_frame():
    frame = pixels(2, 24, 16, 3)
    patches = to_patches(frame, 8)
    assert patches.shape == (2, 3, 2, 192)
    assert (patches[1, 2, 1] == frame[1, 16:24, 8:16].ravel()).all()


@pytest.mark.parametrize("patch", [4, 8])
def test_patches_put_together_again_are_the_frame(patch):
    frame = pixels(2, 24, 40, 3)
    assert (from_patches(to_patches(frame, patch), patch) == frame).all()


def test_the_latent_has_one_place_a_patch_and_decodes_to_the_frames_shape(autoencoder):
    latent = autoencoder.encode(pixels(3, 32, 40, 3))
    assert latent.shape == (3, 4, 5, 4)
    assert autoencoder.decode(latent).shape == (3, 32, 40, 3)


def test_the_grid_of_the_games_screen_is_odd_and_that_is_fine():
    assert TINY.grid((120, 160)) == (15, 20)


@pytest.mark.parametrize("resolution", [(121, 160), (120, 164)])
def test_a_resolution_that_patches_do_not_tile_is_refused(resolution):
    with pytest.raises(ValueError, match=rf"\(\d+, {resolution[1]}\) must be a multiple of the patch size 8"):
        Autoencoder(TINY, resolution, rngs=nnx.Rngs(0))


def test_encoding_standardises_codes_and_decoding_undoes_it(autoencoder):
    statistics = {"latent_mean": jnp.array([1.0, -2.0, 0.0, 5.0]), "latent_std": jnp.array([0.5, 2.0, 1.0, 4.0])}
    scaled = replaced(autoencoder, statistics)
    x = pixels(2, 32, 40, 3)
    codes = autoencoder.codes(x)
    expected = (codes - jnp.array([1.0, -2.0, 0.0, 5.0])) / jnp.array([0.5, 2.0, 1.0, 4.0])
    np.testing.assert_allclose(scaled.encode(x), expected, atol=1e-5)
    np.testing.assert_allclose(scaled.decode(scaled.encode(x)), autoencoder.pixels(codes), atol=1e-4)


def test_decoding_does_not_clip_so_that_a_loss_sees_overshoot(autoencoder):
    assert jnp.abs(autoencoder.decode(100 * jnp.ones((1, 4, 5, 4)))).max() > 1


def test_the_residual_paths_start_as_nothing():
    fresh = Autoencoder(TINY, (32, 40), rngs=nnx.Rngs(0))
    x = pixels(1, 32, 40, 3)
    np.testing.assert_allclose(fresh.codes(x), fresh.encoder.linear(to_patches(x, 8)), atol=1e-6)
    assert (fresh.pixels(fresh.codes(x)) == 0).all()
