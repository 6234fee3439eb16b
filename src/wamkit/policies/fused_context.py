"""What Wan blocks that act see of a query beside images: rows of the instruction, and the proprio token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar, cast

from torch import Tensor, nn

from wamkit.data.normalize import Normalizer
from wamkit.policies.wan_encoder import Proprio, context
from wamkit.spans import Span
from wamkit.types import Query
from wamkit.wan.fused import FusedContext, Seen
from wamkit.wan.kept_text import Kept, KeptText

S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)


class Context(Protocol[S_co]):
    """What is seen of a query, in the form that its networks take: of fused blocks, by block."""

    def prepare(self, query: Query) -> Query:
        """A query with everything in its inputs that `seen` takes; the host may be asked."""

    def seen(self, query: Query) -> S_co:
        """Of a prepared query."""


@dataclass(frozen=True)
class EveryRow(Generic[S]):
    """All rows of the text and the proprio token, made anew. see: rows [b l text] -> what the networks take."""

    see: Callable[[Tensor], S]
    proprio: Proprio
    normalizer: Normalizer

    def prepare(self, query: Query) -> Query:
        """As it is."""
        return query

    def seen(self, query: Query) -> S:
        """See above."""
        return self.see(context(query.inputs, query.embodiment, self.normalizer, self.proprio))


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
