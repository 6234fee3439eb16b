"""A stand-in for RoboTwin's former evaluator: it imports the policy by name and always runs 100 episodes."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

sys.path[:0] = ["./", "./policy"]

from envs import table  # noqa: E402


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", required=True)
    asked = json.loads(Path(parser.parse_args().config).read_text())
    policy = importlib.import_module(asked["policy_name"])
    assert Path(f"./task_config/{asked['task_config']}.yml").exists()
    assert asked["instruction_type"] in ("seen", "unseen") and asked["ckpt_setting"]
    task = table.Table(asked["task_name"])
    model = policy.get_model(asked)
    solved, seed = 0, 100_000 * (1 + asked["seed"])
    for episode in range(100):
        while not table.solvable(task, episode, seed):
            seed += 1
        task.setup_demo(now_ep_num=episode, seed=seed, is_test=True)
        task.set_instruction(instruction=f"{asked['instruction_type']} words {seed}")
        odd = table.behaviour().get("odd", [])
        policy.reset_model(model)
        if "resets twice" in odd:
            policy.reset_model(model)
        if "gives up" in odd:
            other = table.Table(asked["task_name"])
            other.setup_demo(now_ep_num=episode, seed=5, is_test=True)
            other.set_instruction("gives up")
            other.test_num = episode
            policy.eval(other, model, other.get_obs())
            policy.reset_model(model)
        while task.take_action_cnt < task.step_lim:
            policy.eval(task, model, task.get_obs())
            if task.eval_success:
                break
        solved += task.eval_success
        task.close_env()
        table.report(task, asked["policy_name"], asked["task_config"], solved, seed)
        seed += 1


main()
