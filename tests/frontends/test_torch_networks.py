"""Networks people have as torch.nn.Module: their outputs, gradients in float64, and state_dicts."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from benchmarks.torch_models import WORKLOADS, mobilenet_v2, resnet
from tests.frontends.torch_models import (
    check,
    check_gradients,
    check_way_back,
    close,
    outputs,
    run,
    sample,
    with_statistics,
)
from tests.train.pytorch import torch
from trainlet.adapt import adapted
from trainlet.api import Settings, plan
from trainlet.frontends.torch import from_module_with_origin, to_state_dict
from trainlet.ir import interpret
from trainlet.passes.rebatch import rebatch
from trainlet.scheme import resolve_scheme, select
from trainlet.train import derive

nn = torch.nn


def test_a_sequential_of_everything_plain() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8, affine=False), nn.Hardswish(),
        nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip
    graph = check(module, (1, 3, 12, 12))
    assert "Transpose" not in {n.op for n in graph.nodes}
    assert {"0.weight", "0.bias", "4.weight", "8.weight", "8.bias"} <= set(graph.constants)


@pytest.mark.slow
@pytest.mark.parametrize("width", [0.35, 1.0])
def test_mobilenet_v2_of_transformers(width: float) -> None:
    graph = check(mobilenet_v2(0, width, size=32), (1, 3, 32, 32))
    assert {n.op for n in graph.nodes} == {"Conv", "Clip", "Add", "AveragePool", "Reshape", "Gemm"}
    chosen = select(WORKLOADS["w1"].sparse(graph), graph)
    assert len(chosen.weights) == 7 and len(chosen.biases) == 21


@pytest.mark.slow
def test_resnet_50_of_transformers() -> None:
    check(resnet(0, 50, classes=10), (1, 3, 32, 32))


@pytest.mark.slow
def test_resnet_18_of_transformers() -> None:
    graph = check(resnet(0, 18, classes=10), (1, 3, 32, 32))
    assert {n.op for n in graph.nodes} == {"Conv", "Clip", "MaxPool", "Add", "AveragePool", "Reshape", "Gemm"}
    chosen = select(WORKLOADS["w2"].sparse(graph), graph)
    assert len(chosen.weights) == 5 and len(chosen.biases) == 11


def test_a_small_vision_transformer_of_transformers() -> None:
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40,
        image_size=16, patch_size=8, num_labels=5,
    )  # fmt: skip
    module = ViTForImageClassification(config)
    for p in module.parameters():
        p.data += 0.1 * torch.randn(p.shape)
    graph = check(module, (1, 3, 16, 16))
    assert [n.op for n in graph.nodes].count("LayerNormalization") == 5
    plan(graph, Settings(scheme="full", batch=3))  # another batch size mixes no samples


def test_efficientnet_lite0_with_its_imagenet_weights() -> None:
    from examples.efficientnet_lite0 import pretrained

    module = pretrained()
    graph, origin = from_module_with_origin(module, torch.zeros(1, 3, 64, 64))
    assert [n.op for n in graph.nodes].count("Conv") == 49
    x = sample((1, 3, 64, 64))
    close(run(graph, x, origin), outputs(module, x))
    check_way_back(module, graph, origin)


@pytest.mark.slow
def test_gradients_of_efficientnet_lite0() -> None:
    from examples.efficientnet_lite0 import pretrained

    module = pretrained()
    check_gradients(module, *from_module_with_origin(module, torch.zeros(1, 3, 32, 32)))


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = self.expand(nn.functional.silu(self.reduce(nn.functional.adaptive_avg_pool2d(x, 1))))
        return x * nn.functional.hardsigmoid(gate).expand_as(x)


class McuNet(nn.Module):
    """Inverted residuals of several kernel sizes, one with squeeze-and-excite, as MCUNet has them."""

    def __init__(self) -> None:
        super().__init__()

        def conv(i: int, o: int, k: int, s: int = 1, g: int = 1) -> list[nn.Module]:
            return [nn.Conv2d(i, o, k, s, k // 2, groups=g, bias=False), nn.BatchNorm2d(o)]

        self.stem = nn.Sequential(*conv(3, 8, 3, 2), nn.ReLU6())
        self.one = nn.Sequential(
            *conv(8, 24, 1), nn.ReLU6(), *conv(24, 24, 7, 1, 24), nn.ReLU6(), *conv(24, 8, 1)
        )
        self.two = nn.Sequential(
            *conv(8, 16, 1), nn.Hardswish(), *conv(16, 16, 5, 2, 16), SqueezeExcite(16), *conv(16, 12, 1)
        )
        self.classifier = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = self.two(x + self.one(x))
        return self.classifier(torch.flatten(nn.functional.avg_pool2d(x, 4), 1))


def test_a_network_like_mcunet_with_squeeze_and_excite() -> None:
    torch.manual_seed(0)
    graph = check(McuNet(), (1, 3, 16, 16))
    assert not {"Transpose", "Expand"} & {n.op for n in graph.nodes}


def test_batch_norm_trained_in_batch_mode_is_pytorchs() -> None:
    """Gradients, running statistics and the state_dict after a step, against model.train() and SGD."""
    torch.manual_seed(0)
    module = with_statistics(McuNet())
    graph, origin = from_module_with_origin(module, torch.zeros(1, 3, 16, 16), norm="batch")
    x, label = sample((6, 3, 16, 16)), np.arange(6) % 5
    close(run(graph, x[:1], origin), outputs(module, x[:1]))

    batch = rebatch(graph, 6)
    given = derive(batch, select(resolve_scheme("full", batch), batch))
    feeds = {graph.inputs[0].name: x.transpose(0, 2, 3, 1), "label": label, "lr": np.full(1, 0.1)}
    after = interpret(given.functions["step"], feeds, real=np.float64).state
    trained = to_state_dict(adapted(batch, given.parameters, after), origin)

    exact = copy.deepcopy(module).double().train()
    logits = exact(torch.from_numpy(x).double())
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(label)).backward()
    with torch.no_grad():
        for p in exact.parameters():
            p -= 0.1 * p.grad
    before, expected = module.state_dict(), exact.state_dict()
    for name in (n for n in expected if not n.endswith("num_batches_tracked")):
        step = (expected[name] - before[name].double()).numpy()
        close((trained[name].double() - before[name].double()).numpy(), step, name, 1e-3)


def test_attention_of_explicit_products_takes_any_batch() -> None:
    """transformers' "eager" attention merges batch and heads; its mask is a constant of zeros."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        image_size=8, patch_size=4, num_labels=3, attn_implementation="eager",
    )  # fmt: skip
    module = ViTForImageClassification(config).eval()
    graph, _ = from_module_with_origin(module, torch.zeros(1, 3, 8, 8))
    x = sample((3, 3, 8, 8))
    y = interpret(rebatch(graph, 3), {graph.inputs[0].name: x.transpose(0, 2, 3, 1)}).outputs[0]
    close(y, outputs(module, x))
