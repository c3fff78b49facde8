"""Steps of reasoning, each said in five ways, embedded by a real language model: what pruning should find.

    python -m benchmarks.paraphrases --model NAME_OR_PATH --output steps.safetensors
    python -m benchmarks clustering --quality --embeddings steps.safetensors

The steps are first steps towards one question, as siblings in a search tree are. The label of a step is which of twelve
things it says. Written for this benchmark.
"""

from __future__ import annotations

import argparse
import asyncio

import torch
from safetensors.torch import save_file

from lapha.agent import ChatEnvironment
from lapha.engines import TransformersEngine
from lapha.types import State

QUESTION = "A shop sells pens at 3 dollars and notebooks at 5 dollars. Ana buys 12 things for 46 dollars. How many pens does she buy?"
STEPS = (
    (
        "Let p be the number of pens and n the number of notebooks.",
        "Call the number of pens p and the number of notebooks n.",
        "Write p for how many pens there are and n for how many notebooks.",
        "We use p to count the pens and n to count the notebooks.",
        "Denote the pens by p and the notebooks by n.",
    ),
    (
        "Twelve things in all gives p + n = 12.",
        "Since she buys 12 things, p + n = 12.",
        "The total count is 12, so p + n must be 12.",
        "Pens and notebooks together are 12: p + n = 12.",
        "From the number of things we get the equation p + n = 12.",
    ),
    (
        "The prices give 3p + 5n = 46.",
        "She pays 46 dollars, so 3p + 5n = 46.",
        "Adding up the cost, 3p + 5n has to be 46.",
        "Three dollars a pen and five a notebook make 46: 3p + 5n = 46.",
        "From the money spent we get the equation 3p + 5n = 46.",
    ),
    (
        "If all 12 things were pens, they would cost 36 dollars.",
        "Suppose she bought only pens: 12 times 3 is 36 dollars.",
        "Twelve pens alone would come to 36 dollars.",
        "With pens only, the bill would be 12 * 3 = 36.",
        "Imagine that every item is a pen; then the price is 36 dollars.",
    ),
    (
        "If all 12 things were notebooks, they would cost 60 dollars.",
        "Suppose she bought only notebooks: 12 times 5 is 60 dollars.",
        "Twelve notebooks alone would come to 60 dollars.",
        "With notebooks only, the bill would be 12 * 5 = 60.",
        "Imagine that every item is a notebook; then the price is 60 dollars.",
    ),
    (
        "Let me write a program that tries every number of pens.",
        "I will loop over all possible pen counts in Python.",
        "A short script can test each value from 0 to 12.",
        "We can check all the cases with a for loop.",
        "Let the computer go through every possible number of pens.",
    ),
    (
        "Work modulo 5: 3p leaves the remainder 1, so p is 2, 7 or 12.",
        "Look at the equation mod 5: 3p = 1, hence p = 2, 7 or 12.",
        "Modulo five we need 3p to be 1, which gives p in {2, 7, 12}.",
        "Taking remainders by 5, p can only be 2, 7 or 12.",
        "Because 46 - 3p must be divisible by 5, p is one of 2, 7, 12.",
    ),
    (
        "Guess that she buys 6 of each: that costs 48 dollars, too much.",
        "Try 6 pens and 6 notebooks: 18 + 30 = 48, slightly over.",
        "Starting with an even split of 6 and 6 we get 48 dollars.",
        "Half pens and half notebooks would cost 48, which is 2 too many.",
        "A first guess of six and six gives 48 dollars instead of 46.",
    ),
    (
        "The average price is 46 / 12, about 3.83 dollars.",
        "On average a thing costs 46 divided by 12, which is 3.83.",
        "Dividing 46 dollars by 12 things gives roughly 3.83 each.",
        "Each item costs about 3.83 dollars on average.",
        "The mean price per thing is 46/12, or 3.83 dollars.",
    ),
    (
        "This can be drawn as two lines whose crossing is the answer.",
        "Plot both equations; where the lines meet is the solution.",
        "Graphically, the answer is the point where two lines intersect.",
        "Sketch the two lines and read off where they cross.",
        "The solution is the intersection of two straight lines in the plane.",
    ),
    (
        "Write the system as a matrix and invert it.",
        "Put the two equations in matrix form and multiply by the inverse.",
        "In matrix notation the unknowns follow from the inverse matrix.",
        "We can solve it with the inverse of the coefficient matrix.",
        "Use linear algebra: invert the two-by-two matrix of coefficients.",
    ),
    (
        "The question does not say that she buys at least one of each.",
        "Note that nothing forces her to buy both kinds.",
        "It is not stated that both pens and notebooks are bought.",
        "She might buy only one kind; the problem does not exclude it.",
        "Be careful: the text allows that one of the two counts is zero.",
    ),
)


def embed(engine: TransformersEngine) -> dict[str, torch.Tensor]:
    """h (N, H) of every step behind the question, root (H,) of the question alone, label (N,)."""
    tokenizer = engine.tokenizer
    root, _ = ChatEnvironment(tokenizer, context_limit=2048).start(QUESTION)
    texts = [(label, text) for label, ways in enumerate(STEPS) for text in ways]
    states = [root]
    for _, text in texts:
        ids = tokenizer(f"{text}\n</think>", add_special_tokens=False)["input_ids"]
        states.append(State(root.token_ids + tuple(ids)))
    pooled = torch.stack([found.pooled for found in asyncio.run(engine.evaluate(states))]).float()
    return {
        "h": pooled[1:].contiguous(),
        "root": pooled[0].clone(),
        "label": torch.tensor([label for label, _ in texts]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True, help="name or path of a causal LM with a chat template")
    parser.add_argument("--output", required=True, help="safetensors file")
    given = parser.parse_args()
    engine = TransformersEngine.from_pretrained(given.model)
    save_file(embed(engine), given.output)
    engine.close()


if __name__ == "__main__":
    main()
