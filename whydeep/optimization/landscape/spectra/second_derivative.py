"""Products with the second derivative of one batch's share of the risk: three ways to take them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from whydeep.core.errors import InputError
from whydeep.core.loss import Loss

Pieces = list[Tensor]
"""A vector of the parameters' space, one tensor a parameter."""

Pull = Callable[[Pieces], Pieces]
"""A direction -> the matrix of this batch times it."""


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Let attention run by formulas that can be differentiated twice inside the block; restore PyTorch's choice after.

    The fused kernels of attention have a backward pass, but none for the backward pass itself.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def share(model: nn.Module, loss: Loss, *, x: Tensor, y: Tensor, total: int) -> Tensor:
    """Return sum over the batch of loss / total, this batch's share of the risk.

    Raises `InputError` when it is not a differentiable function of a weight.
    """
    value = loss(model(x), y).sum() / total
    if not value.requires_grad:
        raise InputError(
            f"the loss {loss.name} is not a differentiable function of the trainable weights",
            "give a loss without steps, rounding or detached outputs",
        )
    return value


def hessian_pull(
    model: nn.Module, weights: Pieces, *, loss: Loss, x: Tensor, y: Tensor, total: int, keep: bool = True
) -> Pull:
    """Return v -> H v by differentiating (gradient . v), on a graph that is built once here. Pearlmutter (1994)."""
    with twice_differentiable(), torch.enable_grad():
        value = share(model, loss, x=x, y=y, total=total)
        gradient = torch.autograd.grad(value, weights, create_graph=True, materialize_grads=True)
    check_finite(model, weights, gradient=gradient, x=x)
    # An entry that does not depend on the weights (a loss linear in them) has second derivative zero.
    moving = [index for index, entry in enumerate(gradient) if entry.requires_grad]

    def pull(direction: Pieces) -> Pieces:
        if not moving:
            return [torch.zeros_like(value) for value in weights]
        return list(
            torch.autograd.grad(
                [gradient[index] for index in moving],
                weights,
                grad_outputs=[direction[index] for index in moving],
                retain_graph=keep,
                materialize_grads=True,
            )
        )

    return pull


def has_second_derivative(model: nn.Module, weights: Pieces, *, loss: Loss, x: Tensor, y: Tensor) -> bool:
    """Return whether PyTorch can differentiate the gradient.

    A function that is marked as differentiable once leaves a node in the graph that would raise, were it ever run;
    `torch.autograd.grad` passes it by and returns a wrong product in silence. So the graph is searched for it.
    """
    try:
        with twice_differentiable(), torch.enable_grad():
            value = share(model, loss, x=x, y=y, total=len(x))
            gradient = torch.autograd.grad(value, weights, create_graph=True, materialize_grads=True)
            moving = [entry for entry in gradient if entry.requires_grad]
            if moving:
                torch.autograd.grad(
                    [entry.sum() for entry in moving], weights, materialize_grads=True, retain_graph=True
                )
    except InputError:
        raise
    except RuntimeError:  # the derivative is not implemented
        return False
    todo, seen = [entry.grad_fn for entry in moving], set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if type(node).__name__ in ("Error", "NotImplemented"):
            return False
        todo += [following for following, _ in node.next_functions]
    return True


def gauss_newton_pull(
    model: nn.Module, weights: Pieces, *, loss: Loss, x: Tensor, y: Tensor, total: int, keep: bool = True
) -> Pull:
    """Return v -> G v, G = 1/n sum_i J_i^T L_i J_i: J the Jacobian of the output, L the loss's Hessian in the output.

    J v is the derivative with respect to u of (J^T u) . v, which does not depend on u (Schraudolph 2002 has the
    matrix; the double backward for J v is a folklore identity). For a convex loss no eigenvalue is negative.
    """
    with twice_differentiable(), torch.enable_grad():
        output = model(x)
        if not output.requires_grad:
            raise InputError(
                "the output does not depend on a trainable weight", "give a network with trainable weights"
            )
        probe = torch.zeros_like(output, requires_grad=True)
        transposed = torch.autograd.grad(output, weights, grad_outputs=probe, create_graph=True, materialize_grads=True)
        free = output.detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss(free, y).sum() / total, free, create_graph=True)
    check_finite(model, weights, gradient=transposed, x=x)
    moving = [index for index, entry in enumerate(transposed) if entry.requires_grad]

    def pull(direction: Pieces) -> Pieces:
        nothing = [torch.zeros_like(value) for value in weights]
        if not moving or not slope.requires_grad:
            return nothing
        (forward,) = torch.autograd.grad(
            [transposed[index] for index in moving],
            probe,
            grad_outputs=[direction[index] for index in moving],
            retain_graph=True,
            materialize_grads=True,
        )
        (bent,) = torch.autograd.grad(slope, free, grad_outputs=forward, retain_graph=True, materialize_grads=True)
        parts = torch.autograd.grad(output, weights, grad_outputs=bent, retain_graph=keep, materialize_grads=True)
        return list(parts)

    return pull


def linearised(
    model: nn.Module, names: list[str], *, weights: Pieces, loss: Loss, x: Tensor, y: Tensor, total: int
) -> Pull:
    """Return blocks of directions (b, ...) -> blocks of H v: vmap over the gradient's linearisation, traced once here.

    Tracing costs some seconds on a large network, every product after it about 1.5 gradients.
    """

    def risk(values: dict[str, Tensor]) -> Tensor:
        return loss(torch.func.functional_call(model, values, (x,)), y).sum() / total

    point = {name: value.detach() for name, value in zip(names, weights, strict=True)}
    with twice_differentiable(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing remarks on every constant that it folds
        _, tangent = torch.func.linearize(torch.func.grad(risk), point)

    def pull(directions: Pieces) -> Pieces:
        images = torch.func.vmap(tangent)(dict(zip(names, directions, strict=True)))
        return [images[name] for name in names]

    return pull


def check_finite(model: nn.Module, weights: Pieces, *, gradient: Sequence[Tensor], x: Tensor) -> None:
    """Raise `InputError` with the name of the layer when a gradient holds NaN or inf.

    It is the first layer whose output is not finite, or where all are, the last one whose gradient is not: gradients
    travel backwards, so the fault lies there or behind it.
    """
    if all(
        bool(torch.isfinite(entry.detach().sum())) or bool(torch.isfinite(entry.detach()).all()) for entry in gradient
    ):
        return
    names = {id(value): name for name, value in model.named_parameters()}
    faulty = [
        names[id(w)] for w, g in zip(weights, gradient, strict=True) if not bool(torch.isfinite(g.detach()).all())
    ]
    where = _first_faulty_output(model, x)
    layer = f"from the output of layer {where} on" if where else f"at {faulty[-1]}, from a layer behind it"
    raise InputError(f"the gradient is NaN or infinite {layer}", "check there for a division, root or logarithm of 0")


def _first_faulty_output(model: nn.Module, x: Tensor) -> str | None:
    found: list[str] = []

    def hook(name: str) -> Callable[[nn.Module, object, object], None]:
        def look(_module: nn.Module, _given: object, output: object) -> None:
            if isinstance(output, Tensor) and not bool(torch.isfinite(output).all()):
                found.append(name)

        return look

    handles = [
        module.register_forward_hook(hook(name)) for name, module in model.named_modules() if not [*module.children()]
    ]
    try:
        with torch.no_grad():
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None
