"""Watch as a callback of the Trainer of transformers."""
# ruff: noqa: ARG002 (the Trainer's signatures)

import math
from typing import Any

from transformers import TrainerCallback

from onnxplain_export.callbacks.watching import Watch


class TrainerWatch(TrainerCallback):
    """Watches the model that a Trainer trains, by its output "logits" unless score_output= names another.

    `options` are Watch's. An epoch ends for it before it is evaluated and before a checkpoint is stored.
    """

    def __init__(self, bundle: Any, **options: Any) -> None:
        self.watch = Watch(None, bundle, **{"score_output": "logits", **options})

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.watch.model = model

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # A share of an epoch, where max_steps ends it early.
        self.watch.epoch_end(max(1, math.ceil(state.epoch - 1e-6)))

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.watch.train_end()
