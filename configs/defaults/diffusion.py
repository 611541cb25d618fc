"""What every diffusion has: its schedule, its solver and its guidance."""

from ml_collections import ConfigDict


def schedule(name: str) -> ConfigDict:
    c = ConfigDict()
    # scaled_linear as published; linear_betas; cosine, which has no betas to set; linear: the
    # straight path of flow matching, with loss.prediction=velocity.
    c.name = name
    c.num_timesteps = 1000
    c.beta_start = 0.0015
    c.beta_end = 0.0195
    return c


def guidance(scale: float) -> ConfigDict:
    c = ConfigDict()
    # uncond + s·(cond − uncond); 1 is none.
    c.scale = scale
    # The part of the timesteps that is guided, 0 the least noise, 1 the most.
    c.interval = (0.0, 1.0)
    # How far x0_hat gets back the spread it has without guidance, 0…1.
    c.rescale = 0.0
    return c


def solver(*, steps: int) -> ConfigDict:
    c = ConfigDict()
    # dpmpp_2m, ddim, ddpm, plms; paper: DDIM as the published code for large images has it.
    c.name = "dpmpp_2m"
    c.num_solver_steps = steps
    # Of ddim: 0 deterministic … 1 ddpm.
    c.eta = 0.0
    c.t_start = 999
    # trailing: begins at t_start; leading: ends at 1, as latent diffusion spaces timesteps, of
    # which it has one fewer than trailing at most.
    c.spacing = "trailing"
    return c
