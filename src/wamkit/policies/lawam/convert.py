"""Names of released LaWAM weights <-> ours (LaWAM spec 3)."""

from __future__ import annotations

from wamkit.io.renaming import Renaming, under

# stage 1: the groups lam.encoder, lam.vq, lam.decoder and lam.state_decoder <-> LaWAMWorld
WORLD_NAMES = Renaming(
    *under(
        ("lam.encoder.", "inverse."),
        ("project_in.{w}", "input.{w}"),
        ("QFormer.queries", "queries"),
        ("QFormer.q_cross_attn.attn.{rest}", "look.attention.{rest}"),
        ("QFormer.q_cross_attn.ff.{rest}", "look.ffn.{rest}"),
        ("QFormer.q_cross_attn.norm1.{w}", "look.context_norm.{w}"),
        ("QFormer.q_cross_attn.norm2.{w}", "look.norm.{w}"),
        ("QFormer.layers.{i}.{rest}", "layers.{i}.{rest}"),
        ("out_proj.{w}", "output.{w}"),
    ),
    *under(
        ("lam.vq.", "bottleneck."),
        ("pre_norm.{w}", "norm.{w}"),
        ("mu.{w}", "mu.{w}"),
        ("logvar.{w}", "logvar.{w}"),
    ),
    *under(
        ("lam.decoder.", "world."),
        ("project_input.{w}", "input.{w}"),
        ("action_in_proj.{w}", "code.{w}"),
        ("dec_layers.{i}.attn.{rest}", "blocks.{i}.attention.{rest}"),
        ("dec_layers.{i}.ffn.0.{w}", "blocks.{i}.ffn.0.{w}"),
        ("dec_layers.{i}.ffn.3.{w}", "blocks.{i}.ffn.2.{w}"),
        ("dec_layers.{i}.adaLN_modulation.1.{w}", "blocks.{i}.modulation.{w}"),
        ("project_output.{w}", "output.{w}"),
        ("last_ln.{w}", "norm.{w}"),
    ),
    *under(
        ("lam.state_decoder.", "state_head."),
        ("z_encoder.{w}", "code.{w}"),
        ("state_encoder.layer1.W", "state.0.weight"),
        ("state_encoder.layer1.b", "state.0.bias"),
        ("state_encoder.layer2.W", "state.1.weight"),
        ("state_encoder.layer2.b", "state.1.bias"),
        ("state_decoder.layer1.W", "change.0.weight"),
        ("state_decoder.layer1.b", "change.0.bias"),
        ("state_decoder.layer2.W", "change.1.weight"),
        ("state_decoder.layer2.b", "change.1.bias"),
    ),
)

# stage 2: the groups vlm_to_lam and flow <-> LaWAM's pool and expert
EXPERT_NAMES = Renaming(
    *under(
        ("vlm_to_lam.", "pool."),
        ("query", "query"),
        ("norm_qs.0.{w}", "query_norm.{w}"),
        ("norm_kvs.0.{w}", "hidden_norm.{w}"),
        ("cross_attns.0.{rest}", "attention.{rest}"),
        ("ffns.0.0.{w}", "ffn.0.{w}"),
        ("ffns.0.1.{w}", "ffn.1.{w}"),
        ("ffns.0.4.{w}", "ffn.3.{w}"),
        ("final_norm.{w}", "norm.{w}"),
    ),
    *under(
        ("flow.", "expert."),
        ("cfg_embeddings", "null_subgoal"),
        ("enc_vlm.net.{rest}", "hidden.{rest}"),
        ("action_encoder.W1.W", "encoder.first.weight"),
        ("action_encoder.W1.b", "encoder.first.bias"),
        ("action_encoder.W2.W", "encoder.second.weight"),
        ("action_encoder.W2.b", "encoder.second.bias"),
        ("action_decoder.layer1.W", "decoder.first.weight"),
        ("action_decoder.layer1.b", "decoder.first.bias"),
        ("action_decoder.layer2.W", "decoder.second.weight"),
        ("action_decoder.layer2.b", "decoder.second.bias"),
        ("DiT.timestep_encoder.timestep_embedder.linear_1.{w}", "time.0.{w}"),
        ("DiT.timestep_encoder.timestep_embedder.linear_2.{w}", "time.2.{w}"),
        ("DiT.proj_out_1.{w}", "trunk.last_modulation.{w}"),
        ("DiT.proj_out_2.{w}", "trunk.last.{w}"),
        *under(
            ("DiT.transformer_blocks.{i}.", "trunk.layers.{i}."),
            ("norm1.linear.{w}", "modulation.{w}"),
            ("attn1.to_q.{w}", "q.{w}"),
            ("attn1.to_k.{w}", "k.{w}"),
            ("attn1.to_v.{w}", "v.{w}"),
            ("attn1.to_out.0.{w}", "out.{w}"),
            ("ff.net.0.proj.{w}", "up.{w}"),
            ("ff.net.2.{w}", "down.{w}"),
        ),
    ),
)
