"""What cross-attention of fused Wan blocks sees of a query: rows of the instruction, and the proprio token."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, cast

from torch import nn

from wamkit.data.normalize import Normalizer
from wamkit.policies.wan_encoder import Proprio, context
from wamkit.spans import Span
from wamkit.types import Query
from wamkit.wan.fused import FusedContext, Seen
from wamkit.wan.kept_text import Kept, KeptText


class Context(Protocol):
    """What the blocks' cross-attention sees of a query."""

    def prepare(self, query: Query) -> Query:
        """A query with everything in its inputs that `seen` takes; the host may be asked."""

    def seen(self, query: Query) -> tuple[Seen, ...]:
        """By block, of a prepared query."""


@dataclass(frozen=True)
class EveryRow:
    """All rows of the text and the proprio token, made anew."""

    context: FusedContext
    proprio: Proprio
    normalizer: Normalizer

    def prepare(self, query: Query) -> Query:
        """As it is."""
        return query

    def seen(self, query: Query) -> tuple[Seen, ...]:
        """By block."""
        return self.context(context(query.inputs, query.embodiment, self.normalizer, self.proprio))


class KeptRows:
    """Rows of the text as they are kept; only the proprio token is made anew."""

    def __init__(self, context: FusedContext, proprio: Proprio, normalizer: Normalizer) -> None:
        self.context, self.normalizer = context, normalizer
        self.text = KeptText(context, proprio.tokens)
        first, *self.rest = cast(nn.Sequential, context.text_embedding)
        self.first = proprio.followed_by(cast(nn.Linear, first))

    def prepare(self, query: Query) -> Query:
        """With keys and values, and room for those of the token, in place of the text."""
        with Span("text"):
            kept = self.text.of(query.inputs["context"], query.instructions)
        return replace(query, inputs=query.inputs | {"context": {"kv": kept.kv, "bias": kept.bias}})

    def seen(self, query: Query) -> tuple[Seen, ...]:
        """By block. The token's keys and values are written to the room for them."""
        text = Kept(**query.inputs["context"])
        unit = self.normalizer.to_unit("proprio", query.inputs["proprio"], query.embodiment)
        token = self.first(unit).to(text.kv.dtype)
        for layer in self.rest:
            token = layer(token)
        return text.beside(self.context.keys_values(token))
