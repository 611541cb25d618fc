"""Text encoders: the published computation, tokens, and files that do not fit."""

import json
import shutil

import numpy as np
import pytest

from ssldiff_jax.encoders import text
from ssldiff_jax.formats import tensors
from ssldiff_jax.weights import names
from ssldiff_jax.weights.tables import text as text_weights


@pytest.fixture(scope="module")
def recorded(golden):
    return golden("bert_hf")


@pytest.fixture
def folder(text_folder, tmp_path):
    """A copy that may be spoilt."""
    return shutil.copytree(text_folder, tmp_path / "text")


def test_hidden_states_are_those_of_transformers(recorded):
    config = text.TextConfig(**recorded.spec["config"])
    ids, known = recorded.inputs["ids"], recorded.inputs["mask"] > 0
    like = names.abstract(text.Bert(config), ids, known)
    params = text_weights.bert_names(config).load(recorded.weights, like, "bert_hf")
    found = np.asarray(text.Bert(config).apply({"params": params}, ids, known))
    expected = recorded.outputs["hidden"]
    error = np.linalg.norm((found - expected)[known]) / np.linalg.norm(expected[known])
    assert error < 1e-4
    pooled = text.pooled(text.EncodedText(found * known[..., None], known))
    np.testing.assert_allclose(pooled, recorded.outputs["pooled"], atol=1e-4)


def test_a_text_does_not_depend_on_its_neighbours(folder):
    encode = text_weights.load_text_encoder(folder, 12)
    alone = encode(["lake in the west"])
    among = encode(["field", "lake in the west", "the field in the east in the west"])
    np.testing.assert_allclose(among.tokens[1], alone.tokens[0], atol=1e-4)
    np.testing.assert_array_equal(among.known.sum(axis=1), [3, 6, 10])
    assert not among.tokens[0, 3:].any()


def test_a_text_that_is_too_long_is_cut_and_counted(folder):
    encode = text_weights.load_text_encoder(folder, 5)
    found = encode(["lake in the west", "lake"])
    assert found.truncated == 1
    assert found.known.sum(axis=1).tolist() == [5, 3]


def test_words_that_the_tokenizer_has_not_whole_are_named(folder):
    spoilt = json.loads((folder / "tokenizer.json").read_text())
    spoilt["model"]["vocab"] |= {"west": 0, "##ern": len(spoilt["model"]["vocab"])}
    (folder / "tokenizer.json").write_text(json.dumps(spoilt))
    read = text.PhraseEncoder(text_weights.load_text_encoder(folder), 2)
    assert read.split_words("lake in the west, the lake") == {}
    assert read.split_words("lake, in the western Wüste") == {
        "western": ("west", "##ern"), "Wüste": ("[UNK]",),
    }  # fmt: skip


def test_phrases_are_read_one_by_one(folder):
    encode = text_weights.load_text_encoder(folder)
    read = text.PhraseEncoder(encode, 2)
    found = read(["lake in the west, field in the east.", "field in the east", "a; b; c"])
    assert found.known.tolist() == [[True, True], [True, False], [True, True]]
    assert found.truncated == 1
    np.testing.assert_allclose(found.tokens[0, 1], found.tokens[1, 0], atol=1e-5)
    alone = text.pooled(encode(["lake in the west"]))[0]
    np.testing.assert_allclose(found.tokens[0, 0], alone * read.dim**0.5, atol=1e-4)
    assert not found.tokens[1, 1].any()
    with pytest.raises(ValueError, match=r"at least one word, got ' \. '"):
        read(["lake", " . "])


def test_a_text_without_words_is_refused(folder):
    with pytest.raises(ValueError, match="at least one word"):
        text_weights.load_text_encoder(folder, 8)(["lake", "  "])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "tokenizer.json").unlink(), r"got no tokenizer\.json"),
        (lambda f: (f / "config.json").write_text("{}"), "must have the sizes of a BERT"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), r"tokenizer\.json cannot be read"),
        (lambda f: (f / "model.safetensors").unlink(), r"expected one of model\.safetensors"),
    ],
)
def test_a_folder_that_does_not_fit_is_one_line(folder, spoil, message):
    spoil(folder)
    with pytest.raises(tensors.WeightsError, match=message):
        text_weights.load_text_encoder(folder, 8)


def test_more_tokens_than_positions_are_refused(folder):
    with pytest.raises(tensors.WeightsError, match=r"num_tokens must lie in \[2, 16\], got 17"):
        text_weights.load_text_encoder(folder, 17)
