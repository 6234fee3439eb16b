"""ActionDiT: the video model's block at a smaller width, on the tokens of a noisy action chunk (Fast-WAM spec 1.1).

It has as many layers, heads and head channels as the video model, so that the two can attend to each other. In and out
are plain Linear layers without a norm; positions are the index in the chunk, on one axis over all head channels.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from wamkit.nn.layers import Layers
from wamkit.nn.rope import LineRotary
from wamkit.nn.sinusoid import Sinusoid
from wamkit.wan.block import Block, Stream, TransformerSize, embed_times, text_mlp, time_mlp, time_rows


class ActionDiT(nn.Module):
    """`embed` makes a stream for the blocks (policies/fast_wam/mixture.py runs them), `head` reads the velocity."""

    def __init__(self, size: TransformerSize, action_dim: int) -> None:
        super().__init__()
        self.size = size
        self.rotary = LineRotary(size.head_dim)
        self.sinusoid = Sinusoid(size.time_dim)
        self.action_encoder = nn.Linear(action_dim, size.width)
        self.text_embedding = text_mlp(size)
        self.time_embedding = time_mlp(size)
        self.time_projection = time_rows(size)
        self.blocks: nn.ModuleList = Layers([Block(size) for _ in range(size.layers)])
        self.head = nn.Linear(size.width, action_dim)

    def embed(
        self, noisy: Float[Tensor, "b k a"], t: Float[Tensor, " _"], context: Float[Tensor, "b l text"]
    ) -> Stream:
        """A chunk in unit range at flow time t (one for each sample, or one for all)."""
        tokens = self.action_encoder(noisy.to(self.action_encoder.weight.dtype))
        steps, dtype = tokens.shape[1], tokens.dtype
        time = embed_times(self.sinusoid, self.time_embedding, t[:, None], dtype)
        return Stream(
            tokens=tokens,
            grid=(steps,),
            sizes={"action": steps},
            time=time,
            modulation=self.time_projection(time).unflatten(-1, (6, -1)),
            context=self.text_embedding(context.to(dtype)),
            context_mask=None,
            rope=self.rotary(steps),
        )
