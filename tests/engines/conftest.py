"""Fixtures of the engine tests."""

import pytest
import torch
from engine_models import make_model, make_tokenizer

from lapha.latent import ValueHead


@pytest.fixture(scope="session")
def model():
    return make_model()


@pytest.fixture(scope="session")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="session")
def head():
    torch.manual_seed(5)
    head = ValueHead(32)
    torch.nn.init.normal_(head.linear.weight, std=0.5)
    return head


@pytest.fixture
def engine(model, tokenizer, head):
    from lapha.engines import TransformersEngine

    engine = TransformersEngine(model, tokenizer, head)
    yield engine
    engine.close()
