"""The row of a plan of one large image that the tool `generate` is asked for."""

from ssldiff_jax.stages.tools.plan import facts as facts_lib
from ssldiff_jax.stages.tools.plan import generating, steps
from ssldiff_jax.stages.tools.plan.rows import Row, exact, guess


def generate(facts: facts_lib.Facts) -> Row:
    """An image of `config.generate.size`; nothing where that is not said."""
    config, networks = facts.config, facts.networks
    if not config.generate.size:
        return Row({})
    size = tuple(config.generate.size)
    image = generating.Image.of(networks, size, of_grid=config.sample.conditioning != "dense")
    raw = exact(config.data.reading.multiband.kind.pixel_bytes * size[0] * size[1])
    # No image is there to write: what files take is known of others.
    parts = {name: generating.FILES[name] for name in config.sample.output.formats}
    writes = {
        f"image {name}": raw * guess(part, "H&E of the demo in this format", 0.5)
        for name, part in parts.items()
    }
    return Row(
        {
            "large images": exact(1),
            "network calls": exact(image.windows),
            "decodes": exact(image.tiles),
        },
        writes=writes,
        host={"program": steps.program()},
        device=generating.memory_of(networks, image),
        work=generating.work_of(facts, exact(image.windows), exact(image.tiles), exact(0)),
    )
