"""The tables for LPIPS: torchvision's VGG-16, and the linear layers of the lpips package."""

from ssldiff_jax.autoencoder import lpips
from ssldiff_jax.weights.names import Entry, NameMap


def vgg_names() -> NameMap:
    """torchvision's `vgg16-397923af.pth`; its classifier is not used."""
    numbers = [number for convolutions in lpips.VGG16 for number, _ in convolutions]
    return NameMap(
        entries=tuple(Entry(f"conv_{n}", f"features.{n}") for n in numbers),
        ignored=(r"classifier\..*",),
    )


def linear_names() -> NameMap:
    """The lpips package's `vgg.pth`, five 1×1 convolutions to one channel."""
    return NameMap(
        entries=tuple(
            Entry(f"linear_{depth}", f"lin{depth}.model.1.weight", "tensor")
            for depth in range(len(lpips.VGG16))
        ),
        # The same five layers under a second name, and constants of the input scaling.
        ignored=(r"lins\..*", r"scaling_layer\..*", r"net\..*"),
    )
