"""Vector rewards, next to the scalar ones and through MO-Gymnasium's own wrappers."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from helpers import actions
from mo_gymnasium.wrappers import LinearReward, MOClipReward, MONormalizeReward, MORecordEpisodeStatistics
from mo_gymnasium.wrappers.vector import MORecordEpisodeStatistics as VectorStatistics
from mo_gymnasium.wrappers.vector import MOSyncVectorEnv

import mtenvs
from mtenvs.registry import get_families

NAMES = [*mtenvs.families(), "AllFamilies"]
STEPS = 60


def make(name: str, **options: Any) -> gym.Env[Any, Any]:
    return gym.make(get_families(name).id, **options)


def drawn(env: Any, seed: int = 0, steps: int = STEPS) -> np.ndarray:
    shape = (steps, *env.action_space.shape)
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


# ---- one world


@pytest.mark.parametrize("name", NAMES)
def test_the_vector_holds_the_terms_and_sums_to_the_scalar(name: str) -> None:
    scalar, vector = make(name), mtenvs.vector_reward(make(name))
    assert vector.reward_names == get_families(name).reward_terms
    assert vector.unwrapped.reward_space == vector.reward_space  # type: ignore[attr-defined]
    assert vector.reward_space.shape == (vector.reward_dim,) == (len(vector.reward_names),)
    families = set()
    for episode in range(8):
        options = {"task": 7 * episode % len(get_families(name).tasks)}
        first, _ = scalar.reset(seed=episode, options=options)
        np.testing.assert_array_equal(vector.reset(seed=episode, options=options)[0], first)
        family = scalar.unwrapped.family.of(scalar.unwrapped.task)  # type: ignore[attr-defined]
        families.add(family.name)
        for action in drawn(scalar, steps=8):
            observation, reward, *ends, info = scalar.step(action)
            same, terms, *same_ends, same_info = vector.step(action)
            np.testing.assert_array_equal(same, observation)
            assert (same_ends, same_info) == (ends, info)
            assert vector.reward_space.contains(terms)
            if name == "AllFamilies":  # where the terms stand in another order than the body's own
                assert sum(terms) == pytest.approx(reward, rel=1e-15, abs=1e-16)
            else:
                assert sum(terms) == reward
            for term, value in zip(vector.reward_names, terms, strict=True):
                assert value == (info[f"reward_{term}"] if term in family.reward_terms else 0.0)
            if any(ends):
                break
    assert len(families) == (4 if name == "AllFamilies" else 1)


@pytest.mark.parametrize("name", NAMES)
def test_gymnasiums_checker_minds_nothing_but_that_rewards_are_vectors(name: str) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        check_env(mtenvs.vector_reward(make(name, task=0)), skip_render_check=True)
    rewards = [str(w.message) for w in said if "reward" in str(w.message).replace("VectorReward", "")]
    assert len(rewards) == 1
    assert "The reward returned by `step()` must be a float" in rewards[0]


def test_diverged_physics_earns_nothing_of_any_term() -> None:
    env = mtenvs.vector_reward(make("Biped", task=0))
    env.reset(seed=0)
    env.unwrapped.data.qvel[:] = 1e20  # type: ignore[attr-defined]
    _, terms, terminated, _, info = env.step(np.zeros(env.action_space.shape))
    assert terminated
    assert info["physics_diverged"]
    np.testing.assert_array_equal(terms, np.zeros(2))


def test_the_spec_and_copies_have_vectors_too() -> None:
    env = mtenvs.vector_reward(make("Octopus", task=3))
    env.reset(seed=0)
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    again.reset(seed=0)
    action = drawn(env)[0]
    copies = [pickle.loads(pickle.dumps(env)), copy.deepcopy(env), again]
    expected = env.step(action)[1]
    for other in copies:
        np.testing.assert_array_equal(other.step(action)[1], expected)
        assert other.unwrapped.reward_space == env.reward_space


# ---- one world, through MO-Gymnasium


@pytest.mark.parametrize("name", NAMES)
def test_unit_weights_give_back_the_scalar(name: str) -> None:
    scalar, linear = make(name, task=0), LinearReward(mtenvs.vector_reward(make(name, task=0)))
    scalar.reset(seed=0)
    linear.reset(seed=0)
    for action in drawn(scalar):
        _, reward, *ends, _ = scalar.step(action)
        _, same, *_, info = linear.step(action)
        assert same == pytest.approx(reward, rel=1e-14, abs=1e-15)  # BLAS sums in an order of its own
        assert info["vector_reward"].shape == (len(get_families(name).reward_terms),)
        if any(ends):
            break


def test_weights_choose_what_counts() -> None:
    """Without the effort's weight, standing still and pushing hard earn what their speeds earn."""
    env = LinearReward(mtenvs.vector_reward(make("Biped", task=0)))
    names = env.env.reward_names
    hard = np.ones(env.action_space.shape, np.float32)

    def earned(weights: dict[str, float]) -> tuple[float, dict[str, Any]]:
        env.set_weight(np.array([weights[name] for name in names]))
        env.reset(seed=0)
        _, reward, *_, info = env.step(hard)
        return reward, info

    speed, info = earned({"speed": 1.0, "effort": 0.0})
    assert speed == info["reward_speed"]
    both, info = earned({"speed": 1.0, "effort": 3.0})
    assert both == pytest.approx(info["reward_speed"] + 3.0 * info["reward_effort"])
    assert both < speed


def test_episode_statistics_are_of_every_term() -> None:
    env = MORecordEpisodeStatistics(mtenvs.vector_reward(make("Biped", task=0)), gamma=0.9)
    env.reset(seed=0)
    rewards = []
    for action in drawn(env, steps=500):
        _, reward, terminated, truncated, info = env.step(action)
        rewards.append(reward)
        if terminated or truncated:
            break
    np.testing.assert_allclose(info["episode"]["r"], np.sum(rewards, axis=0), rtol=1e-5)
    discounts = 0.9 ** np.arange(len(rewards))
    np.testing.assert_allclose(info["episode"]["dr"], discounts @ np.array(rewards), rtol=1e-5)


def test_one_term_is_normalised_or_clipped_and_nothing_else() -> None:
    plain = mtenvs.vector_reward(make("Octopus", task=0))
    normal = MONormalizeReward(mtenvs.vector_reward(make("Octopus", task=0)), idx=2)
    clipped = MOClipReward(mtenvs.vector_reward(make("Octopus", task=0)), idx=2, min_r=-0.001, max_r=0.0)
    for env in (plain, normal, clipped):
        env.reset(seed=0)
    for action in drawn(plain):
        expected, given, cut = (env.step(action) for env in (plain, normal, clipped))
        np.testing.assert_array_equal(given[1][:2], expected[1][:2])
        assert given[1][2] != expected[1][2]
        assert cut[1][2] == max(expected[1][2], -0.001)
        assert given[4] == expected[4]  # what wrappers change in place is a vector of their own


def test_mo_gymnasiums_own_vectors_take_it() -> None:
    envs = MOSyncVectorEnv([lambda k=k: mtenvs.vector_reward(make("Biped", task=k)) for k in range(3)])
    ours = mtenvs.vector_reward(
        gym.make_vec("mt/Biped-v0", num_envs=3, tasks=[0, 1, 2], autoreset_mode="NextStep")
    )
    assert envs.reward_space == ours.unwrapped.reward_space  # type: ignore[attr-defined]
    envs.reset(seed=0)
    ours.reset(seed=0)
    for action in actions(ours, 0, STEPS):
        theirs, mine = envs.step(action), ours.step(action)
        np.testing.assert_array_equal(theirs[1], mine[1].astype(np.float32))
        np.testing.assert_array_equal(theirs[0], mine[0])
    envs.close()


# ---- many worlds


@pytest.mark.parametrize("mode", ["SameStep", "NextStep"])
@pytest.mark.parametrize("name", NAMES)
def test_the_vectors_of_many_worlds_sum_to_the_scalars(name: str, mode: str) -> None:
    """Also of worlds whose episode ends, and the next begins, in the step."""
    options: dict[str, Any] = {"num_envs": len(get_families(name).tasks), "autoreset_mode": mode}
    options["max_episode_steps"] = 20
    scalar = gym.make_vec(get_families(name).id, **options)
    envs = mtenvs.vector_reward(gym.make_vec(get_families(name).id, **options))
    assert envs.unwrapped.reward_space.shape == (len(envs.reward_names),)  # type: ignore[attr-defined]
    scalar.reset(seed=0)
    envs.reset(seed=0)
    ends = 0
    for action in actions(scalar, 0, STEPS):
        observations, rewards, terminations, truncations, infos = scalar.step(action)
        same, vectors, *_, same_infos = envs.step(action)
        np.testing.assert_array_equal(same, observations)
        assert set(same_infos) == set(infos)
        assert vectors.shape == (scalar.num_envs, len(envs.reward_names))
        if name == "AllFamilies":
            np.testing.assert_allclose(sum(vectors.T), rewards, rtol=1e-15, atol=1e-16)
        else:
            np.testing.assert_array_equal(sum(vectors.T), rewards)
        ended = terminations | truncations
        ends += ended.sum()
        if ended.any() and mode == "SameStep":
            for k, term in enumerate(envs.reward_names):
                np.testing.assert_array_equal(
                    vectors[ended, k], infos["final_info"][f"reward_{term}"][ended]
                )
            assert np.abs(vectors[ended]).max() > 0
    assert ends >= scalar.num_envs


def test_statistics_of_many_worlds_are_of_every_term() -> None:
    """MO-Gymnasium's statistics know the mode next-step."""
    envs = mtenvs.vector_reward(gym.make_vec("mt/Biped-v0", num_envs=4, autoreset_mode="NextStep"))
    envs = VectorStatistics(envs)
    envs.reset(seed=0)
    totals, checked = np.zeros((4, 2)), 0
    for action in actions(envs, 0, STEPS):
        _, rewards, terminations, truncations, infos = envs.step(action)
        totals += rewards
        ended = terminations | truncations
        if ended.any():
            np.testing.assert_allclose(infos["episode"]["r"][ended], totals[ended], rtol=1e-4, atol=1e-6)
            totals[ended] = 0.0
            checked += 1
    assert checked > 2


# ---- errors


def test_other_environments_are_refused() -> None:
    for env in (gym.make("CartPole-v1"), "mt/Biped-v0"):
        with pytest.raises(TypeError, match=r"needs an environment of mtenvs, got .*(CartPole|Biped)"):
            mtenvs.vector_reward(env)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"around Gymnasium's own vectors it cannot be: .* MOSyncVectorEnv"):
        mtenvs.vector_reward(gym.make_vec("mt/Biped-v0", num_envs=2, vectorization_mode="sync"))


@pytest.mark.parametrize("many", [False, True])
def test_what_is_a_vector_already_is_refused(many: bool) -> None:
    env: Any = gym.make_vec("mt/Biped-v0", num_envs=2) if many else make("Biped")
    wrapper = gym.wrappers.vector.ClipAction if many else gym.wrappers.ClipAction
    with pytest.raises(ValueError, match="is a vector already, of speed, effort"):
        mtenvs.vector_reward(wrapper(mtenvs.vector_reward(env)))


@pytest.mark.parametrize("many", [False, True])
def test_a_wrapper_that_changes_the_reward_belongs_outside(many: bool) -> None:
    base: Any = gym.make_vec("mt/Biped-v0", num_envs=2) if many else make("Biped")
    wrapper = gym.wrappers.vector.TransformReward if many else gym.wrappers.TransformReward
    env = mtenvs.vector_reward(wrapper(base, lambda reward: 10 * reward))
    env.reset(seed=0)
    with pytest.raises(ValueError, match="a wrapper within vector_reward changes the reward"):
        env.step(env.action_space.sample())
