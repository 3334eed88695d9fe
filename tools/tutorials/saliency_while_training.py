# %% [markdown]
# # Saliency while a network is trained
#
# A network says "seven", and it is a seven. Has it read the digit, or does it go by the photograph behind it? A
# SaliencyTracker shows, every few epochs, what its answers rest on: always for the same pictures, so that one can see
# the network learn where to look.

# %%
import cv2
import numpy as np
import torch
from classroom import DIGITS, digits_on_photographs, options, say, show, table
from torch import nn

from onnxplain import Explainer
from onnxplain.tracking import PngFolder, SaliencyTracker
from onnxplain_export.callbacks import Watch

OUT, SHORT = options()
EPOCHS, EVERY = (3 if SHORT else 12), 3
torch.manual_seed(0)
torch.set_num_threads(1)  # so small a network gains little from more

# %% [markdown]
# ## Pictures and a network
#
# scikit-learn's handwritten digits, in random ink, somewhere on pieces of scikit-image's photographs: 32 × 32 pixels.
# Neither the digits nor the pieces that are tested on were trained on.

# %%
train = digits_on_photographs(1500 if SHORT else 3000, training=True, seed=1)
test = digits_on_photographs(100 if SHORT else 200, training=False, seed=2)


def block(channels: int, width: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]


model = nn.Sequential(
    *block(3, 12),
    nn.MaxPool2d(2),
    *block(12, 24),
    nn.MaxPool2d(2),
    *block(24, 48),
    *block(48, 48),
    nn.AdaptiveMaxPool2d(1),
    nn.Flatten(),
    nn.Linear(48, len(DIGITS)),
)

# %% [markdown]
# ## What is shown
#
# Five pictures, each with its class, what the network says, and four maps: the gradient; smoothed, over 25 copies with
# noise; integrated, in 50 steps; and both, in 10 × 25. That is 326 gradients of each picture, at the first epoch and at
# every third. Without `samples`, the first batch would be kept.

# %%
chosen = test.first_of_each()[[1, 3, 5, 7, 9]]
tracker = SaliencyTracker((test.images[chosen], test.labels[chosen]), every=EVERY)
say(f"Each time, {tracker.rows} gradients are taken of each picture: {tracker.cost()}.")

# %% [markdown]
# These pictures were put together here, so it is known where the digit is. That allows for a number beside the maps:
# how much of them lies on the digit or next to it?

# %%
BUNDLE = OUT / "digits.explain"
near = np.stack([cv2.dilate(ink.astype(np.uint8), np.ones((3, 3))) for ink in test.ink]) == 1


def measure() -> tuple[float, float]:
    """How often the network is right, and how much of the test pictures' integrated maps lies at the digit."""
    result = Explainer(BUNDLE).explain(list(test.images), "integrated_gradients", steps=10 if SHORT else 20)
    maps = np.abs(result.attribution).sum(1)
    at_digit = (maps * near).sum((1, 2)) / maps.sum((1, 2))
    return float((result.scores.argmax(1) == test.labels).mean()), float(at_digit.mean())


# %% [markdown]
# ## A plain loop, with three lines more
#
# At the first epoch the network is exported, gradient and all; afterwards the bundle only gets new weights. The network
# isn't touched: the training ends with the same weights as without these lines, bit for bit. With `state=FOLDER`, one
# that is interrupted would go on where it was.
#
# Figures go wherever one likes: here to a folder; `Notebook()` shows them below the cell, and a TensorBoard
# `SummaryWriter` can be handed in as it is.

# %%
watch = Watch(  # (1)
    model, BUNDLE, example=test.rows()[:1], saliency=tracker, sinks=PngFolder(OUT), preprocessing="unit"
)
inputs, labels = torch.from_numpy(train.rows()), torch.from_numpy(train.labels)
optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
measured = {}
for epoch in range(1, EPOCHS + 1):
    for batch in torch.randperm(len(inputs)).split(64):
        loss = nn.functional.cross_entropy(model(inputs[batch]), labels[batch], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    watch.epoch_end()  # (2)
    if tracker.due(epoch):
        measured[epoch] = measure()
watch.train_end()  # (3)

# %% [markdown]
# ## What was seen
#
# The figure after the first epoch, the one after the last, and a film of all. Where a digit is black, its ink is dark
# in the integrated maps too, and its rim bright: they start from a black picture, and what stays black has no part.

# %%
show(OUT / "saliency" / "eval" / "epoch_0001.png")
show(OUT / "saliency" / "eval" / f"epoch_{EPOCHS:04d}.png")
tracker.film(OUT / "film.gif", milliseconds=1200)
show(OUT / "film.gif")

# %% [markdown]
# ## Does the network look at the digit?
#
# All test pictures are counted here, not only those that are shown.

# %%
covered = float(near.mean())
table(
    {
        "epoch": measured,
        "right answers": [f"{right:.0%}" for right, _ in measured.values()],
        "map at the digit": [f"{at_digit:.1%}" for _, at_digit in measured.values()],
    }
)
say(
    f"The digit and its rim are {covered:.1%} of a picture. After the first epoch {measured[1][1]:.1%} of a map lie "
    f"there, after the last {measured[EPOCHS][1]:.1%}."
)


def settled(values: list[float]) -> int:
    """The first of the epochs shown at which nine tenths of the last value are reached."""
    return next(epoch for epoch, value in zip(measured, values, strict=True) if value >= 0.9 * values[-1])


reading, looking = (settled([each[column] for each in measured.values()]) for column in (0, 1))
say(
    f"The maps are nearly where they stay after epoch {looking}, the right answers after epoch {reading}"
    + (": the network found the digit before it could read it." if looking < reading else ".")
)
