import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from textgym import TextTokenizer, symbol_tokenizer


def hold(tokenizer: TextTokenizer, ids: list[int]) -> list[str]:
    text, offsets = tokenizer.offsets(ids)
    assert text == tokenizer.decode(ids)
    return [text[start:end] for start, end in offsets]


def test_symbols_encode_to_themselves_and_join(letters):
    ids = letters.encode("abba. a\n")
    assert letters.decode(ids) == "abba. a\n"
    assert len(ids) == 8
    assert (letters.bos_token_id, letters.eos_token_id) == (0, 1)


def test_longest_symbol_is_taken_first():
    tokenizer = symbol_tokenizer([" a", " ab", "."])
    assert tokenizer.encode(" ab a.").tolist() == [3, 2, 4]


def test_unknown_text_is_an_error_not_a_silent_drop(letters):
    with pytest.raises(ValueError, match="the tokenizer cannot encode 'abz'"):
        letters.encode("abz")
    with pytest.raises(ValueError, match="one or more distinct texts"):
        symbol_tokenizer([])


def test_builtin_tokenizer_loads_with_auto_tokenizer(letters, tmp_path):
    letters.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert (loaded.eos_token_id, loaded.bos_token_id, len(loaded)) == (1, 0, len(letters))
    assert loaded.encode("ab.", add_special_tokens=False) == letters.encode("ab.").tolist()
    assert loaded.decode([2, 3, 1]) == letters.backend.decode([2, 3, 1], skip_special_tokens=False)


def test_sampled_ids_are_never_re_encoded_F21(byte_bpe):
    tokenizer = TextTokenizer(byte_bpe, eos_token_id=0)
    h, e, ll, o = (byte_bpe.token_to_id(piece) for piece in ("h", "e", "ll", "o"))
    sampled = [h, e, *([ll] if ll is not None else [byte_bpe.token_to_id("l")] * 2), o]
    text, offsets = tokenizer.offsets(sampled)
    assert text == "hello"
    assert byte_bpe.encode("hello").ids != sampled  # encoding again would give other tokens
    assert len(offsets) == len(sampled)


def test_begin_of_text_is_not_inserted_by_encoding_F22():
    from tokenizers.processors import TemplateProcessing

    backend = copy.deepcopy(symbol_tokenizer(list("ab")).backend)
    backend.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    assert backend.encode("ab").ids == [0, 2, 3]
    assert TextTokenizer(backend, eos_token_id=1).encode("ab").tolist() == [2, 3]


def test_special_tokens_in_the_middle_keep_their_place_F23(letters):
    assert hold(letters, [2, 0, 3, 1]) == ["a", "", "b", ""]
    _, offsets = letters.offsets([2, 0, 3, 1])
    assert offsets.tolist() == [[0, 1], [1, 1], [1, 2], [2, 2]]


def test_tokens_that_share_a_character_all_hold_it_F25(byte_bpe):
    tokenizer = TextTokenizer(byte_bpe, eos_token_id=0)
    alphabet = {byte: byte_bpe.token_to_id(piece) for byte, piece in _byte_pieces().items()}
    smile = [alphabet[byte] for byte in "😀".encode()]
    a = byte_bpe.token_to_id("a")
    assert hold(tokenizer, [a, *smile, a]) == ["a", "😀", "😀", "😀", "😀", "a"]
    assert hold(tokenizer, [smile[0], a]) == ["\ufffd", "a"]  # bytes that never become a character
    assert hold(tokenizer, [a, smile[0], smile[1]]) == ["a", "\ufffd", "\ufffd"]  # cut in the middle of one
    assert hold(tokenizer, smile[1:]) == ["\ufffd"] * 3  # leading replacement characters


def test_leading_space_of_the_first_piece_is_not_counted_F25(metaspace_bpe):
    tokenizer = TextTokenizer(metaspace_bpe, eos_token_id=2)
    ids = tokenizer.encode("he said").tolist()
    assert "".join(hold(tokenizer, ids)) == "he said"


def _byte_pieces() -> dict[int, str]:
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(rest)}


def check_offsets(tokenizer: TextTokenizer, ids: list[int]) -> None:
    text, offsets = tokenizer.offsets(ids)
    assert text == tokenizer.decode(ids)
    assert offsets.tolist() == tokenizer._offsets_by_prefix(ids, text).tolist()  # the fast way agrees with the definition
    starts, ends = offsets.T
    assert (starts >= 0).all()
    assert (starts <= ends).all()
    assert (ends <= len(text)).all()
    assert (np.diff(ends) >= 0).all()
    covered = np.zeros(len(text), dtype=bool)
    for start, end in offsets:
        covered[start:end] = True
    assert covered.all()  # no character without a token
    special = np.array([i in tokenizer.special_ids for i in ids], dtype=bool)
    assert (starts[special] == ends[special]).all()


@settings(max_examples=200)
@given(data=st.data())
def test_offsets_cover_random_samples_of_byte_level_bpe(byte_bpe, data):
    ids = data.draw(st.lists(st.integers(0, byte_bpe.get_vocab_size() - 1), max_size=24))
    check_offsets(TextTokenizer(byte_bpe, eos_token_id=0), ids)


@settings(max_examples=200)
@given(data=st.data())
def test_offsets_cover_random_samples_with_leading_spaces_and_byte_fallback(metaspace_bpe, data):
    ids = data.draw(st.lists(st.integers(0, metaspace_bpe.get_vocab_size() - 1), max_size=24))
    check_offsets(TextTokenizer(metaspace_bpe, eos_token_id=2), ids)


@settings(max_examples=100)
@given(text=st.text(max_size=20))
def test_offsets_of_any_text_join_to_it(byte_bpe, text):
    tokenizer = TextTokenizer(byte_bpe, eos_token_id=0)
    check_offsets(tokenizer, tokenizer.encode(text).tolist())
    assert tokenizer.offsets(tokenizer.encode(text))[0] == text


def test_tokenizer_without_end_of_text_is_refused_at_construction():
    backend = Tokenizer(models.WordLevel({"a": 0}))
    with pytest.raises(ValueError, match="no end-of-text token"):
        TextTokenizer(backend)
    with pytest.raises(ValueError, match="no end-of-text token"):
        TextTokenizer(PreTrainedTokenizerFast(tokenizer_object=backend))


def test_tokenizer_without_a_decoder_of_its_own_is_refused():
    with pytest.raises(TypeError, match="Tokenizer"):
        TextTokenizer(object())


def test_tokenizer_that_cuts_texts_is_refused(letters):
    backend = copy.deepcopy(letters.backend)
    backend.enable_truncation(3)
    with pytest.raises(ValueError, match="no_truncation"):
        TextTokenizer(backend, eos_token_id=1)


def test_special_ids_outside_the_vocabulary_are_refused(letters):
    with pytest.raises(ValueError, match="eos_token_id is 99"):
        TextTokenizer(letters, eos_token_id=99)


def test_vocabulary_with_holes_is_refused():
    with pytest.raises(ValueError, match="holes"):
        TextTokenizer(Tokenizer(models.WordLevel({"a": 0, "b": 5})), eos_token_id=0)


def test_tokenizer_copies_as_itself(letters):
    assert copy.deepcopy({"t": letters})["t"] is letters


def test_candidates_for_stop_strings_miss_none(byte_bpe, letters):
    table = letters.may_complete(["b.", "\n"])
    assert [letters.piece(i) for i in np.flatnonzero(table)] == [".", "\n"]
    tokenizer = TextTokenizer(byte_bpe, eos_token_id=0)
    table = tokenizer.may_complete(["rs"])
    rng = np.random.default_rng(0)
    for _ in range(300):
        ids = rng.integers(0, len(tokenizer), size=12).tolist()
        before = [tokenizer.decode(ids[:i]) for i in range(13)]
        for i in range(12):
            if before[i + 1].count("rs") > before[i].count("rs"):
                assert table[ids[i]]


def test_a_run_of_fallback_bytes_is_decoded_as_a_whole_F25(metaspace_bpe):
    tokenizer = TextTokenizer(metaspace_bpe, eos_token_id=2)
    b = {byte: metaspace_bpe.token_to_id(f"<0x{byte:02X}>") for byte in range(256)}
    e = metaspace_bpe.token_to_id("e")

    def offsets(*ids):
        check_offsets(tokenizer, list(ids))
        return tokenizer.offsets(list(ids))[1].tolist()

    assert offsets(b[0xC3], b[0xA9]) == [[0, 1], [0, 1]]
    assert offsets(b[0xC3], b[0xA9], b[0x80]) == [[0, 1], [1, 2], [2, 3]]  # the last byte undoes the character
    assert offsets(e, b[0x0A], b[0x80]) == [[0, 1], [1, 2], [2, 3]]
    assert offsets(b[0xC3], 2, b[0xA9], e) == [[0, 1], [1, 1], [0, 1], [1, 2]]  # end-of-text in the middle of a character
    assert offsets(*(b[byte] for byte in "a😀".encode())) == [[0, 1], *[[1, 2]] * 4]


def test_stop_strings_are_looked_for_after_every_token_where_the_decoder_is_unknown():
    backend = Tokenizer(models.WordLevel({"</s>": 0, "a": 1, "b": 2}))  # no decoder: words are joined by spaces
    assert TextTokenizer(backend, eos_token_id=0).may_complete(["a "]).all()


@pytest.mark.parametrize("name", ["byte_bpe", "metaspace_bpe", "letters"])
@settings(max_examples=100)
@given(data=st.data())
def test_the_tail_of_a_text_reads_as_in_the_whole_text(name, request, data):
    tokenizer = TextTokenizer(request.getfixturevalue(name), eos_token_id=1)
    ids = np.array(data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=60)), dtype=np.int64)
    start = data.draw(st.integers(0, len(ids)))
    characters = data.draw(st.integers(1, 6))
    whole = tokenizer.decode(ids)
    before = tokenizer.decode(ids[:start])
    shared = next((i for i, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), min(len(before), len(whole)))
    tail = tokenizer.tail(ids, characters, start)
    assert tail[-characters:] == whole[shared:][-characters:]


def test_the_tail_costs_the_same_however_long_the_text_is(letters, monkeypatch):
    decoded = []
    real = TextTokenizer.decode
    monkeypatch.setattr(TextTokenizer, "decode", lambda self, ids: decoded.append(len(ids)) or real(self, ids))
    for length in (100, 10_000):
        letters.tail(np.full(length, 2), 3)
    assert decoded[0] == decoded[1] < 30


def test_the_tail_does_not_begin_within_a_character_or_a_run_of_bytes(byte_bpe, metaspace_bpe):
    tokenizer = TextTokenizer(byte_bpe, eos_token_id=0)
    alphabet = {byte: byte_bpe.token_to_id(piece) for byte, piece in _byte_pieces().items()}
    ids = np.array([alphabet[byte] for byte in "ab😀".encode()] + [0] * 8)  # special tokens fill the tail
    assert tokenizer.tail(ids, 3) == "ab😀"
    tokenizer = TextTokenizer(metaspace_bpe, eos_token_id=2)
    run = np.array([metaspace_bpe.token_to_id(f"<0x{byte:02X}>") for byte in ("é" * 20).encode()])
    for cut in range(4):
        assert tokenizer.tail(run, 3 + cut).endswith("é" * (3 + cut))


def test_a_space_that_the_decoder_drops_belongs_to_nobody_F25(metaspace_bpe):
    tokenizer = TextTokenizer(metaspace_bpe, eos_token_id=2)
    space, e = metaspace_bpe.token_to_id("<0x20>"), metaspace_bpe.token_to_id("e")
    assert tokenizer.offsets([space])[1].tolist() == [[0, 0]]
    assert hold(tokenizer, [space, e]) == ["", "e"]
    assert hold(tokenizer, [space, space, e]) == ["", " ", "e"]
    assert hold(tokenizer, [e, space, e]) == ["e", " ", "e"]


def test_replacement_characters_after_a_space_are_held_inside_a_text_F25():
    pieces = {"</s>": 0, "a": 1, "\u2581\ufffd": 2, "\ufffd": 3, "\u2581": 4}
    backend = Tokenizer(models.WordLevel(pieces))
    backend.add_special_tokens(["</s>"])
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    tokenizer = TextTokenizer(backend, eos_token_id=0)
    assert hold(tokenizer, [1, 1, 2]) == ["a", "a", " \ufffd"]
    rng = np.random.default_rng(0)
    for _ in range(300):
        check_offsets(tokenizer, rng.integers(5, size=8).tolist())


MESSAGES = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello world"}]


def test_a_conversation_is_written_exactly_as_the_template_does_with_one_begin_of_text(chat_tokenizer):
    tokenizer = TextTokenizer(chat_tokenizer)
    text, ids = tokenizer.chat(MESSAGES)
    assert text == "<s><|turn|>system: be brief<|turn|>user: hello world<|turn|>assistant: "
    assert ids.dtype == np.int64
    assert [tokenizer.piece(i) for i in ids[:2]] == ["<s>", "<|turn|>"]
    assert (ids == tokenizer.bos_token_id).sum() == 1
    assert chat_tokenizer.decode(ids.tolist()) == text  # special tokens are tokens, not their letters
    assert (ids == chat_tokenizer.convert_tokens_to_ids("<|turn|>")).sum() == 3


def test_conversations_without_a_template_or_that_it_does_not_take_are_errors(letters, chat_tokenizer):
    with pytest.raises(ValueError, match="a prompt is a list of messages but the tokenizer, a Tokenizer, has no chat template"):
        letters.chat(MESSAGES)
    with pytest.raises(ValueError, match=r"chat template does not take .*'tool'.*: no tools here"):
        TextTokenizer(chat_tokenizer).chat([{"role": "tool", "content": "x"}])
