# %% [markdown]
# # Instance tracking: which pictures are hard, and what is the matter with the hardest
#
# An InstanceTracker follows each sample by its number. Most pictures are learned within some epochs; a few stay hard,
# and to look at them tells more of a data set than any mean: wrong labels, pictures of two things, pictures of nothing.
# Here it watches a network that learns scikit-learn's handwritten digits. No picture was tampered with.

# %%
import numpy as np
import torch
from classroom import digits, ink_on_paper, options, say, show, table
from torch import nn

from onnxplain import Explainer
from onnxplain.display.figure import figure_grid
from onnxplain.heatmap import signed_picture
from onnxplain.tracking import InstanceTracker, SaliencyTracker
from onnxplain_export.callbacks import Watch

OUT, SHORT = options()
EPOCHS = 6 if SHORT else 20
torch.manual_seed(0)
torch.set_num_threads(1)  # so small a network gains little from more

# %% [markdown]
# ## A training that is watched
#
# Three lines of it are the watch's. After each epoch it measures every test picture, and the tracker keeps its value
# under the picture's number.

# %%
x_train, y_train, x_test, y_test = digits()
inputs, targets = torch.from_numpy(x_train), torch.from_numpy(y_train)
model = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3, padding=1),
    nn.ReLU(),
    nn.Flatten(),
    nn.Linear(32 * 4 * 4, 10),
)
tracker = InstanceTracker("cross_entropy", n_max_to_keep=5, n_min_to_keep=5)
METHODS = ("gradient", "smoothgrad", "integrated_gradients", "smoothgrad_integrated")
watch = Watch(  # (1)
    model, OUT / "digits.explain", data=(x_test, y_test), instances=tracker, methods=METHODS, preprocessing="unit"
)
optimizer = torch.optim.Adam(model.parameters(), 2e-3)
for _ in range(EPOCHS):
    for batch in torch.randperm(len(inputs)).split(32):
        loss = nn.functional.cross_entropy(model(inputs[batch]), targets[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    watch.epoch_end()  # (2)
watch.train_end()  # (3)
show(OUT / "instances.png", tracker.figure(title="the five hardest pictures and the five easiest"))

# %% [markdown]
# Where a curve falls to nothing, the picture is learned. Where one rises, the network gets surer of a wrong answer. How
# much of what is left to learn do a few pictures hold?

# %%
said = watch.followed
hardest = tracker.hardest(6)
share = float(said.values[tracker.hardest(12)].sum() / said.values.sum())
say(
    f"{said.right.mean():.1%} of {len(said)} test pictures are given their class. The 12 hardest hold {share:.0%} of "
    "the whole loss."
)
history = {number: list(tracker.history["eval"][number].values()) for number in hardest}
table(
    {
        "picture": hardest,
        "is a": y_test[hardest],
        "is called": said.predicted[hardest],
        "how surely": [f"{each:.0%}" for each in said.confidence[hardest]],
        "loss at first": [values[0] for values in history.values()],
        "lowest": [min(values) for values in history.values()],
        "at the end": [values[-1] for values in history.values()],
    }
)

# %% [markdown]
# ## The hardest with their maps
#
# A SaliencyTracker draws pictures that it is given, at the end of a training too.

# %%
maps = SaliencyTracker((x_test[hardest], y_test[hardest]), methods=METHODS).show(watch.bundle, EPOCHS)
show(OUT / "hardest.png", maps.figure())

# %% [markdown]
# ## The hardest one
#
# What speaks for the class that it is called, what for the one that it is? The parts of each stroke in the two scores,
# by integrated gradients (red for, blue against), and their difference: red is what leads astray. Beside them stand the
# pictures that the network has learned from and that are most like it, of the one class and of the other.

# %%
one = hardest[0]
true, called = int(y_test[one]), int(said.predicted[one])
explainer = Explainer(watch.bundle)
both = explainer.explain(x_test[one], "integrated_gradients", targets=[[called, true]])
called_map, true_map = both.attribution[0]
distances = np.linalg.norm((x_train - x_test[one]).reshape(len(x_train), -1), axis=1)
nearest = {digit: int(np.where(y_train == digit, distances, np.inf).argmin()) for digit in (called, true)}
columns = {
    f"a {true}, called {called}": x_test[one, 0],
    f"for {called}": signed_picture(called_map),
    f"for {true}": signed_picture(true_map),
    "difference": signed_picture(called_map - true_map),
    f"a {called} like it": x_train[nearest[called], 0],
    f"a {true} like it": x_train[nearest[true], 0],
}
drawn = {name: [each if each.ndim == 3 else ink_on_paper(each)] for name, each in columns.items()}
show(OUT / "hardest_one.png", figure_grid(drawn))

# %%
ten = y_train[np.argsort(distances)[:10]]
say(
    f"Picture {one} is a {true}, called {called} with {said.confidence[one]:.0%}. Of the ten pictures that are most "
    f"like it, {(ten == called).sum()} are a {called} and {(ten == true).sum()} a {true}; the nearest {called} is "
    f"{distances[nearest[called]]:.2f} away, the nearest {true} {distances[nearest[true]]:.2f}. "
    + (
        "It stands among its own: the mistake is the network's."
        if (ten == true).sum() > 5
        else "It stands among others: it was written like them."
    )
)

# %% [markdown]
# Is it true that the red pixels lead astray? Their ink is taken away, the reddest first, until the network gives
# another answer. To compare, the same number of inked pixels is taken away at random, a hundred times.

# %%
order = np.argsort((true_map - called_map)[0].ravel())
ink = np.flatnonzero(x_test[one].ravel())
order = order[np.isin(order, ink)]


def without(pixels: np.ndarray) -> np.ndarray:
    """The hardest picture without the ink of some pixels."""
    changed = x_test[one].copy()
    changed.reshape(-1)[pixels] = 0
    return changed


answers = explainer.scores(np.stack([without(order[:count]) for count in range(len(ink) + 1)])).argmax(1)
astray = int(np.flatnonzero(answers != called)[0]) if (answers != called).any() else len(ink)
rng = np.random.default_rng(0)
chance = np.stack([without(rng.choice(ink, astray, replace=False)) for _ in range(100)])
by_chance = float((explainer.scores(chance).argmax(1) != called).mean())
home = np.flatnonzero(answers == true)
say(
    f"Without {astray} of its {len(ink)} inked pixels, the reddest, it is called {answers[astray]}. Of 100 times that "
    f"{astray} were taken away at random, the answer changed in {by_chance:.0%}. "
    + (f"Without {home[0]} it is called {true}, as it should be." if len(home) else f"A {true} it is never called.")
)
