"""Networks that the user brings in: a Python file that defines one, and files of weights."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from whydeep.core.errors import InputError

from .weights import load_weights as load_weights
from .weights import save_weights as save_weights


@dataclass(frozen=True)
class Source:
    """Where a network comes from: one of both.

    module: an instance, with its present weights. factory: makes a fresh network at each call, drawn from PyTorch's
    global generator (`Subject.fresh` seeds it), so that the network can be trained anew.
    """

    module: nn.Module | None = None
    factory: Callable[[], nn.Module] | None = None

    def __post_init__(self) -> None:
        if (self.module is None) == (self.factory is None):
            raise ValueError("a source has a module and a factory, or neither; give exactly one of them")


def load_object(spec: str, *, input_shape: tuple[int, ...], outputs: int) -> Source:
    """Execute the Python file of "FILE.py:OBJECT" and return its OBJECT, an `nn.Module` or a callable that makes one.

    The file is executed as a program is: load only what you trust. While it runs, and while its callable runs, its
    folder is importable; afterwards neither it nor what it imported from there is left under a name that another
    file could clash with.
    A callable is given `input_shape` (shape of one sample), and `outputs` or `classes` (the number of outputs), where
    its signature names them; every other argument needs a default.

    Raises `InputError` when there is no such file or object, when the file or the callable fails (with the line),
    when the callable needs another argument, returns no `nn.Module` or the same one twice.
    """
    file, separator, name = spec.rpartition(":")
    if not separator or not name.isidentifier():
        raise InputError(f"{spec!r} names no object in a file", "write FILE.py:OBJECT")
    path = Path(file).resolve()
    if not path.is_file():
        raise InputError(f"there is no file {file}", "write the path of a Python file before the colon")
    found = _execute(path)
    if not hasattr(found, name):
        public = [key for key, value in vars(found).items() if callable(value) and not key.startswith("_")]
        own = [key for key in public if getattr(vars(found)[key], "__module__", None) == found.__name__] or public
        raise InputError(f"{path.name} has no object {name}", f"it has {', '.join(own) or 'none that could be meant'}")
    value = getattr(found, name)
    if isinstance(value, nn.Module):
        return Source(module=value)
    if not callable(value):
        raise InputError(
            f"{name} in {path.name} is {type(value).__name__}", "name an nn.Module, or a callable that returns one"
        )
    offered = {"input_shape": tuple(input_shape), "outputs": outputs, "classes": outputs}
    return Source(factory=_factory(value, name, path, offered))


def _factory(make: Callable[..., Any], name: str, path: Path, offered: dict[str, Any]) -> Callable[[], nn.Module]:
    """Return a callable without arguments that checks what `make` returns."""
    try:
        wanted = dict(inspect.signature(make).parameters)
    except (TypeError, ValueError):  # some callables of C have no signature
        wanted = {}
    given = {key: value for key, value in offered.items() if key in wanted}
    lacking = [
        key
        for key, parameter in wanted.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and (key not in given or parameter.kind is parameter.POSITIONAL_ONLY)
    ]
    if lacking:
        raise InputError(
            f"{name} in {path.name} needs the arguments {', '.join(lacking)}",
            "let it need none but input_shape, outputs or classes",
        )
    last: weakref.ref[nn.Module] | None = None

    def fresh() -> nn.Module:
        nonlocal last
        with _importable(path.parent), _one_sentence(path, f"{name} in {path.name}"):
            made = make(**given)
        if not isinstance(made, nn.Module):
            raise InputError(f"{name} in {path.name} returned {type(made).__name__}", "let it return an nn.Module")
        if last is not None and last() is made:
            raise InputError(
                f"{name} in {path.name} returned the same network twice", "let it make a new one at each call"
            )
        last = weakref.ref(made)
        return made

    return fresh


def _execute(path: Path) -> ModuleType:
    # dataclasses and type hints look a class's module up by name while the file runs, so it must be in sys.modules:
    # under a name that nothing else has.
    name = f"_whydeep_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise InputError(f"{path.name} is no Python file", "name a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _importable(path.parent), _one_sentence(path, path.name):
            # Compiled here and not by the loader: that one would trust a cached compilation of an older text, and
            # leave one beside the user's file.
            exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _one_sentence(path: Path, what: str) -> Iterator[None]:
    """Turn whatever the user's code raises into an `InputError` that names the line of `path`."""
    try:
        yield
    except (Exception, SystemExit) as fault:
        lines = [frame.lineno for frame in traceback.extract_tb(fault.__traceback__) if frame.filename == str(path)]
        line = fault.lineno if isinstance(fault, SyntaxError) and fault.filename == str(path) else (lines or [None])[-1]
        where = "" if line is None else f" at line {line}"
        text = " ".join(str(fault).split())
        raise InputError(f"{what} failed{where}: {type(fault).__name__}: {text}", "repair the file") from fault


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let modules of `folder` be imported inside the block, and forget them after it."""
    known = {name.partition(".")[0] for name in sys.modules}
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))
        # Two files with a neighbour of the same name, layers.py say, must each get their own. A package that was
        # known before stays whole.
        for name, module in list(sys.modules.items()):
            top = name.partition(".")[0]
            origin = getattr(module, "__file__", None)
            if top in known or not origin:
                continue
            if Path(origin) == folder / f"{top}.py" or Path(origin).is_relative_to(folder / top):
                del sys.modules[name]
