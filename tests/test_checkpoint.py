import json
import os

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from textgym_agents.checkpoint import (
    load_learning,
    newest_version,
    random_states,
    save_learning,
    set_random_states,
    write_json,
    write_version,
    write_whole,
)


class Killed(BaseException):
    """Stands for a kill: no `except Exception` sees it."""


def write_both(text, kill=False):
    def write(folder):
        (folder / "policy").mkdir()
        (folder / "policy" / "a.txt").write_text(text)
        if kill:
            raise Killed
        (folder / "head.txt").write_text(text)

    return write


def read(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.txt")}


def test_a_kill_in_the_middle_of_a_save_leaves_what_was_there_F33(tmp_path):
    assert write_whole(tmp_path, write_both("one")) == ["head.txt", "policy"]
    (tmp_path / "other.txt").write_text("mine")
    with pytest.raises(Killed):
        write_whole(tmp_path, write_both("two", kill=True))
    assert read(tmp_path) == {"policy/a.txt": "one", "head.txt": "one", "other.txt": "mine"}
    write_whole(tmp_path, write_both("three"))
    assert read(tmp_path) == {"policy/a.txt": "three", "head.txt": "three", "other.txt": "mine"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["head.txt", "other.txt", "policy"]


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before_F33(tmp_path):
    write_version(tmp_path, 2, write_both("two"))
    with pytest.raises(Killed):
        write_version(tmp_path, 10, write_both("ten", kill=True))
    at = newest_version(tmp_path)
    assert at is not None and at.name == "00000002"
    assert read(at) == {"policy/a.txt": "two", "head.txt": "two"}
    write_version(tmp_path, 10, write_both("ten"))
    at = newest_version(tmp_path)
    assert at is not None and at.name == "00000010"
    assert read(at)["head.txt"] == "ten"
    assert [path.name for path in tmp_path.iterdir()] == ["00000010"]  # the older one is no longer needed


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_that_dies_while_it_writes_leaves_what_was_there_F33(tmp_path):
    """No exception, no cleaning up: the process is gone in the middle of the second file."""

    def dies(folder):
        (folder / "head.txt").write_text("half")
        os._exit(0)

    for write, at in ((lambda: write_whole(tmp_path / "a", dies), "a"), (lambda: write_version(tmp_path / "b", 7, dies), "b")):
        (tmp_path / at).mkdir()
        if at == "a":
            write_whole(tmp_path / "a", write_both("one"))
        else:
            write_version(tmp_path / "b", 3, write_both("one"))
        child = os.fork()
        if child == 0:
            write()
        os.waitpid(child, 0)
    assert (tmp_path / "a" / "unfinished" / "head.txt").read_text() == "half"  # it did die in the middle
    assert (tmp_path / "a" / "head.txt").read_text() == "one"
    at = newest_version(tmp_path / "b")
    assert at is not None and at.name == "00000003"
    write_whole(tmp_path / "a", write_both("two"))
    write_version(tmp_path / "b", 8, write_both("two"))
    assert read(tmp_path) == {f"{at}/{name}": "two" for at in ("a", "b/00000008") for name in ("policy/a.txt", "head.txt")}


def test_a_kill_between_two_renames_leaves_the_newest_whole_one(tmp_path):
    """Both versions stand there, and leftovers of a third: the newest whole one counts."""
    for number in (1, 2):
        (tmp_path / f"{number:08d}").mkdir()
    (tmp_path / "unfinished").mkdir()
    at = newest_version(tmp_path)
    assert at is not None and at.name == "00000002"
    assert newest_version(tmp_path / "nothing") is None


def build(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 4))
        model[1].weight = model[1].weight
    return model, torch.optim.AdamW(model.parameters(), lr=0.1), torch.Generator().manual_seed(seed)


def advance(model, optimizer, generator):
    x = torch.rand(5, 3, generator=generator)
    optimizer.zero_grad()
    model(x).square().sum().backward()
    optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


def test_learning_goes_on_exactly_where_it_stood_F32(tmp_path):
    model, optimizer, generator = build(0)
    for _ in range(3):
        advance(model, optimizer, generator)
    optimizer.param_groups[0]["lr"] = 0.03
    save_learning(
        tmp_path, model, optimizer, {"shuffle": generator}, {"kl_coef": 0.1 + 0.2, "progress": {"update": 3}}, build(5)[0]
    )
    expected = [advance(model, optimizer, generator) for _ in range(2)][-1]
    again, other, draws = build(9)
    reference = build(6)[0]
    numbers = load_learning(tmp_path, again, other, {"shuffle": draws}, reference)
    assert numbers == {"kl_coef": 0.1 + 0.2, "progress": {"update": 3}}  # exact: JSON writes every digit of a float
    assert other.param_groups[0]["lr"] == 0.03
    got = [advance(again, other, draws) for _ in range(2)][-1]
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))
    assert torch.equal(reference[0].weight, build(5)[0][0].weight)


def test_a_reference_that_is_there_and_not_here_is_refused(tmp_path):
    model, optimizer, generator = build(0)
    save_learning(tmp_path, model, optimizer, {"shuffle": generator}, {})
    with pytest.raises(ValueError, match="differ in whether there is a reference"):
        load_learning(tmp_path, model, optimizer, {"shuffle": generator}, build(1)[0])


def test_shared_weights_are_written_once(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    optimizer = torch.optim.AdamW(model.parameters())
    save_learning(tmp_path, model, optimizer, {"shuffle": torch.Generator()}, {})
    assert len(load_file(tmp_path / "model.safetensors")) == 1
    load_learning(tmp_path, model, optimizer, {"shuffle": torch.Generator()})
    assert model[1].weight is model[0].weight


def test_generators_of_an_environment_go_on_where_they_stood():
    generators = tuple(np.random.default_rng(i) for i in range(2))
    generators[0].random(3)
    states = json.loads(json.dumps(random_states(generators)))
    expected = [generator.random(4).tolist() for generator in generators]
    others = tuple(np.random.default_rng(77) for _ in range(2))
    set_random_states(others, states)
    assert [generator.random(4).tolist() for generator in others] == expected


def test_a_json_file_is_replaced_in_one_step(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}
    assert [item.name for item in tmp_path.iterdir()] == ["x.json"]


def test_only_what_can_be_written_is_and_only_generators_that_were_saved_are_set(tmp_path):
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    generators = {"policy": torch.Generator()}
    optimizer.state[model.weight]["momentum_buffer"] = None  # an optimizer may keep nothing under a name
    save_learning(tmp_path, model, optimizer, generators, {"done": 3})
    assert load_learning(tmp_path, model, optimizer, generators) == {"done": 3}
    with pytest.raises(ValueError, match=r"holds the generators \['policy'\] but \['order', 'policy'\] are given"):
        load_learning(tmp_path, model, optimizer, {**generators, "order": torch.Generator()})
    optimizer.state[model.weight]["steps"] = [1]
    with pytest.raises(TypeError, match=r"SGD keeps 0\.steps \(list\), and only tensors can be written"):
        save_learning(tmp_path, model, optimizer, generators, {})


def test_what_json_has_no_word_for_is_refused_and_not_written_as_text(tmp_path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(tmp_path / "a.json", {"coefficient": torch.tensor(0.1)})
    assert not (tmp_path / "a.json").exists()
