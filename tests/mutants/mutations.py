"""Mutations of a module: small changes of its code, each of which a test should notice.

The changes of operators, keywords and constants are mutmut's. mutmut's own runner is not used: it changes functions
without a decorator only, and a DAG, a pydantic model and a module's constants are none. What is said to people
(docstrings, log lines, texts of errors) and types are left alone.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest

import libcst as cst
import libcst.matchers as m
from libcst.metadata import ByteSpanPositionProvider, CodeSpan, MetadataWrapper
from mutmut.mutation import mutators

#: Their calls only say something.
SPEAKERS = m.Name("log") | m.Name("logger") | m.Name("warnings") | m.Name("LOG")
#: Keyword arguments that only say something.
SAYINGS = {"description", "doc_md", "help", "title", "message"}
#: Those without which nothing is decided otherwise: texts are UTF-8 here as well as there, indented or not.
UNNOTICED = SAYINGS | {"encoding", "indent"}
CONDITION_OPERATORS = (
    mutators.operator_name,
    mutators.operator_remove_unary_ops,
    mutators.operator_keywords,
    mutators.operator_swap_op,
    mutators.operator_if_exp,
    mutators.operator_lambda,
    mutators.operator_match,
    mutators.operator_augmented_assignment,
    mutators.operator_symmetric_string_methods_swap,
)
FROM_MUTMUT = [pair for pair in mutators.mutation_operators if pair[1] in CONDITION_OPERATORS]
Changes = Iterator[tuple[cst.CSTNode, cst.CSTNode]]
TRUE, FALSE, NONE = cst.Name("True"), cst.Name("False"), cst.Name("None")


@dataclass(frozen=True)
class Mutation:
    """One changed place: `code` is the module's whole text with it, and `key` names it as long as its lines stay."""

    key: str
    line: int
    code: str


def mutations(source: str) -> list[Mutation]:
    """Every mutation of a module's source, in the order of its lines; all of them are valid Python."""
    wrapper = MetadataWrapper(cst.parse_module(source))
    visitor = _Visitor()
    wrapper.visit(visitor)
    text, scopes = source.encode(), _scopes(source)
    spans = wrapper.resolve(ByteSpanPositionProvider)
    seen, count, found = {source}, Counter[str](), []
    for node, changed in visitor.changes:
        code = _replaced(text, wrapper.module, node, changed, spans.get(node))
        if code in seen or not _is_valid(code):
            continue
        seen.add(code)
        line, words = _difference(source, code)
        name = f"{scopes.get(line, 'module')}: {words}"
        count[name] += 1
        found.append(Mutation(name if count[name] == 1 else f"{name} (#{count[name]})", line, code))
    return sorted(found, key=lambda mutation: mutation.line)


def _replaced(text: bytes, module: cst.Module, node: cst.CSTNode, changed: cst.CSTNode, span: CodeSpan | None) -> str:
    """The module's text with another node; blocks, whose indentation counts, by way of the whole tree."""
    if span is None or not isinstance(
        node, cst.BaseExpression | cst.BaseSmallStatement | cst.CompFor | cst.ComparisonTarget
    ):
        return module.deep_replace(node, changed).code  # type: ignore[union-attr]
    new = module.code_for_node(changed).encode()
    return (text[: span.start] + new + text[span.start + span.length :]).decode()


def _is_valid(code: str) -> bool:
    try:
        ast.parse(code)
    except SyntaxError:
        return False
    return True


def _difference(source: str, code: str) -> tuple[int, str]:
    """First line that differs, counted from 1, and `old -> new` in one line."""
    old, new = source.splitlines(), code.splitlines()
    first = next((index for index, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    last = next(
        index for index, (a, b) in enumerate(zip_longest(reversed(old[first:]), reversed(new[first:]))) if a != b
    )
    before, after = (" ".join(map(str.strip, lines[first : len(lines) - last])) for lines in (old, new))
    return first + 1, f"{before} -> {after}"


def _scopes(source: str) -> dict[int, str]:
    """Qualified name of the innermost function or class at each line that is in one."""
    found: dict[int, str] = {}
    waiting: list[tuple[ast.AST, str]] = [(ast.parse(source), "")]
    while waiting:
        node, name = waiting.pop(0)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{name}.{node.name}".lstrip(".")
            found |= dict.fromkeys(range(node.lineno, (node.end_lineno or node.lineno) + 1), name)
        waiting += [(child, name) for child in ast.iter_child_nodes(node)]
    return found


class _Visitor(cst.CSTVisitor):
    """Collects pairs of a node and what takes its place."""

    def __init__(self) -> None:
        super().__init__()
        self.changes: list[tuple[cst.CSTNode, cst.CSTNode]] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.Annotation | cst.Import | cst.ImportFrom) or _only_says(node):
            return False
        self.changes += _changes(node)
        # The exception and its text are what it says; that it is raised is seen to one level up.
        return not isinstance(node, cst.Raise)


def _only_says(node: cst.CSTNode) -> bool:
    saying = m.Call(func=m.Attribute(value=SPEAKERS))
    if isinstance(node, cst.Expr) and m.matches(node.value, m.SimpleString() | m.ConcatenatedString()):
        return True
    if isinstance(node, cst.Arg) and node.keyword is not None and node.keyword.value in UNNOTICED:
        return True
    if m.matches(node, m.If(test=m.Name("TYPE_CHECKING"))) or m.matches(node, m.FormattedString()):
        return True
    named_all = m.Assign(targets=[m.AssignTarget(target=m.Name("__all__"))])
    return m.matches(node, saying) or m.matches(node, named_all)


def _changes(node: cst.CSTNode) -> Changes:
    if not _joins_paths(node):
        for kind, operator in FROM_MUTMUT:
            if isinstance(node, kind):
                yield from ((node, changed) for changed in operator(node))
    for kind, ours in OURS:
        if isinstance(node, kind):
            yield from ours(node)


def _joins_paths(node: cst.CSTNode) -> bool:
    """Whether it is `path / "name"`: with another operator it is an error at once."""
    text = m.SimpleString() | m.FormattedString()
    return m.matches(node, m.BinaryOperation(operator=m.Divide(), right=text))


def _numbers(node: cst.Integer | cst.Float) -> Changes:
    value = node.evaluated_value
    near = (value * 0.9, value * 1.1, 0.1) if isinstance(value, float) else (value - 1, value + 1)
    for number in near:
        if number != value:
            text = f"{number:.12g}" if isinstance(number, float) else repr(number)
            yield node, cst.parse_expression(f"({text})" if number < 0 else text)


def _strings(node: cst.SimpleString) -> Changes:
    # A text with spaces is for people; without any it is a key, a name or a path.
    value = node.evaluated_value
    text = value if isinstance(value, str) else value.decode("latin-1")
    if text and not any(letter.isspace() for letter in text):
        yield node, cst.SimpleString(repr(value + ("XX" if isinstance(value, str) else b"XX")))  # type: ignore[operator]


def _conditions(node: cst.If | cst.While) -> Changes:
    yield node.test, FALSE
    if isinstance(node, cst.If):
        yield node.test, TRUE


def _operands(node: cst.BooleanOperation) -> Changes:
    for operand in (node.left, node.right):
        yield node, operand.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])


def _filters(node: cst.CompFor) -> Changes:
    for index in range(len(node.ifs)):
        yield node, node.with_changes(ifs=[*node.ifs[:index], *node.ifs[index + 1 :]])


def _keywords(node: cst.Call) -> Changes:
    for index, argument in enumerate(node.args):
        if argument.keyword is not None and argument.keyword.value not in UNNOTICED:
            yield node, node.with_changes(args=[*node.args[:index], *node.args[index + 1 :]])


def _extremes(node: cst.Call) -> Changes:
    opposite = {"min": "max", "max": "min", "any": "all", "all": "any"}
    if isinstance(node.func, cst.Name) and node.func.value in opposite:
        yield node.func, cst.Name(opposite[node.func.value])
    if m.matches(node.func, m.Name("sorted") | m.Name("reversed")):
        yield node, node.args[0].value


def _statements(node: cst.BaseSmallStatement) -> Changes:
    """No call for its effect, no assignment to what outlives the function, no raise, no early return, no result."""
    call = m.Expr(value=~(m.SimpleString() | m.ConcatenatedString() | m.Call(func=m.Attribute(value=SPEAKERS))))
    outliving = m.Assign(targets=[m.AssignTarget(target=m.Attribute() | m.Subscript())])
    if m.matches(node, call | outliving | m.Raise() | m.Del() | m.Return(value=None)):
        yield node, cst.Pass()
    if m.matches(node, m.Return(value=~(m.Name("None") | m.Name("True") | m.Name("False")))) and node.value is not None:
        yield node, cst.Return(NONE)


def _orders(node: cst.IndentedBlock | cst.Module) -> Changes:
    """Two neighbours that are called for their effects, the other way round."""
    call = m.Expr(value=m.Call(func=~m.Attribute(value=SPEAKERS)) | m.Await())
    effect = m.SimpleStatementLine(body=[call | m.Assign(targets=[m.AssignTarget(target=m.Attribute())])])
    body: Sequence[cst.BaseStatement] = node.body
    for index, (first, second) in enumerate(pairwise(body)):
        if m.matches(first, effect) and m.matches(second, effect):
            yield node, node.with_changes(body=[*body[:index], second, first, *body[index + 2 :]])


def _handlers(node: cst.Try) -> Changes:
    """An error that is not handled, one kind at a time, and a clean-up that is not done."""
    for handler in node.handlers:
        yield handler.body, _block(cst.Raise())
    if node.finalbody is not None:
        yield node.finalbody.body, _block(cst.Pass())


def _block(statement: cst.BaseSmallStatement) -> cst.IndentedBlock:
    return cst.IndentedBlock([cst.SimpleStatementLine([statement])])


def _suppressed(node: cst.With) -> Changes:
    suppress = m.Call(func=m.Name("suppress") | m.Attribute(attr=m.Name("suppress")))
    for item in node.items:
        if m.matches(item.item, suppress):
            yield item.item, cst.parse_expression("__import__('contextlib').nullcontext()")


OURS = [
    (cst.Integer | cst.Float, _numbers),
    (cst.SimpleString, _strings),
    (cst.If | cst.While, _conditions),
    (cst.BooleanOperation, _operands),
    (cst.CompFor, _filters),
    (cst.Call, _keywords),
    (cst.Call, _extremes),
    (cst.BaseSmallStatement, _statements),
    (cst.IndentedBlock | cst.Module, _orders),
    (cst.Try, _handlers),
    (cst.With, _suppressed),
]
