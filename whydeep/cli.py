"""The command line: whydeep examine | train | theorems | check | report."""

from __future__ import annotations

import json
import shlex
import sys
import tomllib
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

# Imports of whydeep stand inside the commands: --help and usage errors do not wait for PyTorch.

Command = Callable[..., Any]


def main() -> None:
    """Run the command line; exit 0, 1 (a check or an instrument failed), 2 (usage or data), 130 (interrupted)."""
    debug = "--debug" in sys.argv
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as fault:
        fault.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except Exception as fault:
        from whydeep.core.errors import InputError

        if debug:
            traceback.print_exc()
        if isinstance(fault, InputError):
            click.echo(f"error: {fault}", err=True)
            sys.exit(2)
        text = (str(fault).strip() or "no message").splitlines()[0]
        click.echo(f"whydeep failed: {type(fault).__name__}: {text} (--debug shows where)", err=True)
        sys.exit(1)


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
        names = ", ".join(sorted(name for name in known if name not in ("config", "help")))
        raise InputError(f"{path} has unknown keys {', '.join(unknown)}", f"give any of {names}")
    context.default_map = {**(context.default_map or {}), **given}
    return path


def _together(*options: Command) -> Command:
    def decorate(function: Command) -> Command:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


class Floats(click.ParamType):
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
seed_option = click.option("--seed", default=0, show_default=True, help="Same seed, same numbers.")
problem_options = _together(
    click.option("--data", default="digits", show_default=True, metavar="SPEC", help="digits, photos[?..], mnist:DIR, "
                 "idx:DIR, csv:FILE?target=.., parquet:FILE?target=.., npz:FILE, folder:DIR, cifar10:DIR, openml:NAME, "
                 "synthetic:NAME?n=.."),
    click.option("--model", default="mlp:100,100", show_default=True, metavar="NAME|FILE.py:OBJECT",
                 help="linear, mlp:WIDTHS[?activation=..&init=..&gain=..], cnn[:CHANNELS], or a callable or module of "
                 "your own. The Python file is executed."),
    click.option("--weights", type=click.Path(path_type=Path), help="A trained state: safetensors, or a state dict "
                 "(read with weights_only)."),
    click.option("--mean", type=Floats(), help="The network expects (x - mean) / std: values, one a channel or one."),
    click.option("--std", type=Floats(), help="See --mean."),
    click.option("--bounds", type=float, nargs=2, metavar="LOW HIGH", help="Range of the inputs, for attacks."),
    click.option("--loss", type=click.Choice(["cross_entropy", "squared", "hinge"]), help="cross_entropy for classes, "
                 "squared for regression unless given."),
    click.option("--solver", metavar="NAME[?key=value&..]", help="adam, sgd, sgld or admm; trains a given module, too."),
    click.option("--device", default="auto", show_default=True, type=click.Choice(["auto", "cpu", "cuda", "mps"])),
    seed_option,
)  # fmt: skip


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="whydeep")
def cli() -> None:
    """Why do deep networks work? Examine a network under the lecture's four questions."""


@cli.command()
@problem_options
@click.option("--heldout", metavar="SPEC", help="Test data that the given weights have certainly not been trained on.")
@click.option("--only", multiple=True, metavar="NAME", help="A question or an instrument; may be repeated, or followed "
              "by several names.")  # fmt: skip
@click.argument("more_only", nargs=-1, metavar="")
@click.option("--budget", default="quick", show_default=True, type=click.Choice(["quick", "full"]))
@click.option("--out", default="out", show_default=True, type=click.Path(path_type=Path), help="Folder of the report.")
@json_option
@config_option
@debug_option
@click.pass_context
def examine(context: click.Context, more_only: tuple[str, ...], as_json: bool, **options: Any) -> int:
    """Examine a network and write report.html and report.json.

    A named model or a callable is trained first; a module, or one with --weights, is examined as it is.
    """
    from whydeep import terminal
    from whydeep.core.record import write
    from whydeep.examination import examine as run
    from whydeep.examination import select

    if more_only and not options["only"]:
        raise click.UsageError(f"unexpected argument {more_only[0]!r}; names follow --only")
    only = options["only"] + more_only
    select(only)  # an unknown name is refused before any work is done
    out: Path = options["out"]
    write(out / ".writable", "")  # a folder that cannot be written is refused before any work is done, too
    (out / ".writable").unlink()
    with terminal.watching(quiet=as_json) as watch:
        case = _case(options)
        examination = run(
            case["model"],
            case["train"],
            case["test"],
            loss=case["loss"],
            solver=case["solver"],
            factory=case["factory"],
            budget=options["budget"],
            heldout=options["heldout"] is not None,
            only=only,
            generator=case["generator"],
            device=case["device"],
            config=_resolved(context, case, only),
            watch=watch,
        )
    page = examination.save(out)
    if as_json:
        click.echo(json.dumps(examination.record.to_json()))
    else:
        terminal.summarise(examination.record, page)
    if context.find_root().params.get("debug") or "--debug" in sys.argv:
        for text in examination.tracebacks.values():
            click.echo(text, err=True)
    if watch.interrupted:
        return 130
    return 1 if examination.tracebacks else 0


@cli.command()
@problem_options
@click.option("--out", default="out", show_default=True, type=click.Path(path_type=Path), help="Folder of the weights.")
@json_option
@config_option
@debug_option
@click.pass_context
def train(context: click.Context, as_json: bool, **options: Any) -> int:
    """Train a network; write weights.safetensors and training.json (history, outcome, options)."""
    from whydeep import terminal
    from whydeep.core.problem import Problem
    from whydeep.core.record import plain, write
    from whydeep.core.training import Progress
    from whydeep.examination import environment
    from whydeep.networks.source import save_weights
    from whydeep.optimization.named import by_name

    with terminal.watching(quiet=as_json) as watch:
        case = _case(options)
        model = case["model"] if case["module"] else case["factory"]()
        problem = Problem(model, case["train"], case["test"], case["loss"]).to(case["device"])
        solver = case["solver"] or by_name("adam", samples=len(problem.train))

        def tell(progress: Progress) -> bool | None:
            return watch("training", progress)

        result = solver.train(problem, generator=case["generator"], callback=tell)
    trained = problem.with_model(result.model)
    content = {
        "outcome": {"status": result.outcome.status.value, "reason": result.outcome.reason},
        "risk": {"train": trained.risk(), "test": None if problem.test is None else trained.risk(problem.test)},
        "history": {name: plain(values.tolist()) for name, values in result.history.items()},
        "seconds": result.seconds,
        "config": _resolved(context, case, ()) | {"solver": repr(solver)},
        "environment": environment(case["device"]),
    }
    out: Path = options["out"]
    save_weights(result.model, out / "weights.safetensors")
    write(out / "training.json", json.dumps(content, indent=1))
    if as_json:
        click.echo(json.dumps(content))
    else:
        terminal.training(result, trained, out)
    return 1 if result.outcome.diverged else 130 if watch.interrupted else 0


@cli.command()
@click.argument("questions", nargs=-1)
@json_option
@debug_option
def theorems(questions: tuple[str, ...], as_json: bool) -> None:
    """List the claims that can be checked, of all questions or of the named ones."""
    from whydeep import terminal
    from whydeep.core import registry
    from whydeep.core.claim import QUESTIONS
    from whydeep.core.errors import InputError

    unknown = [name for name in questions if name not in QUESTIONS]
    if unknown:
        raise InputError(f"unknown question {unknown[0]!r}", f"give any of {', '.join(QUESTIONS)}")
    chosen = [claim for claim in registry.claims().values() if not questions or claim.question in questions]
    if as_json:
        rows = [
            {"id": c.id, "question": c.question, "statement": c.statement, "source": c.source,
             "assumptions": list(c.assumptions)}
            for c in chosen
        ]  # fmt: skip
        click.echo(json.dumps(rows, indent=1))
    else:
        terminal.claims(chosen)


@cli.command()
@click.argument("ids", nargs=-1, metavar="ID...")
@click.option("--all", "every", is_flag=True, help="Check every claim.")
@click.option("--convincing", is_flag=True, help="At the size that convinces (slower), where a claim has one.")
@seed_option
@json_option
@debug_option
def check(ids: tuple[str, ...], every: bool, convincing: bool, seed: int, as_json: bool) -> int:
    """Check claims: predicted, measured, verdict. Exit 1 when one is violated."""
    import difflib

    import torch

    from whydeep import terminal
    from whydeep.core import registry
    from whydeep.core.claim import check as run
    from whydeep.core.errors import InputError
    from whydeep.core.record import plain
    from whydeep.core.verdict import Verdict

    known = registry.claims()
    if bool(ids) == every:
        raise click.UsageError("give the ids of claims, or --all (`whydeep theorems` lists them)")
    for name in ids:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, cutoff=0.3)
            raise InputError(
                f"unknown claim {name!r}", f"`whydeep theorems` lists them; near: {', '.join(near) or '-'}"
            )
    findings = []
    for claim in known.values() if every else [known[name] for name in ids]:
        case = claim.convincing() if convincing and claim.convincing is not None else None
        finding = run(claim, case, generator=torch.Generator().manual_seed(seed))
        findings.append(finding)
        if not as_json:
            terminal.finding(finding)
    if as_json:
        click.echo(json.dumps(plain(findings), indent=1))
    return 1 if any(finding.verdict is Verdict.VIOLATED for finding in findings) else 0


@cli.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the page; that of the record when not given.")
@debug_option
def report(source: Path, out: Path | None) -> None:
    """Write the page again from a record: report.json or the folder that holds it."""
    from whydeep.core.record import read, write
    from whydeep.report import page

    file = source / "report.json" if source.is_dir() else source
    target = (out or file.parent) / "report.html"
    write(target, page(read(file)))
    click.echo(str(target))


def _case(options: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the options into a network, data and the rest; raises `InputError` with the remedy."""
    import torch

    from whydeep import data, networks
    from whydeep.core.errors import InputError
    from whydeep.networks.normalise import normalised
    from whydeep.optimization.named import by_name

    if (options["mean"] is None) != (options["std"] is None):
        raise InputError("only one of --mean and --std", "give both")
    seed: int = options["seed"]
    train, test = data.load(options["data"], seed=seed)
    if options.get("heldout") is not None:
        test = data.load_heldout(options["heldout"], seed=seed)
    if options["bounds"]:
        low, high = options["bounds"]
        if not low < high:
            raise InputError(f"--bounds {low:g} {high:g}", "give the smaller number first")
        from dataclasses import replace

        train, test = replace(train, bounds=(low, high)), replace(test, bounds=(low, high))
    name: str = options["model"]
    shape = {"input_shape": train.input_shape, "outputs": train.outputs}
    source = networks.load_object(name, **shape) if ".py" in name else networks.by_name(name, **shape)
    factory, module = source.factory, source.module
    if options["weights"] is not None:
        if module is None:
            assert factory is not None
            module = factory()
        networks.load_weights(module, options["weights"])
    if options["mean"] is not None:
        mean, std, plain_factory = options["mean"], options["std"], factory
        module = None if module is None else normalised(module, mean, std)
        factory = None if plain_factory is None else lambda: normalised(plain_factory(), mean, std)
    return {
        "train": train,
        "test": test,
        "module": module is not None,
        "model": factory if module is None else module,
        "factory": factory,
        "loss": options["loss"] or ("squared" if train.classes is None else "cross_entropy"),
        "solver": None if options["solver"] is None else by_name(options["solver"], samples=len(train)),
        "generator": torch.Generator().manual_seed(seed),
        "device": _device(options["device"]),
        "options": dict(options),
    }


def _device(name: str) -> str:
    import torch

    from whydeep.core.errors import InputError

    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return next(kind for kind in ("cuda", "mps", "cpu") if available[kind])
    if not available[name]:
        raise InputError(f"there is no {name} device here", "use --device auto")
    return name


def _resolved(context: click.Context, case: Mapping[str, Any], only: tuple[str, ...]) -> dict[str, Any]:
    """Every option as it was resolved, and the shortest command that gives the same without --only and --out."""
    from whydeep.core.record import plain

    words = ["whydeep", context.info_name or ""]
    for parameter in context.command.params:
        name = parameter.name or ""
        if name in ("only", "more_only", "out", "as_json") or context.get_parameter_source(name) in (
            ParameterSource.DEFAULT,
            None,
        ):
            continue
        value = context.params.get(name)
        if value is None or not parameter.opts:
            continue
        texts = [",".join(f"{v:g}" for v in value)] if name in ("mean", "std") else (
            [f"{v:g}" for v in value] if name == "bounds" else [str(value)]
        )  # fmt: skip
        words += [parameter.opts[0], *texts]
    options = {k: v for k, v in case["options"].items() if k not in ("only", "out")}
    return plain(options) | {
        "loss": case["loss"],
        "device": case["device"],
        "only": list(only),
        "command": shlex.join(words),
        "python": _python(case["options"]),
    }


def _python(options: Mapping[str, Any]) -> str:
    """The lines that make model, train and test in Python."""
    name = options["model"]
    call = f"{name!r}, input_shape=train.input_shape, outputs=train.outputs"
    loader = f"wd.networks.load_object({call})" if ".py" in name else f"wd.networks.by_name({call})"
    lines = [
        "import whydeep as wd",
        f"train, test = wd.data.load({options['data']!r}, seed={options['seed']})",
        f"model = {loader}.model",
    ]
    if options["weights"] is not None:
        lines[-1] = f"model = {loader}.with_weights({str(options['weights'])!r})"
    return "\n".join(lines)
