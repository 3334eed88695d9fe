"""Watch as a callback of Lightning's Trainer."""
# ruff: noqa: ARG002 (Lightning's signatures)

from collections.abc import Mapping
from typing import Any

from onnxplain.errors import ParameterError, unknown
from onnxplain_export.callbacks.watching import Watch

try:
    from lightning.pytorch import Callback
except ModuleNotFoundError:
    # The same under its older name; a Trainer of the one takes callbacks of the other.
    from pytorch_lightning import Callback  # type: ignore[assignment]


class LightningWatch(Callback):
    """Watches the module that a Lightning Trainer fits, or its part `network`, by an attribute's name.

    Epochs end for it after the last validation of an epoch, or after the epoch's training where there is none. Without
    data=, the validation's (images, labels) batches are handed to `self.watch`, and where validation_step returns
    {"values": …} with a number for each sample, and "indices" perhaps, those too. `options` are Watch's.
    """

    def __init__(self, bundle: Any, *, network: str = "", **options: Any) -> None:
        super().__init__()
        self.watch = Watch(None, bundle, **options)
        self._network, self._ended = network, -1

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        parts = dict(pl_module.named_modules())
        if self._network not in parts:
            raise ParameterError(unknown(f"part of {type(pl_module).__name__}", self._network, parts))
        self.watch.model = parts[self._network]
        if self.watch.example is None and not self._network:
            self.watch.example = pl_module.example_input_array

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if _is_fitting(trainer) and self.watch.data is None:
            self.watch.epoch_begin()

    def on_validation_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        known = isinstance(batch, tuple | list) and len(batch) == 2 and not dataloader_idx
        if not known or self.watch.data is not None or not _is_fitting(trainer):
            return
        given = outputs if isinstance(outputs, Mapping) else {}
        with self.watch.training_goes_on("a batch isn't kept", trainer.current_epoch + 1):
            self.watch.batch(batch[0], batch[1], given.get("values"), given.get("indices"))

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if _is_fitting(trainer) and trainer.is_last_batch:
            self._end(trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if self._ended != trainer.current_epoch:
            self._end(trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.watch.train_end()

    def _end(self, trainer: Any) -> None:
        self._ended = trainer.current_epoch
        self.watch.epoch_end(trainer.current_epoch + 1)


def _is_fitting(trainer: Any) -> bool:
    """Whether a validation is one of a training, and not the check before it."""
    return trainer.state.fn == "fit" and not trainer.sanity_checking
