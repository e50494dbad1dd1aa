import gymnasium as gym
import numpy as np
import pytest
import torch
from agent_kit import CONTEXT, LAYOUTS, build_lm, take_products_from_copies
from gymnasium.vector import AutoresetMode
from textgym_agents import ActorCritic, CausalLMPolicy, Collector, Step, collect

import textgym
from textgym import PromptTask
from textgym.vector_wrappers import TransformTokenRewards
from textgym.wrappers import Scale


def task(letters, **kwargs):
    def rewards(episodes):
        return [[float(i) for i in range(len(e.ids))] for e in episodes]

    return PromptTask(["a", "bcd", "ef"], letters, rewards, **{"max_new_tokens": 8, **kwargs})


def envs_of(letters, num_envs, output="torch", **kwargs):
    envs = textgym.TextGenVectorEnv(
        num_envs, task(letters, **kwargs), autoreset_mode=AutoresetMode.DISABLED, output=output, keep_episodes=True
    )
    envs.reset(seed=0)
    return envs


class Scripted:
    """Identifiable data: writes token 2 + slot % 8 until the text's number of response tokens is due, then end-of-text.

    Log-prob and value of response token t are t and 100 + t.
    """

    def __init__(self, lengths, num_envs):
        self.lengths = iter(lengths)
        self.due, self.done = np.zeros(num_envs, int), np.zeros(num_envs, int)
        self.fresh = np.ones(num_envs, bool)
        self.started = []

    def reset_slots(self, slots):
        self.fresh[slots] = True

    def act(self, obs, slots):
        slots = np.asarray(slots)
        for slot in slots[self.fresh[slots]]:
            self.due[slot], self.done[slot], self.fresh[slot] = next(self.lengths), 0, False
            self.started.append(int(slot))
        self.done[slots] += 1
        tokens = np.where(self.done[slots] >= self.due[slots], 1, 2 + slots % 8)
        t = torch.from_numpy(self.done[slots] - 1).float()
        return Step(torch.from_numpy(tokens), t, 100 + t)


@pytest.mark.parametrize("output", ["numpy", "torch"])
def test_every_figure_is_where_it_belongs(letters, output):
    lengths = [3, 1, 7, 2, 5, 8, 1, 4, 6]
    envs = envs_of(letters, 3, output)
    rollout = collect(envs, Scripted(lengths, 3), 9)
    by_id = {release.episode_id: episode for episode, release in envs.take_episodes()}
    assert len(rollout) == 9
    for row in range(9):
        episode = by_id[int(rollout.episode_id[row])]
        count, start = len(episode.ids), int(rollout.prompt_lengths[row])
        assert rollout.num_tokens[row] == count
        assert rollout.ids[row, :start].tolist() == list(episode.prompt.ids)
        assert rollout.ids[row, start : start + count].tolist() == episode.ids.tolist()
        assert not rollout.ids[row, start + count :].any()
        assert rollout.token_rewards[row, :count].tolist() == list(range(count))
        assert rollout.logprobs[row, :count].tolist() == list(range(count))
        assert rollout.values[row, :count].tolist() == [100 + t for t in range(count)]
        assert rollout.agent_mask[row].tolist() == [t < count for t in range(8)]
        assert rollout.streams[row].tolist() == [0 if t < count else -1 for t in range(8)]
        for table in (rollout.token_rewards, rollout.logprobs, rollout.values):
            assert not table[row, count:].any()
    assert rollout.terminated.all()


def test_a_collection_is_the_first_episodes_started_not_finished_F37(letters):
    lengths = [8, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    rollout = collect(envs_of(letters, 2), Scripted(lengths, 2), 4)
    assert rollout.num_tokens.tolist() == [8, 1, 1, 1]  # the long one started first, and is waited for


def test_the_last_token_holds_a_scalar_reward_and_end_of_text_is_learned_F01_F03(letters):
    envs = textgym.TextGenVectorEnv(
        2,
        PromptTask(["a"], letters, lambda e: [1.0] * len(e), max_new_tokens=8),
        autoreset_mode=AutoresetMode.DISABLED,
        output="torch",
    )
    envs.reset(seed=0)
    rollout = collect(envs, Scripted([3, 5], 2), 2)
    assert rollout.token_rewards.tolist() == [[0, 0, 1, 0, 0], [0, 0, 0, 0, 1]]
    for row, count in enumerate((3, 5)):
        eos = int(rollout.prompt_lengths[row]) + count - 1
        assert rollout.ids[row, eos] == letters.eos_token_id
        assert rollout.agent_mask[row, count - 1]


def test_truncated_episodes_carry_the_value_of_their_final_state_F05(letters):
    policy = CausalLMPolicy(ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT), 4, seed=1)
    torch.nn.init.normal_(policy.model.value_head.weight)
    envs = envs_of(letters, 4, length_limit="truncate", max_new_tokens=4)
    rollout = collect(envs, policy, 12)
    assert rollout.truncated.any()
    assert not (rollout.truncated & rollout.terminated).any()
    for row in range(12):
        if not rollout.truncated[row]:
            assert rollout.final_values[row] == 0
            continue
        end = int(rollout.prompt_lengths[row] + rollout.num_tokens[row])
        with torch.no_grad():
            hidden = policy.model.hidden(rollout.ids[row : row + 1, :end], torch.arange(end)[None])
            assert float(rollout.final_values[row]) == pytest.approx(float(policy.model.values(hidden)[0, -1]), abs=1e-4)


def test_logprobs_and_values_of_a_collection_equal_evaluation(letters):
    policy = CausalLMPolicy(ActorCritic(build_lm("llama", len(letters)), letters, CONTEXT), 5, seed=2)
    torch.nn.init.normal_(policy.model.value_head.weight)
    rollout = collect(envs_of(letters, 5), policy, 23)
    logprobs, values, _ = policy.evaluate(rollout.ids, rollout.prompt_lengths, rollout.agent_mask)
    assert torch.allclose(logprobs, rollout.logprobs, atol=1e-4)
    assert torch.allclose(values, rollout.values, atol=1e-4)


@pytest.mark.parametrize("factor", [1, 3])
def test_lengths_are_distributed_as_in_one_by_one_sampling_F37(letters, factor):
    """E = N and E = 3 N against one slot that plays one text after another; two-sample Kolmogorov-Smirnov."""
    model = ActorCritic(build_lm("gpt2", len(letters), seed=3), letters, CONTEXT)
    with torch.no_grad():
        model.lm.transformer.ln_f.weight *= 0.2  # so that end-of-text comes at every length
    prompts = {"prompts": ["a"]}

    def lengths(num_envs, episodes, seed):
        envs = textgym.TextGenVectorEnv(
            num_envs,
            PromptTask(prompts["prompts"], letters, lambda e: [0.0] * len(e), max_new_tokens=16),
            autoreset_mode=AutoresetMode.DISABLED,
            output="torch",
        )
        envs.reset(seed=seed)
        policy = CausalLMPolicy(model, num_envs, seed=seed)
        return np.concatenate([collect(envs, policy, episodes).num_tokens.numpy() for _ in range(1200 // episodes)])

    one_by_one, side_by_side = lengths(1, 1200, 1), lengths(100, 100 * factor, 2)
    assert 3 < one_by_one.mean() < 15
    grid = np.arange(1, 17)
    gap = np.abs((one_by_one[:, None] <= grid).mean(0) - (side_by_side[:, None] <= grid).mean(0)).max()
    assert gap < 1.95 * np.sqrt(2 / 1200)  # the 0.1 % point


def test_seeded_collections_repeat(letters):
    def ids():
        policy = CausalLMPolicy(ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT), 3, seed=4)
        return collect(envs_of(letters, 3), policy, 10).ids

    assert torch.equal(ids(), ids())


def test_environments_that_cannot_be_refilled_in_groups_are_refused(letters):
    disabled = {"autoreset_mode": AutoresetMode.DISABLED}
    with pytest.raises(ValueError, match=r"autoreset_mode=gymnasium\.vector\.AutoresetMode\.DISABLED"):
        collect(textgym.TextGenVectorEnv(1, task(letters)), Scripted([1], 1), 1)
    sync = gym.make_vec("TextGen-v0", vectorization_mode="sync", vector_kwargs=disabled)
    with pytest.raises(ValueError, match="the environment is a SyncVectorEnv"):
        collect(sync, Scripted([1], 1), 1)
    with pytest.raises(ValueError, match="without observation"):
        collect(textgym.TextGenVectorEnv(1, task(letters), observation="dict", **disabled), Scripted([1], 1), 1)
    with pytest.raises(ValueError, match="episodes is 2 but there are 3 slots"):
        collect(envs_of(letters, 3), Scripted([1] * 3, 3), 2)


def test_a_reward_function_that_raises_names_its_episodes_F17(letters):
    envs = textgym.TextGenVectorEnv(
        1,
        PromptTask(["a"], letters, lambda e: [[1.0]], max_new_tokens=8),
        autoreset_mode=AutoresetMode.DISABLED,
        output="torch",
    )
    envs.reset(seed=0)
    with pytest.raises(ValueError, match=r"reward for episode \d+ has 1 values but its response has 3 tokens"):
        collect(envs, Scripted([3], 1), 1)


def chat(letters, **options):
    """A task that answers each of the agent's first two turns; end-of-text ends a turn."""

    def reply(episode):
        return "gg" if int(episode.turns.max()) < 2 else None

    def rewards(episodes):
        return [(episode.agent_mask * np.arange(len(episode.ids), dtype=float)).tolist() for episode in episodes]

    options = {"max_new_tokens": 9, "max_response_tokens": 14, **options}
    return PromptTask(["a", "bcd"], letters, rewards, reply_fn=reply, **options)


class Chatty(Scripted):
    """Writes turns of two tokens; log-prob and value are those of the column that the observation shows."""

    def act(self, obs, slots):
        tokens = torch.as_tensor(obs)
        lengths = (tokens >= 0).sum(1)
        starts = torch.tensor([1 if row[0] == 2 else 3 for row in tokens.tolist()])
        ends_turn = tokens.gather(1, lengths[:, None] - 1).squeeze(1) == 2 + torch.as_tensor(slots) % 3 + 3
        ends_turn &= lengths > starts
        columns = (lengths - starts).float()
        return Step(torch.where(ends_turn, 1, 2 + torch.as_tensor(slots) % 3 + 3), columns, 100 + columns)


def test_figures_of_the_agents_tokens_stand_in_their_own_columns_between_replies_F06(letters):
    envs = textgym.TextGenVectorEnv(2, chat(letters), autoreset_mode=AutoresetMode.DISABLED, output="torch")
    envs.reset(seed=0)
    rollout = collect(envs, Chatty([], 2), 6)
    agent = [True, True, False, False] * 2 + [True, True]
    assert rollout.agent_mask.tolist() == [agent] * 6
    columns = torch.arange(10.0)
    assert rollout.logprobs.tolist() == [(columns * torch.tensor(agent)).tolist()] * 6
    assert rollout.values.tolist() == [((100 + columns) * torch.tensor(agent)).tolist()] * 6
    assert rollout.token_rewards.tolist() == rollout.logprobs.tolist()
    assert rollout.streams.tolist() == [[0 if mine else -1 for mine in agent]] * 6


def test_a_policy_plays_turns_and_its_figures_are_those_of_one_forward_pass(letters):
    policy = CausalLMPolicy(ActorCritic(build_lm("llama", len(letters)), letters, CONTEXT), 4)
    envs = textgym.TextGenVectorEnv(4, chat(letters, max_turn_tokens=3), autoreset_mode=AutoresetMode.DISABLED, output="torch")
    envs.reset(seed=0)
    rollout = collect(envs, policy, 12)
    assert (~rollout.agent_mask & (rollout.streams == -1) & (rollout.ids[:, : rollout.agent_mask.shape[1]] > 0)).any()
    with torch.no_grad():
        logprobs, values, _ = policy.evaluate(rollout.ids, rollout.prompt_lengths, rollout.agent_mask)
    torch.testing.assert_close(logprobs, rollout.logprobs, atol=1e-4, rtol=0)
    torch.testing.assert_close(values, rollout.values, atol=1e-4, rtol=0)


@pytest.mark.parametrize("wrap", [False, True])
def test_late_releases_of_a_collection_are_all_waited_for(letters, wrap):
    lengths = [3, 1, 7, 2, 5, 8, 1, 4, 6]

    def play(**options):
        envs = textgym.TextGenVectorEnv(3, task(letters), autoreset_mode=AutoresetMode.DISABLED, output="torch", **options)
        if wrap:
            envs = TransformTokenRewards(envs, Scale(2.0))
        envs.reset(seed=0)
        rollout = collect(envs, Scripted(lengths, 3), 9)
        envs.close()
        return rollout

    now, late = play(), play(reward_workers=2)
    for name, table in vars(now).items():
        if isinstance(table, torch.Tensor):
            assert torch.equal(table, getattr(late, name)), name
    assert now.ledger == late.ledger
    assert float(now.token_rewards.max()) == (14.0 if wrap else 7.0)


def test_dropped_episodes_are_left_out_of_the_collection(letters):
    def rewards(episodes):
        if any(len(episode.ids) == 5 for episode in episodes):
            raise RuntimeError("five")
        return [float(len(episode.ids)) for episode in episodes]

    flaky = PromptTask(["a"], letters, rewards, max_new_tokens=8)
    envs = textgym.TextGenVectorEnv(
        2, flaky, autoreset_mode=AutoresetMode.DISABLED, output="torch", reward_workers=1, on_reward_error="drop"
    )
    envs.reset(seed=0)
    with pytest.warns(RuntimeWarning, match="is dropped, its reward failed: RuntimeError: five"):
        rollout = collect(envs, Scripted([3, 5, 2, 5, 4], 2), 5)
    assert sorted(rollout.num_tokens.tolist()) == [2, 3, 4]
    assert [row.count_nonzero().item() for row in rollout.values] == rollout.num_tokens.tolist()
    assert envs.num_dropped == 2
    envs.reset(seed=0)
    with pytest.raises(ValueError, match="all 2 episodes of the collection were dropped"):
        collect(envs, Scripted([5, 5], 2), 2)
    envs.close()


def test_the_ledger_of_a_collection_is_the_mean_of_its_episodes(letters):
    weighted = PromptTask(["a"], letters, lambda e: [{"n": float(len(x.ids))} for x in e], weights={"n": 0.5}, max_new_tokens=8)
    envs = textgym.TextGenVectorEnv(2, weighted, autoreset_mode=AutoresetMode.DISABLED)
    envs.reset(seed=0)
    ledger = collect(envs, Scripted([1, 2, 3, 4], 2), 4).ledger
    assert (ledger.asked, dict(ledger.accounts)) == (2.5, {"weight/n": 1.25})


def carried(letters, num_envs=3, seed=0, **kwargs):
    model = ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT)
    torch.nn.init.normal_(model.value_head.weight, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.lm.transformer.ln_f.weight *= 0.2  # so that end-of-text comes at every length
    policy = CausalLMPolicy(model, num_envs, seed=seed)
    envs = textgym.TextGenVectorEnv(
        num_envs, task(letters, max_new_tokens=16), autoreset_mode=AutoresetMode.DISABLED, output="torch"
    )
    envs.reset(seed=seed)
    return policy, Collector(envs, policy, carry_over=True, **kwargs)


def test_unfinished_episodes_are_carried_over_and_each_is_used_once(letters):
    envs = envs_of(letters, 2)
    collector = Collector(envs, Scripted([8, 1, 1, 1, 7, 2, 3, 1, 1, 2, 2, 2, 2, 2, 2, 2], 2), carry_over=True)
    first, second = collector.collect(3), collector.collect(3, has_learned=False)  # the script would begin anew
    assert first.num_tokens.tolist() == [1, 1, 1]  # the long one goes on
    assert second.num_tokens[0] == 8
    ids = torch.cat([first.episode_id, second.episode_id]).tolist()
    assert len(set(ids)) == len(ids)
    assert second.policy_version[0].tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    assert (first.version, second.version) == (0, 1)
    assert second.logprobs[0].tolist() == list(range(8))  # what was sampled before the update is still there
    assert not second.policy_version[1:][:, 2:].any() or (second.policy_version[1:] <= 1).all()


@pytest.mark.parametrize("layout", ["torch", *LAYOUTS])
def test_log_probs_of_carried_episodes_are_those_of_the_weights_that_sampled_them(letters, layout, monkeypatch):
    take_products_from_copies(monkeypatch, LAYOUTS.get(layout))
    policy, collector = carried(letters)
    weights, rollouts = {}, []
    for version in range(4):
        weights[version] = {name: value.clone() for name, value in policy.model.state_dict().items()}
        rollouts.append(collector.collect(6))
        for parameter in policy.model.parameters():  # written as a fused optimizer does: no version tells of it
            parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(version)))
    mixed = 0
    for rollout in rollouts:
        mixed += int((rollout.policy_version.masked_fill(~rollout.agent_mask, 99).amin(1) < rollout.version).sum())
        for version, state in weights.items():
            policy.model.load_state_dict(state)
            logprobs, values, _ = policy.evaluate(rollout.ids, rollout.prompt_lengths, rollout.agent_mask)
            of = rollout.agent_mask & (rollout.policy_version == version)
            assert torch.allclose(logprobs[of], rollout.logprobs[of], atol=1e-4)
            assert torch.allclose(values[of], rollout.values[of], atol=1e-4)
    assert mixed > 3


def test_what_is_cached_of_carried_texts_is_kept_where_nothing_was_learned(letters, monkeypatch):
    results = []
    for has_learned in (True, False):
        policy, collector = carried(letters)
        collector.collect(6)
        hidden, counts = policy.model.policy_hidden, []

        def run(ids, *rest, hidden=hidden, counts=counts):
            counts.append(ids.numel())
            return hidden(ids, *rest)

        monkeypatch.setattr(policy.model, "policy_hidden", run)
        ids = collector.collect(6, has_learned=has_learned).ids
        results.append((ids.tolist(), sum(counts)))
    assert results[0][0] == results[1][0]
    assert results[0][1] > results[1][1]


@pytest.mark.parametrize("bound", [0, 1, 2])
def test_no_token_is_staler_than_allowed(letters, bound):
    _, collector = carried(letters, num_envs=6, max_staleness=bound)
    stalest = 0
    for _ in range(12):
        rollout = collector.collect(6)
        stale = (rollout.version - rollout.policy_version)[rollout.agent_mask]
        assert int(stale.min()) >= 0 and int(stale.max()) <= bound
        stalest = max(stalest, int(stale.max()))
        assert len(rollout) >= 6
    assert stalest == bound


def test_a_resumed_collector_goes_on_bit_for_bit(letters):
    """Nothing that the cache holds outlives an update: a policy made anew from the same weights writes the same texts."""
    results = []
    for resume in (False, True):
        policy, collector = carried(letters)
        collector.collect(6)
        with torch.no_grad():
            policy.model.value_head.bias.add_(0.5)  # an update
        if resume:
            state = policy.generator.get_state()
            collector.policy = CausalLMPolicy(policy.model, 3)
            collector.policy.generator.set_state(state)
        results.append(collector.collect(12))
    for name in ("ids", "logprobs", "values", "policy_version"):
        assert torch.equal(getattr(results[0], name), getattr(results[1], name)), name


def test_carried_lengths_are_distributed_as_drained_ones_F37(letters):
    policy, collector = carried(letters, num_envs=40)
    lengths = np.concatenate([collector.collect(40).num_tokens.numpy() for _ in range(30)])
    drained = np.concatenate([collect(collector.envs, policy, 400).num_tokens.numpy() for _ in range(3)])
    grid = np.arange(1, 17)
    gap = np.abs((lengths[:, None] <= grid).mean(0) - (drained[:, None] <= grid).mean(0)).max()
    assert 3 < lengths.mean() < 15
    assert gap < 1.95 * np.sqrt(2 / 1200)  # the 0.1 % point


def test_staleness_is_not_negative(letters):
    with pytest.raises(ValueError, match="max_staleness is -1; it must be at least 0"):
        carried(letters, max_staleness=-1)


def test_an_error_in_a_reward_gives_up_what_was_running_and_no_more_F29(letters):
    """With carry-over the next collection starts anew, and its figures are right."""
    calls = []

    def rewards(episodes):
        calls.append(len(episodes))
        if len(calls) == 3:
            raise RuntimeError("judge is down")
        return [0.0] * len(episodes)

    policy, _ = carried(letters, num_envs=4)
    envs = textgym.TextGenVectorEnv(
        4,
        PromptTask(["a", "bcd"], letters, rewards, max_new_tokens=16),
        autoreset_mode=AutoresetMode.DISABLED,
        output="torch",
    )
    collector = Collector(envs, policy, carry_over=True)
    with pytest.raises(RuntimeError, match="judge is down"):
        collector.collect(40)
    for _ in range(2):
        rollout = collector.collect(8)
        logprobs, values, _ = policy.evaluate(rollout.ids, rollout.prompt_lengths, rollout.agent_mask)
        assert torch.allclose(logprobs, rollout.logprobs, atol=1e-4)
        assert torch.allclose(values, rollout.values, atol=1e-4)
        assert len(rollout) >= 8


def test_a_policy_is_told_lengths_by_name_and_may_count_in_float64(letters):
    class Keyword(Scripted):
        def act(self, obs, slots, temperature=1.0, *, lengths=None):
            assert temperature == 1.0
            assert lengths.tolist() == (torch.as_tensor(obs) >= 0).sum(1).tolist()
            step = super().act(obs, slots)
            return Step(step.tokens, step.logprobs.double(), step.values.double())

    rollout = collect(envs_of(letters, 2), Keyword([2, 1, 3], 2), 3)
    assert rollout.num_tokens.tolist() == [2, 1, 3]
    assert rollout.logprobs.dtype is torch.float32


def test_late_errors_of_a_collection_that_was_given_up_do_not_end_the_next_one_F29(letters):
    """Two rewards of one collection fail: the first ends it, and the second is told of when another begins."""

    def flaky(episodes):
        if any("h" in episode.text for episode in episodes):
            raise RuntimeError("judge is down")
        return [1.0] * len(episodes)

    envs = textgym.TextGenVectorEnv(
        3,
        PromptTask(["a"], letters, flaky, max_new_tokens=8),
        autoreset_mode=AutoresetMode.DISABLED,
        output="torch",
        reward_workers=1,
    )
    envs.reset(seed=0)
    h = int(letters.encode("h")[0])

    class Writes(Scripted):
        """The first two slots write an h where they are told to."""

        bad = True

        def act(self, obs, slots):
            step = super().act(obs, slots)
            tokens = torch.where(torch.from_numpy((np.asarray(slots) < 2) & self.bad) & (step.tokens != 1), h, step.tokens)
            return Step(tokens, step.logprobs, step.values)

    policy = Writes([2, 2, 2] * 4, 3)
    with pytest.raises(RuntimeError, match="judge is down") as error:
        collect(envs, policy, 3)
    assert "3 episodes of the collection had ended and are given up with it" in "".join(error.value.__notes__)
    policy.bad = False
    with pytest.warns(RuntimeWarning, match="given up before this one.*judge is down") as said:
        rollout = collect(envs, policy, 6)
    assert len(said) == 1
    assert rollout.token_rewards.sum(1).tolist() == [1.0] * 6
    envs.close()
