"""Texts to token vectors: BERT (Devlin et al. 2019), as sentence encoders such as MiniLM use it."""

import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from ssldiff_jax.core import arrays, attention, data_parallel, vectors

if TYPE_CHECKING:
    import tokenizers

_EPSILON = 1e-12  # of layer norms, as in BERT
# Few lengths mean few compilations.
_STEP = 8  # lengths that are traced are multiples of it
_BATCH = 64  # texts


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """Sizes; the defaults are those of all-MiniLM-L6-v2."""

    vocab_size: int = 30522
    width: int = 384
    depth: int = 6
    num_heads: int = 12
    mlp_width: int = 1536
    max_positions: int = 512


class Layer(nn.Module):
    """Attention and MLP, each with a residual and a norm after it."""

    config: TextConfig

    @nn.compact
    def __call__(self, x: arrays.Tokens, is_token: Bool[arrays.AnyArray, "B L"]) -> arrays.Tokens:
        c, width = self.config, x.shape[-1]
        q, k, v = (nn.Dense(width, name=name)(x) for name in ("query", "key", "value"))
        h = attention.attend(q, k, v, c.num_heads, is_token)
        norm = functools.partial(nn.LayerNorm, epsilon=_EPSILON)
        x = norm(name="norm_attention")(x + nn.Dense(width, name="proj")(h))
        # The exact GELU, as BERT's "gelu" is in transformers.
        h = nn.gelu(nn.Dense(c.mlp_width, name="mlp_in")(x), approximate=False)
        return norm(name="norm_mlp")(x + nn.Dense(width, name="mlp_out")(h))


class Bert(nn.Module):
    """Token numbers → a vector for each; what is not `is_token` is not looked at."""

    config: TextConfig

    @nn.compact
    def __call__(
        self, tokens: Int[arrays.AnyArray, "B L"], is_token: Bool[arrays.AnyArray, "B L"]
    ) -> arrays.Tokens:
        c = self.config
        x = self._table("words", c.vocab_size)[tokens]
        # Kind 0: the first sentence of BERT's pairs, and here the only one.
        x = x + self._table("positions", c.max_positions)[: tokens.shape[1]]
        x = x + self._table("kinds", 2)[0]
        x = nn.LayerNorm(epsilon=_EPSILON, name="norm_in")(x)
        for i in range(c.depth):
            x = Layer(c, name=f"layer_{i}")(x, is_token)
        return x

    def _table(self, name: str, count: int) -> Float[arrays.AnyArray, "N D"]:
        return self.param(name, nn.initializers.normal(0.02), (count, self.config.width))


@dataclasses.dataclass(frozen=True)
class EncodedText:
    """Vectors of tokens, zero where there is none, and which there are."""

    tokens: Float[np.ndarray, "B L D"]
    known: Bool[np.ndarray, "B L"]
    truncated: int = 0
    """Texts that were longer."""


class TextEncoder:
    """Texts of up to `num_tokens` tokens → their vectors, in batches of one size."""

    def __init__(
        self,
        config: TextConfig,
        params: Any,
        tokenizer: "tokenizers.Tokenizer",
        num_tokens: int,
    ):
        self.config, self.num_tokens = config, num_tokens
        self._params, self._tokenizer = jax.device_put(params), tokenizer
        tokenizer.no_padding()
        tokenizer.no_truncation()

    def split_words(self, text: str) -> dict[str, tuple[str, ...]]:
        """The words of a text that the tokenizer does not have whole, and their pieces."""
        encoding = self._tokenizer.encode(text)
        by_word: dict[int, list[int]] = {}
        for i, word in enumerate(encoding.word_ids):
            if word is not None:  # what begins and ends every text
                by_word.setdefault(word, []).append(i)
        unknown = self._tokenizer.token_to_id("[UNK]")
        pieces = {
            text[encoding.offsets[at[0]][0] : encoding.offsets[at[-1]][1]]: at
            for at in by_word.values()
            if len(at) > 1 or encoding.ids[at[0]] == unknown
        }
        return {
            word: tuple(encoding.tokens[i] for i in at)
            for word, at in pieces.items()
            # A mark is no word.
            if any(map(str.isalnum, word))
        }

    def __call__(self, texts: Sequence[str]) -> EncodedText:
        """Raises ValueError for a text without a word."""
        for text in texts:
            if not text.strip():
                raise ValueError(f"a text must have at least one word, got {text!r}")
        encodings = self._tokenizer.encode_batch(list(texts))
        numbers = np.zeros((len(texts), self.num_tokens), np.int32)
        is_token = np.zeros(numbers.shape, bool)
        for row, encoding in enumerate(encodings):
            ids = encoding.ids
            # What is cut off is before the token that ends every text.
            ids = ids if len(ids) <= self.num_tokens else [*ids[: self.num_tokens - 1], ids[-1]]
            numbers[row, : len(ids)], is_token[row, : len(ids)] = ids, True
        vectors = np.zeros((*numbers.shape, self.config.width), np.float32)
        run = functools.partial(self._run, self._params)
        # Texts of one length together: what only fills up is computed too.
        order = np.argsort(is_token.sum(axis=1), kind="stable")
        for rows in np.split(order, range(_BATCH, len(order), _BATCH)):
            longest = int(is_token[rows].sum(axis=1).max(initial=1))
            length = min(-(-longest // _STEP) * _STEP, self.num_tokens)
            batch = numbers[rows, :length], is_token[rows, :length]
            for encoded in data_parallel.map_batches(run, batch, _BATCH):
                vectors[rows, :length] = encoded
        truncated = sum(len(encoding.ids) > self.num_tokens for encoding in encodings)
        return EncodedText(vectors, is_token, truncated)

    @functools.cached_property
    def _run(self):
        def run(params, numbers, is_token):
            # A row that only fills the batch has no token: the first stands for one.
            with_first = is_token.at[:, 0].set(True)
            vectors = Bert(self.config).apply({"params": params}, numbers, with_first)
            return vectors * is_token[..., None]

        return jax.jit(run)


class PhraseEncoder:
    """Texts → a vector for each of their phrases, up to `num_phrases`, whose entries vary by 1.

    Phrases end at commas, semicolons, colons and full stops. Sentence encoders place phrases of one
    meaning side by side whatever their words; a whole list of them, taken at once, they do not.
    """

    def __init__(self, encoder: TextEncoder, num_phrases: int):
        self.encoder, self.num_phrases = encoder, num_phrases

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.encoder.config.width

    def split_words(self, text: str) -> dict[str, tuple[str, ...]]:
        """As TextEncoder does."""
        return self.encoder.split_words(text)

    def __call__(self, texts: Sequence[str]) -> EncodedText:
        """Raises ValueError for a text without a word."""
        parts = [phrases(text) for text in texts]
        if [] in parts:
            raise ValueError(f"a text must have at least one word, got {texts[parts.index([])]!r}")
        texts_phrases = [phrases_of_text[: self.num_phrases] for phrases_of_text in parts]
        # Each phrase is encoded once, whatever number of texts has it.
        different = sorted(
            {phrase for phrases_of_text in texts_phrases for phrase in phrases_of_text}
        )
        row_of_phrase = {phrase: i for i, phrase in enumerate(different)}
        # Unit vectors have entries of variance 1/D.
        vectors = pooled(self.encoder(different)) * np.float32(self.dim**0.5)
        shape = (len(texts), self.num_phrases)
        tokens, is_phrase = np.zeros((*shape, self.dim), np.float32), np.zeros(shape, bool)
        for row, phrases_of_text in enumerate(texts_phrases):
            tokens[row, : len(phrases_of_text)] = vectors[
                [row_of_phrase[phrase] for phrase in phrases_of_text]
            ]
            is_phrase[row, : len(phrases_of_text)] = True
        return EncodedText(tokens, is_phrase, sum(len(f) > self.num_phrases for f in parts))


def phrases(text: str) -> list[str]:
    """The parts of a text between marks that end one."""
    return [part.strip() for part in re.split(r"[,;:.\n]+", text) if part.strip()]


def pooled(encoded: EncodedText) -> Float[np.ndarray, "B D"]:
    """One unit vector for each text: the mean of its tokens, as sentence-transformers take it."""
    counts = np.maximum(encoded.known.sum(axis=1, keepdims=True), 1)
    mean = encoded.tokens.sum(axis=1) / counts
    return vectors.unit(mean)
