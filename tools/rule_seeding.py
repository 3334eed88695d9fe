"""Where faults can stand in the derivative rules, a fair sample of them, and the tree of a module with one in it.

Error texts, docstrings, types and the conditions of refusals are left alone: what they say is no derivative.
"""

import ast
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from rule_mutations import changes

SUMS = ("sum_to", "_sum_to_at_run_time", "reshape_like", "expand_like", "zeros_like")
"""What of the emitter takes part in derivatives."""

Place = tuple[str, tuple[int, int]]
"""A function and the lines that run if the node does."""


@dataclass(frozen=True)
class Fault:
    """The `choice`-th change of the `number`-th node of a module's tree; `lines` must run for it to matter.

    `again` counts the same change within one function.
    """

    path: Path
    number: int
    choice: int
    kind: str
    function: str
    line: int
    lines: tuple[int, int]
    before: str
    after: str
    again: int

    def __str__(self) -> str:
        place = f"{self.path.stem}.{self.function}" + (f" #{self.again}" if self.again > 1 else "")
        return f"{place}: {self.before} → {self.after}"


def faults_of(path: Path) -> list[Fault]:
    """Every fault of a module, in the order of its text."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    defined = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    emitting = {function.name for function in defined if _emits(function)}
    places, found = dict(_places(tree)), list[Fault]()
    seen: Counter[tuple[str, str, str]] = Counter()
    for number, node in enumerate(ast.walk(tree)):
        if node not in places:
            continue
        function, lines = places[node]
        if isinstance(node, ast.Return) and function not in emitting:
            continue
        before = ast.unparse(node)
        texts = {before}
        for choice, (kind, changed) in enumerate(changes(node)):
            after = ast.unparse(ast.fix_missing_locations(changed))
            if after not in texts:
                texts.add(after)
                seen[function, before, after] += 1
                line, again = getattr(node, "lineno", lines[0]), seen[function, before, after]
                found.append(Fault(path, number, choice, kind, function, line, lines, before, after, again))
    return sorted(found, key=lambda fault: (fault.line, fault.number, fault.choice))


def faulty_tree(fault: Fault) -> ast.Module:
    """The module's tree with the fault in it."""
    tree = ast.parse(fault.path.read_text(encoding="utf-8"))
    node = list(ast.walk(tree))[fault.number]
    changed = changes(node)[fault.choice][1]

    class Replace(ast.NodeTransformer):
        def visit(self, at: ast.AST) -> ast.AST:
            return ast.copy_location(changed, at) if at is node else self.generic_visit(at)

    return ast.fix_missing_locations(Replace().visit(tree))


def sample(paths: list[Path], count: int, seed: int) -> list[Fault]:
    """`count` faults, one of every function in turn as long as it has any, so that no rule is left out.

    Their order is that of a checksum of their texts: a change elsewhere leaves a function's faults as they are.
    """

    def order(fault: Fault) -> int:
        return zlib.crc32(f"{seed} {fault}".encode())

    by_function: dict[tuple[Path, str], list[Fault]] = {}
    for fault in sorted((fault for path in paths for fault in faults_of(path)), key=order):
        by_function.setdefault((fault.path, fault.function), []).append(fault)
    chosen: list[Fault] = []
    for turn in zip_longest(*by_function.values()):
        room = max(count - len(chosen), 0 if chosen else len(turn))
        chosen += sorted((fault for fault in turn if fault is not None), key=order)[:room]
    return sorted(chosen, key=order)


def _emits(function: ast.FunctionDef) -> bool:
    """Whether what the function returns are values of the graph."""
    names = {name.id for name in ast.walk(function) if isinstance(name, ast.Name)}
    return "op" in names and "np.ndarray" not in ast.unparse(function.returns or ast.Constant(""))


def _places(tree: ast.Module) -> Iterator[tuple[ast.AST, Place]]:
    """The nodes that may be changed."""
    emitter = any(isinstance(part, ast.ClassDef) and part.name == "Emitter" for part in tree.body)

    def walk(node: ast.AST, place: Place) -> Iterator[tuple[ast.AST, Place]]:
        if not emitter or place[0] in SUMS:
            yield node, place
        for name, field in ast.iter_fields(node):
            for child in field if isinstance(field, list) else [field]:
                if isinstance(child, ast.AST) and not _is_spared(node, name, child):
                    yield from walk(child, _inside(child, *place))

    last = max(getattr(part, "end_lineno", 1) for part in tree.body)
    return walk(tree, ("", (1, last)))


def _inside(child: ast.AST, function: str, lines: tuple[int, int]) -> Place:
    """The place of what stands in `child`."""
    if isinstance(child, ast.FunctionDef) and not function:
        return child.name, (child.lineno, child.end_lineno or child.lineno)
    if function and isinstance(child, ast.stmt):
        end = child.body[0].lineno - 1 if hasattr(child, "body") else child.end_lineno
        return function, (child.lineno, max(end or 0, child.lineno))
    return function, lines


def _is_spared(node: ast.AST, name: str, child: ast.AST) -> bool:
    """Error texts, docstrings, annotations, what says when a rule refuses, imports."""
    if isinstance(child, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom) or name in ("annotation", "returns"):
        return True
    if isinstance(node, ast.If) and name == "test":
        return isinstance(node.body[-1], ast.Raise)
    return isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
