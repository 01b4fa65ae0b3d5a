"""The function of a program that trains other channels of some weights in every epoch."""

from __future__ import annotations

from collections.abc import Iterator

from trainlet.plan.program import Program


def is_redrawn(program: Program) -> bool:
    return any(p.redrawn for p in program.module.parameters)


def redraw_source(program: Program, name: str) -> Iterator[str]:
    """draw_channels, and NAME_redraw around it; nothing where no weight is redrawn."""
    if not is_redrawn(program):
        return
    seed, at = program.module.optimizer.seed, program.state_offsets
    yield f"static void draw_channels({name}_t *m, uint32_t epoch, int32_t first) {{"
    for p in program.module.parameters:
        if not p.redrawn:
            continue
        base, trained, table = (p.tensors[role].value for role in ("base", "w", "channels"))
        assert p.channels is not None
        total, k = base.shape[-1], len(p.channels)
        yield (
            f"  tl_redraw(&(tl_redrawn){{STATE(void, {at[base.name]}), STATE(void, {at[trained.name]}), "
            f"STATE(uint16_t, {at[table.name]}), {int(base.dtype == 'f32')}, {int(trained.dtype == 'f32')}, "
            f"{base.size // total}, {total}, 1, {k}, {p.stream}u}}, {seed}u, epoch, first);"
        )
        for role in ("fraction", "m", "v"):
            if role in p.tensors:
                slot = p.tensors[role].value
                yield f"  memset(STATE(void, {at[slot.name]}), 0, {slot.bytes});"
    yield "}"
    yield ""
    yield f"void {name}_redraw({name}_t *m, uint32_t epoch) {{ draw_channels(m, epoch, 0); }}"
    yield ""


def redraw_declaration(program: Program, name: str) -> Iterator[str]:
    if not is_redrawn(program):
        return
    yield "/* Other channels of the weights that are redrawn; what those before have learned stays."
    yield " * Call it before every epoch but the first: epoch = 1, 2, … */"
    yield f"void {name}_redraw({name}_t *m, uint32_t epoch);"
    yield ""
