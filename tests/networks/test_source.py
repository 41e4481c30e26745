"""A network from a user's Python file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from whydeep.core import InputError
from whydeep.networks import Source, load_object

SHAPE, OUTPUTS = (1, 8, 8), 10


def written(folder: Path, text: str, name: str = "net.py") -> str:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("import torch\nfrom torch import nn\n" + text)
    return str(folder / name)


def loaded(spec: str) -> Source:
    return load_object(spec, input_shape=SHAPE, outputs=OUTPUTS)


def test_an_instance_is_taken_as_it_is(tmp_path: Path) -> None:
    source = loaded(written(tmp_path, "net = nn.Linear(3, 2)\n") + ":net")
    assert isinstance(source.module, nn.Linear)
    assert source.factory is None


@pytest.mark.parametrize(
    "text",
    [
        "def net():\n    return nn.Linear(64, 10)\n",
        "def net(input_shape, classes):\n    return nn.Linear(input_shape[1] * input_shape[2], classes)\n",
        "def net(*, outputs, width=64, **rest):\n    assert not rest\n    return nn.Linear(width, outputs)\n",
        "class net(nn.Linear):\n    def __init__(self, classes, width=64):\n        super().__init__(width, classes)\n",
        "import functools\nnet = functools.partial(nn.Linear, 64, 10)\n",
        "net = lambda classes: nn.Linear(64, classes)\n",
    ],
)
def test_a_callable_is_given_what_it_names(tmp_path: Path, text: str) -> None:
    source = loaded(written(tmp_path, text) + ":net")
    assert source.module is None
    assert source.factory is not None
    first, second = source.factory(), source.factory()
    assert isinstance(first, nn.Linear)
    assert tuple(first.weight.shape) == (10, 64)
    assert not torch.equal(first.weight, second.weight)  # newly drawn


def test_a_dataclass_with_postponed_annotations_works(tmp_path: Path) -> None:
    # dataclasses look their module up in sys.modules for such annotations.
    (tmp_path / "late.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom torch import nn\n"
        "@dataclass\nclass Config:\n    width: int = 64\n"
        "def net():\n    return nn.Linear(Config().width, 10)\n"
    )
    factory = loaded(f"{tmp_path / 'late.py'}:net").factory
    assert factory is not None
    assert isinstance(factory(), nn.Linear)


def test_its_annotations_are_not_postponed_by_ours(tmp_path: Path) -> None:
    # compile() passes on the __future__ statements of its caller unless it is told not to.
    path = written(tmp_path, "def f(x: int): ...\nassert f.__annotations__['x'] is int\nnet = nn.Identity()\n")
    assert isinstance(loaded(f"{path}:net").module, nn.Identity)


def test_neighbours_can_be_imported_and_do_not_clash(tmp_path: Path) -> None:
    text = "import layers_beside\ndef net():\n    import late_beside\n    return layers_beside.make(late_beside.N)\n"
    before, modules = list(sys.path), set(sys.modules)
    for folder, width in (("a", 3), ("b", 4)):
        written(tmp_path / folder, f"def make(n):\n    return nn.Linear({width}, n)\n", "layers_beside.py")
        written(tmp_path / folder, f"N = {10 * width}\n", "late_beside.py")
        factory = loaded(written(tmp_path / folder, text) + ":net").factory
        assert factory is not None
        made = factory()
        assert isinstance(made, nn.Linear)
        assert (made.in_features, made.out_features) == (width, 10 * width)
    assert sys.path == before
    assert all(name.startswith("_whydeep_net_") for name in set(sys.modules) - modules)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    for width in (3, 4):  # same length, same second: a cached compilation would be taken for the same text
        module = loaded(written(tmp_path, f"net = nn.Linear({width}, 2)\n") + ":net").module
        assert isinstance(module, nn.Linear)
        assert module.in_features == width
    assert not (tmp_path / "__pycache__").exists()


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("net = 1\nx =\n", "net", r"net\.py failed at line 4: SyntaxError"),
        ("net = 1\nraise KeyError('a\\nb')\n", "net", r"net\.py failed at line 4: KeyError"),
        ("import no_such_module_at_all\n", "net", r"line 3: ModuleNotFoundError: No module named"),
        ("raise SystemExit(3)\n", "net", r"line 3: SystemExit: 3"),
        ("def one(): ...\nclass Two: ...\n_three = 3\n", "net", r"no object net; it has one, Two$"),
        ("net = 3\n", "net", r"net in net\.py is int; name an nn\.Module"),
        ("def net(depth, width=3): ...\n", "net", r"needs the arguments depth; let it need none but"),
        ("def net(outputs, /): ...\n", "net", r"needs the arguments outputs"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path: Path, text: str, name: str, message: str) -> None:
    path = written(tmp_path, text)
    modules, paths = set(sys.modules), list(sys.path)
    with pytest.raises(InputError, match=message) as caught:
        loaded(f"{path}:{name}")
    assert "\n" not in str(caught.value)
    assert sys.path == paths
    assert all(name.startswith("_whydeep_net_") for name in set(sys.modules) - modules)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def net():\n    return 3\n", r"net in net\.py returned int; let it return an nn\.Module"),
        ("def net():\n    y = 1\n    return y / 0\n", r"net in net\.py failed at line 5: ZeroDivisionError"),
    ],
)
def test_a_bad_factory_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    factory = loaded(written(tmp_path, text) + ":net").factory
    assert factory is not None
    with pytest.raises(InputError, match=message):
        factory()


def test_a_factory_must_make_a_new_network(tmp_path: Path) -> None:
    factory = loaded(written(tmp_path, "one = nn.Linear(3, 2)\ndef net():\n    return one\n") + ":net").factory
    assert factory is not None
    first = factory()
    assert isinstance(first, nn.Module)
    with pytest.raises(InputError, match="the same network twice"):
        factory()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("net.py", "names no object"),
        ("net.py:", "names no object"),
        ("net.py:a.b", "names no object"),
        ("no_such_file.py:net", "there is no file no_such_file.py"),
    ],
)
def test_a_bad_specification_is_refused(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        loaded(spec)


def test_a_source_is_one_of_both() -> None:
    with pytest.raises(ValueError, match="exactly one"):
        Source()
    with pytest.raises(ValueError, match="exactly one"):
        Source(module=nn.Identity(), factory=nn.Identity)
