"""The section of the tool `sweep`: ways to sample that are compared."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    c = ConfigDict()
    # Sampler settings to compare: changes of `sample`, apart by spaces; w/8 is an eighth of a
    # window; "" changes nothing. Ways that come to the same are sampled once.
    aligned = "windows.max_offset=0 windows.last.steps=0"
    moved = "windows.max_offset=w/8 windows.last.steps=0"
    windows = (
        *(f"conditioning=dense {where}" for where in (aligned, moved, "windows.max_offset=w/2")),
        *(f"conditioning=interpolated {where}" for where in (aligned, "windows.max_offset=w/8")),
        *(f"conditioning=cells {where}" for where in (aligned, "windows.max_offset=w/8")),
        "windows.last.steps=1",
        "windows.mode=overlap windows.stride=w/2",
    )
    led = (
        "guidance.scale=1.0",
        *(f"guidance.interval=(0.4,1.0) guidance.scale={s}" for s in (1.5, 2.0, 3.0)),
        *(f"guidance.interval={part} guidance.scale=2.0" for part in ("(0.0,1.0)", "(0.2,0.8)")),
        "guidance.scale=2.0 guidance.rescale=0.7",
    )
    # The published solver knows no straight path; over its strides its noise is an eta of .24.
    published = (
        "windows.mode=paper conditioning=interpolated guidance.scale=4.0 "
        "guidance.interval=(0.0,1.0) solver.name=ddim solver.eta=0.24 solver.num_solver_steps=50 "
        "solver.t_start=999"
    )
    c.variants = (
        "",
        *windows,
        *led,
        *(f"solver.num_solver_steps={n}" for n in (4, 8, 20)),
        "student=guidance",
        *(f"student=strides visits={n}" for n in (4, 2, 1)),
        published,
    )
    # How often each region is generated.
    c.num_generated = 1
    # How many times smaller the region is that images are held to, 0 being to nothing; each way is
    # sampled with each.
    c.held = (0,)
    return c
