"""Parameters that several methods share, as explainer.json describes them."""

from typing import Any

NOISE = {
    "kind": "float",
    "default": 0.15,
    "minimum": 0.0,
    "maximum": 10.0,
    "help": "σ as a share of each image's range",
}
SEED = {"kind": "int", "default": 0, "minimum": 0, "maximum": (1 << 20) - 1, "help": "number of the random sequence"}
BASELINE = {
    "kind": "image",
    "default": 0.0,
    "help": "where the path starts: a number in the model's own input, or black, white, mean, blur",
}
FILL = {
    "kind": "image",
    "default": 0.0,
    "help": "what is put in place of the image: a number in the model's own input, or black, white, mean, blur",
}


def count(default: int, meaning: str, most: int = 1_000_000, least: int = 1) -> dict[str, Any]:
    """A whole number of things."""
    return {"kind": "int", "default": default, "minimum": least, "maximum": most, "help": meaning}


def number(default: float, meaning: str, least: float | None = None, most: float | None = None) -> dict[str, Any]:
    """A number in a range."""
    return {"kind": "float", "default": default, "minimum": least, "maximum": most, "help": meaning}


def choice(default: str, meaning: str, *choices: str) -> dict[str, Any]:
    """One of several names."""
    return {"kind": "choice", "default": default, "choices": list(choices), "help": meaning}


def flag(default: bool, meaning: str) -> dict[str, Any]:
    """Yes or no."""
    return {"kind": "bool", "default": default, "help": meaning}


def size(default: int, meaning: str) -> dict[str, Any]:
    """A side in pixels, or rows and columns."""
    return {"kind": "size", "default": default, "minimum": 0, "maximum": 100_000, "help": meaning}


def array(default: str | None, meaning: str, *choices: str) -> dict[str, Any]:
    """An array, or one of several names for one."""
    return {"kind": "array", "default": default, "choices": list(choices), "help": meaning}
