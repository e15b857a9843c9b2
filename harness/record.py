"""Episodes of a policy, or of random actions, as a Minari dataset for offline reinforcement learning."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np

import mtenvs
from harness.reference_scores import load_reference
from harness.show import Act, Actor, Episode, Memoryless, Policy
from mtenvs.env import check_count
from mtenvs.registry import as_task, get_families
from mtenvs.spec import MissingPackageError

WORLDS = 64  # at a time: many, for speed; few enough that their longest episodes fit into memory
RANDOM = "random"  # name of the algorithm whose actions are uniform
PLACE = "MINARI_DATASETS_PATH"  # what tells Minari where its datasets are


def default_name(family: str, task: str, algorithm: str) -> str:
    """The id of a dataset that was given none, such as ``mtenvs/biped/child-ppo-v0``."""
    *groups, name = ["mtenvs", family, *task.split("/")]
    words = [*groups, f"{name}-{algorithm}-v0"]
    return "/".join(re.sub(r"[^\w-]+", "-", word.lower()) for word in words)


class Recording:
    """Episodes to be played and written as a Minari dataset. Making one checks all, and writes nothing.

    An episode is what the environment that the dataset's ``recover_environment()`` makes gives when it is
    reset with the episode's ``seed`` and stepped with its ``actions``, to the last bit. Its ``infos`` are
    those of the environment too: as Minari has it, one more entry than steps, the first of them the
    reset's. What the reset says nothing of (``success``, ``physics_diverged`` and the reward terms) is 0
    there. No episode that was begun is left out.

    Args:
        family: name of the family, or of a set of families.
        task: published number or name.
        episodes: how many.
        policy: what acts; ``None`` for uniformly random actions.
        seed: of the starts and the random actions.
        out: directory that holds Minari's datasets; ``None`` for Minari's own, which is
            ``MINARI_DATASETS_PATH`` or in the home directory.
        name: id of the dataset, ``namespace/name-v0``; ``None`` for one made of family, task and algorithm.

    Raises:
        MissingPackageError: where the extra ``mtenvs[offline]`` is not installed.
        FileExistsError: if there is a dataset of this name: none is ever written over.
        ValueError: for an unknown family or task, no episodes, a negative seed or a malformed name.
    """

    def __init__(
        self,
        family: str,
        task: str | int,
        episodes: int,
        policy: Policy | None = None,
        seed: int = 0,
        out: Path | None = None,
        name: str | None = None,
    ) -> None:
        self._minari = _minari()
        self._episodes = check_count("episodes", episodes)
        self._seed = check_count("seed", seed, least=0)
        self._families = get_families(family)
        self._task = as_task(self._families, task)
        self._own = self._families.of(self._task)
        self._policy = policy
        self._algorithm = RANDOM if policy is None else policy.agent
        alone = self._own is self._families
        label = self._task.name if alone else f"{self._own.name}/{self._task.name}"
        self._name = name or default_name(self._families.name, label, self._algorithm)
        _check_name(self._name)
        # Minari joins a relative path to itself
        self._out = out = None if out is None else Path(out).resolve()
        with _kept_in(out) as root:
            if (root / self._name).exists():
                raise FileExistsError(
                    f"there is a dataset {self._name!r} in {root} already, and none is written over: "
                    "delete it, or give this one another --id, for instance with a higher version"
                )

    def write(self, progress: Callable[[int], object] = lambda episodes: None) -> Any:
        """Plays the episodes and writes the dataset, all of it or nothing.

        Args:
            progress: called with the number of episodes that were finished since the last call.

        Returns:
            The ``minari.MinariDataset``.

        Raises:
            ValueError: if the policy's actions are of a wrong shape or not finite.
        """
        options = {} if self._policy is None else self._policy.env_options
        env = gymnasium.make(self._families.id, task=self._task.to_dict(), **options)
        worlds = gymnasium.make_vec(
            self._families.id,
            num_envs=min(WORLDS, self._episodes),
            tasks=[self._task],
            autoreset_mode="Disabled",
            **options,
        )
        actor = Memoryless(_random(worlds, self._seed)) if self._policy is None else self._policy
        with _kept_in(self._out) as root:
            root.mkdir(parents=True, exist_ok=True)
            # under another name until it is whole, on the same disk
            with tempfile.TemporaryDirectory(prefix=".recording-", dir=root) as part:
                with _kept_in(Path(part)):
                    dataset = self._create(env)
                    seeds = _seeds(self._seed, self._episodes)
                    for buffers in _played(self._minari, worlds, actor, seeds):
                        dataset.update_dataset_from_buffer(buffers)
                        progress(len(buffers))
                    self._describe(dataset, env)
                namespace = self._name.rpartition("/")[0]
                if namespace and namespace not in self._minari.namespace.list_local_namespaces():
                    self._minari.namespace.create_namespace(namespace)
                os.rename(Path(part) / self._name, root / self._name)
            env.close()
            worlds.close()
            return self._minari.load_dataset(self._name)

    def _create(self, env: Any) -> Any:
        random = self._algorithm == RANDOM
        how = "uniformly random actions" if random else f"the policy of {self._algorithm}, without noise"
        with warnings.catch_warnings():
            # Minari asks for author and address, which whoever publishes the dataset adds
            warnings.simplefilter("ignore", UserWarning)
            return self._minari.create_dataset_from_buffers(
                self._name,
                [],
                env=env,
                algorithm_name=self._algorithm,
                description=(
                    f"{self._episodes} episodes of {how} on task {self._task.name} of {env.spec.id}. infos "
                    "has the reward's terms as reward_<term>; its first entry is the reset's, where they "
                    "are 0."
                ),
                requirements=[f"mujoco=={mujoco.__version__}"],
            )

    def _describe(self, dataset: Any, env: Any) -> None:
        """Adds what Minari has no arguments for."""
        facts: dict[str, Any] = {
            "mtenvs_version": mtenvs.__version__,
            "family": self._families.name,
            "task": self._task.to_dict(),
            "conditioning": env.unwrapped.conditioning,
            "layout": env.unwrapped.layout,
            "reward_names": list(self._own.reward_terms),
            "seed": self._seed,
        }
        with contextlib.suppress(FileNotFoundError, KeyError):  # of what is too new to have a score
            score = load_reference(self._own.name, self._own.version)["scores"][self._task.name]
            # so that minari.get_normalized_score gives the score of the reports
            facts |= {"ref_min_score": score["random"], "ref_max_score": score["reference"]}
        dataset.storage.update_metadata(facts)
        # what Minari's own collector says of an episode, and whether it was a success
        of_rewards = self._minari.EpisodeMetadataCallback()
        told = dataset.storage.apply(
            lambda e: {**of_rewards(e), "success": bool(e["infos"]["success"][-1])}
        )
        dataset.storage.update_episode_metadata(list(told))


def recorded(dataset: Any) -> list[Episode]:
    """How the episodes of a dataset went."""
    told = dataset.storage.get_episode_metadata(dataset.episode_indices)
    return [Episode(m["rewards_sum"], int(m["total_steps"]), bool(m["success"]), True) for m in told]


def reading(dataset: Any, out: Path | None) -> str:
    """What reads a dataset again, in Python."""
    place = "" if out is None else f"os.environ[{PLACE!r}] = {str(out)!r}; "
    return f"{place}minari.load_dataset({dataset.id!r})"


def _minari() -> Any:
    try:
        import h5py  # noqa: F401 # the format of its files
        import minari
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"recording needs the package {error.name}: pip install 'mtenvs[offline]'", name=error.name
        ) from error
    return minari


def _check_name(name: str) -> None:
    from minari.dataset.minari_dataset import parse_dataset_id

    try:
        parse_dataset_id(name)
    except (ValueError, TypeError):  # the latter for a name without a version
        raise ValueError(
            f"a dataset is named namespace/name-v0, of letters, digits, - and _; got {name!r}"
        ) from None


@contextlib.contextmanager
def _kept_in(root: Path | None) -> Iterator[Path]:
    """Has Minari keep its datasets in a directory for a while; ``None`` for where it keeps them anyway."""
    if root is None:
        from minari.storage import get_dataset_path

        root = Path(get_dataset_path()).resolve()
    before = os.environ.get(PLACE)
    os.environ[PLACE] = str(root)
    try:
        yield root
    finally:
        os.environ.pop(PLACE)
        if before is not None:
            os.environ[PLACE] = before


def _seeds(seed: int, episodes: int) -> list[int]:
    """One for each episode, far apart also for neighbouring seeds."""
    return [int(s) for s in np.random.SeedSequence(seed).generate_state(episodes, np.uint64)]


def _random(worlds: Any, seed: int) -> Act:
    rng = np.random.default_rng([seed, 1])  # another stream than the starts'
    return lambda observations: rng.uniform(-1.0, 1.0, worlds.action_space.shape)


def _played(minari: Any, worlds: Any, actor: Actor, seeds: Sequence[int]) -> Iterator[list[Any]]:
    """Plays an episode for every seed, as many at a time as there are worlds."""
    n = worlds.num_envs
    for start in range(0, len(seeds), n):
        own = list(seeds[start : start + n])
        spare = [None] * (n - len(own))  # in the last round
        yield _round(minari, worlds, actor, [*own, *spare])[: len(own)]


def _round(minari: Any, worlds: Any, actor: Actor, seeds: Sequence[int | None]) -> list[Any]:
    """Plays one episode in every world, each as if it were evaluated, with nothing remembered.

    Worlds that have ended go on unrecorded until all have.
    """
    observation, info = worlds.reset(seed=seeds)
    actor.begin()
    seen: list[np.ndarray] = [observation]
    done: list[tuple[np.ndarray, ...]] = []
    told: list[dict[str, np.ndarray]] = []
    first = {key: value for key, value in info.items() if not key.startswith("_")}
    lengths = np.zeros(worlds.num_envs, np.int64)
    while not lengths.all():
        # what is recorded is what is done: in the box, and in its type
        action = np.clip(actor.act(observation), -1.0, 1.0).astype(np.float32)
        observation, reward, terminated, truncated, info = worlds.step(action)
        seen.append(observation)
        done.append((action, reward, terminated, truncated))
        # in a set of families, only the keys that this body has
        told.append({k: v for k, v in info.items() if not k.startswith("_") and info[f"_{k}"].all()})
        ended = terminated | truncated
        actor.told(reward, ended)
        lengths[ended & (lengths == 0)] = len(done)
        if ended.any() and not lengths.all():
            observation, _ = worlds.reset(options={"reset_mask": ended})
    actions, rewards, terminations, truncations = (np.stack(x) for x in zip(*done, strict=True))
    observations = np.stack(seen)
    start = {key: first.get(key, np.zeros_like(value)) for key, value in told[0].items()}
    infos = {key: np.stack([step[key] for step in (start, *told)]) for key in start}
    return [
        minari.data_collector.EpisodeBuffer(
            seed=seeds[i],
            observations=observations[: length + 1, i],
            actions=actions[:length, i],
            rewards=rewards[:length, i],
            terminations=terminations[:length, i],
            truncations=truncations[:length, i],
            infos={key: values[: length + 1, i] for key, values in infos.items()},
        )
        for i, length in enumerate(lengths)
    ]
