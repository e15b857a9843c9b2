"""Architectures: the forward pass by hand, what the code can change, starts, counts, learning."""

import dataclasses

import numpy as np
import pytest
import torch

import mtenvs
from baselines.architectures import ARCHITECTURES, find_architecture
from baselines.learner import Start
from baselines.ppo import PPO, PPOConfig
from baselines.registry import count_parameters, describe_learner, make_learner, scaled
from baselines.stacked import StackedParameters
from mtenvs.conditioning import ObservationSlices
from mtenvs.vector_env import TaskVectorEnv

NAMES = tuple(ARCHITECTURES)
SMALL = PPOConfig(num_steps=8, num_minibatches=2, update_epochs=2, hidden=(8, 8))
BODY, MASK, CODE, OUT = 5, 2, 3, 4
SLICES = ObservationSlices(slice(0, BODY), slice(BODY, BODY + MASK), slice(BODY + MASK, BODY + MASK + CODE))


def network(name, hidden=(8, 6), slices=SLICES):
    return ARCHITECTURES[name]("net", slices, hidden, OUT, head_gain=0.5)


def initial(net, *seeds):
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return StackedParameters(net.shapes, generators, torch.device("cpu"))


def anything(net, runs=2):
    """Parameters none of which is zero."""
    parameters = initial(net, *range(runs))
    with torch.no_grad():
        parameters.flat.normal_(generator=torch.Generator().manual_seed(9)).mul_(0.5)
    return parameters


def inputs(runs=2, n=7, seed=0):
    """Body, mask and codes that mix all tasks."""
    return torch.randn(runs, n, SLICES.size, generator=torch.Generator().manual_seed(seed))


def by_hand(name, x, p):
    """One run's network on one sample: a plain loop over layers, and over tasks."""
    body, code = x[: BODY + MASK], x[BODY + MASK :]
    if name == "concatenation":
        h = torch.tanh(x @ p["net.0.weight"] + p["net.0.bias"][0])
        h = torch.tanh(h @ p["net.1.weight"] + p["net.1.bias"][0])
        return h @ p["net.2.weight"] + p["net.2.bias"][0]
    if name == "film":
        h = body
        for i in range(2):
            plain = h @ p[f"net.{i}.weight"] + p[f"net.{i}.bias"][0]
            h = torch.tanh((1.0 + code @ p[f"net.{i}.scale"]) * plain + code @ p[f"net.{i}.shift"])
        return h @ p["net.2.weight"] + p["net.2.bias"][0]
    first, last = p["net.first.weight"], p["net.last.weight"]
    h = torch.tanh(sum(code[k] * (body @ first[k] + p["net.first.bias"][k, 0]) for k in range(CODE)))
    h = torch.tanh(h @ p["net.shared.0.weight"] + p["net.shared.0.bias"][0])
    return sum(code[k] * (h @ last[k] + p["net.last.bias"][k, 0]) for k in range(CODE))


@pytest.mark.parametrize("name", NAMES)
def test_forward_equals_one_run_and_one_sample_at_a_time(name):
    net, x = network(name), inputs()
    views = anything(net).views()
    found = net(x, views)
    assert found.shape == (2, 7, OUT)
    for run in range(2):
        own = {key: view[run] for key, view in views.items()}
        for sample in range(7):
            expected = by_hand(name, x[run, sample], own)
            torch.testing.assert_close(found[run, sample], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter_and_only_the_own_run(name):
    net = network(name)
    parameters = anything(net)
    loss = (net(inputs(), parameters.views())[1] ** 2).sum()
    (gradient,) = torch.autograd.grad(loss, parameters.flat)
    assert not gradient[0].any()
    for key, part in parameters.views(gradient).items():
        assert (part[1] != 0).all(), key


@pytest.mark.parametrize("name", NAMES)
def test_a_network_starts_as_if_it_were_not_told(name):
    net, x = network(name), inputs()
    parameters = initial(net, 1, 2)
    other = x.clone()
    other[..., SLICES.mask] = 5.0
    if name != "own_layers":  # there the code says whose layers: they differ, and are nobody's yet
        other[..., SLICES.code] = -3.0
    views = parameters.views()
    torch.testing.assert_close(net(x, views), net(other, views), rtol=0, atol=0)
    moved = x.clone()
    moved[..., SLICES.body] += 1.0
    assert not torch.allclose(net(x, views), net(moved, views))
    # and yet what tells of the task is learned from the first step on
    (gradient,) = torch.autograd.grad((net(x, views) ** 2).sum(), parameters.flat)
    assert all(part.any() for part in parameters.views(gradient).values())


def test_film_without_a_code_is_a_perceptron():
    plain = ObservationSlices(slice(0, BODY), slice(BODY, BODY + MASK), slice(BODY + MASK, BODY + MASK))
    film, perceptron = network("film", slices=plain), network("concatenation", slices=plain)
    assert film.shapes == perceptron.shapes
    x, views = inputs()[..., : BODY + MASK], anything(film).views()
    torch.testing.assert_close(film(x, views), perceptron(x, views), rtol=0, atol=0)


def test_own_layers_are_each_orthogonal_and_another():
    views = initial(network("own_layers", hidden=(4, 6)), 1).views()
    first, last = views["net.first.weight"][0], views["net.last.weight"][0]
    whole = StackedParameters(
        network("own_layers", hidden=(4, 6)).shapes, [torch.Generator()], torch.device("cpu")
    )
    assert whole.count == sum(view[0].numel() for view in views.values())
    for k in range(CODE):
        torch.testing.assert_close(last[k].T @ last[k], 0.25 * torch.eye(OUT))
        assert not first[k, SLICES.mask].any()
        assert first[k, SLICES.body].all()
        assert not torch.equal(last[k], last[k - 1])
        assert not torch.equal(first[k], first[k - 1])


@pytest.mark.parametrize("layer", ["first", "last"])
def test_a_task_s_own_layers_are_its_own(layer):
    net = network("own_layers")
    parameters = anything(net)
    x = inputs(n=CODE)
    x[..., SLICES.code] = torch.eye(CODE)  # sample k is of task k
    before = net(x, parameters.views())
    with torch.no_grad():
        parameters.views()[f"net.{layer}.weight"][:, 1] += 1.0
        parameters.views()[f"net.{layer}.bias"][:, 1] += 1.0
    after = net(x, parameters.views())
    torch.testing.assert_close(before[:, [0, 2]], after[:, [0, 2]], rtol=0, atol=0)
    assert (before[:, 1] != after[:, 1]).all()


def test_what_an_architecture_cannot_do_is_refused():
    with pytest.raises(ValueError, match=r"'fillm' \(did you mean 'film'\?\); valid: concatenation, film"):
        find_architecture("fillm", "descriptor", (8, 8))
    with pytest.raises(
        ValueError, match=r"'own_layers' cannot be told by conditioning='none'; valid: one_hot"
    ):
        find_architecture("own_layers", "none", (8, 8))
    with pytest.raises(ValueError, match=r"'own_layers' needs at least 2 hidden layers, got hidden=\[8\]"):
        find_architecture("own_layers", "one_hot", [8])
    with pytest.raises(ValueError, match="'film' needs at least 1"):
        find_architecture("film", "one_hot", [])
    envs = worlds(1, conditioning="descriptor")
    with pytest.raises(ValueError, match="'own_layers' cannot be told"):
        make_learner("ppo", {"architecture": "own_layers"}, envs, [0])
    with pytest.raises(ValueError, match="'own_layers' cannot be told"):
        PPO(envs, [0], dataclasses.replace(SMALL, architecture="own_layers"))
    with pytest.raises(
        ValueError, match=r"return_scale 'tasks' \(did you mean 'task'\?\); valid: run, task"
    ):
        make_learner("ppo", {"return_scale": "tasks"}, envs, [0])


# ---------------------------------------------------------------- trained by PPO


def worlds(runs, tasks=(0, 1), width=4, conditioning="one_hot"):
    layout = [t for _ in range(runs) for t in tasks for _ in range(width // len(tasks))]
    return TaskVectorEnv("Biped", num_envs=len(layout), tasks=layout, conditioning=conditioning)


def learner(name, envs, seeds, **changes):
    return PPO(envs, seeds, dataclasses.replace(SMALL, architecture=name, **changes))


def values(trained, run):
    return {name: view[run].detach().clone() for name, view in trained._parameters.views().items()}


@pytest.fixture(scope="module", params=NAMES)
def trained(request, tmp_path_factory):
    """Name, learner of seeds 1 and 2 that has been trained a little, and the second's checkpoint."""
    envs = worlds(2)
    made = learner(request.param, envs, [1, 2])
    made.train(envs, 128)
    path = tmp_path_factory.mktemp(request.param) / "ck"
    made.save(1, path)
    return request.param, made, path


@pytest.mark.parametrize("scale", ["run", "task"])
@pytest.mark.parametrize("name", NAMES)
def test_a_run_does_not_depend_on_its_neighbours(name, scale):
    def train(seeds):
        envs = worlds(len(seeds))
        made = learner(name, envs, seeds, return_scale=scale)
        made.train(envs, 64)
        return made._parameters.flat.detach()

    first, second = train([7, 1]), train([7, 3])
    torch.testing.assert_close(first[0], second[0], rtol=0, atol=0)
    assert not torch.equal(first[1], second[1])
    torch.testing.assert_close(first[0], train([5, 7])[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(first[0], train([7])[0], rtol=1e-4, atol=1e-5)


def test_every_parameter_learns_but_layers_of_absent_tasks(trained):
    _, made, _ = trained
    for key, view in made._parameters.views().items():
        moved = view[0] != made._parameters.views(made._initial)[key][0]
        if ".first." in key or ".last." in key:
            assert moved[:2].any(), key
            assert not moved[2:].any(), key
        else:
            assert moved.any(), key


def test_checkpoint_round_trip_and_another_architecture_is_refused_by_name(trained):
    name, made, path = trained
    envs = worlds(1)
    again = learner(name, envs, [9])
    again.load(0, path, Start(keep_optimizer=True))
    torch.testing.assert_close(again._parameters.flat[0], made._parameters.flat[1], rtol=0, atol=0)
    for part in ("first", "second", "clock"):
        torch.testing.assert_close(
            getattr(again._adam, part)[0], getattr(made._adam, part)[1], rtol=0, atol=0
        )
    both, _ = worlds(2).reset(seed=0)
    np.testing.assert_allclose(again.act(both[4:]), made.act(both)[4:], rtol=1e-4, atol=1e-5)
    other = NAMES[NAMES.index(name) - 1]
    with pytest.raises(ValueError, match=f"has architecture = '{name}', this learner needs '{other}'"):
        learner(other, envs, [9]).load(0, path)


@pytest.mark.parametrize("keep", [False, True])
def test_a_frozen_trunk_stands_still_beside_a_run_that_learns(trained, keep):
    name, _, path = trained
    envs = worlds(2)
    made = learner(name, envs, [3, 4])
    made.load(0, path, Start(keep_optimizer=keep))
    made.load(1, path, Start(freeze_trunk=True, keep_optimizer=keep))
    before, moments = values(made, 1), made._parameters.views(made._adam.first.clone())
    mean = made._mean.clone()
    made.train(envs, 64)
    trunk = made._actor.trunk | made._critic.trunk
    assert {n for n in before if "log_std" in n or n not in trunk} >= {
        *made._actor.heads,
        *made._critic.heads,
    }
    for key, after in values(made, 1).items():
        first = made._parameters.views(made._adam.first)[key][1]
        if key in trunk:
            assert torch.equal(after, before[key]), key
            assert torch.equal(first, moments[key][1]), key
        else:
            assert not torch.equal(after, before[key]), key
            assert not torch.equal(first, moments[key][1]), key
        assert not torch.equal(values(made, 0)[key], before[key]), key
    assert (made._mean[1] != mean[1]).any()  # the normaliser's statistics move on
    # the other run is what it is beside a run that learns as well
    envs = worlds(2)
    free = learner(name, envs, [3, 4])
    for run in range(2):
        free.load(run, path, Start(keep_optimizer=keep))
    free.train(envs, 64)
    torch.testing.assert_close(free._parameters.flat[0], made._parameters.flat[0], rtol=0, atol=0)


def test_frozen_are_the_layers_that_every_task_shares():
    frozen = {name: sorted(network(name).trunk) for name in NAMES}
    assert frozen == {
        "concatenation": ["net.0.bias", "net.0.weight", "net.1.bias", "net.1.weight"],
        "film": ["net.0.bias", "net.0.weight", "net.1.bias", "net.1.weight"],
        "own_layers": ["net.shared.0.bias", "net.shared.0.weight"],
    }
    heads = {name: sorted(network(name).heads) for name in NAMES}
    assert heads == {
        "concatenation": ["net.2.bias", "net.2.weight"],
        "film": ["net.2.bias", "net.2.weight"],
        "own_layers": ["net.last.bias", "net.last.weight"],
    }


@pytest.mark.parametrize(
    ("switch", "is_fresh"),
    [
        ("fresh_heads", lambda net, key: key in net._actor.heads | net._critic.heads),
        ("fresh_critic", lambda net, key: key.startswith("critic.")),
        ("reset_log_std", lambda net, key: key == "log_std"),
    ],
)
def test_what_starts_afresh_is_the_run_s_own_start_and_the_rest_the_checkpoint_s(trained, switch, is_fresh):
    name, source, path = trained
    made = learner(name, worlds(2), [5, 6])
    own = values(made, 1)
    made.load(1, path)  # a first load leaves nothing behind
    made.load(1, path, Start(**{switch: True}, keep_optimizer=True))
    old, moments = values(source, 1), made._parameters.views(made._adam.first)
    old_moments = source._parameters.views(source._adam.first)
    for key, found in values(made, 1).items():
        fresh = is_fresh(made, key)
        assert torch.equal(found, own[key] if fresh else old[key]), key
        if fresh:
            assert not torch.equal(found, old[key]), key
        # a direction for other weights would be worth nothing
        assert torch.equal(moments[key][1], torch.zeros_like(found) if fresh else old_moments[key][1])
    torch.testing.assert_close(made._adam.second[1], source._adam.second[1], rtol=0, atol=0)
    assert torch.equal(made._parameters.flat[0], made._initial[0])


def test_only_the_normaliser_or_everything_shuffled(trained):
    name, source, path = trained
    made = learner(name, worlds(1), [5])
    own, old = values(made, 0), values(source, 1)
    made.load(0, path, Start(part="normalizer", fresh_heads=True, freeze_trunk=True))
    assert all(torch.equal(found, own[key]) for key, found in values(made, 0).items())
    torch.testing.assert_close(made._mean[0], source._mean[1], rtol=0, atol=0)
    assert made._reward_scale.moments.var[0].item() == 1.0
    made.load(0, path, Start(part="shuffled"))
    for key, found in values(made, 0).items():
        layers = (found, old[key]) if found.dim() == 3 else (found[None], old[key][None])
        for one, other in zip(*layers, strict=True):  # a task's own layers each among themselves
            assert torch.equal(one.flatten().sort().values, other.flatten().sort().values), key
        alike = all((layer == layer.flatten()[0]).all() for layer in layers[1])
        assert torch.equal(found, old[key]) == (alike or key == "log_std"), key
    for part in ("normalizer", "shuffled"):
        with pytest.raises(ValueError, match=f"keep_optimizer needs .*part='all', got part='{part}'"):
            made.load(0, path, Start(part=part, keep_optimizer=True))


@pytest.mark.parametrize("name", NAMES)
def test_what_a_body_lacks_is_never_learned_from(name):
    tasks = mtenvs.tasks("Octopus")
    few, many = sorted(tasks, key=lambda task: task.parameters["links"])[:2]
    envs = TaskVectorEnv("Octopus", num_envs=4, tasks=[few] * 2 + [many] * 2, conditioning="one_hot")
    made = learner(name, envs, [1])
    made.train(envs, 64)
    before = made._parameters.views(made._initial)
    masks = {task: torch.from_numpy(envs.encoding.template(task)) for task in (few, many)}
    present = {task: made._padding.of_body(mask).bool() for task, mask in masks.items()}
    assert not present[few].all()
    for net in ("actor", "critic"):
        if name == "own_layers":
            for task, own in present.items():
                key = f"{net}.first.weight"
                moved = (made._parameters.views()[key] != before[key])[0, task.number]
                assert torch.equal(moved[made._slices.body].any(1), own)
        else:
            key = f"{net}.0.weight"
            moved = (made._parameters.views()[key] != before[key])[0]
            assert torch.equal(moved[made._slices.body].any(1), present[few] | present[many])
    assert not made.diverged().any()


@pytest.mark.parametrize("family", ["Biped", "BipedSkills", "Octopus", "DMWalker"])
def test_equal_budgets_of_parameters(family):
    for conditioning in ("one_hot", "descriptor"):
        envs = TaskVectorEnv(family, num_envs=1, conditioning=conditioning)
        config = describe_learner("ppo", family).config
        wanted = count_parameters("ppo", config, envs)
        for name in NAMES:
            if conditioning in ARCHITECTURES[name].conditionings:
                found = scaled("ppo", {**config, "architecture": name}, envs, wanted)
                count = count_parameters("ppo", found, envs)
                assert count == pytest.approx(wanted, rel=0.1), (name, conditioning, found["hidden"])


@pytest.mark.parametrize("name", [n for n in NAMES if n != "concatenation"])  # that is tests/test_ppo.py's
def test_smoke_of_learning(name):
    envs, test = worlds(1, (5,), width=56), worlds(1, (5,), width=16)
    made = PPO(envs, [1], PPOConfig(architecture=name, return_scale="task"))
    before = made.evaluate(test, range(16)).returns.mean()
    made.train(envs, 20_000)
    assert made.evaluate(test, range(16)).returns.mean() > before + 10.0
