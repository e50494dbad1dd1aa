"""Steps that were not asked for are those that would have been: the same tokens, figures and episodes, bit for bit."""

import inspect

import numpy as np
import pytest
import torch
from agent_kit import CONTEXT, build_lm
from gymnasium.vector import AutoresetMode, VectorWrapper
from textgym_agents import ActorCritic, CausalLMPolicy, Collector, Step
from textgym_agents.ahead import Ahead, Running
from textgym_agents.guard import AgentError
from textgym_agents.policy import Following

from textgym import PromptTask, TextGenVectorEnv
from textgym.vector_wrappers import RecordEpisodeStatistics, TransformTokenRewards, takes_many
from textgym.wrappers import Scale


class AskedEachTime(CausalLMPolicy):
    """Its ``act`` has no parameter ``ahead``, so that it is asked for every step."""

    def act(self, obs, slots, lengths=None, allowed=None):
        return super().act(obs, slots, lengths, allowed)


def rewards(episodes):
    return [[float(token % 3) * mine for token, mine in zip(e.ids.tolist(), e.agent_mask, strict=True)] for e in episodes]


def reply(episode):
    return "gg" if int(episode.turns.max()) < 2 else None


TASKS = {
    "short": {"max_new_tokens": 3},
    "long": {"max_new_tokens": 16},
    "cut off": {"max_new_tokens": 6, "length_limit": "truncate"},
    "stopped": {"max_new_tokens": 16, "stop": ["b."]},
    "answered": {"max_new_tokens": 9, "max_response_tokens": 14, "reply_fn": reply, "max_turn_tokens": 4},
}


def build(
    letters, kind, policy_kind, num_slots, shape="gpt2", output="torch", separate=False, prompts=("a", "bcd", "ef"), **options
):
    lm = build_lm(shape, len(letters))
    model = ActorCritic(lm, letters, CONTEXT, build_lm(shape, len(letters), seed=1) if separate else None)
    torch.nn.init.normal_(model.value_head.weight, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name, weight in lm.named_parameters():
            if name.endswith(("ln_f.weight", "model.norm.weight")):
                weight.mul_(0.2)  # so that end-of-text comes at every length
    task = PromptTask(prompts, letters, rewards, **TASKS[kind])
    envs = TextGenVectorEnv(num_slots, task, autoreset_mode=AutoresetMode.DISABLED, output=output, **options)
    envs.reset(seed=3)
    return policy_kind(model, num_slots, seed=5), envs


def count_calls(thing, name):
    """Count the calls of a method, which goes on as it did."""
    calls, original = [], getattr(thing, name)

    def counted(*args, **kwargs):
        calls.append(1)
        return original(*args, **kwargs)

    counted.__signature__ = inspect.signature(original)
    setattr(thing, name, counted)
    return calls


def let_a_pass_fail(policy, number):
    """Raise once, instead of the policy's pass of that number."""
    original, calls = policy._decoder.one_each, []

    def fail_once(*args, **options):
        calls.append(1)
        if len(calls) == number:
            raise RuntimeError("out of memory")
        return original(*args, **options)

    policy._decoder.one_each = fail_once


def same(one, other):
    for name, value in vars(one).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, getattr(other, name)), name
        else:
            assert value == getattr(other, name), name


def collections(policy, envs, carry_over=False, learns=True, count=3, episodes=24):
    collector = Collector(envs, policy, carry_over=carry_over)
    rollouts = [collector.collect(episodes, has_learned=learns) for _ in range(count)]
    return rollouts, policy.generator.get_state()


def running(left, ends_at_limit=True, texts=9):
    return Running(Ahead(np.array(left), ends_at_limit, frozenset({7}), 1, texts))


def test_whose_texts_go_on_is_known_until_one_pauses_or_so_many_have_ended():
    one = running([5, 2, 5, 5], texts=3)
    assert (list(one.after([4, 4, 4, 4])), list(one.gone)) == ([0, 1, 2, 3], [])
    assert (list(one.after([4, 4, 1, 4])), list(one.gone)) == ([0, 3], [1, 2])  # at its limit, and by end-of-text
    assert (list(one.after([4, 4])), list(one.gone)) == ([0, 1], [])
    assert one.after([1, 4]) is None  # the third that ended: others may be started now
    assert running([5, 5]).after([4, 7]) is None
    assert running([1, 1]).after([4, 4]) is None  # nobody is left
    assert running([1, 5], ends_at_limit=False).after([4, 4]) is None
    assert list(running([2, 5], ends_at_limit=False).after([4, 1])) == [0]


@pytest.mark.parametrize("carry_over", [False, True])
@pytest.mark.parametrize("kind", TASKS)
def test_collections_are_the_same_bit_for_bit(letters, kind, carry_over):
    out = [collections(*build(letters, kind, policy, 12), carry_over) for policy in (CausalLMPolicy, AskedEachTime)]
    for one, other in zip(out[0][0], out[1][0], strict=True):
        same(one, other)
    assert torch.equal(out[0][1], out[1][1])  # and so will be what comes next


@pytest.mark.parametrize(
    "options",
    [
        {"shape": "llama"},
        {"output": "numpy"},
        {"separate": True},
        {"group_size": 3},
        {"infos": "objects"},
        {"num_slots": 1},
        {"num_slots": 2},
        {"num_slots": 24},
    ],
    ids=str,
)
def test_they_are_the_same_whatever_the_model_the_groups_and_the_slots(letters, options):
    options = {"num_slots": 12} | options
    kinds = (CausalLMPolicy, AskedEachTime)
    one, other = (
        [r for carry in (False, True) for r in collections(*build(letters, "long", k, **options), carry)[0]] for k in kinds
    )
    for a, b in zip(one, other, strict=True):
        same(a, b)


def test_what_was_learned_in_between_is_seen(letters):
    out = []
    for kind in (CausalLMPolicy, AskedEachTime):
        policy, envs = build(letters, "long", kind, 8)
        collector = Collector(envs, policy, carry_over=True)
        for step in range(4):
            out.append(collector.collect(16))
            with torch.no_grad():
                for weight in policy.model.lm.parameters():
                    weight.add_(0.01 * (step + 1))
    for one, other in zip(out[:4], out[4:], strict=True):
        same(one, other)


def test_a_hook_that_comes_between_two_collections_is_seen_though_passes_were_recorded(letters):
    policy, envs = build(letters, "long", CausalLMPolicy, 12, prompts=("bcd", "ef"))  # begun in a pass that is never recorded
    policy.record_soon()
    collector = Collector(envs, policy)
    collector.collect(24)
    assert policy._decoder._recording is not None
    policy.model.lm.get_submodule("transformer.h.0.mlp").register_forward_hook(lambda module, given, out: 2 * out)
    rollout = collector.collect(24)
    logprobs, _, _ = policy.evaluate(rollout.ids, rollout.prompt_lengths, rollout.agent_mask)
    torch.testing.assert_close(rollout.logprobs, logprobs.masked_fill(~rollout.agent_mask, 0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["long", "stopped", "answered"])
def test_the_policy_is_asked_less_often_than_it_steps(letters, kind):
    policy, envs = build(letters, kind, CausalLMPolicy, 4)
    asked, passes = count_calls(policy, "act"), count_calls(policy._decoder, "sample")
    Collector(envs, policy).collect(32)
    assert len(asked) < 0.8 * len(passes)


def test_releases_that_come_late_are_the_same(letters):
    out = []
    for kind in (CausalLMPolicy, AskedEachTime):
        policy, envs = build(letters, "long", kind, 8, reward_workers=1)
        out.append(collections(policy, envs)[0])
        envs.close()
    for one, other in zip(*out, strict=True):
        same(one, other)


def test_wrappers_that_take_many_steps_are_told_and_others_are_stepped_one_by_one(letters):
    class Plain(VectorWrapper):
        """Has a say in every step, and knows nothing of many."""

        def step(self, actions):
            self.steps = getattr(self, "steps", 0) + 1
            return self.env.step(actions)

    class Inherits(RecordEpisodeStatistics):
        """Its ``step_many`` is not its own, and does not know of its step."""

        def step(self, actions):
            self.steps = getattr(self, "steps", 0) + 1
            return super().step(actions)

    plain, envs = build(letters, "long", CausalLMPolicy, 8)
    expected = collections(plain, envs)[0]
    for wrap in (Plain, Inherits):
        policy, envs = build(letters, "long", CausalLMPolicy, 8)
        asked, wrapped = count_calls(policy, "act"), wrap(envs)
        for one, other in zip(collections(policy, wrapped)[0], expected, strict=True):
            same(one, other)
        assert wrapped.steps == len(asked)
    policy, envs = build(letters, "long", CausalLMPolicy, 8)
    asked, counted = count_calls(policy, "act"), RecordEpisodeStatistics(TransformTokenRewards(envs, Scale(2.0)))
    rollouts = collections(policy, counted)[0]
    for one, other in zip(rollouts, expected, strict=True):
        assert torch.equal(one.token_rewards, 2 * other.token_rewards)
    assert counted.episode_count == sum(len(rollout) for rollout in rollouts)
    assert len(asked) < sum(int(rollout.num_tokens.max()) for rollout in rollouts)


def test_an_environment_with_a_step_of_its_own_is_stepped_one_by_one():
    class Changed(TextGenVectorEnv):
        def step(self, actions):
            return super().step(actions)

    class Both(Changed):
        def step_many(self, actions):
            return super().step_many(actions)

    kinds = (TextGenVectorEnv, Changed, Both)
    envs = [kind(2, autoreset_mode=AutoresetMode.DISABLED) for kind in kinds]
    assert [takes_many(each) for each in envs] == [True, False, True]
    envs[0].step = envs[0].step  # an object's own
    assert not takes_many(envs[0])


class Foreign:
    """A policy of somebody's own that goes ahead: writes 3, 4, 5 and end-of-text, four steps at once; ``change`` breaks it."""

    def __init__(self, change=lambda slots, steps: steps):
        self.change = change
        self.figures = torch.zeros(4, 8)

    def reset_slots(self, slots):
        pass

    def act(self, obs, slots, lengths, ahead=None):
        self.figures += 1  # in the tensors that it gave before
        figures = self.figures[:, : len(slots)]
        tokens = torch.tensor([3, 4, 5, 1])[:, None].expand_as(figures)
        following = [Following(slots, tokens[i], figures[i], -figures[i]) for i in range(1, 4)]
        return Step(tokens[0], figures[0], -figures[0], self.change(slots, following))


def test_a_foreign_policy_may_go_ahead_too(letters):
    _, envs = build(letters, "long", CausalLMPolicy, 4)
    rollout = Collector(envs, Foreign()).collect(8)
    assert rollout.num_tokens.tolist() == [4] * 8
    for row in range(8):
        start = int(rollout.prompt_lengths[row])
        assert rollout.ids[row, start : start + 4].tolist() == [3, 4, 5, 1]
    assert rollout.logprobs.tolist() == [[1.0] * 4] * 4 + [[2.0] * 4] * 4  # as they were when they were given
    assert torch.equal(rollout.values, -rollout.logprobs)


def drop_a_slot(slots, following):
    return [following[0]._replace(slots=slots[1:]), *following[1:]]


def go_on_after_the_end(slots, following):
    return [*following, following[-1]]


def leave_the_vocabulary(slots, following):
    return [following[0]._replace(tokens=following[0].tokens + 100), *following[1:]]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            drop_a_slot,
            "step 1 of slots 1, 2, 3; allowed is one of the slots whose texts go on, in their order: 0, 1",
        ),
        (go_on_after_the_end, "of step 4 only the environment knows"),
        (leave_the_vocabulary, "the token 104 for row 0"),
    ],
)
def test_following_steps_that_cannot_be_are_refused_by_name(letters, change, match):
    _, envs = build(letters, "long", CausalLMPolicy, 4)
    with pytest.raises(AgentError, match=match) as caught:
        Collector(envs, Foreign(change)).collect(8)
    assert "test_ahead:Foreign" in str(caught.value)


def test_who_was_told_nothing_gives_no_following_steps(letters):
    class Untold(Foreign):
        def act(self, obs, slots, lengths):
            return super().act(obs, slots, lengths)

    _, envs = build(letters, "long", CausalLMPolicy, 4)
    with pytest.raises(AgentError, match="gave 3 following steps but was not told ahead; allowed are none then"):
        Collector(envs, Untold()).collect(8)


def test_a_pass_that_fails_leaves_a_policy_that_goes_on_as_one_who_was_never_there(letters):
    policy, envs = build(letters, "long", CausalLMPolicy, 4)
    let_a_pass_fail(policy, 3)
    collector = Collector(envs, policy, carry_over=True)
    with pytest.raises(RuntimeError, match="out of memory"):
        collector.collect(8)
    rollout = collector.collect(8)
    logprobs, values, _ = policy.evaluate(rollout.ids, rollout.prompt_lengths, rollout.agent_mask)
    torch.testing.assert_close(logprobs, rollout.logprobs, atol=1e-4, rtol=0)
    torch.testing.assert_close(values, rollout.values, atol=1e-4, rtol=0)


def test_a_pass_ahead_that_fails_can_be_asked_for_again(letters):
    policy, envs = build(letters, "long", CausalLMPolicy, 4)
    fresh, _ = build(letters, "long", CausalLMPolicy, 4)
    let_a_pass_fail(policy, 2)
    obs, slots, lengths = envs._store.observation(), np.arange(4), envs.text_lengths
    ahead = Ahead(envs.tokens_left, True, frozenset(), -1, 9)  # a token that never comes: steps up to the limits
    with pytest.raises(RuntimeError, match="out of memory"):
        policy.act(obs, slots, lengths, ahead=ahead)
    step, expected = policy.act(obs, slots, lengths), fresh.act(obs, slots, lengths)
    chosen = step.tokens == expected.tokens  # other random numbers by now
    torch.testing.assert_close(step.values, expected.values)
    torch.testing.assert_close(step.logprobs[chosen], expected.logprobs[chosen])


def test_weights_that_are_no_numbers_are_told_in_a_step_ahead_too(letters):
    policy, envs = build(letters, "long", CausalLMPolicy, 4)
    original, calls = policy._decoder.sample, []

    def spoil(states, *args):
        calls.append(1)
        return original(states * float("nan") if len(calls) == 3 else states, *args)

    policy._decoder.sample = spoil
    with pytest.raises(FloatingPointError, match="logits are not finite"):
        Collector(envs, policy).collect(8)
    rollout = Collector(envs, policy).collect(8)
    assert np.isfinite(rollout.logprobs.numpy()).all()
