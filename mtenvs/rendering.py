"""Pictures of worlds, by MuJoCo's own renderer and viewer."""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import os
import subprocess
import sys
import weakref
from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np

CAMERA = "side"
"""Name of the camera that every family's body carries."""
PICTURE_KEY = "picture"
"""Name of the keyframe that a body may carry to say in which pose it is pictured; else its first."""

_HEADLESS = ("egl", "osmesa")
# one real context of one pixel; leaving at once spares the libraries' own, noisy, way out
_TRY_EGL = """
import os, mujoco, mujoco.egl
context = mujoco.egl.GLContext(1, 1)
context.make_current()
mujoco.MjrContext(mujoco.MjModel.from_xml_string("<mujoco/>"), 100)
os._exit(0)
"""
_TRY_SECONDS = 20  # a broken driver may hang
# MuJoCo's error for a context that is none, as of a display that cannot draw: a second try would abort
# the process (3.17)
_fatal: list[Exception] = []


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


def has_display() -> bool:
    """Whether a window could be opened."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


@functools.cache
def _egl_failure() -> str:
    """What EGL says when a context is made; empty if that works.

    Asked in a process of its own: a failed attempt leaves PyOpenGL set to EGL, and shuts OSMesa out.
    """
    try:
        run = subprocess.run(
            [sys.executable, "-c", _TRY_EGL], capture_output=True, text=True, timeout=_TRY_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{type(error).__name__}: {error}"
    if run.returncode == 0:
        return ""
    return (run.stderr.strip().splitlines() or [f"exit status {run.returncode}"])[-1]


@functools.cache
def _choose_gl() -> None:
    """Lets MuJoCo draw without a window where there is no display, with whatever works here.

    MuJoCo chooses by MUJOCO_GL when it is imported, and a window's context if that is not set. Its
    renderer looks the choice up whenever it is made, so that it can still be changed.
    """
    if sys.platform != "linux":
        return
    chosen = os.environ.get("MUJOCO_GL", "").lower().strip()
    if not chosen and not has_display():
        chosen = "osmesa" if _egl_failure() else "egl"
    # not at the top: where MuJoCo could not import what MUJOCO_GL names, this raises the reason
    from mujoco.rendering.classic import gl_context

    if chosen in _HEADLESS:
        gl_context.GLContext = importlib.import_module(f"mujoco.{chosen}").GLContext
        os.environ["MUJOCO_GL"] = chosen  # for child processes, and dm_control, which asks it too


def _no_context(error: Exception) -> RenderingError:
    """The error for a context that could not be made, which says what to do."""
    told = os.environ.get("MUJOCO_GL")
    tried = f"MUJOCO_GL={told}" if told else "MUJOCO_GL unset"
    # only if it was asked: whoever sets MUJOCO_GL chooses for himself
    if _egl_failure.cache_info().currsize and (failure := _egl_failure()):
        tried += f"; EGL: {failure}; then OSMesa"
    reason = f"{type(error).__name__}: {str(error).strip().rstrip('.')}"
    return RenderingError(
        f"no OpenGL context for rendering ({tried}): {reason}. Without a display, install OSMesa (Debian: "
        "libosmesa6) or, on a GPU machine, the driver's EGL, and leave MUJOCO_GL unset: whichever works is "
        "taken. Beside a display that cannot draw, set MUJOCO_GL=osmesa or MUJOCO_GL=egl"
    )


class Camera:
    """Draws one model's data into images, without a window.

    Args:
        model: what to draw.
        height: of the images, in pixels.
        width: of the images, in pixels.

    Raises:
        ValueError: for a size that is not positive.
        RenderingError: if no OpenGL context can be made.
    """

    def __init__(self, model: mujoco.MjModel, height: int, width: int) -> None:
        if min(height, width) < 1:
            raise ValueError(f"an image needs at least one pixel, got height={height}, width={width}")
        self.model = model
        if _fatal:
            raise _no_context(_fatal[0])
        # MuJoCo draws into a buffer of the model's size: a smaller one cannot hold the image, and a
        # larger one takes time
        buffer = model.vis.global_
        own_size = buffer.offheight, buffer.offwidth
        buffer.offheight, buffer.offwidth = height, width
        try:
            _choose_gl()
            self._renderer = mujoco.Renderer(model, height, width)
        # what a missing library raises depends on the library: OSError, AttributeError, ...
        except Exception as error:
            if isinstance(error, mujoco.FatalError) and "platform library" in str(error):
                _fatal.append(error)
            raise _no_context(error) from error
        finally:
            buffer.offheight, buffer.offwidth = own_size
        _open_cameras.add(self)
        _close_at_exit()

    def show(self, data: mujoco.MjData, camera: str | mujoco.MjvCamera = CAMERA) -> np.ndarray:
        """Returns the picture, ``(height, width, 3)`` of uint8."""
        self._renderer.update_scene(data, camera)
        return self._renderer.render()

    def close(self) -> None:
        """Frees the OpenGL context."""
        self._renderer.close()


_open_cameras: weakref.WeakSet[Camera] = weakref.WeakSet()


@functools.cache
def _close_at_exit() -> None:
    # called after the first context was made, so as to run before what EGL registers then: contexts
    # that outlive its display print errors
    @atexit.register
    def close() -> None:
        for camera in list(_open_cameras):
            with contextlib.suppress(Exception):  # another library may have closed the display before
                camera.close()


def open_window(model: mujoco.MjModel, data: mujoco.MjData) -> Any:
    """Opens MuJoCo's viewer on a world that the caller steps, and returns the viewer's handle.

    The mouse pushes bodies by way of ``data.xfrc_applied`` at every ``handle.sync()``.

    Raises:
        RenderingError: if there is no display, or macOS needs ``mjpython``.
    """
    if not has_display():
        raise RenderingError(
            "render_mode='human' needs a display, and there is none; use render_mode='rgb_array'"
        )
    from mujoco import viewer  # opens a window system, so only when a window is wanted

    try:
        handle = viewer.launch_passive(model, data, show_left_ui=False, show_right_ui=False)
    except RuntimeError as error:
        raise RenderingError(str(error)) from error
    handle.cam.type = mujoco.mjtCamera.mjCAMERA_FIXED
    handle.cam.fixedcamid = model.camera(CAMERA).id
    return handle


class Viewer:
    """MuJoCo's interactive viewer, following the body, in a window of its own size.

    Raises:
        RenderingError: if there is no display.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self.model = model
        self._data = mujoco.MjData(model)
        self._handle = open_window(model, self._data)

    def show(self, data: mujoco.MjData) -> None:
        """Shows the world as it is now."""
        self._data.qpos[:] = data.qpos
        self._data.time = data.time
        mujoco.mj_forward(self.model, self._data)
        self._handle.sync()

    def close(self) -> None:
        """Closes the window."""
        self._handle.close()


def pose(model: mujoco.MjModel) -> mujoco.MjData:
    """A body as it is pictured: in its keyframe ``PICTURE_KEY`` if it has one, else at home."""
    names = [model.key(i).name for i in range(model.nkey)]
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, names.index(PICTURE_KEY) if PICTURE_KEY in names else 0)
    mujoco.mj_forward(model, data)
    return data


def picture(
    model: mujoco.MjModel, height: int, width: int, camera: str | mujoco.MjvCamera = CAMERA
) -> np.ndarray:
    """Returns a picture of a body in its :func:`pose`, ``(height, width, 3)`` of uint8.

    Raises:
        RenderingError: if no OpenGL context can be made.
    """
    drawing = Camera(model, height, width)
    try:
        return drawing.show(pose(model), camera)
    finally:
        drawing.close()
