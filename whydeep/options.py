"""The options that commands share, and what they stand for: a network, data, a solver."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    import torch
    from torch import nn

    from whydeep.core.data import Data
    from whydeep.core.training import Solver
    from whydeep.optimization.distributed.group import Group

# Imports of whydeep stand inside the functions: --help and usage errors do not wait for PyTorch.

Command = Callable[..., Any]


def _read_config(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Let FILE.toml give the defaults of the other options; flags override them."""
    if path is None:
        return None
    from whydeep.core.errors import InputError

    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as fault:
        raise InputError(f"cannot read {path}: {fault.strerror}", "name a TOML file") from fault
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise InputError(f"{path} is not TOML: {fault}", "repair it") from fault
    known = {option.name: option for option in context.command.params if option.name}
    unknown = sorted(set(given) - set(known))
    if unknown:
        names = ", ".join(sorted(name for name in known if name not in ("config", "help", "as_json", "more_only")))
        raise InputError(f"{path} has unknown keys {', '.join(unknown)}", f"give any of {names}")
    context.default_map = {**(context.default_map or {}), **given}
    return path


def _together(*options: Command) -> Command:
    def decorate(function: Command) -> Command:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


class Floats(click.ParamType[tuple[float, ...]]):
    """Numbers separated by commas."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Return "0.1,0.2" as (0.1, 0.2); a list from a configuration file likewise."""
        parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
        try:
            return tuple(float(part) for part in parts)
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers like 0.1307 or 0.5,0.5,0.5", param, ctx)


config_option = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=_read_config,
    is_eager=True,
    expose_value=False,
    help="Options from a TOML file (names as here, without dashes); flags override it.",
)
debug_option = click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of a failure.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON to standard output.")
seed_option = click.option(
    "--seed", default=0, show_default=True, metavar="INTEGER", help="Same seed, same numbers (but seconds).",
    type=click.IntRange(0, 2**63 - 1))  # fmt: skip
data_option = click.option(
    "--data", default="digits", show_default=True, metavar="SPEC", help="digits, photos[?..], "
    "mnist:DIR, idx:DIR, csv:FILE?target=.., parquet:FILE?target=.., npz:FILE, folder:DIR, cifar10:DIR, "
    "openml:NAME, synthetic:NAME?n=..")  # fmt: skip
model_option = click.option(
    "--model", default="mlp:100,100", show_default=True, metavar="NAME|FILE.py:OBJECT",
    help="linear, mlp:WIDTHS[?activation=..&init=..&gain=..], cnn[:CHANNELS], or a callable or module of "
    "your own. The Python file is executed.")  # fmt: skip
weights_option = click.option(
    "--weights", type=click.Path(path_type=Path), help="A trained state: safetensors, or a state dict "
    "(read with weights_only).")  # fmt: skip
normalise_options = _together(
    click.option("--mean", type=Floats(), help="The network expects (x - mean) / std: values, one a channel or one."),
    click.option("--std", type=Floats(), help="See --mean."),
)
bounds_option = click.option(
    "--bounds", type=float, nargs=2, metavar="LOW HIGH", help="Range of the inputs, for attacks."
)
loss_option = click.option(
    "--loss", type=click.Choice(["cross_entropy", "squared", "hinge"]), help="cross_entropy for classes, "
    "squared for regression unless given.")  # fmt: skip
solver_option = click.option(
    "--solver", metavar="NAME[?key=value&..]", help="adam, sgd, sgld, admm, stochastic_admm, bcd and others; trains a "
    "given module.")  # fmt: skip
device_option = click.option(
    "--device", default="auto", show_default=True, type=click.Choice(["auto", "cpu", "cuda", "mps"])
)
problem_options = _together(
    data_option,
    model_option,
    weights_option,
    normalise_options,
    bounds_option,
    loss_option,
    solver_option,
    device_option,
    seed_option,
)
"""What a command takes that works on one network, trained or to be trained."""

fresh_options = _together(data_option, model_option, normalise_options, loss_option, device_option, seed_option)
"""What a command takes that trains fresh networks only."""


@dataclass(frozen=True)
class Case:
    """What the options stand for. `given` is a network to be taken as it is; `factory` makes fresh ones."""

    given: nn.Module | None
    factory: Callable[[], nn.Module] | None
    train: Data
    test: Data | None
    loss: str
    solver: Solver | None
    generator: torch.Generator
    device: str
    options: Mapping[str, Any]

    @property
    def model(self) -> nn.Module | Callable[[], nn.Module]:
        """The given network, or the factory when there is none."""
        model = self.given or self.factory
        assert model is not None
        return model

    def start(self) -> nn.Module:
        """Return the network that a training starts from; a fresh one is drawn from the generator."""
        from whydeep.core.randomness import global_seed

        if self.given is not None:
            return self.given
        assert self.factory is not None
        with global_seed(self.generator):
            return self.factory()


def case_of(options: Mapping[str, Any]) -> Case:
    """Turn the options into a network, data and a solver; raises `InputError` with the remedy.

    A command without --weights, --bounds or --solver goes without them.
    """
    import torch

    from whydeep import data
    from whydeep.core.errors import InputError
    from whydeep.optimization.named import by_name

    options = {"weights": None, "bounds": None, "solver": None, **options}
    seed: int = options["seed"]
    train, test = data.load(options["data"], seed=seed)
    if options.get("heldout") is not None:
        test = data.load_heldout(options["heldout"], seed=seed)
    if options["bounds"]:
        low, high = options["bounds"]
        if not low < high:
            raise InputError(f"--bounds {low:g} {high:g}", "give the smaller number first")
        train, test = replace(train, bounds=(low, high)), replace(test, bounds=(low, high))
    given, factory = _network(options, train)
    return Case(
        given=given,
        factory=factory,
        train=train,
        test=test,
        loss=options["loss"] or ("squared" if train.classes is None else "cross_entropy"),
        solver=None if options["solver"] is None else by_name(options["solver"], samples=len(train)),
        generator=torch.Generator().manual_seed(seed),
        device=device(options["device"]),
        options=dict(options),
    )


def _network(options: Mapping[str, Any], train: Data) -> tuple[nn.Module | None, Callable[[], nn.Module] | None]:
    """Return the network to be taken as it is, and the factory of fresh ones; either may be None, not both."""
    from whydeep import networks
    from whydeep.core.errors import InputError
    from whydeep.networks.normalise import normalised

    mean, std = options["mean"], options["std"]
    if (mean is None) != (std is None):
        raise InputError("only one of --mean and --std", "give both")
    name: str = options["model"]
    find = networks.load_object if ".py" in name else networks.by_name
    source = find(name, input_shape=train.input_shape, outputs=train.outputs)
    given, factory = source.module, source.factory
    if options["weights"] is not None:
        given = given or source.factory()  # type: ignore[misc]  # a source has one of both
        networks.load_weights(given, options["weights"])
    if mean is None:
        return given, factory
    plain = factory
    return (
        None if given is None else normalised(given, mean, std),
        None if plain is None else lambda: normalised(plain(), mean, std),
    )


def device(name: str) -> str:
    """Return the device of that name; "auto" is the first of cuda, mps, cpu that is there."""
    import torch

    from whydeep.core.errors import InputError

    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return next(kind for kind in ("cuda", "mps", "cpu") if available[kind])
    if not available[name]:
        raise InputError(f"there is no {name} device here", "use --device auto")
    return name


def placed(solver: Solver, group: Group, options: Mapping[str, Any]) -> Solver:
    """Return the solver for the processes of `group`, with the checkpoint that --checkpoint and --resume ask for."""
    from whydeep.core.errors import InputError
    from whydeep.optimization.distributed.checkpoint import Checkpoint

    found: Any = solver
    kept = options["resume"] or options["checkpoint"] is not None
    name, fields = type(solver).__name__, found.__dataclass_fields__
    if group.size > 1 and "group" not in fields:
        raise InputError(f"{name} trains in one process", "start it without torchrun, or give --solver admm")
    if kept and "checkpoint" not in fields:
        raise InputError(f"{name} keeps no checkpoint", "leave out --checkpoint and --resume, or give --solver admm")
    if group.size > 1:
        found = replace(found, group=group)
    if kept:
        every = {} if options["checkpoint"] is None else {"every": options["checkpoint"]}
        path = options["out"] / "checkpoint.safetensors"
        found = replace(found, checkpoint=Checkpoint(path, resume=options["resume"], **every))
    return found  # type: ignore[no-any-return]


def resolved(context: click.Context, case: Case, only: tuple[str, ...]) -> dict[str, Any]:
    """Every option as it was resolved; `command` repeats the call, `base` is it without --only (both without --out)."""
    from whydeep.core.record import plain

    words = ["whydeep", context.info_name or ""]
    for parameter in context.command.params:
        name = parameter.name or ""
        if (
            isinstance(parameter, click.Argument)
            or name in ("only", "out", "as_json", "resume")
            or context.get_parameter_source(name)
            in (
                ParameterSource.DEFAULT,
                None,
            )
        ):
            continue
        value = context.params.get(name)
        if value is None:
            continue
        words += [parameter.opts[0], *_texts(name, value)]
    setup, arguments = _python(case.options, case.loss)
    options = {k: v for k, v in case.options.items() if k not in ("only", "out")}
    return dict(plain(options)) | {
        "loss": case.loss,
        "device": case.device,
        "only": list(only),
        "command": shlex.join([*words, *(["--only", *only] if only else [])]),
        "base": shlex.join(words),
        "python": setup,
        "arguments": arguments,
    }


def _texts(name: str, value: Any) -> list[str]:
    """Return the words of an option's value as they stand on the command line."""
    if name in ("mean", "std"):
        return [",".join(f"{v:g}" for v in value)]
    if name == "bounds":
        return [f"{v:g}" for v in value]
    return [str(v) for v in value] if isinstance(value, tuple) else [str(value)]


def _python(options: Mapping[str, Any], loss: str) -> tuple[str, str]:
    """Return the lines that make model, train and test in Python, and what else `examine` is called with."""
    name, weights, solver, seed = (options[key] for key in ("model", "weights", "solver", "seed"))
    finder = "load_object" if ".py" in name else "by_name"
    lines = [
        "import torch, whydeep as wd",
        f"train, test = wd.data.load({options['data']!r}, seed={seed})",
        f"source = wd.networks.{finder}({name!r}, input_shape=train.input_shape, outputs=train.outputs)",
        "model = source.factory or source.module",
    ]
    arguments = []
    if weights is not None:
        lines[-1] = "model = source.module or source.factory()"
        lines.append(f"wd.networks.load_weights(model, {str(weights)!r})")
        arguments.append("factory=source.factory")
    if options["mean"] is not None:
        lines.append(f"mean, std, plain = {list(options['mean'])}, {list(options['std'])}, model")
        whole = "wd.networks.normalised(plain, mean, std)"
        lines.append(f"model = {whole} if isinstance(plain, torch.nn.Module) else lambda: "
                     "wd.networks.normalised(plain(), mean, std)")  # fmt: skip
    if options.get("heldout") is not None:
        lines.append(f"test = wd.data.load_heldout({options['heldout']!r}, seed={seed})")
        arguments.append("heldout=True")
    if solver is not None:
        arguments.append(f"solver=wd.optimization.by_name({solver!r}, samples=len(train))")
    if options["bounds"]:
        arguments.append(f"bounds={tuple(options['bounds'])}")
    arguments += [f"loss={loss!r}"] if loss != "cross_entropy" else []
    arguments += ["budget='full'"] if options.get("budget") == "full" else []
    arguments += [f"generator=torch.Generator().manual_seed({seed})"] if seed else []
    return "\n".join(lines), "".join(f", {argument}" for argument in arguments)
