"""Seeds faults in the derivative rules and looks whether their tests notice. `python3 tools/rule_faults.py --jobs 2`

Each fault is one change of one expression (see `rule_mutations.py`), applied in a process of its own, where the tests
of `tests/onnxplain_export/test_vjp*.py` that run the changed lines follow one another until one fails: the rules
against their oracles first, then ties, kinks, refusals and loops. Before, all tests must pass without a fault. Writes
`rule_faults.md`; exits with 1 where fewer than 99 % of the faults that change anything are caught.
"""

import argparse
import ast
import os
import pickle
import select
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from rule_equivalents import EQUIVALENT
from rule_seeding import Fault, faults_of, faulty_tree, sample

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "export" / "onnxplain_export"
TESTS = [
    ROOT / "tests" / "onnxplain_export" / f"test_{name}.py"
    for name in ("vjp", "vjp_control", "vjp_recurrent", "vjp_spatial", "vjp_ties", "control_flow", "quantized")
]
LEFT_OUT = "known_shapes_uses_portable_operators or large_tensors or torch_network or many_updates"
"""Tests that take long and aren't about a rule's numbers, or say again what others do."""
RESULT = Path(__file__).with_suffix(".md")
ENOUGH = 0.99
LONGEST = 120
"""Seconds for the tests of one fault; one that makes them hang is caught."""
COMPARED, FAILED, EQUAL, SURVIVED = "caught by a comparison", "caught by an error", "equivalent", "survived"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""A fork keeps no threads."""

Lines = dict[tuple[str, int], list[int]]
"""Which tests, by number, run a line."""
Failure = tuple[str, str] | None
"""The test that failed first and its error; None where all pass."""


@dataclass(frozen=True)
class Verdict:
    """What became of a fault: `how` it was caught, or survived, and `by` which test or for what reason."""

    fault: Fault
    how: str
    by: str


def faulty_files() -> list[Path]:
    """The modules that hold derivatives."""
    rules = sorted(PACKAGE.glob("vjp/*.py"))
    return [path for path in rules if path.stem not in ("__init__", "registry")] + [PACKAGE / "emitter.py"]


# In a process of its own


def execute_again(path: Path, tree: ast.Module) -> None:
    """Runs a loaded module's changed text in its place; what other modules imported from it by name is replaced."""
    from onnxplain_export.vjp import registry  # not before the tests are collected: pytest sets its path

    files = {module: getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
    ours = [module for module, file in files.items() if file.startswith(str(ROOT)) and "site-packages" not in file]
    module = next(module for module in ours if files[module] == str(path))
    before = dict(vars(module))
    refuse, registry._refuse_duplicate = registry._refuse_duplicate, lambda _: None
    exec(compile(tree, str(path), "exec"), vars(module))
    registry._refuse_duplicate = refuse
    for other in ours:
        for name, value in list(vars(other).items()):
            if other is not module and name in before and value is before[name]:
                setattr(other, name, vars(module)[name])


def first_failure(items: list[Any]) -> Failure:
    """Runs tests until one fails."""
    for item in items:
        for report in runtestprotocol(item, log=False, nextitem=None):
            if report.failed:
                crash = getattr(report.longrepr, "reprcrash", None)
                return item.name, (crash.message if crash else str(report.longrepr)).partition("\n")[0]
    return None


def failure_of(fault: Fault, items: list[Any]) -> Failure:
    """The failure that a fault causes."""
    try:
        execute_again(fault.path, faulty_tree(fault))
    except Exception as error:
        return "import", repr(error)
    return first_failure(items)


def covered_lines(items: list[Any]) -> tuple[Lines, Failure]:
    """Which lines of the rules each test runs, every module having been executed again without a fault; a failure."""
    for path in faulty_files():
        execute_again(path, ast.parse(path.read_text(encoding="utf-8")))
    files = {str(path) for path in faulty_files()}
    lines: dict[tuple[str, int], dict[int, None]] = {}
    number = 0

    def trace_line(frame: FrameType, _event: str, _argument: Any) -> Any:
        lines.setdefault((frame.f_code.co_filename, frame.f_lineno), {})[number] = None
        return trace_line

    def trace_call(frame: FrameType, event: str, argument: Any) -> Any:
        return trace_line(frame, event, argument) if frame.f_code.co_filename in files else None

    for number, item in enumerate(items):  # noqa: B007 (read by trace_line)
        sys.settrace(trace_call)
        failure = first_failure([item])
        sys.settrace(None)
        if failure is not None:
            return {}, failure
    return {line: list(tests) for line, tests in lines.items()}, None


def in_a_fork(work: Callable[[], Any], seconds: int) -> int:
    """Starts `work` in a fork that says nothing; returns the pipe that its pickled result comes through."""
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        return reading
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    signal.alarm(seconds)
    try:
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(work(), pipe)
    finally:
        os._exit(0)


def results(tasks: Iterable[tuple[Any, Callable[[], Any]]], jobs: int, seconds: int) -> Iterator[tuple[Any, Any]]:
    """(key, result) of each task as it ends; the result is None where its process died or took too long."""
    waiting, running = iter(tasks), dict[int, Any]()
    while True:
        while len(running) < jobs and (task := next(waiting, None)) is not None:
            running[in_a_fork(task[1], seconds)] = task[0]
        if not running:
            return
        pipe = select.select(list(running), [], [])[0][0]
        with os.fdopen(pipe, "rb") as stream:
            content = stream.read()
        os.wait()
        yield running.pop(pipe), pickle.loads(content) if content else None


# The run


@dataclass
class Faults:
    """A pytest plugin that, in place of running the collected tests once, runs them against every fault."""

    faults: list[Fault]
    jobs: int
    verdicts: list[Verdict] = field(default_factory=list)
    tests: int = 0

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """The tests without a fault, then the faults."""
        if session.testsfailed:
            return False
        items = sorted(session.items, key=lambda item: not item.name.startswith("test_rule["))
        self.tests = len(items)
        ((_, found),) = results([(None, lambda: covered_lines(items))], 1, 1200)
        if found is None or found[1] is not None:
            pytest.exit(f"without a fault: {found and found[1]}", 2)
        print(f"without a fault {len(items)} tests pass", flush=True)
        tasks = ((fault, self._task(fault, items, found[0])) for fault in self.faults)
        start = time.monotonic()
        for fault, answer in results(tasks, self.jobs, LONGEST):
            last = verdict_on(fault, answer)
            self.verdicts.append(last)
            if last.how == SURVIVED or len(self.verdicts) % 100 == 0:
                done = f"{len(self.verdicts)} faults, {time.monotonic() - start:.0f} s: {last.how}"
                print(f"{done} {fault.path.name}:{fault.line} {fault.kind}: {fault} ({last.by})", flush=True)
        return True

    @staticmethod
    def _task(fault: Fault, items: list[Any], lines: Lines) -> Callable[[], Any]:
        first, last = fault.lines
        numbers = {test for line in range(first, last + 1) for test in lines.get((str(fault.path), line), [])}
        chosen = [items[number] for number in sorted(numbers)]
        return lambda: (len(chosen), failure_of(fault, chosen))


def verdict_on(fault: Fault, answer: tuple[int, Failure] | None) -> Verdict:
    """What the fault's process says, None where it died."""
    tests, failure = (0, ("the end of the process", "")) if answer is None else answer
    reason = EQUIVALENT.get(str(fault))
    if failure is None:
        return Verdict(fault, EQUAL if reason else SURVIVED, reason or f"{tests} tests pass")
    if reason:
        return Verdict(fault, SURVIVED, f"listed as equivalent, but {failure[0]} fails")
    compared = failure[1].startswith(("AssertionError", "assert", "Failed")) and "graph is invalid" not in failure[1]
    return Verdict(fault, COMPARED if compared else FAILED, failure[0])


def share(verdicts: list[Verdict]) -> float:
    """The part that was caught of the faults that change anything."""
    count = Counter(verdict.how for verdict in verdicts)
    caught = count[COMPARED] + count[FAILED]
    return caught / max(caught + count[SURVIVED], 1)


def table(verdicts: list[Verdict], heading: str, key: Callable[[Fault], str]) -> list[str]:
    """The numbers of faults by kind or family, as rows of Markdown."""
    columns = (COMPARED, FAILED, EQUAL, SURVIVED)
    rows = [f"| {heading} | seeded | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]
    for name in [*sorted({key(verdict.fault) for verdict in verdicts}), "**all**"]:
        count = Counter(verdict.how for verdict in verdicts if name in ("**all**", key(verdict.fault)))
        rows.append(f"| {name} | {count.total()} | {' | '.join(str(count[column]) for column in columns)} |")
    return rows


def report(verdicts: list[Verdict], tests: int, command: str) -> str:
    """The result file."""
    catchers = Counter(v.by.partition("[")[0] for v in verdicts if v.how in (COMPARED, FAILED))
    places = len({(v.fault.path, v.fault.function) for v in verdicts})
    versions = ", ".join(f"{name} {version(name)}" for name in ("onnx", "onnxruntime", "torch"))
    lines = [
        "# Faults seeded in the derivative rules",
        "",
        f"`{command}`: {len(verdicts)} faults in {places} functions, {tests} tests; {share(verdicts):.2%} of what",
        f"changes anything is caught. Python {sys.version.split()[0]}, {versions}.",
        "",
        *table(verdicts, "kind", lambda fault: fault.kind),
        "",
        *table(verdicts, "family", lambda fault: fault.path.stem),
        "",
        "Caught first by " + ", ".join(f"`{name}` ({number})" for name, number in catchers.most_common()) + ".",
    ]
    for how, title in ((SURVIVED, "Survivors"), (EQUAL, "Equivalent: no derivative changes")):
        found = sorted((v for v in verdicts if v.how == how), key=lambda v: str(v.fault))
        lines += ["", f"## {title}", "", *([f"- `{v.fault}`: {v.by}" for v in found] or ["None."])]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Runs the faults; 0 where enough are caught."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=600, help="how many (600)")
    parser.add_argument("--seed", type=int, default=0, help="which of all possible ones (0)")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time (1)")
    parser.add_argument("--only", help="of all possible ones those whose description holds this text; writes no file")
    arguments = parser.parse_args()
    if ONE_THREAD.items() - os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ONE_THREAD})
    stale = EQUIVALENT.keys() - {str(fault) for path in faulty_files() for fault in faults_of(path)}
    if stale:
        parser.error(f"rule_equivalents.py names changes that can't be made any more: {', '.join(stale)}")
    chosen = sample(faulty_files(), arguments.faults if arguments.only is None else sys.maxsize, arguments.seed)
    plugin = Faults([fault for fault in chosen if (arguments.only or "") in str(fault)], arguments.jobs)
    options = ["-q", "-s", "-p", "no:cacheprovider", "-p", "no:faulthandler", "--no-header", "--rootdir", str(ROOT)]
    code = pytest.main([*options, "-k", f"not ({LEFT_OUT})", *map(str, TESTS)], plugins=[plugin])
    if not plugin.verdicts:
        return int(code) or 1
    command = f"python3 tools/rule_faults.py --faults {arguments.faults} --seed {arguments.seed}"
    text = report(plugin.verdicts, plugin.tests, command)
    print(text)
    if arguments.only is None:
        RESULT.write_text(text, encoding="utf-8")
    return 0 if share(plugin.verdicts) >= ENOUGH else 1


if __name__ == "__main__":
    sys.exit(main())
