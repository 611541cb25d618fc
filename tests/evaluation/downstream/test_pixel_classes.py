import numpy as np

from ssldiff_jax.evaluation.downstream import pixel_classes


def scene(seed):
    """Blue and green halves, and a grey part that is green to the eye but rough."""
    generator = np.random.default_rng(seed)
    classes = np.zeros((48, 48), int)
    classes[:, 24:] = 1
    classes[32:, 24:] = 2
    colours = np.array([[60, 80, 140], [70, 140, 60], [70, 140, 60]])
    noise = generator.normal(0, [4, 4, 30], (48, 48, 3))
    rough = np.take_along_axis(noise, classes[..., None], axis=-1)
    return np.clip(colours[classes] + rough, 0, 255).astype(np.uint8), classes


def test_pixels_are_told_by_colour_and_roughness():
    images, classes = zip(*(scene(seed) for seed in range(4)), strict=True)
    judge = pixel_classes.PixelClassifier.fit(list(images), list(classes), 3)
    image, wanted = scene(9)
    found = judge(image)
    assert found.shape == wanted.shape
    assert (found == wanted).mean() > 0.9


def test_labels_that_mean_nothing_are_not_learnt():
    images, _ = zip(*(scene(seed) for seed in range(4)), strict=True)
    random = [np.random.default_rng(s).integers(0, 3, (48, 48)) for s in range(4)]
    judge = pixel_classes.PixelClassifier.fit(list(images), random, 3)
    wanted = np.random.default_rng(9).integers(0, 3, (48, 48))
    assert (judge(scene(9)[0]) == wanted).mean() < 0.45


def test_a_pixel_has_its_class_whatever_strip_it_is_in():
    images, classes = zip(*(scene(seed) for seed in range(4)), strict=True)
    judge = pixel_classes.PixelClassifier.fit(list(images), list(classes), 3)
    tall = np.concatenate([scene(seed)[0] for seed in range(20)])
    whole = judge(tall)
    assert whole.shape == tall.shape[:2]
    for top in (37, 200, 411):
        part = judge(tall[top : top + 300])
        # What lies farther from the border than the classifier looks.
        assert np.array_equal(part[24:-24], whole[top + 24 : top + 276])
