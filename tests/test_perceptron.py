import torch
from textgym_agents.integrations.perceptron import OneHot, perceptron


def test_each_place_has_a_vector_and_padding_one_of_its_own():
    assert OneHot(2)(torch.tensor([[1, -1]])).tolist() == [[0, 0, 1, 1, 0, 0]]


def test_a_perceptron_reads_observations_of_any_batch_and_tells_padding_from_token_0():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = perceptron(3, 4, 5, width=8)
    out = net(torch.tensor([[0, 1, -1], [0, 1, 0]]))
    assert out.shape == (2, 5)
    assert not torch.allclose(out[0], out[1])
    assert torch.allclose(net(torch.tensor([[[0, 1, -1]]]))[0, 0], out[0])
