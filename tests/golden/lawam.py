"""LaWAM against vectors of the official modules. Every dimension comes from the files."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.golden import lawam_expert
from tests.golden.compare import GRADIENT, LOSS, Golden, Row
from tests.golden.lawam_expert import EXACT, OUTPUT, check, outputs_by_module
from wamkit.analysis.similarity import cosine
from wamkit.policies.lawam.convert import WORLD_NAMES
from wamkit.policies.lawam.latent_action import Bottleneck, Code, InverseDynamics, LatentSize
from wamkit.policies.lawam.losses import FEATURE_LOSSES, squared_error
from wamkit.policies.lawam.robot_linear import HUMAN
from wamkit.policies.lawam.world_model import LatentWorldModel, StateHead


def lawam_rows(golden: Golden) -> list[Row]:
    """Compare every group of the file."""
    _world(golden)
    lawam_expert.query_pool(golden)
    lawam_expert.physical_time(golden)
    lawam_expert.placeholders(golden)
    lawam_expert.action_expert(golden)
    lawam_expert.stage2(golden, World(golden).world)
    return golden.rows


class World(nn.Module):
    """The networks of stage 1 in the file's dimensions, with its weights."""

    def __init__(self, golden: Golden) -> None:
        super().__init__()
        about = golden.about["lawm"]
        size = LatentSize(
            width=about["D"],
            heads=about["heads"],
            ffn=about["ffn_mult"] * about["D"],
            inverse_layers=about["enc_layers"],
            world_layers=about["dec_layers"],
            code=about["code"],
        )
        grid = tuple(about["grid"])
        self.inverse = InverseDynamics(size, about["D_in"], grid)
        self.bottleneck = Bottleneck(size.code)
        self.world = LatentWorldModel(size, about["D_in"], grid)
        self.state_head = StateHead(size, about["embodiments"], about["max_state"])
        self.load_state_dict(
            {WORLD_NAMES.forward(f"lam.{name}"): x for name, x in golden.section("lawm.w.").items()}
        )


@dataclass(frozen=True)
class Stage1:
    """What the networks make of the file's inputs."""

    code: Code
    z: Tensor
    predicted: Tensor
    target: Tensor
    state_change: Tensor


def _world(golden: Golden) -> None:
    networks = World(golden)
    outputs = outputs_by_module(networks)
    made = _stage1(golden, networks)
    _constants(golden, networks)
    _layers(golden, outputs)
    check(golden, "lawm.out.mu", made.code.mu)
    check(golden, "lawm.out.logvar", made.code.logvar)
    check(golden, "lawm.out.z", made.z)
    check(golden, "lawm.out.recon", made.predicted)
    check(
        golden,
        "lawm.out.recon_from_mu",
        networks.world(golden.tensors["lawm.in.dec_feats"][:, 0], made.code.mu),
    )
    valid = golden.tensors["lawm.in.state_mask"][:, 0].bool()
    check(golden, "lawm.out.state_delta_pred", made.state_change * valid)
    _losses_and_gradients(golden, networks, made)


def _stage1(golden: Golden, networks: World) -> Stage1:
    given = golden.section("lawm.in.")
    present, target = given["dec_feats"].unbind(1)
    node = networks.inverse(given["enc_feats"])
    code = networks.bottleneck(node)
    z = code.sample(given["eps"].flatten(1))
    change = networks.state_head(z, given["states"][:, 0], given["embodiment_id"])
    return Stage1(code, z, networks.world(present, z), target, change)


def _constants(golden: Golden, networks: World) -> None:
    """Bit for bit."""
    inverse, world = networks.inverse.tables, networks.world.tables
    blocked = (~inverse.get_buffer("visible")).to(torch.uint8)
    tables = {
        "pos3d": inverse.get_buffer("positions"),
        "pos2d": world.get_buffer("positions"),
        "enc_blocked_mask": blocked,
    }
    for name, ours in tables.items():
        expected = golden.tensors[f"lawm.const.{name}"]
        golden.record("lawm.const", ours.reshape(expected.shape), expected, EXACT)


def _layers(golden: Golden, outputs: dict[str, Tensor]) -> None:
    modules = {"query0": "inverse.look", "nodes": "inverse"}
    for layers, ours in (("enc_layer", "inverse.layers"), ("dec_layer", "world.blocks")):
        modules |= {f"{layers}{i}": f"{ours}.{i}" for i in golden.section(f"lawm.out.{layers}")}
    for name, module in modules.items():
        check(golden, f"lawm.out.{name}", outputs[module])


def _losses_and_gradients(golden: Golden, networks: World, made: Stage1) -> None:
    given, about = golden.section("lawm.in."), golden.about["lawm"]
    robot = (given["embodiment_id"] != HUMAN)[:, None]
    moved = given["states"][:, 1] - given["states"][:, 0]
    kl = made.code.kl().sum(1).mean()
    features = {name: loss(made.predicted, made.target) for name, loss in FEATURE_LOSSES.items()}
    state = squared_error(made.state_change, moved, given["state_mask"][:, 0].bool() & robot)
    total = features["smooth_l1"] + about["beta"] * kl + about["lambda_aux"] * state
    losses = {
        "smooth_l1": features["smooth_l1"],
        "mse": features["squared"],
        "kl": kl,
        "state_l2": state,
        "total": total,
    }
    for name, expected in golden.about["lawm_losses"].items():
        golden.record("lawm.losses", losses[name].item(), expected, LOSS)
    metrics = {
        "cosine_recon_target": cosine(made.predicted, made.target).mean(),
        "l1": F.l1_loss(made.predicted, made.target),
    }
    for name, expected in golden.about["lawm_metrics"].items():
        golden.record("lawm.metrics", metrics[name].item(), expected, OUTPUT)
    total.backward()
    parameters = dict(networks.named_parameters())
    for name, expected in golden.section("lawm.grad.").items():
        golden.record("lawm.grad", parameters[WORLD_NAMES.forward(f"lam.{name}")].grad, expected, GRADIENT)
    for part, norms in golden.about["lawm_grad_norms"].items():
        for name, expected in norms.items():
            grad = parameters[WORLD_NAMES.forward(f"lam.{part}.{name}")].grad
            golden.record("lawm.grad_norms", grad.norm().item(), expected, GRADIENT)
