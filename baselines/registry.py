"""The agents by name, and what a plan freezes of one."""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import importlib
import json
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from baselines.checkpoint import Lessons, read_facts, read_lessons
from baselines.learner import STARTS, Described, Learner
from mtenvs.registry import get_families
from mtenvs.spec import MissingPackageError, did_you_mean
from mtenvs.vector_env import TaskVectorEnv

AGENTS: dict[str, str] = {
    "ppo": "baselines.ppo:PPO",
    **{
        f"sb3:{name.lower()}": f"baselines.sb3:{name}"
        for name in ("PPO", "SAC", "TD3", "TRPO", "TQC", "RecurrentPPO")
    },
}
"""Where the agents of this project are; others are named ``module:Class``."""


@dataclasses.dataclass(frozen=True)
class LearnerDescription:
    """What a plan freezes of an agent."""

    name: str
    """Under which it is found again."""
    version: str
    """Of the agent's code."""
    rollout: int
    """Control steps of a world that are trained on at once; checkpoints are rounded up to whole ones."""
    config: dict[str, Any]
    """Hyperparameters, as JSON."""
    changed: dict[str, Any]
    """Of ``config``, what was asked for otherwise than the agent has it."""
    many_runs: bool
    """Whether it trains whole cohorts at once."""
    starts: tuple[str, ...]
    """Of :data:`baselines.learner.STARTS`, what it can do."""
    source: str
    """Where its default hyperparameters come from."""
    parameters: int
    """Of one network, in worlds such as the plan's."""
    tuning: dict[str, int]
    """``trials`` of configurations before these were chosen, and control ``steps`` of each."""


def find_agent(name: str) -> type[Described]:
    """Finds an agent's class, importing its module.

    This runs code, so it is only for names that a user has typed and for those of :data:`AGENTS`:
    never for one that stands in a file.

    Raises:
        ValueError: if there is no such module or class, or it is no agent.
        MissingPackageError: if a package is missing that an agent of ours needs.
    """
    module, colon, attribute = AGENTS.get(name, name).partition(":")
    if not (colon and module and attribute) or (name.lower().startswith("sb3:") and name not in AGENTS):
        raise ValueError(
            f"unknown agent {name!r}{did_you_mean(name.lower(), AGENTS)}; valid: {', '.join(AGENTS)}, and "
            "module:Class for one of your own"
        )
    if module.endswith(".py"):
        dotted = module.removesuffix(".py").replace("/", ".").strip(".")
        raise ValueError(
            f"agent {name!r} is written module:Class, without the file's ending: {dotted}:{attribute}"
        )
    if name not in AGENTS and "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # where "python -m harness" would look; the command would not
    try:
        found: Any = importlib.import_module(module)
    except MissingPackageError:
        raise
    except Exception as error:  # whatever a module of a user's own does when it is imported
        raise ValueError(f"agent {name!r} cannot be imported: {_told(error)}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ValueError(f"agent {name!r} is not there: {found!r} has no {part!r}")
        found = getattr(found, part)
    if not (isinstance(found, type) and issubclass(found, Described)):
        raise ValueError(
            f"agent {name!r} is no agent: {found!r} must be a subclass of baselines.agent.Agent, or, if "
            "it trains many runs at once, of baselines.learner.Described with the methods of Learner"
        )
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        raise ValueError(f"agent {name!r} lacks {', '.join(missing)}()")
    if unknown := sorted({*found.starts} - STARTS):
        raise ValueError(f"agent {name!r}: unknown starts {unknown}; valid: {', '.join(sorted(STARTS))}")
    return found


def describe_learner(
    name: str,
    family: str,
    changes: Mapping[str, Any] | None = None,
    conditioning: str = "descriptor",
    layout: str | None = None,
    blind: bool = False,
) -> LearnerDescription:
    """What a plan for a family should freeze of an agent.

    Where another ``architecture`` than the agent's default is asked for and ``hidden`` is not, hidden
    layers get the width that gives the default's number of parameters, for a comparison at equal size.

    Args:
        name: of the agent, or ``module:Class``.
        family: that it will be trained on.
        changes: hyperparameters that are to be other than the agent's defaults for the family.
        conditioning: what it will be told of its tasks.
        layout: of the observation, in families that have several.
        blind: whether it will also be told nothing, in one of the arms.

    Raises:
        ValueError: for an unknown agent, a hyperparameter that it does not have, or of another type, or one
            that makes no agent for this family and conditioning.
    """
    agent, changes = find_agent(name), changes or {}
    defaults = {**agent.hyperparameters, **agent.family_hyperparameters.get(family, {})}
    check_names(name, agent, changes)
    for key, value in changes.items():
        if not _alike(value, defaults[key]):
            raise ValueError(
                f"hyperparameter {key} of agent {name} is of the kind of {defaults[key]!r}, got {value!r}"
            )
    try:
        # through JSON, so that what is frozen equals what is read back
        config = json.loads(json.dumps({**defaults, **changes}, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"hyperparameters of agent {name} must be of JSON types: {error}") from None
    worlds = TaskVectorEnv(family, 1, conditioning=conditioning, layout=layout)
    with _naming(name):
        agent.check(worlds, config)
    if blind and conditioning != "none":
        try:
            agent.check(TaskVectorEnv(family, 1, conditioning="none", layout=layout), config)
        except ValueError as error:
            raise ValueError(f"in the arm blind nothing is told: leave it out of --arms; {error}") from None
    usual = defaults.get("architecture")
    if conditioning == "none" and config.get("architecture") != usual:
        raise ValueError(
            f"architecture {config['architecture']!r} says how a network uses what it is told of its task, "
            "and with conditioning 'none' it is told nothing: leave one of them out"
        )
    if config.get("architecture") != usual and "hidden" not in changes:
        wanted = count_parameters(name, {**config, "architecture": usual}, worlds)
        config = scaled(name, config, worlds, wanted)
    with _naming(name):
        rollout, (trials, steps) = agent.rollout(config), agent.tuning.get(family, (0, 0))
    if rollout < 1:
        raise ValueError(f"agent {name!r} has rollouts of {rollout} steps; it needs 1 or more")
    return LearnerDescription(
        name=name,
        version=agent.version,
        rollout=rollout,
        config=config,
        changed={key: config[key] for key in changes if config[key] != defaults[key]},
        many_runs=agent.many_runs,
        starts=tuple(sorted(agent.offers(config))),
        source=agent.source,
        parameters=count_parameters(name, config, worlds),
        tuning={"trials": trials, "steps": steps},
    )


def check_names(name: str, agent: type[Described], config: Mapping[str, Any]) -> None:
    """Refuses hyperparameters that an agent does not have.

    Raises:
        ValueError: naming them and those that there are.
    """
    known = {*agent.hyperparameters}
    if unknown := sorted({*config} - known):
        raise ValueError(
            f"unknown hyperparameters {unknown} of agent {name}"
            f"{did_you_mean(unknown[0], known)}; valid: {', '.join(sorted(known)) or 'it has none'}"
        )


def _alike(value: Any, default: Any) -> bool:
    if default is None:
        return True
    if isinstance(default, str):  # "auto", or a number instead
        return isinstance(value, (str, int, float)) and not isinstance(value, bool)
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, (int, float)):
        # a whole number may become another one, a rate may be written as one
        return isinstance(value, int) or (isinstance(default, float) and isinstance(value, float))
    return any(isinstance(value, kind) and isinstance(default, kind) for kind in ((list, tuple), Mapping))


def make_learner(
    name: str, config: Mapping[str, Any], worlds: TaskVectorEnv, seeds: Sequence[int], device: str = "cpu"
) -> Learner:
    """Makes a learner from what a plan has frozen.

    Args:
        name: of the agent; of one in :data:`AGENTS`, or one that the user has named.
        config: its hyperparameters, as JSON; defaults for those that are missing.
        worlds: worlds like those it will be trained on.
        seeds: one per run.
        device: where its networks live.

    Raises:
        ValueError: for an unknown agent or hyperparameter.
    """
    agent = find_agent(name)
    check_names(name, agent, config)
    config = {**agent.hyperparameters, **config}
    agent.check(worlds, config)
    learner = agent.make(worlds, seeds, config, device)
    if isinstance(learner, Described):
        learner.known_as = name
    return learner


def count_parameters(name: str, config: Mapping[str, Any], worlds: TaskVectorEnv) -> int:
    """Parameters of one network of an agent.

    Raises:
        ValueError: if the agent cannot be made, or does not count its parameters.
    """
    with _naming(name):
        return int(make_learner(name, config, worlds, [0]).describe()["parameters"])


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Whatever is wrong in a class of a user's own is an error that names it."""
    try:
        yield
    except (MissingPackageError, ValueError):
        raise
    except Exception as error:
        raise ValueError(f"agent {name!r} cannot be made: {_told(error)}") from error


def _told(error: Exception) -> str:
    """What went wrong in others' code, and where."""
    ours = (__file__, importlib.__file__, "<")  # not the import's own
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(ours)]
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def scaled(name: str, config: Mapping[str, Any], worlds: TaskVectorEnv, parameters: int) -> dict[str, Any]:
    """Hyperparameters with which an agent has about so many parameters.

    All hidden layers are wider, or narrower, in the same proportion, to the nearest number of parameters.

    Args:
        name: of the agent.
        config: its hyperparameters, as JSON.
        worlds: worlds like those it will be trained on.
        parameters: wanted.

    Raises:
        ValueError: for an unknown agent, or one whose hyperparameters have no ``hidden``.
    """
    narrow = (
        f"agent {name!r} cannot be made wider, by a hyperparameter 'hidden' with the units of its layers; "
        "for a joint experiment without joint-wide: --joint-arms separate joint"
    )
    if not isinstance(hidden := config.get("hidden"), list) or not hidden:
        raise ValueError(narrow)

    def wide(units: int) -> dict[str, Any]:
        return {**config, "hidden": [max(1, round(units * own / hidden[0])) for own in hidden]}

    most = hidden[0]
    while count_parameters(name, wide(most), worlds) < parameters:
        if most > parameters:  # a layer of so many units alone would have as many
            raise ValueError(narrow)
        most *= 2
    units = range(1, most + 1)
    k = bisect.bisect_left(units, parameters, key=lambda n: count_parameters(name, wide(n), worlds))
    near = [wide(units[i]) for i in (k - 1, k) if 0 <= i < len(units)]
    return min(near, key=lambda found: abs(count_parameters(name, found, worlds) - parameters))


def widened(name: str, family: str, config: Mapping[str, Any], factor: int, **env_options: Any) -> Any:
    """Hyperparameters with which an agent has about ``factor`` times as many parameters.

    Args:
        name: of the agent.
        family: that it will be trained on.
        config: its hyperparameters, as JSON.
        factor: at least 1.
        env_options: ``conditioning`` and ``layout`` of the worlds.

    Raises:
        ValueError: for an unknown agent, or one that has no width to change.
    """
    worlds = TaskVectorEnv(family, num_envs=1, **env_options)
    return scaled(name, config, worlds, factor * count_parameters(name, config, worlds))


@dataclasses.dataclass(frozen=True)
class Policy:
    """A trained network, to be looked at."""

    act: Callable[[np.ndarray], np.ndarray]
    """Observations ``(n, size)`` to actions ``(n, num_actions)``, without noise."""
    env_options: dict[str, Any]
    """How it was told of its tasks, as arguments of ``gymnasium.make``: ``conditioning``, ``layout``."""
    agent: str
    """Name of the agent that learned it."""
    lessons: Lessons
    """What it was trained on and told. Where it was told of other codes than its tasks' own, :attr:`act`
    replaces those in observations by what it was told."""
    begin: Callable[[], object]
    """To be called before first observations, of which nothing may be remembered."""
    told: Callable[[np.ndarray, np.ndarray], object]
    """To be called after every step, with rewards ``(n,)`` and whether they ended an episode, ``(n,)``."""


def load_policy(directory: Path, family: str, device: str = "cpu", agent: str | None = None) -> Policy:
    """Loads the network of a checkpoint, of whichever agent, as ``Learner.save`` wrote it.

    Args:
        directory: the checkpoint's.
        family: name of the family, or of the set of families, that it is wanted for.
        device: where it is to live.
        agent: whose it is; needed where it is none of :data:`AGENTS`, because no file may name code.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if it is of another family or of another or an unknown agent, if its agent has no
            ``act``, or if it is damaged.
    """
    facts, wanted = read_facts(directory), get_families(family).id
    if facts.get("family") != wanted:
        raise ValueError(
            f"checkpoint {directory} is a policy of {facts.get('family')!r}, not of {wanted!r}"
        )
    config = facts.get("config", {})
    for key, value, kind in (("learner", facts.get("learner"), str), ("config", config, dict)):
        if not isinstance(value, kind):
            raise ValueError(f"checkpoint {directory} is damaged: its {key} is {value!r}")
    name = agent_of(facts["learner"], agent, f"checkpoint {directory}")
    find_agent(name)  # what is wrong with an agent is not wrong with its checkpoint
    options: dict[str, Any] = {name: facts[name] for name in ("conditioning", "layout") if name in facts}
    try:
        worlds = TaskVectorEnv(family, num_envs=1, **options)
        learner = make_learner(name, config, worlds, [0], device)
    except (KeyError, MemoryError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"checkpoint {directory} is damaged, or of another version of its agent: {error}"
        ) from error
    act, lessons = getattr(learner, "act", None), read_lessons(directory)
    if act is None:
        raise ValueError(f"agent {name!r} cannot be watched: it has no act()")
    try:
        learner.load(0, directory)
    except (KeyError, RuntimeError) as error:  # a tensor that is missing, or of another shape
        raise ValueError(f"checkpoint {directory} is damaged: {error}") from None
    if learner.diverged().any():
        raise ValueError(f"the network of checkpoint {directory} has diverged: its numbers are not finite")
    if lessons.code is not None:
        act = _telling(act, worlds.observation_slices.code, lessons.code, directory)
    worlds.close()
    begin = getattr(learner, "begin", lambda: None)
    told = getattr(learner, "told", lambda rewards, ends: None)
    return Policy(act, options, name, lessons, begin, told)


def _telling(
    act: Callable[[np.ndarray], np.ndarray], entries: slice, code: Sequence[float], directory: Path
) -> Callable[[np.ndarray], np.ndarray]:
    """What acts as it does when it is told ``code``, whatever observations say of the task."""
    with np.errstate(over="ignore"):  # to infinity, which is refused
        told = np.array(code, np.float32)
    if told.shape != (entries.stop - entries.start,) or not np.isfinite(told).all():
        raise ValueError(
            f"checkpoint {directory} is damaged: its code has {len(code)} numbers: {list(code)}"
        )

    def acting(observations: np.ndarray) -> np.ndarray:
        observations = np.array(observations)
        observations[:, entries] = told
        return act(observations)

    return acting


def agent_of(named: Any, given: str | None, what: str) -> str:
    """The agent that a file speaks of, if its code may be run.

    Args:
        named: in the file.
        given: by the user; ``None`` if nothing was.
        what: the file is, for the message.

    Raises:
        ValueError: if the user has named another one, or none where the file's is not ours.
    """
    if given is not None and given != named:
        raise ValueError(f"{what} is of agent {named!r}, not of {given!r}")
    if given is None and not (isinstance(named, str) and named in AGENTS):
        raise ValueError(
            f"{what} is of agent {named!r}, which is no code of mtenvs and is only run if you name it: "
            f"add --agent {shlex.quote(str(named))}"
        )
    return str(named)
