"""How the commands speak to a person: errors on stderr, one line each."""

import sys


def say(message: object) -> None:
    """Prints one line on stderr, after the program's name."""
    print("onnxplain:", " ".join(str(message).split()), file=sys.stderr)
