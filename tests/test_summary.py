from suite_kit import credit_row, failed_row, learning_row

from textgym.suite.setting import Setting
from textgym.suite.summary import by_task, comparisons, failed, learned, tables

ROWS = [
    learning_row("copying", "scalar", 0, [0.0, 0.2, 0.4], tokens=(0, 100, 200)),
    learning_row("copying", "scalar", 1, [0.0, 0.4, 0.8], tokens=(0, 100, 200)),
    learning_row("copying", "mine:Assigner", 0, [0.0, 0.6, 0.7], tokens=(0, 100, 150), calls=3),
    learning_row("number_duel", "scalar", 0, [0.5, 0.5, 0.5]),
    learning_row("number_duel", "streams", 0, [0.5, 0.9, 1.0]),
    learning_row("number_duel", "mine:Assigner", 0, [0.5, 0.5, 0.5]),
]


def table(rows, beginning):
    return next(each for each in tables(rows) if each.title.startswith(beginning))


def test_scores_stand_at_the_tokens_that_all_have_with_their_reward_calls():
    of_copying = table(ROWS, "copying")
    assert of_copying.columns[2] == "score at 150 tokens"
    # scalar: (0.3 + 0.6) / 2 at 150 tokens; what it has at its own end stands apart
    assert of_copying.rows[0] == ("ppo, scalar", "2", "0.450 [0.300, 0.600]", "15", "0.600 [0.400, 0.800]", "200", "1.0")
    assert of_copying.rows[1][:4] == ("ppo, mine:Assigner", "1", "0.700 [0.700, 0.700]", "45")


def test_rewards_are_compared_with_scalar_on_the_tasks_that_both_have():
    streams, mine = sorted(comparisons(ROWS), key=lambda each: each.reward, reverse=True)
    assert (streams.reward, streams.tasks, streams.improvement.value) == ("streams", 1, 1.0)
    # copying: better than both runs of scalar, 1; number_duel: the same, 1/2
    assert (mine.reward, mine.tasks, mine.improvement.value) == ("mine:Assigner", 2, 0.75)
    assert mine.score.value == 0.6
    assert comparisons(learning_row("copying", "dense", 0, [0, 1], (0, 9)) for _ in range(1)) == []


def test_another_agent_is_another_contestant_with_a_baseline_of_its_own():
    rows = [*ROWS, learning_row("copying", "dense", 0, [0, 1, 1], agent="rloo")]
    assert [each.agent for each in comparisons(rows)] == ["ppo", "ppo"]
    assert list(by_task(rows)["copying"]) == ["ppo, scalar", "ppo, mine:Assigner", "rloo, dense"]


def test_settings_of_the_same_name_are_told_apart():
    other = learning_row("copying", "scalar", 0, [0, 1, 1])
    setting = Setting("copying", "scalar", "ppo", 128)
    other |= {"key": setting.key, "setting": other["setting"] | {"episodes": 128}}
    assert list(by_task([ROWS[0], other])["copying"]) == ["ppo, scalar", "ppo, scalar (episodes=128)"]
    (compared,) = comparisons([ROWS[0], other, learning_row("copying", "dense", 0, [0, 0.5, 0.5])])
    assert compared.baseline.value == 0.4  # of the first of them


def test_a_failed_run_is_in_no_table_but_its_own():
    rows = [*ROWS, failed_row()]
    assert [each["error"] for each in failed(rows)] == ["RuntimeError: no | rewards"]
    assert len(learned(rows)) == len(ROWS)
    last = tables(rows)[-1]
    assert last.title.startswith("runs that failed")
    assert last.rows == (("copying", "ppo, dense", "0", "RuntimeError: no | rewards"),)
    assert [each.rows for each in tables(rows)[:-1]] == [each.rows for each in tables(ROWS)]


def test_credit_is_a_mean_over_policies_or_none():
    rows = [
        credit_row("probe_joint", "last", 0, 0.5),
        credit_row("probe_joint", "last", 1, 1.0),
        credit_row("probe_duel", "last", 0, None),
        credit_row("probe_joint", "shapley", 0, -1.0),
    ]
    cosine = table(rows, "credit: cosine")
    assert cosine.columns == ("assigner", "probe_joint", "probe_duel")
    assert cosine.rows == (("last", "0.75", "none"), ("shapley", "-1.00", "none"))
    assert table(rows, "credit: reward calls").rows[0][1] == "3.00"


def test_markdown_keeps_its_columns_whatever_a_cell_says():
    lines = tables([failed_row()])[0].markdown().splitlines()
    assert lines[2:4] == ["| task | agent, reward | seed | error |", "|---|---|---|---|"]
    assert lines[4] == "| copying | ppo, dense | 0 | RuntimeError: no \\| rewards |"
    assert tables([]) == []
