"""The text form of a graph: it prints, it parses back, and passes are tested on it.

    graph tiny(x: s8[1,4,4,8] q(0.0078, 0) in caller, label: s32[1]) {   # or `in rows`: Graph.placed
      const conv/scale: f32[16]                     # contents in the .npz beside the text
      const table: s8[2] = [1, 2]                   # up to INLINE elements stand in the text
      state head/weight: f32[10,160]
      y: s8[1,4,4,16] q(0.02, -128), m: u1[1,4,4,16] = QLinearConv(x, w, b, s) {strides=(2, 2)} @"/conv1"
      return loss
      update head/weight <- head/weight.new
    }

An absent operand is `_`; an attribute equal to its op's default is left out; `@"…"` is Node.source; a
scale `@name` is the constant that holds one scale per index of `axis`. Numbers read back exactly.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn
from zipfile import BadZipFile, ZipFile

import numpy as np

from trainlet.errors import GraphError
from trainlet.ir.graph import DTYPES, PLACES, Attr, Graph, Node, Quant, Shape, Tensor, Value
from trainlet.ir.ops import OPS, infer_node
from trainlet.ir.verify import verify

INLINE = 8  # tensors of at most this many elements are written out in the text
_RESERVED = frozenset({"_", "graph", "const", "state", "return", "update"})
_PLAIN = re.compile(r"[A-Za-z0-9_./\-]+")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_TOKEN = re.compile(
    r"""(?P<blank>[ \t\r\n]+|\#[^\n]*)
      | (?P<string>"(?:[^"\\\n]|\\.)*")
      | (?P<mark><-|[()\[\]{},:=@])
      | (?P<word>[A-Za-z0-9_./+\-]+)
      | (?P<other>.)""",
    re.VERBOSE,
)


# -- printing ------------------------------------------------------------------------------------


def print_graph(graph: Graph) -> str:
    """The graph as text, one line a tensor or node; contents of large tensors are left out."""
    inputs = (
        _value(v) + (f" in {graph.placed[v.name]}" if v.name in graph.placed else "") for v in graph.inputs
    )
    lines = [f"graph {_word(graph.name)}({', '.join(inputs)}) {{"]
    lines += [f"  const {_tensor(tensor)}" for tensor in graph.constants.values()]
    lines += [f"  state {_tensor(tensor)}" for tensor in graph.state.values()]
    lines += [f"  {_node(node)}" for node in graph.nodes]
    lines.append(f"  return {', '.join(_word(v.name) for v in graph.outputs)}".rstrip())
    lines += [f"  update {_word(name)} <- {_word(v.name)}" for name, v in graph.updates.items()]
    return "\n".join([*lines, "}", ""])


def print_program(graphs: Iterable[Graph]) -> str:
    """Several functions of one program, one graph after another."""
    return "\n".join(map(print_graph, graphs))


def _word(name: str) -> str:
    return name if _PLAIN.fullmatch(name) and name not in _RESERVED else json.dumps(name)


def _value(value: Value) -> str:
    text = f"{_word(value.name)}: {value.dtype}[{','.join(map(str, value.shape))}]"
    if (q := value.quant) is None:
        return text
    scale = f"@{_word(q.scale)}" if isinstance(q.scale, str) else repr(float(q.scale))
    axis = "" if q.axis is None else f", axis={q.axis}"
    return f"{text} q({scale}, {q.zero_point}{axis})"


def _tensor(tensor: Tensor) -> str:
    if tensor.value.size > INLINE:
        return _value(tensor.value)
    return f"{_value(tensor.value)} = [{', '.join(map(_element, tensor.data.ravel()))}]"


def _element(x: np.generic) -> str:
    if not isinstance(x, np.floating):
        return str(int(x))
    short = str(x)  # numpy's shortest text for a float32; read back through a double
    return short if np.float32(float(short)) == x or np.isnan(x) else repr(float(x))


def _attr(value: Attr) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_attr, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    return str(int(value)) if isinstance(value, int | np.integer) else repr(float(value))


def _node(node: Node) -> str:
    defaults = OPS[node.op].attrs if node.op in OPS else {}
    attrs = {k: v for k, v in sorted(node.attrs.items()) if k not in defaults or v != defaults[k]}
    written = [f"{k}={_attr(v)}" for k, v in attrs.items()]
    operands = ", ".join("_" if v is None else _word(v.name) for v in node.inputs)
    text = f"{', '.join(map(_value, node.outputs))} = {_word(node.op)}({operands})"
    text += f" {{{', '.join(written)}}}" if written else ""
    return text + (f" @{json.dumps(node.source, ensure_ascii=False)}" if node.source else "")


# -- parsing -------------------------------------------------------------------------------------


def parse_graph(
    text: str, data: Mapping[str, np.ndarray] | None = None, *, shapes_only: bool = False
) -> Graph:
    """The one graph in `text`, verified. `data`: contents of the tensors that the text leaves out.

    With `shapes_only` missing contents become zeros. Raises GraphError naming the line and what was
    expected there, the first tensor without contents, or the rule of the IR that the graph breaks.
    """
    graphs = parse_program(text, data, shapes_only=shapes_only)
    if len(graphs) != 1:
        raise GraphError(f"the text holds {len(graphs)} graphs, one was expected")
    return graphs[0]


def parse_program(
    text: str, data: Mapping[str, np.ndarray] | None = None, *, shapes_only: bool = False
) -> tuple[Graph, ...]:
    """Every graph in `text`, in order; otherwise as `parse_graph`."""
    tokens, graphs = _Tokens(text), []
    while tokens.text:
        graphs.append(_Parser(tokens, data or {}, shapes_only).graph())
    return tuple(graphs)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    line: int


class _Tokens:
    """The tokens of a text, read front to back."""

    def __init__(self, text: str) -> None:
        self._all = [*_tokenize(text)]
        self._next = 0

    @property
    def current(self) -> _Token:
        return self._all[self._next]

    @property
    def text(self) -> str:
        """The next token's text, "" at the end; a string keeps its quotes."""
        return self.current.text

    def fail(self, expected: str) -> NoReturn:
        found = self.text or "the end of the text"
        raise GraphError(f"line {self.current.line}: expected {expected}, found {found}")

    def take(self) -> str:
        text = self.text
        self._next += 1
        return text

    def expect(self, text: str) -> None:
        if not self.take_if(text):
            self.fail(f"'{text}'")

    def take_if(self, text: str) -> bool:
        """Whether the next token is `text`; it is consumed if so."""
        if self.text != text:
            return False
        self._next += 1
        return True

    def string(self, what: str) -> str:
        if self.current.kind != "string":
            self.fail(what)
        try:
            return str(json.loads(self.text))
        except ValueError:
            self.fail(f"{what} with valid escapes")
        finally:
            self._next += 1

    def name(self, what: str) -> str:
        """A name: a plain word, or any text in quotes."""
        if self.current.kind == "string":
            return self.string(what)
        if self.current.kind != "word" or self.text in _RESERVED or not _PLAIN.fullmatch(self.text):
            self.fail(what)
        return self.take()

    def integer(self, what: str) -> int:
        if not _INTEGER.fullmatch(self.text):
            self.fail(what)
        return int(self.take())

    def number(self, what: str) -> int | float:
        """An integer or a float, told apart by their spelling."""
        if _INTEGER.fullmatch(self.text):
            return int(self.take())
        try:
            value = float(self.text)
        except ValueError:
            self.fail(what)
        self._next += 1
        return value


def _tokenize(text: str) -> Iterator[_Token]:
    line, at = 1, 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        assert match is not None  # "other" takes any character
        kind = str(match.lastgroup)
        if kind != "blank":
            yield _Token(kind, match[0], line)
        line += match[0].count("\n")
        at = match.end()
    yield _Token("end", "", line)


class _Parser:
    """Parses one graph: `graph NAME(values) { const… state… nodes… return… update… }`."""

    def __init__(self, tokens: _Tokens, data: Mapping[str, np.ndarray], shapes_only: bool) -> None:
        self.tokens = tokens
        self.data = data
        self.shapes_only = shapes_only
        self.defined: dict[str, Value] = {}
        self.constants: dict[str, Tensor] = {}
        self.state: dict[str, Tensor] = {}
        self.nodes: list[Node] = []
        self.updates: dict[str, Value] = {}
        self.placed: dict[str, str] = {}

    def graph(self) -> Graph:
        t = self.tokens
        t.expect("graph")
        name = t.name("the graph's name")
        t.expect("(")
        inputs = () if t.text == ")" else tuple(self.inputs())
        t.expect(")")
        t.expect("{")
        while t.text != "return":
            self.statement()
        t.take()
        outputs = () if t.text in ("update", "}") else tuple(self.operands())
        while t.take_if("update"):
            state = t.name("the name of a state")
            t.expect("<-")
            self.updates[state] = self.operand()
        t.expect("}")
        nodes = tuple(self.nodes)
        tensors = self.constants, self.state, self.updates, self.placed
        return verify(Graph(name, inputs, outputs, nodes, *tensors))

    def inputs(self) -> Iterator[Value]:
        for value in self.values():
            if self.tokens.take_if("in"):
                self.placed[value.name] = self.tokens.name(f"where it is ({' or '.join(PLACES)})")
            yield value

    def statement(self) -> None:
        for keyword, tensors in (("const", self.constants), ("state", self.state)):
            if self.tokens.take_if(keyword):
                tensor = self.tensor()
                tensors[tensor.value.name] = tensor
                return
        if self.tokens.text in ("}", ""):
            self.tokens.fail("'return'")
        self.node()

    def value(self) -> Value:
        t = self.tokens
        name = t.name("a value's name, 'const', 'state' or 'return'")
        t.expect(":")
        if t.text not in DTYPES:
            t.fail(f"an element type ({', '.join(DTYPES)})")
        dtype = t.take()
        value = Value(name, dtype, self.shape(), self.quant())
        if name in self.defined:
            raise GraphError(f"line {t.current.line}: value {name} is defined twice")
        self.defined[name] = value
        return value

    def values(self) -> Iterator[Value]:
        yield self.value()
        while self.tokens.take_if(","):
            yield self.value()

    def shape(self) -> Shape:
        t, shape = self.tokens, []
        t.expect("[")
        while t.text != "]":
            shape.append(t.integer("a dimension or ']'"))
            if not t.take_if(","):
                break
        t.expect("]")
        return tuple(shape)

    def quant(self) -> Quant | None:
        t, axis = self.tokens, None
        if not t.take_if("q"):
            return None
        t.expect("(")
        scale = t.name("the constant that holds the scales") if t.take_if("@") else float(t.number("a scale"))
        t.expect(",")
        zero = t.integer("a zero point")
        if t.take_if(","):
            t.expect("axis")
            t.expect("=")
            axis = t.integer("an axis")
        t.expect(")")
        return Quant(scale, zero, axis)

    def tensor(self) -> Tensor:
        value = self.value()
        if self.tokens.take_if("="):
            return Tensor(value, self.elements(value))
        if value.name in self.data:
            array = np.asarray(self.data[value.name])
            if (array.dtype, array.shape) != (np.dtype(DTYPES[value.dtype][0]), value.shape):
                raise GraphError(
                    f"contents of {value.name} are {array.dtype}{list(array.shape)}, "
                    f"the text says {value.dtype}{list(value.shape)}"
                )
            return Tensor(value, array)
        if not self.shapes_only:
            raise GraphError(
                f"no contents for {value.name}: give them as data (load_graph reads the .npz beside the text)"
            )
        return Tensor(value, np.zeros(value.shape, DTYPES[value.dtype][0]))

    def elements(self, value: Value) -> np.ndarray:
        t, numbers, line = self.tokens, [], self.tokens.current.line
        t.expect("[")
        while t.text != "]":
            numbers.append(t.number("a number or ']'"))
            if not t.take_if(","):
                break
        t.expect("]")
        if len(numbers) != value.size:
            wanted = f"{value.size} elements of {value.name}"
            raise GraphError(f"line {line}: expected {wanted}, found {len(numbers)}")
        try:
            return np.array(numbers, DTYPES[value.dtype][0]).reshape(value.shape)
        except OverflowError:
            message = f"line {line}: expected elements of {value.name} in the range of {value.dtype}"
            raise GraphError(message) from None

    def operand(self) -> Value:
        t, line = self.tokens, self.tokens.current.line
        name = t.name("the name of a value")
        if name not in self.defined:
            raise GraphError(f"line {line}: expected the name of a value defined above, found {name}")
        return self.defined[name]

    def operands(self) -> Iterator[Value]:
        yield self.operand()
        while self.tokens.take_if(","):
            yield self.operand()

    def node(self) -> None:
        t, line = self.tokens, self.tokens.current.line
        known = dict(self.defined)  # a node cannot read its own results
        outputs = tuple(self.values())
        self.defined, after = known, self.defined
        t.expect("=")
        op = t.name("an op")
        inputs: list[Value | None] = []
        t.expect("(")
        while t.text != ")":
            inputs.append(None if t.take_if("_") else self.operand())
            if not t.take_if(","):
                break
        t.expect(")")
        attrs = self.attrs() if t.text == "{" else {}
        source = t.string("the node's source in quotes") if t.take_if("@") else ""
        self.defined = after
        try:
            full, results = infer_node(op, tuple(inputs), attrs, source, len(outputs))
        except GraphError as error:
            raise GraphError(f"line {line}: {error}") from None
        for value, (dtype, shape) in zip(outputs, results, strict=True):
            if (value.dtype, value.shape) != (dtype, shape):
                wanted, found = f"{dtype}{list(shape)}", f"{value.dtype}{list(value.shape)}"
                raise GraphError(f"line {line}: expected {value.name} to be {wanted}, found {found}")
        self.nodes.append(Node(op, tuple(inputs), outputs, MappingProxyType(full), source))

    def attrs(self) -> dict[str, Attr]:
        t = self.tokens
        attrs: dict[str, Attr] = {}
        t.expect("{")
        while t.text != "}":
            name = t.name("an attribute's name or '}'")
            t.expect("=")
            attrs[name] = self.attr()
            if not t.take_if(","):
                break
        t.expect("}")
        return attrs

    def attr(self) -> Attr:
        t = self.tokens
        if t.current.kind == "string":
            return t.string("a string")
        if t.take_if("True"):
            return True
        if t.take_if("False"):
            return False
        if not t.take_if("("):
            return t.number("a number, string, True, False or tuple")
        items = []
        while t.text != ")":
            items.append(t.number("a number or ')'"))
            if not t.take_if(","):
                break
        t.expect(")")
        return tuple(items)


# -- files ---------------------------------------------------------------------------------------


def save_graph(graph: Graph, path: str | Path) -> Path:
    """Write `path`.tl (text) and `path`.npz (contents of large tensors); returns the text's path."""
    text, contents = _paths(path)
    text.parent.mkdir(parents=True, exist_ok=True)
    text.write_text(print_graph(graph), encoding="utf-8")
    # Written member by member: np.savez takes names as keywords and refuses one called "file".
    with ZipFile(contents, "w") as archive:
        for name, tensor in {**graph.constants, **graph.state}.items():
            if tensor.value.size > INLINE:
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.ascontiguousarray(tensor.data), allow_pickle=False)
    return text


def load_graph(path: str | Path) -> Graph:
    """The graph that `save_graph` wrote. Raises GraphError naming the file that is missing or damaged."""
    text, contents = _paths(path)
    if not text.is_file():
        raise GraphError(f"{text}: no such file")
    if not contents.is_file():
        return _parse_file(text, {})
    try:
        with np.load(contents, allow_pickle=False) as archive:
            data = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, BadZipFile) as error:
        raise GraphError(f"{contents}: damaged ({error})") from error
    return _parse_file(text, data)


def _parse_file(path: Path, data: Mapping[str, np.ndarray]) -> Graph:
    try:
        return parse_graph(path.read_text(encoding="utf-8"), data)
    except (GraphError, UnicodeDecodeError) as error:
        raise GraphError(f"{path}: {error}") from error


def _paths(path: str | Path) -> tuple[Path, Path]:
    stem = str(path).removesuffix(".tl")
    return Path(f"{stem}.tl"), Path(f"{stem}.npz")
