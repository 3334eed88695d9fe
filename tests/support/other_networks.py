"""Small torch networks that are no image classifiers: text, segmentation, several inputs, and one with a feature layer.

Each comes in two parts where a value inside is explained, so that autograd can be asked at that value.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

WORDS, LENGTH, WIDTH = 50, 8, 16


class TextClassifier(nn.Module):
    """A transformer block over word, position and type embeddings, with a mask, as BERT has; three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.word, self.kind = nn.Embedding(WORDS, WIDTH), nn.Embedding(2, WIDTH)
        self.position = nn.Parameter(torch.randn(LENGTH, WIDTH))
        self.norm, self.mix = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        return self.onward(self.word(input_ids), attention_mask, token_type_ids)

    def onward(self, words: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """The scores from the words' embeddings [N, L, D]."""
        h = self.norm(words + self.position + self.kind(token_type_ids))
        hidden = torch.where(attention_mask[:, None, None, :] > 0, 0.0, -1e9).to(words.dtype)
        q = h.reshape(h.shape[0], LENGTH, 4, WIDTH // 4).transpose(1, 2)
        attended = torch.softmax(q @ q.transpose(-1, -2) / 2 + hidden, -1) @ q
        h = h + self.mix(attended.transpose(1, 2).reshape(h.shape))
        return self.head(torch.tanh(h[:, 0]))


class Segmentation(nn.Module):
    """Five classes for every pixel, by way of half the resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 5, 3, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        small = self.second(F.silu(self.first(image)))
        return F.interpolate(small, size=image.shape[2:], mode="bilinear", align_corners=False)


class Boxes(nn.Module):
    """Six boxes of four numbers, which hold no classes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, 24)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(F.gelu(self.first(image)).mean((2, 3))).reshape(-1, 6, 4)


class PictureAndAge(nn.Module):
    """A classifier of a picture and five numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head, self.gate = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, 4), nn.Linear(5, 4)

    def forward(self, picture: Tensor, age: Tensor) -> Tensor:
        return self.head(F.gelu(self.first(picture)).mean((2, 3))) * torch.tanh(self.gate(age))


class TwoParts(nn.Module):
    """A classifier whose feature layer is named `relu` in the exported graph, a folded BatchNormalization before it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.second, self.last = nn.Conv2d(8, 6, 3, 2, 1), nn.Linear(6, 4)
        nn.init.uniform_(self.norm.running_var, 0.5, 2)
        nn.init.uniform_(self.norm.running_mean, -1, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.onward(self.features(image))

    def features(self, image: Tensor) -> Tensor:
        return F.relu(self.norm(self.first(image)))

    def onward(self, features: Tensor) -> Tensor:
        return self.last(F.silu(self.second(features)).mean((2, 3)))
