"""Seconds of the default examination, instrument by instrument, beside the training itself.

    .venv/bin/python benchmarks/bench_examination.py [--data SPEC] [--model NAME]

The goal: the whole of it, training included, in at most 120 s on two cores for the default.
"""

from __future__ import annotations

import argparse

import whydeep as wd
from whydeep.networks import by_name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits")
    parser.add_argument("--model", default="mlp:100,100")
    options = parser.parse_args()
    train, test = wd.data.load(options.data, seed=0)
    source = by_name(options.model, input_shape=train.input_shape, outputs=train.outputs)
    assert source.factory is not None
    examination = wd.examine(source.factory, train, test)
    record, training = examination.record, examination.subject.training
    assert training is not None
    print(f"{record.subject['network']}, {record.subject['data']}, {record.environment['threads']} threads")
    print("| part | seconds |\n| --- | --- |")
    print(f"| training | {training.seconds:.2f} |")
    for question in record.questions.values():
        for section in question.sections:
            print(f"| {section.instrument} | {section.seconds:.2f} |")
        for missing in (*question.failed, *question.inapplicable):
            print(f"| {missing.instrument} | {missing.reason} |")
    print(f"| **all** | **{record.seconds:.2f}** (goal: 120 for the default) |")


if __name__ == "__main__":
    main()
