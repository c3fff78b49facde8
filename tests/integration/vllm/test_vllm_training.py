"""Training trees that a real vLLM server samples, while the trainer's own model gives h(s) and v̂.

TRL sends weights to a server over NCCL, which needs CUDA, so here the server keeps the weights that it has loaded, which
are those that the trainer starts from: the first step is the real one.
"""

import sys
import urllib.request
from pathlib import Path

import pytest
import torch

pytest.importorskip("trl")
sys.path.insert(0, str(Path(__file__).parents[2] / "integrations"))
import recorded


def requests_served(server):
    text = urllib.request.urlopen(f"{server.url}/metrics", timeout=30).read().decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("vllm:request_success_total"))


@pytest.fixture
def trainer(servers, tmp_path):
    search = {"simulations": 14, "max_expands": 1, "c_puct": 0.1}
    options = {"max_steps": 1, "easy_accuracy": 1.0, "process_reward": "strict", **search}
    args = recorded.settings(tmp_path, 4, vllm_server_base_url=servers["first"].url, **options)
    trainer = recorded.make_trainer(args)
    trainer.use_vllm, trainer.vllm_mode = True, "server"
    trainer._last_loaded_step = 0  # the weights of step 0 are there
    trainer.rollout._mode = "raw_logprobs"  # as the servers were started; TRL's own client, which asks them, needs CUDA
    return trainer


def test_the_server_samples_and_the_trainer_s_head_values(trainer, servers):
    before = requests_served(servers["first"])
    trees = trainer.rollout.grow(recorded.QUESTIONS[:2], trainer)
    assert requests_served(servers["first"]) >= before + 20
    model, head = trainer.model, trainer.value_head
    for shaped in trees:
        tree = shaped.tree
        assert len(tree) > 20
        for node in range(1, len(tree), 7):
            ids = [token for step in tree.path(node) for token in tree.tokens[step]]
            with torch.no_grad():
                output = model(torch.tensor([ids]), output_hidden_states=True)
                value = float(head(output.hidden_states[-1][0].mean(0)))
            assert tree.value[node] == pytest.approx(value, abs=1e-4)
            own = len(tree.logprobs[node])
            logprobs = torch.log_softmax(output.logits[0], -1)[-own - 1 : -1]
            expected = logprobs.gather(1, torch.tensor(ids[-own:])[:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(tree.logprobs[node]), expected.float(), atol=2e-4, rtol=2e-4)


def test_a_step_weighs_its_samples_by_the_server_s_log_probabilities(trainer):
    weights = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.train()
    entry = trainer.state.log_history[0]
    assert entry["lapha/policy_rows"] > 0
    assert entry["sampling/importance_sampling_ratio/mean"] == pytest.approx(1, abs=1e-2)
    moved = [name for name, tensor in trainer.model.state_dict().items() if not torch.equal(tensor, weights[name])]
    assert "value_head.linear.weight" in moved
    assert len(moved) > 10
