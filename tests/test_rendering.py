"""Pictures. What MuJoCo draws with is decided once in a process: other choices need another process."""

from __future__ import annotations

import ctypes.util
import os
import subprocess
import sys
import types
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from helpers import needs_gl

import mtenvs
from mtenvs.rendering import CAMERA, PICTURE_KEY, Camera, frames_per_second, pose

DRAW = """
import numpy as np, gymnasium as gym, mtenvs
for name in mtenvs.families():
    family = mtenvs.get_family(name)
    last = len(family.tasks) - 1
    env = gym.make(family.id, task=0, render_mode="rgb_array", width=120, height=90)
    env.reset(seed=0)
    pictures = [env.render()]
    for _ in range(10):
        env.step(env.action_space.sample())
    pictures.append(env.render())
    env.reset(seed=0, options={"task": last})
    pictures.append(env.render())
    for picture in pictures:
        assert picture.shape == (90, 120, 3) and picture.dtype == np.uint8, (picture.shape, picture.dtype)
        assert picture.std() > 5
    assert not np.array_equal(pictures[0], pictures[1])
    bodies = [mtenvs.mjcf(name, task).split("<keyframe>")[0] for task in (0, last)]
    if bodies[0] != bodies[1]:  # another body, another picture
        assert np.abs(pictures[0].astype(int) - pictures[2]).max() > 20
    assert np.array_equal(env.render(), env.render())
    size = {"render_mode": "rgb_array", "width": 120, "height": 90}
    many = gym.make_vec(family.id, num_envs=3, tasks=[0, last], **size)
    many.reset(seed=[0, 0, 1])
    frames = many.render()
    assert len(frames) == 3
    assert np.array_equal(frames[0], pictures[0])
    assert np.array_equal(frames[1], pictures[2])
    env.close()
    env.close()
    many.reset(seed=0, options={"task": last})  # other models, so that the cameras are made anew
    if name == "Biped":
        assert np.array_equal(many.render()[0], pictures[2])
    many.close()
wide = gym.make("mt/DMWalker-v0", task=0, render_mode="rgb_array", width=1400, height=8)
wide.reset(seed=0)
assert wide.render().shape == (8, 1400, 3)  # more than the model's buffer; and never closed
print("drawn")
"""

DRAW_ONE = """
import os, sys, mtenvs
from mtenvs.rendering import RenderingError, picture
for attempt in range(2):
    try:
        print(picture(mtenvs.model("Biped", 0), 30, 40).shape, os.environ.get("MUJOCO_GL"))
    except RenderingError as error:
        print(error)
"""

SETTINGS = ("MUJOCO_GL", "PYOPENGL_PLATFORM", "DISPLAY", "WAYLAND_DISPLAY")
HAS_OSMESA = sys.platform == "linux" and ctypes.util.find_library("OSMesa") is not None

needs_osmesa = pytest.mark.skipif(not HAS_OSMESA, reason="no libosmesa6")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is always a display")


def run(script: str, cwd: Any, **settings: str) -> subprocess.CompletedProcess[str]:
    """Runs a script with these settings and no others that decide what draws."""
    kept = {k: v for k, v in os.environ.items() if k not in SETTINGS}
    # MuJoCo's choice and its warnings at leaving are ours to test, the window system's are not
    command = [sys.executable, "-W", "ignore", "-c", script]
    return subprocess.run(command, cwd=cwd, env=kept | settings, capture_output=True, text=True)


@needs_gl
def test_pictures_need_no_settings(tmp_path: Any) -> None:
    """And a picture's OpenGL context is freed in silence if nobody closes it."""
    settings = {k: os.environ[k] for k in SETTINGS if k in os.environ}
    done = run(DRAW, tmp_path, **settings)
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("drawn\n", "")


@needs_osmesa
def test_osmesa_draws_where_egl_does_not(tmp_path: Any) -> None:
    done = run(DRAW_ONE, tmp_path, PYOPENGL_PLATFORM="osmesa")  # which EGL refuses
    assert done.stdout == "(30, 40, 3) osmesa\n" * 2, done.stderr


@needs_osmesa
def test_what_the_user_sets_is_not_second_guessed(tmp_path: Any) -> None:
    script = "import subprocess\nsubprocess.run = None\n" + DRAW_ONE
    done = run(script, tmp_path, MUJOCO_GL="osmesa")
    assert done.stdout == "(30, 40, 3) osmesa\n" * 2, done.stderr
    late = "import mujoco, os\nos.environ['MUJOCO_GL'] = 'osmesa'\n"  # too late for MuJoCo itself
    assert run(late + script, tmp_path).stdout == "(30, 40, 3) osmesa\n" * 2


@on_linux
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"PYOPENGL_PLATFORM": "none"}, "(MUJOCO_GL unset; EGL: ImportError: Cannot use EGL"),
        (
            {"MUJOCO_GL": "egl", "PYOPENGL_PLATFORM": "osmesa"},
            "(MUJOCO_GL=egl): ImportError: Cannot use EGL",
        ),
        ({"MUJOCO_GL": "disabled"}, "(MUJOCO_GL=disabled): AttributeError"),
        ({"DISPLAY": ":no.such"}, "(MUJOCO_GL unset): FatalError"),
    ],
)
def test_that_nothing_draws_is_explained_every_time(
    settings: dict[str, str], told: str, tmp_path: Any
) -> None:
    done = run(DRAW_ONE, tmp_path, **settings)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == second
    assert first.startswith(f"no OpenGL context for rendering {told}")
    assert "install OSMesa (Debian: libosmesa6)" in first


@pytest.mark.parametrize("size", [(0, 10), (10, -1)])
def test_an_image_needs_pixels(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"at least one pixel, got height={size[0]}, width={size[1]}"):
        Camera(mtenvs.model("Biped", 0), *size)


def test_a_body_may_say_how_it_is_pictured(task: mtenvs.Task) -> None:
    family = mtenvs.get_family(task.family)
    spec = family.build(task.parameters)
    for key in [k for k in spec.keys if k.name == PICTURE_KEY]:
        spec.delete(key)
    home = spec.compile()
    np.testing.assert_array_equal(pose(home).qpos, home.key_qpos[0])
    wanted = home.key_qpos[0] + 0.1
    spec.add_key(name=PICTURE_KEY, qpos=wanted)
    model = spec.compile()
    np.testing.assert_array_equal(pose(model).qpos, wanted)
    assert not np.array_equal(pose(model).xpos, pose(home).xpos)


def test_a_window_needs_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    for variable in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)
    env = gym.make("mt/Biped-v0", task=0, render_mode="human", disable_env_checker=True)
    with pytest.raises(
        RuntimeError, match=r"needs a display, and there is none; use render_mode='rgb_array'"
    ):
        env.reset(seed=0)


def test_the_window_follows_the_world(
    task: mtenvs.Task, env_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a viewer that opens no window."""
    shown: list[np.ndarray] = []

    class Handle:
        def __init__(self, model: Any, data: Any, **kwargs: Any) -> None:
            self.data, self.cam = data, types.SimpleNamespace(type=None, fixedcamid=-1)

        def sync(self) -> None:
            shown.append(self.data.qpos.copy())

        def close(self) -> None:
            shown.append(np.empty(0))

    viewer = types.ModuleType("mujoco.viewer")
    viewer.launch_passive = Handle  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mujoco.viewer", viewer)
    monkeypatch.setattr("mujoco.viewer", viewer, raising=False)
    monkeypatch.setenv("DISPLAY", ":0")
    env = gym.make(env_id, task=task, render_mode="human", disable_env_checker=True)
    env.reset(seed=0)
    env.step(env.action_space.sample())
    assert len(shown) == 2
    np.testing.assert_array_equal(shown[1], env.unwrapped.data.qpos)
    env.close()
    assert shown[-1].size == 0


def test_render_without_a_mode_warns() -> None:
    env, many = gym.make("mt/Biped-v0", task=0).unwrapped, gym.make_vec("mt/Biped-v0", num_envs=1)
    with pytest.warns(UserWarning, match="needs gym.make"):
        assert env.render() is None
    with pytest.warns(UserWarning, match="needs gym.make_vec"):
        assert many.render() is None


def test_every_body_carries_the_camera(task: mtenvs.Task) -> None:
    model = mtenvs.model(task.family, task)
    assert CAMERA in [model.camera(i).name for i in range(model.ncam)]


def test_videos_run_at_life_speed(family: mtenvs.Family) -> None:
    env, many = gym.make(family.id, task=0), gym.make_vec(family.id, num_envs=1)
    env.reset(seed=0)
    env.step(env.action_space.sample())
    fps = env.metadata["render_fps"]
    assert fps == many.metadata["render_fps"] == frames_per_second(env.unwrapped.model, family.frame_skip)
    assert env.unwrapped.data.time == pytest.approx(1 / fps)
