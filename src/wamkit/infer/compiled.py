"""Work on tensors as compiled programs: C++ on a processor, Triton on CUDA, made by torch's inductor.

A small policy is bound by the number of its operations; a program does the cheap ones between two products in one loop.
Operations are recorded once for each shape, without the host (policies/base.py: StagedActor). Weights become inputs of
the program, so that it depends on operations, shapes and versions alone: torch keeps it on disk, in the folder
TORCHINDUCTOR_CACHE_DIR, for all policies of these sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch._inductor
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

from wamkit.infer.graphs import Replayed, ReplayedActor, expect_staged
from wamkit.io.progress import bar, say
from wamkit.nn.compiler import can_compile, cpp_compilers
from wamkit.nn.fused_ops import real
from wamkit.policies.base import Function, PiecewiseActor, StagedActor
from wamkit.tree import Tree, tree_leaves, tree_of
from wamkit.types import Actor

Program = Callable[..., Sequence[Tensor]]
Compiler = Callable[[GraphModule, list[Tensor]], Program]
"""What makes a program of recorded operations and examples of what they are given."""


def inductor(traced: GraphModule, examples: list[Tensor]) -> Program:
    """torch's compiler; the program uses as many threads as are used now."""
    options = {"config_patches": {"cpp.threads": torch.get_num_threads()}}
    # `from_example_inputs` gives it what torch's cache on disk asks for; the shapes are fixed all the same
    program: Program = torch._inductor.standalone_compile(
        traced, [*examples], dynamic_shapes="from_example_inputs", options=options
    )
    return program


class Compiled:
    """Makes programs of functions (a Recorder of infer/graphs.py)."""

    def __init__(self, compiler: Compiler = inductor) -> None:
        self.compiler = compiler

    def __call__(self, function: Function, example: Tree) -> Function:
        """A program for trees of the shapes of `example`."""
        result = list(tree_leaves(function(example)))  # and what is made at a first call is made
        names = list(tree_leaves(example))

        def flat(*leaves: Tensor) -> list[Tensor]:
            tree = tree_of(dict(zip(names, leaves, strict=True)))
            return list(tree_leaves(function(tree)).values())

        with bar("compile", 1, unit="programs") as advance, torch.inference_mode(False), torch.no_grad():
            examples = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in leaves_of(example)]
            with real():
                traced = make_fx(flat, tracing_mode="fake", _allow_non_fake_inputs=True)(*examples)
            weights = lift(traced)
            program = self.compiler(traced, [*examples, *weights])
            advance()

        def run(tree: Tree) -> Tree:
            return tree_of(dict(zip(result, program(*leaves_of(tree), *weights), strict=True)))

        return run


def leaves_of(tree: Tree) -> list[Tensor]:
    """Contiguous in memory, which a program relies on."""
    return [x.contiguous() for x in tree_leaves(tree).values()]


def lift(traced: GraphModule) -> list[Tensor]:
    """The tensors that recorded operations refer to; they become the last inputs, as real numbers."""
    graph = traced.graph
    graph.eliminate_dead_code()
    inputs = list(graph.find_nodes(op="placeholder"))
    weights: dict[str, tuple[Node, Tensor]] = {}
    for node in graph.find_nodes(op="get_attr"):
        name = str(node.target)
        if name not in weights:
            with graph.inserting_after(inputs[-1]):
                inputs.append(graph.placeholder(f"weight_{len(weights)}"))
            weights[name] = inputs[-1], getattr(traced, name).detach()
        for used in (
            node,
            *(user for user in node.users if user.target == torch.ops.aten.view_as_real.default),
        ):
            used.replace_all_uses_with(weights[name][0])
        graph.eliminate_dead_code()
    traced.recompile()
    weighted = (torch.view_as_real(x) if x.is_complex() else x for _, x in weights.values())
    return [x.clone() if x.is_inference() else x for x in weighted]


def compiled(actor: Actor, device: torch.device) -> Actor:
    """`actor` by programs. Where there is no compiler it is said, and the actor stays as it is."""
    if not can_compile(device):
        say(f"compiled: there is no {lacking(device)} on this machine, so operations are done one by one")
        return actor
    return by_programs(expect_staged(actor), Compiled())


def by_programs(actor: StagedActor, compiler: Compiled) -> StagedActor:
    """By a program of its own for each piece that it has, else by one for everything."""
    if isinstance(actor, PiecewiseActor):
        return actor.remade(lambda function: Replayed(lambda tree, about: function(tree), compiler))
    return ReplayedActor(actor, compiler)


def lacking(device: torch.device) -> str:
    """What programs for a device are made with, where it is not there."""
    return "Triton" if device.type == "cuda" else f"C++ compiler ({', '.join(cpp_compilers())})"
