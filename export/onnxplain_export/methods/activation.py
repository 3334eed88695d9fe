"""Methods of the activation family: class activation maps at a feature layer."""

ACTIVATION: dict[str, dict[str, object]] = {}
