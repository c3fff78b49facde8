"""GRPO with the joint value loss as a plain loop over recorded trees: no TRL, no packing, no columns.

It is told which rows a trainer put into which micro-batch (as token ids), and works out from the trees what they are worth.
"""

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Row:
    """A sampled step: what it says, what it was worth, and the states on its path."""

    prompt: tuple
    completion: tuple
    advantage: float
    centred: float
    states: tuple  # ((length in tokens, target), ...)


def rows_of(trees):
    """{(prompt, completion): Row} of every sibling group of every tree, and of every other first expansion."""
    known = {}
    for shaped in trees:
        tree = shaped.tree
        groups = [([int(m) for m in group.members], True) for group in shaped.groups]
        children = {}
        for node in range(1, len(tree)):
            children.setdefault(int(tree.parent[node]), []).append(node)
        groups += [(members, False) for members in children.values()]
        for members, trained in groups:
            rewards = [float(shaped.reward[m]) for m in members]
            mean = sum(rewards) / len(rewards)
            deviation = math.sqrt(sum((r - mean) ** 2 for r in rewards) / len(rewards))
            for member, reward in zip(members, rewards, strict=True):
                line = []
                node = member
                while node >= 0:
                    line.insert(0, node)
                    node = int(tree.parent[node])
                states, context = [], []
                for node in line:
                    context += tree.tokens[node]
                    states.append((len(context), float(shaped.value_target[node])))
                sampled = len(tree.tokens[member]) - int(tree.bridge_length[member])
                key = (tuple(context[:-sampled]), tuple(context[-sampled:]))
                # only the values of other expansions are trained, and a tree without signal has no rewards (NaN)
                centred = reward - mean if trained else 0.0
                advantage = centred / (deviation + 1e-4) if trained else 0.0
                known.setdefault(key, Row(*key, advantage, centred, tuple(states)))
    return known


def forward(model, head, row, temperature=1.0):
    """(log-probabilities of the completion, entropies, value at every state with a target)."""
    ids = torch.tensor([row.prompt + row.completion])
    output = model(input_ids=ids, output_hidden_states=True, use_cache=False)
    logprobs = (output.logits[0, len(row.prompt) - 1 : -1] / temperature).log_softmax(-1)
    chosen = logprobs.gather(1, torch.tensor(row.completion)[:, None])[:, 0]
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    hidden = output.hidden_states[-1][0]
    values = [
        (torch.sigmoid(hidden[:end].mean(0) @ head.linear.weight[0] + head.linear.bias[0]), target)
        for end, target in row.states
    ]
    return chosen, entropy, values


@dataclass
class Options:
    """The options of TRL that the loop knows."""

    rate: float
    value_rate: float | None = None
    accumulation: int = 1
    entropy_coef: float = 0.0
    eos: tuple | None = None  # given: rows that do not end in one of these are masked
    scaled: bool = True
    beta: float = 0.0
    value_weight: float = 1.0


def train(model, head, generations, known, options, reference=None, after_step=None):
    """What TRL's settings say, one row after the other.

    Args:
        model, head: changed in place, by plain gradient descent.
        generations: a list of generations, each a list of micro-batches (lists of row keys), in the order of training;
            rows of one generation are compared with the weights at its start.
        known: see `rows_of`.
        reference: a frozen model for the KL term.
        after_step: called after every optimiser step.

    Returns:
        (loss, value loss or NaN) of every micro-batch.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    heads = list(head.parameters())
    losses, count = [], 0
    for generation in generations:
        old = {}
        with torch.no_grad():
            for key in {key for batch in generation for key in batch}:
                old[key] = forward(model, head, known[key])[0]
        for batch in generation:
            rows = [known[key] for key in batch]
            policy, entropies, errors = [], [], []
            for row in rows:
                logps, entropy, values = forward(model, head, row)
                gone = options.eos is not None and row.completion[-1] not in options.eos
                advantage = row.advantage if options.scaled else row.centred
                ratio = torch.exp(logps - old[row.prompt, row.completion])
                loss = -torch.min(ratio * advantage, ratio.clamp(0.8, 1.28) * advantage)
                if reference is not None:
                    with torch.no_grad():
                        other = forward(reference, head, row)[0]
                    loss = loss + options.beta * (torch.exp(other - logps) - (other - logps) - 1)
                policy.append(torch.zeros(()) if gone else loss.mean())
                entropies += [] if gone else [entropy]
                last = len(row.prompt) if gone else len(row.prompt) + len(row.completion)
                errors += [
                    (value - target) ** 2
                    for (end, target), (value, _) in zip(row.states, values, strict=True)
                    if not math.isnan(target) and end <= last
                ]
            loss = torch.stack(policy).mean()
            if options.entropy_coef:
                loss = loss - options.entropy_coef * torch.cat(entropies).mean()
            value = torch.stack(errors).mean() if errors else torch.zeros(())
            losses.append((float(loss), float(value) if errors else math.nan))
            ((loss + options.value_weight * value) / options.accumulation).backward()
            count += 1
            if count % options.accumulation == 0:
                with torch.no_grad():
                    for group, rate in ((trained, options.rate), (heads, options.value_rate or options.rate)):
                        for parameter in group:
                            if parameter.grad is not None:
                                parameter -= rate * parameter.grad
                                parameter.grad = None
                if after_step:
                    after_step()
    return losses


def train_trees(model, head, generations, options, reference=None, after_step=None):
    """The same over whole trees: all groups' rows, and all states' values once, means over an optimiser step.

    Args:
        generations: a list of generations, each a list of micro-batches (rows, states), states being (ids, target).

    Returns:
        the loss of every optimiser step.
    """
    trained, heads = [p for p in model.parameters() if p.requires_grad], list(head.parameters())
    losses, window = [], []
    for generation in generations:
        with torch.no_grad():
            old = {id(row): forward(model, head, row)[0] for rows, _ in generation for row in rows}
        for batch in generation:
            window.append((batch, old))
            if len(window) < options.accumulation:
                continue
            count = sum(len(rows) for (rows, _), _ in window)
            policy, errors = torch.zeros(()), []
            for (rows, states), before in window:
                entropies = []
                for row in rows:
                    logps, entropy, _ = forward(model, head, row)
                    if options.eos is not None and row.completion[-1] not in options.eos:
                        continue
                    advantage = row.advantage if options.scaled else row.centred
                    ratio = torch.exp(logps - before[id(row)])
                    loss = -torch.min(ratio * advantage, ratio.clamp(0.8, 1.28) * advantage)
                    if reference is not None:
                        with torch.no_grad():
                            other = forward(reference, head, row)[0]
                        loss = loss + options.beta * (torch.exp(other - logps) - (other - logps) - 1)
                    policy = policy + loss.mean() / count
                    entropies.append(entropy)
                if options.entropy_coef and entropies:
                    policy = policy - options.entropy_coef * torch.cat(entropies).mean() * len(rows) / count
                for ids, target in states:
                    hidden = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0]
                    value = torch.sigmoid(hidden.mean(0) @ head.linear.weight[0] + head.linear.bias[0])
                    errors.append((value - target) ** 2)
            loss = policy + (options.value_weight * torch.stack(errors).mean() if errors else 0.0)
            losses.append(float(loss.detach()))
            loss.backward()
            window = []
            with torch.no_grad():
                for group, rate in ((trained, options.rate), (heads, options.value_rate or options.rate)):
                    for parameter in group:
                        if parameter.grad is not None:
                            parameter -= rate * parameter.grad
                            parameter.grad = None
            if after_step:
                after_step()
    return losses


def micro_batch(parts, options):
    """(rows, states) of parts of trees: pairs (shaped tree, nodes that are trained there)."""
    rows, states = [], []
    for shaped, nodes in parts:
        tree = shaped.tree
        known = rows_of([shaped])
        for group in shaped.groups:
            for member in map(int, group.members):
                if member in nodes:
                    context, own = tree.context_ids(member), tree.sampled_ids(member)
                    rows.append(known[tuple(context[: len(context) - len(own)]), tuple(own)])
        for node in sorted(nodes):
            target = float(shaped.value_target[node])
            cut = options.eos is not None and node > 0 and tree.tokens[node][-1] not in options.eos
            if not math.isnan(target) and not cut and options.value_weight:
                states.append((tree.context_ids(node), target))
    return rows, states
