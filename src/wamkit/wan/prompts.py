"""What a text encoder makes of instructions, as far as it can be told on this machine.

Weights that are not there are no error here; it says which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from wamkit_client.types import BadInput

from wamkit.io.hub import local
from wamkit.wan.encoders import (
    HashedTextConfig,
    StoredTextConfig,
    TextConfig,
    UMT5Config,
    build_text,
)
from wamkit.wan.text import HashedText, words_of
from wamkit.wan.umt5 import TOKENIZER_FOLDER, StoredText, UMT5Text, clean, prompt

PROMPTS = 12
"""Instructions that are listed."""


@dataclass(frozen=True)
class Prompt:
    """What a text encoder makes of an instruction.

    prompt: the exact sentence. tokens: the pieces it is cut into, in order; none where they are not known here.
    used: context rows that are not padding; 0 where not known. rows: all rows. problem: "" where there is none.
    """

    instruction: str
    prompt: str
    tokens: tuple[str, ...]
    used: int
    rows: int
    problem: str


def prompts_of(config: TextConfig, instructions: Sequence[str]) -> tuple[Prompt, ...]:
    """Of at most PROMPTS instructions: those that cannot be encoded first, then the longest, which fit the least.

    Raises BadInput for an instruction that is no prompt.
    """
    shown = sorted(instructions, key=lambda text: (_is_stored(config, text), -len(text)))[:PROMPTS]
    return tuple(_prompt(config, text) for text in instructions if text in shown)


def _prompt(config: TextConfig, instruction: str) -> Prompt:
    try:
        sentence, tokens = _words(config, instruction)
        used = min(len(tokens), config.length)
        if not isinstance(config, UMT5Config) or _is_stored(config, instruction):
            used = int(build_text(config).encode([instruction])[0].any(dim=1).sum())
    except BadInput as error:
        return Prompt(instruction, "", (), 0, config.length, str(error))
    cut = f"{len(tokens)} tokens, of which the encoder takes {config.length}; reword it"
    problem = cut if len(tokens) > config.length else ""
    return Prompt(instruction, sentence, tokens, used, config.length, problem)


def _words(config: TextConfig, instruction: str) -> tuple[str, tuple[str, ...]]:
    """The sentence that is encoded, and its tokens."""
    match config:
        case HashedTextConfig():
            return instruction, (*words_of(instruction), HashedText.END)
        case StoredTextConfig():
            return prompt(instruction), ()
        case UMT5Config():
            sentence, folder = clean(prompt(instruction)), _tokenizer_folder(config)
            return sentence, _tokens(folder, sentence) if folder.is_dir() else ()


def _is_stored(config: TextConfig, instruction: str) -> bool:
    match config:
        case HashedTextConfig():
            return False
        case StoredTextConfig(path=folder) | UMT5Config(stored=folder):
            return StoredText(folder, length=config.length).file(instruction).is_file()


def _tokenizer_folder(config: UMT5Config) -> Path:
    """The tokenizer is small and may be there without the encoder."""
    folder = local(config.path)
    official, diffusers = folder / TOKENIZER_FOLDER, folder / "tokenizer"
    return official if official.is_dir() else diffusers


def _tokens(folder: Path, sentence: str) -> tuple[str, ...]:
    tokenizer = _tokenizer(folder)
    return tuple(tokenizer.convert_ids_to_tokens(tokenizer(sentence).input_ids))


@lru_cache(maxsize=1)
def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def why_no_tokens(config: TextConfig) -> str:
    """Why tokens are not known; "" where they are."""
    match config:
        case StoredTextConfig():
            return "stored rows do not say which tokens they were made of"
        case UMT5Config(path=path) if not _tokenizer_folder(config).is_dir():
            return f"there is no tokenizer in {path} (docs/weights.md)"
    return ""


def why_no_text(config: TextConfig, prompts: Sequence[Prompt]) -> str:
    """Why not all of these instructions can be encoded; "" where they can."""
    if any(prompt.problem and not prompt.used for prompt in prompts):
        return "not every instruction can be encoded (see Instructions)"
    if isinstance(config, UMT5Config) and not all(_is_stored(config, p.instruction) for p in prompts):
        try:
            _ = UMT5Text(config.path, StoredText(config.stored)).tokenizer  # there where the encoder is
        except BadInput as error:
            return str(error)
    return ""
