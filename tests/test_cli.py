"""The command line, from words to files and messages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.image import imread
from test_rendering import gl_library

import mtenvs
from harness.cli import main
from mtenvs.export import export

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
    assert "Biped: a [/b]: 1 folds x 2 seeds" in out
    assert f"report: {page}" in out
    assert "child" in out
    main(["loo", "Biped", *words])
    assert "nothing left to train" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tasks", "Bipd"], "did you mean 'Biped'"),
        (["loo", "Biped", "--preset", "quik"], "valid: quick, standard"),
        (["loo", "Biped", "--preset", "quick", "--learner", "sac"], "unknown learner 'sac'"),
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


def test_loo_leaves_a_foreign_directory_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(SystemExit):
        main(["loo", "Biped", *TINY.split(), "--out", str(tmp_path)])
    assert "is not empty" in " ".join(capsys.readouterr().err.split())
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_tasks_and_plan_print_what_there_is(tmp_path, capsys):
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
    with pytest.raises(SystemExit) as stop:
        main(["plan", "Biped", *TINY.split(), "--out", str(tmp_path / "p")])
    assert stop.value.code == 2
    assert "another plan" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["Biped"]])
def test_export_writes_every_task(words, tmp_path, capsys):
    main(["export", *words, "--out", str(tmp_path / "xml")])
    printed = capsys.readouterr().out.split()
    names = words or mtenvs.families()
    expected = [path for name in names for path in export(tmp_path / "again", name)]
    assert [p.replace("/xml/", "/again/") for p in printed] == [str(p) for p in expected]
    for path, again in zip(printed, expected, strict=True):
        assert Path(path).read_text() == again.read_text()


def test_sheet_draws_every_task(tmp_path):
    library = gl_library()
    if library is None:
        pytest.skip("no OpenGL library: neither MUJOCO_GL, a display nor libosmesa6")
    path = tmp_path / "sheet.png"
    # in a process of its own: which OpenGL library MuJoCo takes is decided at import
    run = subprocess.run(
        [sys.executable, "-m", "harness", "sheet", "Biped", "--out", str(path)],
        env={**os.environ, "MUJOCO_GL": library},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert f"wrote {path}" in run.stdout
    picture = imread(path)
    assert picture.shape[1] > 800
    assert picture[..., :3].std() > 0.05
