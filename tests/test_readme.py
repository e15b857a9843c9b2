"""What the README says runs, and what it adds works."""

import ast
import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mtenvs
from harness.cli import main
from mtenvs.env import TaskEnv
from mtenvs.vector_env import TaskVectorEnv

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_environment_example_runs(tmp_path):
    first, doors = [block for block in blocks("python") if block.startswith("import")]
    (everything,) = [block for block in blocks("python") if block.startswith("envs = ")]
    check = "\nassert envs.reset(seed=0)[0].shape[0] == 256\n"
    for code in (first + check + everything, doors):
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)


def test_make_targets_and_commands_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`?make ([a-z-]+)", README)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    commands = set(re.findall(r"(?:^|`)mtenvs\s([a-z]+)", README, flags=re.MULTILINE))
    assert commands >= {"loo", "plan", "run", "report", "tasks", "reference"}
    for command in commands:
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0, command


def test_files_and_figures_that_it_names_exist():
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / path).exists(), path


def test_another_body_is_one_entry():
    (entry,) = [block for block in blocks("python") if "stilts" in block]
    (name, values), *_ = ast.literal_eval("{" + entry + "}").items()
    family = mtenvs.get_family("Biped")
    published = {k: v for k, v in family.published.items() if k != name}  # whoever did what it says has it
    grown = dataclasses.replace(family, published={**published, name: values})
    new = grown.tasks[-1]
    assert (new.number, new.name) == (len(grown.tasks) - 1, name)
    assert [t.name for t in grown.tasks[:-1]] == list(published)
    foot = mtenvs.model(grown, new.number).body("left_foot")
    assert foot.pos[2] == pytest.approx(-values["shin_length"])
    env = TaskEnv(grown, task=name, conditioning="one_hot")
    observation, info = env.reset(seed=0)
    assert info["task"] == new.number
    assert observation[env.observation_slices.code].tolist() == [0.0] * new.number + [1.0]
    envs = TaskVectorEnv(grown, num_envs=len(grown.tasks))
    envs.reset(seed=0)
    envs.step(envs.action_space.sample())
    with pytest.raises(ValueError, match="shin_length"):
        grown.complete({"shin_length": 9.0})
