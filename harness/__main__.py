"""``python -m harness`` is ``mtenvs``."""

from __future__ import annotations

import sys

TRAIN = (
    *("matplotlib", "pandas", "pyarrow", "rich", "safetensors", "scipy", "seaborn", "sklearn"),
    *("stable_baselines3", "statsmodels", "torch", "tyro"),
)
"""Modules that the extra ``train`` brings."""


def main() -> None:
    """Runs the command line, or says what it needs: the environments alone install without it."""
    try:
        from harness.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:
        # any other is somebody's mistake, as in a family file of one's own, and keeps its traceback
        if (error.name or "").split(".")[0] not in TRAIN:
            raise
        sys.exit(f"mtenvs: the command line needs {error.name}: pip install 'mtenvs[train]'")
    except RuntimeError as error:
        if "MUJOCO_GL" not in str(error):
            raise
        # mujoco refuses to be imported, whether or not anything is to be drawn
        sys.exit(f"mtenvs: {error}; valid: egl, osmesa, glfw, disable, or leave it unset")
    run()


if __name__ == "__main__":
    main()
