"""The public functions of an emitted program: they bring samples and labels in and results out.

A sample is copied into the arena, or read where the caller has it, or comes by rows through a function of the
caller's: the C parameter is a pointer to elements, or to a NAME_image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trainlet.backends.c99.writer import C_TYPES
from trainlet.ir import Value
from trainlet.plan.program import Function, Program


def sample_parameter(f: Function, part: str) -> str:
    """By which parameter half a function ("prefix", "body") is told of a sample outside the arena, or ""."""
    if f.sample == "caller":
        return "const void *sample"
    return "const tl_rows *rows" if f.sample == "rows" and part == "prefix" else ""


def sample_type(program: Program, name: str) -> str:
    """C type that the sample parameters of public functions point to."""
    return f"{name}_image" if program.sample == "rows" else C_TYPES[program.main.graph.inputs[0].dtype]


@dataclass(frozen=True)
class _Entry:
    """One public function, in whole and in its two halves around the frozen prefix.

    samples: the name of its parameter for them; rest: the parameters behind; label: (value, parameter).
    finish: how it ends, with a return statement where it returns the loss.
    """

    name: str
    which: str
    f: Function
    type: str
    samples: str
    rest: str
    finish: str
    label: tuple[Value, str] | None = None

    @property
    def returns(self) -> str:
        return "float" if "return" in self.finish else "void"

    def take_sample(self) -> Iterator[str]:
        """Brings the sample to where the prefix expects it."""
        x = self.f.graph.inputs[0]
        if self.f.sample == "rows":
            yield "  const tl_rows rows = {image->rows, image->context, 0};"
        else:
            yield from _copy_in(self.f, x, self.samples)

    def take_label(self) -> Iterator[str]:
        if self.label is not None:
            yield from _copy_in(self.f, *self.label)

    def prefix(self) -> str:
        return f"  {self.which}_prefix(m{_argument(self.f, 'prefix', self.samples)});"

    def body(self, sample: str) -> str:
        lr = ", lr" if "float lr" in self.rest else ""
        return f"  {self.which}_body(m{_argument(self.f, 'body', sample)}{lr});"

    def whole(self) -> Iterator[str]:
        yield f"{self.returns} {self.name}_{self.which}({self.name}_t *m, {self.parameter}, {self.rest}) {{"
        yield from self.take_sample()
        yield from self.take_label()
        yield from (self.prefix(), self.body(self.samples), f"  {self.finish}", "}", "")

    def halves(self) -> Iterator[str]:
        name = f"{self.name}_{self.which}"
        yield f"void {name}_prefix({self.name}_t *m, {self.parameter}, uint8_t *boundary) {{"
        yield from self.take_sample()
        yield self.prefix()
        yield from _boundary_copies(self.f, self.samples, store=False)
        yield from ("}", "")
        yield f"{self.returns} {name}_resume({self.name}_t *m, const uint8_t *boundary, {self.rest}) {{"
        yield from _boundary_copies(self.f, self.samples, store=True)
        yield from self.take_label()
        kept = any(v.name in self.f.graph.placed for v in self.f.boundary)
        yield from (self.body("boundary" if kept else "NULL"), f"  {self.finish}", "}", "")

    @property
    def parameter(self) -> str:
        return f"const {self.type} *{self.samples}"


def _copy_in(f: Function, v: Value, given: str) -> Iterator[str]:
    if f.locations[v.name].memory == "arena":
        yield f"  if ({given} != {_at(f, v)}) memcpy({_at(f, v)}, {given}, {v.bytes});"


def _argument(f: Function, part: str, sample: str) -> str:
    """What goes behind `m` in a call of half a function; sample: an expression for one of the caller's."""
    if not sample_parameter(f, part):
        return ""
    return ", &rows" if f.sample == "rows" else f", {sample}"


def _at(f: Function, v: Value) -> str:
    return f"ARENA({C_TYPES[v.dtype]}, {f.locations[v.name].offset})"


def _boundary_copies(f: Function, samples: str, store: bool) -> Iterator[str]:
    """Copies between boundary and arena; a sample of the caller's is read from the boundary itself."""
    at = 0
    for v in f.boundary:
        callers = v.name in f.graph.placed
        here, there = samples if callers else _at(f, v), f"(boundary + {at})"
        a, b = (here, there) if store else (there, here)
        if not (store and callers):
            yield f"  memcpy({a}, {b}, {v.bytes});"
        at += v.bytes


def entry_points(program: Program, name: str) -> Iterator[str]:
    """Definitions of everything that the header declares but init."""
    predict, main, kind = program.functions["predict"], program.main, sample_type(program, name)
    y = predict.graph.outputs[0]
    finish = f"memcpy(out, {_at(predict, y)}, {y.bytes});"
    which = "step" if "step" in program.functions else "accumulate"
    label = main.graph.inputs[1]
    rest = f"const {C_TYPES[label.dtype]} *labels" + (", float lr" if which == "step" else "")
    count = "" if which == "step" else "m->accumulated++;\n  "
    ending = f"{count}return *{_at(main, main.graph.outputs[0])};"
    one, several = ("image", "image") if program.sample == "rows" else ("sample", "samples")
    for entry in (
        _Entry(name, "predict", predict, kind, one, "float *out", finish),
        _Entry(name, which, main, kind, several, rest, ending, (label, "labels")),
    ):
        yield from entry.whole()
        yield from entry.halves()
    if which == "accumulate":
        yield f"void {name}_apply({name}_t *m, float lr) {{"
        yield "  if (m->accumulated == 0) return;"
        yield "  apply_body(m, lr, 1.0f / (float)m->accumulated);"
        yield "  m->accumulated = 0;"
        yield from ("}", "")
    yield f"const float *{name}_logits(const {name}_t *m) {{"
    at = main.locations[main.graph.outputs[1].name].offset
    yield f"  return (const float *)(const void *)((const uint8_t *)m->arena + {at});"
    yield from ("}", "")
    if program.module.loss == "softmax-cross-entropy":
        yield from _evaluate(program, name, kind)
    if program.sample == "rows":
        yield from _rows_from_memory(program, name)
    size = program.bytes["state"]
    yield f"void {name}_get_state(const {name}_t *m, void *dst) {{ memcpy(dst, m->state, {size}); }}"
    yield f"void {name}_set_state({name}_t *m, const void *src) {{ memcpy(m->state, src, {size}); }}"


def _evaluate(program: Program, name: str, kind: str) -> Iterator[str]:
    """Correct answers over `count` samples, one at a time; only for class labels."""
    f = program.functions["predict"]
    x, y = f.graph.inputs[0], f.graph.outputs[0]
    given = "image" if f.sample == "rows" else "samples"
    sample = f"samples + (size_t)i * {x.size}"
    arguments = f"const {kind} *{given}, const int32_t *labels, int32_t count"
    yield f"int32_t {name}_evaluate({name}_t *m, {arguments}) {{"
    yield "  int32_t correct = 0;"
    yield "  for (int32_t i = 0; i < count; i++) {"
    if f.sample == "rows":
        yield f"    const tl_rows rows = {{image->rows, image->context, i * {x.shape[1]}}};"
    elif f.sample == "arena":
        yield f"    memcpy({_at(f, x)}, {sample}, {x.bytes});"
    yield f"    predict_prefix(m{_argument(f, 'prefix', sample)});"
    yield f"    predict_body(m{_argument(f, 'body', sample)});"
    yield f"    correct += tl_argmax({_at(f, y)}, {y.shape[-1]}) == labels[i];"
    yield "  }"
    yield "  return correct;"
    yield from ("}", "")


def image_row_bytes(program: Program) -> int:
    """Bytes of one row of an image that comes by rows."""
    x = program.functions["predict"].graph.inputs[0]
    return x.bytes // x.shape[1]


def _rows_from_memory(program: Program, name: str) -> Iterator[str]:
    size = image_row_bytes(program)
    yield f"void {name}_rows_from_memory(void *context, int32_t first, int32_t count, int8_t *to) {{"
    yield f"  memcpy(to, (const int8_t *)context + (size_t)first * {size}, (size_t)count * {size});"
    yield from ("}", "")
