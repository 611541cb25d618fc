import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small_configs

from ssldiff_jax.core import moments as moments_lib
from ssldiff_jax.diffusion import guidance, process, solvers
from ssldiff_jax.prior import conditions, loss, network, whitening
from ssldiff_jax.train import step as step_lib

SPEC = conditions.ConditionSpec(("water", "forest"), ("age", "grade"), text_phrases=3, text_dim=4)
SMALL = network.NetworkConfig(width=32, depth=2, num_heads=2)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def some_condition(count=2, seed=0):
    return SPEC.pack(
        count,
        labels=np.array([[1, 0], [np.nan, 0.5]], np.float32)[:count],
        numbers=np.array([[0.3, np.nan], [-1, 2]], np.float32)[:count],
        text=draw(count, 3, 4, seed=seed),
        text_known=np.array([[True, True, False], [True, False, False]])[:count],
    )


@pytest.fixture(scope="module")
def trained_shape():
    """A network, with parameters that are not zero where they start so."""
    model = network.GridDenoiser(SMALL, SPEC)
    x, t = draw(2, 3, 4, 5), np.array([10, 900])
    params = model.init(jax.random.key(0), x, t, some_condition())["params"]
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noisy = [p + 0.1 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)]
    return model, tree.unflatten(noisy), x, t


def test_what_is_packed_comes_back_and_what_is_not_said_is_zero():
    parts = SPEC.unpack(some_condition())
    np.testing.assert_array_equal(parts["labels"], [[1, 0], [0, 0.5]])
    np.testing.assert_array_equal(parts["labels_known"], [[1, 1], [0, 1]])
    np.testing.assert_array_equal(parts["numbers_known"], [[1, 0], [1, 1]])
    np.testing.assert_allclose(parts["text"].reshape(2, 3, 4)[0, :2], draw(2, 3, 4)[0, :2])
    assert not parts["text"].reshape(2, 3, 4)[0, 2].any()
    assert not SPEC.pack(4).any()
    assert SPEC.pack(4).shape == (4, SPEC.dim)


@pytest.mark.parametrize(
    ("asked", "message"),
    [({"watr": 1.0}, r"unknown label 'watr', expected one of water"), ({"x": 1.0}, "water")],
)
def test_an_unknown_label_is_told_with_the_nearest(asked, message):
    with pytest.raises(ValueError, match=message):
        SPEC.label_values(asked)


def test_a_vector_of_another_length_is_refused():
    with pytest.raises(ValueError, match="numbers must have 2 values, got 3"):
        SPEC.pack(1, numbers=np.zeros((1, 3)))


def test_dropping_takes_whole_kinds_at_the_rates():
    condition = np.repeat(some_condition(1), 4000, axis=0)
    drop = conditions.DropRates(all=0.2, kind=0.3, phrase=0.0, text_noise=0.0)
    found = SPEC.unpack(drop(SPEC, condition, jnp.arange(4000), jax.random.key(0)))
    told = {k: np.asarray(found[k]).any(axis=1) for k in ("labels_known", "numbers", "text_known")}
    for seen in told.values():
        assert abs(seen.mean() - 0.8 * (0.7 + 0.3**3 / 3)) < 0.03
    none = ~(told["labels_known"] | told["numbers"] | told["text_known"])
    assert abs(none.mean() - 0.2) < 0.03


def test_what_alone_is_said_is_dropped_with_everything_only():
    condition = SPEC.pack(4000, labels=np.full((4000, 2), 0.5, np.float32))
    drop = conditions.DropRates(all=0.2, kind=0.9, phrase=0.0, text_noise=0.0)
    found = SPEC.unpack(drop(SPEC, condition, jnp.arange(4000), jax.random.key(0)))
    assert abs(np.asarray(found["labels_known"]).any(axis=1).mean() - 0.8) < 0.03


def test_noise_falls_on_phrases_that_are_there():
    condition = np.repeat(some_condition(1), 3000, axis=0)
    drop = conditions.DropRates(all=0.0, kind=0.0, phrase=0.0, text_noise=0.5)
    found = np.asarray(drop(SPEC, condition, jnp.arange(3000), jax.random.key(0)))
    before, after = SPEC.unpack(condition), SPEC.unpack(found)
    noise = (after["text"] - before["text"]).reshape(3000, SPEC.text_phrases, -1)
    known = before["text_known"][0] > 0
    assert known.any()
    np.testing.assert_allclose(noise[:, known].std(), 0.5, rtol=0.03)
    assert not noise[:, ~known].any()
    for name in ("labels", "numbers", "place", "text_known"):
        np.testing.assert_array_equal(after[name], before[name])


def test_white_embeddings_are_uncorrelated_and_come_back():
    z = draw(5000, 6) @ (np.eye(6) + 0.3 * draw(6, 6, seed=1)) + 3
    moments = moments_lib.Moments(6)
    for batch in np.split(z, 5):
        moments.add(batch)
    found = whitening.Whitening.of(moments)
    np.testing.assert_allclose(np.cov(found.apply(z).T), np.eye(6), atol=2e-3)
    np.testing.assert_allclose(found.undo(found.apply(z)), z, atol=1e-3)


def test_directions_without_variance_are_not_blown_up():
    z = draw(1000, 4) * [1, 1, 1, 1e-6]
    moments = moments_lib.Moments(4)
    moments.add(z)
    white = whitening.Whitening.of(moments).apply(z)
    assert np.var(white, axis=0).min() < 1e-6
    assert np.isfinite(white).all()


def test_a_whitening_is_the_same_from_its_file(tmp_path):
    moments = moments_lib.Moments(3)
    moments.add(draw(50, 3))
    found = whitening.Whitening.of(moments)
    found.save(tmp_path / "w.npz")
    again = whitening.Whitening.load(tmp_path / "w.npz")
    np.testing.assert_array_equal(again.matrix, found.matrix)


def test_rotary_products_depend_on_the_distance_of_cells_alone():
    q, k = draw(1, 1, 16), draw(1, 1, 16, seed=1)
    angles = network.grid_angles(5, 5, 8)
    on_grid = lambda x: network.rotate(np.repeat(x, 25, axis=1), angles, 2).reshape(5, 5, 2, 8)
    qs, ks = on_grid(q), on_grid(k)
    product = lambda a, b: np.einsum("hd,hd->h", qs[a], ks[b])
    np.testing.assert_allclose(product((0, 1), (2, 4)), product((2, 0), (4, 3)), rtol=1e-4)
    assert not np.allclose(product((0, 1), (2, 4)), product((0, 1), (4, 3)), rtol=1e-2)


def test_a_network_starts_at_zero():
    model = network.GridDenoiser(SMALL, SPEC)
    x, t = draw(2, 2, 2, 5), np.array([1, 2])
    params = model.init(jax.random.key(0), x, t, some_condition())
    assert not np.asarray(model.apply(params, x, t, some_condition())).any()


def test_what_a_text_does_not_have_changes_nothing(trained_shape):
    model, params, x, t = trained_shape
    condition = some_condition()
    at = SPEC.dim - 4  # the last token, which neither example has
    changed = condition.copy()
    changed[:, at:] = 7.0
    run = lambda c: np.asarray(model.apply({"params": params}, x, t, c))
    np.testing.assert_allclose(run(changed), run(condition), atol=1e-5)
    said = condition.copy()
    said[:, SPEC.dim - 12] += 1.0
    assert np.abs(run(said) - run(condition)).max() > 1e-3


@pytest.mark.parametrize("kinds", [(), ("labels",), ("text",), ("numbers", "text")])
def test_a_narrower_spec_finds_the_same(trained_shape, kinds):
    model, params, x, t = trained_shape
    parts = SPEC.unpack(some_condition())
    said = [v if k.removesuffix("_known") in kinds else 0 * v for k, v in parts.items()]
    condition = np.concatenate(said, axis=1)
    spec, narrow = SPEC.restrict(condition)
    assert narrow.shape[1] == spec.dim <= SPEC.dim
    assert bool(spec.labels) == ("labels" in kinds)
    smaller = network.GridDenoiser(SMALL, spec)
    np.testing.assert_allclose(
        smaller.apply({"params": params}, x, t, narrow),
        model.apply({"params": params}, x, t, condition),
        atol=1e-5,
    )


def test_cells_know_where_they_lie_in_what_is_described(trained_shape):
    model, params, x, t = trained_shape
    run = lambda place: np.asarray(model.apply({"params": params}, x, t, SPEC.pack(2, place=place)))
    west = conditions.GridPosition.of_cells(np.array([[0, 0], [0, 0]]), (3, 8))
    east = conditions.GridPosition.of_cells(np.array([[0, 4], [0, 4]]), (3, 8))
    assert np.abs(run(west) - run(east)).max() > 1e-3
    np.testing.assert_array_equal(west[0], [0, 0, np.float32(1 / 3), np.float32(1 / 8)])


def test_a_prior_learns_what_it_is_asked_for():
    """Grids whose left half has the sign of the label: drawn with a label, they have it too."""
    spec = conditions.ConditionSpec(("positive",))
    noising, side, dim = (
        process.Process(
            small_configs.section("denoiser.schedule", name="cosine", num_timesteps=1000), "v"
        ),
        2,
        3,
    )
    model = network.GridDenoiser(network.NetworkConfig(32, 2, 2), spec)
    task = loss.PriorTask(
        model,
        noising,
        conditions.DropRates(0.1, 0.0, 0.0, 0.0),
        min_snr_gamma=0.0,
        grid_shape=(side, side, dim),
    )
    tx = optax.adam(3e-3)
    generator = np.random.default_rng(0)

    def batch(number):
        label = generator.integers(0, 2, 64)
        grid = 0.3 * generator.normal(size=(64, side, side, dim))
        grid[:, :, 0] += np.where(label, 1, -1)[:, None, None]
        condition = spec.pack(64, labels=label[:, None].astype(np.float32))
        index = np.arange(64) + 64 * number
        return {"grid": grid.astype(np.float32), "condition": condition, "index": index}

    key = jax.random.key(0)
    state = step_lib.init_state(task, tx, key, batch(0))
    update = step_lib.Update(task, tx, 0.99)
    step = jax.jit(lambda s, b: step_lib.train_step(s, b, key, update=update))
    for number in range(250):
        state, _ = step(state, batch(number))

    denoise = lambda x, t, c: model.apply({"params": state.ema_params}, x, t, c)
    guided = guidance.GuidedX0(denoise, noising, guidance.UNGUIDED)
    table = solvers.solver_table(
        small_configs.section("sample.solver", num_solver_steps=20, t_start=990), noising.schedule
    )
    asked = np.repeat([1.0, 0.0], 32)[:, None].astype(np.float32)
    drawn = solvers.sample(guided, table, (64, side, side, dim), spec.pack(64, labels=asked), key)
    left, right = np.asarray(drawn[:, :, 0]), np.asarray(drawn[:, :, 1])
    assert abs(left[:32].mean() - 1) < 0.15
    assert abs(left[32:].mean() + 1) < 0.15
    assert abs(right.mean()) < 0.15
    assert 0.2 < left[:32].std() < 0.4
