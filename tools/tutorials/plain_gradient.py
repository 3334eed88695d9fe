# %% [markdown]
# # The gradient, by hand
#
# The plainest map there is: how fast does the score of the answer change with each pixel (Simonyan, Vedaldi, Zisserman
# 2014)? It takes four lines with a framework's autograd. Here they are written out, in torch and in Keras, on the same
# network; then the map is taken from an exported bundle, where there is no framework any more, and compared with theirs
# number by number.

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "torch")  # read when Keras is imported

import keras
import numpy as np
import torch
from classroom import PHOTOGRAPHS, options, pieces_of_photographs, say, show, table
from torch import nn

from onnxplain import Explainer
from onnxplain.display.figure import figure_grid
from onnxplain.heatmap import colours, overlay
from onnxplain_export import export

OUT, SHORT = options()
torch.manual_seed(0)
torch.set_num_threads(1)  # so small a network gains little from more

# %% [markdown]
# ## A network
#
# It tells from which of five photographs of scikit-image a piece was cut, and learns from their left halves. The
# picture to be explained is of the right half of one.

# %%
train = pieces_of_photographs(300 if SHORT else 1000, training=True, seed=1)
test = pieces_of_photographs(50, training=False, seed=2)


def block(channels: int, width: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]


model = nn.Sequential(
    *block(3, 8),
    *block(8, 16),
    *block(16, 32),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Linear(32, len(PHOTOGRAPHS)),
)
inputs, labels = torch.from_numpy(train.rows()), torch.from_numpy(train.labels)
optimizer = torch.optim.Adam(model.parameters(), 5e-3)
for _ in range(5 if SHORT else 12):
    for batch in torch.randperm(len(train)).split(25):
        loss = nn.functional.cross_entropy(model(inputs[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
model.eval()
picture = test.images[test.first_of_each()[PHOTOGRAPHS.index("motorcycle")]]

# %% [markdown]
# ## In torch
#
# The picture wants a gradient; the highest score is followed back to it.

# %%
x = torch.from_numpy(picture.transpose(2, 0, 1)[None].astype(np.float32) / 255).requires_grad_()
scores = model(x)
answer = int(scores.argmax(1))
scores[0, answer].backward()
gradient = x.grad.numpy()[0]  # [3, 64, 64]
say(f"The network says {PHOTOGRAPHS[answer]} with {scores.detach().softmax(1).max():.0%}.")

# %% [markdown]
# ## From numbers to a picture
#
# Three channels become one number for each pixel: the sum of their absolute values, since a pixel matters whichever way
# it pushes. Scaled from the smallest to the largest, a map is as dark as its few highest pixels make it. So it is
# windowed: from the 99th percentile on, all is white.

# %%
total = np.abs(gradient).sum(0)
normalised = (total - total.min()) / (total.max() - total.min())
window = np.percentile(total, 99)
windowed = np.clip((total - total.min()) / (window - total.min()), 0, 1)
say(
    f"The highest pixel is {total.max() / window:.1f} times the 99th percentile: windowed, the map is "
    f"{windowed.mean() / normalised.mean():.1f} times as bright."
)

# %% [markdown]
# ## Overlaid
#
# Over the picture in grey, the map's colours show what the network looks at. `overlay` lets them glow; by hand, a
# mixture of both does as well.

# %%
grey = np.repeat(picture.mean(2, keepdims=True), 3, axis=2)
mixed = np.rint(0.5 * grey + 0.5 * colours(windowed)).astype(np.uint8)
columns = {
    "picture": picture,
    "normalised": normalised,
    "windowed": windowed,
    "mixed by hand": mixed,
    "overlaid": overlay(picture, windowed),
}
show(OUT / "by_hand.png", figure_grid({name: [each] for name, each in columns.items()}))

# %% [markdown]
# ## In Keras
#
# The same network, here on Keras' torch backend, with the same weights: Keras keeps a picture's channels last, and so
# the axes of its kernels stand in another order. On the torch backend the gradient is torch's; with TensorFlow it would
# be a `tf.GradientTape`, with JAX `jax.grad`.

# %%
layers = keras.layers
parts = []
for width in (8, 16, 32):
    parts += [layers.Conv2D(width, 3, padding="same", activation="relu"), layers.MaxPooling2D(2)]
twin = keras.Sequential(
    [keras.Input((64, 64, 3)), *parts, layers.GlobalAveragePooling2D(), layers.Dense(len(PHOTOGRAPHS))]
)
weights = [each.detach().numpy() for each in model.parameters()]
twin.set_weights([each.transpose(2, 3, 1, 0) if each.ndim == 4 else each.T for each in weights])

x = torch.from_numpy(picture[None].astype(np.float32) / 255).requires_grad_()
twin(x)[0, answer].backward()
keras_gradient = x.grad.cpu().numpy()[0].transpose(2, 0, 1)

# %% [markdown]
# ## From a bundle
#
# Exported once, from torch and from Keras, and explained without either: numpy and onnxruntime do it. `heatmap` is the
# normalised and windowed map.

# %%
names = {"preprocessing": "unit", "labels": PHOTOGRAPHS, "methods": ["gradient"], "overwrite": True}
bundles = {
    "bundle of torch's": export(model, OUT / "torch.explain", example=inputs[:1], **names),
    "bundle of Keras'": export(twin, OUT / "keras.explain", **names),
}
results = {name: Explainer(bundle).explain([picture], "gradient") for name, bundle in bundles.items()}


def channels_first(result) -> np.ndarray:
    found = result.attribution[0]
    return found if result.layout == "NCHW" else found.transpose(2, 0, 1)


gradients = {
    "torch": gradient,
    "Keras": keras_gradient,
    **{name: channels_first(each) for name, each in results.items()},
}
heats = {"torch": windowed, **{name: each.heatmap()[0] for name, each in results.items()}}
scale = float(np.abs(gradient).max())
apart = {name: float(np.abs(each - gradient).max()) / scale for name, each in gradients.items()}
heats_apart = {name: float(np.abs(each - windowed).max()) for name, each in heats.items()}
table({"gradient from": apart, "apart from torch's": [f"{each:.1e}" for each in apart.values()]})
say(
    f"All {gradient.size} numbers of each are within {max(apart.values()):.1e} of torch's largest ({scale:.3g}); the "
    f"windowed maps, which go from 0 to 1, within {max(heats_apart.values()):.1e}."
)
show(OUT / "compared.png", figure_grid({"picture": [picture], **{name: [each] for name, each in heats.items()}}))
