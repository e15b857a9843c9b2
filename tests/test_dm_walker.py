"""DMWalker against dm_control itself, and ours of its tasks against numbers worked out by hand."""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest

import mtenvs
from mtenvs.families import dm_walker
from mtenvs.state import Layout, State

FAMILY = mtenvs.get_family("DMWalker")
SHARED = ("stand", "walk", "run")  # with dm_control
SEED = 7


class Draws:
    """Uniform numbers in the order that dm_control's randomizer draws them, in place of our stream."""

    def __init__(self, seed: int) -> None:
        self._state = np.random.RandomState(seed)

    def random(self, size: int) -> np.ndarray:
        return self._state.random_sample(size)


@pytest.fixture(scope="module", params=SHARED)
def theirs(request: pytest.FixtureRequest) -> tuple[str, list[Any], list[np.ndarray], Any]:
    """A whole episode of dm_control's own and some of the next: name, time steps, actions, environment."""
    suite = pytest.importorskip("dm_control.suite")
    env = suite.load("walker", request.param, task_kwargs={"random": np.random.RandomState(SEED)})
    rng = np.random.default_rng(1)
    steps, chosen = [env.reset()], []
    while len(chosen) < 1100:  # into the second episode, which goes on with the stream
        # in turns small and large
        scale = 0.3 if (len(chosen) // 50) % 2 else 1.0
        chosen.append(scale * rng.uniform(-1, 1, 6))
        steps.append(env.step(chosen[-1]))
        if steps[-1].last():
            steps.append(env.reset())
    return request.param, steps, chosen, env


def flat(observation: dict[str, Any]) -> np.ndarray:
    return np.concatenate([np.ravel(observation[name]) for name in ("orientations", "height", "velocity")])


def test_one_environment_equals_dm_controls(theirs: Any) -> None:
    """Observation to the last bit in float64, reward to 1e-12, the time limit; over an episode and on."""
    name, steps, chosen, env = theirs
    ours = gym.make("mt/DMWalker-v0", task=name, conditioning="none")
    ours.unwrapped.np_random = Draws(SEED)
    expected = iter(steps)
    observation, _ = ours.reset()
    rewards = []

    def compare(observation: np.ndarray) -> None:
        step = next(expected)
        full = FAMILY.observe(ours.unwrapped._state)[0]
        assert full.dtype == np.float64
        np.testing.assert_array_equal(full, flat(step.observation))
        np.testing.assert_array_equal(observation, full.astype(np.float32))

    compare(observation)
    for number, action in enumerate(chosen, 1):
        observation, reward, terminated, truncated, _ = ours.step(action)
        step = steps[number + (number > 1000)]
        assert reward == pytest.approx(step.reward, rel=0.0, abs=1e-12)
        assert not terminated
        assert truncated == step.last() == (number == 1000)
        rewards.append(reward)
        compare(observation)
        if truncated:
            assert step.discount == 1.0  # no end for good
            compare(ours.reset()[0])
    assert next(expected, None) is None
    assert np.ptp(rewards) > 0.05  # not all the same
    assert env.control_timestep() == FAMILY.frame_skip * ours.unwrapped.model.opt.timestep
    assert env.action_spec().shape == ours.action_space.shape
    assert (env.action_spec().minimum == -1).all()


def test_the_batch_equals_dm_controls(theirs: Any) -> None:
    """The same beside other walkers, autoreset included."""
    name, steps, chosen, _ = theirs
    tasks = [3, name, 5]
    ours = gym.make_vec("mt/DMWalker-v0", num_envs=3, tasks=tasks, conditioning="none").unwrapped
    ours.reset(seed=0)
    ours._generators[1] = Draws(SEED)
    observations, _ = ours.reset()
    state = ours._groups[0].backend.state
    rng = np.random.default_rng(2)
    expected = iter(steps)

    def compare(row: np.ndarray) -> None:
        np.testing.assert_array_equal(row, flat(next(expected).observation).astype(np.float32))

    compare(observations[1])
    for number, action in enumerate(chosen, 1):
        actions = rng.uniform(-1, 1, (3, 6))
        actions[1] = action
        observations, rewards, terminations, truncations, info = ours.step(actions)
        step = steps[number + (number > 1000)]
        assert rewards[1] == pytest.approx(step.reward, rel=0.0, abs=1e-12)
        assert not terminations.any()
        assert truncations[1] == step.last()
        if truncations[1]:
            compare(info["final_obs"][1])
        following = next(expected)
        np.testing.assert_array_equal(FAMILY.observe(state)[1], flat(following.observation))
        np.testing.assert_array_equal(observations[1], flat(following.observation).astype(np.float32))


def test_start_states_are_those_of_the_randomizer() -> None:
    suite = pytest.importorskip("dm_control.suite")
    env = suite.load("walker", "walk", task_kwargs={"random": np.random.RandomState(3)})
    draws = Draws(3)
    model = mtenvs.model("DMWalker", "walk")
    for _ in range(20):
        env.reset()
        qpos, qvel = FAMILY.start(model.key_qpos[:1], draws.random(FAMILY.start_draws)[None])
        np.testing.assert_array_equal(qpos[0], env.physics.data.qpos)
        np.testing.assert_array_equal(qvel[0], env.physics.data.qvel)


def test_the_body_is_dm_controls() -> None:
    """In all that decides the motion; ours adds sensors and poses."""
    common = pytest.importorskip("dm_control.suite.walker")
    xml, assets = common.get_model_and_assets()
    theirs = mujoco.MjModel.from_xml_string(xml, assets)
    for task in FAMILY.tasks:
        ours = mtenvs.model("DMWalker", task)
        for name in dir(theirs):
            value = getattr(theirs, name)
            if name.split("_")[0] in ("body", "jnt", "dof", "geom", "actuator", "qpos0", "exclude") and (
                isinstance(value, np.ndarray)
            ):
                np.testing.assert_array_equal(getattr(ours, name), value, err_msg=name)
        for name in ("timestep", "integrator", "solver", "iterations", "cone", "disableflags", "gravity"):
            np.testing.assert_array_equal(getattr(ours.opt, name), getattr(theirs.opt, name), err_msg=name)


# ---- dm_control as a package


def run(script: str, directory: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=directory, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_dm_control_is_never_imported(tmp_path: Path) -> None:
    script = (
        "import sys, gymnasium as gym, mtenvs\n"
        "env = gym.make('mt/DMWalker-v0', task='hop')\n"
        "env.reset(seed=0); env.step(env.action_space.sample())\n"
        "many = gym.make_vec('mt/DMWalker-v0', num_envs=2)\n"
        "many.reset(seed=0); many.step(many.action_space.sample())\n"
        "mtenvs.mjcf('DMWalker', 1)\n"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ('dm_control', 'dm_env', 'labmaze')))\n"
    )
    assert run(script, tmp_path).strip() == "[]"


@pytest.fixture
def not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def without(name: str, *args: Any) -> Any:
        return None if name.split(".")[0] == "dm_control" else find(name, *args)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    dm_walker._limits.cache_clear()
    yield
    dm_walker._limits.cache_clear()


@pytest.mark.usefixtures("not_installed")
def test_without_dm_control_the_error_says_what_to_install() -> None:
    message = r"reads its body from dm_control, which is not installed; pip install 'mtenvs\[dm-control\]'"
    for make in (
        lambda: gym.make("mt/DMWalker-v0", task=0),
        lambda: gym.make_vec("mt/DMWalker-v0", num_envs=1),
        lambda: mtenvs.model("DMWalker", 1),
        lambda: mtenvs.mjcf("DMWalker", 1),
        lambda: gym.make("mt/AllFamilies-v0", family=["Biped", "DMWalker"], task="DMWalker/0"),
    ):
        with pytest.raises(ModuleNotFoundError, match=message):
            make()


@pytest.mark.usefixtures("not_installed")
def test_without_dm_control_the_set_of_all_says_how_to_do_without() -> None:
    message = r"from dm_control, which is not installed; .*family=\['Biped', 'BipedSkills', 'Octopus'\]"
    with pytest.raises(ModuleNotFoundError, match=message):
        gym.make_vec("mt/AllFamilies-v0", num_envs=64)
    envs = gym.make_vec("mt/AllFamilies-v0", num_envs=24, family=["Biped", "BipedSkills", "Octopus"])
    assert envs.reset(seed=0)[0].shape[0] == 24


@pytest.mark.usefixtures("not_installed")
def test_without_dm_control_all_else_works() -> None:
    assert "DMWalker" in mtenvs.families()
    assert len(mtenvs.tasks("DMWalker")) == 6
    assert mtenvs.sample_task("DMWalker", 0).family == "DMWalker"
    mtenvs.register()
    env = gym.make("mt/Biped-v0", task=3)
    env.reset(seed=0)
    env.step(env.action_space.sample())


# ---- terms on states made by hand


def state(task: str | dict[str, float], n: int = 1, **values: Any) -> State:
    """Walkers upright with the torso at 1.3 m and feet on the ground, except for ``values``."""
    layout = Layout.of(mtenvs.model("DMWalker", 0))
    size = max(columns.stop for columns in layout.sensors.values())
    p = FAMILY.complete(task) if isinstance(task, dict) else next(
        t.parameters for t in FAMILY.tasks if t.name == task
    )  # fmt: skip
    made = State(
        layout=layout,
        time=np.full(n, values.get("time", 1.0)),
        qpos=np.zeros((n, 9)),
        qvel=np.zeros((n, 9)),
        ctrl=np.zeros((n, 6)),
        sensordata=np.zeros((n, size)),
        constants={name: np.full(n, value) for name, value in FAMILY.constants(p).items()},
        totals={term: np.full(n, values.get(term, 0.0)) for term in FAMILY.reward_terms},
    )
    made.sensor("torso_position")[:, 2] = values.get("height", 1.3)
    made.sensor("torso_z")[:, 2] = values.get("up", 1.0)
    made.sensor("torso_subtreelinvel")[:, 0] = values.get("speed", 0.0)
    for foot in ("left", "right"):
        made.sensor(f"{foot}_foot_position")[:, 2] = values.get(foot, 0.05)
        made.sensor(f"{foot}_knee_position")[:, 2] = values.get(f"{foot}_knee", 0.6)
    return made


def terms(*args: Any, **values: Any) -> tuple[float, float]:
    found = FAMILY.reward(state(*args, **values))
    return float(found["stand"][0]), float(found["goal"][0])


@pytest.mark.parametrize(
    ("values", "standing"),
    [
        ({}, 1.0),
        ({"height": 1.2}, 1.0),
        ({"height": 0.6}, (3 * 0.1 + 1) / 4),  # a tenth at the margin
        ({"height": 0.9}, (3 * 0.1**0.25 + 1) / 4),  # a bell in between
        ({"up": 0.0}, (3 + 0.5) / 4),
        ({"up": -1.0}, 3 / 4),
    ],
)
def test_standing_by_hand(values: dict[str, float], standing: float) -> None:
    assert terms("stand", **values) == pytest.approx((standing / 6, 5 * standing / 6))
    # what moves or lifts nothing keeps a sixth of it
    assert terms("walk", **values) == pytest.approx((standing / 6, 0.0), abs=1e-12)
    assert terms("jump", **values) == pytest.approx((standing / 6, 0.0), abs=1e-12)


@pytest.mark.parametrize(
    ("task", "speed", "move"),
    [
        # a half at half the speed, nothing at rest; faster is as good
        ("walk", 1.0, 1.0),
        ("walk", 3.0, 1.0),
        ("walk", 0.5, 0.5),
        ("walk", 0.25, 0.25),
        ("walk", 0.0, 0.0),
        ("walk", -1.0, 0.0),
        ("run", 8.0, 1.0),
        ("run", 4.0, 0.5),
        ("run", 1.0, 0.125),
        ("back", -1.0, 1.0),
        ("back", -2.0, 1.0),
        ("back", -0.5, 0.5),
        ("back", 0.0, 0.0),
        ("back", 1.0, 0.0),
    ],
)
def test_moving_by_hand(task: str, speed: float, move: float) -> None:
    assert terms(task, speed=speed) == pytest.approx((1 / 6, 5 * move / 6), abs=1e-12)


@pytest.mark.parametrize(
    ("task", "lower", "lift"),
    [
        # soles and knees are 0.05 m lower; whole at a clearance of 0.12 m (jump) and 0.06 m (hop)
        ("jump", 0.4, 1.0),
        ("jump", 0.17, 1.0),
        ("jump", 0.11, 0.5),
        ("jump", 0.05, 0.0),
        ("jump", 0.03, 0.0),
        ("hop", 0.11, 1.0),
        ("hop", 0.08, 0.5),
        ("hop", 0.05, 0.0),
    ],
)
def test_lifting_by_hand(task: str, lower: float, lift: float) -> None:
    """The lowest of feet and knees counts, whichever it is: kneeling is no jump."""
    high = {"left": 0.6, "right": 0.6, "left_knee": 0.7, "right_knee": 0.7}
    for low in high:
        assert terms(task, speed=1.0, **{**high, low: lower}) == pytest.approx(
            (1 / 6, 5 * lift / 6), abs=1e-12
        )


def test_hopping_asks_for_both_at_once() -> None:
    assert terms("hop", speed=0.5, left=0.11, right=0.11)[1] == pytest.approx(5 / 12)
    assert terms("hop", speed=0.5, left=0.08, right=0.11)[1] == pytest.approx(5 / 24)
    assert terms("hop", speed=0.0, left=0.11, right=0.11)[1] == pytest.approx(0.0, abs=1e-12)
    assert terms("jump", speed=-3.0, left=0.2, right=0.2)[1] == pytest.approx(5 / 6)  # wherever it goes


def test_reward_lies_between_nothing_and_one() -> None:
    rng = np.random.default_rng(0)
    for task in (*FAMILY.tasks, *(mtenvs.sample_task("DMWalker", seed) for seed in range(20))):
        made = state(dict(task.parameters), 200)
        made.sensordata[:] = rng.normal(0.0, 2.0, made.sensordata.shape)
        made.sensor("torso_z")[:, 2] = rng.uniform(-1, 1, 200)
        total = sum(FAMILY.reward(made).values())
        assert (total >= 0.0).all()
        assert (total <= 1.0 + 1e-12).all()


def test_doing_as_asked_earns_one() -> None:
    for task in FAMILY.tasks:
        p = task.parameters
        height = 0.05 + p["lift"]
        found = terms(task.name, speed=p["speed"], left=height, right=height)
        assert sum(found) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("stand", "goal", "success"),
    # 10 s are 400 steps; a mean of 0.6 is 240
    [(66.0, 175.0, True), (64.0, 175.0, False), (0.0, 241.0, True), (60.0, 0.0, False)],
)
def test_success_by_hand(stand: float, goal: float, success: bool) -> None:
    for task in FAMILY.tasks:
        assert FAMILY.success(state(task.name, time=10.0, stand=stand, goal=goal)).tolist() == [success]


def test_nothing_ends_an_episode_early() -> None:
    assert FAMILY.terminated(state("walk", 3, height=-9.0, up=-1.0)).tolist() == [False] * 3


def test_worlds_do_not_mix() -> None:
    made = state("walk", 3)
    made.sensor("torso_subtreelinvel")[:, 0] = [0.0, 0.5, 1.0]
    np.testing.assert_allclose(FAMILY.reward(made)["goal"], np.array([0.0, 0.5, 1.0]) * 5 / 6, atol=1e-12)


def test_start_by_hand() -> None:
    """Pitch anywhere, joints anywhere in their range, at rest; from the lowest to the middle of each."""
    model = mtenvs.model("DMWalker", 0)
    limits = np.array([model.joint(name).range for name in dm_walker.JOINTS])
    home = np.repeat(model.key_qpos[:1], 2, axis=0)
    qpos, qvel = FAMILY.start(home, np.array([[0.0] * 7, [0.5] * 7]))
    np.testing.assert_allclose(qpos[0], [0.0, 0.0, -math.pi, *limits[:, 0]])
    np.testing.assert_allclose(qpos[1], [0.0, 0.0, 0.0, *limits.mean(axis=1)], atol=1e-12)
    assert not qvel.any()


def test_clearance_is_that_of_the_real_feet_and_knees() -> None:
    """In any pose, MuJoCo's own distance from the floor; a knee is the lower end of a thigh's capsule."""
    model = mtenvs.model("DMWalker", "jump")
    data = mujoco.MjData(model)
    floor, feet = model.geom("floor").id, [model.geom(foot).id for foot in dm_walker.FEET]
    limits = np.array([model.joint(name).range for name in dm_walker.JOINTS])
    rng = np.random.default_rng(0)
    made, lowest = state("jump"), []
    for _ in range(300):
        data.qpos[:] = [rng.uniform(0.5, 2.0), 0.0, rng.uniform(-math.pi, math.pi), *rng.uniform(*limits.T)]
        mujoco.mj_forward(model, data)
        made.sensordata[0] = data.sensordata
        parts = [mujoco.mj_geomDistance(model, data, floor, foot, 10.0, None) for foot in feet]
        for side in ("left", "right"):
            knee = data.xanchor[model.joint(f"{side}_knee").id]
            parts.append(knee[2] - model.geom(f"{side}_thigh").size[0])
        assert dm_walker.clearance(made)[0] == pytest.approx(min(parts), abs=1e-9)
        lowest.append(int(np.argmin(parts)))
    assert set(lowest) == {0, 1, 2, 3}  # each was the lowest in some


def test_who_stands_on_anything_lifts_nothing() -> None:
    """Flat feet, heels or toes on the floor, the other leg up or down."""
    model = mtenvs.model("DMWalker", "jump")
    data = mujoco.MjData(model)
    for hip, knee, ankle in ((0, 0, 0), (0, 0, -45), (0, 0, 45), (20, -80, -38), (90, -150, 0)):
        for other in (0, 60):
            mujoco.mj_resetDataKeyframe(model, data, model.key("home").id)
            for name, angle in (("hip", hip), ("knee", knee), ("ankle", ankle)):
                data.joint(f"left_{name}").qpos[0] = math.radians(angle)
            data.joint("right_hip").qpos[0] = math.radians(other)
            mujoco.mj_forward(model, data)
            made = state("jump")
            made.sensordata[0] = data.sensordata
            data.qpos[0] -= dm_walker.clearance(made)[0]  # down to where it touches
            mujoco.mj_forward(model, data)
            made.sensordata[0] = data.sensordata
            assert float(FAMILY.reward(made)["goal"][0]) == pytest.approx(0.0, abs=1e-9)
