"""Tables for checkpoints of latent diffusion (CompVis) and of learned representation-guided
diffusion, which keeps its names: UNet, conditioner and first stage in one file."""

from ssldiff_jax.autoencoder import conv
from ssldiff_jax.diffusion import unet
from ssldiff_jax.weights.names import Entry, NameMap

# Numbers that are left out, here and below, are layers without parameters: SiLU and dropout.
_RES_BLOCK = {
    "norm_in": "in_layers.0",
    "conv_in": "in_layers.2",
    "emb": "emb_layers.1",
    "norm_out": "out_layers.0",
    "conv_out": "out_layers.3",
    "skip": "skip_connection",
}

# One block, as published; attn1 is to itself, attn2 to the condition.
_TRANSFORMER = {
    "norm": "norm",
    "proj_in": "proj_in",
    "block/norm_self": "transformer_blocks.0.norm1",
    "block/self_attention/q": "transformer_blocks.0.attn1.to_q",
    "block/self_attention/k": "transformer_blocks.0.attn1.to_k",
    "block/self_attention/v": "transformer_blocks.0.attn1.to_v",
    "block/self_attention/out": "transformer_blocks.0.attn1.to_out.0",
    "block/norm_cross": "transformer_blocks.0.norm2",
    "block/cross_attention/q": "transformer_blocks.0.attn2.to_q",
    "block/cross_attention/k": "transformer_blocks.0.attn2.to_k",
    "block/cross_attention/v": "transformer_blocks.0.attn2.to_v",
    "block/cross_attention/out": "transformer_blocks.0.attn2.to_out.0",
    "block/norm_ff": "transformer_blocks.0.norm3",
    "block/geglu": "transformer_blocks.0.ff.net.0.proj",
    "block/ff_out": "transformer_blocks.0.ff.net.2",
    "proj_out": "proj_out",
}

_FIRST_STAGE_BLOCK = {
    "norm1": "norm1",
    "conv1": "conv1",
    "norm2": "norm2",
    "conv2": "conv2",
    "shortcut": "nin_shortcut",
}

_UNET_ENDS = {
    "time_in": "time_embed.0",
    "time_out": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "norm_out": "out.0",
    "conv_out": "out.2",
    # Ours alone: the embedding and the places of cells beside the timestep.
    "token_in": "token_embed",
    "place_in": "place_embed",
}


def unet_names(config: unet.UNetConfig) -> NameMap:
    """The UNet: numbered blocks, each a list of layers."""
    levels, blocks = len(config.channel_mult), config.num_res_blocks
    table = dict(_UNET_ENDS)
    # Block 0 is the first convolution. A downsampling counts as a block on the way down; on the way
    # up an upsampling is the last layer of one.
    number = 1
    for level in range(levels):
        for block in range(blocks):
            table |= _stage(f"down_{level}_{block}", f"input_blocks.{number}")
            number += 1
        if level < levels - 1:
            table[f"downsample_{level}"] = f"input_blocks.{number}.0.op"
            number += 1
    table |= _under("middle_in/res", "middle_block.0", _RES_BLOCK)
    table |= _under("middle_in/attention", "middle_block.1", _TRANSFORMER)
    table |= _under("middle_out", "middle_block.2", _RES_BLOCK)
    number = 0
    for level in reversed(range(levels)):
        # One more than on the way down: it takes what came into the level.
        for block in range(blocks + 1):
            table |= _stage(f"up_{level}_{block}", f"output_blocks.{number}")
            if level > 0 and block == blocks:
                # Behind the transformer, where the level has one.
                last = 2 if level in config.attention_levels else 1
                table[f"upsample_{level}"] = f"output_blocks.{number}.{last}.conv"
            number += 1
    return NameMap(
        entries=tuple(Entry(ours, theirs) for ours, theirs in table.items()),
        prefixes=("model.diffusion_model.",),
        written="model.diffusion_model.",
    )


def conditioner_names(sources: tuple[str, ...] = ("patch",)) -> NameMap:
    """The linear layers to tokens: from embeddings of the patch and of a region around it, and,
    ours alone, from the place of a cell."""
    ours = {"patch": "token", "region": "token_region", "place": "place"}
    return NameMap(
        entries=tuple(Entry(ours[source], f"{source}_fc") for source in sources),
        prefixes=("cond_stage_model.",),
        written="cond_stage_model.",
    )


def first_stage_names(config: conv.ConvConfig) -> NameMap:
    """The KL or VQ autoencoder, alone in a file or within a diffusion checkpoint."""
    levels = len(config.channel_mult)
    table = {"encoder/quant": "quant_conv", "decoder/post_quant": "post_quant_conv"}
    for side in ("encoder", "decoder"):
        for end in ("conv_in", "norm_out", "conv_out"):
            table[f"{side}/{end}"] = f"{side}.{end}"
        for block in ("block_1", "block_2"):
            table |= _under(f"{side}/middle/{block}", f"{side}.mid.{block}", _FIRST_STAGE_BLOCK)
        table[f"{side}/middle/attention/norm"] = f"{side}.mid.attn_1.norm"
    for level in range(levels):
        for block in range(config.num_res_blocks):
            ours, theirs = f"encoder/down_{level}_{block}", f"encoder.down.{level}.block.{block}"
            table |= _under(ours, theirs, _FIRST_STAGE_BLOCK)
        for block in range(config.num_res_blocks + 1):
            ours, theirs = f"decoder/up_{level}_{block}", f"decoder.up.{level}.block.{block}"
            table |= _under(ours, theirs, _FIRST_STAGE_BLOCK)
        # The last level is not sampled down and the first not up: their lines name nothing.
        table[f"encoder/downsample_{level}"] = f"encoder.down.{level}.downsample.conv"
        table[f"decoder/upsample_{level}"] = f"decoder.up.{level}.upsample.conv"
    # CompVis has 1×1 convolutions here, where the transformers of its UNet have dense layers.
    attention = [
        Entry(f"{side}/middle/attention/{name}", f"{side}.mid.attn_1.{name}", "module_1x1")
        for side in ("encoder", "decoder")
        for name in ("q", "k", "v", "proj_out")
    ]
    codebook = Entry("quantiser/codebook", "quantize.embedding.weight", "tensor")
    return NameMap(
        entries=(*(Entry(ours, theirs) for ours, theirs in table.items()), *attention, codebook),
        prefixes=("first_stage_model.", ""),
        written="first_stage_model.",
        # Discriminator and perceptual network of its training, and averaging buffers.
        ignored=(r"loss\..*", r"model_ema\..*"),
    )


def _stage(ours: str, theirs: str) -> dict[str, str]:
    res = _under(f"{ours}/res", f"{theirs}.0", _RES_BLOCK)
    return res | _under(f"{ours}/attention", f"{theirs}.1", _TRANSFORMER)


def _under(ours: str, theirs: str, table: dict[str, str]) -> dict[str, str]:
    return {f"{ours}/{mine}": f"{theirs}.{name}" for mine, name in table.items()}
