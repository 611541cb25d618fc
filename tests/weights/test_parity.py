"""Published weights here give the numbers that they give where they come from."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_configs

from ssldiff_jax.autoencoder import autoencoder, conv
from ssldiff_jax.diffusion import conditioning, unet
from ssldiff_jax.encoders import vit
from ssldiff_jax.weights import names, published
from ssldiff_jax.weights.tables import diffusers_vae, latent_diffusion

RTOL = 1e-4


@pytest.fixture(autouse=True)
def exact_products():
    with jax.default_matmul_precision("highest"):
        yield


def apply(model, params, *args, method=None):
    """Compiled as a whole, which is quicker than operation by operation."""
    call = jax.jit(lambda params, *args: model.apply({"params": params}, *args, method=method))
    return call(params, *args)


def close(found, expected, tolerance=RTOL):
    """Largest error over the largest value: relative where it matters, not at zeros."""
    expected = np.asarray(expected)
    error = np.max(np.abs(np.asarray(found) - expected)) / np.max(np.abs(expected))
    assert error < tolerance, f"relative error {error:.2e}"


def sizes_of(spec) -> vit.ViTConfig:
    c = spec["constructor"]
    timm = "embed_dim" in c
    width = c["embed_dim"] if timm else c["hidden_size"]
    swiglu = c.get("mlp_layer") == "SwiGLUPacked" or c.get("use_swiglu_ffn", False)
    shapes = spec["state_dict"]["shapes"]
    inner = ("mlp.fc1.bias", "mlp.weights_in.bias")
    packed = next((v[0] for k, v in shapes.items() if k.endswith(inner)), 0)
    variant = vit.ViTVariant(
        mlp="swiglu" if swiglu else "gelu",
        mlp_width=packed // 2 if swiglu else 0,
        num_registers=c.get("reg_tokens", 0),
        layer_scale=float(c.get("init_values") or c.get("layerscale_value") or 0.0),
        positions="patches" if c.get("no_embed_class") else "all",
        resize="timm" if timm else "hugging_face",
        epsilon=c.get("layer_norm_eps", 1e-6),
    )
    return vit.ViTConfig(
        image_px=c["img_size"] if timm else c["image_size"],
        patch_px=c["patch_size"],
        width=width,
        depth=c["depth"] if timm else c["num_hidden_layers"],
        num_heads=c["num_heads"] if timm else c["num_attention_heads"],
        pool="class",
        variant=variant,
    )


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("vit_dino_timm", "timm"),
        ("vit_dino_hf", "hf_vit"),
        ("vit_uni2_timm", "timm"),
        ("dinov2_hf", "hf_dinov2"),
        ("dinov2_hf_swiglu", "hf_dinov2"),
    ],
)
@pytest.mark.parametrize("other_size", [False, True])
def test_vision_transformers(golden, name, family, other_size):
    recorded = golden(name)
    sizes = sizes_of(recorded.spec)
    suffix = "_other" if other_size else ""
    rules = {"": sizes}
    if name == "vit_dino_timm":
        dino = dataclasses.replace(sizes.variant, resize="dino")
        rules["dino_"] = dataclasses.replace(sizes, variant=dino)
    for prefix, config in rules.items():
        model = vit.ViT(config)
        native = jnp.zeros((1, config.image_px, config.image_px, 3))
        table = published.encoder_names(config, family)
        params = table.load(recorded.weights, names.abstract(model, native), name)
        found = apply(model, params, recorded.image(f"image{suffix}"), method=model.all_tokens)
        registers = config.variant.num_registers
        parts = {"cls": found[:, 0], "patch_tokens": found[:, 1 + registers :]}
        if registers:
            parts["reg_tokens"] = found[:, 1 : 1 + registers]
        for part, value in parts.items():
            close(value, recorded.outputs[f"{prefix}{part}{suffix}"])


def autoencoder_config(kind, sizes, codes=8192):
    return autoencoder.AutoencoderConfig(
        kind,
        3,
        sizes,
        small_configs.section("autoencoder.model.vq", num_codes=codes),
        small_configs.section("autoencoder.model.light"),
    )


def test_vq_autoencoder(golden):
    recorded = golden("lrdm_vq_f4")
    c = recorded.spec["constructor"]
    d = c["ddconfig"]
    sizes = conv.ConvConfig(
        d["z_channels"], d["ch"], tuple(d["ch_mult"]), d["num_res_blocks"], latent_conv="1x1"
    )
    config = autoencoder_config("vq", sizes, c["n_embed"])
    model = autoencoder.Autoencoder(config)
    table = latent_diffusion.first_stage_names(sizes)
    like = published.abstract_autoencoder(config)
    params = table.load(recorded.weights, like, "lrdm_vq_f4")
    call = lambda method, x: apply(model, params, x, method=method)
    quantise = lambda model, z: model.quantiser(z)
    for suffix in ("", "_small"):
        latents = call(model.encode, recorded.image(f"image{suffix}"))[..., :3]
        close(latents, recorded.image(f"prequant{suffix}"))
        quantised = call(quantise, latents)
        close(quantised.z, recorded.image(f"quant{suffix}"))
        np.testing.assert_array_equal(quantised.index, recorded.outputs[f"indices{suffix}"])
        close(call(model.decode, latents), recorded.image(f"recon{suffix}"))
    z = recorded.image("z")
    np.testing.assert_array_equal(call(quantise, z).index, recorded.outputs["z_indices"])
    close(call(model.decode, z), recorded.image("decode_quantize"))
    unquantised = apply(conv.Decoder(sizes), params["decoder"], z)
    close(unquantised, recorded.image("decode_no_quantize"))


def test_diffusers_vae(golden):
    recorded = golden("diffusers_autoencoder_kl_sd3")
    c = recorded.spec["constructor"]
    channels = c["block_out_channels"]
    sizes = conv.ConvConfig(
        latent_channels=c["latent_channels"],
        channels=channels[0],
        channel_mult=tuple(n // channels[0] for n in channels),
        num_res_blocks=c["layers_per_block"],
        latent_conv="1x1" if c["use_quant_conv"] else "none",
    )
    config = autoencoder_config("kl", sizes)
    table = diffusers_vae.vae_names(sizes)
    like = published.abstract_autoencoder(config)
    params = table.load(recorded.weights, like, "diffusers_autoencoder_kl_sd3")
    model = autoencoder.Autoencoder(config)
    scale, shift = c["scaling_factor"], c["shift_factor"]
    scaling = autoencoder.LatentScaling((scale,) * 16, (shift,) * 16)
    moments = apply(model, params, recorded.image("image"), method=model.encode)
    mean, logvar = jnp.split(moments, 2, axis=-1)
    close(mean, recorded.image("mean"))
    close(logvar, recorded.image("logvar"))
    close(scaling.apply(mean), recorded.image("scaled_latents"))
    trained = autoencoder.TrainedAutoencoder(config, params, scaling)
    decode = jax.jit(trained.decode)
    close(decode(params, scaling.apply(mean)), recorded.image("recon_from_mean"))
    close(decode(params, recorded.image("z")), recorded.image("decode_z"))


def test_kl_autoencoder(golden):
    recorded = golden("compvis_kl_f8")
    c = recorded.spec["constructor"]
    d = c["ddconfig"]
    sizes = conv.ConvConfig(
        c["embed_dim"], d["ch"], tuple(d["ch_mult"]), d["num_res_blocks"], latent_conv="1x1"
    )
    config = autoencoder_config("kl", sizes)
    model = autoencoder.Autoencoder(config)
    table = latent_diffusion.first_stage_names(sizes)
    like = published.abstract_autoencoder(config)
    params = table.load(recorded.weights, like, "compvis_kl_f8")
    for suffix in ("", "_rect"):
        moments = apply(model, params, recorded.image(f"image{suffix}"), method=model.encode)
        mean, logvar = jnp.split(moments, 2, axis=-1)
        close(mean, recorded.image(f"mean{suffix}"))
        close(logvar, recorded.image(f"logvar{suffix}"))
        decoded = apply(model, params, mean, method=model.decode)
        close(decoded, recorded.image(f"recon_from_mean{suffix}"))
    decoded = apply(model, params, recorded.image("z"), method=model.decode)
    close(decoded, recorded.image("decode_z"))


def unet_config(c) -> unet.UNetConfig:
    """Attention stands at the levels whose downsampling is listed."""
    levels = range(len(c["channel_mult"]))
    return unet.UNetConfig(
        latent_channels=c["in_channels"],
        channels=c["model_channels"],
        channel_mult=tuple(c["channel_mult"]),
        num_res_blocks=c["num_res_blocks"],
        attention_levels=tuple(i for i in levels if 2**i in c["attention_resolutions"]),
        num_heads=c["num_heads"],
        context_dim=c["context_dim"],
        conditioning="cross_attention",
    )


def test_unet(golden):
    recorded = golden("lrdm_unet")
    config = unet_config(recorded.spec["constructor"])
    model = unet.UNet(config)
    tokens = jnp.zeros((1, 1, config.context_dim))
    like = names.abstract(model, jnp.zeros((1, 8, 8, 3)), jnp.zeros(1, jnp.int32), tokens)
    table = latent_diffusion.unet_names(config)
    params = table.load(recorded.weights, like, "lrdm_unet")
    t = recorded.inputs["t"].astype(np.int32)
    contexts = {n: recorded.inputs[f"context{n}"] for n in (1, 2)}
    for x, ts, context, expected in [
        ("x", t, contexts[1], "eps_ctx1"),
        ("x", t, contexts[2], "eps_ctx2"),
        ("x_small", t, contexts[1], "eps_small_ctx1"),
        ("x_rect", t[1:2], contexts[2][1:2], "eps_rect_ctx2"),
    ]:
        found = apply(model, params, recorded.image(x), ts, context)
        close(found, recorded.image(expected))


@pytest.mark.parametrize(
    ("name", "sources", "columns"),
    [
        ("lrdm_conditioner_patch", ("patch",), {"context": ("feat_patch",)}),
        (
            "lrdm_conditioner_ssl",
            ("patch", "region"),
            {"context": ("feat_20x", "feat_5x"), "context_no_region": ("feat_20x",)},
        ),
    ],
)
def test_conditioner(golden, name, sources, columns):
    recorded = golden(name)
    c = recorded.spec["constructor"]
    dim, region = c["patch_embed_dim"], c.get("region_embed_dim", 0)
    model = conditioning.Conditioner(c.get("target_dim", 512), dim, "one", region)
    like = names.abstract(model, jnp.zeros((1, dim)))
    params = latent_diffusion.conditioner_names(sources).load(recorded.weights, like, name)
    for expected, parts in columns.items():
        embedding = np.concatenate([recorded.inputs[part] for part in parts], axis=1)
        found = model.apply({"params": params}, embedding)
        np.testing.assert_allclose(found, recorded.outputs[expected], rtol=1e-5, atol=1e-6)
