"""Tool `export`: a run's models as safetensors under the names they are published with."""

from typing import Any

from ssldiff_jax.formats import atomic
from ssldiff_jax.generation import exported, models
from ssldiff_jax.runs import stage


def run(context: stage.Context) -> dict[str, Any]:
    """Write `denoiser.safetensors` (UNet, conditioner and first stage in one, as checkpoints of
    learned representation-guided diffusion have them), `encoder.safetensors` (timm's names) and,
    where they are trained, `prior.safetensors` and `tokens.safetensors` (names of our own).

    `Generator.load` takes the folder, or the denoiser's file, without a config: the head of every
    file has it, with the scale, the encoder and the licence. Beside published names the files hold
    what is ours: `latent_scale` and `latent_shift`, the encoder's `origin`, and the light
    autoencoder, which has no published names. A published encoder that was used as it is, and a
    prior's text encoder, stay where they are; laid into the folder under their old names they are
    found.
    """
    trained = models.Models.of_run(context.artifacts)
    # Of the code that trained it, not of this command's.
    versions = atomic.read_json(context.folder("denoiser") / "done.json")["versions"]
    card = exported.Card.of(context.config, trained, versions)
    written = exported.write(context.folder("export"), trained, card)
    return {"files": [path.name for path in written]}
