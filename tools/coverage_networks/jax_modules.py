"""The networks of jax_networks.py: one function each, which returns a function of a batch."""

from typing import Any

import equinox
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


def in_float64(network: Any) -> Any:
    """The same network with its weights in float64."""
    if isinstance(network, Batched):
        return Batched(jax.tree.map(_wider, network.module))
    graph, state = nnx.split(network)
    return nnx.merge(graph, jax.tree.map(_wider, state))


def gradient(network: Any, rows: Any, cotangent: Any) -> Any:
    """The gradient of the product of the network's output and the cotangent."""
    return np.asarray(jax.grad(lambda batch: (network(batch) * cotangent).sum())(rows))


def _wider(leaf: Any) -> Any:
    floating = equinox.is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.floating)
    return leaf.astype(jnp.float64) if floating else leaf


class Batched:
    """A module of equinox, which takes one input, for a batch of them."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def __call__(self, batch: Any) -> Any:
        """The module's answers to a batch."""
        return jax.vmap(self.module)(batch)


def flax_mlp() -> Any:
    """Fully connected layers of flax."""
    keys = nnx.Rngs(0)
    return nnx.Sequential(
        nnx.Linear(20, 32, rngs=keys), jnp.tanh, nnx.LayerNorm(32, rngs=keys),
        nnx.Linear(32, 32, rngs=keys), nnx.silu, nnx.Linear(32, 5, rngs=keys),
    )  # fmt: skip


class Convolutions(nnx.Module):
    """Convolutions of flax with normalisation and pooling."""

    def __init__(self, keys: nnx.Rngs) -> None:
        self.first = nnx.Conv(3, 8, (3, 3), strides=2, rngs=keys)
        self.norm = nnx.BatchNorm(8, use_running_average=True, rngs=keys)
        self.second = nnx.Conv(8, 16, (3, 3), rngs=keys)
        self.classes = nnx.Linear(16, 5, rngs=keys)

    def __call__(self, image: Any) -> Any:
        """Logits [N, 5] of images [N, H, W, 3]."""
        x = nnx.relu(self.norm(self.first(image)))
        x = nnx.max_pool(x, window_shape=(2, 2), strides=(2, 2))
        return self.classes(nnx.gelu(self.second(x)).mean((1, 2)))


def flax_cnn() -> Any:
    """A small convolutional network of flax, with random statistics of normalisation."""
    module = Convolutions(nnx.Rngs(0))
    mean, variance, scale, shift = jax.random.split(jax.random.key(1), 4)
    module.norm.mean[...] = 0.3 * jax.random.normal(mean, (8,))
    module.norm.var[...] = jax.random.uniform(variance, (8,), minval=0.5, maxval=1.5)
    module.norm.scale[...] = jax.random.uniform(scale, (8,), minval=0.7, maxval=1.3)
    module.norm.bias[...] = jax.random.uniform(shift, (8,), minval=0.5, maxval=1.5)
    return module


class Block(nnx.Module):
    """A transformer block."""

    def __init__(self, width: int, keys: nnx.Rngs) -> None:
        self.before, self.after = nnx.LayerNorm(width, rngs=keys), nnx.LayerNorm(width, rngs=keys)
        self.attention = nnx.MultiHeadAttention(4, width, decode=False, rngs=keys)
        self.wide, self.narrow = nnx.Linear(width, 2 * width, rngs=keys), nnx.Linear(2 * width, width, rngs=keys)

    def __call__(self, x: Any) -> Any:
        """The block's answer [N, tokens, width]."""
        x = x + self.attention(self.before(x))
        return x + self.narrow(nnx.gelu(self.wide(self.after(x))))


class VisionTransformer(nnx.Module):
    """A small vision transformer."""

    def __init__(self, keys: nnx.Rngs) -> None:
        self.patches = nnx.Conv(3, 32, (8, 8), strides=8, padding="VALID", rngs=keys)
        self.places = nnx.Param(0.1 * jax.random.normal(keys.params(), (1, 16, 32)))
        self.first, self.second = Block(32, keys), Block(32, keys)
        self.classes = nnx.Linear(32, 5, rngs=keys)

    def __call__(self, image: Any) -> Any:
        """Logits [N, 5] of images [N, 32, 32, 3]."""
        x = self.patches(image).reshape(image.shape[0], 16, 32) + self.places[...]
        return self.classes(self.second(self.first(x)).mean(1))


def flax_vit() -> Any:
    """A small vision transformer of flax."""
    return VisionTransformer(nnx.Rngs(0))


def equinox_mlp() -> Any:
    """Fully connected layers of equinox."""
    return Batched(equinox.nn.MLP(20, 5, 32, 2, activation=jax.nn.softplus, key=jax.random.key(0)))


def equinox_cnn() -> Any:
    """A small convolutional network of equinox."""
    first, second, last = jax.random.split(jax.random.key(0), 3)
    return Batched(
        equinox.nn.Sequential([
            equinox.nn.Conv2d(3, 8, 3, stride=2, padding=1, key=first), equinox.nn.Lambda(jax.nn.relu),
            equinox.nn.MaxPool2d(2, 2), equinox.nn.Conv2d(8, 16, 3, padding=1, key=second),
            equinox.nn.Lambda(jax.nn.elu), equinox.nn.AvgPool2d(2, 2), equinox.nn.Lambda(jnp.ravel),
            equinox.nn.Linear(16 * 4 * 4, 5, key=last),
        ])
    )  # fmt: skip
