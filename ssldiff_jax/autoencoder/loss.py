"""What the autoencoder is trained on: pixels, gradients, features, the cost of its latents, and
a discriminator."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ssldiff_jax.autoencoder import autoencoder, discriminator, vq
from ssldiff_jax.core import arrays, collectives, layers, rng, tasks, vectors

_SCALES = 3  # of the gradients' loss: 1, 1/2, 1/4

# Of the spectrum's loss. A window of 16 px holds a few periods of the finest detail, and is small
# enough that a place without detail does not make up for one with too much.
_WINDOW = 16
# White noise of one grey level, 2/255, has this amplitude under a Hann window, √(6² · (2/255)²):
# below it a difference of logarithms would be one of rounding.
_FAINTEST = 0.05


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights beside the mean absolute error of pixels, which has weight 1.

    `spectrum_weight` is of detail that is as strong as in the image, wherever it lies: the mean
    absolute error alone makes the finest detail fainter, because it cannot say where it is.
    `perceptual` features are the encoder's patch tokens, or LPIPS' with the files
    `lpips_weights` (VGG-16 and its linear layers, comma-separated).
    """

    gradient_weight: float
    spectrum_weight: float
    perceptual: Literal["encoder", "lpips"]
    perceptual_weight: float
    lpips_weights: str
    kl_weight: float
    codebook_weight: float
    adversarial: discriminator.AdversarialConfig


def gradient_loss(x: arrays.BandImage, y: arrays.BandImage) -> Float[jax.Array, ""]:
    """Mean absolute difference of horizontal and vertical gradients, over three scales, each half
    the one before."""
    total = 0.0
    for scale in range(_SCALES):
        if scale > 0:
            x, y = _halve(x), _halve(y)
        for axis in (1, 2):
            total += jnp.mean(jnp.abs(jnp.diff(x, axis=axis) - jnp.diff(y, axis=axis)))
    return total / _SCALES


def _halve(x: arrays.BandImage) -> jax.Array:
    b, h, w, c = x.shape
    return layers.pixel_unshuffle(x, 2).reshape(b, h // 2, w // 2, 4, c).mean(axis=3)


def spectrum_loss(x: arrays.BandImage, y: arrays.BandImage) -> Float[jax.Array, ""]:
    """Mean absolute difference of the logarithms of amplitudes, over all frequencies of the
    luminance in squares of 16 px: 0.1 is 10 % too strong or too faint. What does not fill a square
    at the right and below is not compared."""
    return jnp.mean(jnp.abs(_log_amplitudes(x) - _log_amplitudes(y)))


def _log_amplitudes(image: arrays.BandImage) -> Float[jax.Array, "B r c u v"]:
    rows, cols = (size // _WINDOW for size in image.shape[1:3])
    luminance = image[:, : rows * _WINDOW, : cols * _WINDOW].mean(axis=-1)
    squares = luminance.reshape(-1, rows, _WINDOW, cols, _WINDOW).swapaxes(2, 3)
    # The mean goes first: the window would spread it over the lowest frequencies.
    squares = squares - squares.mean(axis=(-2, -1), keepdims=True)
    hann = np.outer(np.hanning(_WINDOW), np.hanning(_WINDOW)).astype(np.float32)
    spectrum = jnp.fft.rfft2(squares * hann)
    # Of squares, so that the gradient is finite where an amplitude is 0.
    power = spectrum.real**2 + spectrum.imag**2
    return jnp.log(power + _FAINTEST**2) / 2


def feature_distance(features: Callable[[jax.Array], jax.Array]) -> Callable[..., jax.Array]:
    """(x, y) → mean squared distance of L2-normalised feature tokens (B, L, D)."""

    def distance(x: arrays.BandImage, y: arrays.BandImage) -> jax.Array:
        between = vectors.unit(features(x)) - vectors.unit(features(y))
        return jnp.mean(jnp.sum(between**2, axis=-1))

    return distance


@dataclasses.dataclass(frozen=True)
class AutoencoderTask(tasks.Task):
    """Reconstruct the `pixels` of batches as `examples` has them; `perceptual` (params, x, y) →
    distance, with `perceptual_params` held fixed."""

    config: autoencoder.AutoencoderConfig
    weights: LossConfig
    perceptual: Callable[[Any, jax.Array, jax.Array], jax.Array]
    perceptual_params: Any
    examples: tasks.BatchSpec

    def batch_spec(self) -> tasks.BatchSpec:
        """Images."""
        return self.examples

    @property
    def adversary(self) -> discriminator.Discriminator | None:
        """The discriminator, where it has a weight."""
        adversarial = self.weights.adversarial
        return discriminator.Discriminator(adversarial) if adversarial.weight else None

    def init(self, key: arrays.Key, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        """Parameters under `autoencoder` and `discriminator`; the frozen features, the step and
        the use of codes travel as further state."""
        model, shape = autoencoder.Autoencoder(self.config), batch["pixels"].shape
        key_model, key_adversary = jax.random.split(key)
        image = jnp.zeros((1, *shape[1:]))
        noise = jnp.zeros(self._latent_shape(image.shape))
        params = {"autoencoder": model.init(key_model, image, noise)["params"]}
        if self.adversary:
            params["discriminator"] = self.adversary.init(key_adversary, image)["params"]
        fixed = tasks.shapes_as_zeros(self.perceptual_params)
        extra = {"perceptual": fixed, "step": jnp.zeros((), jnp.float32)}
        if self.config.kind == "vq":
            codes = self.config.vq.num_codes
            channels = self.config.chosen.latent_channels
            extra |= {
                # As if all were used evenly: no code counts as dead before it had a chance.
                "usage": jnp.full(codes, 1 / codes),
                "latents": jnp.zeros((codes, channels)),
            }
        return params, extra

    def loss(
        self, params: Any, batch: Mapping[str, Any], key: arrays.Key, *, ema_params: Any, extra: Any
    ) -> tasks.LossOutput:
        """L1 + gradients + spectrum + features + what the latents cost + adversary."""
        image = layers.to_image(batch["pixels"])
        key_noise, key_codes = jax.random.split(key)
        shape = self._latent_shape(image.shape)[1:]
        noise = rng.per_example(key_noise, batch["index"], jax.random.normal, shape)

        # reconstruction
        reconstruction, vjp_to_last_layer = _reconstruct(
            self.config, params["autoencoder"], image, noise
        )
        w = self.weights

        def pixels(x: arrays.BandImage) -> dict[str, jax.Array]:
            return {
                "l1": jnp.mean(jnp.abs(x - image)),
                "gradient": gradient_loss(x, image),
                "spectrum": spectrum_loss(x, image) if w.spectrum_weight else jnp.zeros(()),
                "perceptual": self.perceptual(extra["perceptual"], x, image),
            }

        def fidelity(terms: Mapping[str, jax.Array]) -> jax.Array:
            return (
                terms["l1"]
                + w.gradient_weight * terms["gradient"]
                + w.spectrum_weight * terms["spectrum"]
                + w.perceptual_weight * terms["perceptual"]
            )

        terms = pixels(reconstruction.image) | reconstruction.terms
        cost = {"kl": w.kl_weight, "codebook": w.codebook_weight}
        loss = fidelity(terms) + sum(
            cost[name] * term for name, term in reconstruction.terms.items()
        )

        # adversary
        if self.adversary:
            started = extra["step"] >= w.adversarial.start_step
            added, adversarial_terms = self._adversarial_terms(
                params["discriminator"],
                image,
                reconstruction.image,
                lambda x: fidelity(pixels(x)),
                vjp_to_last_layer,
            )
            loss += jnp.where(started, added, 0.0)
            terms |= adversarial_terms
        # Pixels span 2, so that the peak's square is 4. The log is taken of the whole batch's
        # error: a mean of logs would be another figure on several devices.
        terms["psnr"] = -10 * jnp.log10(
            collectives.pmean(jnp.mean((reconstruction.image - image) ** 2)) / 4
        )
        extra, used = self._update_code_usage(extra, reconstruction, key_codes)
        return tasks.LossOutput(loss, terms | used, extra)

    def post_update(self, params: Any, extra: Any) -> Any:
        """After an update: codes that nothing uses start again at latents of the batch."""
        if self.config.kind != "vq" or not self.config.vq.dead_below:
            return params
        quantiser = params["autoencoder"]["quantiser"]
        codebook = vq.revive(
            quantiser["codebook"], extra["usage"], extra["latents"], self.config.vq.dead_below
        )
        changed = params["autoencoder"] | {"quantiser": quantiser | {"codebook": codebook}}
        return params | {"autoencoder": changed}

    def _adversarial_terms(
        self, params, real, fake, reconstruction_loss, vjp_to_last_layer
    ) -> tuple:
        """The generator's term, adaptively weighted, and the discriminator's own."""
        stop = jax.lax.stop_gradient

        def logits(params: Any, x: arrays.BandImage) -> layers.FeatureMap:
            return self.adversary.apply({"params": params}, layers.like(params, x)).astype(
                jnp.float32
            )

        def fooled(x: arrays.BandImage) -> jax.Array:
            return -jnp.mean(logits(stop(params), x))

        balance = discriminator.adaptive_weight(
            reconstruction_loss, fooled, stop(fake), vjp_to_last_layer
        )
        generator = fooled(fake)
        hinge = discriminator.hinge_loss(logits(params, real), logits(params, stop(fake)))
        loss = self.weights.adversarial.weight * balance * generator + hinge
        return loss, {"generator": generator, "discriminator": hinge, "balance": balance}

    def _update_code_usage(
        self, extra: Any, reconstruction: autoencoder.Reconstruction, key
    ) -> tuple[Any, dict]:
        """The step, and for codes how often each is used and where a dead one could go."""
        extra = extra | {"step": extra["step"] + 1}
        if reconstruction.index is None:
            return extra, {}
        codes, decay = self.config.vq.num_codes, self.config.vq.usage_decay
        used = collectives.pmean(vq.usage(reconstruction.index, codes))
        fractions = decay * extra["usage"] + (1 - decay) * used
        extra |= {"usage": fractions, "latents": _sample_latents(key, codes, reconstruction.z)}
        # Its even share is 1 / codes.
        dead = jnp.mean(fractions * codes < self.config.vq.dead_below)
        return extra, {"code_perplexity": vq.perplexity(fractions), "dead_codes": dead}

    def _latent_shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        b, h, w, _ = image_shape
        f, c = self.config.chosen.downsample_factor, self.config.chosen.latent_channels
        return b, h // f, w // f, c


def _sample_latents(key: arrays.Key, count: int, z: arrays.Latents) -> jax.Array:
    """Latents `(count, C)` from any places of the batch, whichever device holds them."""
    own = jax.lax.stop_gradient(z).reshape(-1, z.shape[-1])
    # All devices choose the same places; whoever holds one adds it, the others add 0.
    of_all = jax.random.randint(key, (count,), 0, len(own) * collectives.num_shares())
    position = of_all - collectives.offset(len(own))
    held = (position >= 0) & (position < len(own))
    return collectives.psum(jnp.where(held[:, None], own[position.clip(0, len(own) - 1)], 0.0))


def _exact(x: jax.Array) -> jax.Array:
    return x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x


def _reconstruct(config: autoencoder.AutoencoderConfig, params: Any, image, noise) -> tuple:
    """The reconstruction (float32), and what pulls a gradient of its image back to the last
    layer."""
    model, last = autoencoder.Autoencoder(config), params["decoder"]["conv_out"]
    image, noise = (layers.like(params["decoder"], x) for x in (image, noise))

    # One forward pass for the loss and for both gradients of the adaptive weight: a function of the
    # kernel of the last layer, with all else as auxiliary output.
    def with_kernel(kernel):
        decoder = params["decoder"] | {"conv_out": last | {"kernel": kernel}}
        reconstruction = model.apply({"params": params | {"decoder": decoder}}, image, noise)
        # Losses are summed in float32, whatever the network computes in.
        reconstruction = jax.tree.map(_exact, reconstruction)
        return reconstruction.image, reconstruction

    _, vjp_to_last_layer, reconstruction = jax.vjp(with_kernel, last["kernel"], has_aux=True)
    return reconstruction, vjp_to_last_layer
