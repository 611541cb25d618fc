"""The encoder that a run trains."""

import dataclasses
from typing import Literal

from ssldiff_jax.encoders import augment, dino, infonce, vit


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """The encoder, the objective that trains it, and what embeddings are measured from.

    `origin` zero leaves embeddings as the network gives them; mean subtracts their mean over
    training patches, so that cosines separate patches from each other, and not only patches from
    nothing; white also gives every direction the same variance, so that what a few strong
    directions say does not drown the rest.
    """

    vit: vit.ViTConfig
    objective: Literal["infonce", "dino"]
    infonce: infonce.InfoNCEConfig
    dino: dino.DINOConfig
    jitter: augment.ColorJitter
    shift_px: int
    origin: Literal["zero", "mean", "white"]

    def task(self) -> infonce.InfoNCETask | dino.DINOTask:
        """The training task of the chosen objective."""
        encoder, crop_px = vit.ViT(self.vit), self.vit.image_px + self.shift_px
        if self.objective == "infonce":
            return infonce.InfoNCETask(encoder, self.infonce, self.jitter, crop_px)
        return dino.DINOTask(encoder, self.dino, self.jitter, crop_px)
