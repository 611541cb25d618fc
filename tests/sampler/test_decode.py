import jax
import numpy as np
import pytest

from ssldiff_jax.core import layers, platform
from ssldiff_jax.sampler import decode


def upsampled(params, latents):
    """A decoder that sees one latent at a time: every pixel is known whatever the tile."""
    return params * latents[..., :3].repeat(2, axis=1).repeat(2, axis=2)


def canvas_of(height, width):
    values = np.random.default_rng(0).integers(0, 256, (height, width, 4))
    return (values / 127.5 - 1).astype(np.float32)


@pytest.mark.parametrize("overlap", [0, 3, 7])
@pytest.mark.parametrize(
    ("height", "width"), [(8, 8), (9, 21), (24, 16), (5, 30), (3, 2), (1, 1), (8, 7)]
)
def test_tiles_blend_to_the_whole(height, width, overlap):
    canvas = canvas_of(height, width)
    decoder = decode.TiledDecoder(
        upsampled, 2, decode.DecodeConfig(8, overlap, chunk=3, blend="ramp")
    )
    image, num_tiles = decoder(np.float32(1), canvas)
    assert image.dtype == np.uint8
    whole = np.asarray(layers.to_uint8(np.asarray(upsampled(1, canvas[None])[0])))
    np.testing.assert_array_equal(image, whole)
    assert num_tiles >= 1


def test_tiles_are_counted():
    decoder = decode.TiledDecoder(upsampled, 2, decode.DecodeConfig(8, 2, chunk=4, blend="ramp"))
    assert decoder(np.float32(1), canvas_of(8, 8))[1] == 1
    # 8-tiles 6 apart: starts 0, 6, 12 and 0, 4.
    assert decoder(np.float32(1), canvas_of(20, 12))[1] == 6


@pytest.mark.parametrize(("chunk", "calls"), [(3, 4), (32, 1), (0, 3)])
def test_batches_go_over_the_ends_of_rows(chunk, calls):
    """12 tiles in four rows of three: in threes, in a half of 32 that holds them, and in fours, as
    on a CPU."""
    sizes = []

    def counted(params, latents):
        jax.debug.callback(lambda x: sizes.append(len(x)), latents)
        return upsampled(params, latents)

    decoder = decode.TiledDecoder(counted, 2, decode.DecodeConfig(8, 2, chunk=chunk, blend="ramp"))
    canvas = canvas_of(26, 20)
    image, tiles = decoder(np.float32(1), canvas)
    jax.effects_barrier()
    assert tiles == 12
    assert sizes == calls * [{3: 3, 32: 16, 0: 4}[chunk]]
    whole = np.asarray(layers.to_uint8(np.asarray(upsampled(1, canvas[None])[0])))
    np.testing.assert_array_equal(image, whole)


def test_the_next_batch_is_begun_before_the_last_is_read():
    """When a row of tiles comes out, that below it has been given to the device."""
    begun, asked = [], []

    def counted(params, latents):
        jax.debug.callback(lambda x: begun.append(len(x)), latents)
        return upsampled(params, latents)

    canvas = canvas_of(26, 20)

    def rows(top, count):
        asked.append(top)
        return canvas[top : top + count]

    decoder = decode.TiledDecoder(counted, 2, decode.DecodeConfig(8, 2, chunk=3, blend="ramp"))
    strips = decoder.strips(np.float32(1), rows, (26, 20))
    for done in range(1, 5):
        next(strips)
        jax.effects_barrier()
        assert len(begun) == len(asked) == min(done + 1, 4)


@pytest.mark.parametrize(("target", "together"), [("cpu", 4), ("gpu", 16), ("tpu", 16)])
def test_tiles_together_follow_the_platform(target, together):
    with platform.compile_for(target):
        assert decode.DecodeConfig(8, 2, chunk=0, blend="ramp").together == together
        assert decode.DecodeConfig(8, 2, chunk=5, blend="ramp").together == 5


def test_a_seam_of_the_decoder_is_blended():
    """Tiles that differ in brightness by where they are cut meet in a ramp, not in a step."""

    def darker_right(params, latents):
        x = np.linspace(0.4, -0.4, 16, dtype=np.float32)[:, None]
        return 0 * upsampled(params, latents) + x

    steps = []
    for overlap in (0, 4):
        decoder = decode.TiledDecoder(
            darker_right, 2, decode.DecodeConfig(8, overlap, chunk=2, blend="ramp")
        )
        image, _ = decoder(np.float32(1), canvas_of(8, 16))
        steps.append(np.abs(np.diff(image.astype(int), axis=1)).max())
    assert steps[0] > 90
    assert steps[1] < 30


@pytest.mark.parametrize(("tile", "overlap"), [(8, 8), (8, -1), (0, 0)])
def test_overlaps_that_do_not_fit_are_refused(tile, overlap):
    with pytest.raises(ValueError, match=f"got overlap={overlap}, tile={tile}"):
        decode.DecodeConfig(tile, overlap, chunk=1, blend="ramp")


def test_a_batch_of_less_than_nothing_is_refused():
    with pytest.raises(ValueError, match="chunk must be 0 or more, got chunk=-1"):
        decode.DecodeConfig(8, 2, chunk=-1, blend="ramp")
