"""The operators and types that a bundle needs, as builds of onnxruntime with nothing else take them.

onnxruntime's own tools find them. A graph is looked at as it is written and as onnxruntime makes it when it loads it:
which of its fused operators run depends on the machine, and a build that lacks one can't load the graph.
"""

import importlib
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxplain.bundle import Bundle
from onnxplain.errors import BundleError
from onnxplain.runtime import onnxruntime

LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")


def required_operators(bundle: Bundle) -> str:
    """The text of a file for `--include_ops_by_config` of onnxruntime's build: a line for each domain and opset.

    See onnxruntime.ai/docs/reference/operators/reduced-operator-config-file.html. BundleError where onnxruntime can't
    load a graph.
    """
    tools = "onnxruntime.tools.ort_format_model"
    # Heavy, and needed here alone.
    model_processor = importlib.import_module(f"{tools}.ort_model_processor").OrtFormatModelProcessor
    types = importlib.import_module(f"{tools}.operator_type_usage_processors").OperatorTypeUsageManager()
    found: dict[str, dict[int, set[str]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        converted = Path(folder) / "graph.ort"
        for graph in bundle.graphs.values():
            for level in LEVELS:
                _convert(bundle.file_of(graph), converted, level)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ResourceWarning)  # it leaves its file open
                    model_processor(str(converted), found, types).process()
    lines = [f"# {bundle.name}: {', '.join(bundle.methods)}", *_lines(found, types)]
    return "\n".join(lines) + "\n"


def _convert(file: Path, converted: Path, level: str) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(converted)
    options.add_session_config_entry("session.save_model_format", "ORT")
    try:
        onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base
        first = str(error).splitlines()[0]
        raise BundleError(f"onnxruntime {onnxruntime.__version__} can't convert {file}: {first}") from error


def _lines(found: Mapping[str, Mapping[int, set[str]]], types: Any) -> list[str]:
    """domain;opset;operators, each with the types that it takes where onnxruntime's builds can leave some out."""
    return [
        f"{domain};{opset};{','.join(name + (types.get_config_entry(domain, name) or '') for name in sorted(names))}"
        for domain in sorted(found)
        for opset, names in sorted(found[domain].items())
        if names
    ]
