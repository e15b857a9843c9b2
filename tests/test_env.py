from __future__ import annotations

import copy
import dataclasses
import pickle
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from helpers import may_fall, present_entries
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import mtenvs

STEPS = 60  # 1.2 s: random actions have brought every body down by then


def actions(env: gym.Env, seed: int, steps: int = STEPS) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (steps, *env.action_space.shape)).astype(np.float32)


def rollout(env: gym.Env, seed: int | None = 0, action_seed: int = 0, steps: int = STEPS) -> list[Any]:
    """Everything that reset and the steps return, through several episodes."""
    seen: list[Any] = [env.reset(seed=seed)]
    for action in actions(env, action_seed, steps):
        seen.append(env.step(action))
        if seen[-1][2] or seen[-1][3]:
            seen.append(env.reset())
    return seen


def same(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(
        np.array_equal(x[0], y[0]) and x[1:] == y[1:] for x, y in zip(a, b, strict=True)
    )


# ---- checkers, spaces, values


@pytest.mark.parametrize("conditioning", ["descriptor", "one_hot", "none"])
def test_checkers_of_gymnasium_and_sb3(task: mtenvs.Task, env_id: str, conditioning: str) -> None:
    env = gym.make(env_id, task=task, conditioning=conditioning)
    with warnings.catch_warnings():  # an unbounded observation is meant
        warnings.filterwarnings("ignore", ".*A Box observation space")
        check_env(env.unwrapped, skip_render_check=True)
        sb3_check_env(env, warn=False)


def test_checker_with_a_task_drawn_at_every_reset(family: mtenvs.Family) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*A Box observation space")
        check_env(gym.make(family.id).unwrapped, skip_render_check=True)


def test_spaces_and_finite_values(task: mtenvs.Task, env_id: str) -> None:
    env = gym.make(env_id, task=task)
    family = mtenvs.get_family(task.family)
    assert env.action_space == gym.spaces.Box(-1.0, 1.0, (len(family.action_names),), np.float32)
    assert mtenvs.model(task.family, task).nu <= len(family.action_names)
    assert env.observation_space.shape == (env.unwrapped.observation_slices.size,)
    terms = {f"reward_{t}" for t in family.reward_terms}
    steps, total = 0, 0.0
    for result in rollout(env):
        observation, info = result[0], result[-1]
        assert observation.dtype == np.float32
        assert observation in env.observation_space
        assert np.isfinite(observation).all()
        assert info["task"] == task.number
        if len(result) == 2:
            assert set(info) == {"task"}
            steps, total = 0, 0.0
            continue
        _, reward, terminated, truncated, info = result
        steps, total = steps + 1, total + reward
        assert set(info) == {"task", "success", "physics_diverged"} | terms
        assert type(reward) is float
        assert {type(v) for v in (terminated, truncated, info["success"], info["physics_diverged"])} == {
            bool
        }
        assert reward == sum(info[f"reward_{t}"] for t in family.reward_terms)
        # one a step is the most that there is, on the mean over a stride of 40 where there are any
        assert total <= max(steps, 40)
        assert not info["physics_diverged"]


def test_no_body_observation_stands_still(task: mtenvs.Task, env_id: str) -> None:
    """Codes, masks and padding are constants of a task; all else moves, a target from reset to reset."""
    env = gym.make(env_id, task=task)
    encoding, where = env.unwrapped.encoding, env.unwrapped.observation_slices
    own, _ = present_entries(mtenvs.get_family(task.family), task, encoding.layout)
    seen = np.stack([env.reset(seed=0)[0]] + [env.reset()[0] for _ in range(3)])
    seen = np.concatenate([seen, np.stack([r[0] for r in rollout(env, steps=150)])])
    still = np.ptp(seen, axis=0) == 0
    body = dict(zip(encoding.observation_names, still[where.body], strict=True))
    assert {name for name, stands in body.items() if not stands} == own
    assert not seen[:, [name not in own for name in body] + [False] * (len(still) - len(body))].any()
    assert still[where.code].all()
    assert still[where.mask].all()


def test_no_memory_is_shared_between_steps(task: mtenvs.Task, env_id: str) -> None:
    env, twin = gym.make(env_id, task=task), gym.make(env_id, task=task)
    expected = rollout(twin, steps=9)
    action = np.zeros(env.action_space.shape, np.float32)
    observation, info = env.reset(seed=0)
    for i, kept in enumerate(expected[1:10]):
        np.testing.assert_array_equal(observation, expected[i][0])
        observation[:] = np.nan  # spoiling what was given ...
        info.clear()
        action[:] = actions(env, 0, 9)[i]
        result = env.step(action)
        action[:] = np.nan
        assert same([result], [kept])  # ... spoils nothing
        observation, info = result[0], result[-1]


# ---- seeds


def test_same_seed_same_trajectory_other_seed_another(task: mtenvs.Task, env_id: str) -> None:
    first = rollout(gym.make(env_id, task=task), seed=0)
    assert same(first, rollout(gym.make(env_id, task=task), seed=0))
    env = gym.make(env_id, task=task)
    rollout(env, seed=5)
    assert same(first, rollout(env, seed=0))  # nothing is left of what was before
    assert not np.array_equal(rollout(env, seed=1)[1][0], first[1][0])
    assert not np.array_equal(rollout(env, seed=0, action_seed=1)[1][0], first[1][0])


def test_zero_is_a_seed_and_none_goes_on(family: mtenvs.Family) -> None:
    env = gym.make(family.id, task=0)
    starts = [env.reset(seed=0)[0], env.reset(seed=0)[0], env.reset()[0], env.reset()[0]]
    np.testing.assert_array_equal(starts[0], starts[1])
    assert not np.array_equal(starts[1], starts[2])
    assert not np.array_equal(starts[2], starts[3])
    assert env.unwrapped.np_random_seed == 0
    unseeded = [gym.make(family.id, task=0).reset()[0] for _ in range(2)]
    assert not np.array_equal(*unseeded)


def test_global_random_state_is_neither_read_nor_written(family: mtenvs.Family) -> None:
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = rollout(gym.make(family.id))
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    assert same(first, rollout(gym.make(family.id)))


# ---- tasks


def test_a_task_reaches_the_simulation(task: mtenvs.Task, env_id: str) -> None:
    env = gym.make(env_id, task=task.name)
    expected = mtenvs.model(task.family, task)
    for _ in range(3):  # nothing compounds over resets
        env.reset()
        np.testing.assert_array_equal(env.unwrapped.model.body_mass, expected.body_mass)
        np.testing.assert_array_equal(env.unwrapped.model.body_inertia, expected.body_inertia)
        np.testing.assert_array_equal(env.unwrapped.model.geom_size, expected.geom_size)
        env.step(env.action_space.sample())


def test_every_parameter_changes_the_motion_or_what_it_earns(family: mtenvs.Family) -> None:
    """From the same starts, by the same actions, on some published task (an offset needs a swing)."""
    worlds, steps = 6, 40
    where = slice(0, len(family.observation_names))  # of the observation, the body's own part

    def played(tasks: list[mtenvs.Task]) -> np.ndarray:
        """Motion and reward terms of every task in turn, ``(tasks, ...)``."""
        env = gym.make_vec(
            family.id,
            num_envs=worlds * len(tasks),
            tasks=[task for task in tasks for _ in range(worlds)],
            conditioning="none",
            autoreset_mode="Disabled",
        )
        start = env.reset(seed=[*range(worlds)] * len(tasks))[0]
        chosen = np.random.default_rng(0).uniform(-1, 1, (steps, worlds, env.action_space.shape[1]))
        seen = []
        for action in chosen:
            result = env.step(np.tile(0.3 * action, (len(tasks), 1)))
            terms = np.stack([result[4][f"reward_{t}"] for t in family.reward_terms], axis=1)
            seen.append(np.concatenate([result[0][:, where] - start[:, where], terms], axis=1))
            if (result[2] | result[3]).any():
                break
        return np.stack(seen, axis=1).reshape(len(tasks), worlds, len(seen), -1)

    for p in family.parameters:
        for value in (p.low, p.high):
            pairs = [
                (task, dataclasses.replace(
                    task, name="changed", number=None, parameters={**task.parameters, p.name: value}
                ))
                for task in family.tasks
                if task.parameters[p.name] != value
            ]  # fmt: skip
            own, changed = np.split(played([a for a, _ in pairs] + [b for _, b in pairs]), 2)
            assert np.abs(changed - own).max() > 1e-3, f"{p.name} = {value}"


def test_without_a_task_every_reset_draws_a_published_one(family: mtenvs.Family) -> None:
    env = gym.make(family.id)
    drawn = [env.reset(seed=0 if i == 0 else None)[1]["task"] for i in range(100)]
    assert set(drawn) == set(range(len(family.tasks)))
    assert drawn == [env.reset(seed=0 if i == 0 else None)[1]["task"] for i in range(100)]
    for _ in range(3):
        number = env.reset()[1]["task"]
        where = env.unwrapped.observation_slices.code
        observation, _, _, _, info = env.step(env.action_space.sample())
        assert info["task"] == number
        np.testing.assert_array_equal(
            observation[where], np.array(family.descriptor(family.tasks[number]), np.float32)
        )


def test_reset_can_choose_a_task_for_good(family: mtenvs.Family) -> None:
    env = gym.make(family.id)
    assert env.reset(seed=0, options={"task": 5})[1]["task"] == 5
    assert [env.reset()[1]["task"] for _ in range(5)] == [5] * 5
    sampled = mtenvs.sample_task(family.name, 3)
    assert env.reset(options={"task": sampled})[1]["task"] == -1
    assert env.unwrapped.task == sampled
    # and it is the same world as one that was made with the task
    options, fixed = gym.make(family.id), gym.make(family.id, task=5)
    options.reset(seed=1, options={"task": 5})
    rest = rollout(options, seed=0)
    assert same(rest, rollout(fixed, seed=0))


def test_spec_round_trips_through_json_with_a_sampled_task(family: mtenvs.Family) -> None:
    env = gym.make(family.id, task=mtenvs.sample_task(family.name, seed=7), conditioning="none")
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert again.unwrapped.task == env.unwrapped.task
    assert same(rollout(env), rollout(again))


def test_a_held_out_task_is_never_met_in_training(family: mtenvs.Family) -> None:
    fold = mtenvs.leave_one_out(family.name)[2]
    env = gym.make_vec(family.id, num_envs=2 * len(fold.sources), tasks=fold.sources, max_episode_steps=4)
    met = set(env.reset(seed=0)[1]["task"])
    for _ in range(12):
        met |= set(env.step(env.action_space.sample())[4]["task"])
    assert met == {t.number for t in fold.sources}
    assert fold.number not in met


# ---- episodes


def test_an_episode_is_truncated_after_its_steps(family: mtenvs.Family) -> None:
    patient = dataclasses.replace(family, terminated=lambda state: state.time < 0)
    env = gym.make(family.id, family=patient, task=0)
    env.reset(seed=0)
    ends = [env.step(np.zeros(env.action_space.shape))[2:4] for _ in range(family.episode_steps)]
    assert ends == [(False, False)] * (family.episode_steps - 1) + [(False, True)]
    seconds = env.unwrapped.data.time
    assert seconds == pytest.approx(
        family.episode_steps * family.frame_skip * env.unwrapped.model.opt.timestep
    )


def test_truncation_may_come_sooner(family: mtenvs.Family) -> None:
    env = gym.make(family.id, task=0, max_episode_steps=3)
    env.reset(seed=0)
    assert [env.step(np.zeros(env.action_space.shape))[3] for _ in range(3)] == [False, False, True]


def test_an_episode_ends_by_a_fall_or_by_the_time_limit(task: mtenvs.Task, env_id: str) -> None:
    """As the family's ``terminated`` says at every step; a fall is no success."""
    env, family = gym.make(env_id, task=task), mtenvs.get_family(task.family)
    env.reset(seed=0)
    for step in range(1, family.episode_steps + 1):
        _, _, terminated, truncated, info = env.step(np.zeros(env.action_space.shape))
        assert terminated == bool(family.terminated(env.unwrapped._state)[0])
        assert info["success"] == bool(family.success(env.unwrapped._state)[0])
        assert not (terminated and info["success"])
        assert truncated == (step == family.episode_steps)
        if terminated or truncated:
            break
    assert terminated == may_fall(family.name)  # bodies that can fall do, where nobody holds them


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_go_on_alike_in_mid_episode(task: mtenvs.Task, env_id: str, duplicate: Any) -> None:
    env = gym.make(env_id, task=task)
    fresh = duplicate(env)  # before any reset
    assert same(rollout(fresh), rollout(gym.make(env_id, task=task)))
    env.reset(seed=0)
    for action in actions(env, 0, 9):
        env.step(action)
    twin = duplicate(env)
    for action in actions(env, 1, STEPS):
        a, b = env.step(action), twin.step(action)
        assert same([a], [b])
        if a[2] or a[3]:
            assert same([env.reset()], [twin.reset()])


def test_a_copy_is_independent(family: mtenvs.Family) -> None:
    env, untouched = gym.make(family.id, task=0), gym.make(family.id, task=0)
    env.reset(seed=0)
    untouched.reset(seed=0)
    twin = copy.deepcopy(env)
    for _ in range(5):
        twin.step(np.ones(env.action_space.shape))
    still = np.zeros(env.action_space.shape)
    assert same([env.step(still)], [untouched.step(still)])


# ---- diverging physics


@pytest.mark.parametrize("bad", [1e20, np.nan])
def test_diverging_physics_ends_the_episode(
    task: mtenvs.Task, env_id: str, bad: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    env = gym.make(env_id, task=task)
    env.reset(seed=0)
    given = env.step(env.action_space.sample())[0]
    last = given.copy()
    given[:] = 7.0  # whoever spoils what was given does not spoil what is given again
    env.unwrapped.data.qvel[:] = bad
    observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    np.testing.assert_array_equal(observation, last)
    assert (reward, terminated, truncated) == (0.0, True, False)
    assert info["physics_diverged"] is True
    assert info["success"] is False
    assert {v for k, v in info.items() if k.startswith("reward_")} == {0.0}
    # the next episode knows nothing of it
    assert same(rollout(env), rollout(gym.make(env_id, task=task)))
    assert list(tmp_path.iterdir()) == []  # no MUJOCO_LOG.TXT


# ---- bad input


def test_unknown_tasks_are_named(family: mtenvs.Family) -> None:
    for task, message in (
        (99, "unknown task number 99; valid tasks of"),
        ("nobody", "unknown task 'nobody'.*; valid tasks of"),
        ({"parameters": {"wings": 2.0}}, "has no parameter 'wings'"),
        ({"parameters": {family.parameters[0].name: 1e9}}, "is 1000000000.0, outside its range"),
    ):
        with pytest.raises(ValueError, match=message):
            gym.make(family.id, task=task)
        env = gym.make(family.id, task=0)
        env.reset(seed=0)
        with pytest.raises(ValueError, match=message):
            env.reset(seed=1, options={"task": task})
        assert env.unwrapped.task == family.tasks[0]


def test_a_bad_seed_leaves_the_task(family: mtenvs.Family) -> None:
    env, twin = gym.make(family.id, task=0), gym.make(family.id, task=0)
    env.reset(seed=0)
    twin.reset(seed=0)
    with pytest.raises(gym.error.Error, match="-1"):
        env.reset(seed=-1, options={"task": 3})
    assert env.unwrapped.task == family.tasks[0]
    assert same([env.reset()], [twin.reset()])


def test_unknown_families_are_named() -> None:
    with pytest.raises(gym.error.NameNotFound, match="Bipde"):
        gym.make("mt/Bipde-v0")
    with pytest.raises(ValueError, match=r"unknown family 'Bipde'.*valid: .*Biped"):
        gym.make("mt/Biped-v0", family="Bipde")


def test_unknown_options_and_render_modes_are_named(family: mtenvs.Family) -> None:
    env = gym.make(family.id, task=0)
    with pytest.raises(ValueError, match=r"unknown reset options \['speed'\]; valid: task"):
        env.reset(options={"speed": 3})
    with pytest.raises(TypeError, match="reset options are a dictionary or None, got 5; valid keys: task"):
        env.reset(options=5)  # type: ignore[arg-type]
    # gymnasium.make appends what it was asked for
    with pytest.raises(
        TypeError, match=r"keyword argument 'tsk' \(did you mean 'task'\?\); valid: family,"
    ):
        gym.make(family.id, tsk=0)
    with pytest.raises(TypeError, match=r"'max_steps' .*'max_episode_steps'.*, max_episode_steps was"):
        gym.make(family.id, max_steps=5)
    with pytest.raises(ValueError, match="width must be a positive integer, got 0"):
        gym.make(family.id, task=0, width=0)
    with (
        pytest.warns(UserWarning, match="render_mode='ansi'"),
        pytest.raises(ValueError, match="unknown render_mode 'ansi'; valid: human, rgb_array"),
    ):
        gym.make(family.id, task=0, render_mode="ansi")


def test_tasks_is_an_argument_of_the_vector_environment(family: mtenvs.Family) -> None:
    with pytest.raises(ValueError, match=r"tasks= is for the native vector environment.*takes task="):
        gym.make(family.id, tasks=[0, 1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda n: np.zeros(n + 1), r"action has shape \(7,\), expected \(6,\)"),
        (lambda n: np.zeros((1, n)), r"action has shape \(1, 6\), expected \(6,\)"),
        (lambda n: 0.5, r"action has shape \(\), expected \(6,\)"),
        (
            lambda n: np.r_[0, 0, np.nan, [0] * (n - 3)],
            r"action\[2\] is nan; actions must be finite numbers",
        ),
        (lambda n: np.r_[[0] * (n - 1), np.inf], r"action\[5\] is inf; actions must be finite"),
        (lambda n: ["left"] * n, r"action must be an array of numbers of shape \(6,\)"),
    ],
)
def test_bad_actions_are_refused_and_change_nothing(make: Any, message: str) -> None:
    env, twin = gym.make("mt/Biped-v0", task=0), gym.make("mt/Biped-v0", task=0)
    env.reset(seed=0)
    twin.reset(seed=0)
    for e in (env, twin):
        e.step(np.full(6, 0.3))
    with pytest.raises(ValueError, match=message):
        env.step(make(6))
    assert same([env.step(np.full(6, 0.1))], [twin.step(np.full(6, 0.1))])


def test_actions_are_clipped(family: mtenvs.Family) -> None:
    a, b = gym.make(family.id, task=0), gym.make(family.id, task=0)
    a.reset(seed=0)
    b.reset(seed=0)
    assert same([a.step(np.full(a.action_space.shape, 7.0))], [b.step(np.ones(a.action_space.shape))])


def test_step_needs_a_reset(family: mtenvs.Family) -> None:
    env = gym.make(family.id, task=0)
    with pytest.raises(gym.error.ResetNeeded):
        env.unwrapped.step(np.zeros(env.action_space.shape))
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros(env.action_space.shape))


def test_physics_is_the_models(family: mtenvs.Family) -> None:
    """The environment is MuJoCo and nothing more: a serial loop gives the same state."""
    env = gym.make(family.id, task=0)
    env.reset(seed=0)
    model = mtenvs.model(family, 0)
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = env.unwrapped.data.qpos, env.unwrapped.data.qvel
    _, acting = present_entries(family, family.tasks[0])
    own = [name in acting for name in family.action_names]
    for action in actions(env, 0, 20):
        env.step(action)
        data.ctrl[:] = action[own]
        for _ in range(family.frame_skip):
            mujoco.mj_step(model, data)
        np.testing.assert_array_equal(env.unwrapped.data.qpos, data.qpos)
        np.testing.assert_array_equal(env.unwrapped.data.qvel, data.qvel)
