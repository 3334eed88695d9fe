"""Methods that go on until their map is known to a tolerance, each image as far as it needs.

A map's error is its estimated distance from the map of endlessly many steps, in L2, relative to the map's length.
"""

from onnxplain.tolerance.methods import find_tolerance, refuse_intolerant, run_to, takes_tolerance

__all__ = ["find_tolerance", "refuse_intolerant", "run_to", "takes_tolerance"]
