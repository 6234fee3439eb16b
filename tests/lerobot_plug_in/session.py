"""What LeRobot's users do with wamkit's policies, done with the real LeRobot (test_lerobot.py runs it there).

    python session.py FOLDER     has runs/<kind>, dataset, recipe.py; gets trained, tuned, evaluated, found.json

The plug-in is installed, and found by LeRobot itself.
"""

import io
import json
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

if find_spec("shim"):
    import shim  # noqa: F401  (before lerobot; on the path where torchvision needs it)

import gym_square
import numpy as np
import torch
from lerobot.configs.policies import PreTrainedConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies.factory import make_policy, make_pre_post_processors
from lerobot.scripts import lerobot_eval, lerobot_train
from lerobot.utils.import_utils import register_third_party_plugins
from wamkit_client.types import BadInput, Observation

import wamkit
from wamkit.config import build_encoder, load_run
from wamkit.data.samples import Fresh, read_all
from wamkit.draws import Draws
from wamkit.stages.run import open_clips

FOLDER = Path(sys.argv[1])
# LaWAM needs transformers, of a version with which LeRobot 0.4.4 cannot be imported.
KINDS = ("light_wam", "fast_wam", *(["lawam"] if find_spec("transformers") else []))
NEW = not version("lerobot").startswith("0.4")
EVAL_EVERY = "env_eval_freq" if NEW else "eval_freq"
DATASET = ("--dataset.repo_id=wamkit/square", f"--dataset.root={FOLDER / 'dataset'}")
QUIET = ("--policy.device=cpu", "--policy.push_to_hub=false")


def command(main, *words):
    """A command of LeRobot in this process; the plug-in is registered by the command itself."""
    sys.argv = [main.__module__, *map(str, words)]
    with redirect_stdout(io.StringIO()):
        main()


def train(out, *words):
    every = ("--save_freq=2", "--log_freq=1", "--num_workers=0", "--batch_size=4", "--wandb.enable=false")
    env = ("--env.type=square", f"--{EVAL_EVERY}=2", "--eval.n_episodes=1", "--eval.batch_size=1")
    command(lerobot_train.main, *DATASET, *QUIET, *every, *env, f"--output_dir={out}", *words)


def batch(views, rows, size, proprio, seed):
    """Observations as an environment shows them, and the same as LeRobot hands them to a policy."""
    rng = np.random.default_rng(seed)
    images = {view: rng.integers(0, 256, (rows, size, size + 8, 3), np.uint8) for view in views}
    state = rng.normal(size=(rows, proprio)).astype(np.float32)
    tasks = [f"push the square {row}" for row in range(rows)]
    tensors = {
        f"observation.images.{view}": torch.from_numpy(x).movedim(-1, 1) / 255 for view, x in images.items()
    }
    seen = [
        Observation({view: x[row] for view, x in images.items()}, state[row], tasks[row], "robot")
        for row in range(rows)
    ]
    return seen, tensors | {"observation.state": torch.from_numpy(state), "task": tasks}


def loaded(folder, *overrides):
    """A policy and its processors, as LeRobot's commands load them."""
    config = PreTrainedConfig.from_pretrained(folder, cli_overrides=["--device=cpu", *overrides])
    config.pretrained_path = Path(folder)
    policy = make_policy(config, env_cfg=gym_square.SquareEnv())
    given = {"device_processor": {"device": "cpu"}, "rename_observations_processor": {"rename_map": {}}}
    before, after = make_pre_post_processors(config, str(folder), preprocessor_overrides=given)
    return policy, before, after


def chunks_are_the_engines(kind):
    """A run directory becomes loadable, and answers in LeRobot as our engine does; also copied by save_pretrained."""
    from lerobot_policy_wamkit.__main__ import main

    folder = FOLDER / "runs" / kind
    sys.argv = ["lerobot_policy_wamkit", str(folder)]
    assert main() == 0
    policy, before, after = loaded(folder)
    engine = wamkit.load_policy(folder)
    spec = engine.policy.data
    seen, tensors = batch(spec.views, 3, 32, spec.proprio_dim, seed=1)
    torch.manual_seed(7)
    seeds = torch.randint(2**62, (3,)).tolist()
    asked = [
        Observation(o.images, o.proprio, o.instruction, o.embodiment, seed)
        for o, seed in zip(seen, seeds, strict=True)
    ]
    expected = np.stack([chunk.actions for chunk in engine.act(asked)])
    copy = FOLDER / "copies" / kind
    policy.save_pretrained(copy)
    results = []
    for chosen in (policy, type(policy).from_pretrained(copy), type(policy).from_pretrained(folder)):
        torch.manual_seed(7)
        results.append(after(chosen.predict_action_chunk(before(dict(tensors)))).numpy())
    policy.reset()
    torch.manual_seed(7)
    steps = [policy.select_action(before(dict(tensors))).numpy() for _ in range(policy.config.executed_steps)]
    return {
        "shape": list(expected.shape),
        "equal": [np.array_equal(result, expected) for result in results],
        "steps": np.array_equal(np.stack(steps, 1), expected[:, : len(steps)]),
        "kind": policy.config.type,
        "continues": continues(policy, before, after, tensors, engine, asked, expected[0]),
    }


def continues(policy, before, after, tensors, engine, asked, chunk):
    """What LeRobot's real-time chunking asks for: a chunk that continues what is left, filled up with zeros as there;
    whether it is our engine's, or the message where the policy cannot."""
    left = chunk[2:5]
    given = torch.from_numpy(np.pad(left, ((0, 3), (0, 0))))
    delayed = {"inference_delay": 1, "prev_chunk_left_over": given}
    torch.manual_seed(7)
    if not policy.supports_rtc():
        return refused(lambda: policy.predict_action_chunk(before(dict(tensors)), **delayed))
    found = after(policy.predict_action_chunk(before(dict(tensors)), **delayed)).numpy()
    expected = engine.act([replace(observation, previous=left, delay=1) for observation in asked])
    plain = engine.act(asked)
    assert not np.array_equal(expected[0].actions, plain[0].actions)
    return np.array_equal(found, np.stack([each.actions for each in expected]))


def losses_are_ours(folder):
    """LeRobot's samples through the plug-in, and the same samples through our own reader and policy."""
    config = PreTrainedConfig.from_pretrained(folder, cli_overrides=["--device=cpu"])
    config.pretrained_path = folder
    times = {f"observation.images.{view}": config.observation_delta_indices for view in gym_square.VIEWS}
    times |= {"observation.state": config.observation_delta_indices, "action": config.action_delta_indices}
    fps = LeRobotDataset("wamkit/square", FOLDER / "dataset").fps
    times = {name: [step / fps for step in steps] for name, steps in times.items()}
    dataset = LeRobotDataset("wamkit/square", FOLDER / "dataset", delta_timestamps=times)
    policy = make_policy(config, ds_meta=dataset.meta)
    before, _ = make_pre_post_processors(config, str(folder))
    rows = [0, 5, len(dataset) - 1]  # the last one is mostly padding
    items = before(torch.utils.data.default_collate([dataset[row] for row in rows]))
    torch.manual_seed(3)
    total, named = policy.train().forward(items)
    total.backward()
    run = load_run(folder)
    samples = Fresh(open_clips(run, [FOLDER / "dataset"])[0], build_encoder(run))
    torch.manual_seed(3)
    draws = Draws.of_step(torch.randint(2**62, (4,)).tolist()[0], 0, torch.device("cpu"), 0, 3, 3)
    network = policy.model.network
    expected = network(read_all(samples, rows).batch(network.embodiment), draws)
    weighted = sum(weight * expected[name] for name, weight in network.loss_weights.items())
    groups = [parameter for group in policy.get_optim_params() for parameter in group["params"]]
    return {
        "equal": {name: value == expected[name].item() for name, value in named.items()},
        "total": abs(total.item() - weighted.item()) < 1e-6 * abs(total.item()),
        "learns": sum(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in groups),
        "groups": len(groups),
    }


def actions_were_the_engines(folder):
    """In the episode that `lerobot-eval` ran last: every action executed, beside our engine's answers."""
    engine, steps = wamkit.load_policy(folder), load_run(folder).eval.replan_steps
    episode = gym_square.EPISODES[-1]
    if not episode["done"]:  # the vector environment has begun another one
        episode = gym_square.EPISODES[-2]
    expected = []
    for first in range(0, gym_square.STEPS, steps):
        seen = episode["seen"][first]
        state = seen["agent_pos"].astype(np.float32)
        asked = Observation(seen["pixels"], state, gym_square.Square.task, "robot")
        expected.append(engine.act([asked])[0].actions[:steps])
    return np.array_equal(np.stack(episode["done"]), np.concatenate(expected)[: gym_square.STEPS])


def refused(function, *arguments):
    """The message of a BadInput."""
    try:
        function(*arguments)
    except BadInput as error:
        return str(error)
    return "not refused"


def refusals(folder):
    policy, before, _ = loaded(folder)
    _, tensors = batch(gym_square.VIEWS, 1, 32, gym_square.PROPRIO, seed=1)
    act = policy.predict_action_chunk
    front = "observation.images.front"
    config = PreTrainedConfig.from_pretrained(folder)
    kinds = PreTrainedConfig.get_choice_class("wamkit_fast_wam")
    return {
        "camera": refused(act, {name: x for name, x in tensors.items() if name != front}),
        "task": refused(act, {name: x for name, x in tensors.items() if name != "task"}),
        "pixels": refused(act, tensors | {front: tensors[front] * 2 - 1}),
        "nan": refused(act, tensors | {front: tensors[front] * torch.nan}),
        "state": refused(act, tensors | {"observation.state": torch.zeros(1, 5)}),
        "forward": refused(policy.forward, before(dict(tensors))),
        "steps": refused(loaded, folder, "--n_action_steps=99"),
        "engine": refused(loaded, folder, "--engine=warp"),
        "robot": refused(loaded, folder, "--robot=ur5"),
        "normalized": refused(loaded, folder, '--normalization_mapping={"VISUAL": "MEAN_STD"}'),
        "nothing": refused(type(config)().run),
        "kind": refused(kinds(pretrained_path=folder).run),
        "no dataset": refused(
            make_policy,
            type(config)(recipe=str(FOLDER / "recipe.py"), device="cpu"),
            None,
            gym_square.SquareEnv(),
        ),
        "wide": refused(
            make_policy, type(config)(recipe="metaworld3", device="cpu"), None, gym_square.SquareEnv()
        ),
        "folder": refused(type(policy).from_pretrained, "/no/such/folder"),
        "no run": refused(type(policy).from_pretrained, FOLDER),
    }


def main():
    out, runs = FOLDER / "trained", FOLDER / "runs"
    recipe = ("--policy.type=wamkit_light_wam", f"--policy.recipe={FOLDER / 'recipe.py'}")
    train(out, *recipe, "--steps=4")
    last = out / "checkpoints/last/pretrained_model"
    train(out, "--resume=true", f"--config_path={last / 'train_config.json'}", "--steps=6")
    register_third_party_plugins()
    found = {"version": version("lerobot"), "chunks": {kind: chunks_are_the_engines(kind) for kind in KINDS}}
    train(FOLDER / "tuned", f"--policy.path={runs / 'light_wam'}", "--steps=2")
    evaluated = FOLDER / "evaluated"
    words = ("--env.type=square", "--eval.n_episodes=2", "--eval.batch_size=1", "--policy.device=cpu")
    command(lerobot_eval.main, f"--policy.path={last}", *words, f"--output_dir={evaluated}")
    found |= {
        "checkpoints": sorted(path.name for path in (out / "checkpoints").iterdir()),
        "episode": actions_were_the_engines(last),
        "losses": {kind: losses_are_ours(FOLDER / "runs" / kind) for kind in ("light_wam", "fast_wam")},
        "refusals": refusals(last),
    }
    (FOLDER / "found.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
