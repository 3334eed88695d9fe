"""The least memory in which a call of explain works: what its own errors ask for."""

import re
from typing import Any

from onnxplain import Explainer, ParameterError
from onnxplain.planner import parse_memory


def least_memory(explainer: Explainer, images: Any, method: str, *targets: Any, **parameters: Any) -> int:
    """Bytes for memory=, after as many refusals as it takes."""
    memory = 1
    for _ in range(8):
        try:
            explainer.explain(images, method, *targets, memory=memory, **parameters)
        except ParameterError as error:
            wanted = re.search(r"needs (\S+ MB)", str(error))
            if wanted is None:
                raise
            assert parse_memory(wanted[1]) > memory
            memory = parse_memory(wanted[1])
        else:
            return memory
    raise AssertionError(f"{method} asks for ever more memory")
