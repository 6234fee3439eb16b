"""What the vision-language prior is told, as token ids, and where images and queries stand among them (LaWAM spec 2.1).

One user turn: the main view, the instruction with eight placeholders for the latent-action queries, the other views,
and a request with eight placeholders for the action queries. In a causal network, latent queries so see the main view
and the instruction only. Prompts are padded on the right to a fixed length.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, Literal, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Int
from PIL import Image
from torch import Tensor
from wamkit_client.types import BadInput

from wamkit.bounds import AT_LEAST_1, Bound, check
from wamkit.io.hub import local
from wamkit.io.records import read_record
from wamkit.policies.lawam.patches import grid, patches
from wamkit.tree import Tree
from wamkit.types import DataSpec
from wamkit.wan.text import words_of

QUERIES = 8
"""Latent-action queries, and as many action queries."""

PLACEHOLDER = "<ACT_PH>"
IMAGE = "<|image_pad|>"
INSTRUCTION = "{INSTRUCTION}"

# required by the released weights
MOTION = (
    f"Your task is {INSTRUCTION}.\n\nFrom main-view observations, infer the robot arm's motion.\n"
    + " ".join([PLACEHOLDER] * QUERIES)
)
ACTIONS = "Then use observations and the inferred motion to produce the robot policy actions.\n" + " ".join(
    [PLACEHOLDER] * QUERIES
)


class Prompt(Protocol):
    """Instructions -> tokens."""

    @property
    def fingerprint(self) -> str:
        """Everything the tokens depend on."""

    def encode(self, instructions: Sequence[str]) -> Tree:
        """Of b instructions, on the CPU, int64: "tokens" [b l]; "image_at" [b v*n], "latent_at" and "action_at" [b 8]:
        places of the views' tokens, in the order of the views, and of the queries; "length" [b]: of each prompt.

        Raises BadInput for an instruction whose prompt is longer than l.
        """

    def text(self, instruction: str) -> str:
        """What is tokenised, with one mark for each image."""

    def pieces(self, instruction: str) -> tuple[str, ...]:
        """Its tokens as text, one for each image."""


@dataclass(frozen=True)
class QwenPromptConfig:
    """Qwen3-VL's tokenizer, chat template and processor; path: a folder in transformers' layout.

    motion, actions: the text behind the main view, with {INSTRUCTION} in it, and that behind the other views, each
    with eight placeholders. length: tokens of a prompt with padding. pixels: side of the square of a view that is one
    token. vocabulary: rows of the prior's token embedding.
    """

    path: str = "weights/Qwen3-VL-2B-Instruct"
    motion: str = MOTION
    actions: str = ACTIONS
    length: int = 320
    pixels: int = 32
    vocabulary: int = 151_936
    kind: Literal["qwen"] = "qwen"

    def __post_init__(self) -> None:
        with_queries = Bound(
            f"{QUERIES} times {PLACEHOLDER}", lambda text: text.count(PLACEHOLDER) == QUERIES
        )
        check("policy.prompt", self, {"motion": with_queries, "actions": with_queries, **SIZES})
        if self.motion.count(INSTRUCTION) != 1:
            raise BadInput(f"policy.prompt.motion: expected {INSTRUCTION} in it once, got {self.motion!r}")

    def load(self, data: DataSpec) -> QwenPrompt:
        """With the folder's files. BadInput where one is missing, or its processor does not fit the views."""
        prompt = QwenPrompt(self, Layout.of(data, self.pixels), data)
        prompt.expect_tokens()
        prompt.expect_processor()
        return prompt


@dataclass(frozen=True)
class HashedPromptConfig:
    """Words hashed into a small vocabulary, in the same structure, without any files.

    length: tokens of a prompt with padding. pixels: side of the square of a view that is one token. vocabulary: rows of
    the prior's token embedding.
    """

    length: int = 64
    pixels: int = 16
    vocabulary: int = 1024
    kind: Literal["hashed"] = "hashed"

    def __post_init__(self) -> None:
        check("policy.prompt", self, SIZES)

    def load(self, data: DataSpec) -> HashedPrompt:
        """There are no files."""
        return HashedPrompt(self, Layout.of(data, self.pixels))


SIZES = {
    "length": AT_LEAST_1,
    "pixels": AT_LEAST_1,
    "vocabulary": Bound("at least 16", lambda rows: rows >= 16),
}
PromptConfig = QwenPromptConfig | HashedPromptConfig


@dataclass(frozen=True)
class Layout:
    """views: how many. tokens: of each."""

    views: int
    tokens: int

    @classmethod
    def of(cls, data: DataSpec, pixels: int) -> Layout:
        """BadInput where squares of `pixels` do not cover a view."""
        rows, columns = grid(data.view_height, data.view_width, pixels, "policy.prompt.pixels")
        return cls(len(data.views), rows * columns)


class QwenPrompt:
    """See QwenPromptConfig. Its parts are read at their first use."""

    def __init__(self, config: QwenPromptConfig, layout: Layout, data: DataSpec) -> None:
        self.config, self.layout, self.data = config, layout, data
        self.folder = local(config.path)
        if not self.folder.is_dir():
            raise BadInput(
                f"{self.folder}: no such folder; expected Qwen3-VL's tokenizer and processor. Download them with "
                f"`hf download Qwen/Qwen3-VL-2B-Instruct --local-dir {self.folder}`"
            )

    @cached_property
    def tokenizer(self) -> Any:
        """Its tokenizer and the placeholder, which takes the next free id."""
        from transformers import AddedToken, AutoTokenizer

        tokenizer = self._read(AutoTokenizer, "tokenizer")
        tokenizer.add_tokens([AddedToken(PLACEHOLDER, special=True, normalized=False)], special_tokens=True)
        return tokenizer

    @cached_property
    def template(self) -> str:
        """The chat template: the processor's, else the tokenizer's."""
        jinja, older = self.folder / "chat_template.jinja", self.folder / "chat_template.json"
        if jinja.is_file():
            return jinja.read_text()
        template = self.tokenizer.chat_template
        if older.is_file():
            template = read_record(older, dict, "download it again").get("chat_template")
        if not isinstance(template, str):
            raise BadInput(
                f"{self.folder}: no chat template; expected chat_template.jinja, chat_template.json, or one in "
                "tokenizer_config.json; download the folder again"
            )
        return template

    @property
    def fingerprint(self) -> str:
        """Tokenizer, template, texts and layout."""
        sha = hashlib.sha256(repr((self.template, self.config.motion, self.config.actions)).encode())
        for name in ("tokenizer.json", "vocab.json", "merges.txt"):
            if (self.folder / name).is_file():
                sha.update((self.folder / name).read_bytes())
        return f"qwen:{sha.hexdigest()[:16]}:{self.config.length}:{self.layout.views}x{self.layout.tokens}"

    def text(self, instruction: str) -> str:
        """See Prompt."""
        image, others = {"type": "image"}, self.layout.views - 1
        motion = self.config.motion.replace(INSTRUCTION, instruction)
        content = [
            image,
            {"type": "text", "text": motion},
            *[image] * others,
            {"type": "text", "text": self.config.actions},
        ]
        turn: str = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}],
            chat_template=self.template,
            tokenize=False,
            add_generation_prompt=True,
        )
        return turn

    def pieces(self, instruction: str) -> tuple[str, ...]:
        """See Prompt."""
        return tuple(self.tokenizer.convert_ids_to_tokens(self.tokenizer(self.text(instruction)).input_ids))

    def encode(self, instructions: Sequence[str]) -> Tree:
        """See Prompt."""
        images = IMAGE * self.layout.tokens
        ids = [self.tokenizer(self.text(told).replace(IMAGE, images)).input_ids for told in instructions]
        image, placeholder = self.tokenizer.convert_tokens_to_ids([IMAGE, PLACEHOLDER])
        return prompts(instructions, ids, image, placeholder, self.layout, self.config.length)

    def expect_tokens(self) -> None:
        """BadInput where tokens or template are not Qwen3-VL's, or an id has no row in the embedding."""
        for token in (IMAGE, PLACEHOLDER):
            found = self.tokenizer(token, add_special_tokens=False).input_ids
            if found != [self.tokenizer.convert_tokens_to_ids(token)]:
                raise BadInput(
                    f"{self.folder}: {token} is not one token of its tokenizer; it is another model's"
                )
        if len(self.tokenizer) > self.config.vocabulary:
            raise BadInput(
                f"{self.folder}: its tokenizer has {len(self.tokenizer)} tokens with {PLACEHOLDER}, and the prior's "
                f"embedding {self.config.vocabulary} rows (policy.prompt.vocabulary)"
            )
        self.encode(["move"])  # the template has all of it

    def expect_processor(self) -> None:
        """BadInput where its processor makes other numbers of a view than `patches` does."""
        from transformers import AutoImageProcessor

        processor = self._read(AutoImageProcessor, "processor")
        height, width = self.data.view_height, self.data.view_width
        noise = np.random.default_rng(0).integers(256, size=(height, width, 3), dtype=np.uint8)
        made = processor(images=[Image.fromarray(noise)], return_tensors="pt")
        patch, merge = self.config.pixels // processor.merge_size, processor.merge_size
        expected = [1, height // patch, width // patch]
        found = made["image_grid_thw"][0].tolist()
        own = patches(torch.from_numpy(noise)[None], patch, merge)[0]
        if found != expected or made["pixel_values"].shape != own.shape:
            raise BadInput(
                f"{self.folder}: its processor makes a grid of {'x'.join(map(str, found))} of a {height}x{width} view, "
                f"expected {'x'.join(map(str, expected))}; use Qwen3-VL's with its defaults, and views of 256x256"
            )
        if not torch.allclose(made["pixel_values"], own, atol=1e-5):
            raise BadInput(f"{self.folder}: its processor normalizes images otherwise than Qwen3-VL's does")

    def _read(self, kind: Any, what: str) -> Any:
        try:
            return kind.from_pretrained(self.folder, local_files_only=True)
        except (OSError, ValueError, ImportError) as error:
            reason = str(error).splitlines()[0]
            raise BadInput(
                f"{self.folder}: its {what} cannot be read ({reason}); download it again"
            ) from None


class HashedPrompt:
    """See HashedPromptConfig. Ids: 0 padding, 1 of an image, 2 placeholder, 3 end of the instruction, then words."""

    PADDING, IMAGE, PLACEHOLDER, END, FIRST = range(5)

    def __init__(self, config: HashedPromptConfig, layout: Layout) -> None:
        self.config, self.layout = config, layout

    @property
    def fingerprint(self) -> str:
        """All there is."""
        config, layout = self.config, self.layout
        return f"hashed-prompt:{config.vocabulary}:{config.length}:{layout.views}x{layout.tokens}"

    def encode(self, instructions: Sequence[str]) -> Tree:
        """See Prompt. Raises BadInput for an instruction without words, too."""
        ids = [self._ids(instruction) for instruction in instructions]
        return prompts(instructions, ids, self.IMAGE, self.PLACEHOLDER, self.layout, self.config.length)

    def text(self, instruction: str) -> str:
        """See Prompt."""
        return instruction

    def pieces(self, instruction: str) -> tuple[str, ...]:
        """See Prompt; the words alone."""
        return tuple(words_of(instruction))

    def _ids(self, instruction: str) -> list[int]:
        words = words_of(instruction)
        if not words:
            raise BadInput(f"instruction {instruction!r} has no words")
        view, queries = [self.IMAGE] * self.layout.tokens, [self.PLACEHOLDER] * QUERIES
        said = [self._id(word) for word in words]
        return [*view, *said, self.END, *queries, *view * (self.layout.views - 1), *queries]

    def _id(self, word: str) -> int:
        number = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little")
        return self.FIRST + number % (self.config.vocabulary - self.FIRST)


def prompts(
    instructions: Sequence[str],
    ids: Sequence[Sequence[int]],
    image: int,
    placeholder: int,
    layout: Layout,
    length: int,
) -> Tree:
    """Prompts of any lengths as `Prompt.encode` returns them; image, placeholder: the ids of these tokens."""
    for instruction, row in zip(instructions, ids, strict=True):
        if len(row) > length:
            raise BadInput(
                f"instruction {instruction!r}: its prompt has {len(row)} tokens, and policy.prompt.length is {length}; "
                "reword it, or train with a larger length"
            )
        found = row.count(image), row.count(placeholder)
        if found != (layout.views * layout.tokens, 2 * QUERIES):
            raise BadInput(
                f"instruction {instruction!r}: its prompt has {found[0]} image tokens and {found[1]} placeholders, "
                f"expected {layout.views * layout.tokens} and {2 * QUERIES}; it must not name such tokens"
            )
    tokens = torch.zeros(len(ids), length, dtype=torch.int64)
    for row, own in zip(tokens, ids, strict=True):
        row[: len(own)] = torch.tensor(own)
    inside = torch.arange(length) < torch.tensor([len(row) for row in ids])[:, None]
    latent, action = placeholders(tokens.where(inside, -1), placeholder, (QUERIES, QUERIES))
    return {
        "tokens": tokens,
        "image_at": places((tokens == image) & inside),
        "latent_at": places(latent),
        "action_at": places(action),
        "length": inside.sum(dim=1),
    }


def placeholders(
    ids: Int[Tensor, "b l"], placeholder: int, counts: Sequence[int]
) -> tuple[Bool[Tensor, "b l"], ...]:
    """Masks of the first counts[0] placeholders of every row, of the next counts[1], and so on."""
    found = ids == placeholder
    order = found.cumsum(dim=1)
    ends = np.cumsum([0, *counts]).tolist()
    return tuple(found & (order > first) & (order <= last) for first, last in pairwise(ends))


def places(mask: Bool[Tensor, "b l"]) -> Int[Tensor, "b n"]:
    """Where a mask is True, which is so equally often in every row."""
    return mask.nonzero()[:, 1].reshape(len(mask), -1)


def example(config: PromptConfig, data: DataSpec, batch: int) -> Tree:
    """In the shapes of what `Prompt.encode` returns: nothing but images and queries, in this order."""
    layout = Layout.of(data, config.pixels)
    rows = {"image_at": layout.views * layout.tokens, "latent_at": QUERIES, "action_at": QUERIES}
    *starts, length = accumulate(rows.values(), initial=0)
    places = {
        name: (first + torch.arange(rows[name])).expand(batch, -1)
        for name, first in zip(rows, starts, strict=True)
    }
    return {
        "tokens": torch.zeros(batch, config.length, dtype=torch.int64),
        **places,
        "length": torch.full((batch,), length),
    }
