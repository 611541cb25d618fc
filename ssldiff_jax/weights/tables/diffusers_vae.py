"""The table for diffusers' AutoencoderKL, with or without the 1×1 convolutions around latents."""

from ssldiff_jax.autoencoder import conv
from ssldiff_jax.weights.names import Entry, NameMap

_RES_BLOCK = {
    "norm1": "norm1",
    "conv1": "conv1",
    "norm2": "norm2",
    "conv2": "conv2",
    "shortcut": "conv_shortcut",
}

_ATTENTION = {
    "norm": "group_norm",
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "proj_out": "to_out.0",
}


def vae_names(config: conv.ConvConfig) -> NameMap:
    """Decoder blocks are numbered from the coarsest level there, from the finest here."""
    levels = len(config.channel_mult)
    table = {"encoder/quant": "quant_conv", "decoder/post_quant": "post_quant_conv"}
    for side in ("encoder", "decoder"):
        table |= {
            f"{side}/conv_in": f"{side}.conv_in",
            f"{side}/norm_out": f"{side}.conv_norm_out",
            f"{side}/conv_out": f"{side}.conv_out",
        }
        middle = f"{side}.mid_block"
        table |= _under(f"{side}/middle/block_1", f"{middle}.resnets.0", _RES_BLOCK)
        table |= _under(f"{side}/middle/block_2", f"{middle}.resnets.1", _RES_BLOCK)
        table |= _under(f"{side}/middle/attention", f"{middle}.attentions.0", _ATTENTION)
    for level in range(levels):
        # The last level is not sampled down and the first not up: their lines name nothing.
        down, up = f"encoder.down_blocks.{level}", f"decoder.up_blocks.{levels - 1 - level}"
        for block in range(config.num_res_blocks):
            ours = f"encoder/down_{level}_{block}"
            table |= _under(ours, f"{down}.resnets.{block}", _RES_BLOCK)
        for block in range(config.num_res_blocks + 1):
            ours = f"decoder/up_{level}_{block}"
            table |= _under(ours, f"{up}.resnets.{block}", _RES_BLOCK)
        table[f"encoder/downsample_{level}"] = f"{down}.downsamplers.0.conv"
        table[f"decoder/upsample_{level}"] = f"{up}.upsamplers.0.conv"
    return NameMap(entries=tuple(Entry(ours, theirs) for ours, theirs in table.items()))


def _under(ours: str, theirs: str, table: dict[str, str]) -> dict[str, str]:
    return {f"{ours}/{mine}": f"{theirs}.{name}" for mine, name in table.items()}
