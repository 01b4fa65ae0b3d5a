"""Chains of smaller schemes, and the first of one that fits."""

from itertools import pairwise

import pytest

from tests.host.programs import network
from trainlet import api
from trainlet.errors import BudgetError, SchemeError
from trainlet.scheme import Channels, UpdateScheme, layers, resolve_scheme, select
from trainlet.scheme.shrink import first_fitting, smaller_schemes

GRAPH = network("residual", True)
BODY = [x for x in layers(GRAPH) if not x.is_head]
SETTINGS = api.Settings(scheme="full", master="stochastic")


def names(scheme):
    return [s.name for s in smaller_schemes(resolve_scheme(scheme, GRAPH), GRAPH)]


def trained(scheme):
    chosen = select(scheme, GRAPH)
    channels = {x.weight.name: x.channels for x in layers(GRAPH)}
    return sum(channels[k] if c is None else len(c) for k, c in chosen.weights.items()) + len(chosen.biases)


def test_last_loses_a_layer_at_a_time_and_then_shares_of_the_last_one():
    found = names("last:3")
    assert found[:2] == ["last:2", "last:1"]
    assert found[2:4] == [f"biases:1,{len(BODY) - 1}=0.5", f"biases:1,{len(BODY) - 1}=0.25"]
    assert found[-2:] == ["biases:1", "head"]


def test_the_dearest_weight_is_halved_first_then_biases_go():
    found = names("biases:4,1=1,5=1")
    assert found[0] == "biases:4,1=1,5=0.5"  # 17 (5 x 4 + 25) bytes against 8 (5 x 4 + 20)
    assert found[-5:] == ["biases:4", "biases:3", "biases:2", "biases:1", "head"]


@pytest.mark.parametrize("scheme", ["full", "last:5", "bias-only:3", "biases:4,1=1,5=0.5"])
def test_each_trains_less_than_the_one_before(scheme):
    chain = [resolve_scheme(scheme, GRAPH), *smaller_schemes(resolve_scheme(scheme, GRAPH), GRAPH)]
    counts = [trained(s) for s in chain]
    assert counts[0] >= counts[1] and all(a > b for a, b in pairwise(counts[1:]))
    assert chain[-1].name == "head"


def test_the_head_alone_has_nothing_smaller():
    assert names("head") == []


def test_counts_and_indices_count_as_shares():
    weight = BODY[1].weight.name
    half = BODY[1].channels // 2
    for channels in (Channels(count=half), Channels(indices=tuple(range(half)))):
        scheme = UpdateScheme("mine", {weight: channels}, (BODY[2].bias.name,))
        assert smaller_schemes(scheme, GRAPH)[0].name == "biases:1,1=0.25"


def test_the_first_that_fits_is_found_with_few_plans():
    chain = [UpdateScheme(str(i)) for i in range(60)]
    asked = []

    def ram_bytes(scheme):
        asked.append(scheme.name)
        return 1000 - 10 * int(scheme.name)

    found, needed = first_fitting(chain, ram_bytes, 765)
    assert (found.name, needed) == ("24", 760) and len(asked) <= 7
    assert first_fitting(chain, ram_bytes, 409) == (None, 410)


def test_an_unreachable_budget_names_peak_layer_and_the_nearest_scheme_that_fits():
    whole = api.plan(GRAPH, SETTINGS)
    budget = (whole.ram_bytes + api.plan(GRAPH, api.Settings(scheme="head")).ram_bytes) // 2
    with pytest.raises(BudgetError) as error:
        api.plan(GRAPH, api.Settings(scheme="full", master="stochastic", budget_bytes=budget))
    said = str(error.value)
    for part in (
        f"needs {whole.ram_bytes:,} bytes",
        f"the budget is {budget:,}",
        "The peak is in step",
        "alive",
    ):
        assert part in said
    assert any(f" of {n.source}" in said for n in whole.main.graph.nodes if n.source)
    nearest = said.split("--scheme ")[1].split(" (")[0]
    chain = names("full")
    at = chain.index(nearest)
    fits = [
        api.plan(GRAPH, api.Settings(scheme=s, master="stochastic")).ram_bytes for s in chain[at - 1 : at + 1]
    ]
    assert fits[1] <= budget < fits[0] and said.endswith(f"({fits[1]:,} bytes).")


def test_a_budget_that_no_scheme_meets_says_what_the_least_needs():
    least = api.plan(GRAPH, api.Settings(scheme="head", master="stochastic")).ram_bytes
    with pytest.raises(
        BudgetError, match=rf"Not even --scheme head fits, it needs {least:,} bytes\. The peak is in"
    ):
        api.plan(GRAPH, api.Settings(scheme="last:2", master="stochastic", budget_bytes=least - 1))
    with pytest.raises(BudgetError, match="It trains the head alone: take a smaller network"):
        api.plan(GRAPH, api.Settings(scheme="head", master="stochastic", budget_bytes=100))


@pytest.mark.parametrize(
    ("scheme", "says"),
    [
        ("biases:99", "give a number of layers from 1 to"),
        ("biases:2,1", "'1' is not LAYER=SHARE"),
        ("biases:2,99=0.5", "'99=0.5' is not LAYER=SHARE with a layer from 0 to"),
        ("biases:2,1=1.5", "share in"),
    ],
)
def test_a_wrong_name_says_how_it_is_written(scheme, says):
    with pytest.raises(SchemeError, match=says):
        resolve_scheme(scheme, GRAPH)


def test_the_published_notation_names_the_published_schemes():
    scheme = resolve_scheme("biases:3,1=0.5", GRAPH)
    assert [b for b in scheme.biases if "head" not in b] == [x.bias.name for x in BODY[-3:]]
    assert scheme.weights[BODY[1].weight.name] == Channels(share=0.5)
