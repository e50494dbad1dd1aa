"""The shipped tasks: one task, one file, a datasheet as its docstring. The table is data; nothing is imported here."""

TASKS: dict[str, str] = {
    "copying": "textgym.tasks.copying:Copying",
    "guess_number": "textgym.tasks.guess_number:GuessNumber",
    "number_duel": "textgym.tasks.number_duel:NumberDuel",
    "random_walks": "textgym.tasks.random_walks:RandomWalks",
    "three_sentences": "textgym.tasks.three_sentences:ThreeSentences",
}
"""Short name -> "module:Name". Each has an environment id of its own, ``textgym/<Name>-v0``."""

DEFAULT_TASK = "number_duel"
"""What ``gym.make("TextGen-v0")`` plays."""
