"""The command `onnxplain`; what makes bundles comes from `onnxplain_export`, where that is installed."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from onnxplain.commands import compare, evaluate, explain, info, jobs
from onnxplain.errors import OnnxplainError
from onnxplain.messages import say
from onnxplain.version import __version__

# Commands of the other package. It is loaded by name, and only when one of them is asked for: the engine never
# depends on it, and importing onnx takes longer than a small explanation.
EXPORT_COMMANDS = {
    "export": "make a bundle from an ONNX model",
    "refresh": "give a bundle new weights of the same network",
    "detector": "train a detector for rise_plus, from pictures",
    "check": "say what in a model can be differentiated, before any export",
    "track": "look at a training through its checkpoints",
}
# Commands that take the parameters of methods, but not as options of their own.
SETTING_COMMANDS = ("evaluate", "compare", "jobs", "track")
EXPORT_MODULE = "onnxplain_export.commands"
EXPORT_NEEDS = ("onnxplain_export", "onnx", "onnx_ir")
INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are ours, so that each is one line; parsers of commands are of this class too."""

    def error(self, message: str) -> NoReturn:
        raise OnnxplainError(f"{message}; see {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; 0 is success, 1 that some pictures could not be explained, 2 an error."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(arguments)
    except OnnxplainError as error:
        say(error)
        return 2
    except KeyboardInterrupt:
        say("interrupted; nothing was left half-made")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has seen enough; what is still buffered has nowhere to go.
        sys.stdout = open("/dev/null", "w")  # noqa: SIM115 (must stay open until the interpreter flushes it at exit)
        return 0


def _run(arguments: list[str]) -> int:
    parser = _Parser(prog="onnxplain", description="Explain the decisions of an ONNX image classifier.")
    parser.add_argument("--version", action="version", version=f"onnxplain {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    if arguments and arguments[0] in EXPORT_COMMANDS:
        _load_export_commands(arguments[0], commands)
    else:
        for name, text in EXPORT_COMMANDS.items():
            commands.add_parser(name, help=text)  # for --help alone
    explain.add_command(commands)
    info.add_command(commands)
    compare.add_command(commands)
    evaluate.add_command(commands)
    jobs.add_command(commands)
    # A method's parameters are known only once its bundle is read, so they are set aside before argparse sees them.
    parameters: list[tuple[str, str]] = []
    if arguments and arguments[0] == "explain":
        arguments, parameters = explain.split_parameters(arguments)
    parsed, rest = parser.parse_known_args(arguments)
    if rest:
        hint = "parameters of methods go in --set NAME=VALUE"
        if parsed.command not in SETTING_COMMANDS:
            hint = f"see onnxplain {parsed.command} --help"
        raise OnnxplainError(f"unrecognized arguments: {' '.join(rest)}; {hint}")
    return parsed.run(argparse.Namespace(**vars(parsed), parameters=parameters)) or 0


def _load_export_commands(command: str, commands: Any) -> None:
    """Lets `onnxplain_export.commands.add_commands` add its parsers, whose default `run(arguments)` is the command."""
    try:
        module = importlib.import_module(EXPORT_MODULE)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in EXPORT_NEEDS:
            raise
        raise OnnxplainError(f'onnxplain {command} needs more packages: pip install "onnxplain[cpu,export]"') from None
    module.add_commands(commands)
