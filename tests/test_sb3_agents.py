"""Agents of Stable-Baselines3: step counts, random streams, checkpoints, normalising, RL2's trials."""

from __future__ import annotations

import copy
import functools
import gc
import math
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import VecEnv

from baselines import sb3
from baselines.checkpoint import load_checkpoint, save_checkpoint
from baselines.learner import Start
from baselines.registry import AGENTS, describe_learner, find_agent, load_policy, make_learner, scaled
from mtenvs.vector_env import TaskVectorEnv

ON_POLICY = {"n_steps": 8, "batch_size": 16, "hidden": [8, 8]}
OFF_POLICY = {
    "learning_starts": 16,
    "batch_size": 16,
    "buffer_size": 400,
    "gradient_steps": 1,
    "hidden": [8, 8],
}
SMALL: dict[str, dict[str, Any]] = {
    "sb3:ppo": {**ON_POLICY, "n_epochs": 2},
    "sb3:trpo": {**ON_POLICY, "n_critic_updates": 2, "cg_max_steps": 3},
    "sb3:recurrentppo": {**ON_POLICY, "n_epochs": 2},
    "sb3:sac": OFF_POLICY,
    "sb3:td3": OFF_POLICY,
    "sb3:tqc": OFF_POLICY,
}
NORMALISING = ("sb3:ppo", "sb3:trpo", "sb3:recurrentppo")
OFF_POLICY_AGENTS = ("sb3:sac", "sb3:td3", "sb3:tqc")
WORLDS = 4
every = pytest.mark.parametrize("name", SMALL)


def worlds(family: str = "Biped", num_envs: int = WORLDS, **options: Any) -> TaskVectorEnv:
    options = {"tasks": [0, 1], "max_episode_steps": 6, "num_threads": 1, **options}
    return TaskVectorEnv(family, num_envs=num_envs, **options)


def agent(name: str, envs: TaskVectorEnv, seed: int = 0, **changes: Any) -> sb3.SB3Agent:
    described = describe_learner(name, envs.family.name, {**SMALL[name], **changes})
    learner = make_learner(name, described.config, envs, [seed])
    assert isinstance(learner, sb3.SB3Agent)
    return learner


def trained(
    name: str, seed: int = 0, steps: int = 64, envs: TaskVectorEnv | None = None, **changes: Any
) -> sb3.SB3Agent:
    envs = worlds() if envs is None else envs
    learner = agent(name, envs, seed, **changes)
    assert learner.train(envs, steps) == steps
    return learner


def tensors(learner: sb3.SB3Agent) -> dict[str, torch.Tensor]:
    return {name: torch.as_tensor(value).clone() for name, value in learner.state().items()}


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=0, msg=name)


def observations(envs: TaskVectorEnv, seed: int = 9) -> np.ndarray:
    return envs.reset(seed=seed)[0]


@functools.cache
def learned(name: str, **changes: Any) -> sb3.SB3Agent:
    """One for all tests that only read it."""
    return trained(name, **changes)


@pytest.fixture(autouse=True)
def buffers_are_freed() -> Iterator[None]:
    """Frees what only refers to itself after every test: replay buffers reserve a gigabyte each."""
    yield
    gc.collect()


@pytest.fixture
def saved(name: str, tmp_path: Path) -> Path:
    """Its checkpoint."""
    learned(name).save(0, tmp_path)
    return tmp_path


def test_every_agent_is_tested() -> None:
    assert set(SMALL) == {name for name in AGENTS if name.startswith("sb3:")}


# ---- the interface


@every
def test_it_trains_exactly_as_many_steps_as_asked(name: str) -> None:
    envs = worlds()
    learner = agent(name, envs)
    rollout = describe_learner(name, "Biped", SMALL[name]).rollout * WORLDS
    assert learner.updates() == 0
    counted: list[int] = []
    for until in (rollout, 4 * rollout, 4 * rollout):
        assert learner.train(envs, until, counted.append) == until == envs.steps_taken
    assert counted == [rollout, 3 * rollout]
    other = worlds(tasks=[2])
    assert learner.train(other, 5 * rollout) == 5 * rollout
    assert (envs.steps_taken, other.steps_taken) == (4 * rollout, rollout)
    assert not learner.diverged().any()


# rollouts of 32 samples are 2 minibatches; an off-policy agent does nothing for its first 16 steps, 4 of
# all worlds, and an update after each of the remaining 12
@pytest.mark.parametrize(
    ("name", "updates"),
    [
        ("sb3:ppo", 2 * 2 * 2),
        ("sb3:recurrentppo", 2 * 2 * 2),
        ("sb3:trpo", 2 * (1 + 2 * 2)),
        ("sb3:sac", 12),
        ("sb3:td3", 12),
        ("sb3:tqc", 12),
    ],
)
def test_updates_are_minibatches(name: str, updates: int) -> None:
    assert learned(name).updates() == updates


@every
def test_parameters_are_those_that_learn_and_can_be_scaled(name: str) -> None:
    envs = worlds()
    learner = agent(name, envs)
    policy = learner._model.policy
    copies = sum(
        p.numel() for part in ("critic_target", "actor_target") for p in parameters_of(policy, part)
    )
    assert learner.describe()["parameters"] == sum(p.numel() for p in policy.parameters()) - copies
    wider = scaled(name, SMALL[name], envs, 4 * learner.describe()["parameters"])
    assert wider["hidden"][0] > 8
    found = make_learner(name, wider, envs, [0]).describe()["parameters"]
    assert found == pytest.approx(4 * learner.describe()["parameters"], rel=0.2)


def parameters_of(policy: Any, part: str) -> list[torch.Tensor]:
    return list(getattr(policy, part).parameters()) if hasattr(policy, part) else []


@every
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": []}, r"hidden must list the units of a layer at least, got \[\]"),
        ({"hidden": [8, 0]}, r"hidden\[1\] must be a whole number, at least 1, got 0"),
        ({"hidden": [8.0]}, r"hidden\[0\] must be a whole number, at least 1, got 8.0"),
        ({"batch_size": 1}, "batch_size must be a whole number, at least 2, got 1"),
        ({"gamma": 1.5}, "gamma must be a number, at least 0 and at most 1, got 1.5"),
        ({"learning_rate": 0}, "learning_rate must be a number, above 0, got 0"),
    ],
)
def test_bad_sizes_are_refused(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"agent {name}: {message}"):
        agent(name, worlds(), **changes)


AUTO = 'a number, above 0, or "auto", or, to be learned from 0.1 on, "auto_0.1"'


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("sb3:ppo", {"ent_coef": -0.1}, "ent_coef must be a number, at least 0, got -0.1"),
        ("sb3:ppo", {"ent_coef": math.inf}, "ent_coef must be a number, at least 0, got inf"),
        ("sb3:ppo", {"gae_lambda": math.nan}, "gae_lambda must be a number, .* at most 1, got nan"),
        ("sb3:ppo", {"gamma": "0.9"}, "gamma must be a number, .* at most 1, got '0.9'"),
        ("sb3:ppo", {"normalize_reward": 1}, "normalize_reward must be true or false, got 1"),
        ("sb3:ppo", {"n_epochs": True}, "n_epochs must be a whole number, at least 1, got True"),
        ("sb3:ppo", {"n_steps": 8.0}, "n_steps must be a whole number, at least 2, got 8.0"),
        ("sb3:ppo", {"hidden": None}, "hidden must list .*, got None"),
        ("sb3:sac", {"tau": 0.0}, "tau must be a number, above 0 and at most 1, got 0.0"),
        ("sb3:sac", {"gradient_steps": -2}, "gradient_steps must be -1, .* at least 1, got -2"),
        ("sb3:tqc", {"top_quantiles_to_drop_per_net": 25}, "must be .*at least 0 and at most 24, got 25"),
        *(("sb3:tqc", {"ent_coef": c}, f"ent_coef must be {AUTO}, got {c!r}") for c in (0, -1.0, "autto")),
        *(("sb3:sac", {"ent_coef": c}, f"ent_coef must be {AUTO}, got {c!r}") for c in ("auto_0", "0.2")),
    ],
)
def test_hyperparameters_are_of_the_kind_of_the_default_and_in_range(
    name: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"agent {name}: .*{message}"):
        make_learner(name, {**SMALL[name], **changes}, worlds(), [0])


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("sb3:ppo", {"ent_coef": 0, "vf_coef": 0, "gamma": 1, "gae_lambda": 0}),
        ("sb3:td3", {"action_noise_std": 0, "gradient_steps": -1, "learning_starts": 0}),
        ("sb3:tqc", {"top_quantiles_to_drop_per_net": 0, "ent_coef": 1}),
        ("sb3:sac", {"ent_coef": "auto_0.5"}),
    ],
)
def test_zero_and_whole_numbers_are_taken_where_they_make_sense(name: str, changes: dict[str, Any]) -> None:
    envs = worlds()
    learner = make_learner(name, {**SMALL[name], **changes}, envs, [0])
    learner.train(envs, 32)
    assert learner.describe()["updates"] > 0
    assert not learner.diverged().any()


@every
def test_a_normaliser_is_offered_where_there_is_one(name: str, tmp_path: Path) -> None:
    for normalising in (True, False):
        one = agent(name, worlds(), normalize_observation=normalising)
        assert ("normalizer" in type(one).offers(one.config)) == normalising
        one.save(0, tmp_path / str(normalising))
        if normalising:
            one.load(0, tmp_path / "True", Start(part="normalizer"))
            continue
        with pytest.raises(ValueError, match=f"agent {name} cannot start with normalizer; it offers "):
            one.load(0, tmp_path / "False", Start(part="normalizer"))
    assert find_agent(name).offers(SMALL[name] | {"normalize_observation": True}) == {  # type: ignore
        "normalizer",
        "shuffled",
        "keep_optimizer",
    }


@pytest.mark.parametrize("name", ["sb3:ppo", "sb3:sac"])
def test_worlds_of_another_conditioning_are_refused(name: str) -> None:
    learner = agent(name, worlds())
    with pytest.raises(ValueError, match=r"'conditioning': 'none'.*do not suit an agent"):
        learner.train(worlds(conditioning="none"), 32)


# ---- random streams


@every
def test_equal_seeds_give_equal_results_whatever_happens_around(name: str) -> None:
    first = tensors(learned(name))

    random.seed(5)
    np.random.seed(6)  # noqa: NPY002
    torch.manual_seed(7)
    envs, other = worlds(), worlds()
    learner, neighbour = agent(name, envs), agent(name, other, 4)
    fresh, others = tensors(learner), tensors(neighbour)
    weights = [key for key in fresh if key.endswith(("0.weight", "ih_l0"))]
    assert len(weights) >= 2
    assert not any(torch.equal(fresh[key], others[key]) for key in weights)
    globally = random.getstate(), copy.deepcopy(np.random.get_state()), torch.get_rng_state()  # noqa: NPY002
    learner.train(envs, 32)
    neighbour.train(other, 32)
    learner.evaluate(other, range(WORLDS))
    learner.train(envs, 64)
    assert_equal(tensors(learner), first)
    assert random.getstate() == globally[0]
    np.testing.assert_equal(np.random.get_state(), globally[1])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), globally[2])


def test_two_agents_of_the_same_worlds_have_streams_of_their_own() -> None:
    envs = worlds()
    learner, _ = agent("sb3:sac", envs), agent("sb3:sac", envs, 4)
    learner.train(envs, 64)
    assert_equal(tensors(learner), tensors(learned("sb3:sac")))


@every
def test_an_evaluation_on_the_training_worlds_starts_them_afresh(name: str) -> None:
    envs = worlds()
    learner = trained(name, steps=32, envs=envs)
    resets: list[Any] = []
    reset = envs.reset
    envs.reset = lambda **kwargs: resets.append(kwargs) or reset(**kwargs)  # type: ignore
    learner.train(envs, 64)
    assert not resets
    learner.evaluate(envs, range(WORLDS))
    learner.train(envs, 96)
    assert len(resets) == 2
    assert resets[1]["options"]["elapsed_steps"].max() > 0  # staggered


@every
def test_another_number_of_worlds_goes_on_with_what_was_learned(name: str) -> None:
    learner = trained(name)
    before, updates = tensors(learner), learner.updates()
    wider = worlds(num_envs=6)
    learner._enter(wider)
    assert_equal(before, tensors(learner))
    rollout = 6 * describe_learner(name, "Biped", SMALL[name]).rollout
    assert learner.train(wider, 64 + rollout) == 64 + rollout
    # no warming up again
    assert learner.updates() > updates


# ---- checkpoints


@every
def test_a_loaded_agent_acts_alike(name: str, saved: Path) -> None:
    learner = learned(name)
    assert {path.suffix for path in saved.iterdir()} == {".safetensors", ".json"}
    envs = worlds()
    loaded = agent(name, envs, seed=1)
    seen = observations(envs)
    learner.begin()
    expected = learner.act(seen)
    assert not np.array_equal(loaded.act(seen), expected)
    loaded = agent(name, envs, seed=1)
    loaded.load(0, saved)
    np.testing.assert_array_equal(loaded.act(seen), expected)
    assert not any(key.startswith("optimizer.") for key in tensors(loaded))

    played, again = (one.evaluate(envs, range(WORLDS)) for one in (learner, loaded))
    np.testing.assert_array_equal(played.returns, again.returns)
    assert (played.lengths == 6).all()

    policy = load_policy(saved, "Biped")
    loaded.begin()
    np.testing.assert_array_equal(policy.act(seen[:1]), loaded.act(seen[:1]))


def test_strange_checkpoints_are_refused(tmp_path: Path) -> None:
    learned("sb3:ppo").save(0, tmp_path)
    for strange, message in (
        (agent("sb3:ppo", worlds("DMWalker")), "has family = 'mt/Biped-v0'"),
        (agent("sb3:ppo", worlds(conditioning="none")), "has conditioning = 'descriptor'"),
        (agent("sb3:trpo", worlds()), "has learner = 'sb3:ppo'"),
        (agent("sb3:ppo", worlds(), hidden=[9, 8]), r"has hidden = \[8, 8\], this learner needs \[9, 8\]"),
        (agent("sb3:ppo", worlds(), normalize_reward=False), "has normalize_reward = True"),
    ):
        with pytest.raises(ValueError, match=message):
            strange.load(0, tmp_path)


@pytest.mark.parametrize("name", ["sb3:sac", "sb3:tqc"])
def test_a_learned_entropy_coefficient_is_handed_on(name: str, saved: Path) -> None:
    before = tensors(learned(name))["log_ent_coef"]
    assert before != 0.0  # where it began
    loaded = agent(name, worlds())
    loaded.load(0, saved)
    assert tensors(loaded)["log_ent_coef"] == before
    fixed: Any = make_learner(name, {**SMALL[name], "ent_coef": 0.2}, worlds(), [0])
    fixed.load(0, saved)
    assert fixed._model.ent_coef_tensor == pytest.approx(0.2)
    assert "log_ent_coef" not in tensors(fixed)
    fixed.save(0, saved / "fixed")
    loaded.load(0, saved / "fixed")
    assert tensors(loaded)["log_ent_coef"] == 0.0  # there is none to take over


@every
@pytest.mark.parametrize("part", ["all", "normalizer", "shuffled"])
def test_a_load_sets_everything_whatever_was_trained_before(name: str, part: str, tmp_path: Path) -> None:
    options = {"normalize_observation": True}
    learned(name, **options).save(0, tmp_path)
    envs = worlds()
    used, fresh = trained(name, 3, envs=envs, **options), agent(name, envs, 3, **options)
    for one in (used, fresh):
        one.load(0, tmp_path, Start(part=part))
    assert_equal(tensors(used), tensors(fresh))
    resets: list[None] = []
    reset = envs.reset
    envs.reset = lambda **kwargs: resets.append(None) or reset(**kwargs)  # type: ignore
    before = used.updates()
    used.train(envs, 64 + 16)
    assert resets
    if name in OFF_POLICY_AGENTS:
        model: Any = used._model
        # an empty buffer fills before anything is learned, with what was handed over, if anything was
        assert (used.updates(), model.replay_buffer.pos) == (before, 4)
        assert model.handed_over == (part != "normalizer")


@pytest.mark.parametrize("name", ["sb3:recurrentppo", "sb3:sac"])
@pytest.mark.parametrize(
    ("lost", "start"),
    [
        ("policy.", Start()),
        ("normalizer.mean", Start(part="normalizer")),
        ("normalizer.var", Start(part="shuffled")),
        ("optimizer.", Start(keep_optimizer=True)),
    ],
)
@pytest.mark.parametrize("how", ["missing", "misshapen"])
def test_damage_is_named(name: str, lost: str, start: Start, how: str, tmp_path: Path) -> None:
    whole = learned(name, normalize_observation=True)
    state = tensors(whole)
    key = next(k for k in state if k.startswith(lost) and state[k].numel() > 1)
    value = state.pop(key)
    if how == "misshapen":
        state[key] = value.flatten()[1:].clone()
    save_checkpoint(tmp_path, state, {**whole._facts(), "config": whole.config})
    reason = f"it has no {key}" if how == "missing" else rf"{key} has shape \(\d+,\), this agent needs \("
    other = agent(name, worlds(), seed=1, normalize_observation=True)
    before = tensors(other)
    with pytest.raises(ValueError, match=f"checkpoint {tmp_path} is damaged: {reason}"):
        other.load(0, tmp_path, start)
    assert_equal(tensors(other), before)
    if start == Start():
        with pytest.raises(ValueError, match=f"checkpoint {tmp_path} is damaged: {reason}"):
            load_policy(tmp_path, "Biped")


@every
def test_the_optimiser_is_kept_on_request(name: str, saved: Path) -> None:
    envs = worlds()
    loaded = agent(name, envs, seed=1)
    loaded.load(0, saved, Start(keep_optimizer=True))
    assert_equal(tensors(loaded), tensors(learned(name)))
    loaded.train(envs, 32)


@every
def test_shuffled_keeps_the_entries_of_every_array_and_their_order_nowhere(name: str, saved: Path) -> None:
    envs = worlds()
    loaded = agent(name, envs, seed=1)
    loaded.load(0, saved, Start(part="shuffled"))
    before, after = tensors(learned(name)), tensors(loaded)
    for key, value in after.items():
        weights = key.startswith("policy.") and key != "policy.log_std"
        assert torch.equal(value.flatten().sort()[0], before[key].flatten().sort()[0])
        assert torch.equal(value, before[key]) != (weights and value.numel() > 4), key
    if name in ("sb3:sac", "sb3:td3"):  # a target is still near to what it is the target of
        one, other = (after[f"policy.{part}.qf0.0.weight"] for part in ("critic", "critic_target"))
        torch.testing.assert_close(one, other, rtol=0, atol=0.1)
    again = agent(name, envs, seed=2)
    again.load(0, saved, Start(part="shuffled"))
    key = next(k for k in after if k.endswith("0.weight") or k.endswith("ih_l0"))
    assert not torch.equal(tensors(again)[key], after[key])


@pytest.mark.parametrize("name", NORMALISING)
def test_the_normaliser_alone(name: str, saved: Path) -> None:
    loaded = agent(name, worlds(), seed=1)
    fresh = tensors(loaded)
    loaded.load(0, saved, Start(part="normalizer"))
    wanted = {key: value for key, value in tensors(learned(name)).items() if key.startswith("normalizer.")}
    assert len(wanted) == 3
    assert_equal(tensors(loaded), {**fresh, **wanted})


@pytest.mark.parametrize("name", OFF_POLICY_AGENTS)
def test_what_was_handed_over_acts_while_the_buffer_fills(name: str, saved: Path) -> None:
    loaded = agent(name, worlds(), seed=1)
    loaded.load(0, saved)
    drawn: list[None] = []
    for one, chance in ((loaded, 0), (agent(name, worlds(), seed=1), 16)):
        space = one._model.action_space
        sample = space.sample
        space.sample = lambda sample=sample: drawn.append(None) or sample()  # type: ignore
        drawn.clear()
        one.train(worlds(), 16)
        assert (len(drawn), one.updates()) == (chance, 0)


@every
def test_bad_numbers_end_a_run_as_diverged(name: str, tmp_path: Path) -> None:
    envs = worlds()
    learner = (
        agent(name, envs, learning_starts=0) if "learning_starts" in SMALL[name] else agent(name, envs)
    )
    learner.train(envs, 32)
    with torch.no_grad():
        for parameter in learner._model.policy.parameters():
            parameter.fill_(torch.nan)
    learner.train(envs, 64)
    assert learner.diverged().tolist() == [True]
    assert (learner.evaluate(worlds(), range(WORLDS)).lengths == 0).all()
    learner.save(0, tmp_path)
    with pytest.raises(ValueError, match="not finite"):
        load_checkpoint(tmp_path, {})


# ---- observations


def zero_columns(learner: sb3.SB3Agent) -> list[np.ndarray]:
    """Of every first layer, which inputs have no weight."""
    weights = sb3.first_weights(learner._model.policy)
    return [np.flatnonzero((weight == 0).all(dim=0).numpy()) for weight in weights]


@every
def test_masks_and_codes_enter_at_zero_weight_and_are_learned(name: str) -> None:
    envs = worlds("Octopus", conditioning="one_hot", tasks=[0, 5])
    told = np.arange(envs.observation_slices.mask.start, envs.observation_slices.code.stop)
    assert len(told)
    learner = agent(name, envs)
    found = zero_columns(learner)
    assert len(found) >= 2  # of an actor and of a critic
    for columns in found:
        np.testing.assert_array_equal(columns, told)
    learner.train(envs, 64)
    assert any(len(columns) < len(told) for columns in zero_columns(learner))


@every
def test_networks_of_a_body_with_as_many_inputs_as_units(name: str) -> None:
    """Only first layers are touched, also where a second one has the same shape."""
    envs = worlds()
    size = envs.observation_slices.size
    learner = agent(name, envs, hidden=[size, size])
    weights = [p for n, p in learner._model.policy.named_parameters() if p.ndim == 2]
    first = {id(w) for w in sb3.first_weights(learner._model.policy)}
    assert all((w == 0).all(dim=0).any() == (id(w) in first) for w in weights)


@pytest.mark.parametrize("name", NORMALISING)
def test_only_the_bodys_own_entries_are_normalised(name: str) -> None:
    envs = worlds("Octopus", tasks=[0, 5])
    learner = trained(name, envs=envs)
    slices = envs.observation_slices
    seen = observations(envs)
    extra = learner._model.observation_space.shape[0] - slices.size  # type: ignore[index]
    seen = np.concatenate([seen, np.full((len(seen), extra), 7.0, np.float32)], axis=1)
    before = seen.copy()
    inputs = learner._inputs(seen)
    np.testing.assert_array_equal(seen, before)
    np.testing.assert_array_equal(inputs[:, slices.mask.start :], seen[:, slices.mask.start :])
    assert inputs.dtype == np.float32
    env = learner._model.get_vec_normalize_env()
    assert isinstance(env, sb3.NormalizedWorlds)
    moments = env.obs_rms
    assert isinstance(moments, sb3.BodyMoments)
    present = moments.present(seen).astype(bool)
    assert not present.all()
    assert (inputs[:, slices.body][~present] == 0).all()
    expected = (seen[:, slices.body] - moments.mean) / np.sqrt(moments.var + 1e-8)
    np.testing.assert_allclose(inputs[:, slices.body][present], expected.clip(-10, 10)[present], rtol=1e-5)
    # the world's observations are given back, within the clipping
    back = env.unnormalize_obs(learner._inputs(seen))
    near = np.abs(expected) < 10
    np.testing.assert_allclose(back[:, slices.body][near], seen[:, slices.body][near], atol=1e-4)


def test_statistics_are_of_the_entries_that_are_there() -> None:
    envs = worlds("Octopus", tasks=[0, 5])
    moments = sb3.BodyMoments(envs.encoding)
    first, second = observations(envs, 1), observations(envs, 2)
    for batch in (first, second):
        moments.update(batch)
    both = np.concatenate([first, second])
    body, present = both[:, envs.observation_slices.body], moments.present(both).astype(bool)
    assert 0 < present.mean() < 1
    for k in range(body.shape[1]):
        values = body[present[:, k], k].astype(np.float64)
        # the first 1e-4 of an observation is a prior of mean 0 and variance 1
        assert moments.count[k] == pytest.approx(len(values) + 1e-4)  # type: ignore[index]
        if len(values):
            assert moments.mean[k] == pytest.approx(values.mean(), abs=1e-3)
            assert moments.var[k] == pytest.approx(values.var(), abs=1e-3)
        else:
            assert (moments.mean[k], moments.var[k]) == (0.0, 1.0)


def test_evaluating_leaves_the_statistics_alone() -> None:
    learner, envs = learned("sb3:ppo"), worlds()
    before = tensors(learner)
    learner.evaluate(envs, range(WORLDS))
    learner.act(observations(envs))
    assert_equal(before, tensors(learner))


def test_rewards_are_scaled_on_request_alone() -> None:
    env = agent("sb3:ppo", worlds())._model.get_vec_normalize_env()
    assert env is not None
    assert env.norm_reward
    assert agent("sb3:sac", worlds())._model.get_vec_normalize_env() is None
    both = {"normalize_observation": True, "normalize_reward": False}
    learner = trained("sb3:sac", **both)
    assert {"normalizer.mean"} < set(tensors(learner))
    assert "returns.mean" not in tensors(learner)


# ---- RL2


class Script(VecEnv):
    """Two worlds: in the first, episodes are truncated after 2 steps, in the second terminated after 3."""

    def __init__(self) -> None:
        from gymnasium.spaces import Box

        super().__init__(2, Box(-np.inf, np.inf, (1,), np.float32), Box(-1, 1, (1,), np.float32))

    def reset(self) -> np.ndarray:
        self.t = np.zeros(2, int)
        return self.t[:, None].astype(np.float32)

    def step_async(self, actions: np.ndarray) -> None:
        pass

    def step_wait(self) -> Any:
        self.t += 1
        dones = self.t >= [2, 3]
        infos: list[dict[str, Any]] = [{}, {}]
        for i in np.flatnonzero(dones):
            last = self.t[i : i + 1].astype(np.float32)
            infos[i] = {"terminal_observation": last, "TimeLimit.truncated": i == 0, "task": int(i)}
        rewards = np.array([10.0, 20.0], np.float32) + self.t
        self.t[dones] = 0
        return self.t[:, None].astype(np.float32), rewards, dones, infos

    def close(self) -> None: ...
    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [None, None]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None: ...
    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        return []

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False, False]


def test_trials_by_hand() -> None:
    envs = sb3.Trials(Script(), episodes=2)
    assert envs.observation_space.shape == (1 + 1 + 2,)
    np.testing.assert_array_equal(envs.reset(), [[0, 0, 0, 0]] * 2)
    seen = []
    for step in range(1, 7):
        action = np.array([[0.1 * step], [-0.1 * step]], np.float32)
        seen.append(envs.step(action))
    # observation, previous action, its reward, whether it ended an episode
    first = [
        [1, 0.1, 11, 0],
        [0, 0.2, 12, 1],  # an episode has ended, the trial goes on
        [1, 0.3, 11, 0],
        [0, 0, 0, 0],  # the trial has ended: nothing is known of it any more
        [1, 0.5, 11, 0],
        [0, 0.6, 12, 1],
    ]
    second = [
        [1, -0.1, 21, 0],
        [2, -0.2, 22, 0],
        [0, -0.3, 23, 1],
        [1, -0.4, 21, 0],
        [2, -0.5, 22, 0],
        [0, 0, 0, 0],
    ]
    found = np.stack([observation for observation, *_ in seen], axis=1)
    np.testing.assert_allclose(found, [first, second], rtol=1e-6)
    np.testing.assert_array_equal(
        [dones for _, _, dones, _ in seen],
        [[0, 0], [0, 0], [0, 0], [1, 0], [0, 0], [0, 1]],
    )
    np.testing.assert_array_equal(
        [rewards for _, rewards, _, _ in seen], [[11, 21], [12, 22], [11, 23], [12, 21], [11, 22], [12, 23]]
    )
    infos = [info for _, _, _, info in seen]
    ends = {
        (t, i): infos[t][i] for t in range(6) for i in range(2) if "terminal_observation" in infos[t][i]
    }
    assert set(ends) == {(3, 0), (5, 1)}
    assert infos[1][0] == {"task": 0}  # an inner episode's end is none for the algorithm
    assert ends[3, 0]["TimeLimit.truncated"]
    assert not ends[5, 1]["TimeLimit.truncated"]
    np.testing.assert_allclose(ends[3, 0]["terminal_observation"], [2, 0.4, 12, 0], rtol=1e-6)
    np.testing.assert_allclose(ends[5, 1]["terminal_observation"], [3, -0.6, 23, 0], rtol=1e-6)


def test_the_memory_lasts_for_a_trial() -> None:
    """As Stable-Baselines3 has it: states are zeroed where episode_starts says so, at trials alone."""
    for meta, ends in ((True, 12), (False, 6)):
        envs = worlds()
        learner = agent("sb3:recurrentppo", envs, n_steps=26, batch_size=104, meta=meta)
        learner.train(envs, 26 * WORLDS)
        buffer: Any = learner._model.rollout_buffer  # type: ignore[attr-defined]
        starts = buffer.episode_starts.reshape(WORLDS, 26)  # of a buffer that was trained on
        for world in starts:
            first = np.flatnonzero(world)
            assert first[0] == 0
            assert (np.diff(first)[1:] == ends).all()
            assert len(first) > 2


def test_evaluation_plays_the_first_episode_of_a_trial() -> None:
    """By hand: the LSTM's state goes on from zero, beside the previous action, its reward and no end."""
    learner, envs = learned("sb3:recurrentppo"), worlds()
    assert isinstance(learner, sb3.RecurrentPPO)
    learner.act(observations(envs))  # of which nothing may be left
    seen, _ = envs.reset(seed=[0, 1, 2, 3])
    before, state, total = np.zeros((WORLDS, envs.num_actions + 2)), None, np.zeros(WORLDS)
    for _ in range(6):
        inputs = learner._inputs(np.concatenate([seen, before], axis=1, dtype=np.float32))
        actions, state = learner._model.predict(inputs, state=state, deterministic=True)
        seen, rewards, *_ = envs.step(actions)
        total += rewards
        before = np.concatenate([actions, rewards[:, None], np.zeros((WORLDS, 1))], axis=1)
    played = learner.evaluate(envs, [0, 1, 2, 3])
    np.testing.assert_allclose(played.returns, total)
    np.testing.assert_array_equal(learner.evaluate(envs, [0, 1, 2, 3]).returns, played.returns)


def test_acting_remembers_until_it_begins_anew() -> None:
    learner, seen = learned("sb3:recurrentppo"), observations(worlds())
    learner.begin()
    first, second = learner.act(seen), learner.act(seen)
    assert not np.array_equal(first, second)
    learner.begin()
    np.testing.assert_array_equal(learner.act(seen), first)
    learner.act(seen[:1])  # another number of worlds are other worlds
    np.testing.assert_array_equal(learner.act(seen), first)


# ---- packages


def test_the_registry_does_not_import_stable_baselines() -> None:
    script = "import sys, baselines.registry; print(*{m.split('.')[0] for m in sys.modules})"
    run = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert not {"stable_baselines3", "sb3_contrib"} & set(run.stdout.split())


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    monkeypatch.delitem(sys.modules, "baselines.sb3")
    with pytest.raises(ModuleNotFoundError, match=r"package sb3_contrib.*'mtenvs\[sb3\]'"):
        describe_learner("sb3:ppo", "Biped")


# ---- learning


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sb3:ppo", "sb3:sac"])
def test_it_learns(name: str) -> None:
    """The first biped's scores: 1.4 at random, 480 after a million steps of our PPO, here measured 260."""
    envs = TaskVectorEnv("Biped", num_envs=56, tasks=[0])
    learner = make_learner(name, describe_learner(name, "Biped").config, envs, [0])
    learner.train(envs, 100_800 if name == "sb3:sac" else 100_352)
    played = learner.evaluate(TaskVectorEnv("Biped", num_envs=16, tasks=[0]), range(1000, 1016))
    assert played.returns.mean() > 100.0
