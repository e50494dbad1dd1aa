import pytest
from textgym_agents import PPO, resolve_agent
from textgym_agents import agent as agent_module


class Silent:
    """An agent as a user writes it: no base class."""

    def __init__(self, policy, seed=0):
        self.policy = policy

    def learn(self, envs, budget, callback=None): ...
    def save(self, folder): ...
    def load(self, folder): ...


def test_agents_come_by_short_name_module_name_class_and_object():
    assert agent_module.AGENTS["ppo"].endswith(":" + PPO.__name__)
    for agent in (f"{__name__}:Silent", Silent, lambda policy, seed: Silent(policy), Silent("p")):
        assert resolve_agent(agent, "p", seed=0).policy == "p"


def test_every_short_name_leads_to_an_agent_and_a_wrong_one_to_the_nearest():
    for name in agent_module.AGENTS:
        found = agent_module.find_agent(name)
        assert all(hasattr(found, member) for member in ("learn", "save", "load"))
    with pytest.raises(ValueError, match=r"there is no agent 'reinforced'. Did you mean 'reinforce'"):
        agent_module.find_agent("reinforced")


def test_agents_come_by_entry_point(monkeypatch):
    class Point:
        name = "mine"

        def load(self):
            return Silent

    monkeypatch.setattr(agent_module, "entry_points", lambda group: [Point()] if group == "textgym.agents" else [])
    assert isinstance(resolve_agent("mine", "p", seed=0), Silent)
    with pytest.raises(ValueError, match=r"there is no agent 'nobody'; there are ppo, .*, mine, and 'module:Name'"):
        resolve_agent("nobody", "p", seed=0)


def test_objects_that_are_no_agents_say_what_they_lack():
    class NoLearn:
        policy = None

    with pytest.raises(TypeError, match=r"test_agent:.*NoLearn is not an agent: it lacks learn, save, load"):
        resolve_agent(NoLearn(), "p", seed=0)


class NoSeed:
    def __init__(self, policy): ...


def test_agents_that_cannot_be_made_say_what_they_take():
    with pytest.raises(ValueError, match="NoSeed: got an unexpected keyword argument 'seed'; its arguments are policy"):
        resolve_agent(NoSeed, "p", seed=0)
