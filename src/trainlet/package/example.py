"""The example of a package: a loop of thirty lines, and a file of what its user has to fill in."""

from __future__ import annotations

from trainlet.backends.c99.writer import C_TYPES
from trainlet.package.contents import Contents
from trainlet.package.templates import fill

MAIN = "int main(void)"


def example_files(c: Contents, folder: str, main: str = MAIN) -> dict[str, str]:
    """main.c, port.h and port.c below `folder`. main: the declarator of the entry point."""
    values = example_values(c) | {"MAIN": main, "RETURN": "  return 0;\n" if main.startswith("int") else ""}
    return {f"{folder}/main.c": fill("main.c.in", values), **port_files(c, folder)}


def port_files(c: Contents, folder: str) -> dict[str, str]:
    """What the user fills in: samples, labels, flash."""
    values = example_values(c)
    return {f"{folder}/{name}": fill(f"{name}.in", values) for name in ("port.h", "port.c")}


def example_values(c: Contents) -> dict[str, object]:
    """The keys of the example's templates."""
    m, name = c.manifest, c.name
    x, label, batch = m["input"], m["label"], int(m["batch"])
    size = _size(x["shape"][1:])
    is_class = label["dtype"] == "s32"
    training = f"{name}_step(&network, sample, label, 0.01f)"
    update = ""
    if m["training_function"] == "accumulate":
        training = f"{name}_accumulate(&network, sample, label)"
        update = f"  if (trained % UPDATE_EVERY == 0) {name}_apply(&network, 0.01f);\n"
    return {
        "NAME": name,
        "UPPER": name.upper(),
        "PROGRAM": m["name"],
        "SAMPLE_TYPE": C_TYPES[x["dtype"]],
        "SAMPLE_ELEMENTS": batch * size,
        "SAMPLE_WORDS": _sample_words(batch, x["shape"][1:]),
        "LABEL_TYPE": C_TYPES[label["dtype"]],
        "LABEL_ELEMENTS": _size(label["shape"]),
        "LABEL_VALUE": f"(int32_t)(seed % {m['output']['shape'][-1]}u)" if is_class else "0.0f",
        "OUTPUTS": _size(m["output"]["shape"]),
        "RAM": f"{c.program.ram_bytes:,}",
        "MODEL_ID": c.model_id,
        "TRAINING": training,
        "UPDATE": update,
        "UPDATE_EVERY": "#define UPDATE_EVERY 8u /* training calls */\n" if update else "",
    }


def _size(shape: list[int]) -> int:
    size = 1
    for extent in shape:
        size *= extent
    return size


def _sample_words(batch: int, shape: list[int]) -> str:
    extents = " x ".join(map(str, shape))
    return f"One sample, {extents}" if batch == 1 else f"{batch} samples, {extents} each"
