"""Stage `tokens`: train p(tokens of a cell | its embedding), the second level of the prior, and
compare its samples with the tokens of held-out patches and with two baselines."""

import dataclasses
import functools
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import digests, moments, rng, vectors
from ssldiff_jax.data import loader, store
from ssldiff_jax.diffusion import cells
from ssldiff_jax.evaluation.metrics import grids as grid_metrics
from ssldiff_jax.formats import atomic
from ssldiff_jax.generation import grid_network, token_sampler
from ssldiff_jax.prior import tokens as tokens_lib
from ssldiff_jax.prior import whitening
from ssldiff_jax.runs import amounts, host_arrays, stage, training_tasks
from ssldiff_jax.runs import artifacts as artifacts_lib
from ssldiff_jax.stages.evaluate import grid_rows
from ssldiff_jax.train import hosts, loop

# Patches that whitening is measured on, and training patches that figures are taken of.
_MEASURED, _COMPARED = 32768, 4096
_READ = 1024


def run(context: stage.Context) -> dict[str, Any] | None:
    """Train, then write `results.json`: figures of tokens sampled from the embeddings of held-out
    patches. Nothing where a cell has one token, its embedding.

    Raises ValueError for embeddings that were stored without tokens.
    """
    config, section = context.config, context.config.tokens
    per_side, folder = config.embeddings.tokens_per_side, context.folder("tokens")
    if per_side == 1:
        return {"tokens_per_side": 1}
    stored = store.Store(context.folder("embeddings"))
    token_sampler.require_whole(stored, per_side)
    training = _Training(stored, per_side, config.num_cells)
    facts = {"tokens_per_side": per_side, "encoder": stored.facts["encoder"]}
    # As the first host sees it: all measure, or none does.
    if not hosts.broadcast_first((folder / "tokens.json").exists()):
        measure = functools.partial(training.measure, folder, facts)
        hosts.on_first_host("measuring the whitening of tokens", measure)
    batches = loader.cached_batches(
        stored,
        batch_size=section.train.batch_size,
        seed=rng.seed_of(config.seed, "tokens/data"),
        config=config.data.loader,
        leave_out=("level",),  # the denoiser's alone
    )
    task = training_tasks.training_task("tokens", config, context.artifacts)
    params = loop.fit(task, batches, section.train, training_tasks.training_run(context, "tokens"))
    model = token_sampler.TokenSampler.of_run(context.artifacts)
    digest, held_out = digests.of_params(params), _held_out(context.artifacts)
    between = folder / ".sampled"
    sampled = _sample(model, held_out, between / digest, config.seed)

    def write() -> dict[str, Any]:
        results = _evaluate(model.white, sampled, training.read(_COMPARED), held_out)
        atomic.write_json(folder / "results.json", results)
        grid_rows.log("tokens", results)
        shutil.rmtree(between)
        return facts | {"tokens": digest, "results": results}

    return hosts.on_first_host("figures of tokens", write)


@dataclasses.dataclass(frozen=True)
class _Patches:
    """Patches by what the encoder says of them: packed `tokens`, and `whole`, their embeddings."""

    tokens: Float[np.ndarray, "N E"]
    whole: Float[np.ndarray, "N D"]

    def white(self, white: tokens_lib.WhiteTokens) -> Float[np.ndarray, "N k k D"]:
        """White tokens."""
        return white.tokens.apply(_square(self.tokens, white.dim))


def _square(tokens: Float[np.ndarray, "N E"], dim: int) -> Float[np.ndarray, "N k k D"]:
    side = round((tokens.shape[1] / dim) ** 0.5)
    return tokens.reshape(-1, side, side, dim)


@dataclasses.dataclass(frozen=True)
class _Training:
    """What is learnt from."""

    stored: store.Store
    per_side: int
    num_cells: int

    def measure(self, folder: pathlib.Path, facts: Mapping[str, Any]) -> None:
        """Write what makes tokens, and embeddings, white, and what they are."""
        folder.mkdir(parents=True, exist_ok=True)
        dim = self.stored.facts["dim"]
        of_tokens, of_whole = moments.Moments(dim), moments.Moments(dim)
        numbers = self._numbers(_MEASURED)
        for start in range(0, len(numbers), _READ):
            patches = self._read(numbers[start : start + _READ])
            of_tokens.add(patches.tokens.reshape(-1, dim), "tokens")
            of_whole.add(patches.whole, "embeddings")
        white = (whitening.Whitening.of(sums) for sums in (of_tokens, of_whole))
        tokens_lib.WhiteTokens(*white).save(folder)
        # Last: where it is, all is.
        atomic.write_json(folder / "tokens.json", facts)

    def read(self, count: int) -> _Patches:
        """Some of them."""
        return self._read(self._numbers(count))

    def _numbers(self, count: int) -> list[int]:
        # From all over: neighbours in the table are of one slide.
        total = len(self.stored)
        return np.unique(np.linspace(0, total - 1, min(count, total)).astype(int)).tolist()

    def _read(self, numbers: list[int]) -> _Patches:
        batch = self.stored.batch(numbers)
        tokens, whole = batch["embedding"].astype(np.float32), batch["whole"]
        if self.num_cells > 1:
            # Of the cells around a crop the first one, wherever it lies.
            tokens = cells.unpack(tokens, self.num_cells)[0][:, 0]
            whole = whole.reshape(len(whole), self.num_cells, -1)[:, 0]
        return _Patches(tokens, whole)


def _held_out(artifacts: artifacts_lib.Artifacts) -> _Patches:
    """Held-out patches; every host embeds them, as this takes little beside the training."""
    config = artifacts.config
    model = artifacts.encoder().with_tokens(config.embeddings.tokens_per_side)
    pixels = artifacts_lib.patches_at(
        artifacts.records("test"), amounts.PRIOR_COMPARED, config.data.crops.patch_px
    )
    whole, tokens = model.start_with_whole(pixels)()
    return _Patches(tokens, whole)


def _sample(
    model: token_sampler.TokenSampler, held_out: _Patches, folder: pathlib.Path, root: int
) -> dict[str, host_arrays.HostArrays]:
    """Tokens from the embeddings of held-out patches, and from those of others."""
    seed, whole = rng.seed_of(root, "tokens/evaluation"), held_out.whole
    order = np.random.default_rng(seed).permutation(len(whole))
    by_source = {"tokens": whole, "tokens, embeddings shuffled": whole[order]}
    count, sampled = grid_network.num_batches(len(whole)), {}
    for number, (source, embedding) in enumerate(by_source.items()):
        sample = functools.partial(model.sample_part, embedding, seed=seed)
        sampled[source] = host_arrays.HostArrays(folder / str(number), count)
        sampled[source].make(source, sample)
    return sampled


def _evaluate(
    white: tokens_lib.WhiteTokens,
    sampled: Mapping[str, host_arrays.HostArrays],
    training: _Patches,
    held_out: _Patches,
) -> dict[str, dict[str, Any]]:
    """Figures of sampled tokens and of two baselines: the embedding at every token, and the tokens
    of the training patch whose embedding is nearest. `cosine` is that of the mean of tokens with
    the mean of the real ones of the same embedding."""
    real, learnt = held_out.white(white), training.white(white)
    whole, candidates = (
        white.whole.apply(p.whole).astype(np.float64) for p in (held_out, training)
    )
    nearest = vectors.squared_distances(whole, candidates).argmin(axis=1)
    everywhere = np.tile(held_out.whole, (1, real.shape[1] * real.shape[2]))
    by_source = {
        **{name: white.tokens.apply(np.concatenate(list(s))) for name, s in sampled.items()},
        "embedding at every token": _Patches(everywhere, held_out.whole).white(white),
        "nearest training patch": learnt[nearest],
        "real": real,
    }
    target, results = white.tokens.undo(real).mean(axis=(1, 2)), {}
    for name, tokens in by_source.items():
        mean = white.tokens.undo(tokens).mean(axis=(1, 2))
        figures = {"cosine": float(np.sum(vectors.unit(mean) * vectors.unit(target), 1).mean())}
        if name != "real":
            figures = dataclasses.asdict(grid_metrics.compare(tokens, real, learnt)) | figures
        results[name] = figures
    return results
