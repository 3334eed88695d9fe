"""The sources of networks, in the order in which they are run: those of one environment together."""

from types import ModuleType

from coverage_networks import (
    jax_networks,
    keras_networks,
    keras_tensorflow_networks,
    paddle_networks,
    sklearn_networks,
    timm_networks,
    torch_networks,
    torchvision_networks,
    transformers_networks,
)

SOURCES: dict[str, ModuleType] = {
    "torch": torch_networks,
    "torchvision": torchvision_networks,
    "timm": timm_networks,
    "transformers": transformers_networks,
    "keras": keras_networks,
    "keras_tensorflow": keras_tensorflow_networks,
    "jax": jax_networks,
    "paddle": paddle_networks,
    "sklearn": sklearn_networks,
}


def names() -> list[str]:
    """Every network as "source/name"."""
    return [f"{source}/{name}" for source, module in SOURCES.items() for name in module.ARCHITECTURES]
