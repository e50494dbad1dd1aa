"""A kept policy says what transformers' own greedy search says, and plays the duel in turns."""

import copy

import pytest
import textgym_agents.player
import torch
from textgym_agents import tiny_gpt2
from textgym_agents.player import Player

import textgym
from textgym.tasks.number_duel import NumberDuel
from textgym.tasks.turn_duel import TurnDuel


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("player")
    tokenizer = NumberDuel().tokenizer
    tiny_gpt2(len(tokenizer), 24, seed=3).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_it_says_what_greedy_search_says(folder):
    player = Player(folder, stop="\n", max_new_tokens=8)
    for text in ("", "A: 47\n", "A: 99\n"):
        ids = torch.tensor([[0, *player.tokenizer.encode(text).tolist()]])
        found = player.lm.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=1, pad_token_id=1)
        said = player.tokenizer.decode(found[0, ids.shape[1] :].tolist())
        assert player(text) == player(text) == said.partition("\n")[0] + ("\n" if "\n" in said else "")


def test_it_stops_at_its_string_and_at_end_of_text(folder):
    player = Player(folder)
    newline = int(player.tokenizer.encode("\n")[0])
    for token, said in ((newline, "\n"), (1, "")):
        with torch.no_grad():
            player.lm.lm_head.weight.zero_()  # all logits are equal but for one
            player.lm.lm_head.weight[token] = 1.0
            hidden = player.lm.transformer(torch.tensor([[0, 2]])).last_hidden_state[0, -1]
            player.lm.lm_head.weight[token] = torch.sign(hidden)
        assert player("A") == said
        player._said.clear()


def test_it_is_an_opponent(folder):
    player = Player(folder)
    assert copy.deepcopy(player) is player
    textgym.checks.check_task(TurnDuel(opponent=player), episodes=8)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot load"):
        Player(tmp_path)


def test_it_ends_with_the_models_context(folder, tmp_path):
    tokenizer = NumberDuel().tokenizer
    tiny_gpt2(len(tokenizer), 9, seed=3).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    player = Player(tmp_path, stop="never said")
    with torch.no_grad():
        player.lm.lm_head.weight[tokenizer.eos_token_id] = 0.0  # beside tokens with logits above 0
    assert len(player.tokenizer.encode(player("A: 47\n"))) == 9 - 7
    with pytest.raises(ValueError, match="has 11 tokens but the player's model was made for 9"):
        player("A: 47\nB: f")


def test_what_it_said_is_kept_of_the_latest_texts_alone(folder, monkeypatch):
    monkeypatch.setattr(textgym_agents.player, "REMEMBERED", 3)
    player = Player(folder, max_new_tokens=1)
    asked = []
    monkeypatch.setattr(player, "_say", lambda text, say=player._say: asked.append(text) or say(text))
    said = {text: player(text) for text in ("A", "B", "A", ":", "1", "2")}
    assert asked == ["A", "B", ":", "1", "2"]
    assert [*player._said] == [":", "1", "2"]  # B and A are the oldest
    assert player(":") == said[":"]
    assert player("A") == said["A"]
    assert asked[5:] == ["A"]
    assert [*player._said] == ["2", ":", "A"]
