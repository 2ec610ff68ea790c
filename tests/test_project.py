"""The project's own files agree with each other."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from metric_learning import config

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "README.zh.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = {
    kind.command: kind for kind in (config.ElemOptions, config.PairOptions, config.EvalOptions, config.InferOptions)
}


def bounds(name: str, operator: str) -> dict[str, str]:
    found = {}
    for line in (ROOT / name).read_text().splitlines():
        match = re.match(rf"([A-Za-z0-9_-]+){operator}([0-9.]+)", line)
        if match:
            found[match[1]] = match[2].rstrip(".0") or "0"
    return found


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-cpu.txt"])
def test_ci_tests_the_lower_bounds_that_the_requirements_name(name: str) -> None:
    wanted = {k: v for k, v in bounds(name, ">=").items() if not k.startswith(("paddlepaddle", "setuptools"))}
    tested = bounds(".ci/lowest.txt", "==")
    assert wanted.keys() == tested.keys()
    assert all(tested[package].startswith(version) for package, version in wanted.items())


def test_both_requirements_ask_for_the_same_but_for_paddle() -> None:
    gpu, cpu = bounds("requirements.txt", ">="), bounds("requirements-cpu.txt", ">=")
    assert {k: v for k, v in gpu.items() if k in cpu} == {k: v for k, v in cpu.items() if k in gpu}
    assert gpu.keys() - cpu.keys() == {"paddlepaddle-gpu", "setuptools"}
    assert cpu.keys() - gpu.keys() == {"paddlepaddle"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", page.read_text())
    assert not [link for link in links if "://" not in link and not (page.parent / link).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_on_the_pages_have_only_flags_that_exist(page: Path) -> None:
    text = page.read_text().replace("\\\n", " ")
    for command, arguments in re.findall(r"python (\w+)\.py((?: +[^\s#|&`]+)*)", text):
        if command in COMMANDS:
            items = config.options(COMMANDS[command])
            known = {"help", *(name for item in items for name in (item.name, *item.metadata["also"]))}
            typed = set(re.findall(r"--([a-z_0-9]+)", arguments))
            assert typed <= known, f"{page.name}: {command}.py {sorted(typed - known)}"


def test_the_map_names_every_module() -> None:
    named = (ROOT / "CONTRIBUTING.md").read_text().partition("## To add")[0]
    root = ROOT / "metric_learning"
    names = [path.name for path in root.glob("*.py")] + [f"{path.parent.name}/" for path in root.glob("*/__init__.py")]
    names += [path.stem for path in (root / "stages").glob("*.py")]
    expected = {name for name in names if not name.startswith("__")}
    assert not {name for name in expected if not re.search(rf"(?<![\w/]){re.escape(name)}(?!\w)", named)}


def test_the_scripts_answer_help_without_paddle_and_numpy() -> None:
    for command in COMMANDS:
        code = (
            "import sys, runpy\n"
            f"sys.argv = ['{command}.py', '--help']\n"
            "try:\n"
            f"    runpy.run_path({str(ROOT / command) + '.py'!r}, run_name='__main__')\n"
            "except SystemExit as end:\n"
            "    assert end.code == 0\n"
            "assert 'paddle' not in sys.modules and 'numpy' not in sys.modules\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"usage: {command}.py")


def test_no_file_names_a_place_on_one_machine() -> None:
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT, check=False).stdout.split()
    texts = [ROOT / name for name in listed if name.endswith((".py", ".md", ".txt", ".toml", "run"))]
    places = re.compile(r"(?<![\w.])/(?:home|root|work|Users)/\w")
    assert not [str(path) for path in texts if path.name != Path(__file__).name and places.search(path.read_text())]
