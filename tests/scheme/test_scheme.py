"""The scheme file and its resolution against a network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scheme.networks import small
from trainlet.errors import SchemeError
from trainlet.ir import Graph
from trainlet.scheme import Channels, UpdateScheme, layers, read_scheme, resolve_scheme, select
from trainlet.scheme.layers import largest_norm

names = st.text('abc/._-"\\é1 ', min_size=1, max_size=8)
channels = st.one_of(
    st.builds(Channels, share=st.floats(0, 1, exclude_min=True)),
    st.builds(Channels, count=st.integers(1, 100)),
    st.builds(Channels, indices=st.lists(st.integers(0, 99), max_size=5, unique=True).map(tuple)),
)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return small()


def written(folder: Path, content: object) -> Path:
    path = folder / "mine.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@given(names, st.dictionaries(names, channels, max_size=4), st.lists(names, unique=True, max_size=4))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_scheme_survives_its_file(tmp_path_factory, name: str, weights, biases: list[str]) -> None:
    scheme = UpdateScheme(name, weights, tuple(biases))
    path = tmp_path_factory.mktemp("scheme") / "s.json"
    path.write_text(scheme.to_json(), encoding="utf-8")
    assert read_scheme(path) == scheme


def test_file_holds_one_line_a_parameter() -> None:
    text = UpdateScheme(
        "mine", {"a/w": Channels(share=1.0), "b/w": Channels(count=3)}, ("a/b", "b/b")
    ).to_json()
    lines = [line.strip().rstrip(",") for line in text.splitlines()]
    assert '"a/w": "all"' in lines and '"b/w": {"count": 3, "rule": "norm"}' in lines
    assert '"a/b"' in lines and '"b/b"' in lines


@pytest.mark.parametrize(
    "content, words",
    [
        ("{", "cannot be read"),
        ([], "expected"),
        ({"weights": []}, "expected"),
        ({"wieghts": {}}, "unknown entry wieghts"),
        ({"biases": "a"}, '"biases" must be a list'),
        ({"biases": [1]}, '"biases" must be a list'),
        ({"weights": {"conv/weight": "some"}}, "conv/weight: expected"),
        ({"weights": {"conv/weight": {"part": 1}}}, "conv/weight: expected"),
        ({"weights": {"conv/weight": {"share": 0.5, "count": 2}}}, "conv/weight: give exactly one"),
        ({"weights": {"conv/weight": {}}}, "conv/weight: give exactly one"),
        ({"weights": {"conv/weight": {"share": "half"}}}, "conv/weight: share has the wrong type"),
        ({"weights": {"conv/weight": {"count": 1.5}}}, "conv/weight: count has the wrong type"),
        ({"weights": {"conv/weight": {"count": True}}}, "conv/weight: count has the wrong type"),
        (
            {"weights": {"conv/weight": {"indices": [0, "1"]}}},
            "conv/weight: channel indices must be integers",
        ),
        ({"weights": {"conv/weight": {"indices": [True]}}}, "conv/weight: channel indices must be integers"),
    ],
)
def test_damaged_file_is_refused_naming_file_and_parameter(
    tmp_path: Path, content: object, words: str
) -> None:
    with pytest.raises(SchemeError, match=words) as error:
        read_scheme(written(tmp_path, content))
    assert "mine.json" in str(error.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SchemeError, match="nowhere.json"):
        read_scheme(tmp_path / "nowhere.json")


def test_file_without_a_name_is_called_after_itself(tmp_path: Path) -> None:
    assert read_scheme(written(tmp_path, {"weights": {}})).name == "mine"


@pytest.mark.parametrize(
    "name, chosen, words",
    [
        ("conv/wieght", Channels(share=1.0), "no weight 'conv/wieght'; did you mean conv/weight"),
        ("conv/weight", Channels(share=0.0), "conv/weight: share 0.0 is outside"),
        ("conv/weight", Channels(share=1.5), "conv/weight: share 1.5 is outside"),
        ("conv/weight", Channels(share=float("nan")), "conv/weight: share nan is outside"),
        ("conv/weight", Channels(count=0), "conv/weight: 0 channels of 8"),
        ("conv/weight", Channels(count=9), "conv/weight: 9 channels of 8"),
        ("conv/weight", Channels(indices=(0, 8)), r"conv/weight: channels \[8\]"),
        ("conv/weight", Channels(indices=(-1,)), r"conv/weight: channels \[-1\]"),
        ("conv/weight", Channels(indices=(3, 3)), "conv/weight: channels repeat"),
        ("conv/weight", Channels(share=0.5, rule="random"), "conv/weight: rule 'random'"),
        ("grouped/weight", Channels(share=0.5), "grouped/weight: a grouped convolution"),
    ],
)
def test_channels_that_do_not_fit_are_refused_naming_the_weight(graph, name, chosen, words: str) -> None:
    with pytest.raises(SchemeError, match=words):
        select(UpdateScheme("mine", {name: chosen}), graph)


def test_unknown_bias_is_refused_naming_close_ones(graph: Graph) -> None:
    with pytest.raises(SchemeError, match="no bias 'conv/bais'; did you mean conv/bias"):
        select(UpdateScheme("mine", {}, ("conv/bais",)), graph)


def test_scheme_that_trains_nothing_is_refused(graph: Graph) -> None:
    with pytest.raises(SchemeError, match="mine trains nothing"):
        select(UpdateScheme("mine"), graph)


def test_whole_weights_have_no_channel_list(graph: Graph) -> None:
    every = [Channels(share=1.0), Channels(count=8), Channels(indices=tuple(range(8)))]
    assert all(
        select(UpdateScheme("m", {"conv/weight": c}), graph).weights == {"conv/weight": None} for c in every
    )


def test_indices_are_sorted(graph: Graph) -> None:
    found = select(UpdateScheme("m", {"conv/weight": Channels(indices=(5, 0, 3))}), graph)
    assert found.weights["conv/weight"] == (0, 3, 5)


@pytest.mark.parametrize("name, axes", [("conv/weight", (0, 1, 2)), ("depthwise/weight", (1, 2, 3))])
def test_share_takes_the_channels_of_largest_norm(graph: Graph, name: str, axes: tuple[int, ...]) -> None:
    found = select(UpdateScheme("m", {name: Channels(share=0.4)}), graph).weights[name]
    norms = np.sqrt((graph.constants[name].data.astype(np.float64) ** 2).sum(axes))
    assert found == tuple(sorted(np.argsort(norms)[-3:]))


def test_ties_go_to_the_lower_channel() -> None:
    assert largest_norm(np.ones((2, 1, 1, 6)), 3, False) == (0, 1, 2)
    assert largest_norm(np.ones((6, 3, 3, 1)), 2, True) == (0, 1)


def test_layers_are_found_in_order_with_their_biases(graph: Graph) -> None:
    found = layers(graph)
    assert [x.weight.name for x in found] == [f"{n}/weight" for n in ("conv", "depthwise", "grouped", "head")]
    assert [x.bias and x.bias.name for x in found] == ["conv/bias", "depthwise/bias", None, "head/bias"]
    assert [x.is_head for x in found] == [False] * 3 + [True]
    assert [(x.channels, x.channel_weights) for x in found] == [(8, 72), (8, 9), (4, 8), (8, 3)]


@pytest.mark.parametrize(
    "text, weights, biases",
    [
        ("head", ["head"], ["head"]),
        ("bias-only:2", ["head"], ["depthwise", "head"]),
        ("bias-only:3", ["head"], ["conv", "depthwise", "head"]),
        ("last:1", ["grouped", "head"], ["head"]),
        ("last:2", ["depthwise", "grouped", "head"], ["depthwise", "head"]),
        ("full", ["conv", "depthwise", "grouped", "head"], ["conv", "depthwise", "head"]),
    ],
)
def test_shorthands(graph: Graph, text: str, weights: list[str], biases: list[str]) -> None:
    found = resolve_scheme(text, graph)
    assert list(found.weights) == [f"{n}/weight" for n in weights]
    assert list(found.biases) == [f"{n}/bias" for n in biases]
    assert all(c.whole for c in found.weights.values())


@pytest.mark.parametrize("text", ["last:0", "last:4", "last:", "last:x", "bias-only:-1", "bias-only", "last"])
def test_shorthand_with_a_wrong_number_says_what_is_possible(graph: Graph, text: str) -> None:
    with pytest.raises(SchemeError, match=f"'{text}'.*last:3"):
        resolve_scheme(text, graph)


@pytest.mark.parametrize("text", ["middle", "mcunet-5fps:49kb", "net:49kb", "mcunet-5fps:50kb"])
def test_unknown_name_lists_the_known_kinds(graph: Graph, text: str) -> None:
    with pytest.raises(SchemeError, match="head, bias-only:K, last:K, full|another network"):
        resolve_scheme(text, graph)


def test_scheme_is_taken_as_it_is_or_from_its_file(graph: Graph, tmp_path: Path) -> None:
    scheme = UpdateScheme("mine", {"conv/weight": Channels(count=2)})
    path = written(tmp_path, scheme.to_json())
    assert resolve_scheme(scheme, graph) is scheme
    assert resolve_scheme(path, graph) == resolve_scheme(str(path), graph) == scheme


def test_the_rule_fisher_takes_the_channels_of_most_information(tmp_path):
    values = (0.1, 5.0, 0.2, 4.0, 0.0, 3.0, 0.3, 0.0)
    scheme = UpdateScheme("s", {"conv/weight": Channels(count=3, rule="fisher")}, (), {"conv/weight": values})
    path = tmp_path / "s.json"
    path.write_text(scheme.to_json())
    assert read_scheme(path) == scheme
    assert select(scheme, small()).weights["conv/weight"] == (1, 3, 5)


def test_the_rule_fisher_without_information_says_where_it_comes_from():
    scheme = UpdateScheme("s", {"conv/weight": Channels(count=3, rule="fisher")})
    with pytest.raises(SchemeError, match=r"conv/weight.*8 channels.*--rule fisher"):
        select(scheme, small())
