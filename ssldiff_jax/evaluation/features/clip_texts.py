"""A vision-language pair as what reads texts for a prior: pictures are its texts in training."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from ssldiff_jax.core import arrays, vectors
from ssldiff_jax.encoders import text as text_lib
from ssldiff_jax.evaluation.features import zero_shot


@dataclasses.dataclass(frozen=True)
class PairTexts:
    """One vector a text, whose entries vary by 1; a picture has one in the same space, so that no
    captions are needed (Ramesh et al. 2022)."""

    pair: zero_shot.Pair
    num_phrases: ClassVar[int] = 1

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.pair.images.dim

    def __call__(self, texts: Sequence[str]) -> text_lib.EncodedText:
        """Raises ValueError for a text without a word, or longer than the pair reads."""
        return self._encoded(self.pair.texts(texts))

    def split_words(self, text: str) -> dict[str, tuple[str, ...]]:
        """None: a CLIP's vocabulary is one of pieces, as which it learnt all words."""
        return {}

    def of_images(self, images: Sequence[arrays.ImageUint8]) -> text_lib.EncodedText:
        """Pictures of any sizes in the place of their descriptions."""
        embedding = np.zeros((len(images), self.dim), np.float32)
        shapes = [image.shape for image in images]
        # Extractors take one size at a time.
        for shape in dict.fromkeys(shapes):
            here = [i for i, other in enumerate(shapes) if other == shape]
            embedding[here] = self.pair.images(np.stack([images[i] for i in here]))
        return self._encoded(embedding)

    def _encoded(self, embedding: Float[np.ndarray, "B D"]) -> text_lib.EncodedText:
        # Entries of a unit vector are about 1/√D.
        scaled = (vectors.unit(embedding) * self.dim**0.5).astype(np.float32)
        return text_lib.EncodedText(scaled[:, None], np.ones((len(embedding), 1), bool))
