from __future__ import annotations

import copy
import dataclasses
import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import helpers
import mujoco
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from helpers import assert_same, backend_of, may_fall

import mtenvs
from mtenvs.vector_env import TaskVectorEnv

STEPS = 150  # random actions fell a body within 60
MODES = [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP]


def actions(env: gym.vector.VectorEnv, seed: int, steps: int = STEPS) -> np.ndarray:
    return helpers.actions(env, seed, steps)


def rollout(
    env: gym.vector.VectorEnv, seed: Any = 0, action_seed: int = 0, steps: int = STEPS
) -> list[Any]:
    return helpers.rollout(env, steps, seed, action_seed)


def ended(seen: list[Any]) -> int:
    return int(sum((s[2] | s[3]).sum() for s in seen[1:]))


# ---- the same worlds as single environments


@pytest.mark.parametrize("mode", MODES, ids=lambda m: m.name)
@pytest.mark.parametrize("long", [True, False])
def test_native_equals_gymnasiums_own_vector(
    family: mtenvs.Family, mode: AutoresetMode, long: bool
) -> None:
    """All published tasks and two sampled ones, over several episodes, ended by falls and by truncation."""
    # at the family's own length falls alone end an episode, where bodies can fall
    limit = 17 if not long else family.episode_steps if may_fall(family.name) else 60
    tasks = [*family.tasks, *(mtenvs.sample_task(family.name, seed) for seed in (0, 1))]
    native = gym.make_vec(
        family.id, num_envs=len(tasks), tasks=tasks, autoreset_mode=mode, max_episode_steps=limit
    )
    sync = SyncVectorEnv(
        [lambda t=t: gym.make(family.id, task=t, max_episode_steps=limit) for t in tasks],
        autoreset_mode=mode,
    )
    assert native.observation_space == sync.observation_space
    assert native.action_space == sync.action_space
    assert native.metadata["autoreset_mode"] == sync.metadata["autoreset_mode"]
    ours, theirs = rollout(native), rollout(sync)
    assert_same(ours, theirs)
    assert ended(ours) >= 2 * len(tasks)
    assert_same(native.np_random_seed, sync.np_random_seed)


def test_one_world_equals_one_environment(task: mtenvs.Task, env_id: str) -> None:
    """The same without Gymnasium's vector in between: world 2 of a mixed batch, from its own seed."""
    native = gym.make_vec(env_id, num_envs=3, tasks=[0, 1, task], max_episode_steps=40)
    single = gym.make(env_id, task=task, max_episode_steps=40)
    observations, _ = native.reset(seed=[9, 8, 42])
    observation, _ = single.reset(seed=42)
    episodes = 0
    for action in actions(native, 0):
        np.testing.assert_array_equal(observations[2], observation)
        observations, rewards, terminations, truncations, infos = native.step(action)
        observation, reward, terminated, truncated, info = single.step(action[2])
        assert (rewards[2], terminations[2], truncations[2]) == (reward, terminated, truncated)
        last = infos["final_info"] if terminated or truncated else infos
        assert {k: last[k][2] for k in info} == info
        assert all(last[f"_{k}"][2] for k in info)
        if terminated or truncated:
            np.testing.assert_array_equal(infos["final_obs"][2], observation)
            assert not infos["_success"][2]
            observation, _ = single.reset()
            episodes += 1
    assert episodes >= 2


def test_results_do_not_depend_on_threads_or_neighbours(family: mtenvs.Family) -> None:
    tasks = [family.tasks[i % len(family.tasks)] for i in range(24)]
    one, two, many = (
        rollout(gym.make_vec(family.id, num_envs=24, tasks=tasks, num_threads=n), steps=40)
        for n in (1, 2, 0)
    )
    assert_same(one, two)
    assert_same(one, many)
    few = TaskVectorEnv(family.name, num_envs=2, tasks=[tasks[5], tasks[9]])
    observations = [few.reset(seed=[5, 9])[0]]
    env_actions = actions(gym.make_vec(family.id, num_envs=24), 0, 40)
    observations += [few.step(a[[5, 9]])[0] for a in env_actions]
    for alone, among in zip(observations, one, strict=True):
        np.testing.assert_array_equal(alone, among[0][[5, 9]])


@pytest.mark.parametrize("mode", MODES, ids=lambda m: m.name)
def test_several_topologies_step_in_one_environment(mode: AutoresetMode) -> None:
    """Bodies of unequal sizes go to unequal batches, and nobody notices."""
    biped = mtenvs.get_family("Biped")

    def build(p: dict[str, float]) -> mujoco.MjSpec:
        spec = biped.build(p)
        if p["torso_length"] < 0.6:
            spec.body("torso").add_geom(size=[0.05, 0, 0], contype=0, conaffinity=0, pos=[0, 0, 0.2])
        return spec

    hats = dataclasses.replace(biped, build=build)
    n = len(hats.tasks)
    native = TaskVectorEnv(hats, num_envs=n, autoreset_mode=mode)  # type: ignore[arg-type]
    hatted = [t.number for t in hats.tasks if t.parameters["torso_length"] < 0.6]
    plain = [t.number for t in hats.tasks if t.number not in hatted]
    assert hatted[:2] == [1, 5]
    assert [group.worlds.tolist() for group in native._groups] == [plain, hatted]
    sync = SyncVectorEnv(
        [lambda t=t: gym.make("mt/Biped-v0", family=hats, task=t) for t in hats.tasks], autoreset_mode=mode
    )
    ours = rollout(native)
    assert_same(ours, rollout(sync))
    assert not np.array_equal(ours[20][0], rollout(gym.make_vec("mt/Biped-v0", num_envs=n))[20][0])


# ---- seeds and tasks


def test_same_seed_same_trajectory_other_seed_another(family: mtenvs.Family) -> None:
    env = gym.make_vec(family.id, num_envs=4)
    first = rollout(env, seed=0)
    assert_same(first, rollout(env, seed=0))
    assert_same(first, rollout(gym.make_vec(family.id, num_envs=4), seed=[0, 1, 2, 3]))
    assert not np.array_equal(rollout(env, seed=10)[1][0], first[1][0])
    starts = gym.make_vec(family.id, num_envs=4, tasks=[0]).reset(seed=0)[0]
    assert len(np.unique(starts, axis=0)) == 4
    a, b = env.reset()[0], env.reset()[0]
    assert not np.array_equal(a, b)
    unseeded = [gym.make_vec(family.id, num_envs=1).reset()[0] for _ in range(2)]
    assert not np.array_equal(*unseeded)


def test_none_among_seeds_goes_on_with_a_worlds_stream(family: mtenvs.Family) -> None:
    env = gym.make_vec(family.id, num_envs=2, tasks=[0])
    first = env.reset(seed=[3, 4])[0]
    second = env.reset(seed=[None, 4])[0]
    assert not np.array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert env.unwrapped.np_random_seed == (3, 4)


def test_tasks_are_dealt_round_robin_and_stay(family: mtenvs.Family) -> None:
    env = gym.make_vec(family.id, num_envs=7, tasks=[4, family.tasks[1].name, 0], max_episode_steps=5)
    dealt = [4, 1, 0, 4, 1, 0, 4]
    assert env.reset(seed=0)[1]["task"].tolist() == dealt
    assert [t.number for t in env.unwrapped.tasks] == dealt
    for action in actions(env, 0, 14):
        assert env.step(action)[4]["task"].tolist() == dealt


def test_without_tasks_all_the_published_ones_are_dealt(family: mtenvs.Family) -> None:
    n = len(family.tasks)
    env = gym.make_vec(family.id, num_envs=2 * n + 1)
    assert env.reset(seed=0)[1]["task"].tolist() == [*range(n), *range(n), 0]


def test_reset_can_give_worlds_other_tasks(family: mtenvs.Family) -> None:
    env = gym.make_vec(family.id, num_envs=3, tasks=[0])
    env.reset(seed=0)
    env.step(env.action_space.sample())
    sampled = mtenvs.sample_task(family.name, 1)
    for options, tasks in (({"tasks": [1, 5, sampled]}, [1, 5, sampled]), ({"task": 4}, [4, 4, 4])):
        first = env.reset(seed=0, options=options)
        assert first[1]["task"].tolist() == [t if isinstance(t, int) else -1 for t in tasks]
        fresh = gym.make_vec(family.id, num_envs=3, tasks=tasks)
        assert_same([first, *rollout(env, seed=0)[1:]], rollout(fresh, seed=0))


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_gymnasiums_vectorization_modes(family: mtenvs.Family, mode: str) -> None:
    # not forked: a process that has had thousands of worlds can be too large for that
    options = {"context": "spawn"} if mode == "async" else {}
    env = gym.make_vec(family.id, num_envs=2, vectorization_mode=mode, vector_kwargs=options, task=3)
    native = gym.make_vec(family.id, num_envs=2, tasks=[3], autoreset_mode="NextStep")
    assert_same(rollout(env, steps=40), rollout(native, steps=40))
    env.close()
    with pytest.raises(ValueError, match=r"tasks= is for the native vector environment.*SyncVectorEnv\(\["):
        gym.make_vec(family.id, num_envs=2, vectorization_mode=mode, tasks=[0, 1])


def test_spec_round_trips_through_json(family: mtenvs.Family) -> None:
    tasks = [2, mtenvs.sample_task(family.name, 3)]
    env = gym.make_vec(family.id, num_envs=2, tasks=tasks, conditioning="none")
    spec = gym.envs.registration.EnvSpec.from_json(env.spec.to_json())
    assert_same(rollout(gym.make_vec(spec), steps=20), rollout(env, steps=20))


# ---- episodes


def test_truncation_at_the_familys_length(family: mtenvs.Family) -> None:
    patient = dataclasses.replace(family, terminated=lambda state: state.time < 0)
    env = TaskVectorEnv(patient, num_envs=2)  # type: ignore[arg-type]
    env.reset(seed=0)
    still = np.zeros(env.action_space.shape)
    ends = [env.step(still)[2:4] for _ in range(family.episode_steps + 1)]
    assert not any(terminations.any() for terminations, _ in ends)
    truncated = [truncations.tolist() for _, truncations in ends]
    assert truncated == [[False] * 2] * (family.episode_steps - 1) + [[True] * 2, [False] * 2]


def test_elapsed_steps_stagger_the_first_episodes(family: mtenvs.Family) -> None:
    env = gym.make_vec(family.id, num_envs=4, tasks=[0], max_episode_steps=10)
    plain = env.reset(seed=0)[0]
    staggered = env.reset(seed=0, options={"elapsed_steps": np.array([0, 3, 8, 9])})[0]
    np.testing.assert_array_equal(plain, staggered)
    still = np.zeros(env.action_space.shape)
    ends = np.stack([env.step(still)[3] for _ in range(20)])
    first = [10, 7, 2, 1]
    for world, step in enumerate(first):  # steps counted from 1; the later episodes have full length
        assert (np.flatnonzero(ends[:, world]) + 1).tolist() == list(range(step, 21, 10))


@pytest.mark.parametrize("mode", [*MODES, AutoresetMode.DISABLED], ids=lambda m: m.name)
def test_reset_mask_resets_only_its_worlds(family: mtenvs.Family, mode: AutoresetMode) -> None:
    env, twin = (
        gym.make_vec(family.id, num_envs=3, tasks=[0, 1, 2], autoreset_mode=mode) for _ in range(2)
    )
    env.reset(seed=0)
    twin.reset(seed=0)
    for action in 0.1 * actions(env, 0, 3):  # gently: nobody falls yet
        env.step(action)
        before = twin.step(action)[0]
    mask = np.array([False, True, False])
    after, info = env.reset(seed=[7, 7, 7], options={"reset_mask": mask})
    np.testing.assert_array_equal(after[~mask], before[~mask])
    np.testing.assert_array_equal(after[1], gym.make(family.id, task=1).reset(seed=7)[0])
    assert info["_task"].tolist() == mask.tolist()
    for action in 0.1 * actions(env, 1, 3):
        np.testing.assert_array_equal(env.step(action)[0][~mask], twin.step(action)[0][~mask])


def test_the_first_reset_is_of_all_worlds(family: mtenvs.Family) -> None:
    """Else worlds would go on from a state that nobody has started."""
    env, twin = (gym.make_vec(family.id, num_envs=3) for _ in range(2))
    with pytest.raises(ValueError, match=r"first reset is of all worlds: leave out reset_mask, .*\[0, 2\]"):
        env.reset(seed=0, options={"reset_mask": np.array([False, True, False])})
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros(env.action_space.shape))
    assert_same(env.reset(seed=0, options={"reset_mask": np.ones(3, bool)}), twin.reset(seed=0))


def test_disabled_autoreset_asks_for_a_reset(family: mtenvs.Family) -> None:
    env = gym.make_vec(family.id, num_envs=2, tasks=[0], autoreset_mode="Disabled", max_episode_steps=2)
    env.reset(seed=0)
    still = np.zeros(env.action_space.shape)
    env.step(still)
    *_, truncations, infos = env.step(still)
    assert truncations.all()
    assert "final_obs" not in infos
    with pytest.raises(gym.error.ResetNeeded, match=r"episodes of worlds \[0, 1\] have ended"):
        env.step(still)
    env.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(gym.error.ResetNeeded, match=r"episodes of worlds \[1\] have ended"):
        env.step(still)
    env.reset()
    env.step(still)


@pytest.mark.parametrize("mode", MODES, ids=lambda m: m.name)
def test_no_memory_is_shared_between_steps(family: mtenvs.Family, mode: AutoresetMode) -> None:
    def spoil(value: Any) -> None:
        if isinstance(value, dict):
            for v in value.values():
                spoil(v)
        elif isinstance(value, (tuple, list)):
            for v in value:
                spoil(v)
        elif isinstance(value, np.ndarray):
            value[...] = 0 if value.dtype != object else None

    env, twin = (gym.make_vec(family.id, num_envs=8, autoreset_mode=mode) for _ in range(2))
    expected = rollout(twin, steps=80)
    spoil(env.reset(seed=0))
    for action, kept in zip(actions(env, 0, 80), expected[1:], strict=True):
        given = action.copy()
        result = env.step(given)
        np.testing.assert_array_equal(given, action)  # nor is what was passed changed
        assert_same(result, kept)
        spoil(result)
        given[:] = 0


@pytest.mark.parametrize("mode", MODES, ids=lambda m: m.name)
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_go_on_alike_in_mid_episode(
    family: mtenvs.Family, mode: AutoresetMode, duplicate: Any
) -> None:
    limit = 30
    env = gym.make_vec(family.id, num_envs=8, autoreset_mode=mode, max_episode_steps=limit)
    assert_same(rollout(duplicate(env), steps=10), rollout(env, steps=10))  # before any reset
    env.reset(seed=0)
    for action in actions(env, 0, 9):
        env.step(action)
    twin = duplicate(env)
    for action in actions(env, 1, limit):
        seen = env.step(action)
        assert_same(seen, twin.step(action))
        if (seen[2] | seen[3]).any():
            break
    assert (seen[2] | seen[3]).any()
    twin = duplicate(env)  # also between an end and its restart
    for action in actions(env, 2, limit + 5):
        assert_same(env.step(action), twin.step(action))
    assert_same(env.unwrapped.np_random_seed, twin.unwrapped.np_random_seed)


# ---- diverging physics


@pytest.mark.parametrize("bad", [1e20, np.nan])
@pytest.mark.parametrize("mode", MODES, ids=lambda m: m.name)
def test_diverging_physics_ends_the_episode_of_its_world(
    family: mtenvs.Family, mode: AutoresetMode, bad: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    env, twin = (
        gym.make_vec(family.id, num_envs=3, tasks=[0, 1, 2], autoreset_mode=mode) for _ in range(2)
    )
    env.reset(seed=0)
    twin.reset(seed=0)
    still = np.zeros(env.action_space.shape)
    last, undisturbed = env.step(still)[0], twin.step(still)[0]
    backend, place = backend_of(env, 1)
    backend.state.qvel[place] = bad
    observations, rewards, terminations, truncations, infos = env.step(still)
    expected = twin.step(still)
    final = infos["final_info"] if mode == AutoresetMode.SAME_STEP else infos
    assert (rewards[1], terminations[1], truncations[1]) == (0.0, True, False)
    assert final["physics_diverged"].tolist() == [False, True, False]
    assert not final["success"][1]
    assert all(final[f"reward_{t}"][1] == 0.0 for t in family.reward_terms)
    shown = infos["final_obs"][1] if mode == AutoresetMode.SAME_STEP else observations[1]
    np.testing.assert_array_equal(shown, last[1])
    for world in (0, 2):  # the neighbours notice nothing
        np.testing.assert_array_equal(observations[world], expected[0][world])
        assert rewards[world] == expected[1][world]
    if mode == AutoresetMode.NEXT_STEP:
        observations, _, terminations, _, infos = env.step(still)
        assert not terminations.any()
    assert np.isfinite(observations).all()
    single = gym.make(family.id, task=1)  # the second episode of the world's stream
    single.reset(seed=1)
    np.testing.assert_array_equal(observations[1], single.reset()[0])
    assert not env.step(still)[2].any()
    assert np.isfinite(undisturbed).all()
    assert list(tmp_path.iterdir()) == []  # no MUJOCO_LOG.TXT


def test_divergence_at_the_time_limit_is_as_in_a_single_environment(family: mtenvs.Family) -> None:
    native = gym.make_vec(family.id, num_envs=1, tasks=[0], max_episode_steps=2)
    single = gym.make(family.id, task=0, max_episode_steps=2)
    native.reset(seed=0)
    single.reset(seed=0)
    still = np.zeros(single.action_space.shape)
    native.step(still[None])
    single.step(still)
    native.unwrapped._groups[0].backend.state.qvel[:] = 1e20
    single.unwrapped.data.qvel[:] = 1e20
    _, rewards, terminations, truncations, infos = native.step(still[None])
    observation, reward, terminated, truncated, info = single.step(still)
    assert (rewards[0], terminations[0], truncations[0]) == (reward, terminated, truncated)
    assert {k: infos["final_info"][k][0] for k in info} == info
    np.testing.assert_array_equal(infos["final_obs"][0], observation)


# ---- bad input


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_envs": 0}, "num_envs must be a positive integer, got 0"),
        ({"num_envs": 1.5}, "num_envs must be a positive integer, got 1.5"),
        ({"tasks": []}, "tasks is empty; give at least one"),
        ({"tasks": 3}, r"tasks must be a list of tasks, got 3; for one task use \[3\]"),
        ({"tasks": "nominal"}, "tasks must be a list of tasks, got 'nominal'"),
        ({"tasks": [0, 1, 2]}, "3 tasks do not fit into num_envs=2 worlds; use at least one world a task"),
        ({"tasks": [0, 99]}, "unknown task number 99; valid tasks of 'Biped': 0 nominal"),
        ({"task": 3}, r"a vector environment takes tasks=\[...\], a list, instead of task="),
        (
            {"autoreset_mode": "never"},
            "unknown autoreset_mode 'never'; valid: NextStep, SameStep, Disabled",
        ),
        ({"max_episode_steps": 0}, "max_episode_steps must be a positive integer, got 0"),
        ({"max_episode_steps": 2.5}, "max_episode_steps must be a positive integer, got 2.5"),
        ({"num_threads": -3}, "num_threads must be a non-negative integer, got -3"),
        ({"num_threads": True}, "num_threads must be a non-negative integer, got True"),
        ({"width": 0}, "width must be a positive integer, got 0"),
        ({"height": 48.0}, "height must be a positive integer, got 48.0"),
        ({"render_mode": "human"}, "unknown render_mode 'human'; valid: rgb_array"),
    ],
)
def test_bad_arguments_are_named(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gym.make_vec("mt/Biped-v0", **{"num_envs": 2, **kwargs})


@pytest.mark.parametrize(("name", "near"), [("threads", "num_threads"), ("autoreset", "autoreset_mode")])
def test_unknown_arguments_are_named_with_the_valid_ones(name: str, near: str) -> None:
    message = rf"keyword argument '{name}' \(did you mean '{near}'\?\); valid: family, .*, codes$"
    with pytest.raises(TypeError, match=message):
        gym.make_vec("mt/Biped-v0", num_envs=2, **{name: 2})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": [1, 2, 3]}, "3 seeds for 2 worlds; give one each, or an int"),
        ({"options": {"speed": 1}}, r"unknown reset options \['speed'\]; valid: task, tasks, reset_mask"),
        ({"options": {"tasks": [1]}}, "1 tasks for 2 worlds"),
        ({"options": {"task": 99}}, "unknown task number 99; valid tasks of"),
        ({"options": {"tasks": 1}}, "tasks must be a list of tasks, got 1"),
        (
            {"options": {"task": 1, "tasks": [1, 2]}},
            r"either options\['task'\], for all worlds, or options\['tasks'\]",
        ),
        ({"options": {"reset_mask": np.array([True])}}, r"reset_mask must be \(2,\) of bool"),
        ({"options": {"reset_mask": np.array([0, 1])}}, r"reset_mask must be \(2,\) of bool"),
        ({"options": {"reset_mask": np.array([False, False])}}, "with a world to reset"),
        (
            {"options": {"tasks": [1, 2], "reset_mask": np.array([True, False])}},
            "new tasks need all worlds to be reset: leave out reset_mask",
        ),
        ({"options": {"elapsed_steps": np.array([0, 500])}}, r"elapsed_steps must be \(2,\) in \[0, 500\)"),
        ({"options": {"elapsed_steps": np.array([0, -1])}}, r"elapsed_steps must be \(2,\) in \[0, 500\)"),
        (
            {"options": {"elapsed_steps": 3}},
            r"elapsed_steps must be \(2,\) in \[0, 500\), below every world's own limit; got array\(3\)",
        ),
    ],
)
def test_bad_resets_are_named_and_change_nothing(arguments: dict[str, Any], message: str) -> None:
    env, twin = (gym.make_vec("mt/Biped-v0", num_envs=2) for _ in range(2))
    env.reset(seed=0)
    twin.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.reset(**arguments)
    with pytest.raises(TypeError, match="reset options are a dictionary or None, got 5; valid keys: task"):
        env.reset(options=5)  # type: ignore[arg-type]
    still = np.zeros((2, 6))
    assert_same(env.step(still), twin.step(still))
    assert_same(env.reset(), twin.reset())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: np.zeros((2, 7)), r"action has shape \(2, 7\), expected \(2, 6\)"),
        (lambda: np.zeros(6), r"action has shape \(6,\), expected \(2, 6\)"),
        (
            lambda: np.array([[0.0] * 6, [0, 0, 0, np.nan, 0, 0]]),
            r"action\[1, 3\] is nan; actions must be finite",
        ),
        (lambda: np.full((2, 6), -np.inf), r"action\[0, 0\] is -inf; actions must be finite"),
        (lambda: [["left"] * 6] * 2, r"action must be an array of numbers of shape \(2, 6\)"),
    ],
)
def test_bad_actions_are_refused_and_change_nothing(make: Any, message: str) -> None:
    env, twin = (gym.make_vec("mt/Biped-v0", num_envs=2) for _ in range(2))
    env.reset(seed=0)
    twin.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.step(make())
    assert_same(env.step(np.zeros((2, 6))), twin.step(np.zeros((2, 6))))


def test_actions_are_clipped(family: mtenvs.Family) -> None:
    a, b = (gym.make_vec(family.id, num_envs=2) for _ in range(2))
    a.reset(seed=0)
    b.reset(seed=0)
    assert_same(a.step(np.full(a.action_space.shape, -7.0)), b.step(-np.ones(a.action_space.shape)))


@pytest.mark.parametrize("seed", [-1, [3, -1]])
@pytest.mark.parametrize("options", [{"task": 3}, {"tasks": [3, 2]}, {}])
def test_a_bad_seed_changes_nothing(family: mtenvs.Family, seed: Any, options: dict[str, Any]) -> None:
    env, twin = (gym.make_vec(family.id, num_envs=2, tasks=[0, 1]) for _ in range(2))
    env.reset(seed=0)
    twin.reset(seed=0)
    with pytest.raises(gym.error.Error, match="-1"):
        env.reset(seed=seed, options=options)
    assert env.unwrapped.tasks == twin.unwrapped.tasks
    still = np.zeros(env.action_space.shape)
    assert_same(env.step(still), twin.step(still))
    assert_same(env.reset(), twin.reset())


def test_looking_at_the_streams_starts_no_episode(family: mtenvs.Family) -> None:
    env = gym.make_vec(family.id, num_envs=2)
    assert len(env.unwrapped.np_random) == len(env.unwrapped.np_random_seed) == 2
    with pytest.raises(gym.error.ResetNeeded, match="call reset"):
        env.step(np.zeros(env.action_space.shape))
    copied = copy.deepcopy(env)
    with pytest.raises(gym.error.ResetNeeded, match="call reset"):
        copied.step(np.zeros(env.action_space.shape))


def test_step_needs_a_reset(family: mtenvs.Family) -> None:
    env = gym.make_vec(family.id, num_envs=2)
    with pytest.raises(gym.error.ResetNeeded, match="call reset"):
        env.step(np.zeros(env.action_space.shape))


def test_a_closed_environment_says_so() -> None:
    env = gym.make_vec("mt/Biped-v0", num_envs=2)
    env.reset(seed=0)
    env.close()
    env.close()  # twice is no mistake
    for use in (env.reset, env.render, lambda: env.step(np.zeros(env.action_space.shape))):
        with pytest.raises(gym.error.ClosedEnvironmentError, match="was closed"):
            use()


def test_worlds_may_be_told_another_code(family: mtenvs.Family) -> None:
    """Nothing but the code differs, through resets and new tasks and in a copy."""
    kwargs: dict[str, Any] = {"num_envs": 3, "tasks": [0, 1, 2], "max_episode_steps": 4}
    size = len(family.parameters)
    codes = np.arange(3 * size, dtype=np.float32).reshape(3, size)
    plain, told = TaskVectorEnv(family.name, **kwargs), TaskVectorEnv(family.name, codes=codes, **kwargs)
    code = plain.observation_slices.code
    actions = np.zeros((3, plain.num_actions))

    def compare(ours: np.ndarray, theirs: np.ndarray) -> None:
        np.testing.assert_array_equal(ours[:, code], codes)
        np.testing.assert_array_equal(np.delete(ours, np.r_[code], 1), np.delete(theirs, np.r_[code], 1))

    compare(told.reset(seed=0)[0], plain.reset(seed=0)[0])
    told = pickle.loads(pickle.dumps(told))
    for _ in range(6):
        compare(told.step(actions)[0], plain.step(actions)[0])
    new = {"tasks": [2, 1, 0]}
    compare(told.reset(seed=1, options=new)[0], plain.reset(seed=1, options=new)[0])
    with pytest.raises(ValueError, match=rf"codes have shape \(2, 1\), expected \(3, {size}\)"):
        TaskVectorEnv(family.name, codes=np.zeros((2, 1)), **kwargs)
