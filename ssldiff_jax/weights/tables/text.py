"""Text encoders as transformers save them: a folder with config, tokenizer and weights."""

import json
import pathlib

import jax.numpy as jnp

from ssldiff_jax.encoders import text
from ssldiff_jax.formats import hub, tensors
from ssldiff_jax.formats.tensors import WeightsError
from ssldiff_jax.weights import names
from ssldiff_jax.weights.names import Entry, NameMap

_TOKENS = 128
_SIZES = {
    "vocab_size": "vocab_size",
    "width": "hidden_size",
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "mlp_width": "intermediate_size",
    "max_positions": "max_position_embeddings",
}
_LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "proj": "attention.output.dense",
    "norm_attention": "attention.output.LayerNorm",
    "mlp_in": "intermediate.dense",
    "mlp_out": "output.dense",
    "norm_mlp": "output.LayerNorm",
}


def bert_names(config: text.TextConfig) -> NameMap:
    """transformers' BertModel."""
    lines = [
        Entry("words", "embeddings.word_embeddings.weight", "tensor"),
        Entry("positions", "embeddings.position_embeddings.weight", "tensor"),
        Entry("kinds", "embeddings.token_type_embeddings.weight", "tensor"),
        Entry("norm_in", "embeddings.LayerNorm"),
    ]
    for i in range(config.depth):
        lines += [
            Entry(f"layer_{i}/{ours}", f"encoder.layer.{i}.{theirs}")
            for ours, theirs in _LAYER.items()
        ]
    return NameMap(
        # Models with a head keep the encoder under `bert.`; heads and the buffer of positions are
        # not read.
        tuple(lines),
        prefixes=("bert.", ""),
        ignored=(r".*position_ids", r"pooler\..*", r"cls\..*"),
    )


def load_text_encoder(folder: str | pathlib.Path, num_tokens: int = 0) -> text.TextEncoder:
    """The encoder in a folder: `config.json` (a BERT), `tokenizer.json`, and its weights; it reads
    `num_tokens` of a text (0: 128, or as many as it has positions).

    Raises WeightsError for a file that is missing or of another model, and for more tokens than
    it has positions.
    """
    # Not at the top: a machine that only computes need not have it.
    import tokenizers

    folder = hub.local(folder)
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise WeightsError(f"{folder} must hold a text encoder, got no {name}")
    config = _config(folder / "config.json")
    num_tokens = num_tokens or min(_TOKENS, config.max_positions)
    if not 2 <= num_tokens <= config.max_positions:
        raise WeightsError(
            f"{folder}: num_tokens must lie in [2, {config.max_positions}], got {num_tokens}"
        )
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the library raises bare Exceptions
        raise WeightsError(f"{folder}/tokenizer.json cannot be read: {error}") from error
    like = names.abstract(text.Bert(config), jnp.zeros((1, 2), int), jnp.ones((1, 2), bool))
    params = bert_names(config).load(tensors.read(folder), like, str(folder))
    return text.TextEncoder(config, params, tokenizer, num_tokens)


def _config(path: pathlib.Path) -> text.TextConfig:
    try:
        values = json.loads(path.read_text())
        sizes = {ours: int(values[theirs]) for ours, theirs in _SIZES.items()}
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} must have the sizes of a BERT, got: {error!r}") from error
    # transformers' defaults, which a config may leave out.
    usual = ("bert", "gelu", "absolute")
    actual = tuple(
        values.get(key, default)
        for key, default in zip(
            ("model_type", "hidden_act", "position_embedding_type"), usual, strict=True
        )
    )
    if actual != usual:
        raise WeightsError(f"{path} must be a BERT with {usual[1:]}, got {actual}")
    return text.TextConfig(**sizes)
