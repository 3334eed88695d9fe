"""TrainerWatch: the Trainer of transformers trains as without it, and each epoch is seen once."""
# ruff: noqa: ARG002 (the Trainer's signatures)

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import PretrainedConfig, PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.modeling_outputs import ImageClassifierOutput

from onnxplain import Explainer
from onnxplain.errors import ParameterError
from onnxplain.tracking import LabelTracker
from onnxplain_export import export
from onnxplain_export.callbacks import TrainerWatch
from watched_training import (  # noqa: F401 (fixtures)
    BATCH,
    EPOCHS,
    IMAGES,
    LABELS,
    MEASURED,
    TRAINED,
    X,
    Y,
    assert_followed,
    assert_same_maps,
    cross_entropies,
    histories,
    kill_if_due,
    network,
    one_thread,
    quick_exports,
    quickly,
    run_killed,
    trackers,
)


class Digits(PreTrainedModel):
    """The network as models of transformers are: it returns a loss and logits by name."""

    config_class = PretrainedConfig
    main_input_name = "pixel_values"

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(config)
        self.network = network()
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        pass

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> ImageClassifierOutput:
        logits = self.network(pixel_values)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return ImageClassifierOutput(loss=loss, logits=logits)


class Diverge(TrainerCallback):
    """Breaks the network after its first epoch."""

    def on_epoch_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.epoch:
            model.network[0].weight.data.fill_(torch.nan)


class Each(TrainerCallback):
    """Keeps the network after each epoch, and ends a training that is to be killed."""

    def __init__(self) -> None:
        self.networks: dict[int, nn.Module] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        steps = TRAINED.stop // BATCH
        kill_if_due(state.global_step // steps + 1, state.global_step % steps)

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.networks[round(state.epoch)] = copy.deepcopy(model.network)


def rows(part: slice) -> list[dict[str, Any]]:
    return [{"pixel_values": image, "labels": label} for image, label in zip(IMAGES[part], LABELS[part], strict=True)]


def fit(folder: Path, *added: TrainerCallback, resume: bool = False, **options: Any) -> Any:
    arguments = TrainingArguments(
        str(folder),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=BATCH,
        learning_rate=1e-2,
        save_strategy="epoch" if resume else "no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        seed=5,
        dataloader_pin_memory=False,
        **options,
    )
    trainer = Trainer(Digits(PretrainedConfig()), arguments, train_dataset=rows(TRAINED), callbacks=list(added))
    trainer.train(resume_from_checkpoint=True if resume and list(folder.glob("checkpoint-*")) else None)
    return trainer


def ended(trainer: Any) -> list[torch.Tensor]:
    moments = [each["exp_avg_sq"] for each in trainer.optimizer.state.values()]
    return [*trainer.model.state_dict().values(), *moments, torch.rand(3)]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainerWatch, list[torch.Tensor], Each]:
    folder = tmp_path_factory.mktemp("trainer")
    data = DataLoader(rows(MEASURED), 25)
    watching, each = TrainerWatch(folder / "net.explain", data=data, **trackers()), Each()
    return watching, ended(fit(folder, watching, each)), each


def test_the_training_is_the_same_bit_for_bit(watched: Any, tmp_path: Path) -> None:
    for with_it, without in zip(watched[1], ended(fit(tmp_path)), strict=True):
        assert torch.equal(with_it, without)


def test_what_is_recorded_is_torchs_own_cross_entropy(watched: Any) -> None:
    assert list(watched[2].networks) == [1, 2, 3]
    for epoch, trained in watched[2].networks.items():
        assert_followed(watched[0].watch, epoch, cross_entropies(copy.deepcopy(trained)))


def test_the_maps_are_those_of_a_new_export(watched: Any, tmp_path: Path) -> None:
    methods = ["gradient", "smoothgrad"]
    fresh = export(watched[2].networks[EPOCHS], tmp_path / "fresh.explain", example=X[:1], methods=methods)
    assert_same_maps(watched[0].watch, Explainer(fresh, "cpu"))


def resumed(folder: Path) -> Any:
    """A training with the Trainer's own checkpoints, which goes on from the last."""
    data = DataLoader(rows(MEASURED), 25)
    watching = TrainerWatch(folder / "net.explain", data=data, state=folder / "state", **trackers())
    with quick_exports():
        fit(folder, watching, Each(), resume=True)
    return watching.watch


def test_a_killed_training_goes_on_with_nothing_lost_or_doubled(watched: Any, tmp_path: Path) -> None:
    run_killed(__file__, tmp_path)
    assert (tmp_path / "checkpoint-10").exists()
    assert not (tmp_path / "checkpoint-15").exists()
    assert histories(resumed(tmp_path)) == histories(watched[0].watch)


@pytest.mark.usefixtures("quickly")
def test_a_network_that_diverges_is_told_once_and_trains_on(tmp_path: Path) -> None:
    watching = TrainerWatch(tmp_path / "n", data=(X, Y), labels=LabelTracker("cross_entropy"))
    with pytest.warns(UserWarning, match="epoch 2: no bundle, but training goes on: .* NaN") as told:
        trainer = fit(tmp_path, Diverge(), watching, max_grad_norm=0.0)
    assert len([one for one in told if "training goes on" in str(one.message)]) == 1
    assert (trainer.state.epoch, watching.watch.epochs) == (EPOCHS, {"eval": EPOCHS})
    assert watching.watch.labels.steps() == [1]


@pytest.mark.filterwarnings("ignore:.*was given no values")
def test_an_epoch_that_max_steps_breaks_off_counts(tmp_path: Path) -> None:
    watching = TrainerWatch(tmp_path / "n", labels=LabelTracker("loss"))
    fit(tmp_path, watching, max_steps=7)
    assert watching.watch.epochs == {"eval": 2}


def test_wrong_arguments_are_errors_at_once(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="there is nothing to watch with"):
        TrainerWatch(tmp_path / "n", data=(X, Y))
    with pytest.raises(ParameterError, match="unknown option 'exampel'; did you mean"):
        TrainerWatch(tmp_path / "n", exampel=X[:1], labels=LabelTracker("loss"))


if __name__ == "__main__":
    resumed(Path(sys.argv[1]))
