"""Graphs that give the images' scores beside their own outputs, and find the top class where the target is -1."""

from typing import Any

import numpy as np

from onnxplain.targets import TOP
from onnxplain_export.graphs import TELLING
from onnxplain_export.tables import COMPOSITES
from onnxplain_export.verify.conservation import baseline_of, composite_parameters
from onnxplain_export.verify.proof import Array, Proof, relative, worst

TOLERANCE = 1e-4
TOLERANCE_STRAIGHT_THROUGH = 5e-2
"""Of a quantised network, where the last place of a sum decides which way a number is rounded."""
TWO = np.arange(2)


def tells(graph: str) -> bool:
    """Whether the graph of this name runs the images as they are, and gives their scores."""
    return graph.split(".")[0] in TELLING


def told(proof: Proof, graph: str) -> dict[str, Any]:
    """The scores against the forward graph's, and target -1 against the class that these scores say is the top one."""
    feeds = _parameters(proof, graph)
    straight_through = proof.normalized.straight_through
    tolerance = TOLERANCE_STRAIGHT_THROUGH if straight_through else TOLERANCE
    if proof.normalized.scores.free:
        (scores,) = proof.run(graph, ["scores"], TWO, **{proof.chosen_name: proof.chosen[TWO]}, **feeds)
        return {"error": relative(scores, proof.scores[TWO]), "tolerance": tolerance}
    open_targets = np.full((len(TWO), 1), TOP, np.int64)
    scores, total = proof.run(graph, ["scores", "total"], TWO, target=open_targets, **feeds)
    (expected,) = proof.run(graph, ["total"], TWO, target=scores.argmax(axis=1)[:, None], **feeds)
    return {"error": worst([relative(scores, proof.scores[TWO]), relative(total, expected)]), "tolerance": tolerance}


def _parameters(proof: Proof, graph: str) -> dict[str, Array]:
    """What a graph takes beside the images and what is explained."""
    values = proof.values[TWO]
    known = {"baseline": baseline_of(values)}
    for composite in COMPOSITES.values():
        known |= composite_parameters(composite, values)
    return {entry.name: known[entry.name] for entry in proof.sessions[graph].get_inputs() if entry.name in known}
