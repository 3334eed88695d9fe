"""Watch as a callback of Keras."""
# ruff: noqa: ARG002 (Keras' signatures)

from typing import Any

import keras

from onnxplain_export.callbacks.watching import Watch


class KerasWatch(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Watches the model that `fit` trains. In the list it comes before callbacks that store checkpoints.

    `options` are Watch's; `self.watch` is there for the values of one's own train_step.
    """

    def __init__(self, bundle: Any, **options: Any) -> None:
        super().__init__()
        self.watch = Watch(None, bundle, **options)

    def on_train_begin(self, logs: Any = None) -> None:
        self.watch.model = self.model

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.watch.epoch_end(epoch + 1)

    def on_train_end(self, logs: Any = None) -> None:
        self.watch.train_end()
