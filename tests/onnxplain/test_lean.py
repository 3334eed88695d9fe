"""The engine needs numpy and onnxruntime alone; each fact is tried in a fresh process."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import onnxplain

PACKAGE = Path(onnxplain.__file__).parent
ROOT = PACKAGE.parent
MODULES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for file in PACKAGE.rglob("*.py")
    if file.name not in ("__init__.py", "__main__.py")
)
# cli.py loads the commands of onnxplain_export by name, when one of them is asked for: the one exception, checked
# below.
ALLOWED = {"onnxplain", "numpy", "onnxruntime"}


def run(code):
    finished = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.split()


def loaded_by(code):
    """The top-level modules that the code loads beyond those of a bare interpreter with numpy and onnxruntime."""
    # What onnxruntime itself drags in is its own affair, and differs between its versions.
    before = "import numpy, onnxruntime\nbefore = {name.partition('.')[0] for name in sys.modules}\n"
    after = "\nprint(*({name.partition('.')[0] for name in sys.modules} - before))"
    return set(run(before + code + after)) - set(sys.stdlib_module_names)


def test_importing_the_package_loads_nothing_else():
    assert loaded_by("import onnxplain") <= ALLOWED


def test_importing_every_module_loads_nothing_else():
    assert loaded_by("\n".join(f"import {name}" for name in MODULES)) <= ALLOWED


def test_the_test_would_notice_another_package():
    assert "cv2" in loaded_by("import onnxplain, cv2")


def test_the_package_works_where_the_heavy_ones_can_not_be_imported():
    absent = ("onnx", "onnx_ir", "torch", "cv2", "tqdm", "onnxplain_export")
    block = "".join(f"sys.modules[{name!r}] = None\n" for name in absent)
    run(f"{block}import onnxplain, onnxplain.cli")


@pytest.mark.parametrize("command", ["export", "check"])
def test_commands_of_the_other_package_say_what_to_install_where_it_is_not(command):
    block = "sys.modules['onnxplain_export'] = None\n"
    code = f"from onnxplain.cli import main\nassert main([{command!r}, 'x.onnx']) == 2"
    finished = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{block}{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert 'pip install "onnxplain[cpu,export]"' in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


def test_the_version_is_that_of_the_distribution():
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]
    assert onnxplain.__version__ == project["version"]


def test_all_names_that_are_promised_are_there():
    assert sorted(onnxplain.__all__) == onnxplain.__all__
    for name in onnxplain.__all__:
        assert hasattr(onnxplain, name)


def test_the_base_dependencies_are_three():
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]
    names = {line.partition(">")[0] for line in project["dependencies"]}
    assert names == {"numpy", "opencv-python", "tqdm"}


def without_onnxruntime(started_as):
    code = f"sys.argv = [{started_as!r}]\nsys.modules['onnxruntime'] = None\nimport onnxplain.cli"
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_onnxruntime_the_command_says_one_line():
    finished = without_onnxruntime("bin/onnxplain")
    assert finished.returncode == 2
    assert finished.stderr.startswith("onnxplain: onnxplain needs onnxruntime: pip install")
    assert len(finished.stderr.splitlines()) == 1


def test_without_onnxruntime_a_programs_import_fails():
    finished = without_onnxruntime("program.py")
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[-1].startswith("ImportError: onnxplain needs onnxruntime: pip install")
