"""Kill a small training at random places, as often as it is told; each must end with the same bits.

.venv/bin/python tests/resume_often.py 20
"""

import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).parents[1]


def main(count: int) -> None:
    """Kill `count` trainings."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "train")]
    import test_resume

    test_resume.kill_often(count)


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].isdigit():
        sys.exit(f"expected how often, such as 20, got {' '.join(sys.argv[1:])!r}")
    main(int(sys.argv[1]))
