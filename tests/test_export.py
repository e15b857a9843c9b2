from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
import pytest

import mtenvs
from harness.cli import main
from mtenvs.export import export

ASSETS = Path(__file__).parents[1] / "assets" / "xml"
# bodies that come from another package stay there
OURS = [family for name in mtenvs.families() if not (family := mtenvs.get_family(name)).source]
TASKS = [task for family in OURS for task in family.tasks]
of_our_own = pytest.mark.parametrize("task", TASKS, ids=lambda t: f"{t.family}-{t.number}-{t.name}")


def file_of(task: mtenvs.Task) -> Path:
    family = mtenvs.get_family(task.family)
    return ASSETS / f"{family.name}-v{family.version}" / f"{task.number}-{task.name}.xml"


@of_our_own
def test_file_and_generator_agree(task: mtenvs.Task) -> None:
    assert file_of(task).read_text(encoding="utf-8") == mtenvs.mjcf(task.family, task), "run `make export`"


def test_no_file_is_left_of_a_task_that_is_gone() -> None:
    assert set(ASSETS.rglob("*.xml")) == {file_of(t) for t in TASKS}
    assert TASKS


@of_our_own
def test_the_loaded_file_is_the_generated_model(task: mtenvs.Task) -> None:
    """Equal up to the six digits that MuJoCo writes."""
    loaded, built = mujoco.MjModel.from_xml_path(str(file_of(task))), mtenvs.model(task.family, task)
    for name in dir(built):
        value = getattr(built, name)
        if name.startswith("_") or not isinstance(value, (np.ndarray, int, float)):
            continue
        np.testing.assert_allclose(getattr(loaded, name), value, rtol=1e-5, atol=1e-5, err_msg=name)
    for name in ("timestep", "integrator", "solver", "iterations", "cone", "disableflags", "enableflags"):
        assert getattr(loaded.opt, name) == getattr(built.opt, name), name
    names = [[m.sensor(i).name for i in range(m.nsensor)] for m in (loaded, built)]
    assert names[0] == names[1]


def test_export_writes_what_it_returns(family: mtenvs.Family, tmp_path: Path) -> None:
    paths = export(tmp_path / "deep" / "xml", family.name)
    assert sorted(paths) == sorted((tmp_path / "deep").rglob("*.*"))
    assert [p.stem.split("-", 1) for p in paths] == [[str(t.number), t.name] for t in family.tasks]


def test_the_command_leaves_other_packages_bodies_where_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["export", "--out", str(tmp_path / "all")])
    assert {p.name for p in (tmp_path / "all").iterdir()} == {f"{f.name}-v{f.version}" for f in OURS}
    assert (
        len(list((tmp_path / "all").rglob("*.xml"))) == len(TASKS) == capsys.readouterr().out.count(".xml")
    )
    others = [name for name in mtenvs.families() if mtenvs.get_family(name).source]
    for name in others:  # unless asked for by name
        main(["export", name, "--out", str(tmp_path / "one")])
        assert len(list((tmp_path / "one").rglob("*.xml"))) == len(mtenvs.tasks(name))
    assert others


def test_what_is_exported_names_no_file_elsewhere(family: mtenvs.Family, tmp_path: Path) -> None:
    """It loads from any directory, textures and included files and all."""
    for path in export(tmp_path, family.name):
        moved = path.rename(tmp_path / path.name)
        assert mujoco.MjModel.from_xml_path(str(moved)).nu == mtenvs.model(family, path.stem[2:]).nu


def test_export_of_an_unknown_family_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown family 'Nobody'"):
        export(tmp_path / "xml", "Nobody")
    assert not list(tmp_path.iterdir())
