"""Networks of transformers, in small configurations: name → class of the network, entries of its configuration."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from coverage_networks.case import SEED, images, tokens
from coverage_networks.torchvision_networks import import_torchvision

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
PICTURE = {"image_size": 32, "patch_size": 8}
STAGES = {"hidden_sizes": [16, 24, 32, 48], "depths": [2, 2, 2, 2]}
SWIN = {**PICTURE, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
SEGFORMER = {"hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 2, 2, 4], "decoder_hidden_size": 32}
POOLFORMER = {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 1, 1]}
MOBILEVIT = {"image_size": 64, "hidden_sizes": [32, 40, 48], "neck_hidden_sizes": [8, 16, 24, 32, 40, 48, 64]}
MOBILEVIT |= {"initializer_range": 0.2}
WORDS = {"vocab_size": 120, "max_position_embeddings": 64, "pad_token_id": 1}
SPEECH = {**SMALL, "conv_dim": [16, 16, 16], "conv_kernel": [10, 3, 3], "conv_stride": [5, 2, 2]}
SPEECH |= {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "classifier_proj_size": 16}

PICTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "beit": ("BeitForImageClassification", {**SMALL, **PICTURE, "use_relative_position_bias": True}),
    "clip": ("CLIPForImageClassification", {"vision_config": {**SMALL, **PICTURE}}),
    "convnext": ("ConvNextForImageClassification", STAGES),
    "convnextv2": ("ConvNextV2ForImageClassification", STAGES),
    "deit": ("DeiTForImageClassification", {**SMALL, **PICTURE}),
    "dinov2": ("Dinov2ForImageClassification", {**SMALL, **PICTURE, "mlp_ratio": 2}),
    "efficientnet": (
        "EfficientNetForImageClassification",
        {"width_coefficient": 0.5, "hidden_dim": 640, "initializer_range": 0.2},
    ),
    "mobilevit": ("MobileViTForImageClassification", MOBILEVIT),
    "poolformer": ("PoolFormerForImageClassification", POOLFORMER),
    "regnet": ("RegNetForImageClassification", {**STAGES, "groups_width": 8}),
    "resnet": ("ResNetForImageClassification", STAGES),
    "segformer": ("SegformerForImageClassification", SEGFORMER),
    "siglip": ("SiglipForImageClassification", {"vision_config": {**SMALL, **PICTURE}}),
    "swin": ("SwinForImageClassification", SWIN),
    "swinv2": ("Swinv2ForImageClassification", SWIN),
    "vit": ("ViTForImageClassification", {**SMALL, **PICTURE}),
}
SEGMENTATION = {
    "segformer_segmentation": ("SegformerForSemanticSegmentation", SEGFORMER),
}
TEXTS: dict[str, tuple[str, dict[str, Any]]] = {
    "albert": ("AlbertForSequenceClassification", {**SMALL, **WORDS, "embedding_size": 16}),
    "bert": ("BertForSequenceClassification", {**SMALL, **WORDS}),
    "deberta": ("DebertaForSequenceClassification", {**SMALL, **WORDS}),
    "distilbert": (
        "DistilBertForSequenceClassification",
        {**WORDS, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
    ),
    "electra": ("ElectraForSequenceClassification", {**SMALL, **WORDS, "embedding_size": 32}),
    "gpt2": ("GPT2ForSequenceClassification", {**WORDS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    "llama": ("LlamaForSequenceClassification", {**SMALL, **WORDS, "num_key_value_heads": 2}),
    "roberta": ("RobertaForSequenceClassification", {**SMALL, **WORDS}),
}
SOUNDS: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "ast": (
        "ASTForAudioClassification",
        {**SMALL, "num_mel_bins": 32, "max_length": 64, "patch_size": 8, "frequency_stride": 8, "time_stride": 8},
        (64, 32),
    ),
    "hubert": ("HubertForSequenceClassification", SPEECH, (2000,)),
    "wav2vec2": ("Wav2Vec2ForSequenceClassification", SPEECH, (2000,)),
}
ARCHITECTURES = [*PICTURES, *SEGMENTATION, *TEXTS, *SOUNDS]
ENVIRONMENT = "torch"
WORDS_IN_A_TEXT = 12


def build(name: str, folder: Path) -> None:
    """Builds one of them, with five classes."""
    from coverage_networks import torch_case  # torch is only in this source's own environment

    torch_case.torch.manual_seed(SEED)
    if name in TEXTS:
        network = _text(*TEXTS[name])
    elif name in SOUNDS:
        class_name, settings, shape = SOUNDS[name]
        network = _network(class_name, settings, {"input_values": images(shape)})
    else:
        class_name, settings = (PICTURES | SEGMENTATION)[name]
        side = settings.get("image_size", 32 if "vision_config" in settings else 64)
        pixels = {"pixel_values": images((3, side, side))}
        network = _network(class_name, settings, pixels, classifies=name in PICTURES)
    torch_case.finish(network, folder, ["transformers"])


def _text(class_name: str, settings: Mapping[str, Any]) -> Any:
    """A network that reads words, explained at its table of word vectors; the last text is shorter than the others."""
    from coverage_networks import torch_case

    words = tokens(WORDS_IN_A_TEXT, WORDS["vocab_size"])
    present = np.ones_like(words)
    words[-1, -3:], present[-1, -3:] = WORDS["pad_token_id"], 0
    network = _network(class_name, settings, {"input_ids": words, "attention_mask": present})
    embedding = network.module.module.get_input_embeddings()
    return torch_case.TorchNetwork(network.module, network.inputs, embedding=embedding)


def _network(class_name: str, settings: Mapping[str, Any], inputs: Mapping[str, Any], classifies: bool = True) -> Any:
    """A network with random weights whose logits are explained."""
    from coverage_networks import torch_case

    import_torchvision()  # transformers imports it where it is installed
    import transformers

    maker = getattr(transformers, class_name)
    module = maker(maker.config_class(**settings, num_labels=5))
    return torch_case.TorchNetwork(torch_case.Entry(module, "logits", list(inputs)), inputs, classifies)
