"""The Python engine still gives what is recorded for the engines in other languages."""

import json
from pathlib import Path

import pytest

import engine_vectors
from onnxplain.cams import CAMS
from onnxplain.integration import RULES
from onnxplain.plans import PLANS
from onnxplain.preprocessing import PRESETS
from onnxplain.solvers import SOLVERS
from onnxplain.summing import FINISH

MOST_BYTES = 300_000


def recorded(name):
    return json.loads((engine_vectors.FOLDER / f"{name}.json").read_text("utf-8"))


@pytest.mark.parametrize("name", engine_vectors.FILES)
def test_python_gives_what_is_recorded(name):
    before = recorded(name)
    found = list(engine_vectors.differences(before, engine_vectors.made(name), before["tolerance"]))
    assert not found, "\n".join(found[:5])


@pytest.mark.parametrize(
    ("name", "field", "known"),
    [
        ("plans", "rule", PLANS),
        ("integration", "rule", RULES),
        ("solvers", "solver", SOLVERS),
        ("cams", "call", CAMS),
        ("sums", "call", FINISH),
        ("preprocessing", "preset", PRESETS),
    ],
)
def test_every_registered_rule_has_a_case(name, field, known):
    assert set(known) <= {case.get(field) for case in recorded(name)["cases"]}


def test_files_are_listed_and_small():
    files = {path.stem: path.stat().st_size for path in engine_vectors.FOLDER.glob("*.json")}
    assert set(files) == set(engine_vectors.FILES)
    assert sum(files.values()) < MOST_BYTES
    listed = Path(engine_vectors.FOLDER, "README.md").read_text("utf-8")
    assert all(f"| `{name}` |" in listed for name in files)


def test_a_changed_number_is_found():
    """The comparison itself: numbers, texts, lengths and missing fields."""
    before = {"cases": [{"expected": [1.0, 2], "error": "a"}]}
    for other in ([1.0, 2.1], [1.0], [1.0, 2, 3], "x"):
        assert list(engine_vectors.differences(before, {"cases": [{"expected": other, "error": "a"}]}, 1e-3))
    assert list(engine_vectors.differences(before, {"cases": [{"expected": [1.0, 2]}]}, 1e-3))
    assert not list(engine_vectors.differences(before, {"cases": [{"expected": [1.0005, 2], "error": "a"}]}, 1e-3))
