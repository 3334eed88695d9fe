"""Writes tests/vectors/*.json: what the Python engine computes, for the engines in other languages to match.

`python tools/engine_vectors.py` writes them; `--check` fails where Python gives something else now. What each file
holds is in tests/vectors/README.md; the cases themselves are in engine_vectors_cases.py and engine_vectors_pictures.py.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import engine_vectors_cases
import engine_vectors_methods
import engine_vectors_pictures
from engine_vectors_cases import VectorFile

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "vectors"
FILES: dict[str, VectorFile] = {
    **engine_vectors_cases.FILES,
    **engine_vectors_methods.FILES,
    **engine_vectors_pictures.FILES,
}


def made(name: str) -> dict[str, Any]:
    """What a file should hold now, in JSON's own types."""
    file = FILES[name]
    return {
        "about": file.about,
        "tolerance": file.tolerance,
        "cases": [_plain(case, file.digits) for case in file.cases()],
    }


def _plain(value: Any, digits: int) -> Any:
    """Lists, numbers and texts; an array is its shape and its numbers row by row."""
    if isinstance(value, np.ndarray):
        return {"shape": list(value.shape), "data": [_plain(number, digits) for number in value.ravel().tolist()]}
    if isinstance(value, Mapping):
        return {key: _plain(entry, digits) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry, digits) for entry in value]
    if isinstance(value, np.generic):
        return _plain(value.item(), digits)
    return _rounded(value, digits) if isinstance(value, float) else value


def _rounded(value: float, digits: int) -> Any:
    """A number of so many digits; JSON has no NaN and no infinity, so those are texts."""
    if not math.isfinite(value):
        return str(value)
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 2**53 else short


def text(content: Mapping[str, Any]) -> str:
    """A file's text: a line for each case."""
    head = {key: value for key, value in content.items() if key != "cases"}
    lines = ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in content["cases"])
    return f'{json.dumps(head, ensure_ascii=False)[:-1]}, "cases": [\n{lines}\n]}}\n'


def differences(expected: Any, found: Any, tolerance: float, where: str = "") -> Iterator[str]:
    """Where two plain values differ by more than `tolerance`, of numbers above 1 as a share."""
    if isinstance(expected, dict) and isinstance(found, dict) and expected.keys() == found.keys():
        for key in expected:
            yield from differences(expected[key], found[key], tolerance, f"{where}.{key}")
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for place, (one, other) in enumerate(zip(expected, found, strict=True)):
            yield from differences(one, other, tolerance, f"{where}[{place}]")
    elif _number(expected) and _number(found):
        if abs(expected - found) > tolerance * max(1.0, abs(expected)):
            yield f"{where}: {expected} is recorded, {found} is found"
    elif expected != found:
        yield f"{where}: {expected!r} is recorded, {found!r} is found"


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def main() -> int:
    """Writes, or with --check compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file isn't current")
    arguments = parser.parse_args()
    wrong = 0
    for name in FILES:
        content, path = made(name), FOLDER / f"{name}.json"
        if not arguments.check:
            path.write_text(text(content), "utf-8")
            print(f"{path.name}: {len(content['cases'])} cases, {path.stat().st_size:,} bytes")
            continue
        recorded = json.loads(path.read_text("utf-8"))
        for line in differences(recorded, content, content["tolerance"]):
            print(f"{path.name}{line}", file=sys.stderr)
            wrong += 1
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
