"""Embeddings computed elsewhere, as a run's config names them."""

import dataclasses
import hashlib
import logging
import pathlib
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from ssldiff_jax.core import arrays
from ssldiff_jax.data import plan, shuffle
from ssldiff_jax.data.precomputed import alignment
from ssldiff_jax.data.precomputed import files as features
from ssldiff_jax.formats import fingerprints

_LOG = logging.getLogger(__name__)

NUM_COMPARED = 512


@dataclasses.dataclass(frozen=True)
class EmbeddingsSection:
    """How finely embeddings describe a patch, and where they come from when not from an encoder.

    Attributes:
        source: a file with a row for each patch of a list, or a folder with a file for each
            slide; "" where they are computed here.
        dataset: name of the array in a file that has several.
        corners: folder of .h5 files with the places of patches, where `source` has none.
        check: `pixels` compares embeddings with their patches; `none` trusts them.
        tokens_per_side: a patch is described by as many tokens squared; 1 is the embedding alone.
        tokens_of: the encoder's patch tokens, or embeddings of the squares of a patch.
    """

    source: str
    dataset: str
    corners: str
    check: Literal["pixels", "none"]
    # Steps that read this section to cut patches or train encoders know nothing of tokens: it is
    # the step `embeddings` that records it.
    tokens_per_side: int = dataclasses.field(metadata={"digest": False})
    tokens_of: Literal["patches", "squares"] = dataclasses.field(metadata={"digest": False})

    @property
    def path(self) -> pathlib.Path:
        """The file or folder."""
        return pathlib.Path(self.source).expanduser()

    def fingerprint(self) -> list[Any] | None:
        """Facts about the files; None where embeddings are computed here.

        Raises WeightsError where there are none.
        """
        if not self.source:
            return None
        corners = pathlib.Path(self.corners).expanduser() if self.corners else ""
        return [_known_by(path) if path else None for path in (self.path, corners)]

    def dim(self) -> int | None:
        """Length of an embedding, as the first file has it; None where none can be opened."""
        try:
            folder = sorted(self.path.iterdir()) if self.path.is_dir() else [self.path]
            files = (path for path in folder if path.suffix in features.SUFFIXES)
            return features.open_features(next(files), self.dataset).dim
        except (OSError, ValueError, StopIteration):
            return None

    def of_list(self) -> features.Features:
        """The embeddings of a list of patches.

        Raises WeightsError where there is no such file.
        """
        return features.open_features(self.path, self.dataset)

    def of_slide(self, name: str) -> features.Features | None:
        """The embeddings of a slide with the corners of its patches; None where there is no file.

        Raises WeightsError where no file has the corners, or two files have different ones.
        """
        stem = pathlib.PurePath(name).stem
        path = features.find(self.path, stem)
        if path is None:
            return None
        values = features.open_features(path, self.dataset)
        if self.corners:
            corners_path = pathlib.Path(self.corners).expanduser() / f"{stem}.h5"
            return features.with_corners(values, features.open_corners(corners_path))
        if values.corners is None:
            raise features.WeightsError(
                f"{path} has no coords of its patches: config.embeddings.corners must name the "
                "folder of .h5 files that have"
            )
        return values


def _known_by(path: pathlib.Path) -> str:
    """A hash of names, sizes and times: sums of sizes would not change where files swap names."""
    fingerprints.of_path(str(path))  # raises where there is nothing
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    stats = [(f.name, (s := f.stat()).st_size, s.st_mtime_ns) for f in files]
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:32]


def check_alignment(
    count: int,
    square: Callable[[int], plan.Square],
    pixels: Callable[[int], arrays.Pixels],
    embeddings: Callable[[int], features.Features],
) -> alignment.Agreement | None:
    """Compare embeddings with the pixels of some of `count` patches; `embeddings` finds those of a
    slide.

    Raises WeightsError where another order would agree better. None where the patches are too
    few to decide.
    """
    chosen = shuffle.first(NUM_COMPARED, count, seed=0).tolist()
    if len(chosen) < alignment.LEAST:
        return None
    # By slide: each file of embeddings is opened once.
    chosen = sorted(chosen, key=lambda i: (square(i).slide, square(i).row))
    compared = [square(i) for i in chosen]
    looks = alignment.look(np.stack([pixels(i) for i in chosen]))
    # A row that is lost or added at the beginning moves all that follow.
    moved = [rows_of(compared, embeddings, move) for move in (-2, -1, 1, 2)]
    agreement = alignment.agreement(rows_of(compared, embeddings), looks, moved)
    _LOG.info("correlation of embeddings with pixels: %.2f (shuffled %.2f, shifted %.2f)",
              agreement.own, agreement.shuffled, agreement.moved)  # fmt: skip
    if not agreement.holds:
        raise features.WeightsError(
            f"{embeddings(compared[0].slide)} must have its rows in the order of the patches: "
            "they correlate with their own pixels no better than with others (correlation "
            f"{agreement.own:.3f}; shuffled {agreement.shuffled:.3f}, shifted "
            f"{agreement.moved:.3f}); config.embeddings.check=none skips this check"
        )
    return agreement


def rows_of(
    squares: list[plan.Square], embeddings: Callable[[int], features.Features], move: int = 0
) -> arrays.Embedding:
    """The embeddings of squares that are in the order of their slides, or of rows beside them."""
    slides = np.array([s.slide for s in squares])
    rows = np.array([s.row for s in squares]) + move
    vectors = []
    for slide in dict.fromkeys(slides.tolist()):
        values = embeddings(slide)
        vectors.append(values.rows(np.clip(rows[slides == slide], 0, len(values) - 1)))
    return np.concatenate(vectors)
