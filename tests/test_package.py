"""pip install: what a wheel and an sdist hold, and that the package works from a new environment."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from metric_learning import __main__, __version__

ROOT = Path(__file__).resolve().parents[1]
BUILD = "import sys; from setuptools import build_meta as b; to = sys.argv[1]; b.build_sdist(to); b.build_wheel(to)"


def listed(*folders: str) -> set[str]:
    found = subprocess.run(["git", "ls-files", *folders], capture_output=True, text=True, cwd=ROOT, check=False)
    if found.returncode:
        pytest.skip("not a git checkout, so it is not known what belongs to the project")
    return set(found.stdout.splitlines())


def shown() -> set[str]:
    """The pictures that the pages of docs and the README show."""
    pages = [*ROOT.glob("README*.md"), *(ROOT / "docs").glob("*.md")]
    found = [(page, name) for page in pages for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text("utf-8"))]
    return {(page.parent / name).resolve().relative_to(ROOT).as_posix() for page, name in found if "://" not in name}


def test_the_package_asks_for_what_the_requirements_do():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def lines(name: str) -> list[str]:
        read = (line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
        return sorted(line for line in read if line)

    extras = project["optional-dependencies"]
    assert sorted([*project["dependencies"], *extras["cpu"]]) == lines("requirements-cpu.txt")
    assert sorted([*project["dependencies"], *extras["gpu"]]) == lines("requirements.txt")


def test_the_module_names_the_commands(capsys):
    assert __main__.main([]) == __main__.main(["--help"]) == 0
    assert re.findall(r"^  (\w+)", capsys.readouterr().out, re.M) == ["train_elem", "train_pair", "eval", "infer"] * 2
    assert __main__.main(["train_elm"]) == 2
    assert "Did you mean 'train_elem'?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        __main__.main(["infer", "--help"])
    assert "--pair" in capsys.readouterr().out


@pytest.mark.slow
def test_a_wheel_and_an_sdist_hold_the_package_and_it_runs_from_a_new_environment(tmp_path):
    pytest.importorskip("setuptools")
    tree, built = tmp_path / "tree", tmp_path / "built"
    files = listed()
    for name in files:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    built.mkdir()
    done = subprocess.run([sys.executable, "-c", BUILD, built], capture_output=True, text=True, cwd=tree, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    package = {name for name in files if name.startswith("metric_learning/")}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == package and "metric_learning/py.typed" in held
    with tarfile.open(sdist) as archive:
        sources = {name.partition("/")[2] for name in archive.getnames()}
    assert package | {"train_elem.py", "infer.py", "requirements.txt", "README.md", "docs/api.md"} <= sources
    assert shown() <= sources, shown() - sources
    assert not [name for name in sources if name.startswith(("tests", "benchmarks", ".ci", "output"))]

    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    python = home / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    code = (  # what it asks for is taken from the environment of these tests
        f"import sys; sys.path += {[p for p in sys.path if p.endswith('site-packages')]!r}\n"
        "import metric_learning, importlib.metadata as m\n"
        "from metric_learning.losses import TripletLoss\n"
        "import paddle\n"
        "loss = TripletLoss(mining='batch_hard')(paddle.rand([8, 4]), paddle.arange(8) // 2)\n"
        "needed = [line for line in m.requires('metric_learning') if 'extra ==' not in line]\n"
        "print(metric_learning.__file__, m.version('metric_learning'), loss.item() > 0, *needed, sep='|')"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    file, version, *rest = done.stdout.splitlines()[-1].split("|")
    assert file.startswith(str(home)) and version == __version__ and rest[0] == "True"
    assert any(line.startswith("numpy") for line in rest) and not any("paddle" in line for line in rest)
