"""Pictures of worlds, by MuJoCo's own renderer and viewer."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import mujoco
import numpy as np

CAMERA = "side"
"""Name of the camera that every family's body carries."""


class RenderingError(RuntimeError):
    """There is no way to draw here; the message says what to install or set."""


def check_render_mode(render_mode: str | None, valid: Sequence[str]) -> str | None:
    """Returns ``render_mode`` if it is a known one.

    Raises:
        ValueError: otherwise.
    """
    if render_mode is not None and render_mode not in valid:
        raise ValueError(f"unknown render_mode {render_mode!r}; valid: {', '.join(valid)}")
    return render_mode


def frames_per_second(model: mujoco.MjModel, frame_skip: int) -> int:
    """Control steps in a simulated second, so that a video of them runs at life speed."""
    return round(1.0 / (model.opt.timestep * frame_skip))


class Camera:
    """Draws one model's data into images of ``height`` x ``width`` pixels, without a window.

    Raises:
        RenderingError: if no OpenGL context can be made.
    """

    def __init__(self, model: mujoco.MjModel, height: int, width: int) -> None:
        self.model = model
        try:
            self._renderer = mujoco.Renderer(model, height, width)
        # what a missing library raises depends on the library: OSError, AttributeError, ...
        except Exception as error:
            raise RenderingError(
                f"no OpenGL context for rendering (MUJOCO_GL={os.environ.get('MUJOCO_GL', 'unset')}): "
                f"{type(error).__name__}: {error}. Without a display, install OSMesa (Debian: "
                "libosmesa6) and set MUJOCO_GL=osmesa, or set MUJOCO_GL=egl on a GPU machine, before "
                "Python starts"
            ) from error

    def show(self, data: mujoco.MjData) -> np.ndarray:
        """Returns the picture, ``(height, width, 3)`` of uint8."""
        self._renderer.update_scene(data, CAMERA)
        return self._renderer.render()

    def close(self) -> None:
        """Frees the OpenGL context."""
        self._renderer.close()


class Viewer:
    """MuJoCo's interactive viewer, following the body.

    Raises:
        RenderingError: if there is no display.
    """

    def __init__(self, model: mujoco.MjModel, height: int, width: int) -> None:
        if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise RenderingError(
                "render_mode='human' needs a display, and there is none; use render_mode='rgb_array'"
            )
        self.model = model
        self._data = mujoco.MjData(model)
        from mujoco import viewer  # opens a window system, so only when a window is wanted

        self._handle = viewer.launch_passive(model, self._data, show_left_ui=False, show_right_ui=False)
        self._handle.cam.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._handle.cam.fixedcamid = model.camera(CAMERA).id

    def show(self, data: mujoco.MjData) -> None:
        """Shows the world as it is now."""
        self._data.qpos[:] = data.qpos
        self._data.time = data.time
        mujoco.mj_forward(self.model, self._data)
        self._handle.sync()

    def close(self) -> None:
        """Closes the window."""
        self._handle.close()


def picture(model: mujoco.MjModel, height: int, width: int) -> np.ndarray:
    """Returns a picture of a body in its home pose, ``(height, width, 3)`` of uint8.

    Raises:
        RenderingError: if no OpenGL context can be made.
    """
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    mujoco.mj_forward(model, data)
    camera = Camera(model, height, width)
    try:
        return camera.show(data)
    finally:
        camera.close()
