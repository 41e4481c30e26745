"""The spectrum of the Hessian of the risk: its ends, its trace and its density, without the matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from whydeep.core.data import Data
from whydeep.core.problem import Problem
from whydeep.core.randomness import or_default
from whydeep.core.training import Callback

from . import memory as memory_of
from .hessian import Engine, Hessian
from .matrix_spectrum import Spectrum, check_memory, matrix_spectrum


def spectrum(
    problem: Problem,
    *,
    operator: Literal["hessian", "ggn"] | Callable[[Tensor], Tensor] | Any = "hessian",
    top: int = 10,
    density: bool = True,
    columns: int | None = None,
    per_layer: bool = False,
    data: Data | None = None,
    tolerance: float = 1e-4,
    trace_tolerance: float = 0.02,
    steps: int | None = None,
    probes: int = 200,
    batch_size: int = 2048,
    engine: Engine = "auto",
    batch_norm: Literal["frozen", "batch"] = "frozen",
    memory: int | None = None,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Spectrum:
    """Measure the spectrum of the Hessian of the risk at `problem.model`: ends, trace, density, negative part.

    operator: "hessian"; "ggn", its Gauss-Newton part; or any symmetric matrix on the parameters' space (p,), as a
    function v -> A v or an object with `@` such as curvlinops'. data: the training data by default.
    top: how many of the largest eigenvalues. tolerance: the residuals asked for, as a part of the largest
    |eigenvalue|; 0 takes all steps. trace_tolerance: the standard error asked for, as a part of the |trace|.
    columns: random vectors that the search starts from, which are multiplied together; an eigenvalue of higher
    multiplicity is seen so many times (and more often once rounding has brought in the others). By default 2 below
    10,000 parameters, for a narrower band of the density, else 1; density=False takes 1 always.
    steps: at most so many blocks, 140 / columns. probes: at most so many for the trace.
    per_layer: the same for the diagonal block of every layer, with its 3 largest eigenvalues at most.
    batch_size, engine, batch_norm: see `Hessian`. memory: bytes that may be used, by default what is free.
    callback: told after every product how many were taken, of how many at most (for every layer anew); returning True
    ends it there with what there is, after the first probes of the trace. For a bar on a terminal or in a notebook:
    `with whydeep.terminal.watching() as watch: spectrum(problem, callback=lambda step: watch("spectrum", step))`.

    One block Lanczos run gives the ends and the density, and its basis relieves the trace's probes of the largest
    eigenvalues. Rounding in the network's own number type is within the residuals, about 1e-7 of the largest
    eigenvalue a product in single precision. Evaluation mode; the model is left alone.

    Raises `InputError` when the memory does not suffice (saying what would fit), when the operator is not symmetric,
    when the loss cannot be differentiated, or when a gradient is not finite (naming the layer).
    Cost: block * steps + probes products at most; memory: block * steps + top + 16 vectors (p,), and the graph of a
    batch's gradient.

    >>> from whydeep.networks import linear
    >>> x = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    >>> seen = spectrum(Problem(linear(1, 1).double(), Data(x, 0 * x), loss="squared"))
    >>> round(seen.trace, 6), round(seen.largest + seen.smallest, 6)  # of [[5, 2], [2, 1]]
    (6.0, 6.0)
    """
    like = problem.vector()
    settings: dict[str, Any] = {"tolerance": tolerance, "trace_tolerance": trace_tolerance, "probes": probes}
    shape: dict[str, Any] = {"density": density, "columns": columns, "steps": steps}
    settings |= shape | {"generator": or_default(generator)}
    budget = memory_of.available(like.device) if memory is None else memory
    check_memory(like, budget, top=top, **shape)  # before the graph is built
    given: dict[str, Any] = {"data": data, "batch_size": batch_size, "engine": engine, "batch_norm": batch_norm}

    def made(only: Sequence[str] | None = None) -> Any:
        if isinstance(operator, str):
            if operator not in ("hessian", "ggn"):
                raise ValueError(f"unknown operator {operator!r}; give 'hessian', 'ggn' or a matrix-vector product")
            return Hessian(problem, gauss_newton=operator == "ggn", only=only, **given)
        return operator

    whole = matrix_spectrum(made(), like, top=top, memory=budget, callback=callback, **settings)
    if not per_layer:
        return whole
    if not isinstance(operator, str):
        raise ValueError("per_layer needs operator='hessian' or 'ggn'; a matrix-vector product knows no layers")
    layers = {}
    for name, parameters in parameters_by_layer(problem).items():
        block = made(parameters)
        start = torch.empty(block.size, dtype=like.dtype, device=like.device)
        layers[name] = matrix_spectrum(block, start, top=min(top, 3), memory=budget, callback=callback, **settings)
    return replace(whole, layers=layers)


def parameters_by_layer(problem: Problem) -> dict[str, list[str]]:
    """Return the names of the trainable parameters of every layer: those that one module holds itself."""
    layers: dict[str, list[str]] = {}
    for name, value in problem.model.named_parameters():
        if value.requires_grad:
            layers.setdefault(name.rpartition(".")[0] or name, []).append(name)
    return layers
