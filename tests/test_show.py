"""Sheets, films and windows, by what is in the file and what the window was shown."""

from __future__ import annotations

import itertools
import json
import math
import sys
import time
import types
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
from helpers import needs_gl, rewrite_facts
from PIL import Image

import baselines.registry
import mtenvs
from baselines.checkpoint import FACTS, TENSORS
from baselines.ppo import PPO, PPOConfig
from baselines.registry import load_policy
from harness import show
from harness.show import GIF_FRAME, GIF_TICK, GifFilm, Player, common_camera, film, sheet, view
from mtenvs.rendering import RenderingError, pose
from mtenvs.vector_env import TaskVectorEnv

SIZE = {"render_mode": "rgb_array", "width": 64, "height": 48}
SMALL = PPOConfig(hidden=(8,), num_steps=8, num_minibatches=2, update_epochs=2)


def save_policy(directory: Path, family: str = "Biped", **options: Any) -> PPO:
    """A network that has learned too little to do the task, but enough to act."""
    worlds = TaskVectorEnv(family, num_envs=len(mtenvs.tasks(family)), **options)
    learner = PPO(worlds, [3], SMALL)
    learner.train(worlds, 64)
    learner.save(0, directory)
    return learner


# ------------------------------------------------------------------------------------------ playing


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("Biped", {}),
        ("Biped", {"conditioning": "one_hot"}),
        ("Octopus", {"conditioning": "none", "layout": "arc"}),
    ],
)
def test_a_loaded_policy_acts_as_the_learner_that_saved_it(
    family: str, options: dict[str, Any], tmp_path: Path
) -> None:
    learner = save_policy(tmp_path, family, **options)
    worlds = TaskVectorEnv(family, num_envs=1, tasks=[5], **options)
    wanted = learner.evaluate(worlds, [11])
    with Player(family, 5, policy=load_policy(tmp_path, family), seed=11) as player:
        played = next(e for e in player.play() if e.ended)
    assert played.steps == wanted.lengths[0]
    assert played.total == pytest.approx(wanted.returns[0], rel=1e-5)
    assert played.success == wanted.success[0]
    with Player(family, 5, seed=11) as idle:
        assert next(e for e in idle.play() if e.ended).total != pytest.approx(wanted.returns[0], rel=1e-3)


def test_every_episode_begins_with_nothing_remembered_and_is_told_as_in_evaluation() -> None:
    heard: list[Any] = []
    policy = types.SimpleNamespace(
        act=lambda observations: heard.append("act") or np.zeros((len(observations), 6)),
        begin=lambda: heard.append("begin"),
        told=lambda rewards, ends: heard.append((*rewards, *ends)),
        env_options={},
        agent="mine",
    )
    with Player("Biped", 5, policy, max_episode_steps=2) as player:
        totals = [episode.total for episode in itertools.islice(player.play(), 6)]
    expected: list[Any] = []
    for _, first, both in (totals[:3], totals[3:]):
        expected += ["begin", "act", (first, False), "act", (pytest.approx(both - first), True)]
    assert heard == expected


def controls(seed: int, random: bool) -> np.ndarray:
    """What the motors of the nominal biped were told in the first steps."""
    with Player("Biped", "nominal", random=random, seed=seed) as player:
        steps = itertools.islice(player.play(), 1, 6)
        return np.array([player.world.data.ctrl.copy() for _ in steps])


def test_random_actions_are_the_seeds_and_none_means_none() -> None:
    first, again, other = controls(0, True), controls(0, True), controls(1, True)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert 0.3 < first.std() < 0.9
    assert not controls(0, False).any()


def test_episodes_follow_each_other_with_other_starts() -> None:
    with Player("Biped", 0, seed=4, max_episode_steps=3) as player:
        starts = [player.world.data.qpos.copy() for e in itertools.islice(player.play(), 8) if not e.steps]
    assert len(starts) == 2
    assert not np.array_equal(*starts)


WRONG_FACTS: dict[str, dict[str, Any]] = {
    "config a list": {"config": []},
    "learner a list": {"learner": ["ppo"]},
    "hidden nothing": {"config": {"hidden": None}},
    "conditioning a number": {"conditioning": 5},
}


def damage(directory: Path, how: str) -> None:
    if how == "no tensors":
        (directory / TENSORS).unlink()
    elif how == "a flipped bit":
        whole = bytearray((directory / TENSORS).read_bytes())
        whole[-9] ^= 1
        (directory / TENSORS).write_bytes(bytes(whole))
    elif how == "a changed fact":
        facts = json.loads((directory / FACTS).read_text())
        (directory / FACTS).write_text(json.dumps(facts | {"hidden": [9]}))
    elif how == "torn tensors":
        (directory / TENSORS).write_bytes((directory / TENSORS).read_bytes()[:-100])
    elif how == "not a number":
        whole = bytearray((directory / TENSORS).read_bytes())
        whole[-64:] = b"\xff" * 64  # as float32 and float64: NaN
        (directory / TENSORS).write_bytes(bytes(whole))
        rewrite_facts(directory)
    elif how == "no text":
        (directory / FACTS).write_bytes(b"\xff\xfe")
    elif how == "no object":
        (directory / FACTS).write_text("[]")
    elif how == "another learner":
        rewrite_facts(directory, learner="sac")
    elif how in WRONG_FACTS:
        rewrite_facts(directory, **WRONG_FACTS[how])
    elif how == "another network":
        config = json.loads((directory / FACTS).read_text())["config"] | {"hidden": [9]}
        rewrite_facts(directory, hidden=[9], config=config)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no tensors", "no checkpoint in .*it needs learner.json and tensors.safetensors"),
        ("torn tensors", "is damaged"),
        ("a flipped bit", "is damaged: its sha256 is not that of its content"),
        ("a changed fact", "is damaged: its sha256 is not that of its content"),
        ("not a number", "has diverged: its numbers are not finite"),
        ("no text", "is damaged: learner.json"),
        ("no object", "is damaged: learner.json holds no object"),
        ("another learner", "is of agent 'sac', which is no code of mtenvs .* add --agent sac"),
        ("another network", "is damaged"),
        ("config a list", r"is damaged: its config is \[\]"),
        ("learner a list", r"is damaged: its learner is \['ppo'\]"),
        ("hidden nothing", "is damaged, or of another version of its agent: "),
        ("conditioning a number", "is damaged, or of another version of its agent: unknown conditioning 5"),
    ],
)
def test_a_policy_that_cannot_be_loaded_says_why(how: str, message: str, tmp_path: Path) -> None:
    save_policy(tmp_path / "policy")
    damage(tmp_path / "policy", how)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as refusal:
        load_policy(tmp_path / "policy", "Biped")
    assert how == "another learner" or str(tmp_path / "policy") in str(refusal.value)


def test_another_familys_policy_is_refused_before_a_world_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_policy(tmp_path)
    monkeypatch.setattr(baselines.registry, "TaskVectorEnv", None)
    with pytest.raises(ValueError, match=r"is a policy of 'mt/Biped-v0', not of 'mt/Octopus-v0'"):
        load_policy(tmp_path, "Octopus")


# ------------------------------------------------------------------------------------------- filming


def gif_durations(path: Path) -> list[float]:
    """Seconds that each frame lasts."""
    with Image.open(path) as image:
        found = []
        for i in range(image.n_frames):
            image.seek(i)
            found.append(image.info["duration"] / 1000)
        return found


@needs_gl
def test_a_gif_shows_the_episodes_at_life_speed(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "film.gif"
    with Player("Biped", 3, random=True, max_episode_steps=7, **SIZE) as player:
        drawn: list[None] = []
        episodes = film(player, path, seconds=0.4, progress=lambda: drawn.append(None))
        assert len(drawn) == show.frames(player, 0.4) == 20
    # 20 pictures: of 8, 8 and 4 moments
    assert [(e.steps, e.ended) for e in episodes] == [(7, True), (7, True), (4, False)]
    assert gif_durations(path) == [0.04] * 10
    with Image.open(path) as image:
        assert image.size == (64, 48)
        frames = [np.asarray(image.convert("RGB")) for i in range(10) if image.seek(i) is None]
    assert len({frame.tobytes() for frame in frames}) == 10
    with Player("Biped", 3, random=True, max_episode_steps=7, **SIZE) as player:
        (whole,) = film(player, path, seconds=7 * player.step_seconds)  # as long as an episode
    assert (whole.steps, whole.ended) == (7, True)


@needs_gl
def test_an_mp4_shows_every_step(tmp_path: Path) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    path = tmp_path / "film.MP4"
    with Player("DMWalker", "walk", random=True, **SIZE) as player:
        film(player, path, seconds=0.5)
        assert player.step_seconds == pytest.approx(0.025)
    count, seconds = imageio_ffmpeg.count_frames_and_secs(str(path))
    assert (count, seconds) == (20, pytest.approx(0.5))
    reader = imageio_ffmpeg.read_frames(str(path))
    assert next(reader)["size"] == (64, 48)
    frames = [np.frombuffer(frame, np.uint8) for frame in reader]
    assert len(frames) == 20
    assert np.abs(frames[0].astype(int) - frames[-1]).max() > 30
    assert frames[0].std() > 10


def test_a_summary_counts_what_was_finished() -> None:
    ends = [show.Episode(1.0, 5, True, True), show.Episode(4.0, 5, False, True)]
    going = show.Episode(9.0, 2, True, False)
    assert show.summary(ends) == "2 episodes: mean return 2.5 (1.0 to 4.0), 1 with success"
    assert show.summary([ends[1], going]).endswith(
        "4.0 (4.0 to 4.0), 0 with success, and one more unfinished"
    )
    assert show.summary([going]) == "1 episode: return 9.0, success, unfinished"


@pytest.mark.parametrize("step_seconds", [0.005, 0.0125, 0.02, 0.025, 0.04, 1 / 30, 0.1])
def test_a_gifs_ticks_never_add_up_to_another_speed(step_seconds: float, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    steps = 60
    recording = GifFilm(tmp_path / "film.gif", 8, 8, step_seconds)
    drawn: list[int] = []
    for i in range(steps):

        def draw(i: int = i) -> np.ndarray:
            drawn.append(i)
            return rng.integers(256, size=(8, 8, 3), dtype=np.uint8)

        recording.add(draw)
    recording.close()
    durations = gif_durations(tmp_path / "film.gif")
    assert len(durations) == len(drawn)  # and no picture was drawn in vain
    assert min(durations) >= GIF_FRAME * GIF_TICK - 1e-9
    starts = np.concatenate([[0.0], np.cumsum(durations)])
    np.testing.assert_allclose(starts[:-1], np.array(drawn) * step_seconds, atol=GIF_TICK / 2 + 1e-9)
    assert starts[-1] == pytest.approx(steps * step_seconds, abs=GIF_FRAME * GIF_TICK)


def test_a_missing_encoder_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(RenderingError, match=r"no encoder for .mp4 .*pip install 'mtenvs\[video\]'"):
        show.check_film(tmp_path / "film.mp4", 1.0, 48, 64)
    show.check_film(tmp_path / "film.gif", 1.0, 48, 64)


# ------------------------------------------------------------------------------------------- viewing


class Window:
    """A viewer without a window, which is closed after so many pictures."""

    pictures = 0
    instances: list[Window] = []

    def __init__(self, model: Any, data: Any, **kwargs: Any) -> None:
        self.model, self.data, self.cam = model, data, types.SimpleNamespace(type=None, fixedcamid=-1)
        self.times: list[float] = []
        self.closed = False
        self.instances.append(self)

    def is_running(self) -> bool:
        return len(self.times) < self.pictures

    def sync(self) -> None:
        self.times.append(self.data.time)
        self.data.xfrc_applied[:] = 1.0  # the mouse pulls

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> list[Window]:
    viewer = types.ModuleType("mujoco.viewer")
    viewer.launch_passive = Window  # type: ignore[attr-defined]
    viewer.launch = lambda model, data: Window(model, data).close()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mujoco.viewer", viewer)
    monkeypatch.setattr("mujoco.viewer", viewer, raising=False)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(Window, "instances", [])
    return Window.instances


def test_a_window_plays_at_life_speed_until_it_is_closed(
    windows: list[Window], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Window, "pictures", 12)
    lines: list[str] = []
    with Player("Biped", 2, random=True, max_episode_steps=4) as player:
        started = time.perf_counter()
        view(player, lines.append)
        took = time.perf_counter() - started
        (window,) = windows
        assert window.data is player.world.data  # so that the mouse pushes the world itself
        assert window.data.xfrc_applied.any()
    np.testing.assert_allclose(window.times[:7], [0.0, 0.02, 0.04, 0.06, 0.08, 0.0, 0.02], atol=1e-9)
    assert [line.partition(":")[0] for line in lines] == ["episode 1", "episode 2"]
    assert window.closed
    assert 12 * 0.02 <= took < 12 * 0.02 + 1.0


def test_a_body_left_alone_is_the_viewers_own(windows: list[Window]) -> None:
    with Player("Biped", 2) as player:
        view(player, lambda line: pytest.fail(line))
        (window,) = windows
        assert window.model is player.world.model
        assert window.closed
        assert not window.times


# ------------------------------------------------------------------------------------------- a sheet


def seen_corners(model: mujoco.MjModel, camera: mujoco.MjvCamera, aspect: float) -> np.ndarray:
    """Where a body's geoms and the ends of its capsules are in the picture, which spans [-1, 1].

    By MuJoCo's own camera.
    """
    data, scene = pose(model), mujoco.MjvScene(model, 200)
    everything = mujoco.mjtCatBit.mjCAT_ALL
    mujoco.mjv_updateScene(model, data, mujoco.MjvOption(), None, camera, everything, scene)
    views = scene.camera
    position = (np.array(views[0].pos) + views[1].pos) / 2  # of the two eyes
    forward, up = np.array(views[0].forward), np.array(views[0].up)
    height = views[0].frustum_top / views[0].frustum_near
    found = []
    for i in range(model.ngeom):
        if model.geom_type[i] == mujoco.mjtGeom.mjGEOM_PLANE or model.geom_group[i] > 2:
            continue
        capsule = model.geom_type[i] == mujoco.mjtGeom.mjGEOM_CAPSULE
        axis = data.geom_xmat[i].reshape(3, 3)[:, 2] * model.geom_size[i, 1] * capsule
        found += [data.geom_xpos[i] + axis, data.geom_xpos[i] - axis]
    offsets = np.array(found) - position
    depth = offsets @ forward
    across, along = offsets @ np.cross(forward, up), offsets @ up
    return np.stack([across / (depth * height * aspect), along / (depth * height)], axis=1)


@pytest.mark.parametrize("aspect", [0.3, 0.8, 2.0])
def test_one_camera_has_every_body_in_the_picture(family: mtenvs.Family, aspect: float) -> None:
    models = [mtenvs.model(family, task) for task in family.tasks]
    camera = common_camera(models, aspect)
    largest = max(float(np.abs(seen_corners(model, camera, aspect)).max()) for model in models)
    assert 0.6 < largest < 0.95


def test_the_sheets_camera_looks_as_the_side_camera_does(family: mtenvs.Family) -> None:
    model = mtenvs.model(family, 0)
    camera = common_camera([model], 1.0)
    scene = mujoco.MjvScene(model, 200)
    everything = mujoco.mjtCatBit.mjCAT_ALL
    mujoco.mjv_updateScene(model, pose(model), mujoco.MjvOption(), None, camera, everything, scene)
    forward = -pose(model).camera("side").xmat.reshape(3, 3)[:, 2]
    level = math.hypot(forward[0], forward[1])
    found = np.array(scene.camera[0].forward)
    assert found[2] == pytest.approx(forward[2], abs=1e-3)
    turned = (found[:2] @ forward[:2]) / level**2
    assert math.degrees(math.acos(turned)) == pytest.approx(show.TURN, abs=0.1)


@needs_gl
def test_a_sheet_has_a_picture_of_every_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, rows, columns = "DMWalker", 2, 3
    monkeypatch.setattr(show, "PANEL", (60, 50))
    sheet(name, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    wide, high = 50 + show.GAP, 60 + show.TITLE
    assert pixels.shape == (rows * high + show.GAP, columns * wide + show.GAP, 3)
    for number in range(len(mtenvs.tasks(name))):
        top, left = number // columns * high + show.TITLE, number % columns * wide + show.GAP
        panel = pixels[top : top + 60, left : left + 50]
        assert (panel.min(2) < 250).all()  # filled: no paper shows through
        assert panel.std() > 10
        title = pixels[top - show.TITLE : top, left : left + 50]
        assert title.min() < 100
        assert title.max() == 255
