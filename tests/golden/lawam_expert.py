"""The second half of LaWAM's golden file: query pool, physical time, action expert, and both stages together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.golden.compare import GRADIENT, LOSS, Golden
from wamkit.flow import Noised
from wamkit.policies.lawam import prompt
from wamkit.policies.lawam.action_expert import (
    TIMES,
    ActionExpert,
    Condition,
    ExpertSize,
    action_loss,
    bucket,
)
from wamkit.policies.lawam.convert import EXPERT_NAMES
from wamkit.policies.lawam.fused import FusedExpert
from wamkit.policies.lawam.physical_time import PhysicalTime, TimeCode, tokens_of
from wamkit.policies.lawam.prior import stop_latent_context_grad
from wamkit.policies.lawam.query_pool import QueryPool
from wamkit.policies.lawam.world_model import LatentWorldModel

OUTPUT, EXACT = 2e-5, 1e-12


def check(golden: Golden, name: str, ours: Tensor) -> None:
    """By group; ours may do without axes of length 1."""
    expected = golden.tensors[name]
    golden.record(name.rpartition(".")[0], ours.detach().reshape(expected.shape), expected, OUTPUT)


def query_pool(golden: Golden) -> None:
    """Group qagg."""
    about = golden.about["qagg"]
    pool = QueryPool(about["vlm"], about["code"])
    load(pool, golden, "qagg.w.", ("vlm_to_lam.", "pool."))
    check(golden, "qagg.out.z", pool(golden.tensors["qagg.in.h_act"]))


def load(module: nn.Module, golden: Golden, section: str, prefixes: tuple[str, str]) -> None:
    """A module's weights from a section of the file."""
    official, ours = prefixes
    module.load_state_dict(
        {
            EXPERT_NAMES.forward(official + name).removeprefix(ours): x
            for name, x in golden.section(section).items()
        }
    )


def placeholders(golden: Golden) -> None:
    """Group ph: where the queries stand, and where gradients reach the prior in the mode that stops them."""
    given, masks = golden.tensors["ph.in.input_ids"], golden.section("ph.out.")
    latent, action = (masks[name].bool() for name in ("act_mask", "flow_mask"))
    counts = [int(mask[0].sum()) for mask in (latent, action)]
    found = prompt.placeholders(given, int(given[latent][0]), counts)
    hidden = torch.ones(*given.shape, 1, requires_grad=True)
    stop_latent_context_grad(hidden, prompt.places(found[0])).sum().backward()
    ours = {"act_mask": found[0], "flow_mask": found[1], "flow_only_grad_positions": hidden.grad[..., 0]}
    for name, expected in masks.items():
        golden.record("ph.out", ours[name], expected, EXACT)


def physical_time(golden: Golden) -> None:
    """Groups pte."""
    for name, expected in golden.section("pte.code.").items():
        width, hz = (int(part.lstrip("dhz")) for part in name.split("."))
        code = PhysicalTime(width, 50, "seconds")(torch.tensor([float(hz)]), len(expected))
        golden.record("pte.code", code[0], expected, OUTPUT)
    for name, expected in golden.section("pte.grid.").items():
        physical = PhysicalTime(2, 50, "seconds")
        hz = torch.tensor([float(name.lstrip("hz"))])
        golden.record(
            "pte.grid", physical.clock.times(physical.step[: len(expected)], hz)[0], expected, OUTPUT
        )
    for seconds, counts in golden.about["pte_tokens"].items():
        for hz, expected in counts.items():
            golden.record("pte.tokens", tokens_of(float(seconds[:-1]), float(hz)), expected, EXACT)


def golden_expert(golden: Golden, time_code: TimeCode = "seconds") -> ActionExpert:
    """The expert of the file's dimensions and weights; its loss is that of the released training, without dropout."""
    about = golden.about["flow"]
    size = ExpertSize(
        width=about["hidden"],
        heads=about["heads"],
        ffn=golden.tensors["flow.w.DiT.transformer_blocks.0.ff.net.2.weight"].shape[1],
        layers=about["layers"],
        tokens=about["action_horizon"],
        action_dim=about["action_dim"],
        time_dim=golden.tensors["flow.w.DiT.timestep_encoder.timestep_embedder.linear_1.weight"].shape[1],
    )
    expert = ActionExpert(
        size, about["vlm"], about["vision"], about["vision_tokens"], about["embodiments"], time_code
    )
    load(expert, golden, "flow.w.", ("flow.", "expert."))
    return expert.eval()


def flow_condition(golden: Golden) -> Condition:
    """The file's."""
    given = golden.section("flow.in.")
    return Condition(
        hidden=given["h_vlm"],
        hidden_valid=given["attention_mask"].bool(),
        now=given["h_t"],
        subgoal=given["h_T"],
        hz=given["action_hz"],
        valid=given["actions_mask"].bool().any(dim=2),
        robot=given["embodiment_id"],
    )


def flow_noised(golden: Golden) -> Noised:
    """The file's chunks at its noise and times."""
    given = golden.section("flow.in.")
    return TIMES.noised(given["actions"], given["noise"], given["tau"])


def flow_loss(golden: Golden, expert: ActionExpert, condition: Condition) -> Tensor:
    """L_act."""
    noised = flow_noised(golden)
    predicted = expert(noised.x, noised.t, condition)
    valid = golden.tensors["flow.in.actions_mask"].bool()
    return action_loss(predicted, noised.target, valid, condition.robot)


def action_expert(golden: Golden) -> None:
    """Groups flow."""
    expert, condition = golden_expert(golden), flow_condition(golden)
    condition = replace(
        condition,
        hidden=condition.hidden.clone().requires_grad_(),
        subgoal=condition.subgoal.clone().requires_grad_(),
    )
    outputs = outputs_by_module(expert)
    noised = flow_noised(golden)
    velocity = expert(noised.x, noised.t, condition)
    modules = {f"block{i}": f"trunk.layers.{i}" for i in range(expert.size.layers)}
    modules |= {"dit": "trunk", "temb": "time", "cond_vlm": "hidden"}
    for name, module in modules.items():
        check(golden, f"flow.out.{name}", outputs[module])
    check(golden, "flow.out.velocity", velocity)
    about = golden.about
    golden.record("flow.buckets", bucket(noised.t), torch.tensor(about["flow_time_buckets_exact"]), EXACT)
    loss = flow_loss(golden, expert, condition)
    golden.record("flow.loss", loss.item(), about["flow_loss"], LOSS)
    loss.backward()
    for name, given in (("h_vlm", condition.hidden), ("h_T", condition.subgoal)):
        golden.record("flow.grad", given.grad, golden.tensors[f"flow.grad.{name}"], GRADIENT)
    gradient_norms(golden, expert)
    unordered = flow_loss(golden, golden_expert(golden, "none"), condition)
    golden.record("flow.loss", unordered.item(), about["flow_loss_without_time_code"], LOSS)
    sampling(golden, expert, flow_condition(golden))


def gradient_norms(golden: Golden, expert: ActionExpert) -> None:
    """By parameter. That of a key's bias is 0 but for rounding, since attention ignores it: beside its weight's."""
    parameters, expected = dict(expert.named_parameters()), golden.about["flow_grad_norms"]
    ours = {}
    for name in expected:
        grad = parameters[EXPERT_NAMES.forward(f"flow.{name}").removeprefix("expert.")].grad
        ours[name] = 0.0 if grad is None else grad.norm().item()  # nothing reaches the null subgoal
    for name, norm in expected.items():
        beside = [name.replace("to_k.bias", "to_k.weight"), name]
        golden.record(
            "flow.grad_norms",
            torch.tensor([ours[each] for each in beside]),
            torch.tensor([expected[each] or 0.0 for each in beside]),
            GRADIENT,
        )
        assert (norm is None) == (name == "cfg_embeddings")


def sampling(golden: Golden, expert: ActionExpert, condition: Condition) -> None:
    """The file's samplers."""
    noise = golden.tensors["flow.in.noise"]
    for name, steps, guidance in (("sample10", 10, 1.0), ("sample4", 4, 1.0), ("sample10_cfg2", 10, 2.0)):
        chunk = expert.sample(noise, condition, steps, guidance)
        check(golden, f"flow.out.{name}", chunk)
        fused = FusedExpert(expert, steps, guidance).sample(noise, condition)
        golden.record("flow.fused", fused, golden.tensors[f"flow.out.{name}"], OUTPUT)


def outputs_by_module(network: nn.Module) -> dict[str, Any]:
    """Filled with what every module returned last."""
    outputs: dict[str, Any] = {}
    for name, module in network.named_modules():
        module.register_forward_hook(lambda _, args, output, name=name: outputs.update({name: output}))
    return outputs


def stage2(golden: Golden, world: LatentWorldModel) -> None:
    """Groups stage2: with the gradient of the actions stopped at the subgoal, and without."""
    given = golden.section("stage2.in.")
    for case, stop in (("ki_on", True), ("ki_off", False)):
        world.zero_grad()
        code = given["z_hat"].clone().requires_grad_()
        subgoal = world(given["u"], code.flatten(1))
        check(golden, "stage2.out.u_hat", subgoal)
        condition = replace(
            flow_condition(golden), now=given["u"], subgoal=subgoal.detach() if stop else subgoal
        )
        losses = {
            "loss_act": flow_loss(golden, golden_expert(golden), condition),
            "loss_wm": F.mse_loss(subgoal, given["u_T"]),
            "loss_distill": F.mse_loss(code, given["z_teacher"]),
        }
        total = losses["loss_act"] + 0.1 * (losses["loss_wm"] + losses["loss_distill"])
        total.backward()
        about = golden.about[f"stage2_{case}"]
        for name, loss in (losses | {"total": total}).items():
            golden.record("stage2.losses", loss.item(), about[name], LOSS)
        golden.record("stage2.grad.z_hat", code.grad, golden.tensors[f"stage2.grad.z_hat.{case}"], GRADIENT)
        norms = {
            "grad_norm_z_hat": code.grad.norm(),
            "grad_norm_decoder": torch.stack([p.grad.norm() for p in world.parameters()]).norm(),
        }
        for name, norm in norms.items():
            golden.record("stage2.grad_norms", norm.item(), about[name], GRADIENT)
