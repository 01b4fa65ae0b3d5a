"""Modules against what trainlet makes of them: outputs, gradients in float64, and the way back."""

from __future__ import annotations

import copy
import os
from dataclasses import replace

import numpy as np

from tests.train.networks import case, gradients
from tests.train.pytorch import torch
from trainlet.frontends.stored import StoredLayer
from trainlet.frontends.torch import from_module_with_origin, to_state_dict
from trainlet.frontends.torch_state import TorchOrigin
from trainlet.ir import Graph, Tensor, interpret
from trainlet.scheme.layers import layers, norms

os.environ["TRANSFORMERS_VERBOSITY"] = "error"


def with_statistics(module: torch.nn.Module, seed: int = 1) -> torch.nn.Module:
    """The module in evaluation mode, its BatchNorms as if they had been trained."""
    g = torch.Generator().manual_seed(seed)
    for m in module.modules():
        if isinstance(m, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.1, generator=g)
            m.running_var.uniform_(0.5, 1.5, generator=g)
            if m.affine:
                m.weight.data.uniform_(0.5, 1.5, generator=g)
                m.bias.data.normal_(0, 0.1, generator=g)
    return module.eval()


def sample(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def outputs(module: torch.nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        y = module(torch.from_numpy(x))
    return getattr(y, "logits", y).numpy()


def run(graph: Graph, x: np.ndarray, origin: TorchOrigin) -> np.ndarray:
    """What the graph computes for the user's x, in the user's layout."""
    y = interpret(graph, {graph.inputs[0].name: x.transpose(origin.input_perm)}).outputs[0]
    return y.transpose(np.argsort(origin.output_perm))


def close(a: np.ndarray, b: np.ndarray, what: str = "", tolerance: float = 1e-4) -> None:
    assert a.shape == b.shape, what
    worst = np.abs(a - b).max(initial=0.0)
    assert worst <= tolerance * max(np.abs(b).max(initial=0.0), 1e-3), (what, worst, np.abs(b).max())


def check_outputs(module: torch.nn.Module, shape: tuple[int, ...]) -> tuple[Graph, TorchOrigin]:
    graph, origin = from_module_with_origin(module, torch.zeros(shape))
    x = sample((1, *shape[1:]))
    close(run(graph, x, origin), outputs(module, x))
    return graph, origin


def moved(graph: Graph, seed: int = 0) -> Graph:
    """The graph with every weight and bias moved a little, as training does."""
    rng, constants = np.random.default_rng(seed), dict(graph.constants)
    for layer in (*layers(graph), *norms(graph)):
        for value in (layer.weight, layer.bias):
            if value is not None:
                old = constants[value.name].data
                new = old + rng.normal(0, 0.1 * old.std() + 1e-3, old.shape)
                constants[value.name] = Tensor(value, new.astype(np.float32))
    return replace(graph, constants=constants)


def check_way_back(module: torch.nn.Module, graph: Graph, origin: TorchOrigin) -> None:
    """Untrained tensors come back bit for bit; with trained ones the module predicts what the graph does."""
    same, given = to_state_dict(graph, origin), module.state_dict()
    assert same.keys() == given.keys()
    assert all(torch.equal(same[k], v) and same[k].dtype == v.dtype for k, v in given.items())
    trained = moved(graph)
    other = copy.deepcopy(module)
    other.load_state_dict(to_state_dict(trained, origin))
    x = sample(origin.input_shape, 5)
    close(outputs(other, x), run(trained, x, origin))
    assert np.abs(outputs(other, x) - outputs(module, x)).max() > 1e-3  # it did move


def factor_of(state: dict[str, torch.Tensor], layer: StoredLayer) -> np.ndarray:
    """d(folded weight) / d(weight), by output channel."""
    factor = np.ones(1)
    for n in layer.norms:
        gamma = state[n.gamma].double().numpy() if n.gamma in state else 1.0
        factor = factor * gamma / np.sqrt(state[n.variance].double().numpy() + n.eps)
    return factor


def check_gradients(module: torch.nn.Module, graph: Graph, origin: TorchOrigin) -> None:
    """Every weight and bias, against float64 autograd through the module's own BatchNorms."""
    given = case(graph, 3, loss="softmax-cross-entropy")
    ours = gradients(given)
    exact, state = copy.deepcopy(module).double(), module.state_dict()
    x = given.feeds[graph.inputs[0].name].transpose(np.argsort(origin.input_perm))
    y = exact(torch.from_numpy(np.ascontiguousarray(x)))
    label = torch.from_numpy(given.feeds["label"])
    torch.nn.functional.cross_entropy(getattr(y, "logits", y), label).backward()
    theirs = {k: p.grad.numpy() for k, p in exact.named_parameters() if p.grad is not None}
    checked = set()
    for layer in origin.stored:
        d = theirs[layer.weight_of] / factor_of(state, layer).reshape(-1, *(1,) * (len(layer.perm) - 1))
        d = d.transpose(layer.perm)
        close(ours[layer.weight], d if layer.columns is None else d[:, layer.columns], layer.weight)
        checked.add(layer.weight)
        if layer.bias is not None:
            name = layer.norms[-1].beta if layer.norms else layer.bias_of
            if name in theirs:
                close(ours[layer.bias], theirs[name].reshape(-1), layer.bias)
                checked.add(layer.bias)
    assert checked >= {layer.weight.name for layer in (*layers(graph), *norms(graph))}


def check(module: torch.nn.Module, shape: tuple[int, ...]) -> Graph:
    """Outputs, gradients and the way back of a module for inputs of this shape."""
    module = with_statistics(module)
    graph, origin = check_outputs(module, shape)
    check_gradients(module, graph, origin)
    check_way_back(module, graph, origin)
    return graph
