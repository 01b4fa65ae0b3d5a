from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tests.quantize.networks import NETWORKS, Net, branches, draw, plain, residual, run, snr_db
from trainlet.errors import DataError, ModelError
from trainlet.ir import Graph, GraphBuilder, Node, interpret
from trainlet.quantize import dequantize_samples, quantize, quantize_samples


def ops(graph: Graph) -> Counter[str]:
    return Counter(node.op for node in graph.nodes)


def node_of(graph: Graph, name: str) -> Node:
    return graph.producers()[name]


@pytest.mark.parametrize("head", ["fp32", "int8"])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("network", NETWORKS)
def test_int8_outputs_stay_close_to_float(network: str, seed: int, head: str) -> None:
    graph = NETWORKS[network](seed)
    samples = draw(graph, 16)
    small = quantize(graph, samples, head=head)  # type: ignore[arg-type]
    wanted, got = run(graph, samples), run(small, quantize_samples(small, samples))
    assert snr_db(wanted, got) > 25
    cosine = (wanted * got).sum() / np.sqrt((wanted**2).sum() * (got**2).sum())
    assert cosine > 0.998


@pytest.mark.parametrize("network", NETWORKS)
def test_every_intermediate_value_stays_close_to_float(network: str) -> None:
    graph = NETWORKS[network](2)
    samples = draw(graph, 8)
    small = quantize(graph, samples)
    values = interpret(graph, {"x": samples[:1]}).values
    integers = interpret(small, {"x": quantize_samples(small, samples[:1])}).values
    compared = 0
    for value in small.values():
        if value.name in values and value.dtype == "s8" and value.name not in small.constants:
            assert value.quant is not None
            real = (integers[value.name].astype(int) - value.quant.zero_point) * value.quant.scale
            assert snr_db(values[value.name], real) > 22, value.name
            compared += 1
    assert compared >= 4


@pytest.mark.parametrize("method", ["minmax", "percentile"])
def test_unseen_samples_are_quantized_as_well(method: str) -> None:
    graph = plain(3)
    small = quantize(graph, draw(graph, 32), method=method)  # type: ignore[arg-type]
    fresh = draw(graph, 16, seed=9)
    assert snr_db(run(graph, fresh), run(small, quantize_samples(small, fresh))) > 25


def test_convolutions_become_integer_products_and_a_requantization() -> None:
    small = quantize(plain(), draw(plain(), 8))
    assert ops(small) == {
        "ConvInteger": 3, "Requantize": 3, "AveragePool": 1, "Reshape": 1, "DequantizeLinear": 1, "Gemm": 1,
    }  # fmt: skip
    assert node_of(small, "stem/relu").op == "Requantize"
    assert node_of(small, "stem/relu").source == "net.onnx:/stem"


def test_input_is_int8_and_output_keeps_its_name() -> None:
    for head in ("fp32", "int8"):
        small = quantize(plain(), draw(plain(), 8), head=head)  # type: ignore[arg-type]
        assert (small.inputs[0].name, small.inputs[0].dtype) == ("x", "s8")
        assert small.inputs[0].quant is not None
        assert (small.outputs[0].name, small.outputs[0].dtype) == ("logits", "f32")


def test_weights_keep_their_names_and_carry_scales_per_channel() -> None:
    graph = plain()
    small = quantize(graph, draw(graph, 8))
    for layer in ("stem", "dw", "pw"):
        held = small.constants[f"{layer}/weight"]
        w = graph.constants[f"{layer}/weight"].data
        assert held.value.dtype == "s8"
        assert held.value.quant is not None
        assert (held.value.quant.scale, held.value.quant.axis) == (f"{layer}/weight/scale", 0)
        np.testing.assert_allclose(small.scales(held.value), np.abs(w).max((1, 2, 3)) / 127, rtol=1e-6)
    assert small.constants["head/weight"].value.dtype == "f32"


def test_biases_are_int32_in_units_of_both_scales_and_effective_scales_match() -> None:
    graph = plain()
    small = quantize(graph, draw(graph, 8))
    node = node_of(small, "dw/relu")
    acc, bias, eff = node.operands()
    product = node_of(small, acc.name)
    x, w = product.operands()
    unit = np.float64(small.scales(x)) * small.scales(w).astype(np.float64)
    wanted = np.rint(graph.constants["dw/bias"].data / unit)
    assert small.constants[bias.name].data.dtype == np.int32
    assert (small.constants[bias.name].data == wanted).all()
    scale = np.float64(small.scales(node.output))
    assert (small.constants[eff.name].data == (unit / scale).astype(np.float32)).all()


def test_layer_without_bias_gets_a_named_zero_bias() -> None:
    small = quantize(plain(), draw(plain(), 8))
    bias = small.constants["pw/bias"]
    assert (bias.data == 0).all()
    assert bias.value.shape == (16,)


def test_relu_behind_a_convolution_or_sum_is_its_saturation() -> None:
    graph = residual()
    small = quantize(graph, draw(graph, 8))
    assert "Clip" not in ops(small)
    assert "QLinearLookup" not in ops(small)
    for name in ("first/relu", "left/relu", "sum/relu"):
        value = node_of(small, name).output
        assert value.quant is not None
        assert value.quant.zero_point == -128
    assert node_of(small, "sum/relu").op == "QLinearAdd"
    right = node_of(small, "right").output.quant
    assert right is not None
    assert right.zero_point > -128


def test_relu6_saturates_at_six() -> None:
    net = Net((1, 6, 6, 3))
    graph = net.classify(net.relu(net.conv(net.x, 8, "c"), 6.0))
    small = quantize(graph, 20 * draw(graph, 8))
    value = node_of(small, "c/relu").output
    assert value.quant is not None
    assert 255 * float(value.quant.scale) == pytest.approx(6.0, rel=1e-6)


def test_clamp_that_is_not_the_only_reader_is_not_folded() -> None:
    net = Net((1, 6, 6, 3))
    y = net.conv(net.x, 8, "c")
    graph = net.classify(net.add("Add", [net.relu(y), y], name="both"))
    small = quantize(graph, draw(graph, 8))
    assert ops(small)["QLinearLookup"] == 1
    assert node_of(small, "c").op == "Requantize"


def test_clamp_above_zero_is_a_table_and_a_fused_one_stays_float() -> None:
    net = Net((1, 6, 6, 3))
    y = net.add("Clip", [net.conv(net.x, 8, "c")], {"lo": 0.5, "hi": 1.0}, name="clip")
    graph = net.classify(y)
    samples = draw(graph, 8)
    small = quantize(graph, samples)
    assert ops(small)["QLinearLookup"] == 1
    assert snr_db(run(graph, samples), run(small, quantize_samples(small, samples))) > 25
    node = node_of(graph, "c")
    fused = GraphBuilder("net")
    fused.constants, fused.inputs = dict(graph.constants), list(graph.inputs)
    z = fused.add("Conv", node.inputs, {**node.attrs, "lo": 0.5, "hi": 1.0}, name="c", source=node.source)
    z = fused.add("Clip", [z], {"lo": -1.0}, name="d")
    z = fused.add("MaxPool", [z], {"kernel": (2, 2)}, name="logits")
    held = quantize(fused.build([z]), samples)
    assert "Conv" in ops(held)


def test_float_head_reads_a_dequantized_value() -> None:
    small = quantize(plain(), draw(plain(), 8))
    gemm = next(n for n in small.nodes if n.op == "Gemm")
    assert node_of(small, next(gemm.operands()).name).op == "DequantizeLinear"


def test_head_behind_reshape_and_softmax_is_found() -> None:
    net = Net((1, 4, 4, 3))
    y = net.relu(net.conv(net.x, 6, "c"))
    y = net.conv(net.pool(y), 5, "classifier", kernel=1)
    y = net.add("Softmax", [net.add("Reshape", [y], {"shape": (1, 5)}, name="flat")], name="p")
    graph = net.build([y])
    small = quantize(graph, draw(graph, 8))
    assert ops(small)["Conv"] == 1
    assert small.constants["classifier/weight"].value.dtype == "f32"
    whole = quantize(graph, draw(graph, 8), head="int8")
    assert ops(whole)["ConvInteger"] == 2
    assert ops(whole)["Softmax"] == 1


def test_network_without_a_last_layer_is_dequantized_at_its_output() -> None:
    net = Net((1, 4, 4, 3))
    y = net.relu(net.conv(net.x, 6, "c"))
    graph = net.build([net.add("Add", [y, net.conv(y, 6, "d")], name="sum")])
    small = quantize(graph, draw(graph, 8))
    assert node_of(small, "sum").op == "DequantizeLinear"
    assert node_of(small, "sum/s8").op == "QLinearAdd"


def test_concat_operands_share_its_scale() -> None:
    small = quantize(branches(), draw(branches(), 8))
    joined = node_of(small, "joined")
    assert {v.quant for v in joined.operands()} == {joined.output.quant}
    rescaled = [n for n in small.nodes if n.op == "QLinearLookup"]
    assert {next(n.operands()).name for n in rescaled} == {"one/relu", "max"}  # "three" is born in that scale


def test_concat_of_rectified_branches_needs_no_rescaling() -> None:
    net = Net((1, 6, 6, 3))
    a, b = net.relu(net.conv(net.x, 4, "a")), net.relu(net.conv(net.x, 6, "b", kernel=1))
    inner = net.add("Concat", [a, b], {"axis": 3}, name="inner")
    c = net.relu(net.conv(net.x, 2, "c"))
    graph = net.classify(net.relu(net.conv(net.add("Concat", [inner, c], {"axis": 3}), 8, "last")))
    samples = draw(graph, 8)
    small = quantize(graph, samples)
    assert "QLinearLookup" not in ops(small)
    assert snr_db(run(graph, samples), run(small, quantize_samples(small, samples))) > 25


def test_concat_with_a_constant_operand() -> None:
    net = Net((1, 4, 4, 3))
    grid = net.constant("grid", np.linspace(-1, 1, 32).reshape(1, 4, 4, 2))
    joined = net.add("Concat", [net.relu(net.conv(net.x, 4, "a")), grid], {"axis": 3}, name="joined")
    graph = net.classify(net.relu(net.conv(joined, 8, "last")))
    samples = draw(graph, 8)
    small = quantize(graph, samples)
    assert small.constants["grid"].value.dtype == "s8"
    assert snr_db(run(graph, samples), run(small, quantize_samples(small, samples))) > 25


def test_pad_value_becomes_an_integer() -> None:
    net = Net((1, 4, 4, 3))
    y = net.relu(net.conv(net.x, 4, "a"))
    zero = net.add("Pad", [y], {"pads": (0, 1, 1, 0, 0, 1, 1, 0)}, name="zero")
    graph = net.classify(net.relu(net.conv(zero, 8, "last")))
    small = quantize(graph, draw(graph, 8))
    assert node_of(small, "zero").attrs["value"] == -128


def test_function_of_one_value_is_a_table_of_256_entries() -> None:
    graph = NETWORKS["squeeze_excite"]()
    small = quantize(graph, draw(graph, 8))
    node = node_of(small, "gate")
    assert node.op == "QLinearLookup"
    x, table = node.operands()
    assert table.name == "gate/table"
    assert small.constants[table.name].data.shape == (256,)
    assert x.quant is not None
    assert node.output.quant is not None
    real = (np.arange(-128, 128) - x.quant.zero_point) * x.quant.scale  # type: ignore[operator]
    wanted = np.clip(0.2 * real + 0.5, 0, 1) / node.output.quant.scale + node.output.quant.zero_point
    found = small.constants[table.name].data
    assert np.abs(found - np.clip(wanted, -128, 127)).max() <= 0.501


def test_gate_and_constant_by_channel_multiply_in_int8() -> None:
    graph = NETWORKS["squeeze_excite"]()
    assert node_of(quantize(graph, draw(graph, 8)), "gated").op == "QLinearMul"
    graph = NETWORKS["affine"]()
    small = quantize(graph, draw(graph, 8))
    assert small.constants["bn/scale"].value.shape == (1, 1, 1, 4)
    assert small.constants["bn/shift"].value.shape == (1, 6, 6, 4)


def test_ops_without_an_int8_form_stay_float_in_one_run() -> None:
    graph = NETWORKS["attention"]()
    small = quantize(graph, draw(graph, 8))
    assert ops(small)["DequantizeLinear"] == 2  # into the attention, into the head
    assert ops(small)["QuantizeLinear"] == 1
    assert ops(small)["MatMul"] == 2


def test_dead_channel_gives_its_bias() -> None:
    net = Net((1, 4, 4, 3))
    y = net.conv(net.x, 4, "c", kernel=1)
    net.constants["c/weight"].data[1] = 0
    net.constants["c/bias"].data[1] = 1.25
    graph = net.classify(net.relu(y))
    samples = draw(graph, 8)
    small = quantize(graph, samples)
    assert (small.constants["c/weight"].data[1] == 0).all()
    out = interpret(small, {"x": quantize_samples(small, samples[:1])}).values["c/relu"]
    quant = node_of(small, "c/relu").output.quant
    assert quant is not None
    np.testing.assert_allclose((out[..., 1] + 128.0) * quant.scale, 1.25, atol=quant.scale)  # type: ignore[type-var]


def test_layers_that_share_a_weight_share_its_int8_form() -> None:
    net = Net((1, 4, 4, 3))
    y = net.relu(net.conv(net.x, 3, "c"))
    attrs = {"pads": (1, 1, 1, 1)}
    w, b = net.constants["c/weight"].value, net.constants["c/bias"].value
    graph = net.classify(net.relu(net.add("Conv", [y, w, b], attrs, name="again")))
    small = quantize(graph, draw(graph, 8))
    assert [k for k in small.constants if small.constants[k].value.dtype == "s8"] == ["c/weight"]


def test_weights_that_are_not_finite_are_named_with_their_layer() -> None:
    graph = plain()
    graph.constants["dw/weight"].data[2, 1, 1, 0] = np.nan
    with pytest.raises(ModelError, match="weight dw/weight of layer net.onnx:/dw holds NaN or infinity"):
        quantize(graph, draw(graph, 8))


def test_activation_that_never_varies_is_named() -> None:
    net = Net((1, 4, 4, 3))
    y = net.relu(net.conv(net.x, 4, "c"))
    net.constants["c/bias"].data[:] = -1000
    with pytest.raises(ModelError, match=r"layer net.onnx:/c/relu is 0 everywhere on all"):
        quantize(net.classify(y), draw(net.build([y]), 8))
    with pytest.raises(ModelError, match="input x is 0 everywhere"):
        quantize(plain(), np.zeros((8, 12, 12, 3)))


def test_sums_too_long_for_int32_are_named() -> None:
    net = Net((1, 70000))
    with pytest.raises(ModelError, match=r"layer net.onnx:/head sums 70000 products, too many for int32"):
        quantize(net.classify(net.x), draw(net.build([net.x]), 4), head="int8")


def test_graph_that_is_int8_already_is_refused() -> None:
    small = quantize(plain(), draw(plain(), 8))
    with pytest.raises(ModelError, match="one float input, this has x: s8"):
        quantize(small, draw(plain(), 8))
    with pytest.raises(DataError, match="head 'none'"):
        quantize(plain(), draw(plain(), 8), head="none")  # type: ignore[arg-type]


def test_own_names_take_none_of_the_users() -> None:
    net = Net((1, 4, 4, 3))
    y = net.relu(net.conv(net.x, 4, "c"))
    scale = net.constant("c/weight/scale", np.full((1, 1, 1, 4), 0.5))
    y = net.add("Mul", [y, scale], name="c/relu/acc")
    graph = net.classify(net.relu(net.conv(y, 4, "d")))
    small = quantize(graph, draw(graph, 8))
    assert small.constants["c/weight/scale"].value.shape == (1, 1, 1, 4)
    assert node_of(small, "c/relu/acc").op == "QLinearMul"


def test_batched_graph_is_quantized() -> None:
    net = Net((4, 6, 6, 3))
    graph = net.classify(net.relu(net.conv(net.x, 8, "c")))
    samples = draw(graph, 10)
    small = quantize(graph, samples)
    got = interpret(small, {"x": quantize_samples(small, samples[:4])}).outputs[0]
    assert snr_db(interpret(graph, {"x": samples[:4]}).outputs[0], got) > 25


def test_samples_survive_the_round_trip_to_half_a_step() -> None:
    graph, samples = plain(), draw(plain(), 8)
    small = quantize(graph, samples)
    quant = small.inputs[0].quant
    assert quant is not None
    integers = quantize_samples(small, samples)
    assert integers.dtype == np.int8
    back = dequantize_samples(small, integers)
    assert np.abs(back - samples).max() <= 0.501 * float(quant.scale)
    assert (quantize_samples(small, back) == integers).all()


def test_samples_beyond_the_range_saturate() -> None:
    small = quantize(plain(), draw(plain(), 8))
    far = np.full((1, 12, 12, 3), 1e6)
    assert (quantize_samples(small, far) == 127).all()
    assert (quantize_samples(small, -far) == -128).all()


def test_sample_conversion_refuses_what_does_not_fit() -> None:
    small = quantize(plain(), draw(plain(), 8))
    with pytest.raises(DataError, match="shape"):
        quantize_samples(small, np.zeros((1, 3, 12, 12)))
    with pytest.raises(DataError, match="NaN"):
        quantize_samples(small, np.full((1, 12, 12, 3), np.nan))
    with pytest.raises(DataError, match="not int8"):
        dequantize_samples(small, np.zeros((1, 12, 12, 3)))
    with pytest.raises(ModelError, match="is not quantized"):
        quantize_samples(plain(), np.zeros((1, 12, 12, 3)))
