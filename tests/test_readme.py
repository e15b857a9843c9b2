"""What the README and the pages of docs/ tell readers to type runs: every line for a shell, all Python."""

from __future__ import annotations

import ast
import collections
import dataclasses
import glob
import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import mtenvs
from harness import cli
from harness.plan import PRESETS, load_plan
from harness.store import COMPLETE, Store
from mtenvs.env import TaskEnv
from mtenvs.vector_env import TaskVectorEnv

ROOT = Path(__file__).parents[1]
TEXTS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
"""The pages, by their paths."""
SHELL, SCRIPT, NOT_RUN = "", "bash", {"bibtex", "html", "text"}
"""Languages of blocks, beside ``python``."""
FENCED = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: str, language: str) -> list[str]:
    return [code for named, code in FENCED.findall(TEXTS[page]) if named == language]


def documented() -> dict[str, list[str]]:
    """Every line for a shell, without what is said of it, and the pages that have it."""
    found = collections.defaultdict(list)
    for page in TEXTS:
        for line in "".join(blocks(page, SHELL)).splitlines():
            found[re.split(r"\s+#\s", line)[0].strip()].append(page)
    return found


LINES = documented()
MAKE = [line for line in LINES if line.split()[0] == "make"]
PIP = [line for line in LINES if line.split()[0] == "pip"]


@dataclasses.dataclass(frozen=True)
class Way:
    """How a documented line is tried here: as it stands, but for what is said below."""

    more: str = ""
    """Options that make it small; of one that the line has too, the later counts."""
    instead: tuple[str, str] = ("", "")
    """A piece of the line, and what there is here in its place."""
    before: bool = False
    """Others need what it leaves, so that it is run before them all."""
    planned: str = ""
    """Why nothing is trained: its plan is made whole, and that is all."""
    parsed: str = ""
    """Why nothing is run: our command line reads it, if it is ours, and that is all."""
    writes: str = ""
    """Published result whose plan it writes, run for run."""
    says: str = ""
    """With what words it ends as for something that was asked wrongly, where it must when it is small."""


TINY = "--seeds 1 --worlds-per-run 7 --budget 2500 --checkpoints 4 --episodes 2 --first-episodes 100"
TINY = f"{TINY} --processes 1"
FOLD = f"{TINY} --pretrain-budget 1000 --folds 3"
FILM = "--seconds 0.2 --width 64 --height 48"
HOURS = "hours of training"
CARD = ("cuda", "cpu")
LEARNED = "checkpoints/learn-3-transfer-0-*"
CLUSTER = "hours of training, on a cluster; tests/test_ray.py trains on one for seconds"
RAYS_OWN = ("ray start --head --port 6379", "ray start --address FIRST:6379", "ray stop")
FULL = (
    '--title "full leave-one-out" --arms scratch transfer blind single_source normalizer shuffled ceiling '
    "--control-folds 0 2 3 5 --control-seeds 5"
)
FRESH_NOISE = (
    '--title "fresh action noise" --exploratory --folds 0 3 --arms scratch transfer shuffled '
    "--control-folds 0 3 --control-seeds 5 --seeds 5 --finetunes 1 --finetune-folds --budget 500000 "
    "--pretrain-budget 1500000 --reset-log-std"
)
MINUTES = "minutes of training; tests/test_replicate.py replicates a small plan"
WAYS = {
    # experiments
    "mtenvs loo Biped --preset quick --out runs/quickstart": Way(FOLD, before=True),
    "mtenvs loo Biped --agent my_agent:SmallPPO --preset quick --out runs/mine": Way(
        f"{FOLD} --hyperparameters epochs=1", before=True
    ),
    "mtenvs loo Biped --agent my_agent:SmallPPO --preset standard --out runs/mine-standard": Way(
        planned=HOURS
    ),
    "mtenvs joint Biped --preset quick": Way(f"{TINY} --folds 3 5 --joint-arms separate joint"),
    "mtenvs matrix Biped --preset quick": Way(planned=HOURS),
    "mtenvs loo Biped --preset standard": Way(planned=HOURS),
    "mtenvs loo Biped --arms scratch sources=1 sources=2 sources=4 sources=7 --out runs/doses": Way(
        planned=HOURS
    ),
    "mtenvs loo Biped --agent sb3:sac --preset quick --out runs/sac": Way(planned=HOURS),
    "mtenvs loo Biped --architecture film --preset quick --out runs/film": Way(planned=HOURS),
    "mtenvs loo Biped --preset standard --device cuda --out runs/biped-gpu": Way(
        instead=CARD, planned=f"{HOURS}, and no card"
    ),
    "mtenvs loo Biped --preset wide --device cuda": Way(instead=CARD, planned=f"{HOURS}, and no card"),
    "mtenvs plan Biped --preset standard": Way("--processes 1"),
    "mtenvs plan Biped --preset quick --out runs/quickstart": Way(FOLD),
    "mtenvs plan Biped --preset quick --kind matrix": Way(),
    **{
        f"mtenvs plan {family} --preset standard {asked} --out runs/{name}": Way(writes=name)
        for family, name, asked in (
            ("Biped", "biped", FULL),
            ("Octopus", "octopus", f"{FULL} --budget 250000 --pretrain-budget 450000"),
            ("BipedSkills", "biped-skills", f"{FULL} --budget 500000 --pretrain-budget 1500000"),
            ("BipedSkills", "biped-skills-fresh-noise", FRESH_NOISE),
            ("Biped", "biped-joint", "--kind joint"),
            ("Octopus", "octopus-joint", "--kind joint --budget 250000"),
            (
                "BipedSkills",
                "biped-skills-joint",
                "--kind joint --joint-arms separate joint --budget 500000",
            ),
        )
    },
    "mtenvs run runs/quickstart": Way(),
    "mtenvs run runs/quickstart --executor ray": Way(),
    "mtenvs run runs/biped-standard --executor ray": Way(parsed=CLUSTER),
    "mtenvs run runs/biped-standard --executor ray --address auto": Way(parsed=CLUSTER),
    "mtenvs run DIR --executor ray --address auto": Way(parsed=CLUSTER),
    "mtenvs run runs/mine --agent my_agent:SmallPPO": Way(),
    # what was trained
    "mtenvs status runs/quickstart": Way(),
    "mtenvs report runs/quickstart": Way(),
    "mtenvs compare runs/quickstart runs/mine": Way(),
    "mtenvs compare results/biped runs/mine-standard": Way(
        instead=("results/biped runs/mine-standard", "runs/quickstart runs/mine")
    ),
    "mtenvs compare results/quickstart runs/mine": Way(instead=("results/quickstart", "runs/quickstart")),
    "mtenvs leaderboard runs": Way(),
    "mtenvs table runs/quickstart --out rows.parquet": Way(),
    "mtenvs pack runs/biped --out results/biped --networks 3": Way(
        instead=("runs/biped", "runs/quickstart")
    ),
    "mtenvs report results/biped": Way(instead=("results/biped", "runs/quickstart")),
    "mtenvs replicate results/biped --fold 3 --arm scratch --same-seed 0": Way(parsed=MINUTES),
    "mtenvs replicate results/biped --fold 3 --arm transfer --pretrain --seeds 5": Way(parsed=MINUTES),
    "mtenvs replicate results/octopus-joint --arm joint --seeds 6": Way(parsed=MINUTES),
    # tasks, films, datasets
    "mtenvs tasks Biped": Way(),
    "mtenvs tasks AllFamilies": Way(),
    "mtenvs reference Biped": Way(
        "--fresh --out scores.json --steps 2000 --seeds 1 --episodes 1",
        says="these tasks should not be published",
    ),
    "mtenvs view Biped --task long-shins --random": Way(parsed="opens a window"),
    "mtenvs sheet Octopus --out octopus.png": Way(),
    "mtenvs video Biped --random --seconds 3 --out fall.mp4": Way(FILM),
    f"mtenvs video Biped --task 3 --policy runs/quickstart/{LEARNED} --out learned.mp4": Way(FILM),
    f"mtenvs video Biped --task 3 --policy runs/mine/{LEARNED} --agent my_agent:SmallPPO": Way(FILM),
    "mtenvs record Biped --task child --random --episodes 100 --out data": Way("--episodes 2"),
    f"mtenvs record Biped --task 3 --policy runs/quickstart/{LEARNED} --out data": Way("--episodes 2"),
    # what is not ours
    **dict.fromkeys(RAYS_OWN, Way(parsed="tests/test_ray.py makes clusters")),
    "git status --short results": Way(parsed="says what tests/test_rebuild.py compares"),
}
"""Every documented line but those of make and pip, which have tests of their own below."""
DRAWING = {"sheet", "video"}
"""Commands that need OpenGL."""
COMMANDS = [
    kind for kind in vars(cli).values() if dataclasses.is_dataclass(kind) and "__call__" in vars(kind)
]
"""What the command line can run."""


def only_reads(patch: pytest.MonkeyPatch) -> list[Any]:
    """Lets the command line read a command and run nothing; what it would have run is put into the list."""
    read: list[Any] = []
    for kind in COMMANDS:
        patch.setattr(kind, "__call__", lambda self: read.append(self))
    return read


def words_of(line: str) -> list[str]:
    """What the command line is given for a line, with the files here that a pattern names."""
    way = WAYS[line]
    words = shlex.split(f"{line.replace(*way.instead)} {way.more}")[1:]
    found = [glob.glob(word) if "*" in word else [word] for word in words]
    assert all(len(files) == 1 for files in found), f"{words} name {found}"
    return [file for (file,) in found]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory where a reader has typed what other lines need."""
    directory = tmp_path_factory.mktemp("workplace")
    (agent,) = blocks("docs/agents.md", "python")
    (directory / "my_agent.py").write_text(agent, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path])  # to which the place of an agent is added
        patch.delitem(sys.modules, "my_agent", raising=False)
        with pytest.MonkeyPatch.context() as there:
            there.chdir(directory)
            for line in (line for line, way in WAYS.items() if way.before):
                cli.main(words_of(line))
        yield directory
        sys.modules.pop("my_agent", None)


@pytest.fixture(scope="module")
def probe() -> Callable[..., Any]:
    """The estimate of what a plan costs; the first is a measurement of seconds, which the others repeat."""
    measured: list[Any] = []

    def estimate(*arguments: Any) -> Any:
        if not measured:
            measured.append(original(*arguments))
        return measured[0]

    original = cli.estimate_cost
    return estimate


@pytest.mark.parametrize("line", [line for line in LINES if line not in {*MAKE, *PIP}])
def test_a_documented_line_runs(
    line: str,
    workplace: Path,
    probe: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert line in WAYS, f"{LINES[line]} say {line!r}: say in WAYS how it is tried"
    way, program = WAYS[line], line.split()[0]
    if program != "mtenvs":
        assert way.parsed, f"nothing here runs {program}"
        return
    monkeypatch.chdir(workplace)
    words = words_of(line)
    if words[0] in DRAWING:
        request.getfixturevalue("gl")
    monkeypatch.setattr(cli, "estimate_cost", probe)
    called = only_reads(monkeypatch) if way.parsed else []
    if way.planned:
        monkeypatch.setattr(cli, "train", lambda directory, *_: called.append(directory))
        monkeypatch.setattr(cli, "report", called.append)
    if way.says:
        with pytest.raises(SystemExit):
            cli.main(words)
        assert way.says in capsys.readouterr().err
    elif not way.before:
        cli.main(words)
    if way.parsed:
        assert len(called) == 1
    elif way.planned:
        assert load_plan(called[0])["runs"]
        assert called == [called[0]] * 2  # trained, and reported
    elif "--out" in words:
        assert Path(words[words.index("--out") + 1]).exists()
    if way.writes:
        made, published = (
            {run["id"]: run for run in load_plan(place)["runs"]}
            for place in (Path(words[words.index("--out") + 1]), ROOT / "results" / way.writes)
        )
        assert made == published
    if way.before:
        directory = Path(words[words.index("--out") + 1])
        assert set(Store(directory).status().values()) <= set(COMPLETE)
        assert (directory / "report" / "index.html").is_file()


def test_no_way_is_of_a_line_that_is_gone() -> None:
    assert set(WAYS) <= set(LINES)
    assert MAKE
    assert PIP


@pytest.mark.parametrize("page", [page for page in TEXTS if blocks(page, SCRIPT)])
def test_a_script_is_one(page: str) -> None:
    # it needs Slurm, so that only its syntax and its last command are read
    (script,) = blocks(page, SCRIPT)
    subprocess.run(["bash", "-n"], input=script, text=True, check=True, timeout=60)
    (command,) = re.findall(r"^mtenvs (.*?) \|\|", script, re.MULTILINE)
    with pytest.MonkeyPatch.context() as patch:
        read = only_reads(patch)
        cli.main(shlex.split(command))
    assert len(read) == 1


def test_every_block_is_of_a_kind_that_is_tried() -> None:
    for page, text in TEXTS.items():
        languages = {language for language, _ in FENCED.findall(text)}
        assert languages <= {SHELL, SCRIPT, "python", *NOT_RUN}, page
        assert text.count("```") == 2 * len(FENCED.findall(text)), page


# --------------------------------------------------------------------------------------------------- make


@pytest.mark.parametrize("line", MAKE)
def test_what_make_would_do_is_there(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.run(
        [*shlex.split(line), "-n"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip(), f"{line} does nothing"
    read = only_reads(monkeypatch)
    for command in done.stdout.replace("\\\n", " ").splitlines():
        program, *words = shlex.split(command.split(" > ")[0], comments=True) or [""]
        if program.endswith("/mtenvs"):
            cli.main(words)
            assert read.pop()
        elif words[:1] == ["-m"]:
            assert importlib.util.find_spec(words[1]) is not None, command


def test_make_says_what_there_is() -> None:
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    targets = {line.split()[0] for line in done.stdout.splitlines()}
    named = {target for text in TEXTS.values() for target in re.findall(r"[`\n]make ([a-z-]+)", text)}
    assert {"quickstart", "results", "replicate", "docs", "soak"} <= named <= targets


@pytest.mark.parametrize("line", [line for line in MAKE if line.startswith("make bench ARGS")])
def test_benchmarks_that_are_named_exist(line: str) -> None:
    parts = importlib.import_module("benchmarks.parts")
    for name in shlex.split(line)[-1].removeprefix("ARGS=").split():
        assert any(known == name or known.startswith(f"{name}.") for known in parts.BENCHMARKS), name


# --------------------------------------------------------------------------------------------- installing


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``pip install .`` puts there, without what it depends on, which would need a network."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in ("mtenvs", "baselines", "harness"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*command, "--target", str(target), "."], cwd=source, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return target


def test_what_pip_installs_is_whole(installed: Path, tmp_path: Path) -> None:
    for package in ("mtenvs", "baselines", "harness"):
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix in {".py", ".json"}:
                assert (installed / path.relative_to(ROOT)).is_file(), path
    code = "import gymnasium, mtenvs; gymnasium.make('mt/Biped-v0').reset(seed=0); print(mtenvs.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert str(installed) in done.stdout
    assert (installed / "bin" / "mtenvs").is_file()


def test_extras_that_are_named_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {
        extra for text in TEXTS.values() for extra in re.findall(r"pip install '\.\[([a-z-]+)\]'", text)
    }
    (listed,) = re.findall(r"^More extras: (.*?)\n\n", TEXTS["README.md"], re.DOTALL | re.MULTILINE)
    more = set(re.findall(r"`([a-z0-9-]+)` \(", listed))
    assert {"train", "gpu"} <= named <= set(extras)
    assert named | more == set(extras) - {"bench", "dev", "docs"}  # which are for work on mtenvs itself
    for line in PIP:
        assert re.fullmatch(r"pip install ('\.\[[a-z-]+\]'|\.)", line), line


# ------------------------------------------------------------------------------------------------- Python

ENTRY = '"stilts"'
"""How a block begins that is a line of a family's file, and no program."""
SMALLER = {"docs/gpu.md": {"num_envs=32768": "num_envs=8", '"cuda"': '"cpu"', "range(100)": "range(3)"}}
"""What stands in the blocks of a page, and what is run instead."""
HOLDS = {
    "README.md": "assert observations.shape[0] == 256",
    "docs/index.md": "assert envs.reset(seed=0)[0].shape[0] == 256 and env.reset(seed=0)[1]['task'] == -1",
    "docs/environments.md": "assert env.reward_names == ('speed', 'effort') and envs.reset(seed=0)\n"
    "assert envs.step(envs.action_space.sample())[1].shape == (64, 2)",
    "docs/gpu.md": "assert envs.steps_taken == 24 and returns.abs().sum() > 0",
    "docs/reproducing.md": "assert len(rows) > 100",
}
"""What is true after a page's blocks were run, one after another."""


def programs(page: str) -> list[str]:
    return [code for code in blocks(page, "python") if not code.startswith(ENTRY)]


def test_every_page_with_a_program_is_tried() -> None:
    # the agent of docs/agents.md is a file, which the workplace has; the family of docs/bodies.md is one of
    # the package's, to which tests/test_new_family.py adds it
    assert {page for page in TEXTS if programs(page)} == {*HOLDS, "docs/agents.md", "docs/bodies.md"}


@pytest.mark.parametrize("page", HOLDS)
def test_the_programs_of_a_page_run(page: str) -> None:
    code = "".join(programs(page))
    for text, small in SMALLER.get(page, {}).items():
        assert text in code
        code = code.replace(text, small)
    subprocess.run([sys.executable, "-c", f"{code}\n{HOLDS[page]}\n"], cwd=ROOT, check=True, timeout=600)


def test_another_body_is_one_entry() -> None:
    (entry,) = {code for page in TEXTS for code in blocks(page, "python") if code.startswith(ENTRY)}
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


# -------------------------------------------------------------------------------- what is said in passing


def test_commands_and_options_that_are_spoken_of_exist(capsys: pytest.CaptureFixture[str]) -> None:
    def has(command: str) -> set[str]:
        if command not in known:
            with pytest.raises(SystemExit) as stop:
                cli.main([command, "--help"])
            assert stop.value.code == 0, command
            known[command] = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
        return known[command]

    known: dict[str, set[str]] = {}
    bare = set()
    for page, text in TEXTS.items():
        for span in re.findall(r"`([^`]+)`", FENCED.sub("", text)):
            words, given = span.split(), set(re.findall(r"(?<!\S)--[a-z-]+", span))
            if words[0] == "mtenvs" and len(words) > 1 and words[1].isalpha() and words[1].islower():
                assert given <= has(words[1]), f"{page} says {span}"
            elif words[0].startswith("--"):
                bare |= given
    assert len(known) > 10
    ours = {line.split()[1] for line in WAYS if line.startswith("mtenvs ")}
    assert bare <= set().union(*map(has, {*known, *ours}))


def test_files_and_figures_that_it_names_exist() -> None:
    text = TEXTS["README.md"]
    paths = [*re.findall(r"\]\((?!http)([^)#]+)", text), *re.findall(r'src="([^"]+)"', text)]
    assert len(paths) > 20
    for path in paths:
        assert (ROOT / path).exists(), path
    for page, anchor in re.findall(r"\]\(([^)#]+\.md)#([^)]+)\)", text):
        titles = re.findall(r"^#+ (.*)$", TEXTS[page], re.MULTILINE)
        assert anchor in {title.lower().replace(" ", "-") for title in titles}, f"{page}#{anchor}"


def test_modules_that_the_page_of_the_code_names_exist() -> None:
    (tree,) = blocks("docs/contributing.md", "text")
    known = {path.name for top in ("mtenvs", "baselines", "harness") for path in (ROOT / top).rglob("*.py")}
    named = set(re.findall(r"[a-z_0-9]+\.py", tree))
    assert len(named) > 40
    assert named <= known
    for folder in re.findall(r"([a-z_/]+)/ ", tree):
        assert any((ROOT / top / folder).is_dir() for top in ("", "mtenvs", "baselines", "harness")), folder


@pytest.mark.parametrize("name", PRESETS)
def test_the_table_of_presets_is_true(name: str) -> None:
    ((folds, seeds),) = re.findall(
        rf"^\| `{name}` \| (\w+) \| (\d+) \|", TEXTS["docs/experiment.md"], re.MULTILINE
    )
    preset = PRESETS[name]
    assert folds == ("all" if preset.folds is None else str(len(preset.folds)))
    assert int(seeds) == preset.seeds


def test_the_citation_is_whole_and_the_same_everywhere() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert cited["cff-version"] == "1.2.0"
    assert cited["message"]
    assert (cited["type"], cited["version"], cited["license"]) == (
        "software",
        project["version"],
        project["license"],
    )
    (entry,) = blocks("README.md", "bibtex")
    assert f"title = {{{cited['title']}}}" in entry
    assert [f"author = {{{{{author['name']}}}}}" in entry for author in cited["authors"]] == [True]
