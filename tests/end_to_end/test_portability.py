"""The graphs of three networks give the same numbers on the runtimes that are here, and avoid forms known to be wrong.

The short form of tools/portability.py, which runs every graph on every runtime.
"""

import importlib.util
import json
import sys
from importlib.metadata import version

import numpy as np
import onnx
import pytest

import portability
import portability_faults
import portability_table
from portability import Runner
from portability_cases import cases_of, difference, read_outputs
from portability_networks import NETWORKS, SIDE

torch = pytest.importorskip("torch", reason="the networks are written in torch")

from onnxplain_export import export  # noqa: E402 (behind the check for torch, which the networks need)

METHODS = ["gradient", "smoothgrad", "occlusion"]
RUNTIMES = {"reference": "onnx", "opencv": "opencv-python", "openvino": "openvino"}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The cases of the three networks, and the folder of onnxruntime's results."""
    work = tmp_path_factory.mktemp("portability")
    (work / "cases").mkdir()
    cases = []
    for name, network in NETWORKS.items():
        bundle = work / f"{name}.explain"
        export(network(), bundle, example=torch.zeros(2, 3, SIDE, SIDE), methods=METHODS, preprocessing="unit")
        cases += [case for case in cases_of(name, bundle, work / "cases") if ".targets" not in case["id"]]
    (work / "cases.json").write_text(json.dumps(cases), "utf-8")
    return cases, work, results(work, cases, "onnxruntime")


def results(work, cases, runtime):
    command = [sys.executable, str(portability.TOOLS / "portability_run.py"), runtime]
    portability.run(work / "cases.json", cases, work / runtime, Runner(command, ""))
    return work / runtime


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_graphs_give_the_same_numbers_elsewhere(measured, runtime):
    module = {"opencv": "cv2", "reference": "onnx"}.get(runtime, runtime)
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{RUNTIMES[runtime]} isn't installed")
    cases, work, expected = measured
    found = results(work, cases, runtime)
    for case in cases:
        error = difference(read_outputs(found / case["id"]), read_outputs(expected / case["id"]))
        assert error < 1e-4, f"{case['id']} on {RUNTIMES[runtime]} {version(RUNTIMES[runtime])}"


def test_no_product_reads_a_square_weight_in_two_ways(measured):
    """OpenVINO tells weights apart by where their numbers lie, and would get one of the products wrong."""
    for case in measured[0]:
        graph = onnx.load(case["model"], load_external_data=False).graph
        square = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2 and len({*tensor.dims}) == 1}
        plain, turned = set(), set()
        for node in graph.node:
            if node.op_type == "Transpose":
                turned.add(node.input[0])
            elif node.op_type in ("Gemm", "MatMul"):
                flips = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
                (turned if flips else plain).add(node.input[1])
        assert not plain & turned & square, case["id"]


def test_convolution_and_its_transpose_share_no_weight(measured):
    for case in measured[0]:
        nodes = onnx.load(case["model"], load_external_data=False).graph.node
        plain, turned = (
            {node.input[1] for node in nodes if node.op_type == kind} for kind in ("Conv", "ConvTranspose")
        )
        assert not plain & turned, case["id"]


def test_no_product_is_taken_for_hard_swish(measured):
    """OpenCV takes x · HardSigmoid(z) for HardSwish(z) where alpha is the float nearest 1/6."""
    for case in measured[0]:
        nodes = onnx.load(case["model"], load_external_data=False).graph.node
        made = {node.output[0]: node for node in nodes if node.op_type == "HardSigmoid"}
        for node in nodes:
            for weight, other in (node.input, [*node.input][::-1]) if node.op_type == "Mul" else ():
                if weight in made and made[weight].input[0] != other:
                    (alpha,) = (attribute.f for attribute in made[weight].attribute if attribute.name == "alpha")
                    assert np.float32(alpha) != np.float32(1 / 6), case["id"]


def test_list_of_faults_is_current():
    assert portability_faults.table() in portability_faults.TABLE.read_text("utf-8")


def test_table_shows_every_case_and_no_fault():
    """Each runtime ran each graph or says why not, and nothing in the table is more than rounding."""
    recorded = json.loads(portability_table.RESULTS.read_text("utf-8"))["runtimes"]
    assert {portability_table.family_of(case) for found in recorded.values() for case in found["cases"]} == set(
        portability_table.FAMILIES
    )
    for name, found in recorded.items():
        errors = {case: error for case, error in found["cases"].items() if not isinstance(error, str)}
        assert not {case: error for case, error in errors.items() if error > portability_table.ALIKE}, name
    assert "wrong: not finite" in "\n".join(portability_table.table())  # OpenCV's one silent fault is said


def test_a_crash_is_one_case(tmp_path):
    """A runner that dies of its first case is started again for the others."""
    cases = [{"id": name} for name in ("first", "second")]
    (tmp_path / "cases.json").write_text(json.dumps(cases), "utf-8")
    script = (
        "import os, pathlib, sys\n"
        "folder = pathlib.Path(sys.argv[2])\n"
        "if not (folder / 'first').exists():\n"
        "    os.abort()\n"
        "(folder / 'second').mkdir()\n"
        "(folder / 'second' / 'result.json').write_text('{\"outputs\": []}')\n"
    )
    portability.run(tmp_path / "cases.json", cases, tmp_path / "results", Runner([sys.executable, "-c", script], ""))
    first = json.loads((tmp_path / "results" / "first" / "result.json").read_text("utf-8"))
    assert first["error"].startswith("crashes (SIGABRT)")
    assert read_outputs(tmp_path / "results" / "second") == {}
