"""The transformers engine against whole forward passes, one sequence at a time."""

import asyncio
import gc
import random
import threading
import time

import engine_oracle as oracle
import pytest
import torch
from engine_models import END, make_model, run

from lapha.agent import ChatEnvironment
from lapha.engines import TransformersEngine
from lapha.search import Search, SearchConfig
from lapha.tiny import SEARCH, load_tiny, problems
from lapha.types import Evaluator, Policy, SampleRequest, SamplingParams, State

WARM = SamplingParams(max_tokens=9, temperature=0.8, top_p=0.9, top_k=12, repetition_penalty=1.3)
PLAIN = SamplingParams(max_tokens=9, temperature=1.0, top_p=1.0, top_k=0, repetition_penalty=1.0)
PROMPT = (0, 14, 15, 92, 65, 35, 89, 79, 32)


def request(state=PROMPT, bridge=(), n=3, params=WARM, seed=11, name=""):
    state = state if isinstance(state, State) else State(tuple(state))
    return SampleRequest(state, tuple(bridge), n, params, seed, name)


def tokens_of(samples):
    return [sample.token_ids for sample in samples]


def check_sample(model, sample, context):
    """Log-probabilities, h(s) and the state of one sample against a forward pass over the whole of it."""
    ids = (*context, *sample.token_ids)
    assert sample.state.token_ids == ids
    hidden, logits = oracle.forward(model, ids)
    expected = torch.log_softmax(logits, dim=-1)[len(context) - 1 : -1].gather(
        1, torch.tensor(sample.token_ids)[:, None]
    )
    torch.testing.assert_close(torch.tensor(sample.logprobs).double(), expected[:, 0], atol=1e-5, rtol=1e-5)
    assert sample.pooled.dtype == torch.float32
    torch.testing.assert_close(sample.pooled.double(), hidden.mean(dim=0), atol=1e-5, rtol=1e-5)
    assert (sample.finish_reason == "stop") == (sample.token_ids[-1] == END)
    assert END not in sample.token_ids[:-1]


async def grow(engine, depth=3, params=WARM, seed=0, prompt=PROMPT):
    """A line of expansions with bridges: all samples, with the context of each."""
    found, context, state, bridge = [], tuple(prompt), State(tuple(prompt)), ()
    for level in range(depth):
        samples = await engine.sample(request(state, bridge, 4, params, seed * 100 + level))
        found += [(sample, context) for sample in samples]
        state, bridge = samples[level % 4].state, (20 + level, 21, 22)[: level + 1]
        context = state.token_ids + bridge
    return found


@pytest.mark.parametrize(
    "params", [WARM, PLAIN, SamplingParams(9, 0.0, 1.0, 0, 1.0), SamplingParams(9, 0.7, 0.8, 20, 1.05)]
)
def test_samples_are_those_of_whole_forward_passes(engine, model, params):
    samples = run(engine.sample(request(params=params)))
    for index, sample in enumerate(samples):
        tokens, logprobs = oracle.continuation(model, PROMPT, params, 11, index)
        assert sample.token_ids == tokens
        assert sample.logprobs == pytest.approx(logprobs, abs=1e-5)
        assert sample.text == "".join(f"w{token}" for token in tokens if token != END)


def test_logprobs_and_pooled_states_down_a_tree(engine, model):
    for seed in range(2):
        for sample, context in run(grow(engine, seed=seed)):
            check_sample(model, sample, context)


def test_protocols(engine):
    assert isinstance(engine, Policy)
    assert isinstance(engine, Evaluator)
    assert engine.reuses_kv
    assert engine.hidden_size == 32


def test_company_does_not_change_a_request(model, tokenizer):
    """One request alone, and among thirty of other lengths and parameters in a batch too small for all of them."""
    alone = TransformersEngine(model, tokenizer)
    crowded = TransformersEngine(model, tokenizer, max_batch=16, max_prefill_tokens=64)

    async def crowd():
        others = [
            crowded.sample(request(PROMPT[: 2 + k % 7] + (k + 4,), n=1 + k % 5, params=(WARM, PLAIN)[k % 2], seed=k))
            for k in range(30)
        ]
        return (await asyncio.gather(*others[:15], crowded.sample(request()), *others[15:]))[15]

    expected = run(alone.sample(request()))
    assert tokens_of(run(crowd())) == tokens_of(expected)
    assert crowded.stats.rows / crowded.stats.steps > 8


def test_many_trees_at_once_are_the_trees_one_at_a_time(model, tokenizer):
    one, many = TransformersEngine(model, tokenizer), TransformersEngine(model, tokenizer, max_batch=24)

    async def together():
        return await asyncio.gather(*(grow(many, 3, seed=seed, prompt=PROMPT[: 4 + seed % 5]) for seed in range(8)))

    for seed, tree in enumerate(run(together())):
        expected = run(grow(one, 3, seed=seed, prompt=PROMPT[: 4 + seed % 5]))
        assert [s.token_ids for s, _ in tree] == [s.token_ids for s, _ in expected]
        for (sample, _), (other, _) in zip(tree, expected):
            torch.testing.assert_close(sample.pooled, other.pooled, atol=1e-5, rtol=1e-5)
        check_sample(model, *tree[-1])


@pytest.mark.parametrize("budget", [0, 6000, 40_000])
def test_eviction_changes_nothing_but_the_work(model, tokenizer, budget):
    rich, poor = TransformersEngine(model, tokenizer), TransformersEngine(model, tokenizer, kv_budget_bytes=budget)

    async def both_ways(engine):
        first = await grow(engine, 4)
        for seed in range(1, 3):
            await grow(engine, 2, seed=seed, prompt=PROMPT[:3] + (30 + seed,))  # push the first tree out
        again = await asyncio.gather(
            *(engine.sample(request(sample.state, (5, 6), 2, seed=3)) for sample, _ in first[::2])
        )
        return first, again

    (first, again), (poor_first, poor_again) = run(both_ways(rich)), run(both_ways(poor))
    assert poor.kv_bytes <= budget
    assert poor.stats.prefilled_tokens > rich.stats.prefilled_tokens
    assert [s.token_ids for s, _ in poor_first] == [s.token_ids for s, _ in first]
    for mine, theirs in zip(poor_again, again):
        assert tokens_of(mine) == tokens_of(theirs)
        for sample, other in zip(mine, theirs):
            torch.testing.assert_close(sample.pooled, other.pooled, atol=1e-5, rtol=1e-5)


def test_seeds(engine):
    first, again, other = (run(engine.sample(request(n=6, seed=seed))) for seed in (1, 1, 2))
    assert tokens_of(first) == tokens_of(again) != tokens_of(other)
    assert len({tuple(tokens) for tokens in tokens_of(first)}) > 1
    assert tokens_of(run(engine.sample(request(n=2, seed=1)))) == tokens_of(first)[:2]


def test_a_context_is_computed_once(engine):
    """Prefill counts: the prompt once, then bridges alone, and a second expansion nothing."""

    async def scenario():
        counts = []
        child = (await engine.sample(request()))[0]
        counts.append(engine.stats.prefilled_tokens)
        keep = await engine.sample(request(child.state, (5, 6), 3))
        counts.append(engine.stats.prefilled_tokens)
        await engine.sample(request(child.state, (5, 6), 3, seed=99))
        await engine.sample(request(seed=98))
        await engine.sample(request(child.state, (), 2))
        counts.append(engine.stats.prefilled_tokens)
        return counts, keep

    counts, _ = run(scenario())
    assert counts == [len(PROMPT), len(PROMPT) + 2, len(PROMPT) + 2]


def test_evaluation_is_exact_by_either_road_and_free_with_a_handle(engine, model, head):
    async def scenario():
        samples = [sample for sample, _ in await grow(engine, 3)]
        before = (engine.stats.prefilled_tokens, engine.stats.steps)
        free = await engine.evaluate([sample.state for sample in samples])
        assert (engine.stats.prefilled_tokens, engine.stats.steps) == before
        engine.invalidate()
        whole = await engine.evaluate([State(sample.state.token_ids) for sample in samples])
        stale = await engine.evaluate([sample.state for sample in samples])
        return samples, free, whole, stale

    samples, free, whole, stale = run(scenario())
    for sample, *evaluations in zip(samples, free, whole, stale):
        expected = oracle.pooled(model, sample.state.token_ids)
        logit = head.linear.weight.detach().double() @ expected + head.linear.bias.detach().double()
        for evaluation in evaluations:
            torch.testing.assert_close(evaluation.pooled.double(), expected, atol=1e-5, rtol=1e-5)
            assert evaluation.value == pytest.approx(float(torch.sigmoid(logit)), abs=1e-5)
    assert len({evaluation.value for evaluation in free}) > 1


def test_states_without_handles_build_on_what_they_begin_with(engine, model):
    """As an evaluator of another engine's states, a tree costs each token once."""
    states = [PROMPT, PROMPT + (40, 41), PROMPT + (50,), PROMPT + (40, 41, 42, 43, 44), PROMPT[:4]]
    counts = []

    async def one_by_one():
        for state in states:
            before = engine.stats.prefilled_tokens
            (evaluation,) = await engine.evaluate([State(state)])
            counts.append(engine.stats.prefilled_tokens - before)
            torch.testing.assert_close(evaluation.pooled.double(), oracle.pooled(model, state), atol=1e-5, rtol=1e-5)
        return await engine.sample(request(states[3], (7,)))

    samples = run(one_by_one())
    assert counts == [len(PROMPT), 2, 1, 3, 4]
    check_sample(model, samples[0], (*states[3], 7))


def test_no_value_head_says_a_half(model, tokenizer):
    engine = TransformersEngine(model, tokenizer)
    assert run(engine.evaluate([State(PROMPT)]))[0].value == 0.5
    assert run(engine.evaluate([])) == []


def test_weights_that_change(tokenizer):
    """After `invalidate`, old handles give what a fresh engine over the new weights gives."""
    model = make_model(seed=1)
    engine = TransformersEngine(model, tokenizer)
    child = run(engine.sample(request()))[0]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    engine.invalidate()
    samples = run(engine.sample(request(child.state, (7,))))
    fresh = run(TransformersEngine(model, tokenizer).sample(request(State(child.state.token_ids), (7,))))
    assert tokens_of(samples) == tokens_of(fresh)
    for sample in samples:
        check_sample(model, sample, (*child.state.token_ids, 7))


def test_a_live_model_gets_its_mode_and_gradients_back(tokenizer):
    model = make_model().train()
    model.model.layers[1].eval()
    modes = [module.training for module in model.modules()]
    engine = TransformersEngine(model, tokenizer)
    assert [module.training for module in model.modules()] == modes
    samples = run(engine.sample(request(params=PLAIN)))
    assert [module.training for module in model.modules()] == modes
    check_sample(make_model(), samples[0], PROMPT)  # and its dropout was off
    model(input_ids=torch.tensor([PROMPT])).logits.sum().backward()
    assert model.lm_head.weight.grad is not None


def test_handles_of_another_engine_are_not_trusted(model, tokenizer):
    other_model = make_model(seed=3)
    other = run(TransformersEngine(other_model, tokenizer).sample(request()))[0]
    sample = run(TransformersEngine(model, tokenizer).sample(request(other.state, (8,))))[0]
    check_sample(model, sample, (*other.state.token_ids, 8))


def test_a_tree_that_is_gone_frees_its_memory(engine):
    def grow_and_drop():
        run(grow(engine, 4))
        return engine.kv_bytes

    full = grow_and_drop()
    gc.collect()
    run(engine.sample(request((0, 4), n=1, params=SamplingParams(max_tokens=1))))
    assert engine.kv_bytes < full / 2


def test_stop_tokens_and_lengths(model, tokenizer):
    engine = TransformersEngine(model, tokenizer, stop_token_ids=range(4, 60))
    for sample in run(engine.sample(request(n=8, params=PLAIN))):
        assert all(not 4 <= token < 60 for token in sample.token_ids[:-1])
        assert (4 <= sample.token_ids[-1] < 60) == (sample.finish_reason == "stop")
    one = run(engine.sample(request(n=5, params=SamplingParams(max_tokens=1))))
    assert {len(sample.token_ids) for sample in one} == {1}


def test_a_step_ends_with_the_chat_templates_turn():
    """Base models have another end-of-sequence token than the one that ends a turn."""
    model, tokenizer, _ = load_tiny()
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    assert tokenizer.eos_token_id == end
    tokenizer.eos_token = tokenizer.pad_token
    model.generation_config.eos_token_id = tokenizer.pad_token_id
    engine = TransformersEngine(model, tokenizer)
    assert engine.stop_token_ids == {tokenizer.pad_token_id, end}
    root, _ = engine.environment.start(problems.generate(1, seed=0)[0].question)
    samples = run(engine.sample(SampleRequest(root, (), 8, SEARCH, 0)))
    assert {sample.finish_reason for sample in samples} == {"stop"}
    assert all(sample.token_ids[-1] == end and "<|end|>" not in sample.text for sample in samples)


def test_the_context_window(model, tokenizer):
    engine = TransformersEngine(model, tokenizer, stop_token_ids=[2])
    greedy = SamplingParams(max_tokens=50, temperature=0.0)
    sample = run(engine.sample(request((0,) + (5,) * 252, n=1, params=greedy)))[0]
    assert len(sample.state.token_ids) == 256
    assert sample.finish_reason == "length"
    with pytest.raises(ValueError, match=r"state.token_ids: expected 1 to 255 tokens .* got 256 in request 'q7'"):
        run(engine.sample(request((5,) * 256, name="q7")))
    with pytest.raises(ValueError, match=r"state\.token_ids"):
        run(engine.sample(request(())))


def test_requests_larger_than_the_batch(model, tokenizer):
    engine = TransformersEngine(model, tokenizer, max_batch=2, max_prefill_tokens=4)
    assert tokens_of(run(engine.sample(request(n=7)))) == tokens_of(
        run(TransformersEngine(model, tokenizer).sample(request(n=7)))
    )


def test_long_contexts_are_prefilled_in_pieces(model, tokenizer, monkeypatch):
    monkeypatch.setattr("lapha.engines.transformers_engine.prefill._CHUNK_TOKENS", 7)
    engine = TransformersEngine(model, tokenizer)

    async def together():
        contexts = [PROMPT, PROMPT + (40, 41, 42) * 6, PROMPT[:4]]
        return contexts, await asyncio.gather(*(engine.sample(request(context)) for context in contexts))

    contexts, results = run(together())
    for context, samples in zip(contexts, results):
        assert samples[0].token_ids == oracle.continuation(model, context, WARM, 11, 0)[0]
        check_sample(model, samples[1], context)


def test_the_running_batch_is_kept_within_its_memory(model, tokenizer, monkeypatch):
    """Slots for about ten rows: twenty requests take turns, and all are answered."""
    per_row = 2 * 3 * 2 * 8 * 4 * (len(PROMPT) + WARM.max_tokens)
    monkeypatch.setattr("lapha.engines.transformers_engine.engine._CPU_BYTES", 10 * per_row)
    engine = TransformersEngine(model, tokenizer)

    async def together():
        return await asyncio.gather(*(engine.sample(request(seed=seed)) for seed in range(20)))

    results = run(together())
    expected = run(TransformersEngine(model, tokenizer, kv_budget_bytes=0).sample(request(seed=19)))
    assert tokens_of(results[19]) == tokens_of(expected)
    assert engine.stats.rows / engine.stats.steps <= 10


def test_cancelled_requests_leave_the_others_alone(engine):
    expected = tokens_of(run(engine.sample(request(seed=5, params=PLAIN))))

    async def scenario():
        long = SamplingParams(max_tokens=200, temperature=1.0, top_p=1.0, top_k=0)
        doomed = [asyncio.create_task(engine.sample(request(seed=k, n=8, params=long))) for k in range(3)]
        kept = asyncio.create_task(engine.sample(request(seed=5, params=PLAIN)))
        await asyncio.sleep(0.005)
        for task in doomed:
            task.cancel()
        return await asyncio.gather(*doomed, kept, return_exceptions=True)

    results = run(scenario())
    assert all(isinstance(result, asyncio.CancelledError) for result in results[:3])
    assert tokens_of(results[3]) == expected


def test_errors_reach_all_who_wait_and_the_engine_goes_on(tokenizer):
    model = make_model()
    engine = TransformersEngine(model, tokenizer)
    healthy = model.model.norm.weight.data

    async def scenario():
        return await asyncio.gather(*(engine.sample(request(seed=k)) for k in range(4)), return_exceptions=True)

    model.model.norm.weight.data = healthy[:-1]  # a shape error in the middle of the forward pass
    assert all(isinstance(result, RuntimeError) for result in run(scenario()))
    model.model.norm.weight.data = healthy
    assert all(len(result) == 3 for result in run(scenario()))


def test_two_event_loops_share_an_engine(engine):
    expected = [tokens_of(run(engine.sample(request(seed=k)))) for k in range(2)]
    results = {}

    def work(seed):
        for _ in range(5):
            results.setdefault(seed, []).append(tokens_of(run(engine.sample(request(seed=seed)))))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {seed: [expected[seed]] * 5 for seed in range(2)}


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16(tokenizer, autocast):
    model = make_model() if autocast else make_model().to(torch.bfloat16)
    engine = TransformersEngine(model, tokenizer, autocast=torch.bfloat16 if autocast else None)
    assert engine.reuses_kv
    sample = run(engine.sample(request(params=PLAIN)))[0]
    expected = oracle.pooled(model, (*PROMPT, *sample.token_ids))
    torch.testing.assert_close(sample.pooled.double(), expected, atol=0.05, rtol=0.05)
    assert sample.pooled.dtype == torch.float32
    whole = run(engine.evaluate([State(sample.state.token_ids)]))[0].pooled
    torch.testing.assert_close(sample.pooled, whole, atol=0.02, rtol=0.02)
    assert model.lm_head.weight.dtype == (torch.float32 if autocast else torch.bfloat16)


def test_lockstep_makes_a_search_the_same_to_the_bit_whatever_the_timing():
    """Trees of several sizes grow side by side while the event loop is held up at random."""
    questions = [problem.question for problem in problems.generate(12, seed=8)]

    def grow(hold_up):
        model, tokenizer, head = load_tiny()
        environment = ChatEnvironment(tokenizer, depth_limit=8, context_limit=512)
        engine = TransformersEngine(model, tokenizer, head, lockstep=True)
        config = SearchConfig(simulations=6, breadth=4, depth_limit=8, sampling=SEARCH, prune_every=3)
        search = Search(engine, environment=environment, config=config, stop=hold_up)
        results = list(search.run(questions, concurrency=5))
        assert engine.stats.steps > 20
        return [
            (result.tree.tokens, result.tree.value.tobytes(), result.latents.radius.numpy().tobytes())
            for result in results
        ]

    def hold_up(tree):
        time.sleep(0.004 * rng.random())
        return False

    rng = random.Random(0)
    assert grow(hold_up) == grow(lambda tree: False)
