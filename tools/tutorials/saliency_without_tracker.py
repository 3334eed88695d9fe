# %% [markdown]
# # Saliency without a tracker
#
# A network that is trained already is exported once and asked about single pictures: what has each pixel to do with the
# answer? There are four ways to ask, each with its price:
#
# | map | what it is | gradients |
# |---|---|---|
# | gradient | what a small change of a pixel would change | 1 |
# | smoothed | the gradient, averaged over copies of the picture with noise | 25 |
# | integrated | the gradient on the way from a black picture to this one, times the picture | 50 |
# | smoothed + integrated | both | 10 × 25 |

# %%
import numpy as np
import torch
from classroom import PHOTOGRAPHS, options, pieces_of_photographs, say, show, table
from torch import nn

from onnxplain import Explainer
from onnxplain.display.figure import figure_grid
from onnxplain.display.from_results import figure_columns
from onnxplain.heatmap import signed_overlay
from onnxplain_export import export

OUT, SHORT = options()
torch.manual_seed(0)
torch.set_num_threads(1)  # so small a network gains little from more

# %% [markdown]
# ## A network
#
# It tells from which of five photographs a piece was cut: scikit-image's cat, cup of coffee, motorcycle, rocket or
# galaxies. It learns from their left halves and is tested on the right ones.

# %%
train = pieces_of_photographs(350 if SHORT else 1000, training=True, seed=1)
test = pieces_of_photographs(100 if SHORT else 200, training=False, seed=2)


def block(channels: int, width: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]


model = nn.Sequential(
    *block(3, 8),
    nn.AvgPool2d(2),
    *block(8, 16),
    nn.AvgPool2d(2),
    *block(16, 32),
    nn.AvgPool2d(2),
    *block(32, 32),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Linear(32, len(PHOTOGRAPHS)),
)
inputs, labels = torch.from_numpy(train.rows()), torch.from_numpy(train.labels)
optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
for _ in range(5 if SHORT else 10):
    for batch in torch.randperm(len(train)).split(25):
        loss = nn.functional.cross_entropy(model(inputs[batch]), labels[batch], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
model.eval()

# %% [markdown]
# ## Exported once
#
# The bundle holds the network and its gradient as ONNX, and how a picture becomes its input. From here on there is no
# torch any more.

# %%
bundle = export(
    model, OUT / "photographs.explain", example=inputs[:1], preprocessing="unit", labels=PHOTOGRAPHS, overwrite=True
)
explainer = Explainer(bundle)
accuracy = float((explainer.scores(list(test.images)).argmax(1) == test.labels).mean())
say(f"{accuracy:.0%} of {len(test)} pieces that it never saw are given to the right photograph.")

# %% [markdown]
# ## Four maps of the same pictures

# %%
METHODS = {
    "gradient": "gradient",
    "smoothed": "smoothgrad",
    "integrated": "integrated_gradients",
    "smoothed + integrated": "smoothgrad_integrated",
}
pictures = test.images[test.first_of_each()]
results = {name: explainer.explain(list(pictures), method) for name, method in METHODS.items()}
first = results["gradient"]
answers = [f"{label} ({share:.0%})" for label, share in zip(first.labels, first.probabilities.max(1), strict=True)]
show(OUT / "four_maps.png", figure_grid({"answer": answers, **figure_columns(results)}))

# %% [markdown]
# ## What smoothing is good for
#
# Noise that hardly anybody sees is added to the pictures, five grey levels of 256. The network's answer is the same, so
# its reasons should be. How alike are the maps before and after (correlation, the mean of the five pictures)?

# %%
noise = np.random.default_rng(1).normal(0, 5, pictures.shape)
grainy = list(np.clip(np.rint(pictures + noise), 0, 255).astype(np.uint8))
alike = {}
for name, method in METHODS.items():
    pairs = zip(results[name].heatmap(), explainer.explain(grainy, method).heatmap(), strict=True)
    alike[name] = float(np.mean([np.corrcoef(before.ravel(), after.ravel())[0, 1] for before, after in pairs]))
table({"map": METHODS, "alike": alike.values(), "gradients": [int(each.steps[0]) for each in results.values()]})
say(f"The steadiest first: {', '.join(sorted(alike, key=alike.__getitem__, reverse=True))}.")

# %% [markdown]
# ## What integrating is good for
#
# Its numbers are parts: over all pixels they add up to the score of the picture less that of a black one. So one can
# ask how much of a score a region has earned.

# %%
integrated = results["integrated"]
black = explainer.scores([np.zeros_like(pictures[0])])[0]
parts = integrated.attribution.sum((1, 2, 3), dtype=np.float64)
owed = integrated.scores.max(1) - black[integrated.targets]
table({"picture": integrated.labels, "sum of the parts": parts, "score less black's": owed})
missing = float((np.abs(parts - owed) / np.abs(owed).max()).max())
say(f"Up to {missing:.1%} of the largest is missing; with more steps it would be less.")

# %% [markdown]
# ## The rocket, or the blue sky?
#
# A network may be right for a wrong reason. On the photograph of the rocket, most of the picture is evening sky. How
# much of the score for "rocket" do its blue pixels earn? And what does the network say to a piece of sky alone?

# %%
rocket = PHOTOGRAPHS.index("rocket")
red, _, blue = np.moveaxis(pictures[rocket].astype(int), -1, 0)
sky = blue > red + 20
earned = float(integrated.attribution[rocket].sum(0)[sky].sum() / parts[rocket])
only_sky = np.full_like(pictures[0], np.rint(pictures[rocket][sky].mean(0)).astype(np.uint8))
answer = explainer.explain([only_sky], "integrated_gradients")
sure = float(answer.probabilities[0, rocket])
say(
    f"{sky.mean():.0%} of the piece is sky, and it earns {earned:.0%} of the score. A picture that is nothing but the "
    f"sky's mean colour is called {answer.labels[0]}; the probability of rocket is {sure:.0%}. "
    + ("It is the sky that the network knows, not the rocket." if sure > 0.5 else "The sky alone isn't enough.")
)

# %% [markdown]
# ## Each class has a map of its own
#
# Half a cat beside half a cup of coffee: what speaks for the one, what for the other? Red speaks for the class that is
# asked for, blue against it.

# %%
cat, coffee = PHOTOGRAPHS.index("cat"), PHOTOGRAPHS.index("coffee")
half = pictures.shape[2] // 2
both = np.concatenate([pictures[cat][:, :half], pictures[coffee][:, :half]], axis=1)
asked = explainer.explain([both], "integrated_gradients", targets=[["cat", "coffee"]])
drawn = [[signed_overlay(both, each)] for each in asked.signed()[0]]
show(OUT / "two_classes.png", figure_grid({"picture": [both], "for cat": drawn[0], "for coffee": drawn[1]}))

# %%
by_half = asked.attribution[0].sum(1, dtype=np.float64).reshape(2, len(both), 2, half).sum((1, 3))
table({"asked for": ["cat", "coffee"], "the cat's half": by_half[:, 0], "the coffee's half": by_half[:, 1]})
own = [bool(by_half[0, 0] > by_half[0, 1]), bool(by_half[1, 1] > by_half[1, 0])]
say(f"Of the two classes, {sum(own)} get more from their own half than from the other.")
