"""The command line: whydeep examine | train | race | certify | spectrum | theorems | check | report."""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import click

from whydeep.options import (
    case_of,
    config_option,
    debug_option,
    device,
    fresh_options,
    json_option,
    placed,
    problem_options,
    resolved,
    seed_option,
)
from whydeep.spectrum_command import spectrum

# Imports of whydeep stand inside the commands: --help and usage errors do not wait for PyTorch.


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
        # Under torchrun every process tells its own fault; only the first one prints anything else.
        rank = os.environ.get("RANK", "0")
        who = "" if rank == "0" else f"process {rank}: "
        if isinstance(fault, InputError):
            click.echo(f"{who}error: {fault}", err=True)
            sys.exit(2)
        text = (str(fault).strip() or "no message").splitlines()[0]
        click.echo(f"{who}whydeep failed: {type(fault).__name__}: {text} (--debug shows where)", err=True)
        sys.exit(1)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="whydeep")
@click.pass_context
def cli(context: click.Context) -> None:
    """Why do deep networks work? Examine a network under the lecture's four questions."""
    several = "RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"
    if several and context.invoked_subcommand != "train":
        # They would all do the same work and write the same files.
        raise click.UsageError(
            "of all commands only `train` runs on several processes; start this one without torchrun"
        )


cli.add_command(spectrum)


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
def examine(context: click.Context, /, more_only: tuple[str, ...], as_json: bool, **options: Any) -> int:
    """Examine a network and write report.html and report.json.

    A named model or a callable is trained first; a module, or one with --weights, is examined as it is.
    """
    from whydeep import terminal
    from whydeep.core.record import check_folder
    from whydeep.examination import examine as run
    from whydeep.examination import select

    if more_only and not options["only"]:
        raise click.UsageError(f"unexpected argument {more_only[0]!r}; names follow --only")
    only = options["only"] + more_only
    select(only)  # an unknown name is refused before any work is done
    out: Path = options["out"]
    check_folder(out)  # and so is a folder that cannot be written
    with terminal.watching(quiet=as_json) as watch:
        case = case_of(options)
        examination = run(
            case.model,
            case.train,
            case.test,
            loss=case.loss,
            solver=case.solver,
            factory=case.factory,
            budget=options["budget"],
            heldout=options["heldout"] is not None,
            only=only,
            generator=case.generator,
            device=case.device,
            config=resolved(context, case, only),
            watch=watch,
        )
    page = examination.save(out)
    if as_json:
        click.echo(json.dumps(examination.record.to_json()))
    else:
        terminal.summarise(examination.record, page)
    if "--debug" in sys.argv:
        for text in examination.tracebacks.values():
            click.echo(text, err=True)
    if watch.interrupted:
        return 130
    return 1 if examination.tracebacks else 0


@cli.command()
@problem_options
@click.option("--out", default="out", show_default=True, type=click.Path(path_type=Path), help="Folder of the weights.")
@click.option("--checkpoint", type=click.IntRange(min=1), metavar="K", help="Save the training (by admm) every K "
              "sweeps, as OUT/checkpoint.safetensors.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on from OUT/checkpoint.safetensors.")
@json_option
@config_option
@debug_option
@click.pass_context
def train(context: click.Context, /, as_json: bool, **options: Any) -> int:
    """Train a network; write weights.safetensors and training.json (history, outcome, options).

    On several processes, or machines, each with a share of the samples, by ADMM:
    torchrun --nproc-per-node 2 -m whydeep train --solver admm
    """
    from whydeep import terminal
    from whydeep.core.problem import Problem
    from whydeep.core.record import check_folder, plain, write
    from whydeep.core.training import Progress
    from whydeep.examination import environment
    from whydeep.networks.source import save_weights
    from whydeep.optimization.distributed.group import joined
    from whydeep.optimization.named import by_name

    out: Path = options["out"]
    check_folder(out)  # before any work is done
    with joined(device=device(options["device"])) as group, terminal.watching(quiet=as_json or group.rank > 0) as watch:
        case = case_of(options)
        model = case.start()
        problem = Problem(model, case.train, case.test, case.loss).to(case.device)
        solver = placed(case.solver or by_name("adam", samples=len(problem.train)), group, options)

        def tell(progress: Progress) -> bool | None:
            return watch("training", progress)

        result = solver.train(problem, generator=case.generator, callback=tell)
    code = 1 if result.outcome.diverged else 130 if watch.interrupted else 0
    if group.rank:
        return code
    trained = problem.with_model(result.model)
    content = {
        "outcome": {"status": result.outcome.status.value, "reason": result.outcome.reason},
        "risk": {"train": trained.risk(), "test": None if problem.test is None else trained.risk(problem.test)},
        "history": {name: plain(values.tolist()) for name, values in result.history.items()},
        "seconds": result.seconds,
        "config": resolved(context, case, ()) | {"solver": repr(solver), "processes": group.size},
        "environment": environment(case.device),
    }
    save_weights(result.model, out / "weights.safetensors")
    write(out / "training.json", json.dumps(content, indent=1))
    if as_json:
        click.echo(json.dumps(content))
    else:
        terminal.training(result, trained, out)
    return code


@cli.command()
@fresh_options
@click.option("--solvers", multiple=True, metavar="NAME[?key=value&..]", help="Who takes part; may be repeated, or "
              "followed by several names. admm, adam and sgd unless given.")  # fmt: skip
@click.option("--starts", multiple=True, metavar="NAME", help="default, corrected (Xavier with gain 4 for sigmoid and "
              "1 for tanh, He for ReLU); both unless given.")  # fmt: skip
@click.argument("more_names", nargs=-1, metavar="")
@click.option("--seeds", type=click.IntRange(min=1), help="Runs of each from each start; by the budget unless given.")
@click.option("--passes", type=click.IntRange(min=1), help="Passes over the data; by the budget unless given.")
@click.option("--budget", default="quick", show_default=True, type=click.Choice(["quick", "full"]))
@click.option("--out", default="out", show_default=True, type=click.Path(path_type=Path), help="Folder of the report.")
@json_option
@config_option
@debug_option
@click.pass_context
def race(context: click.Context, /, more_names: tuple[str, ...], as_json: bool, **options: Any) -> int:
    """Race solvers side by side, at equal passes and at equal seconds; write report.html and report.json.

    Every solver starts from the same fresh networks. Step sizes are chosen on held-back training data.
    """
    from whydeep import terminal
    from whydeep.core.record import check_folder
    from whydeep.racing import SOLVERS, STARTS
    from whydeep.racing import race as run

    # Names that follow an option arrive here, whichever it was; no solver is called like a start.
    if more_names and not options["solvers"] and not options["starts"]:
        raise click.UsageError(f"unexpected argument {more_names[0]!r}; names follow --solvers or --starts")
    solvers = options["solvers"] + tuple(name for name in more_names if name not in STARTS)
    starts = options["starts"] + tuple(name for name in more_names if name in STARTS)
    context.params |= {"solvers": solvers, "starts": starts}
    out: Path = options["out"]
    check_folder(out)  # before any work is done
    with terminal.watching(quiet=as_json) as watch:
        case = case_of(options)
        result = run(
            case.model,
            case.train,
            case.test,
            solvers=solvers or SOLVERS,
            loss=case.loss,
            starts=starts or STARTS,
            seeds=options["seeds"],
            passes=options["passes"],
            budget=options["budget"],
            generator=case.generator,
            device=case.device,
            config=resolved(context, case, ()),
            tell=watch,
        )
    page = result.save(out)
    if as_json:
        click.echo(json.dumps(result.record.to_json()))
    else:
        terminal.summarise(result.record, page)
    return 130 if watch.interrupted else 0


@cli.command()
@problem_options
@click.option("--heldout", metavar="SPEC", help="Samples that the network was certainly not trained on; the test part "
              "of --data unless given.")  # fmt: skip
@click.option("--method", "methods", multiple=True, metavar="NAME", help="binomial (unless given), kl, hoeffding; of "
              "networks trained for it: pac-bayes-kl, disintegrated, ...; may be repeated.")  # fmt: skip
@click.option("--delta", default=0.05, show_default=True, help="Probability with which a certificate may be wrong.")
@click.option("--candidates", default=1, show_default=True, type=click.IntRange(min=1), help="Networks among which "
              "this one was chosen on the same held-out samples.")  # fmt: skip
@click.option("--at-most", type=float, metavar="FRACTION", help="Exit 1 when the certified error is larger.")
@json_option
@config_option
@debug_option
@click.pass_context
def certify(context: click.Context, /, as_json: bool, **options: Any) -> int:
    """Certify the error of a network on new samples, from held-out ones.

    A named model or a callable is trained first; a module, or one with --weights, is certified as it is.
    """
    from whydeep import terminal
    from whydeep.certification import certification as run
    from whydeep.core.errors import InputError

    if not 0 < options["delta"] < 1:
        raise InputError(f"--delta {options['delta']:g}", "give a probability between 0 and 1")
    limit = options["at_most"]
    if limit is not None and not 0 <= limit <= 1:
        raise InputError(f"--at-most {limit:g}", "give a fraction from 0 to 1 (0.05 for 5 %)")
    with terminal.watching(quiet=as_json) as watch:
        case = case_of(options)
        if case.test is None:
            raise InputError("there are no held-out samples", "give --heldout")
        result = run(
            case.model,
            case.train,
            case.test,
            methods=options["methods"] or ("binomial",),
            delta=options["delta"],
            candidates=options["candidates"],
            loss=case.loss,
            solver=case.solver,
            declared=options["heldout"] is not None,
            generator=case.generator,
            device=case.device,
            config=resolved(context, case, ()),
            tell=watch,
        )
    if as_json:
        click.echo(json.dumps(result.to_json()))
    else:
        terminal.certificates(result.sentence, result.certificates, result.independence, trained=result.trained)
    return 1 if limit is not None and result.certificates[0].bound > limit else 0


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
    """Check claims: predicted, measured, verdict.

    Exit 1 when one is violated; one that is not decided (a number came out as NaN, say) or not applicable is none.
    """
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
                f"unknown claim {name!r}", f"`whydeep theorems` lists them; near: {', '.join(near) or 'none'}"
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
