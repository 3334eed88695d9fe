"""The command `onnxplain detector`."""

import argparse
from pathlib import Path
from typing import Any

from onnxplain.messages import say
from onnxplain_export.detector import train_detector

ABOUT = """Trains an out-of-distribution detector on pictures like those that the network was made for, and adds the
method rise_plus to the bundle: RISE that pays less heed to masked images which look like nothing it has learned."""


def add_command(commands: Any) -> None:
    """Adds the parser of `onnxplain detector`."""
    parser = commands.add_parser("detector", help="train a detector for rise_plus, from pictures", description=ABOUT)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle that gets the detector")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="pictures, in one folder for each class where known"
    )
    parser.add_argument(
        "--labels", choices=("folders", "network"), default="folders", help="who says what a picture is"
    )
    parser.add_argument("--features", metavar="NAME", help="value inside the network; default: the last layer's input")
    parser.add_argument("--epochs", type=int, default=90, metavar="N")
    parser.add_argument("--learning-rate", type=float, default=0.1, metavar="RATE")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Trains, and says how well the detector knows its pictures."""
    record = train_detector(
        arguments.bundle,
        arguments.data,
        labels=arguments.labels,
        features=arguments.features,
        epochs=arguments.epochs,
        learning_rate=arguments.learning_rate,
        seed=arguments.seed,
    )
    print(f"{arguments.bundle}: rise_plus, with a detector on {record['features']!r}")
    print(
        f"  trained on {record['pictures']} pictures of {record['classes']} classes, right on "
        f"{100 * record['accuracy']:.1f} % of its training pictures"
    )
    if record["accuracy"] <= 1 / record["classes"]:
        say("no better than chance: train it on more pictures, or for more --epochs")
    return 0
