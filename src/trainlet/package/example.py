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
    size, words = _size(x["shape"][1:]), _sample_words(batch, x["shape"][1:])
    is_class = label["dtype"] == "s32"
    by_rows = x["where"] == "rows"
    given = "&image" if by_rows else "sample"
    training = f"{name}_step(&network, {given}, label, 0.01f)"
    update = ""
    if m["training_function"] == "accumulate":
        training = f"{name}_accumulate(&network, {given}, label)"
        update = f"  if (trained % UPDATE_EVERY == 0) {name}_apply(&network, 0.01f);\n"
    return {
        "NAME": name,
        "UPPER": name.upper(),
        "PROGRAM": m["name"],
        "GIVEN": given,
        **(
            _by_rows(name, batch, x["shape"]) if by_rows else _whole(batch * size, C_TYPES[x["dtype"]], words)
        ),
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


def _whole(elements: int, kind: str, words: str) -> dict[str, object]:
    """The pieces of the example that bring in a sample that lies in memory."""
    noise = f"""int port_sample({kind} sample[{elements}]) {{
  static int left = 250;
  if (left == 0) return 0;
  left--;
  for (int32_t i = 0; i < {elements}; i++) {{
    seed = seed * 1664525u + 1013904223u;
    sample[i] = ({kind})((int32_t)(seed >> 25) - 64);
  }}
  return 1;
}}"""
    return {
        "SAMPLE": f"static {kind} sample[{elements}];",
        "PORT_ARGUMENT": "sample",
        "PORT_SAMPLE": f"/* {words}, channels last. Returns 0 when there is none. */\n"
        f"int port_sample({kind} sample[{elements}]);",
        "PORT_NOISE": noise,
    }


def _by_rows(name: str, batch: int, shape: list[int]) -> dict[str, object]:
    """The same for an image that comes by rows, from a camera's line buffer for instance."""
    row, extents = _size(shape[2:]), " x ".join(map(str, shape[1:]))
    images = f"Whether an image, {extents}," if batch == 1 else f"Whether {batch} images, {extents} each,"
    declarations = f"""/* {images} can be had, channels last. Returns 0 when not. */
int port_sample(void);

/* Puts its rows first .. first + count - 1 to `to`, {row} bytes each: copies what a camera has in its line
 * buffer, once those lines are in. predict reads an image from its first row to its last, learning reads it
 * once more: expose it again, or read it from where there is room. */
void port_rows(void *context, int32_t first, int32_t count, int8_t *to);"""
    noise = f"""int port_sample(void) {{
  static int left = 250;
  if (left == 0) return 0;
  left--;
  return 1;
}}

/* A line is drawn when it is asked for; a real one waits until the camera has it. */
void port_rows(void *context, int32_t first, int32_t count, int8_t *to) {{
  static int8_t line[{row}];
  (void)context;
  for (int32_t row = first; row < first + count; row++, to += {row}) {{
    for (int32_t i = 0; i < {row}; i++) {{
      seed = seed * 1664525u + 1013904223u;
      line[i] = (int8_t)((int32_t)(seed >> 25) - 64);
    }}
    for (int32_t i = 0; i < {row}; i++) to[i] = line[i];
  }}
}}"""
    return {
        "SAMPLE": f"static const {name}_image image = {{port_rows, 0}}; /* never whole in memory */",
        "PORT_ARGUMENT": "",
        "PORT_SAMPLE": declarations,
        "PORT_NOISE": noise,
    }


def _size(shape: list[int]) -> int:
    size = 1
    for extent in shape:
        size *= extent
    return size


def _sample_words(batch: int, shape: list[int]) -> str:
    extents = " x ".join(map(str, shape))
    return f"One sample, {extents}" if batch == 1 else f"{batch} samples, {extents} each"
