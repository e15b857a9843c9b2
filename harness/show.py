"""What tasks look like: a sheet of all bodies of a family, a film of one task, a window on it."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import gymnasium
import mujoco
import numpy as np

import mtenvs
from mtenvs.registry import as_task, get_families
from mtenvs.rendering import CAMERA, RenderingError, has_display, open_window, picture, pose

SUFFIXES = (".mp4", ".gif")
GIF_TICK = 0.01  # s, the format's unit of time
GIF_FRAME = 4  # ticks that a frame lasts at least: 25 a second look smooth, at half of 50's size
GIF_COLOURS = 256
MP4_QUALITY = 8  # of 10, as imageio-ffmpeg counts

PANEL = (480, 400)  # height and width of a task's picture on a sheet, in pixels
MOST_COLUMNS = 4
GAP, TITLE = 6, 34  # pixels between pictures, and above each for its title
TURN = 25.0  # degrees from the side view, so that the far leg shows
MARGIN = 0.88  # share of a picture that the largest body may fill
DRAWN_GROUPS = 3  # MuJoCo draws groups 0 to 2


# ------------------------------------------------------------------------------------------ playing


@dataclasses.dataclass
class Episode:
    """What has happened in an episode so far."""

    total: float = 0.0
    """Undiscounted sum of rewards."""
    steps: int = 0
    """Control steps."""
    success: bool = False
    """``info["success"]`` of the last step."""
    ended: bool = False
    """Whether it has terminated or was truncated."""

    def __str__(self) -> str:
        how = "" if self.ended else ", unfinished"
        return f"return {self.total:.1f}, {'success' if self.success else 'no success'}{how}"


Act = Callable[[np.ndarray], np.ndarray]
"""Observations ``(n, size)`` to actions ``(n, num_actions)``."""


class Actor(Protocol):
    """What acts in worlds that run side by side, with or without a memory."""

    @property
    def act(self) -> Act:
        """What acts."""
        ...

    def begin(self) -> object:
        """Called before first observations: nothing is remembered."""
        ...

    def told(self, rewards: np.ndarray, ends: np.ndarray, /) -> object:
        """Called after every step with rewards ``(n,)``, and which worlds' episodes ended, ``(n,)``."""
        ...


@dataclasses.dataclass(frozen=True)
class Memoryless:
    """An :class:`Actor` that needs to know nothing but observations."""

    act: Act
    """What acts."""

    def begin(self) -> None:
        """Nothing is to be forgotten."""

    def told(self, rewards: np.ndarray, ends: np.ndarray, /) -> None:
        """Nothing is to be remembered."""


class Policy(Actor, Protocol):
    """A network that acts; what ``baselines.registry.load_policy`` returns."""

    @property
    def env_options(self) -> dict[str, Any]:
        """Arguments of ``gymnasium.make`` that it was trained with."""
        ...

    @property
    def agent(self) -> str:
        """Name of the agent that learned it."""
        ...


class Player:
    """One world of one task, and what moves it. Use as a context manager.

    Args:
        family: name of the family, or of a set of families.
        task: published number or name.
        policy: what acts.
        random: act uniformly at random instead. Without either, motors stay at zero.
        seed: of the starts and the random actions.
        options: further arguments of ``gymnasium.make``.

    Raises:
        ValueError: for an unknown family or task, or both ``policy`` and ``random``.
    """

    def __init__(
        self,
        family: str,
        task: int | str,
        policy: Policy | None = None,
        random: bool = False,
        seed: int = 0,
        **options: Any,
    ) -> None:
        if policy is not None and random:
            raise ValueError("give a policy or random, not both")
        if seed < 0:
            raise ValueError(f"seed must not be negative, got {seed}")
        families = get_families(family)
        self.task = as_task(families, task)
        options |= {} if policy is None else policy.env_options
        self._env = gymnasium.make(families.id, task=self.task, **options)
        self._seed = seed
        self.idle = policy is None and not random
        """Whether nothing moves the body."""
        self._actor: Actor = Memoryless(self._blind(random)) if policy is None else policy
        world = self.world
        self.step_seconds: float = world.model.opt.timestep * families.of(self.task).frame_skip
        """Simulated time of a control step."""

    def _blind(self, random: bool) -> Act:
        """What acts without a policy."""
        shape = (1, *(self._env.action_space.shape or ()))
        if random:
            rng = np.random.default_rng([self._seed, 1])  # another stream than the starts'
            return lambda observations: rng.uniform(-1.0, 1.0, shape)
        return lambda observations: np.zeros(shape)

    @property
    def world(self) -> Any:
        """The environment itself, with ``model`` and ``data``."""
        return self._env.unwrapped

    def play(self) -> Iterator[Episode]:
        """Plays episode after episode; yields at every start and after every step.

        The object that it yields stays the same throughout an episode. Every episode is played as if it
        were evaluated: a policy with a memory remembers nothing of the one before.
        """
        for seed in itertools.chain([self._seed], itertools.repeat(None)):
            observation, _ = self._env.reset(seed=seed)
            self._actor.begin()
            episode = Episode()
            yield episode
            while not episode.ended:
                (action,) = self._actor.act(observation[None])
                observation, reward, terminated, truncated, info = self._env.step(action)
                episode.total += float(reward)
                episode.steps += 1
                episode.success = bool(info["success"])
                episode.ended = terminated or truncated
                self._actor.told(np.array([reward]), np.array([episode.ended]))
                yield episode

    def render(self) -> np.ndarray:
        """The picture of now, ``(height, width, 3)`` of uint8."""
        return np.asarray(self._env.render())

    def __enter__(self) -> Player:
        return self

    def __exit__(self, *error: object) -> None:
        self._env.close()


# ------------------------------------------------------------------------------------------- filming


class Film(Protocol):
    """A file that takes pictures, one for every control step."""

    def add(self, draw: Callable[[], np.ndarray]) -> None:
        """Adds a picture, if it needs one now: ``(height, width, 3)`` of uint8."""
        ...

    def close(self) -> None:
        """Finishes the file."""
        ...


class GifFilm:
    """A GIF at life speed: its frames last whole hundredths of a second, at least ``GIF_FRAME`` of them.

    Pictures that come too soon after the last one kept are left out, and the others last until the
    next, so that rounding never adds up.
    """

    def __init__(self, path: Path, height: int, width: int, step_seconds: float) -> None:
        from PIL import Image

        self._image, self._path, self._ticks = Image, path, step_seconds / GIF_TICK
        self._frames: list[Any] = []
        self._starts: list[int] = []  # in ticks
        self._added = 0

    def add(self, draw: Callable[[], np.ndarray]) -> None:
        """Adds a picture, unless it comes too soon."""
        start = round(self._added * self._ticks)
        self._added += 1
        if self._starts and start - self._starts[-1] < GIF_FRAME:
            return
        image = self._image.fromarray(draw())
        # one palette for all, without dithering: colours of their own would flicker
        palette = self._frames[0] if self._frames else image.quantize(GIF_COLOURS)
        self._frames.append(image.quantize(palette=palette, dither=self._image.Dither.NONE))
        self._starts.append(start)

    def close(self) -> None:
        """Writes the file."""
        ends = [*self._starts[1:], max(round(self._added * self._ticks), self._starts[-1] + GIF_FRAME)]
        durations = [1000 * GIF_TICK * (b - a) for a, b in zip(self._starts, ends, strict=True)]
        self._frames[0].save(
            self._path, save_all=True, append_images=self._frames[1:], duration=durations, loop=0
        )


class Mp4Film:
    """An MP4 at life speed, H.264, which every browser shows."""

    def __init__(self, path: Path, height: int, width: int, step_seconds: float) -> None:
        import imageio_ffmpeg

        self._writer = imageio_ffmpeg.write_frames(
            str(path),
            (width, height),
            fps=1.0 / step_seconds,
            quality=MP4_QUALITY,
            macro_block_size=2,
            output_params=["-movflags", "+faststart"],
        )
        self._writer.send(None)

    def add(self, draw: Callable[[], np.ndarray]) -> None:
        """Adds a picture."""
        self._writer.send(np.ascontiguousarray(draw()))

    def close(self) -> None:
        """Finishes the file."""
        self._writer.close()


def frames(player: Player, seconds: float) -> int:
    """How many control steps, the start included, a film of so many seconds shows."""
    return max(1, round(seconds / player.step_seconds))


def film(
    player: Player, out: Path, seconds: float, progress: Callable[[], object] = lambda: None
) -> list[Episode]:
    """Films a player for so many seconds at life speed; when an episode ends, the next begins.

    Args:
        player: made with ``render_mode="rgb_array"``.
        out: file to write, ``.mp4`` or ``.gif``; its directory is made if missing.
        seconds: simulated, and as long to watch.
        progress: called after each of the :func:`frames`.

    Returns:
        The episodes filmed; the last may be unfinished.

    Raises:
        ValueError: for what :func:`check_film` refuses.
        RenderingError: if there is no OpenGL, or no encoder.
    """
    playing = player.play()
    episodes = [next(playing)]
    height, width = player.render().shape[:2]  # raises before there is a file
    check_film(out, seconds, height, width)
    out.parent.mkdir(parents=True, exist_ok=True)
    kind = Mp4Film if out.suffix.lower() == ".mp4" else GifFilm
    recording: Film = kind(out, height, width, player.step_seconds)
    try:
        recording.add(player.render)
        progress()
        for episode in itertools.islice(playing, frames(player, seconds) - 1):
            recording.add(player.render)
            progress()
            if episode.steps == 0:
                episodes.append(episode)
        if not episodes[-1].ended:
            next(playing)  # what happens while the last picture is shown, which may be the end
    finally:
        recording.close()
    return episodes


def summary(episodes: Sequence[Episode]) -> str:
    """How episodes went, in one line; the last may be unfinished."""
    totals = [episode.total for episode in episodes if episode.ended]
    if not totals:
        return f"1 episode: {episodes[0]}"
    successes = sum(episode.success for episode in episodes if episode.ended)
    rest = ", and one more unfinished" * (len(totals) < len(episodes))
    return (
        f"{len(totals)} episode{'s' * (len(totals) > 1)}: mean return {np.mean(totals):.1f} "
        f"({min(totals):.1f} to {max(totals):.1f}), {successes} with success{rest}"
    )


def check_film(out: Path, seconds: float, height: int, width: int) -> None:
    """Checks that a film can be made, before anything is done for it.

    Raises:
        ValueError: for a suffix other than ``SUFFIXES``, a length that is not positive, or a size that
            is not positive or, for an MP4, not even: its format halves the colours' resolution.
        RenderingError: if imageio-ffmpeg, or its ffmpeg, is not installed.
    """
    suffix = out.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"cannot write a video to {str(out)!r}; valid: {', '.join(SUFFIXES)}")
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"seconds must be positive, got {seconds}")
    if min(height, width) < 1 or (suffix == ".mp4" and (height % 2 or width % 2)):
        even = " and even for an MP4" if suffix == ".mp4" else ""
        raise ValueError(f"width and height must be positive{even}, got {width} x {height}")
    try:
        if suffix == ".mp4":
            import imageio_ffmpeg

            imageio_ffmpeg.get_ffmpeg_exe()
        else:
            import PIL  # noqa: F401
    except (ImportError, RuntimeError) as error:
        raise RenderingError(
            f"no encoder for {suffix} ({error}); install it with: pip install 'mtenvs[video]'"
        ) from error


# ------------------------------------------------------------------------------------------- viewing


def view(player: Player, report: Callable[[str], object]) -> None:
    """Opens MuJoCo's viewer and plays at life speed until it is closed.

    The mouse can push the body: double-click it, then drag with the control key held. If nothing moves
    the body, the viewer itself simulates it, with a slider for every motor.

    Args:
        player: what to show.
        report: called with a line on every finished episode.

    Raises:
        RenderingError: if no window can be opened.
    """
    episodes = player.play()
    next(episodes)
    world = player.world
    if player.idle:
        from mujoco import viewer  # opens a window system, so only when a window is wanted

        viewer.launch(world.model, world.data)
        return
    window = open_window(world.model, world.data)
    try:
        due, count = time.perf_counter(), 0
        while window.is_running():
            window.sync()
            due += player.step_seconds
            time.sleep(max(0.0, due - time.perf_counter()))
            due = max(due, time.perf_counter())  # what took too long is not made up for by haste
            episode = next(episodes)
            if episode.ended:
                count += 1
                report(f"episode {count}: {episode}")
    finally:
        window.close()


def check_display(words: str) -> None:
    """Checks that a window can be opened.

    Args:
        words: of the command, as they would be typed after its name.

    Raises:
        RenderingError: if not, naming the command that films instead.
    """
    if not has_display():
        raise RenderingError(
            f"a window needs a display, and there is none; film the task instead: mtenvs video {words}"
        )


# ------------------------------------------------------------------------------------------- a sheet


def sheet(family: str, out: Path) -> None:
    """Draws all published tasks of a family side by side, at one scale and from one place.

    Args:
        family: name of the family.
        out: PNG to write; its directory is made if missing.

    Raises:
        ValueError: for an unknown family, or another suffix.
        RenderingError: if there is no OpenGL.
    """
    from matplotlib.figure import Figure

    tasks = mtenvs.tasks(family)
    if out.suffix.lower() != ".png":
        raise ValueError(f"cannot write a picture to {str(out)!r}; valid: .png")
    models = [mtenvs.model(family, task) for task in tasks]
    height, width = PANEL
    camera = common_camera(models, width / height)
    rows = math.ceil(len(tasks) / MOST_COLUMNS)
    columns = math.ceil(len(tasks) / rows)
    full_width, full_height = columns * (width + GAP) + GAP, rows * (height + TITLE) + GAP
    dpi = 100
    figure = Figure(figsize=(full_width / dpi, full_height / dpi), dpi=dpi)
    for i, (task, model) in enumerate(zip(tasks, models, strict=True)):
        left = GAP + i % columns * (width + GAP)
        bottom = full_height - (i // columns + 1) * (height + TITLE)
        figure.figimage(picture(model, height, width, camera), left, bottom, origin="upper")
        x, y = (left + width / 2) / full_width, (bottom + height + TITLE / 2) / full_height
        figure.text(x, y, f"{task.number}  {task.name}", ha="center", va="center", fontsize=14)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=dpi)


def common_camera(models: Sequence[mujoco.MjModel], aspect: float) -> mujoco.MjvCamera:
    """A free camera that has every body whole in the picture, each in its :func:`~mtenvs.rendering.pose`.

    It looks as the camera ``CAMERA`` of the first does, turned by ``TURN`` degrees.

    Args:
        models: the bodies.
        aspect: width over height of the pictures.
    """
    poses = [pose(model) for model in models]
    backward = -poses[0].camera(CAMERA).xmat.reshape(3, 3)[:, 2]
    azimuth = math.degrees(math.atan2(backward[1], backward[0])) + TURN
    elevation = math.degrees(math.asin(np.clip(backward[2], -1.0, 1.0)))
    a, e = math.radians(azimuth), math.radians(elevation)
    # MuJoCo's free camera: the direction it looks in, and its right and up
    forward = np.array([math.cos(a) * math.cos(e), math.sin(a) * math.cos(e), math.sin(e)])
    right = np.array([math.sin(a), -math.cos(a), 0.0])
    up = np.cross(right, forward)
    corners = np.concatenate([_corners(m, d) for m, d in zip(models, poses, strict=True)])
    axes = np.stack([right, up, forward])
    seen = corners @ axes.T
    middle = (seen.min(0) + seen.max(0)) / 2
    half = np.tan(np.radians(models[0].vis.global_.fovy / 2)) * MARGIN
    x, y, depth = np.abs(seen[:, 0] - middle[0]), np.abs(seen[:, 1] - middle[1]), seen[:, 2] - middle[2]
    # a point at x, y is in the picture if x <= half * aspect * (distance + depth), and y likewise
    camera = mujoco.MjvCamera()
    camera.azimuth, camera.elevation = azimuth, elevation
    camera.lookat[:] = middle @ axes
    camera.distance = float(np.max(np.maximum(x / aspect, y) / half - depth))
    return camera


def _corners(model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
    """Corners of the boxes around everything that is drawn but planes, ``(8 n, 3)`` in m."""
    signs = np.array(list(itertools.product((-1.0, 1.0), repeat=3)))
    boxes = [
        data.geom_xpos[i]
        + (model.geom_aabb[i, :3] + signs * model.geom_aabb[i, 3:]) @ data.geom_xmat[i].reshape(3, 3).T
        for i in range(model.ngeom)
        if model.geom_type[i] != mujoco.mjtGeom.mjGEOM_PLANE and model.geom_group[i] < DRAWN_GROUPS
    ]
    return np.concatenate(boxes)
