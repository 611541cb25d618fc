"""Tool `export`: a run's models as safetensors under the names they are published with."""

from typing import Any

from ssldiff_jax.stages import parts, stage
from ssldiff_jax.weights import latent_diffusion, published


def run(context: stage.Context) -> dict[str, Any]:
    """Write `denoiser.safetensors` (UNet, conditioner and first stage in one, as checkpoints of
    learned representation-guided diffusion have them) and `encoder.safetensors` (timm's names).

    Beside the published names they hold what is ours: `latent_scale` and `latent_shift`, and the
    encoder's `origin`; Generator.load takes them from there. What nobody publishes has no names
    and is left out: the light autoencoder, and an encoder whose embeddings were computed
    elsewhere. A published encoder that was used as it is stays where it is.
    """
    config, folder = context.config, context.folder("export")
    folder.mkdir(parents=True, exist_ok=True)
    denoiser, params = parts.load_denoiser(context)
    parts_ = published.denoiser_parts(denoiser.config, params)
    if config.autoencoder.model.kind != "light":
        table = latent_diffusion.first_stage_names(config.autoencoder.model.conv)
        parts_ += ((table, parts.load_autoencoder_params(context)),)
    scaling = parts.load_scaling(context.folder("latents"))
    published.export(
        folder / "denoiser.safetensors",
        *parts_,
        latent_scale=scaling.latent_scale,
        latent_shift=scaling.latent_shift,
    )
    if not config.embeddings.source and config.encoder.train.num_steps:
        encoder = parts.load_encoder(context)
        table = published.encoder_names(encoder.architecture.vit, "timm")
        whole = (table, encoder.params)
        published.export(folder / "encoder.safetensors", whole, origin=encoder.origin)
    return {"files": sorted(path.name for path in folder.glob("*.safetensors"))}
