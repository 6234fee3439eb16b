"""The vision-language prior against transformers' own Qwen3-VL, and what its queries see."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoImageProcessor, Qwen3VLForConditionalGeneration
from wamkit_client.types import BadInput

from tests.policies.test_no_host_work import META, OnTheDevice
from tests.policies.tiny_policy import SPEC
from tests.policies.tiny_qwen import SIZE, tiny_prompt, tiny_qwen
from wamkit.policies.lawam.patches import patches
from wamkit.policies.lawam.prior import (
    TINY,
    FromQwen,
    Prior,
    PriorSize,
    expect_prompt,
    stop_latent_context_grad,
)
from wamkit.policies.lawam.prompt import HashedPromptConfig, QwenPromptConfig, example
from wamkit.tree import Tree, tree_map

KEYS = Path(__file__).parents[1] / "golden" / "lawam_keys.json"
VIEWS = replace(SPEC, views=("front", "left", "right"), view_height=256, view_width=256, canvas="separate")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("qwen")
    tiny_qwen(path)
    return path


def loaded(folder: Path) -> Prior:
    prior = Prior(SIZE)
    FromQwen(str(folder)).initialize(prior)
    return prior


def asked(folder: Path, *instructions: str, length: int = 640) -> Tree:
    """What the encoder makes of random views and instructions."""
    images = torch.randint(256, (len(instructions), 3, 256, 256, 3), dtype=torch.uint8)
    prompt = replace(tiny_prompt(folder), length=length).load(VIEWS)
    return {"images": images, **prompt.encode(instructions)}


def test_patches_are_the_processors(folder: Path) -> None:
    images = torch.randint(256, (2, 256, 320, 3), dtype=torch.uint8)
    made = AutoImageProcessor.from_pretrained(folder)(images=list(images.numpy()), return_tensors="pt")
    torch.testing.assert_close(patches(images, 16, 2).flatten(0, 1), made["pixel_values"])


@torch.no_grad()
def test_hidden_states_are_those_of_transformers(folder: Path) -> None:
    """Its own Qwen3-VL, cut to as many layers, with the same positions, and the queries put in by a hook."""
    prior, inputs = loaded(folder), asked(folder, "open the drawer", "push")
    model = Qwen3VLForConditionalGeneration.from_pretrained(folder).model.eval()
    model.language_model.layers = model.language_model.layers[: SIZE.layers]
    model.config.image_token_id = int(inputs["tokens"][0, inputs["image_at"][0, 0]])

    def with_queries(module: torch.nn.Module, args: object, tokens: Tensor) -> Tensor:
        tokens = tokens.clone()
        for row in range(2):
            tokens[row, inputs["latent_at"][row]] = prior.latent_queries
            tokens[row, inputs["action_at"][row]] = prior.action_queries
        return tokens

    model.language_model.embed_tokens.register_forward_hook(with_queries)
    length = inputs["tokens"].shape[1]
    seen = AutoImageProcessor.from_pretrained(folder)(
        images=list(inputs["images"].flatten(0, 1).numpy()), return_tensors="pt"
    )
    expected = model(
        input_ids=inputs["tokens"],
        attention_mask=torch.ones_like(inputs["tokens"]),
        position_ids=torch.arange(length).expand(3, 2, length),
        pixel_values=seen["pixel_values"],
        image_grid_thw=seen["image_grid_thw"],
    ).last_hidden_state
    made = prior(inputs)
    torch.testing.assert_close(made, expected, atol=2e-5, rtol=2e-5)
    for merger in prior.visual.deepstack_merger_list:
        torch.nn.init.zeros_(merger.linear_fc2.weight)
    assert (prior(inputs) - expected).abs().max() > 0.01


@torch.no_grad()
def test_latent_queries_see_the_main_view_and_the_instruction(folder: Path) -> None:
    prior, inputs = loaded(folder), asked(folder, "open the drawer")
    at = inputs["latent_at"][0]
    before = prior(inputs)[:, at]
    others = inputs["images"].clone()
    others[:, 1:] = 255 - others[:, 1:]
    torch.testing.assert_close(prior(inputs | {"images": others})[:, at], before)
    main = inputs["images"].clone()
    main[:, 0] = 255 - main[:, 0]
    assert (prior(inputs | {"images": main})[:, at] - before).abs().max() > 0.01
    after = prior(inputs)[:, inputs["action_at"][0]]
    assert (prior(inputs | {"images": others})[:, inputs["action_at"][0]] - after).abs().max() > 0.01
    prior.action_queries += 1
    torch.testing.assert_close(prior(inputs)[:, at], before)


@torch.no_grad()
def test_padding_changes_nothing(folder: Path) -> None:
    prior, inputs = loaded(folder), asked(folder, "open the drawer slowly", "push")
    both = prior(inputs)
    length = int(inputs["length"][1])
    alone = {name: x[1:] for name, x in inputs.items()} | {"tokens": inputs["tokens"][1:, :length]}
    torch.testing.assert_close(prior(alone)[0], both[1, :length], atol=1e-5, rtol=1e-5)


def test_which_positions_keep_a_gradient() -> None:
    hidden = torch.randn(2, 6, 3, requires_grad=True)
    latent_at = torch.tensor([[0, 1], [2, 3]])
    stopped = stop_latent_context_grad(hidden, latent_at)
    assert torch.equal(stopped, hidden)
    (grad,) = torch.autograd.grad(stopped.sum(), hidden)
    assert grad[:, :, 0].tolist() == [[0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1]]


def test_every_weight_is_trained() -> None:
    spec = replace(VIEWS, views=("front", "wrist"), view_height=64, view_width=64)
    prior = Prior(TINY)
    words = HashedPromptConfig().load(spec).encode(["open it", "push"])
    images = torch.randint(256, (2, 2, 64, 64, 3), dtype=torch.uint8)
    prior({"images": images, **words}).square().sum().backward()
    assert [name for name, p in prior.named_parameters() if p.grad is None] == []
    queries = prior.latent_queries.grad, prior.action_queries.grad
    assert all(grad is not None and grad.abs().sum() > 0 for grad in queries)


def test_in_bfloat16_it_says_about_the_same(folder: Path) -> None:
    prior, inputs = loaded(folder), asked(folder, "open the drawer")
    exact = prior(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        rough = prior(inputs)
    rough.float().square().mean().backward()
    assert (rough - exact).square().mean() < 1e-2 * exact.square().mean()


def test_the_published_size() -> None:
    with torch.device("meta"):
        prior = Prior(PriorSize())
    own = {name: list(x.shape) for name, x in prior.state_dict().items() if "queries" not in name}
    assert sum(p.numel() for p in prior.parameters()) == 1_523_500_032 + 32_768
    assert prior.text.embed_tokens.weight.numel() == 311_164_928
    expected = {}
    for name, (shape, *numbers) in json.loads(KEYS.read_text())["groups"]["vlm"].items():
        first, last = map(int, numbers[0].split("..")) if numbers else (0, 0)
        ours = name.removeprefix("model.").replace("language_model.", "text.")
        expected |= {ours.replace("{i}", str(i)): shape for i in range(first, last + 1)}
    assert own == expected and len(own) == 493


def test_on_meta_nothing_is_made_on_the_host() -> None:
    spec = replace(VIEWS, view_height=64, view_width=64)
    prior = Prior(TINY).to(META)
    with META:
        inputs = example(HashedPromptConfig(length=80), spec, 2)
        inputs["images"] = torch.zeros(2, 3, 64, 64, 3, dtype=torch.uint8)
    with torch.no_grad(), OnTheDevice() as found:
        assert prior(inputs).is_meta
    assert not found.elsewhere


def test_weights_of_a_folder_and_acting_without_it(folder: Path) -> None:
    trained, inputs = loaded(folder), asked(folder, "open it")
    with torch.device("meta"):
        acting = Prior(SIZE)
    FromQwen(str(folder)).freeze(acting)
    FromQwen(str(folder)).load_frozen(acting)
    saved = {name: x for name, x in trained.state_dict().items() if "embed_tokens" not in name}
    acting.load_state_dict(saved, strict=False, assign=True)
    assert [name for name, p in acting.named_parameters() if not p.requires_grad] == [
        "text.embed_tokens.weight"
    ]
    with torch.no_grad():
        assert torch.equal(acting(inputs), trained(inputs))
        low = acting.to(torch.bfloat16)(inputs)
    assert low.dtype == torch.bfloat16


def test_what_does_not_fit_is_explained(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no Qwen3-VL; expected config\.json"):
        FromQwen(str(tmp_path)).initialize(Prior(SIZE))
    with pytest.raises(
        BadInput, match=r"another size than policy\.prior: heads 4, expected 2; head_dim 16, expected 32"
    ):
        FromQwen(str(folder)).initialize(Prior(replace(SIZE, heads=2, head_dim=32)))
    for file in folder.glob("*.json"):
        (tmp_path / file.name).write_text(file.read_text())
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.language_model.norm.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadInput, match=r"1 missing: text\.norm\.weight"):
        FromQwen(str(tmp_path)).initialize(Prior(SIZE))
    with pytest.raises(BadInput, match=r"policy\.prompt\.pixels: expected that of policy\.prior, 16, got 32"):
        expect_prompt(QwenPromptConfig(), TINY)
    with pytest.raises(BadInput, match=r"policy\.prior\.vision_taps: expected numbers of vision blocks"):
        PriorSize(vision_taps=(24,))
    expect_prompt(QwenPromptConfig(), PriorSize())
    expect_prompt(HashedPromptConfig(), TINY)
    assert tree_map(torch.Tensor.numel, example(QwenPromptConfig(), VIEWS, 2)) == {
        "tokens": 640,
        "image_at": 384,
        "latent_at": 16,
        "action_at": 16,
        "length": 2,
    }
