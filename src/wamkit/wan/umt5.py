"""The text encoder UMT5-XXL, and the folder of stored rows that it fills and that replaces it.

A prompt is encoded once in the life of such a folder; the 5.7 B encoder is loaded only for a prompt that is not there.
The prompt, its cleaning, padding and file names are those of the released weights and caches (Light-WAM spec 1.9, 3.4;
Fast-WAM spec 4.1). Same interface as `text.py`: `fingerprint` and `encode(instructions) -> [b, length, width]` float32;
rows past the prompt are zero and stay visible to the network.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from wamkit_client.types import BadInput

from wamkit.io.files import replace_file
from wamkit.io.hub import local
from wamkit.io.progress import bar
from wamkit.io.tensors import digest, load_strict, read_tensors

PROMPT = "A video recorded from a robot's point of view executing the following instruction: {task}"
LENGTH = 128
OFFICIAL_FILE = "models_t5_umt5-xxl-enc-bf16.pth"
TOKENIZER_FOLDER = "google/umt5-xxl"
DOWNLOADS = ("wan21t2v13b", "wan22ti2v5b")  # in names of stored rows: which download the encoder came with


def prompt(instruction: str) -> str:
    """The exact sentence that Light-WAM encodes; of an instruction with `@`, the part after it.

    Raises BadInput for an empty instruction or several `@`: which part would be meant is not specified.
    """
    task = instruction.partition("@")[2] if "@" in instruction else instruction
    if not task.strip() or "@" in task:
        raise BadInput(f"instruction {instruction!r}: expected words, with at most one `@` before them")
    return PROMPT.format(task=task)


def clean(text: str) -> str:
    """Wan's cleaning: mojibake repaired, HTML unescaped twice, white space collapsed."""
    import ftfy

    return re.sub(r"\s+", " ", html.unescape(html.unescape(ftfy.fix_text(text)))).strip()


class UMT5Text:
    """UMT5-XXL (5.7 B parameters) through transformers, in the file's own precision; its rows are kept in `stored`.

    folder: Wan-AI/Wan2.1-T2V-1.3B or Wan2.2-TI2V-5B as downloaded (`models_t5_umt5-xxl-enc-bf16.pth`,
    `google/umt5-xxl/`) or a diffusers folder (`text_encoder/`, `tokenizer/`); need not exist where every prompt is
    stored. Not a module: it is no part of a policy's parameters.
    Its first use raises BadInput when a file is missing, truncated or of another model.
    """

    def __init__(self, folder: str | Path, stored: StoredText) -> None:
        self._named, self.stored = folder, stored

    @cached_property
    def folder(self) -> Path:
        """Where it lies on this machine."""
        return local(self._named)

    @cached_property
    def model(self) -> Any:
        """transformers' UMT5EncoderModel, frozen, on the CPU."""
        from transformers import UMT5Config, UMT5EncoderModel

        weights, _ = _find(self.folder)
        if weights.is_dir():
            config, tensors = UMT5Config.from_pretrained(weights), read_tensors(weights)
        else:
            official = read_tensors(weights)
            config, tensors = UMT5Config(**config_of(official, weights)), to_transformers(official)
        with torch.device("meta"):
            model = UMT5EncoderModel(config)
        if "encoder.embed_tokens.weight" in tensors:  # one matrix under two names; a file may hold either
            tensors.setdefault("shared.weight", tensors.pop("encoder.embed_tokens.weight"))
        load_strict(model, tensors, str(weights), fresh=(r"encoder\.embed_tokens\.weight",))
        model.tie_weights()
        return model.requires_grad_(False).eval()

    @cached_property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        from transformers import AutoTokenizer

        _, folder = _find(self.folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        if tokenizer("a").input_ids[-1] != tokenizer.eos_token_id:
            raise BadInput(f"{folder}: its tokenizer does not append the end token; download it again")
        return tokenizer

    @property
    def fingerprint(self) -> str:
        """Names encoder, precision, prompt and length in a latent cache; where its rows are, it need not be loaded."""
        return self.stored.encoder() or self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        # Of the weights, norms and position tables are hashed: 11 GB of matrices would take a minute.
        small = [(name, x) for name, x in self.model.state_dict().items() if x.numel() <= 2**16]
        about = f"{self.stored.length} {PROMPT} {self.model.config.num_layers} {len(self.tokenizer)}"
        return f"umt5:{digest(small, about)}"

    def encode(self, instructions: Sequence[str]) -> Float[Tensor, "b l d"]:
        """Encoder states of each instruction's prompt in bfloat16's values, on the CPU, rows past the end token zero.

        Raises BadInput as `prompt` does, and where `stored` cannot be written or has rows of another encoder.
        """
        for instruction in self._new(instructions):
            self._store(instruction)
        return self.stored.encode(instructions)

    def store(self, instructions: Sequence[str], device: torch.device) -> None:
        """Encode what is not stored yet, on `device` where the encoder fits, and let go of it.

        Raises BadInput as `encode`.
        """
        new = self._new(instructions)
        if not new:
            return
        size = sum(parameter.nbytes for parameter in self.model.parameters())
        if device.type != "cuda" or 1.1 * size < torch.cuda.mem_get_info(device)[0]:
            self.model.to(device)
        with bar("prompts", len(new), f"encoded on {self.model.device}") as advance:
            for instruction in new:
                self._store(instruction)
                advance()
        del self.model  # what is cached: the next use reads it again

    def _new(self, instructions: Sequence[str]) -> list[str]:
        return [text for text in dict.fromkeys(instructions) if not self.stored.has(text)]

    def _store(self, instruction: str) -> None:
        self.stored.claim(self._fingerprint)
        # One at a time: what is stored must not depend on who was encoded beside it.
        states, mask = self.states([instruction])
        self.stored.write(instruction, states[0], mask[0])

    @torch.no_grad()
    def states(self, instructions: Sequence[str]) -> tuple[Float[Tensor, "b l d"], Bool[Tensor, "b l"]]:
        """Raw encoder states in the model's precision, and True where a row belongs to the prompt."""
        tokens = self.tokenizer(
            [clean(prompt(instruction)) for instruction in instructions],
            padding="max_length",
            truncation=True,
            max_length=self.stored.length,
            add_special_tokens=True,
            return_tensors="pt",
        ).to(self.model.device)
        states = self.model(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask
        ).last_hidden_state
        return states, tokens.attention_mask.bool()


class StoredText:
    """Rows encoded earlier, one file per prompt in the format of the released caches: no 5.7 B encoder needed.

    File `<sha256 of the prompt>.t5_len128.wan21t2v13b.pt` (or `.wan22ti2v5b.pt`) = {context: bf16 [128, 4096], mask:
    bool [128]}; beside them `encoder.t5_len128.txt`, the fingerprint of the UMT5Text that wrote here.
    """

    def __init__(self, folder: str | Path, width: int = 4096, length: int = LENGTH) -> None:
        self.folder = Path(folder)
        self.width = width
        self.length = length

    @property
    def fingerprint(self) -> str:
        """Names the format; which prompts lie in the folder does not change their rows."""
        return f"stored-text:t5_len{self.length}.{DOWNLOADS[0]}.pt:{self.width}x{self.length}"

    def file(self, instruction: str) -> Path:
        """Where an instruction's rows lie, or will."""
        name = hashlib.sha256(prompt(instruction).encode()).hexdigest()
        files = [self.folder / f"{name}.t5_len{self.length}.{download}.pt" for download in DOWNLOADS]
        return next(filter(Path.is_file, files), files[0])

    def has(self, instruction: str) -> bool:
        """Whether its rows are here."""
        return self.file(instruction).is_file()

    def store(self, instructions: Sequence[str], device: torch.device) -> None:
        """No-op: what is here is stored, and nothing else can be."""

    def encode(self, instructions: Sequence[str]) -> Float[Tensor, "b l d"]:
        """Stored rows on the CPU, those past the prompt zeroed. BadInput for a missing or foreign file."""
        rows = {instruction: self._read(instruction) for instruction in dict.fromkeys(instructions)}
        return torch.stack([rows[instruction] for instruction in instructions])

    def write(self, instruction: str, context: Float[Tensor, "l d"], mask: Bool[Tensor, " l"]) -> None:
        """Store an instruction's raw encoder states, and True where a row belongs to its prompt."""
        data = io.BytesIO()
        torch.save({"context": context.bfloat16().cpu(), "mask": mask.cpu()}, data)
        self._write(self.file(instruction), data.getvalue())

    def encoder(self) -> str:
        """The fingerprint of the encoder that wrote here; empty where none did."""
        return self._encoder_file.read_text().strip() if self._encoder_file.is_file() else ""

    def claim(self, fingerprint: str) -> None:
        """Note whose rows follow. BadInput where another encoder's are here."""
        if not self.encoder():
            self._write(self._encoder_file, f"{fingerprint}\n".encode())
        if self.encoder() != fingerprint:
            raise BadInput(
                f"{self.folder}: has rows of text encoder {self.encoder()}, and this one is {fingerprint}; "
                "name another folder as policy.text.stored"
            )

    @property
    def _encoder_file(self) -> Path:
        return self.folder / f"encoder.t5_len{self.length}.txt"

    def _write(self, path: Path, data: bytes) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            replace_file(path, data)
        except OSError as error:
            raise BadInput(
                f"{path}: cannot be written ({error.strerror}); name another folder as policy.text.stored"
            ) from error

    def _read(self, instruction: str) -> Float[Tensor, "l d"]:
        file = self.file(instruction)
        if not file.is_file():
            raise BadInput(
                f"{file}: no stored text for instruction {instruction!r}; encode it where "
                "UMT5-XXL is (policy.text.kind umt5 stores what it encodes) or fetch the released text cache"
            )
        entry = read_tensors(file)
        shapes = {name: list(tensor.shape) for name, tensor in entry.items()}
        expected = {"context": [self.length, self.width], "mask": [self.length]}
        if shapes != expected:
            raise BadInput(f"{file}: expected {expected}, got {shapes}; it belongs to another encoder")
        return entry["context"].float() * entry["mask"][:, None]


_NAMES = {
    "norm1": "layer.0.layer_norm",
    "attn.q": "layer.0.SelfAttention.q",
    "attn.k": "layer.0.SelfAttention.k",
    "attn.v": "layer.0.SelfAttention.v",
    "attn.o": "layer.0.SelfAttention.o",
    "pos_embedding.embedding": "layer.0.SelfAttention.relative_attention_bias",
    "norm2": "layer.1.layer_norm",
    "ffn.gate.0": "layer.1.DenseReluDense.wi_0",
    "ffn.fc1": "layer.1.DenseReluDense.wi_1",
    "ffn.fc2": "layer.1.DenseReluDense.wo",
}


def to_transformers(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the names of `models_t5_umt5-xxl-enc-bf16.pth` -> under UMT5EncoderModel's names.

    Names of another model stay as they are, so that strict loading reports them.
    """
    return {_rename(name): tensor for name, tensor in official.items()}


def _rename(name: str) -> str:
    if match := re.fullmatch(r"blocks\.(\d+)\.(.+)\.weight", name):
        return f"encoder.block.{match[1]}.{_NAMES.get(match[2], match[2])}.weight"
    return {"token_embedding.weight": "shared.weight", "norm.weight": "encoder.final_layer_norm.weight"}.get(
        name, name
    )


def config_of(official: Mapping[str, Tensor], source: Path) -> dict[str, Any]:
    """UMT5Config arguments, read off the shapes of the official file's tensors."""
    try:
        vocabulary, width = official["token_embedding.weight"].shape
        buckets, heads = official["blocks.0.pos_embedding.embedding.weight"].shape
        inner, ffn = official["blocks.0.attn.q.weight"].shape[0], official["blocks.0.ffn.fc1.weight"].shape[0]
    except KeyError as error:
        raise BadInput(f"{source}: not Wan's UMT5 encoder: it lacks {error}") from error
    return {
        "vocab_size": vocabulary,
        "d_model": width,
        "d_kv": inner // heads,
        "d_ff": ffn,
        "num_heads": heads,
        "num_layers": 1 + max(int(name.split(".")[1]) for name in official if name.startswith("blocks.")),
        "relative_attention_num_buckets": buckets,
        "feed_forward_proj": "gated-gelu",
    }


def _find(folder: Path) -> tuple[Path, Path]:
    """(weights, tokenizer folder) of whichever layout `folder` has."""
    layouts = (
        (folder / OFFICIAL_FILE, folder / TOKENIZER_FOLDER),
        (folder / "text_encoder", folder / "tokenizer"),
    )
    for weights, tokenizer in layouts:
        if weights.exists() and tokenizer.is_dir():
            return weights, tokenizer
    raise BadInput(
        f"{folder}: no UMT5-XXL, which a prompt that is not stored needs; expected {OFFICIAL_FILE} (11 GB) and "
        f"{TOKENIZER_FOLDER}/ in it, or text_encoder/ and tokenizer/. Download them with `hf download "
        f"Wan-AI/Wan2.1-T2V-1.3B --include 'models_t5*' --include 'google/*' --local-dir {folder}`"
    )
