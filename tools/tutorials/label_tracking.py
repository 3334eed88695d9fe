# %% [markdown]
# # Label tracking: which digit lags, and why
#
# A loss that falls says nothing of a class that is left behind. A LabelTracker follows the metric of each class by
# itself, epoch by epoch. Here it watches a network that learns scikit-learn's handwritten digits, 8 × 8 pixels each:
# first all of them, then with hardly any examples of one.

# %%
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from classroom import digits, options, say, show, table
from torch import nn

from onnxplain.tracking import LabelTracker
from onnxplain_export.callbacks import Watch

OUT, SHORT = options()
EPOCHS = 5 if SHORT else 20
torch.set_num_threads(1)  # so small a network gains little from more

# %% [markdown]
# ## A training that is watched
#
# Three lines of it are the watch's. After each epoch it puts the network's new weights into a bundle, measures the
# cross entropy of each test picture there, and tells the tracker.

# %%
x_train, y_train, x_test, y_test = digits()


def learn(images: np.ndarray, labels: np.ndarray, bundle: Path) -> Watch:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 10),
    )
    watch = Watch(  # (1)
        model,
        bundle,
        data=(x_test, y_test),
        labels=LabelTracker("cross_entropy", bounds="std"),
        preprocessing="unit",
    )
    inputs, targets = torch.from_numpy(images), torch.from_numpy(labels)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(inputs)).split(32):
            loss = nn.functional.cross_entropy(model(inputs[batch]), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        watch.epoch_end()  # (2)
    watch.train_end()  # (3)
    return watch


everything = learn(x_train, y_train, OUT / "digits.explain")
show(OUT / "labels.png", everything.labels.figure(title="cross entropy of each digit, all examples"))

# %% [markdown]
# ## What the graph says
#
# A line is a digit's mean, its band the standard deviation over its test pictures. Whose loss was highest throughout
# the training, and whose at its end? What are its pictures taken for?

# %%


def means(tracker: LabelTracker) -> dict[int, list[float]]:
    """The mean of each digit after each epoch."""
    found = {digit: [band.mean for band in curves["std"].values()] for digit, curves in tracker.history["eval"].items()}
    return dict(sorted(found.items()))


def mistaken(watch: Watch, digit: int) -> dict[int, int]:
    """What the test pictures of a digit are wrongly taken for, and how often."""
    last = watch.followed
    return dict(Counter(last.predicted[(last.labels == digit) & ~last.right].tolist()))


curves = means(everything.labels)
throughout = {digit: float(np.mean(curve)) for digit, curve in curves.items()}
end = {digit: curve[-1] for digit, curve in curves.items()}
table(
    {
        "digit": curves,
        "examples": [int((y_train == digit).sum()) for digit in curves],
        "first epoch": [curve[0] for curve in curves.values()],
        "last": end.values(),
        "all epochs": throughout.values(),
        "taken for": [mistaken(everything, digit) or "" for digit in curves],
    }
)

# %%
late, worst, best = max(throughout, key=throughout.get), max(end, key=end.get), min(end, key=end.get)
say(
    f"The {late} lags: over all epochs its loss is {throughout[late]:.2f}, that of all digits is "
    f"{np.mean([*throughout.values()]):.2f}."
)
last = everything.followed
losses = np.sort(last.values[last.labels == worst])[::-1]
say(
    f"The {worst} ends highest, at {end[worst]:.3f}. A band says how evenly: {losses[:3].sum() / losses.sum():.0%} of "
    f"this loss are 3 of {len(losses)} pictures. Which ones they are, an InstanceTracker tells."
)

# %% [markdown]
# ## Why one lags
#
# All have about as many examples, so that isn't it. Are some written more variously, or more like others? How far do a
# digit's examples lie from their mean picture, and how far is that from the nearest mean of another digit?

# %%
flat = x_train.reshape(len(x_train), -1)
centres = np.stack([flat[y_train == digit].mean(0) for digit in curves])
spread = np.array([np.linalg.norm(flat[y_train == digit] - centres[digit], axis=1).mean() for digit in curves])
apart = np.linalg.norm(centres[:, None] - centres, axis=2) + np.diag(np.full(len(centres), np.inf))
ratio = spread / apart.min(1)
table(
    {
        "digit": curves,
        "spread": spread,
        "to the next digit": apart.min(1),
        "which is": apart.argmin(1),
        "ratio": ratio,
        "loss in all epochs": throughout.values(),
    }
)
together = float(np.corrcoef(ratio, [*throughout.values()])[0, 1])
say(
    f"The digits that mix most with another are learned last: ratio and loss have a correlation of {together:.2f}."
    if together > 0.5
    else f"That explains little of it: ratio and loss have a correlation of {together:.2f}."
)

# %% [markdown]
# ## The same with hardly any examples of one digit
#
# Another reason is a lack of examples. To see what that looks like, the digit that went best is now left with one
# example in twenty; all else is as before, the network's first weights and the test pictures too.

# %%
rare = np.flatnonzero(y_train == best)
kept = np.ones(len(y_train), bool)
kept[rare[len(rare) // 20 :]] = False
starved = learn(x_train[kept], y_train[kept], OUT / "starved.explain")
few = len(rare) // 20
show(
    OUT / "labels_starved.png",
    starved.labels.figure(title=f"cross entropy of each digit, {few} examples of the {best}"),
)

# %%
then = {digit: curve[-1] for digit, curve in means(starved.labels).items()}
table({"digit": then, "all examples": end.values(), f"{few} of the {best}": then.values()})
lagging = max(then, key=then.get)
say(
    f"The {best} ended lowest of all, at {end[best]:.3f}; now it ends at {then[best]:.2f}, taken for "
    f"{mistaken(starved, best)}. The highest of all is now the {lagging}."
)
