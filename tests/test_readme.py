"""What the README shows is run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
torch = pytest.importorskip("torch")


def python_of(section: str, document: str = "README.md") -> str:
    """The first Python block under a heading."""
    text = (ROOT / document).read_text()
    found = re.search(rf"^## {re.escape(section)}\n.*?^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert found, f"{document} has no Python under {section!r}"
    return found[1]


def network() -> object:
    torch.manual_seed(0)
    nn = torch.nn
    layers: list[object] = []
    for c, o, groups in ((3, 8, 1), (8, 8, 8), (8, 12, 1), (12, 12, 12), (12, 16, 1), (16, 16, 1)):
        layers += [nn.Conv2d(c, o, 3, padding=1, groups=groups, bias=False), nn.BatchNorm2d(o), nn.ReLU6()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)).eval()


@pytest.mark.parametrize(
    "section, document", [("Your PyTorch model", "README.md"), ("", "docs/python-api.md")]
)
def test_the_lines_for_a_pytorch_model_adapt_one(section: str, document: str) -> None:
    code = python_of(section, document) if section else first_python(document)
    lines = [x for x in code.splitlines() if x.strip()]
    model, images = network(), torch.randn(24, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(24) % 4
    before = {k: v.clone() for k, v in model.state_dict().items()}  # type: ignore[attr-defined]
    space = {"model": model, "images": images, "labels": labels}
    exec(compile("\n".join(lines), document, "exec"), space)
    changed = [k for k, v in model.state_dict().items() if not torch.equal(v, before[k])]  # type: ignore[attr-defined]
    assert "20.weight" in changed and "0.weight" not in changed
    with torch.no_grad():
        outputs = model(images).numpy()  # type: ignore[operator]
    np.testing.assert_allclose(outputs, space["program"].predict(images), rtol=1e-3, atol=1e-4)  # type: ignore[attr-defined]


def first_python(document: str) -> str:
    found = re.search(r"^```python\n(.*?)^```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


def test_the_readme_needs_four_lines() -> None:
    lines = [x for x in python_of("Your PyTorch model").splitlines() if x.strip()]
    assert len(lines) == 4
