import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_configs

from ssldiff_jax.core import vectors
from ssldiff_jax.encoders import augment, dino, encoder, infonce, variety, vit
from ssldiff_jax.encoders import config as encoder_config

VIT = vit.ViT(
    small_configs.section(
        "encoder.model.vit", image_px=16, patch_px=8, width=8, depth=1, num_heads=1
    )
)
STILL = augment.ColorJitter(0.0, 0.0, 0.0)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


infonce_loss = jax.jit(infonce.infonce_loss, static_argnums=2)


def test_infonce_vanishes_for_matching_pairs_as_it_cools():
    z = np.eye(6, dtype=np.float32)
    losses = [float(infonce_loss(z, 3 * z, temperature)) for temperature in (1.0, 0.2, 0.05)]
    np.testing.assert_allclose(losses[:2], [np.log(1 + 5 / np.e), np.log(1 + 5 * np.exp(-5))], 1e-4)
    assert losses[2] < 1e-6
    shuffled = float(infonce_loss(z, np.roll(z, 1, axis=0), 0.05))
    assert shuffled == pytest.approx(20, rel=1e-3)


def test_infonce_of_collapse_is_log_batch():
    z = np.ones((6, 6), np.float32)
    assert float(infonce_loss(z, z, 0.1)) == pytest.approx(np.log(6), rel=1e-5)


def test_infonce_is_symmetric_and_blind_to_length():
    a, b = normal(0, 6, 6), normal(1, 6, 6)
    base = float(infonce_loss(a, b, 0.1))
    assert float(infonce_loss(b, a, 0.1)) == pytest.approx(base, rel=1e-5)
    assert float(infonce_loss(7 * a, b / 3, 0.1)) == pytest.approx(base, rel=1e-4)
    cosines = vectors.unit(a) @ vectors.unit(b).T
    rows = -np.log(np.diagonal(softmax(cosines / 0.1))).mean()
    columns = -np.log(np.diagonal(softmax(cosines.T / 0.1))).mean()
    assert base == pytest.approx((rows + columns) / 2, rel=1e-4)


CONFIG = small_configs.section(
    "encoder.model.dino",
    num_prototypes=5,
    head_width=8,
    bottleneck=4,
    num_local=1,
    local_px=8,
    center_momentum=0.9,
)
dino_loss = jax.jit(dino.dino_loss, static_argnums=3)


def test_dino_loss_is_the_mean_cross_entropy_between_different_views():
    teacher, student = 0.1 * normal(0, 2, 4, 5), 0.1 * normal(1, 3, 4, 5)
    center = 0.1 * normal(2, 5)
    targets = softmax((teacher - center) / CONFIG.teacher_temperature)
    logs = np.log(softmax(student / CONFIG.student_temperature))
    cross = -np.einsum("ibp,jbp->ij", targets, logs) / 4
    expected = np.mean([cross[i, j] for i in range(2) for j in range(3) if i != j])
    found = dino_loss(list(teacher), list(student), center, CONFIG)
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_dino_loss_of_agreement_is_entropy():
    """Where centred and tempered teacher and student agree, cross entropy is entropy."""
    logits = 0.1 * normal(0, 4, 5)
    teacher = [logits * CONFIG.teacher_temperature] * 2
    student = [logits * CONFIG.student_temperature] * 3
    p = softmax(logits)
    found = dino_loss(teacher, student, np.zeros(5, np.float32), CONFIG)
    assert float(found) == pytest.approx(-np.mean(np.sum(p * np.log(p), axis=-1)), rel=1e-5)


class MeanColour(vit.ViT):
    """An encoder that compiles in no time."""

    def setup(self):
        self.dense = nn.Dense(self.config.width)

    def __call__(self, image):
        return self.dense(image.mean(axis=(1, 2)))


@functools.cache
def dino_step():
    """centre → ((gradients of student and teacher), the centre after one batch)."""
    batch = {
        "pixels": np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8),
        "index": np.arange(3),
    }
    task = dino.DINOTask(MeanColour(VIT.config), CONFIG, augment.ColorJitter(0.1, 0.1, 0.05), 16)
    init = jax.jit(lambda key: task.init(key, batch)[0])
    student = init(jax.random.key(0, impl="rbg"))
    teacher = jax.tree.map(lambda x: 1.1 * x, student)

    def error(student, teacher, center):
        key = jax.random.key(1)
        output = task.loss(student, batch, key, ema_params=teacher, extra={"center": center})
        return output.loss, output.extra["center"]

    step = jax.jit(jax.grad(error, argnums=(0, 1), has_aux=True))
    return functools.partial(step, student, teacher)


def test_the_teacher_gets_no_gradient():
    (student, teacher), _ = dino_step()(np.zeros(5, np.float32))
    largest = lambda tree: max(float(jnp.abs(x).max()) for x in jax.tree.leaves(tree))
    assert largest(teacher) == 0
    assert largest(student) > 0


def test_the_centre_moves_by_its_momentum():
    """center → m·center + (1 − m)·mean of the teacher's outputs, which it does not change."""
    center = normal(7, 5)
    moved, from_zero = dino_step()(center)[1], dino_step()(0 * center)[1]
    batch_mean = from_zero / (1 - CONFIG.center_momentum)
    # Cosines with unit prototypes.
    assert 0 < np.abs(batch_mean).max() <= 1
    np.testing.assert_allclose(moved - from_zero, CONFIG.center_momentum * center, atol=1e-6)


def test_shifted_views_are_squares_of_their_images():
    image, index = normal(0, 4, 10, 10, 3).clip(-1, 1), np.arange(4)
    views = np.asarray(
        jax.jit(lambda k: augment.shifted_views(k, image, index, 8, STILL))(jax.random.key(0))
    )
    corners = set()
    for view, whole in zip(views, image, strict=True):
        matches = [
            (y, x)
            for y in range(3)
            for x in range(3)
            if np.allclose(view, whole[y : y + 8, x : x + 8], atol=1e-6)
        ]
        assert len(matches) == 1
        corners |= set(matches)
    assert len(corners) > 1


def test_a_resized_view_of_everything_is_the_image():
    image, index = normal(0, 2, 8, 8, 3).clip(-1, 1), np.arange(2)
    view = lambda k: augment.resized_views(k, image, index, 8, (1.0, 1.0), STILL)
    np.testing.assert_allclose(jax.jit(view)(jax.random.key(0)), image, atol=1e-5)


def test_effective_rank():
    line = normal(0, 200, 1) * normal(1, 1, 8)
    assert variety.effective_rank(line) == pytest.approx(1, abs=1e-3)
    assert variety.effective_rank(normal(2, 4000, 8)) == pytest.approx(8, rel=0.01)
    plane = normal(3, 4000, 2) @ np.eye(2, 8, dtype=np.float32)
    assert variety.effective_rank(plane) == pytest.approx(2, rel=0.01)


def test_top1_counts_nearest_neighbours_of_the_same_index():
    e = normal(0, 10, 16)
    assert encoder.top1(e, 3 * e) == 1
    assert encoder.top1(np.roll(e, 1, axis=0), e) == 0
    half = np.concatenate([e[:5], np.roll(e[5:], 1, axis=0)])
    assert encoder.top1(half, e) == 0.5


def test_unit_keeps_directions_and_zero():
    e = np.stack([normal(0, 4), np.zeros(4, np.float32)])
    found = vectors.unit(e)
    np.testing.assert_allclose(found[0], e[0] / np.linalg.norm(e[0]), rtol=1e-6)
    np.testing.assert_array_equal(found[1], 0)


@pytest.mark.parametrize(
    ("objective", "task"), [("infonce", infonce.InfoNCETask), ("dino", dino.DINOTask)]
)
def test_the_objective_is_the_configs(objective, task):
    config = encoder_config.EncoderConfig(
        VIT.config,
        objective,
        small_configs.section("encoder.model.infonce"),
        CONFIG,
        STILL,
        shift_px=0,
        origin="zero",
    )
    assert type(config.task()) is task
