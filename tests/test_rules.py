"""What both doors share, seen through the scalar one."""

import copy
import pickle

import numpy as np
import pytest
from test_env import make, write, zeros

import textgym
from textgym import Prompt, PromptTask, Span, Task
from textgym.probes import play_demonstrations
from textgym.rules import EOS, LENGTH, Rules


def test_stop_string_ends_at_the_token_that_completes_it_and_stays_F24():
    tokenizer = textgym.symbol_tokenizer(["a", "b", ".x", "."])
    env = textgym.TextGenEnv(
        prompts=["a"], tokenizer=tokenizer, reward_fn=lambda e: [[Span(0, len(x.text), 1.0)] for x in e], stop=["b."]
    )
    env.rules.info_text = True
    env.reset(seed=0)
    assert [env.step(i)[2] for i in (2, 5, 3)] == [False, False, False]  # "a", ".", "b": not yet
    _, reward, terminated, truncated, info = env.step(4)  # ".x" completes "b." and brings an x along
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert (info["text"], info["ended_by"], info["num_tokens"]) == ("a.b.x", "stop", 4)  # nothing cut, nothing invented


def test_the_task_can_end_an_episode(letters):
    class Fixed(PromptTask):
        def ended(self, prompt, ids):
            return len(ids) == 2

    task = Fixed(["a"], letters, zeros)
    env = textgym.TextGenEnv(task, info_text=True)
    env.reset(seed=0)
    assert not env.step(2)[2]
    assert env.step(2)[4]["ended_by"] == "task"


def test_streams_come_from_the_task_or_from_spans_but_not_both(letters):
    spans = lambda episodes: [[Span(0, 1, 1.0, stream=1)] for _ in episodes]  # noqa: E731
    streams = lambda episodes: [np.zeros(len(e.ids), int) for e in episodes]  # noqa: E731
    env = make(letters, spans)
    env.reset(seed=0)
    assert textgym.release(write(env, "ab")[0][4]).streams.tolist() == [1, 0, 0]
    env = make(letters, zeros, streams_fn=lambda episodes: [np.arange(len(e.ids)) for e in episodes])
    env.reset(seed=0)
    assert textgym.release(write(env, "ab")[0][4]).streams.tolist() == [0, 1, 2]
    env = make(letters, spans, streams_fn=streams)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="give one of the two"):
        write(env, "ab")


def test_criteria_are_in_the_info_before_weighting(letters):
    env = make(letters, lambda e: [{"short": 1.0, "long": 2.0}], weights={"long": 0.5})
    env.reset(seed=0)
    (_, reward, _, _, info), _ = write(env, "a")
    assert (reward, info["criteria/short"], info["criteria/long"]) == (2.0, 1.0, 2.0)


def test_a_reward_function_that_raises_names_the_episode(letters):
    env = make(letters, lambda episodes: 1 / 0)
    env.reset(seed=0)
    with pytest.raises(ZeroDivisionError) as error:
        write(env, "a")
    assert "episodes 0" in error.value.__notes__[0]


def test_a_sampled_prompt_that_does_not_fit_is_named_at_reset(letters):
    class Long(Task):
        tokenizer, max_prompt_tokens, max_new_tokens = letters, 2, 4

        def sample(self, rng):
            return Prompt("abcdef")

        def rewards(self, episodes):
            return zeros(episodes)

    with pytest.raises(ValueError, match="'abcdef'"):
        textgym.TextGenEnv(Long()).reset(seed=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"max_prompt_tokens": 1.5}, "max_prompt_tokens is 1.5"),
        ({"length_limit": "cut"}, "'terminate' and 'truncate'"),
        ({"weights": {"a": float("nan")}}, r"weights\['a'\]"),
        ({"stop": [""]}, "not empty"),
        ({"observation": "text"}, "'tokens' and 'dict'"),
    ],
)
def test_wrong_options_are_refused_at_construction(letters, changes, message):
    with pytest.raises(ValueError, match=message):
        make(letters, **changes)


def test_only_the_length_limit_truncates_F05(letters):
    env = make(letters, max_new_tokens=4, length_limit="truncate", stop=["b"])
    env.reset(seed=0)
    (_, _, terminated, truncated, _), _ = write(env, "ab", eos=False)
    assert (terminated, truncated) == (True, False)


def test_a_stop_string_that_could_never_be_found_is_refused(letters):
    with pytest.raises(ValueError, match=r"special token '</s>' is left out of texts"):
        make(letters, stop=["a</s>"])


def chat(letters, replies, **kwargs):
    """A task that answers its agent's turns with ``replies``, in order, then None."""

    def reply(episode):
        turn = int(episode.turns.max())
        return replies[turn] if turn < len(replies) else None

    limits = {"max_new_tokens": 8, "max_response_tokens": 12, **kwargs}
    return PromptTask(["a"], letters, zeros, reply_fn=reply, **limits)


def talk(task, text):
    """Write ``text`` token by token ("|" is end-of-text); give the observation's text after each, and the last info."""
    env = textgym.TextGenEnv(task, info_text=True)
    env.reset(seed=0)
    seen, info = [], {}
    for character in text:
        action = 1 if character == "|" else int(env.rules.tokenizer.encode(character)[0])
        obs, _, terminated, truncated, info = env.step(action)
        seen.append(env.rules.tokenizer.decode(obs[obs >= 0]))
        if terminated or truncated:
            break
    return seen, info


def test_replies_enter_at_the_end_of_a_turn_and_are_not_the_agents_F27(letters):
    seen, info = talk(chat(letters, ["cc"]), "b|d|")
    assert seen == ["ab", "abcc", "abccd", "abccd"]
    assert (info["text"], info["ended_by"]) == ("bccd", "eos")
    assert textgym.release(info).agent_mask.tolist() == [True, True, False, False, True, True]
    assert textgym.release(info).streams.tolist() == [0, 0, -1, -1, 0, 0]


def test_turns_number_the_agents_messages_and_the_replies_that_answer_them(letters):
    episodes = []
    task = chat(letters, ["cc", "h"])
    task._reward_fn = lambda given: episodes.extend(given) or [0.0] * len(given)
    talk(task, "b|dd|e|")
    assert episodes[0].turns.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert episodes[0].text == "bccddhe"


def test_a_turn_ends_at_the_token_that_completes_its_stop_string(letters):
    task = chat(letters, ["c"], turn_stop=["d."], stop=["e"])
    seen, info = talk(task, "b.d.e")
    assert seen == ["ab", "ab.", "ab.d", "ab.d.c", "ab.d.ce"]
    assert info["ended_by"] == "stop"


def test_stop_strings_that_the_reply_holds_end_nothing_F27(letters):
    task = chat(letters, ["d.e", "d"], turn_stop=["d."], stop=["e"])
    seen, info = talk(task, "bd.bb|.e")
    assert seen[2:] == ["abd.d.e", "abd.d.eb", "abd.d.ebb", "abd.d.ebbd", "abd.d.ebbd.", "abd.d.ebbd.e"]
    assert info["ended_by"] == "stop"  # a stop string begun by the reply ("d") and ended by the agent (".") is none either


def test_a_turn_has_a_limit_of_its_own(letters):
    seen, info = talk(chat(letters, ["c"], max_turn_tokens=2), "bbdd")
    assert seen == ["ab", "abbc", "abbcd", "abbcdd"]
    assert info["ended_by"] == "task"  # the limit ended the turn; that nothing was answered ended the episode


def test_the_reply_is_told_what_ended_the_turn(letters):
    ends = []
    task = chat(letters, ["c", "c", "c"], max_turn_tokens=2, turn_stop=["."])
    answer = task.reply
    task.reply = lambda episode: ends.append(episode.ended_by) or answer(episode)
    talk(task, "b|b.bb")
    assert ends == ["eos", "stop", "length"]


@pytest.mark.parametrize(("limits", "text", "ended_by", "tokens"), [
    ({"max_response_tokens": 8}, "b|", "length", 2),  # reply of 6: no room for the agent's next token
    ({"max_response_tokens": 9}, "b|d", "length", 9),
    ({"max_new_tokens": 2}, "b|", "length", 2),  # room for the reply, but the agent has written all that it may
    ({"max_new_tokens": 3}, "b|d", "length", 9),
])  # fmt: skip
def test_a_reply_that_does_not_fit_ends_the_episode_before_it_is_inserted(letters, limits, text, ended_by, tokens):
    _, info = talk(chat(letters, ["cccccc"], **limits), text)
    assert (info["ended_by"], info["num_tokens"]) == (ended_by, tokens)


def test_the_last_token_that_the_agent_may_write_can_still_end_the_episode_by_itself(letters):
    _, info = talk(chat(letters, [], max_new_tokens=2), "b|")
    assert info["ended_by"] == "eos"


@pytest.mark.parametrize("reply", ["", 7, b"a", "Z"])
def test_replies_that_are_no_text_of_the_tokenizers_name_the_episode(letters, reply):
    task = PromptTask(["a"], letters, zeros, reply_fn=lambda episode: reply, max_new_tokens=3)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        talk(task, "|")
    assert "episode 0" in str(error.value) + str(getattr(error.value, "__notes__", ""))


def test_limits_and_stops_of_turns_need_a_reply(letters):
    for option in ({"turn_stop": ["."]}, {"max_turn_tokens": 3}):
        with pytest.raises(ValueError, match="does not reply"):
            textgym.TextGenEnv(PromptTask(["a"], letters, zeros, **option))
    with pytest.raises(ValueError, match="must be at least the agent's"):
        textgym.TextGenEnv(PromptTask(["a"], letters, zeros, max_response_tokens=3))
    with pytest.raises(ValueError, match="turn_stop has '</s>'"):
        textgym.TextGenEnv(chat(letters, [], turn_stop=["</s>"]))


@pytest.mark.parametrize(("options", "response", "written"), [
    ({}, "bc", "bc|"),
    ({"stop": ["c"]}, "bc", "bc"),
    ({"max_new_tokens": 2}, "bc", "bc"),
    ({"reply": True}, ["b", "hh", "c"], "b|hhc|"),
    ({"reply": True, "turn_stop": ["."]}, ["b.", "hh", "c"], "b.hhc|"),
    ({"reply": True, "max_turn_tokens": 2}, ["bb", "hh", "c"], "bbhhc|"),
    ({"ended": True}, "bc", "bc"),
])  # fmt: skip
def test_demonstrations_are_closed_as_the_environment_would_close_them(letters, options, response, written):
    options = {"max_new_tokens": 6, **options}
    if options.pop("reply", False):
        options |= {"reply_fn": lambda episode: "hh" if episode.turns.max() < 1 else None, "max_response_tokens": 12}
    ended = options.pop("ended", False)
    task = PromptTask(["a"], letters, zeros, demonstrations=[("a", response)], **options)
    if ended:
        task.ended = lambda prompt, ids: len(ids) == 2
    rules = Rules(task)
    ids, agent_mask = rules.demonstration(Prompt("a", np.array([2])), response)
    assert "".join("|" if i == 1 else letters.piece(i) for i in ids) == written
    assert agent_mask.tolist() == [character != "h" for character in written]
    play_demonstrations(rules, 0)


@pytest.mark.parametrize("seed", range(20))
def test_stop_strings_are_found_exactly_where_the_text_first_holds_them(metaspace_bpe, byte_bpe, seed):
    rng = np.random.default_rng(seed)
    for backend, eos in ((metaspace_bpe, 2), (byte_bpe, 0)):
        tokenizer = textgym.TextTokenizer(backend, eos_token_id=eos)
        usual = [i for i in range(len(tokenizer)) if i not in tokenizer.special_ids and "\ufffd" not in tokenizer.decode([i])]
        ids = rng.choice(usual, size=60)
        whole = tokenizer.decode(ids)
        start = int(rng.integers(len(whole) - 3))
        stop = whole[start : start + int(rng.integers(1, 4))]
        rules = Rules(PromptTask(["a"], tokenizer, zeros, stop=[stop], max_new_tokens=70))
        prompt = Prompt("", np.array([eos]))
        found = next(n for n in range(1, 61) if rules.stop_table[ids[n - 1]] and rules.ending(prompt, ids[:n]))
        assert found == next(n for n in range(1, 61) if stop in tokenizer.decode(ids[:n]))


def test_texts_without_replies_share_marks_that_nobody_can_write_to(letters):
    """A copy of the environment, or one that went through pickle, included."""
    envs = textgym.TextGenVectorEnv(2, PromptTask(["a"], letters, zeros, max_new_tokens=3), keep_episodes=True)
    for each in (envs, copy.deepcopy(envs), pickle.loads(pickle.dumps(envs))):  # noqa: S301 (our own)
        each.reset(seed=0)
        each.step(np.array([2, 2]))
        each.step(np.array([1, 2]))
        each.step(np.array([2, 2]))
        taken = each.take_episodes()
        assert [release.num_tokens for _, release in taken] == [2, 3]
        for episode, release in taken:
            count = len(episode.ids)
            for array, value, dtype in (
                (episode.agent_mask, True, np.bool_),
                (release.agent_mask, True, np.bool_),
                (episode.turns, 0, np.int64),
                (release.streams, 0, np.int64),
            ):
                assert (array.tolist(), array.dtype) == ([value] * count, dtype)
                with pytest.raises(ValueError, match="WRITEABLE"):
                    array.setflags(write=True)


def test_the_partition_of_an_episode_from_elsewhere_is_the_same(letters):
    rules = Rules(PromptTask(["a"], letters, zeros, max_new_tokens=4))
    episodes = [
        rules.episode(Prompt("a", np.array([2])), np.arange(2, 5), 1, 0),
        pickle.loads(pickle.dumps(rules.episode(Prompt("a", np.array([2])), np.arange(2, 5), 1, 1))),  # noqa: S301
        rules.episode(Prompt("a", np.array([2])), np.arange(2, 5), 1, 2, [(1, 2)]),
        rules.episode(Prompt("a", np.array([2])), np.arange(2, 8), 1, 3),  # longer than the room, as probes play it
    ]
    assert [release.streams.tolist() for release in rules.release(episodes, range(4))] == [
        [0] * 3,
        [0] * 3,
        [0, -1, 0],
        [0] * 6,
    ]
    assert [episode.agent_mask.tolist() for episode in episodes[2:]] == [[True, False, True], [True] * 6]
    assert [episode.turns.tolist() for episode in episodes[2:]] == [[0, 0, 1], [0] * 6]
    assert not any(array.flags.writeable for e in episodes[2:] for array in (e.agent_mask, e.turns))


def test_an_episode_is_asked_once_whether_it_was_truncated(letters):
    rules = Rules(PromptTask(["a"], letters, zeros, max_new_tokens=4, length_limit="truncate"))
    episodes = [rules.episode(Prompt("a", np.array([2])), np.arange(2, 6), code, 0) for code in (LENGTH, EOS)]
    asked, truncates = [], rules.truncates
    rules.truncates = lambda episode: asked.append(episode) or truncates(episode)
    released = rules.release(episodes, [0, 1])
    assert [(release.truncated, release.terminated) for release in released] == [(True, False), (False, True)]
    assert len(asked) == 2
