from dataclasses import replace
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from neural_env.data.corpus import Corpus
from neural_env.data.episode import Episode
from neural_env.data.recorder import Recorder
from neural_env.game import GameConfig
from neural_env.training import latents, outcome
from neural_env.training.autoencoder import AutoencoderStage, fit_linear, measure_latents, reconstructions
from neural_env.training.decoder import DecoderStage, Pairs
from neural_env.training.denoiser import DenoiserStage, channel_weight
from neural_env.training.latents import LatentData, Windows, encode_frames, encoded, frames_at
from neural_env.training.loop import LoopConfig, train
from neural_env.training.outcome import ENDS_PER_BATCH, EVENTS_PER_BATCH, OutcomeStage, measured, strata_of
from neural_env.world.autoencoder import Autoencoder, AutoencoderConfig
from neural_env.world.outcome import BinnedConfig, PointConfig
from neural_env.world.parameters import parameters, replaced

GRID, CHANNELS, CONTEXT, ACTIONS = (15, 20), 4, 4, 3
LENGTHS = (12, 3, 30, 5, 4, 9)  # frames of each episode; one of 4 has no transition with a full context
TERMINATED = (True, True, False, True, True, True)


def latent_data(variables=2, terminated=TERMINATED):
    """Episodes whose frames know who they are: latent channel 0 is the episode, channel 1 the time in it."""
    total, starts = sum(LENGTHS), np.cumsum((0, *LENGTHS))
    episode = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    time = np.concatenate([np.arange(length) for length in LENGTHS])
    latents = np.random.default_rng(0).standard_normal((total, *GRID, CHANNELS)).astype(np.float16)
    latents[..., 0], latents[..., 1] = episode[:, None, None], time[:, None, None]
    ends = np.zeros(total, np.uint8)
    ends[starts[1:] - 2] = terminated  # the transition to the last frame
    rewards = np.where(np.arange(total) % 3 == 0, 5.0, 0.0).astype(np.float32)
    values = (100.0 - 10 * time[:, None] + np.arange(variables)).astype(np.float32)
    return LatentData(latents, (time % ACTIONS).astype(np.int32), rewards, values, ends, starts)


@pytest.fixture(scope="module")
def data():
    return latent_data()


def windows(data, **options):
    return Windows(data, CONTEXT, 0, **{"pictures_only": False, **options})


def test_a_window_never_crosses_the_border_of_an_episode(data):
    batch = windows(data).gather(windows(data).index)
    seen = np.concatenate([batch["context"], batch["latent"][:, None]], axis=1)[:, :, 0, 0]  # window, frame, channel
    assert (np.ptp(seen[..., 0], axis=1) == 0).all()
    assert (np.diff(seen[..., 1], axis=1) == 1).all()


def test_every_transition_with_a_full_context_is_one_window(data):
    batch = windows(data).gather(windows(data).index)
    pairs = {(int(e), int(t)) for e, t in batch["latent"][:, 0, 0, :2]}
    assert pairs == {(e, t) for e, length in enumerate(LENGTHS) for t in range(CONTEXT, length)}
    assert len(windows(data).index) == len(pairs)


def test_a_window_has_the_outcome_of_the_action_taken_in_it(data):
    index = windows(data).index
    batch = windows(data).gather(index)
    assert (batch["reward"] == data.rewards[index]).all()
    assert (batch["ends"] == data.ends[index]).all()
    assert (batch["variables"] == data.variables[index + 1]).all()
    time = batch["context"][:, :, 0, 0, 1]
    assert (batch["actions"] == time % ACTIONS).all()


def test_pictures_only_leaves_out_the_transitions_that_terminate(data):
    every, pictures = windows(data), windows(data, pictures_only=True)
    left_out = np.setdiff1d(every.index, pictures.index)
    assert data.ends[left_out].all() and not data.ends[pictures.index].any()
    assert len(left_out) == sum(t for t, length in zip(TERMINATED, LENGTHS, strict=True) if length > CONTEXT)


def test_a_batch_is_a_function_of_the_step_and_the_seed(data):
    one, other = windows(data), Windows(data, CONTEXT, 1, pictures_only=False)
    first, again, next_step, seed = one.batch(3, 16), windows(data).batch(3, 16), one.batch(4, 16), other.batch(3, 16)
    assert all((first[name] == again[name]).all() for name in first)
    assert (first["latent"] != next_step["latent"]).any() and (first["latent"] != seed["latent"]).any()


def test_validation_windows_are_spread_from_the_first_to_the_last(data):
    batches = windows(data).evenly(4, 3)
    assert [len(batch["latent"]) for batch in batches] == [4, 4, 4]
    assert batches[0]["latent"][0, 0, 0, :2].tolist() == [0, CONTEXT]
    assert batches[-1]["latent"][-1, 0, 0, :2].tolist() == [5, 8]


def test_episodes_that_are_all_too_short_are_refused(data):
    with pytest.raises(ValueError, match="no episode is longer than the context of 30 frames: collect longer episodes"):
        Windows(data, 30, 0, pictures_only=False)


def test_windows_are_drawn_as_often_as_they_weigh_and_never_at_weight_zero(data):
    def weigh(starts, index):
        assert starts is data.starts
        heavy, light = starts[2] + CONTEXT, starts[3] + CONTEXT - 1
        return np.where(index == heavy, 0.75, np.where(index == light, 0.25, 0.0))

    drawn = windows(data, weigh=weigh).batch(0, 4000)["context"][:, -1, 0, 0, 0]  # the episode
    assert set(drawn) == {2.0, 3.0} and np.mean(drawn == 2.0) == pytest.approx(0.75, abs=0.03)


# Encoding a dataset.


SMALL = AutoencoderConfig(channels=4, encoder_width=8, encoder_blocks=1, decoder_width=8, decoder_blocks=1)


@pytest.fixture(scope="module")
def autoencoder(perturbed):
    return perturbed(Autoencoder(SMALL, (32, 40), rngs=nnx.Rngs(0)))


def episode(seed, steps, terminated):
    rng = np.random.default_rng(seed)
    return Episode(
        frames=rng.integers(256, size=(steps + 1, 32, 40, 3), dtype=np.uint8),
        actions=rng.integers(ACTIONS, size=steps, dtype=np.int32),
        rewards=rng.standard_normal(steps).astype(np.float32),
        variables=rng.standard_normal((steps + 1, 2)).astype(np.float32),
        signals=np.zeros((steps + 1, 0), np.float32),
        terminated=terminated,
        truncated=not terminated,
        seed=seed,
        policy="none",
    )


GAME = GameConfig("toy", ("noop", "left", "right"), ("health", "ammo"), 4, (32, 40))


def corpus_of(folder, *recordings, episodes_per_shard=1):
    """A corpus of datasets, each of episodes of these seeds."""
    for i, episodes in enumerate(recordings):
        with Recorder(
            folder / str(i), GAME, policy="none", signal_names=(), episodes_per_shard=episodes_per_shard
        ) as r:
            for each in episodes:
                r.add(each)
    return Corpus.open([folder / str(i) for i in range(len(recordings))])


EPISODES = [episode(2, 40, True), episode(3, 7, False)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """One dataset of two training episodes, in a shard each."""
    return corpus_of(tmp_path_factory.mktemp("data"), EPISODES)


@pytest.fixture
def frames_encoded(monkeypatch):
    """How many frames each call encoded, in order."""
    calls = []

    def counted(autoencoder, frames):
        calls.append(len(frames))
        return encode_frames(autoencoder, frames)

    monkeypatch.setattr("neural_env.training.latents.encode_frames", counted)
    return calls


def rows(data):
    return data.latents[np.arange(data.latents.shape[0])]


def test_encoding_aligns_every_row_with_its_frame(autoencoder, corpus, tmp_path):
    first, second = EPISODES
    data = encoded(corpus, "train", autoencoder, tmp_path)
    assert data.starts.tolist() == [0, 41, 49] and data.latents.shape == (49, 4, 5, 4)
    frames = np.concatenate([first.frames, second.frames])
    np.testing.assert_allclose(rows(data), encode_frames(autoencoder, frames), rtol=2**-9, atol=1e-3)
    assert (data.actions == np.concatenate([first.actions, [0], second.actions, [0]])).all()
    assert (data.rewards == np.concatenate([first.rewards, [0], second.rewards, [0]])).all()
    assert (data.variables == np.concatenate([first.variables, second.variables])).all()
    assert np.flatnonzero(data.ends).tolist() == [39]  # the second was cut off, which is no end


@pytest.mark.parametrize("count", [1, 31, 32, 33, 70])
def test_frames_are_encoded_alike_in_any_number(autoencoder, count):
    frames = np.random.default_rng(0).integers(256, size=(70, 32, 40, 3), dtype=np.uint8)
    assert (encode_frames(autoencoder, frames[:count]) == encode_frames(autoencoder, frames)[:count]).all()


def test_stored_latents_are_read_as_an_array_would_be(autoencoder, corpus, tmp_path):
    stored = encoded(corpus, "train", autoencoder, tmp_path).latents
    array = stored[np.arange(49)]
    for chosen in (np.array([0]), np.array([48, 3, 41, 40, 3]), np.array([[40, 41], [0, 48]])):
        assert stored[chosen].shape == (*chosen.shape, 4, 5, 4) and (stored[chosen] == array[chosen]).all()


def test_windows_of_stored_latents_are_those_of_latents_in_memory(autoencoder, corpus, tmp_path):
    data = encoded(corpus, "train", autoencoder, tmp_path)
    stored, held = (Windows(d, CONTEXT, 0, pictures_only=False) for d in (data, replace(data, latents=rows(data))))
    one, other = stored.batch(0, 32), held.batch(0, 32)
    assert all((one[name] == other[name]).all() for name in one)


def test_more_files_than_are_mapped_at_a_time_are_read_all_the_same(autoencoder, corpus, tmp_path, monkeypatch):
    array = rows(encoded(corpus, "train", autoencoder, tmp_path))
    monkeypatch.setattr(latents, "_mapped", lru_cache(1)(latents._mapped.__wrapped__))
    assert (rows(encoded(corpus, "train", autoencoder, tmp_path)) == array).all()


def test_a_dataset_is_encoded_once(autoencoder, corpus, tmp_path, frames_encoded):
    first, second = (encoded(corpus, "train", autoencoder, tmp_path) for _ in range(2))
    assert frames_encoded == [41, 8]
    assert (rows(first) == rows(second)).all()
    assert all((getattr(first, name) == getattr(second, name)).all() for name in vars(first) if name != "latents")


def test_a_dataset_that_is_added_is_encoded_alone_and_comes_after(autoencoder, corpus, tmp_path, frames_encoded):
    alone = encoded(corpus, "train", autoencoder, tmp_path / "cache")
    frames_encoded.clear()
    more = corpus_of(tmp_path, EPISODES, [episode(4, 5, True)])
    both = encoded(more, "train", autoencoder, tmp_path / "cache")
    assert frames_encoded == [6]
    assert both.starts.tolist() == [0, 41, 49, 55]
    assert (rows(both)[:49] == rows(alone)).all() and (both.actions[:49] == alone.actions).all()


def test_a_dataset_that_grew_is_encoded_where_it_is_new(autoencoder, corpus, tmp_path, frames_encoded):
    encoded(corpus, "train", autoencoder, tmp_path / "cache")
    frames_encoded.clear()
    encoded(corpus_of(tmp_path, [*EPISODES, episode(4, 5, True)]), "train", autoencoder, tmp_path / "cache")
    assert frames_encoded == [6]


def test_another_encoder_encodes_anew_and_another_decoder_does_not(
    autoencoder, perturbed, corpus, tmp_path, frames_encoded
):
    before = rows(encoded(corpus, "train", autoencoder, tmp_path))
    decoder = replaced(autoencoder, {"decoder.head.kernel": parameters(autoencoder)["decoder.head.kernel"] + 1})
    encoded(corpus, "train", decoder, tmp_path)
    assert frames_encoded == [41, 8]
    after = rows(encoded(corpus, "train", perturbed(autoencoder, seed=1), tmp_path))
    assert frames_encoded == [41, 8, 41, 8] and (before != after).any()
    assert (rows(encoded(corpus, "train", autoencoder, tmp_path)) == before).all()


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.999])
def test_a_cache_cut_short_is_made_again(autoencoder, corpus, tmp_path, keep, frames_encoded):
    whole = rows(encoded(corpus, "train", autoencoder, tmp_path))
    cache = min(tmp_path.iterdir(), key=lambda path: path.stat().st_size)
    content = cache.read_bytes()
    cache.unlink()
    cache.write_bytes(content[: int(keep * len(content))])
    again = encoded(corpus, "train", autoencoder, tmp_path)
    assert (rows(again) == whole).all() and frames_encoded == [41, 8, 8]
    assert cache.read_bytes() == content and len(list(tmp_path.iterdir())) == 2


def test_a_split_without_episodes_is_refused_by_name(autoencoder, corpus, tmp_path):
    with pytest.raises(ValueError, match=r"has no validation episodes"):
        encoded(corpus, "validation", autoencoder, tmp_path)


def test_frames_are_found_by_their_rows_in_any_shard(corpus):
    every = np.concatenate([each.frames for each in EPISODES])
    for chosen in ([0], [40, 41], [5, 17, 48], [44, 45], []):
        assert (frames_at(corpus, "train", np.array(chosen, int)) == every[np.array(chosen, int)]).all()


# The auto-encoder.


def structured_frames(count=128):
    """A wall and a floor with a light that moves, whose patches have a few principal components."""
    y, x = np.mgrid[0:32, 0:40] / 40
    t = np.linspace(0, 4, count)[:, None, None]
    light = 90 * np.exp(-20 * ((x - 0.5 - 0.4 * np.sin(t)) ** 2 + (y - 0.4 - 0.2 * np.cos(3 * t)) ** 2))
    frames = np.stack([60 + light, 100 * (y > 0.5) + light / 2, np.broadcast_to(200 * y, light.shape)], axis=-1)
    return frames.clip(0, 255).astype(np.uint8)


def test_the_linear_fit_alone_reconstructs_far_better_than_no_training():
    fresh, frames = Autoencoder(SMALL, (32, 40), rngs=nnx.Rngs(0)), structured_frames()
    training, validation = frames[::2], frames[1::2]
    untrained = AutoencoderStage(training, validation, 0).validate(fresh)["psnr"]
    fitted = AutoencoderStage(training, validation, 0).validate(fit_linear(fresh, training))["psnr"]
    assert untrained < 15 and fitted > untrained + 15


def test_the_linear_fit_gives_codes_of_unit_variance():
    frames = structured_frames()
    codes = fit_linear(Autoencoder(SMALL, (32, 40), rngs=nnx.Rngs(0)), frames).codes(jnp.asarray(frames) / 127.5 - 1)
    np.testing.assert_allclose(codes.mean(axis=(0, 1, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(codes.std(axis=(0, 1, 2)), 1, rtol=1e-3)


def test_measured_latents_have_mean_0_and_deviation_1(autoencoder):
    frames = structured_frames()
    measured = measure_latents(autoencoder, frames)
    latents = encode_frames(measured, frames)
    np.testing.assert_allclose(latents.mean(axis=(0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(latents.std(axis=(0, 1, 2)), 1, rtol=1e-4)
    assert not np.allclose(encode_frames(autoencoder, frames).std(axis=(0, 1, 2)), 1, rtol=0.1)


def test_reconstructions_come_beside_their_originals(autoencoder):
    frames = structured_frames()
    pairs = list(reconstructions(autoencoder, frames))
    assert [len(a) for a, _ in pairs] == [64, 64] and all(a.shape == b.shape for a, b in pairs)
    assert (np.concatenate([a for a, _ in pairs]) == frames).all()


def test_auto_encoder_batches_are_a_function_of_the_step_and_the_seed():
    frames = structured_frames()
    stage, other = AutoencoderStage(frames, frames, 0), AutoencoderStage(frames, frames, 1)
    first = stage.batch(5, 8)["frames"]
    assert first.shape == (8, 32, 40, 3) and (first == stage.batch(5, 8)["frames"]).all()
    assert (first != stage.batch(6, 8)["frames"]).any() and (first != other.batch(5, 8)["frames"]).any()


# What shows in pixels.


def test_a_channel_that_shows_more_weighs_more(autoencoder):
    kernel = parameters(autoencoder)["decoder.linear.kernel"]
    loud = replaced(autoencoder, {"decoder.linear.kernel": kernel.at[:, 2].multiply(30.0)})
    latent = np.random.default_rng(0).standard_normal((2, 4, 5, 4)).astype(np.float32)
    weight, before = channel_weight(loud, latent), channel_weight(autoencoder, latent)
    assert weight.argmax() == 2 and weight[2] > 2 * before[2]
    np.testing.assert_allclose([weight.mean(), before.mean()], 1, rtol=1e-5)
    assert weight.min() >= 0.1


# The decoder.


def decoder_stage(autoencoder):
    frames = structured_frames(64)
    real = encode_frames(autoencoder, frames)
    predicted = 0.7 * real + 0.3 * np.roll(real, 1, axis=0)
    return DecoderStage(autoencoder, *(Pairs(frames[i::2], real[i::2], predicted[i::2]) for i in (0, 1)), 0)


def test_the_decoders_loss_reaches_the_decoder_alone_and_falls_on_both_kinds_of_latents(autoencoder, tmp_path):
    stage, decoder = decoder_stage(autoencoder), autoencoder.decoder
    gradient = assert_learns(stage, decoder)
    assert gradient.keys() == parameters(decoder).keys()
    assert all(jnp.abs(g).max() > 0 for name, g in gradient.items() if "kernel" in name)
    config = LoopConfig(steps=60, batch=8, learning_rate=1e-2, warmup=5, ema=0.9)
    scores = stage.validate(train(stage, decoder, config, tmp_path)[0])
    gains = {name: gain for name, gain in scores.items() if name.endswith("_gain")}
    assert len(gains) == 4 and min(gains.values()) > 1


def test_a_decoder_gains_nothing_over_itself(autoencoder):
    scores = decoder_stage(autoencoder).validate(autoencoder.decoder)
    assert {name: gain for name, gain in scores.items() if name.endswith("_gain")} == {
        f"{region}psnr_{kind}_gain": 0.0 for region in ("", "hud_") for kind in ("real", "predicted")
    }
    assert scores["psnr_real"] != scores["psnr_predicted"] and scores["psnr_real"] != scores["hud_psnr_real"]


# The outcome.


def outcome_stage(data):
    return OutcomeStage(windows(data), windows(data), 0)


def test_every_window_is_in_one_stratum_and_events_stand_out(data):
    strata, index = strata_of(windows(data)), windows(data).index
    assert sorted(np.concatenate(strata)) == sorted(index)
    assert data.ends[strata.ends].all() and not data.ends[strata.events].any()
    rare = replace(data, rewards=np.where(np.arange(len(data.ends)) == strata.rest[0], 9.0, 1.0).astype(np.float32))
    assert strata_of(windows(rare)).events.tolist() == [strata.rest[0]]


def test_an_outcome_batch_over_draws_ends_and_is_a_function_of_the_step_and_the_seed(data):
    stage, seeded = outcome_stage(data), OutcomeStage(windows(data), windows(data), 1)
    first, again, other = stage.batch(0, 32), stage.batch(0, 32), stage.batch(1, 32)
    assert first["ends"].mean() == ENDS_PER_BATCH > 3 * data.ends[windows(data).index].mean() / 2
    assert all((first[name] == again[name]).all() for name in first)
    assert (first["latent"] != other["latent"]).any() and (first["latent"] != seeded.batch(0, 32)["latent"]).any()


def test_events_are_over_drawn_too(data):
    place = windows(data).index[20]
    rare = replace(data, variables=np.where(np.arange(len(data.ends))[:, None] > place, 50.0, 60.0).astype(np.float32))
    stage = OutcomeStage(windows(rare), windows(rare), 0)
    batch = stage.batch(0, 32)
    assert (batch["variables"][:, 0] == 50).mean() >= EVENTS_PER_BATCH > 1 / len(windows(rare).index)


def test_the_weights_make_the_over_drawn_average_an_unbiased_estimate(data):
    stage, index = outcome_stage(data), windows(data).index
    batches = [stage.batch(step, 64) for step in range(300)]
    prior = data.ends[index].mean()
    assert all(np.isclose((batch["weight"] * batch["ends"]).mean(), prior) for batch in batches)
    assert all(np.isclose(batch["weight"].mean(), 1) for batch in batches)
    estimates = np.array([(batch["weight"] * batch["reward"]).mean() for batch in batches])
    assert abs(estimates.mean() - data.rewards[index].mean()) < 5 * estimates.std() / np.sqrt(len(estimates))


def test_the_classes_keep_the_batchs_balance_and_the_shift_is_what_separates_it_from_the_games(data):
    batch, prior = outcome_stage(data).batch(0, 64), data.ends[windows(data).index].mean()
    ends = batch["ends"] == 1
    np.testing.assert_allclose([batch["class_weight"][ends].mean(), batch["class_weight"][~ends].mean()], 1, rtol=1e-5)
    odds = np.exp(-batch["over_drawn"]) * ENDS_PER_BATCH / (1 - ENDS_PER_BATCH)
    np.testing.assert_allclose(odds, prior / (1 - prior), rtol=1e-5)


def test_without_terminations_there_is_nothing_to_shift():
    batch = outcome_stage(latent_data(terminated=(False,) * 6)).batch(0, 16)
    assert (batch["ends"] == 0).all() and batch["over_drawn"] == 0
    assert np.isclose(batch["weight"].mean(), 1) and np.isfinite(batch["class_weight"]).all()


OUTCOMES = {"points": PointConfig(width=4, hidden=16), "bins": BinnedConfig(bins=5, width=4, blocks=1, hidden=16)}


def outcome_model(variables, kind="bins"):
    return OUTCOMES[kind].build(GRID, CHANNELS, CONTEXT, ACTIONS, variables, rngs=nnx.Rngs(0))


def test_what_comes_after_a_termination_is_not_measured(data):
    after = np.flatnonzero(data.ends) + 1
    wild = data.variables.copy()
    wild[after] = -131.0
    points, bins = (measured(outcome_model(2, kind), replace(data, variables=wild)) for kind in OUTCOMES)
    alive = np.delete(data.variables, after, axis=0)
    np.testing.assert_allclose(points.variable_mean[...], alive.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(points.variable_std[...], alive.std(axis=0), rtol=1e-5)
    np.testing.assert_allclose(bins.variable_bins[...][:, [0, -1]].T, [alive.min(axis=0), alive.max(axis=0)], rtol=1e-5)


def test_a_variable_that_never_changes_is_not_divided_by_zero(data):
    constant = replace(data, variables=np.full_like(data.variables, 50.0))
    assert (measured(outcome_model(2, "points"), constant).variable_std[...] > 0).all()
    assert np.isfinite(list(outcome_stage(constant).validate(measured(outcome_model(2), constant)).values())).all()


def test_validation_tells_of_every_outcome(data):
    scores = outcome_stage(data).validate(measured(outcome_model(2), data))
    termination = {
        f"termination_{name}" for name in ("when_none", "when_due", "average_precision", "calibration_error")
    }
    variables = {f"variable_{i}_error{of}" for i in (0, 1) for of in ("", "_of_range")}
    assert scores.keys() == termination | variables | {"reward_error"}  # of the rewards none stands out
    assert np.isfinite(list(scores.values())).all()


def test_reward_events_are_scored_where_there_are_any(data):
    rewards = np.where(np.arange(len(data.ends)) == windows(data).index[3], 9.0, 1.0).astype(np.float32)
    rare = replace(data, rewards=rewards)
    scores = outcome_stage(rare).validate(measured(outcome_model(2), rare))
    assert 0 < scores["reward_event_average_precision"] <= 1 and scores["reward_event_recall"] in (0.0, 1.0)


def test_the_reliability_of_termination_counts_every_validated_window(data):
    stage = outcome_stage(data)
    assert stage.reliability(measured(outcome_model(2), data)).steps.sum() == len(windows(data).index)


# Every stage.


def value_and_gradient(stage, module):
    @jax.jit
    def differentiate(params, batch):
        return jax.value_and_grad(lambda p: stage.loss(replaced(module, p), batch, jax.random.key(0))[0])(params)

    return differentiate(parameters(module), stage.batch(0, 8))


def assert_learns(stage, module):
    value, gradient = value_and_gradient(stage, module)
    assert np.isfinite(value) and value > 0
    assert np.isfinite(optax.global_norm(gradient)) and optax.global_norm(gradient) > 1e-4
    return gradient


def test_the_auto_encoders_loss_reaches_encoder_and_decoder(autoencoder):
    frames = structured_frames()
    gradient = assert_learns(AutoencoderStage(frames, frames, 0), autoencoder)
    assert all(jnp.abs(g).max() > 0 for name, g in gradient.items() if "kernel" in name)


def test_the_denoisers_loss_reaches_every_weight(tiny_world, data):
    stage = DenoiserStage(tiny_world, windows(data, pictures_only=True), windows(data, pictures_only=True))
    gradient = assert_learns(stage, tiny_world.unet)
    assert all(jnp.abs(g).max() > 0 for name, g in gradient.items() if "kernel" in name)


def test_the_denoiser_is_validated_against_shuffled_actions_and_copying(tiny_world, data):
    stage = DenoiserStage(tiny_world, windows(data, pictures_only=True), windows(data, pictures_only=True))
    scores = stage.validate(tiny_world.unet)
    assert scores.keys() == {"psnr", "psnr_shuffled", "psnr_copy_last"}
    assert scores["psnr"] != scores["psnr_shuffled"] and np.isfinite(list(scores.values())).all()


@pytest.mark.parametrize(("kind", "variables"), [("points", 2), ("bins", 0), ("bins", 2)])
def test_the_outcomes_loss_reaches_both_trunks_with_any_number_of_variables(kind, variables):
    data = latent_data(variables=variables)
    module = measured(outcome_model(variables, kind), data)
    gradient = assert_learns(outcome_stage(data), module)
    # A residual block starts as the identity: its second convolution is zero, which hides its first.
    shown = {name: g for name, g in gradient.items() if "kernel" in name and not name.endswith("blocks.0.first.kernel")}
    assert all(jnp.abs(g).max() > 0 for g in shown.values())
    assert {name.split(".")[0] for name in gradient} == {"hazard", "readout"}
    assert np.isfinite(list(outcome_stage(data).validate(module).values())).all()


def log_odds(model, data):
    batch = windows(data).gather(windows(data).index)
    inputs = (jnp.asarray(batch[name]) for name in ("context", "actions", "latent"))
    return np.asarray(model(*inputs).termination_logit, float)


def mortal(data, model):
    """The data with ends at half of all windows, four in five of them where the model foretells them most."""
    rows, ranks = windows(data).index, np.argsort(np.argsort(log_odds(model, data)))
    high = ranks >= len(rows) // 2
    ends = np.zeros_like(data.ends)
    ends[rows] = np.where(ranks % 5 == 0, ~high, high)
    return replace(data, ends=ends)


@pytest.mark.parametrize("kind", OUTCOMES)
def test_terminations_that_are_foretold_too_surely_are_calibrated_and_keep_their_order(data, kind):
    model = measured(outcome_model(2, kind), data)
    deadly = mortal(data, model)
    last = {name: array for name, array in parameters(model).items() if name.startswith("hazard.out.")}
    times = 5 / log_odds(model, data).std()
    sure = replaced(model, {name: times * array for name, array in last.items()})
    calibrated, told = outcome_stage(deadly).calibrated(sure)
    assert 0 < told.scale < 0.5 and told.ends == deadly.ends.sum()
    ends = deadly.ends[windows(data).index]
    before, after = (log_odds(each, data) for each in (sure, calibrated))
    losses = [np.logaddexp(0, np.where(ends == 1, -odds, odds)).mean() for odds in (before, after)]
    assert losses[1] < np.log(2) < losses[0]  # better than saying half, which too sure a model isn't
    assert (1 / (1 + np.exp(-after))).mean() == pytest.approx(ends.mean(), abs=0.02)
    assert (np.argsort(before) == np.argsort(after)).all()
    changed = {name for name, array in parameters(calibrated).items() if (array != parameters(sure)[name]).any()}
    assert changed == last.keys()


def test_the_windows_that_were_left_out_count_by_those_that_were_looked_at(data, monkeypatch):
    model = measured(outcome_model(2), data)
    deadly = mortal(data, model)
    _, whole = outcome_stage(deadly).calibrated(model)
    monkeypatch.setattr(outcome, "VALIDATION_WINDOWS", 12)  # and so some six of the twenty that go on
    _, part = outcome_stage(deadly).calibrated(model)
    p = [1 / (1 + np.exp(-(told.scale * log_odds(model, data) + told.shift))) for told in (whole, part)]
    assert part != whole and p[1].mean() == pytest.approx(p[0].mean(), abs=0.15)


def test_few_terminations_calibrate_nothing(data):
    model = measured(outcome_model(2), data)
    assert outcome_stage(data).calibrated(model) == (model, None)


def test_terminations_that_are_not_told_from_others_are_not_turned_round(data):
    model = measured(outcome_model(2), data)
    deadly = mortal(data, model)
    wrong = {name: -array for name, array in parameters(model).items() if name.startswith("hazard.out.")}
    inverted = replaced(model, wrong)
    assert outcome_stage(deadly).calibrated(inverted) == (inverted, None)
