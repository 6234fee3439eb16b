"""A Qwen3-VL of a few thousand weights, with a real tokenizer, chat template and image processor, in a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from wamkit.policies.lawam.prior import PriorSize
from wamkit.policies.lawam.prompt import QwenPromptConfig

MARKS = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
TEMPLATE = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}"
    "{%- for part in message.content %}"
    "{%- if part.type == 'image' %}{{- '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{%- else %}{{- part.text }}{%- endif %}"
    "{%- endfor %}{{- '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
"""In the structure of Qwen3-VL's: turns between marks, images where they stand in the content."""

SIZE = PriorSize(
    width=32,
    layers=3,
    heads=4,
    kv_heads=2,
    head_dim=16,
    ffn=48,
    vocabulary=320,
    rope_base=5e6,
    vision_width=24,
    vision_blocks=4,
    vision_heads=3,
    vision_ffn=40,
    vision_taps=(0, 2),
    position_side=6,
    patch=16,
)
"""Cut after 3 of the folder's 5 text layers."""


def tiny_prompt(folder: Path) -> QwenPromptConfig:
    """Of a folder that `tiny_qwen` wrote."""
    return QwenPromptConfig(str(folder), vocabulary=SIZE.vocabulary)


def tiny_qwen(folder: Path) -> Qwen3VLForConditionalGeneration:
    """Writes the folder; nothing in the model is zero."""
    model = Qwen3VLForConditionalGeneration(qwen_config(replace(SIZE, layers=5))).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    tiny_processor(folder)
    return model


def qwen_config(size: PriorSize) -> Qwen3VLConfig:
    """transformers' config of that size."""
    text = {
        "hidden_size": size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "head_dim": size.head_dim,
        "intermediate_size": size.ffn,
        "vocab_size": size.vocabulary,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": size.rope_base,
            "mrope_section": [4, 2, 2],
            "mrope_interleaved": True,
        },
    }
    vision = {
        "hidden_size": size.vision_width,
        "depth": size.vision_blocks,
        "num_heads": size.vision_heads,
        "intermediate_size": size.vision_ffn,
        "patch_size": size.patch,
        "spatial_merge_size": size.merge,
        "out_hidden_size": size.width,
        "num_position_embeddings": size.position_side**2,
        "deepstack_visual_indexes": list(size.vision_taps),
    }
    return Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True)


def tiny_processor(folder: Path, **changes: object) -> None:
    """Tokenizer, chat template and image processor; changes: of the latter's settings."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=290, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["Your task is to open the drawer and to push the button"] * 3, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=TEMPLATE)
    fast.add_tokens(list(MARKS), special_tokens=True)
    fast.save_pretrained(folder)
    settings = {
        "patch_size": 16,
        "merge_size": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "size": {"shortest_edge": 65536, "longest_edge": 16777216},
    }
    Qwen2VLImageProcessorPil(**(settings | changes)).save_pretrained(folder)
