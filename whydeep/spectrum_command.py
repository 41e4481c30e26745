"""The command `whydeep spectrum`."""

from __future__ import annotations

import json
from typing import Any

import click

from whydeep.options import case_of, config_option, debug_option, json_option, problem_options, resolved

# Imports of whydeep stand inside the command: --help and usage errors do not wait for PyTorch.


@click.command()
@problem_options
@click.option("--samples", type=click.IntRange(min=1), help="On so many of the training samples; all unless given.")
@click.option("--top", default=10, show_default=True, type=click.IntRange(min=1), help="How many of the largest "
              "eigenvalues.")  # fmt: skip
@click.option("--operator", default="hessian", show_default=True, type=click.Choice(["hessian", "ggn"]),
              help="The Hessian of the risk, or its Gauss-Newton part.")  # fmt: skip
@click.option("--per-layer", is_flag=True, help="The diagonal block of every layer, too.")
@json_option
@config_option
@debug_option
@click.pass_context
def spectrum(context: click.Context, /, as_json: bool, **options: Any) -> int:
    """Measure the Hessian of a network: largest and smallest curvatures, trace, density.

    A named model or a callable is trained first; a module, or one with --weights, is measured as it is.
    """
    from whydeep import terminal
    from whydeep.curvature import curvature

    with terminal.watching(quiet=as_json) as watch:
        case = case_of(options)
        result = curvature(
            case.model,
            case.train,
            samples=options["samples"],
            loss=case.loss,
            solver=case.solver,
            operator=options["operator"],
            top=options["top"],
            per_layer=options["per_layer"],
            generator=case.generator,
            device=case.device,
            config=resolved(context, case, ()),
            tell=watch,
        )
    if as_json:
        click.echo(json.dumps(result.to_json()))
    else:
        terminal.curvature(result)
    return 130 if watch.interrupted else 0
