"""The tutorial: its code is that of its page, and its pictures are what this code makes of a run.

`python -m launch.pages.tutorial runs/demo`, in the root of the repository, runs it and renews
`.assets/tutorial_*.jpg`. The run must have been exported.
"""

import contextlib
import pathlib
import re
import sys
import tempfile
import time

from PIL import Image

from ssldiff_jax.formats import atomic

PAGE = pathlib.Path(__file__).parents[2] / "ssldiff_jax" / "generation" / "TUTORIAL.md"
RUN = pathlib.PurePath("runs", "demo")
"""The run that the page loads."""
PICTURES = ("generated", "edited", "variations", "filled")

_ASSETS = pathlib.Path(".assets")
_QUALITY = 75


def code() -> str:
    """The Python blocks of the page, in their order, as one script."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.S)
    return "\n".join(blocks)


def run(workdir: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Run the page in `folder`, where `workdir` stands for the run that it loads; returns the
    folder of its pictures."""
    there = folder / RUN
    there.parent.mkdir(parents=True)
    there.symlink_to(workdir.resolve())
    with contextlib.chdir(folder):
        # As its reader runs it: one script in a module of its own.
        exec(compile(code(), str(PAGE), "exec"), {"__name__": "tutorial"})
    return folder / "tutorial"


def main(argv: list[str]) -> None:
    """Renew the pictures."""
    if len(argv) != 2:
        sys.exit("error: expected a run: python -m launch.pages.tutorial runs/demo")
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        made = run(pathlib.Path(argv[1]), pathlib.Path(folder))
        for name in PICTURES:
            image = Image.open(made / f"{name}.png").convert("RGB")
            path = _ASSETS / f"tutorial_{name}.jpg"
            atomic.write_atomic(path, lambda p, i=image: i.save(p, "jpeg", quality=_QUALITY))
    print(f"{len(PICTURES)} pictures in {time.process_time() - began:.0f} CPU s")


if __name__ == "__main__":
    main(sys.argv)
