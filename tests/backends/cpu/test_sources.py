"""Which kernel files go into a program."""

from tests.backends.cpu.kernels import FOLDER
from trainlet.backends.cpu.sources import kernel_files


def names(program):
    return {p.name for p in kernel_files(FOLDER, program)}


def test_a_program_gets_what_it_calls_and_what_that_calls():
    found = names("tl_parallel(tl_dense_rows, &a, 2);")
    assert {"cpu_dense.c", "cpu_gemm.c", "cpu_parallel.c", "cpu_check.c", "tl_gemm.h", "tl_simd.h"} <= found


def test_a_program_gets_no_kernel_that_is_only_named():
    only_named = "/* as tl_lines_rows */\nvoid tl_maxpool_rows(const void *a, int32_t part, int32_t parts);\n"
    assert names(only_named) == names("")
    quantized = {"conv_s8.c", "pointwise_s8.c", "stream.c", "weights.c"}
    assert not quantized & names("tl_parallel(tl_dense_rows, &a, 2);")
