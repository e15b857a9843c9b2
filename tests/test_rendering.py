"""Pictures are drawn in a process of their own: which OpenGL library MuJoCo takes is decided at import."""

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

import mtenvs
from mtenvs.rendering import CAMERA, frames_per_second

DRAW = """
import numpy as np, gymnasium as gym, mtenvs
for name in mtenvs.families():
    family = mtenvs.get_family(name)
    env = gym.make(family.id, task=0, render_mode="rgb_array", width=120, height=90)
    env.reset(seed=0)
    pictures = [env.render()]
    for _ in range(10):
        env.step(env.action_space.sample())
    pictures.append(env.render())
    env.reset(seed=0, options={"task": len(family.tasks) - 1})  # another body, another picture
    pictures.append(env.render())
    for picture in pictures:
        assert picture.shape == (90, 120, 3) and picture.dtype == np.uint8, (picture.shape, picture.dtype)
        assert picture.std() > 5
    assert not np.array_equal(pictures[0], pictures[1])
    assert np.abs(pictures[0].astype(int) - pictures[2]).max() > 20
    assert np.array_equal(env.render(), env.render())
    number = len(family.tasks) - 1
    size = {"render_mode": "rgb_array", "width": 120, "height": 90}
    many = gym.make_vec(family.id, num_envs=3, tasks=[0, number], **size)
    many.reset(seed=[0, 0, 1])
    frames = many.render()
    assert len(frames) == 3
    assert np.array_equal(frames[0], pictures[0])
    assert np.array_equal(frames[1], pictures[2])
    many.reset(seed=0, options={"task": number})
    assert np.array_equal(many.render()[0], pictures[2])
    env.close()
    env.close()
    many.close()
print("drawn")
"""


def gl_library() -> str | None:
    """The MUJOCO_GL to test with, or None where no library could draw."""
    wanted = os.environ.get("MUJOCO_GL")
    if wanted or os.environ.get("DISPLAY") or sys.platform != "linux":
        return wanted or "glfw"
    return "osmesa" if ctypes.util.find_library("OSMesa") else None


@pytest.mark.skipif(
    gl_library() is None, reason="no OpenGL library: neither MUJOCO_GL, a display nor libosmesa6"
)
def test_pictures(tmp_path: Any) -> None:
    environment = {**os.environ, "MUJOCO_GL": gl_library() or ""}
    run = subprocess.run(
        [sys.executable, "-c", DRAW], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == "drawn\n"


def test_a_missing_library_is_explained(tmp_path: Any) -> None:
    script = (
        "import mujoco, mtenvs\n"
        "def fail(*args): raise OSError('no such library')\n"
        "mujoco.Renderer = fail\n"
        "import gymnasium as gym\n"
        "env = gym.make('mt/Biped-v0', task=0, render_mode='rgb_array')\n"
        "env.reset(seed=0)\n"
        "try: env.render()\n"
        "except RuntimeError as error: print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "OSError: no such library. Without a display, install OSMesa" in run.stdout


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
