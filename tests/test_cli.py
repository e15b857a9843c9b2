"""The command line, from words to files and messages."""

import re
import sys
import tomllib
from pathlib import Path

import psutil
import pytest
from helpers import needs_gl
from matplotlib.image import imread
from test_rendering import on_linux

import harness.__main__
import harness.run
import mtenvs
from baselines.checkpoint import Lessons, save_checkpoint
from baselines.registry import make_learner
from harness.cli import main
from mtenvs.export import export
from mtenvs.vector_env import TaskVectorEnv

ROOT = Path(__file__).parents[1]
SOURCES = len(mtenvs.tasks("Biped")) - 1
TINY = (
    f"--preset quick --folds 5 --seeds 2 --budget {128 * SOURCES} --pretrain-budget {64 * SOURCES} "
    f"--worlds-per-run {SOURCES} --checkpoints 4 --episodes 2 --first-episodes 100"
)


def test_loo_plans_trains_and_reports(tmp_path, capsys):
    out = tmp_path / "loo [/b]"
    words = [*TINY.split(), "--title", "a [/b]", "--out", str(out)]
    main(["loo", "Biped", *words])
    page = out / "report" / "index.html"
    assert "<h1>Biped: a [/b]" in page.read_text()
    out = capsys.readouterr().out
    assert "Biped: a [/b]: 1 fold x 2 seeds" in out
    assert f"report: {page}" in out
    assert "child" in out
    main(["loo", "Biped", *words])
    assert "nothing left to train" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tasks", "Bipd"], "did you mean 'Biped'"),
        (["loo", "Biped", "--preset", "quik"], "valid: quick, standard"),
        (["loo", "Biped", "--preset", "quick", "--agent", "sac"], "did you mean 'sb3:sac'"),
        (["plan", "Biped", "--processes", "0"], "processes must be positive, got 0"),
        (
            ["loo", "Biped", "--agent", "sb3:sac", "--architecture", "film"],
            "has no choice of architectures",
        ),
        (
            ["loo", "Biped", "--architecture", "film", "--hyperparameters", "architecture=own_layers"],
            "the architecture is given twice",
        ),
        (["loo", "Biped", "--architecture", "film", "--conditioning", "none"], "it is told nothing"),
        (["loo", "Biped", "--conditioning", "onehot"], "did you mean 'one_hot'"),
        (["loo", "Biped", "--arms", "scratch", "single-source"], "did you mean 'single_source'"),
        (["joint", "Biped", "--joint-arms", "join"], "did you mean 'joint'"),
        (["plan", "Biped", "--kind", "joint", "--arms", "scratch", "transfer"], "no use for --arms"),
        (["run", "nowhere"], "holds no plan.json"),
        (["report", "nowhere"], "holds no plan.json"),
        (
            ["loo", "Biped", *TINY.split(), "--device", "cdua"],
            "no device 'cdua' on this machine; valid: cpu",
        ),
        (["loo", "Biped", "--preset", "[/b]"], "unknown preset '[/b]'"),
        (["reference", "Bipd"], "did you mean 'Biped'"),
        (["export", "Bipd"], "did you mean 'Biped'"),
        (["sheet", "Bipd"], "did you mean 'Biped'"),
        (["sheet"], "name either a family, or a directory for all of them with --all"),
        (["sheet", "Biped", "--all", "here"], "name either a family, or a directory for all"),
        (["tasks", "Biped", "--readme", "README.md"], "are about all families: leave out 'Biped'"),
        (["sheet", "Biped", "--out", "sheet.abc"], "cannot write a picture to 'sheet.abc'"),
        (["view", "Bipd"], "did you mean 'Biped'"),
        (["view", "Biped", "--task", "long-shin"], "did you mean 'long-shins'"),
        (["view", "Biped", "--policy", "nowhere"], "no checkpoint in nowhere"),
        (["view", "Biped", "--policy", "nowhere", "--random"], "--policy or --random, not both"),
        (["video", "Bipd"], "did you mean 'Biped'"),
        (["video", "Foo"], f"unknown family 'Foo'; valid: {', '.join(mtenvs.families())}, AllFamilies"),
        (["video", "Biped", "--task", "8"], "unknown task number 8"),
        (["video", "AllFamilies", "--task", "long-shins"], "is written FAMILY/TASK"),
        (["video", "Biped", "--out", "walk.avi"], "cannot write a video to 'walk.avi'; valid: .mp4, .gif"),
        (["video", "Biped", "--seconds", "0"], "seconds must be positive, got 0.0"),
        (["video", "Biped", "--seconds", "nan"], "seconds must be positive, got nan"),
        (["video", "Biped", "--width", "63"], "even for an MP4, got 63 x 480"),
        (["video", "Biped", "--seed", "-1"], "seed must not be negative, got -1"),
        (["video", "Biped", "--policy", "nowhere"], "no checkpoint in nowhere"),
    ],
)
def test_bad_input_ends_with_a_message_and_touches_nothing(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    printed = capsys.readouterr()
    assert message in " ".join(printed.err.split())
    assert not printed.out
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("command", ["joint", "matrix"])
def test_the_other_experiments_plan_train_and_report(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(harness.run, "PROBE_SECONDS", 0.2)
    out = tmp_path / command
    words = TINY.replace("--folds 5", "--folds 0 5").replace("--seeds 2", "--seeds 1").split()
    words += ["--worlds-per-run", "2", "--processes", "1", "--out", str(out)]
    main(["plan", "Biped", "--kind", command, *words])
    printed = capsys.readouterr().out
    assert {"joint": "joint-wide", "matrix": "from=nominal"}[command] in printed
    assert re.search(r"about \d+ min here", printed)
    main([command, "Biped", *words])  # the same plan, found there
    printed = capsys.readouterr().out
    assert f"report: {out / 'report' / 'index.html'}" in printed
    assert (out / "report" / "index.html").stat().st_size > 10_000
    main(["run", str(out)])
    assert "nothing left to train" in capsys.readouterr().out


def test_loo_leaves_a_foreign_directory_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(SystemExit):
        main(["loo", "Biped", *TINY.split(), "--out", str(tmp_path)])
    assert "is not empty" in " ".join(capsys.readouterr().err.split())
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_the_set_of_all_families_is_listed_with_its_numbers(capsys):
    tasks = mtenvs.tasks("AllFamilies")
    main(["tasks"])
    printed = capsys.readouterr().out
    assert re.search(rf"mt/AllFamilies-v0 +│ {len(tasks)} ", printed)
    assert "written FAMILY/TASK" in printed  # a table is wrapped to the terminal
    main(["tasks", "AllFamilies"])
    printed = capsys.readouterr().out
    for number, task in enumerate(tasks):
        assert re.search(rf"│ {number} +│ {task.family}/{task.name} ", printed)


def test_the_version_is_printed(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"mtenvs {mtenvs.__version__}\n"


def test_tasks_and_plan_print_what_there_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(harness.run, "PROBE_SECONDS", 0.2)
    main(["tasks"])
    main(["tasks", "Biped"])
    main(
        [
            "plan",
            "Biped",
            "--preset",
            "quick",
            "--worlds-per-run",
            str(SOURCES),
            "--out",
            str(tmp_path / "p"),
        ]
    )
    out = capsys.readouterr().out
    assert "mt/Biped-v0" in out
    assert "limping" in out
    assert "18 runs" in out
    assert "│ pretrain │ transfer │ nothing           │ 6    │ 2     │" in out
    assert "held out: long-shins, child" in out
    assert "no training task is nearer to a held-out one than 0.87 " in out
    assert re.search(
        r"about (\d+ min|\d+\.\d h) here \([\d,]+ steps/s trained, [\d,]+ evaluated\), \d+ MB", out
    )
    for words, message in (
        (["plan", "Biped", *TINY.split(), "--out", str(tmp_path / "p")], "another plan"),
        (["report", str(tmp_path / "p")], f"nothing trained yet: mtenvs run {tmp_path / 'p'}"),
        (["run", str(tmp_path / "p"), "--device", "cdua"], "no device 'cdua' on this machine; valid: cpu"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 2
        printed = capsys.readouterr()
        assert message in printed.err
        assert not printed.out  # no progress bar either
    assert [path.name for path in (tmp_path / "p").iterdir()] == ["plan.json"]


def test_only_what_the_extra_brings_is_called_missing(monkeypatch):
    """Anything else that cannot be imported is a mistake, as in a family of one's own."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {"scikit-learn": "sklearn"}
    packages = [re.split("[<>=]", line)[0] for line in extras["train"]]
    brought = [names.get(name, name.replace("-", "_")) for name in packages]
    assert sorted(harness.__main__.TRAIN) == sorted(brought)
    monkeypatch.delitem(sys.modules, "harness.cli")
    monkeypatch.setitem(sys.modules, "tyro", None)
    with pytest.raises(SystemExit, match=r"the command line needs tyro: pip install 'mtenvs\[train\]'"):
        harness.__main__.main()
    monkeypatch.undo()

    def needs_psutil() -> None:
        raise ModuleNotFoundError("No module named 'psutil'", name="psutil")

    # which is imported where it is used
    monkeypatch.setattr(harness.cli, "main", needs_psutil)
    with pytest.raises(SystemExit, match=r"the command line needs psutil: pip install 'mtenvs\[train\]'"):
        harness.__main__.main()
    monkeypatch.undo()
    monkeypatch.delitem(sys.modules, "harness.cli")
    monkeypatch.setitem(sys.modules, "harness.catalogue", None)
    with pytest.raises(ModuleNotFoundError, match=r"harness\.catalogue"):
        harness.__main__.main()


@pytest.mark.parametrize("words", [[], ["Biped"]])
def test_export_writes_every_task(words, tmp_path, capsys):
    main(["export", *words, "--out", str(tmp_path / "xml")])
    printed = capsys.readouterr().out.split()
    names = words or [name for name in mtenvs.families() if not mtenvs.get_family(name).source]
    expected = [path for name in names for path in export(tmp_path / "again", name)]
    assert [p.replace("/xml/", "/again/") for p in printed] == [str(p) for p in expected]
    for path, again in zip(printed, expected, strict=True):
        assert Path(path).read_text() == again.read_text()


@needs_gl
def test_sheet_draws_every_task(tmp_path, capsys):
    path = tmp_path / "sheet.png"
    main(["sheet", "Biped", "--out", str(path)])
    assert f"wrote {path}" in capsys.readouterr().out
    picture = imread(path)
    assert picture.shape[1] > 1600
    assert picture[..., :3].std() > 0.05


def test_sheets_of_all_families_have_their_names(monkeypatch):
    drawn = []
    monkeypatch.setattr("harness.cli.sheet", lambda family, path: drawn.append((family, path)))
    main(["sheet", "--all", "docs"])
    assert drawn == [(name, Path("docs") / f"{name}.png") for name in mtenvs.families()]


@needs_gl
def test_video_films_and_says_how_it_went(tmp_path, capsys):
    path = tmp_path / "walk.gif"
    words = ["--random", "--seconds", "0.2", "--width", "40", "--height", "30", "--out", str(path)]
    main(["video", "AllFamilies", "--task", "Biped/long-shins", *words])
    *bar, episode, wrote = capsys.readouterr().out.splitlines()
    assert "filming" in bar[-1]
    assert "10/10 frames" in bar[-1]
    assert bar[0] == "mt/AllFamilies-v0, task long-shins"
    assert episode.startswith("1 episode: return ")
    assert episode.endswith(", no success, unfinished")
    assert wrote == f"wrote {path}"
    assert imread(path).shape[:2] == (30, 40)


@pytest.mark.parametrize("command", ["view", "video"])
def test_a_policy_of_another_family_is_refused_by_name(command, tmp_path, monkeypatch, capsys):
    save_checkpoint(tmp_path / "policy", {}, {"learner": "ppo", "family": "mt/Octopus-v0"})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main([command, "Biped", "--policy", "policy"])
    assert stop.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "checkpoint policy is a policy of 'mt/Octopus-v0', not of 'mt/Biped-v0'" in said
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]


@on_linux
@pytest.mark.parametrize("words", [[], ["--random"]])
def test_view_without_a_display_names_the_command_that_films(words, monkeypatch, capsys):
    for variable in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(SystemExit) as stop:
        main(["view", "Biped", "--task", "long-shins", *words])
    assert stop.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert said.endswith(" ".join(["film the task instead: mtenvs video Biped --task long-shins", *words]))


def test_what_is_to_be_typed_instead_of_view_is_all_that_was_asked():
    view = harness.cli.View("Biped", "3", Path("a network"), "my_agent:SmallPPO", seed=2)
    told = view.words()
    assert told == "Biped --task 3 --policy 'a network' --agent my_agent:SmallPPO --seed 2"


@pytest.mark.parametrize(
    ("kind", "unused", "used"),
    [
        ("loo", {"--joint-arms"}, {"--arms", "--pretrain-budget", "--new-code"}),
        ("joint", {"--arms", "--pretrain-budget", "--freeze-trunk", "--headline"}, {"--joint-arms"}),
        (
            "matrix",
            {"--arms", "--finetunes", "--joint-arms", "--headline", "--break-even-threshold"},
            {"--pretrain-budget", "--freeze-trunk"},
        ),
    ],
)
def test_commands_offer_what_their_experiment_has_a_use_for(kind, unused, used, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([kind, "--help"])
    offered = {*re.findall(r"(?<!\S)--[a-z-]+", capsys.readouterr().out)}
    assert used | {"--folds", "--seeds", "--budget"} <= offered
    assert not unused & offered
    # where a plan is asked for by its kind, all options are there, and those are refused by name
    value = {"--freeze-trunk": [], "--headline": ["not_yet_solved"]}
    for option in sorted(unused):
        words = [option, *value.get(option, ["scratch"] if option.endswith("arms") else ["7"])]
        with pytest.raises(SystemExit):
            main(["plan", "Biped", "--kind", kind, "--preset=quick", "--out", str(tmp_path / "a"), *words])
        assert f"no use for {option}" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "a").exists()


def test_a_training_tells_a_file_how_far_it_is(monkeypatch, capsys):
    """Where no bar can be drawn, a line now and then."""
    monkeypatch.setattr(harness.cli, "TELL_SECONDS", -1.0)
    harness.cli.with_bar("training", 8000, lambda advance: [advance(3000), advance(5000)])
    said = capsys.readouterr().out.splitlines()
    assert "training: 3 of 8 k steps" in said
    assert "training: 8 of 8 k steps" in said


def test_a_plan_that_may_not_fit_into_the_memory_says_so(tmp_path, monkeypatch, capsys):
    free = psutil.virtual_memory()._replace(available=10_000_000_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    for memory, warned in ((7.5, True), (6.5, False), (float("nan"), False)):
        cost = harness.run.Cost(0.1, 1.0, 1.0, 1.0, memory)
        monkeypatch.setattr(harness.cli, "estimate_cost", lambda *_, cost=cost: cost)
        main(["plan", "Biped", *TINY.split(), "--out", str(tmp_path / "a")])
        said = capsys.readouterr().out
        told = "training takes 7.5 GB of memory or more, and 10.0 are free, of which 70% should do"
        assert (told in " ".join(said.split())) == warned


def test_what_is_unusual_or_in_vain_is_said_when_it_is_planned(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(harness.cli, "estimate_cost", lambda *_: harness.run.Cost(0.1, 1.0, 1.0, 1.0))
    words = ["Biped", *TINY.split(), "--out"]
    main(["plan", *words, str(tmp_path / "a"), "--agent", "sb3:sac", "--hyperparameters", "gamma=0.98"])
    said = capsys.readouterr().out
    assert "note: agent sb3:sac learns nothing in its first 10,000 steps (learning_starts)" in said
    assert "runs of scratch, transfer have" in said
    assert "not the usual experiment: gamma=0.98" in said
    main(["plan", *words, str(tmp_path / "b"), "--freeze-trunk"])
    said = capsys.readouterr().out
    assert "note:" not in said
    assert "not the usual experiment: freeze_trunk" in said
    # no arm of a joint experiment is told nothing, as blind is, which own layers cannot be
    words = ["--preset", "standard", "--architecture", "own_layers", "--conditioning", "one_hot"]
    main(
        ["plan", "Biped", "--kind", "joint", "--joint-arms", "joint", *words, "--out", str(tmp_path / "c")]
    )
    assert "agent ppo (own_layers)" in capsys.readouterr().out


def test_who_watches_a_network_hears_what_it_was_taught(tmp_path, monkeypatch, capsys):
    worlds = TaskVectorEnv("Biped", num_envs=1)
    make_learner("ppo", {}, worlds, [0]).save(0, tmp_path / "policy")
    code = worlds.observation_slices.code
    Lessons(("child",), (0.0,) * (code.stop - code.start)).write(tmp_path / "policy")
    words = ["record", "Biped", "--policy", str(tmp_path / "policy"), "--episodes", "1", "--out"]
    main([*words, str(tmp_path / "data")])
    said = capsys.readouterr().out
    assert "note: this network was last trained on child, not on nominal" in said
    assert "note: it was taught with the mean of its sources' codes" in said
    main([*words, str(tmp_path / "again"), "--task", "child"])
    assert "was last trained on" not in capsys.readouterr().out
    for text, message in (
        ("{", "JSONDecodeError"),
        ('{"tasks": [], "code": [0]}', "its code has 1 numbers: [0.0]"),
    ):
        (tmp_path / "policy" / "lessons.json").write_text(text)
        with pytest.raises(SystemExit):
            main([*words, str(tmp_path / "third")])
        assert message in " ".join(capsys.readouterr().err.split())
