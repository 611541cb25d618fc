"""Zero-shot classes: from prompts, from images, and how often they are right."""

import json
import shutil

import numpy as np
import pytest
import tokenizers
from safetensors.numpy import load_file, save_file

from ssldiff_jax.evaluation.features import networks, zero_shot
from ssldiff_jax.formats import tensors as reader
from ssldiff_jax.weights.tables import clip

AXES = zero_shot.Classes(("field", "lake", "town"), np.eye(3, dtype=np.float32))


def floats(*rows):
    return np.array(rows, np.float32)


def test_the_nearest_in_angle_is_predicted():
    features = floats([9, 1, 0], [0.1, 0.2, 0.1], [-1, -2, -3], [0, 0, 5])
    np.testing.assert_array_equal(AXES.predict(features), [0, 1, 0, 2])


def test_confusion_counts_rows_by_truth():
    features = floats([1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0], [0, 1, 0])
    labels = ["field", "field", "field", "lake", "lake", "lake"]
    found = zero_shot.classify(AXES, features, labels)
    np.testing.assert_array_equal(found.counts, [[2, 1, 0], [0, 2, 1], [0, 0, 0]])
    assert found.counts.dtype == np.int64
    assert found.accuracy == pytest.approx(4 / 6)
    # No image is of a town.
    np.testing.assert_array_equal(np.isnan(found.recall), [False, False, True])
    assert found.balanced_accuracy == pytest.approx(2 / 3)


def test_balanced_accuracy_does_not_see_how_many_images_a_class_has():
    """Always `field`: right nine times of ten, no better than chance."""
    features, labels = np.tile(floats([1, 0, 0]), (10, 1)), ["field"] * 9 + ["lake"]
    found = zero_shot.classify(AXES, features, labels)
    assert found.accuracy == pytest.approx(0.9)
    assert found.balanced_accuracy == pytest.approx(0.5)


def test_means_of_images_weigh_directions_and_not_lengths():
    features = floats([100, 0], [0, 1], [-1, 0], [-3, 0])
    labels = ["b", "b", "a", "a"]
    found = zero_shot.from_images(features, labels)
    assert found.names == ("a", "b")
    half = np.sqrt(0.5)
    np.testing.assert_allclose(found.vectors, [[-1, 0], [half, half]], atol=1e-6)
    ordered = zero_shot.from_images(features, labels, names=("b", "a"))
    np.testing.assert_array_equal(ordered.vectors, found.vectors[::-1])
    confusion = zero_shot.classify(found, features, labels)
    np.testing.assert_array_equal(confusion.counts, [[2, 0], [0, 2]])


def test_templates_are_filled_and_averaged():
    words = {"water": "the lake", "land": "a {} field"}
    prompts = zero_shot.fill(["a photo of {}", "{}"], words)
    assert prompts["water"] == ["a photo of the lake", "the lake"]
    assert prompts["land"][1] == "a {} field"
    vectors = {"x": [2, 0], "y": [0, 3], "z": [0, -1]}
    texts = lambda told: floats(*(vectors[text] for text in told))
    found = zero_shot.from_prompts(texts, {"both": ["x", "y"], "down": ["z"]})
    assert found.names == ("both", "down")
    half = np.sqrt(0.5)
    np.testing.assert_allclose(found.vectors, [[half, half], [0, -1]], atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: zero_shot.from_prompts(np.ones, {}), r"two classes or more .* got \[\]"),
        (
            lambda: zero_shot.from_prompts(np.ones, {"a": []}),
            r"list of prompts, got none for \['a'\]",
        ),
        (lambda: zero_shot.from_images(floats([1, 0]), ["a"]), r"two classes or more .* \['a'\]"),
        (
            lambda: zero_shot.from_images(floats([1, 0]), ["a"], ("a", "b")),
            "each class must have an example, got none of b",
        ),
        (lambda: zero_shot.fill(["a photo"], {}), r"must contain \{\}, got \['a photo'\]"),
        (lambda: zero_shot.fill([], {}), r"must contain \{\}, got \[\]"),
        (lambda: zero_shot.classify(AXES, np.zeros((0, 3)), []), "one image or more"),
        (
            lambda: zero_shot.classify(AXES, np.ones((1, 3)), ["sea"]),
            "labels must be among field, lake, town, got sea",
        ),
        (lambda: zero_shot.classify(AXES, np.ones((2, 3)), ["lake"]), "got 2 and 1"),
        (lambda: AXES.predict(np.ones((1, 4))), "of length 3, got 4"),
        (lambda: AXES.predict(np.full((1, 3), np.nan)), "must be finite"),
    ],
)
def test_what_cannot_be_classified_is_one_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.fixture(scope="module")
def recorded(golden):
    return golden("clip_hf")


@pytest.fixture
def folder(clip_folder, tmp_path):
    """A copy that may be spoilt."""
    return shutil.copytree(clip_folder, tmp_path / "clip")


def test_a_pair_of_a_folder_classifies(recorded, folder):
    pair = zero_shot.open_pair(folder)
    found = pair.images([recorded.inputs["square"]] * 3)
    expected = recorded.outputs["image_square"]
    np.testing.assert_allclose(found, np.repeat(expected, 3, axis=0), rtol=1e-4, atol=1e-5)
    assert (pair.images.name, pair.images.dim) == ("clip", 20)

    words = {"water": "lake", "land": "field"}
    prompts = zero_shot.fill(["a photo of the {}", "{}"], words)
    every = pair.texts([text for told in prompts.values() for text in told])
    unit = every / np.linalg.norm(every, axis=1, keepdims=True)
    means = unit.reshape(2, 2, -1).mean(axis=1)
    cosines = means @ found[0] / np.linalg.norm(means, axis=1)
    classes = zero_shot.from_prompts(pair.texts, prompts)
    assert classes.names == ("water", "land")
    truth = classes.names[int(np.argmax(cosines))]
    assert zero_shot.classify(classes, found, [truth] * 3).accuracy == 1


def test_the_digest_covers_how_images_are_prepared(folder):
    digest = lambda: networks.clip_images(folder).digest
    before = digest()
    (folder / "preprocessor_config.json").unlink()
    assert digest() == before
    told = {"image_std": [0.5, 0.5, 0.5], "size": 32, "crop_size": 32}
    (folder / "preprocessor_config.json").write_text(json.dumps(told))
    assert digest() != before


def test_texts_that_do_not_fit_are_one_line(folder):
    texts = clip.load_texts(folder)
    assert texts.tokens(["a lake", "field"]).tolist() == [
        [58, 3, 6, 59] + [0] * 12,
        [58, 7, 59] + [0] * 13,
    ]
    with pytest.raises(ValueError, match="at most 16 tokens, got 22 of 'a a a"):
        texts(["a " * 20])
    with pytest.raises(ValueError, match="at least one word"):
        texts(["a lake", " "])
    endless = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    endless.post_processor = tokenizers.processors.TemplateProcessing(single="$A")
    endless.save(str(folder / "tokenizer.json"))
    with pytest.raises(ValueError, match=r"tokenizer\.json must end every text with .*end=59"):
        clip.load_texts(folder)(["a lake"])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "tokenizer.json").unlink(), r"must hold a CLIP, got no tokenizer\.json"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), r"tokenizer\.json cannot be read"),
        (lambda f: (f / "model.safetensors").unlink(), r"expected one of model\.safetensors"),
    ],
)
def test_a_folder_that_does_not_fit_is_one_line(folder, spoil, message):
    spoil(folder)
    with pytest.raises(reader.WeightsError, match=message):
        zero_shot.open_pair(folder)


def test_a_tensor_that_is_missing_is_named(folder):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["text_model.encoder.layers.1.self_attn.k_proj.bias"]
    save_file(tensors, path)
    with pytest.raises(reader.WeightsError, match=r"1 missing: .*layers\.1\.self_attn\.k_proj\.bi"):
        zero_shot.open_pair(folder)
    save_file({k: v for k, v in tensors.items() if k != "visual_projection.weight"}, path)
    with pytest.raises(reader.WeightsError, match=r"1 missing: visual_projection\.weight$"):
        zero_shot.open_pair(folder)
