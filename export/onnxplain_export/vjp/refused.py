"""What has no rule for a reason: containers whose content isn't known, loops whose end isn't, and trees.

The differentiable operators of ai.onnx.ml are none of these: normalisation writes them in standard ones.
"""

from onnxplain_export.vjp.registry import no_gradient, refused

# A tree picks one of its leaves: constant between the thresholds.
no_gradient("ai.onnx.ml::TreeEnsemble", "ai.onnx.ml::TreeEnsembleClassifier", "ai.onnx.ml::TreeEnsembleRegressor")
no_gradient(
    "ai.onnx.ml::Binarizer", "ai.onnx.ml::CategoryMapper", "ai.onnx.ml::LabelEncoder", "ai.onnx.ml::OneHotEncoder"
)

refused(
    "sequences and optionals are followed where their length and the places that are read are known at export; "
    "export the model with tensors of fixed size in their place",
    "ConcatFromSequence",
    "Optional",
    "OptionalGetElement",
    "SequenceAt",
    "SequenceConstruct",
    "SequenceErase",
    "SequenceInsert",
    "SequenceMap",
    "SplitToSequence",
)
refused(
    "it ends on a condition that is computed from the input; export the model with a fixed number of steps, or explain "
    "a value before it",
    "Loop",
)
refused("it rounds its regions to whole entries; export the model with RoiAlign", "MaxRoiPool")
refused(
    "its result isn't a tensor; take this output off the model, or explain a value before it",
    "ai.onnx.ml::CastMap",
    "ai.onnx.ml::DictVectorizer",
    "ai.onnx.ml::ZipMap",
)
refused(
    "its probabilities are coupled by an iteration; fit it with probability=False, whose "
    "decision function is explained",
    "ai.onnx.ml::SVMClassifier",
)
