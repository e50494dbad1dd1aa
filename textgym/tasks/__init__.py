"""The shipped tasks: one task, one file, a datasheet as its docstring. The table is data; nothing is imported here."""

TASKS: dict[str, str] = {
    "brackets": "textgym.tasks.brackets:Brackets",
    "chained_arithmetic": "textgym.tasks.chained_arithmetic:ChainedArithmetic",
    "copying": "textgym.tasks.copying:Copying",
    "guess_number": "textgym.tasks.guess_number:GuessNumber",
    "json_record": "textgym.tasks.json_record:JsonRecord",
    "number_duel": "textgym.tasks.number_duel:NumberDuel",
    "probe_decisive": "textgym.tasks.credit_probes:ProbeDecisive",
    "probe_distractors": "textgym.tasks.credit_probes:ProbeDistractors",
    "probe_duel": "textgym.tasks.credit_probes:ProbeDuel",
    "probe_joint": "textgym.tasks.credit_probes:ProbeJoint",
    "probe_length": "textgym.tasks.credit_probes:ProbeLength",
    "probe_pennies": "textgym.tasks.credit_probes:ProbePennies",
    "probe_reply": "textgym.tasks.credit_probes:ProbeReply",
    "probe_streams": "textgym.tasks.credit_probes:ProbeStreams",
    "random_walks": "textgym.tasks.random_walks:RandomWalks",
    "reasoning_gym": "textgym.tasks.reasoning_gym:ReasoningGym",
    "sentiment": "textgym.tasks.sentiment:Sentiment",
    "three_sentences": "textgym.tasks.three_sentences:ThreeSentences",
    "turn_duel": "textgym.tasks.turn_duel:TurnDuel",
}
"""Short name -> "module:Name". Each has an environment id of its own, ``textgym/<Name>-v0``."""

DEFAULT_TASK = "number_duel"
"""What ``gym.make("TextGen-v0")`` plays."""
