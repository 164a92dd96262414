"""Stage 6 against transformers' CLIPTokenizer and CLIPTextModel."""

import copy
import functools
import math
import random
import re
import unicodedata
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from torch import nn

from course.core.config import CLIPConfig
from course.feedback import renaming
from course.feedback.compare import TOLERANCE, check, name_of, rand, shortened
from course.feedback.divergence import CLIP_PARTS, first_divergence
from tests.stages import reference
from tests.stages.blocks import check_block, check_default_dtype, make_block
from tests.stages.drawing import check_drawing, each_drawing
from tests.stages.in_turn import check_block_in_turn, check_function_in_turn, check_in_turn, each_way
from tests.stages.light import without_compiler
from tests.stages.pretended import check_block_on_gpu

with without_compiler():
    from transformers import CLIPTokenizer

bpe = pytest.mark.exercise("6.1")
tokenize = pytest.mark.exercise("6.2")
rows = pytest.mark.exercise("6.3")
mask = pytest.mark.exercise("6.4")
layer = pytest.mark.exercise("6.5")
encoder = pytest.mark.exercise("6.6")

BEGIN, END = "<|startoftext|>", "<|endoftext|>"


def one_per_text(table):
    """The rows of a table (name, texts, more columns) as parameters, one test for each of the texts."""
    return [pytest.param(text, *more, id=f"{name}: {text!a:.20}") for name, texts, *more in table for text in texts]


# --- byte-pair encoding ----------------------------------------------------------------------------------------------


def vocabulary_of(merges, alphabet):
    """As in CLIP: every symbol, every symbol at the end of a word, one token per merge, the two marks."""
    tokens = [*alphabet, *(f"{symbol}</w>" for symbol in alphabet), *("".join(pair) for pair in merges), BEGIN, END]
    return {token: i for i, token in enumerate(dict.fromkeys(tokens))}


def their_bpe(word, merges, alphabet):
    model = BPE(vocab=vocabulary_of(merges, alphabet), merges=list(merges), end_of_word_suffix="</w>", fuse_unk=False)
    return [token.value for token in model.tokenize(word)]


def check_bpe(stage, word, merges, hint="", alphabet="abcdefghijklmnopqrstuvwxyz"):
    check(
        stage, "list(Tokenizer(vocab, merges).bpe(word))", their_bpe(word, merges, alphabet),
        f"Tokenizer(vocab, merges={shortened(str(merges))}).bpe({word!r})", hint=hint,
        vocab=vocabulary_of(merges, alphabet), merges=merges, word=word,
    )


BPE_CASES = [  # words; the merge list; what a difference means
    ("without merges every character is a symbol", ["a", "ab", "carpet"], "",
     "the last symbol, and only that, ends with </w>."),
    ("one merge", ["cat"], "c a", "neighbours that the merge list knows become one symbol."),
    ("the end of a word is part of the last symbol", ["at"], "a t",
     "('a', 't') is not ('a', 't</w>'): add </w> before you merge."),
    ("car is not carpet", ["car", "carpet", "scar"], "c a, ca r</w>, ca r, p e, pe t</w>",
     "a merged symbol can be merged again; </w> tells a whole word from the beginning of a longer one."),
    ("the lowest rank goes first", ["abc"], "b c</w>, a b",
     "not from left to right: of all pairs in the word, the one that comes first in the merge list."),
    ("the ranks are compared again after each merge", ["abcd"], "a b, c d</w>, b c, ab cd</w>",
     "one pass through the merge list, or through the word, is not enough in general."),
    ("a pair is joined wherever it stands", ["abxabyab"], "a b, ab x",
     "join all places before you look for the next pair; 'b</w>' at the end is another symbol."),
    ("overlapping pairs are joined from the left", ["aaa", "aaaa", "aaaaa", "aaaaaa"], "a a, aa aa, aa a</w>",
     "go on behind the pair that was joined."),
    ("a pair whose symbols look alike", ["abab"], "a b, b a",
     "compare whole symbols; do not replace text inside of them."),
    ("a very long word", ["abc" * 100], "a b, c ab",
     "numbers are compared with < or ==; `is` asks whether they are one object, which only small ones are."),
]


@bpe
@pytest.mark.parametrize(("word", "merges", "hint"), one_per_text(BPE_CASES))
def test_bpe(stage, word, merges, hint):
    check_bpe(stage, word, [tuple(pair.split()) for pair in merges.split(", ") if pair], hint)


@bpe
@given(st.integers(1, 12), st.text("abc", min_size=1, max_size=12), st.integers(0, 2**31))
def test_any_merge_list(stage, count, word, seed):
    check_bpe(stage, word, random_merges(count, seed), alphabet="abc")


def random_merges(count, seed):
    """A merge list as training makes them: each pair consists of symbols that exist by then."""
    chance = random.Random(seed)
    inner, last, merges = list("abc"), [f"{symbol}</w>" for symbol in "abc"], []
    while len(merges) < count:
        pair = chance.choice(inner), chance.choice(inner + last)
        joined = "".join(pair)
        if joined not in inner + last and len(joined) < 12:
            merges.append(pair)
            (last if joined.endswith("</w>") else inner).append(joined)
    return merges


# --- from text to ids ------------------------------------------------------------------------------------------------

TEXT = """
a red house on a green hill, a small red house at night, two houses beside a lake and a tree in front of the house
the cat sat on the carpet with a car and a carpenter in the cartoon, an oil painting of a castle by the sea
a photograph of an astronaut riding a horse on mars, highly detailed, digital art, 4k, 8k, trending, masterpiece
it's the king's crown, don't we're they've i'm she'll he'd isn't, portrait of a woman wearing a blue dress !!! ... --
straße café crème brûlée naïve señor über ångström été москва красный дом кот 東京 日本 家 赤い 빨간 집 βασιλεύς σοφός
🏠 🏡 🌲 🐈 🔥🔥 👩‍🚀 1999 2024 3d 35mm f/1.8 #art @home 100% (masterpiece:1.2) [sunset] {moon} painting, landscape
"""


@functools.cache
def learned():
    """The vocab and the merges of a tokenizer: a few hundred merges out of TEXT, with the byte alphabet below them."""
    byte_level = ByteLevel(add_prefix_space=False, use_regex=False)
    words = Counter()
    for word in TEXT.split():
        (spelled, _), = byte_level.pre_tokenize_str(word)
        words[f"{' '.join(spelled)}</w>"] += 1
    merges = []
    while len(merges) < 300:
        counts = Counter()
        for word, count in words.items():
            symbols = word.split()
            for pair in zip(symbols, symbols[1:]):
                counts[pair] += count
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        apart = re.compile(rf"(?<!\S){re.escape(' '.join(best))}(?!\S)")
        joined = "".join(best).replace("\\", r"\\")
        words = Counter({apart.sub(joined, word): count for word, count in words.items()})
    return {"vocab": vocabulary_of(merges, sorted(ByteLevel.alphabet())), "merges": merges}


@functools.cache
def their_tokenizer(max_length=77):
    return CLIPTokenizer(**learned(), model_max_length=max_length)


def their_ids(text):
    return their_tokenizer()(text, add_special_tokens=False)["input_ids"]


def their_rows(prompts, max_length=77):
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    return their_tokenizer(max_length)(prompts, padding="max_length", truncation=True, return_tensors="pt")["input_ids"]


@functools.cache
def names_of_ids():
    return {i: token for token, i in learned()["vocab"].items()}


def names(ids):
    return [names_of_ids().get(int(i), i) if isinstance(i, (int, torch.Tensor)) else i for i in ids]


def check_tokens(stage, text, hint=""):
    """Compares tokens rather than ids first, for a message that can be read."""
    call, wanted = f"Tokenizer(vocab, merges).tokenize({text!r})", their_ids(text)
    check(stage, f"names({call})", names(wanted), f"the tokens of {call}", hint=hint, names=names, **learned())
    check(stage, f"list({call})", wanted, call, hint="ids are ints.", **learned())


TOKEN_CASES = [  # texts; what a difference means
    ("a word", ["house"], "find the words, split each with bpe, and look the tokens up in self.vocab."),
    ("words", ["a red house on a green hill"], "words(self.clean(part)) gives the words; spaces are no tokens."),
    ("nothing at all", ["", " ", "\t\n", "\u3000"], "no words give no tokens: an empty list."),
    ("capital letters", ["A Red HOUSE"], "self.clean makes them lower case."),
    ("white space", ["a  red \t\n house ", "a\u00a0red\u3000house", "a\x85red\u2028house"],
     "any white space, however much of it, only separates words."),
    ("punctuation is a word of its own", ["cat,", "house!!!", "(masterpiece:1.2)", "a.b", "-- a --", "f/1.8"],
     "let `words` cut the text; splitting at spaces leaves the comma at the cat."),
    ("every digit is a word of its own", ["4k", "1999", "35mm", "a1b2"], "`words` takes digits one by one."),
    ("contractions", ["it's", "don't we're they've i'm she'll he'd", "IT'S", "'sun", "rock'n'roll", "''s"],
     "`words` cuts 's, 't, 're, 've, 'm, 'll and 'd off."),
    ("letters beyond ASCII are spelled in bytes", ["café", "straße", "москва", "東京", "빨간 집", "naïve señor"],
     "encode the word as UTF-8, then write each byte as self.alphabet[byte]."),
    ("digits beyond ASCII", ["Ⅻ", "½²", "٣٤"], "`words` knows them: each is a word of its own."),
    ("emoji are spelled in bytes", ["🏠", "a 🌲 and a 🐈", "🔥🔥", "👩‍🚀", "❤️"],
     "an emoji is four bytes of UTF-8; some are several characters."),
    ("what cannot be seen need not be white space", ["a\x1cb", "a\u200bb", "\ufeffa", "a\x00b"],
     "leave it to `words` to say what is white space; str.split differs."),
    ("accents may be characters of their own",
     ["cafe\u0301", "caf\u00e9", "\u1112\u1161\u11ab", "a\u030angstro\u0308m", "\u212b"],
     "self.clean composes them (normal form C)."),
    ("odd capital letters", ["ΣΟΦΌΣ", "İstanbul", "ẞ STRASSE", "ǅ", "'ſ", "K", "ͅ"],
     "self.clean makes every character lower case by itself."),
    ("marks written in the prompt",
     [END, f"a {BEGIN} red", f"a cat.{END}house", f"{END}{END}", f"{BEGIN}a red house{END}", "<|endoftext", "|>",
      f"e\u0301{END}\u0301", f"x {END.upper()}", "<|EndOfText|>"],
     "cut the text with MARK.split before anything else; only what is exactly a mark is one token."),
]


@tokenize
@pytest.mark.parametrize(("text", "hint"), one_per_text(TOKEN_CASES))
def test_tokens(stage, text, hint):
    check_tokens(stage, text, hint)


@tokenize
def test_a_token_that_the_vocabulary_lacks(stage):
    vocab = {"a": 0, "a</w>": 1, "b": 2, BEGIN: 3, END: 4}
    check(
        stage, "list(Tokenizer(vocab, merges=[]).tokenize('b ba'))",
        CLIPTokenizer(vocab=vocab, merges=[])("b ba", add_special_tokens=False)["input_ids"],
        f"Tokenizer({vocab}, merges=[]).tokenize('b ba')", vocab=vocab,
        hint="there is no 'b</w>': it becomes self.end.",
    )


@tokenize
def test_long_texts_are_not_cut_here(stage):
    text, call = "a red house on a green hill " * 30, "len(Tokenizer(vocab, merges).tokenize(text))"
    hint = "__call__ cuts; tokenize gives all tokens."
    check(stage, call, len(their_ids(text)), f"{call} with 210 words", hint=hint, text=text, **learned())


@tokenize
@pytest.mark.parametrize("call", ["len({})", "list({}[1:])"], ids=["len", "cut"])
def test_ids_are_a_sequence(stage, call):
    text, run = "a red house", call.format("Tokenizer(vocab, merges).tokenize(text)")
    hint = "return a list: `make generate` counts the ids, and cuts them."
    wanted = len(their_ids(text)) if "len" in call else their_ids(text)[1:]
    check(stage, run, wanted, hint=hint, text=text, **learned())


@tokenize
def test_the_byte_alphabet_is_complete(stage):
    """Given: one character for each byte, those that the tokenizers library uses."""
    alphabet = stage.byte_alphabet()
    assert sorted(alphabet) == list(range(256)) and set(alphabet.values()) == set(ByteLevel.alphabet())


# --- rows of ids -----------------------------------------------------------------------------------------------------


def check_rows(stage, prompts, about="", hint="", max_length=77):
    """about: what to say of prompts that are not to be shown."""
    tokenizer = f"Tokenizer(vocab, merges{'' if max_length == 77 else f', max_length={max_length}'})"
    call = f"{tokenizer}(prompts) with {about}" if about else f"{tokenizer}({prompts!r})"
    wanted = their_rows(prompts, max_length)
    check(stage, f"{tokenizer}(prompts)", wanted, call, hint=hint, prompts=prompts, **learned())


ROW_CASES = {
    "one prompt in a list": (["a red house"], "begin mark, tokens, end mark, and end marks up to 77 in all."),
    "a prompt without a list":
        ("a red house", "one prompt is one row: (1, 77). A str is a sequence too, of its characters."),
    "several prompts": (["a red house", "", "the cat sat on the carpet"], "a row of 77 ids for each prompt, in order."),
    "a tuple of prompts": (("a red house", "", "the cat sat on the carpet"), "a tuple is as good as a list."),
    "the empty prompt": ([""], "a begin mark and 76 end marks."),
}


@rows
@pytest.mark.parametrize(("prompts", "hint"), ROW_CASES.values(), ids=ROW_CASES.keys())
def test_rows(stage, prompts, hint):
    check_rows(stage, prompts, hint=hint)


@rows
@pytest.mark.parametrize("words", [74, 75, 76, 77, 200])
def test_long_prompts_keep_the_end_mark(stage, words):
    prompt = " ".join(random.Random(words).choices("a b c d e".split(), k=words))
    check_rows(
        stage, [prompt], f"a prompt of {words} tokens",
        hint="cut the tokens to 75 first; then add the marks. 75 tokens are not too many.",
    )


@rows
@pytest.mark.parametrize("max_length", [3, 8, 100])
def test_other_lengths(stage, max_length):
    prompts = ["a red house on a green hill with a tree", "a", ""]
    check_rows(stage, prompts, max_length=max_length, hint="self.max_length instead of 77.")


@rows
@pytest.mark.parametrize(
    ("text", "wanted"), [("a red  House, 42!", "a red house , 4 2 !"), ("Straße 🏠", "straße 🏠"), ("", "")]
)
def test_ids_read_back(stage, text, wanted):
    """Given, but it leans on the ids."""
    check(
        stage, "Tokenizer(vocab, merges).decode(Tokenizer(vocab, merges)(text)[0])", wanted, text=text, **learned(),
        hint="decode itself is given: the ids are to be looked at.",
    )


def alphabet_of_prompts():
    """Characters of all kinds, more of the usual ones; all of them in Unicode since long before Python 3.11."""
    usual = "aaabcdeeefghiiijklmnooopqrstuuuvwxyzABCDERST" + "      " + "0123456789"
    usual += "'',,..!?-_()[]{}:;\"#@/\\|<>*&%$+=~^`"
    accents = "éèüößñçåøéÉÜ" + "\u0301\u0308\u030a\u0327\u0345" + "İıſßẞΣσς" + "ǅﬁKÅΩ"
    scripts = "москваДЖαβγΔहिन्दीשלוםمرحباไทย日本語東京漢字한국어빨간กา"
    odd = "\t\n\r\v\f\x00\x07\x1b\x1c\x1f\x85\xa0\u00ad\u200b\u200d\u2003\u2028\u3000\ufeff\ufe0f\ufffd"
    signs = "½²Ⅻ٣४①" + "„“”’…–—·€£©™°"
    emoji = "🏠🌲🐈🔥👩🚀❤🇩🇪🏽"
    return usual * 4 + accents + scripts + odd + signs + emoji


PIECES = [
    "a red house", "on a green hill", "it's", "DON'T", "we'Re", "'s", "4k", "1999", "35mm", "(masterpiece:1.2)", "!!!",
    "...", "café", "cafe\u0301", "ΣΟΦΌΣ", "İstanbul", "Straße", "🏠🏡", "👩‍🚀", "❤️", "東京", BEGIN, END, "<|endoftext",
    "carpet", "  ", "\n", "\t ", "\u3000", ", ", "'", "''", "<", "|>", "trending on artstation", "</w>", "a</w>",
]


def generated_prompts(count):
    """Random prompts, from tidy to wild: pieces in any order, and characters in any order."""
    chance, characters = random.Random(1), alphabet_of_prompts()
    for i in range(count):
        if i % 3 == 0:
            text = "".join(chance.choices(characters, k=chance.randint(0, 40)))
        elif i % 3 == 1:
            text = " ".join(chance.choices(PIECES, k=chance.randint(1, 12)))
        else:
            text = "".join(chance.choice([chance.choice(PIECES), chance.choice(characters)]) for _ in range(30))
        if i % 7 == 0:
            text = unicodedata.normalize("NFD", text)
        if i % 11 == 0:
            text = text.upper().replace(BEGIN.upper(), BEGIN).replace(END.upper(), END)
        if i % 50 == 0:
            text *= 4
        yield text


@rows
def test_more_than_a_thousand_prompts(stage):
    """Read by one tokenizer; where it errs, what a new one makes of the same prompt is shown if that errs, too."""
    prompts = list(generated_prompts(1200))
    tokenizer = stage.Tokenizer(**learned())
    for prompt, ids in zip(prompts, their_ids(prompts)):
        if list(tokenizer.tokenize(prompt)) != ids:
            check_tokens(stage, prompt)
            check_tokenizer_in_turn(stage, "tokenize", their_ids, prompts[: prompts.index(prompt) + 1])
    check_rows(stage, prompts, "1200 odd prompts")


@rows
@settings(max_examples=100)
@given(st.text(alphabet_of_prompts(), max_size=40))
def test_any_prompt(stage, prompt):
    check_rows(stage, [prompt])


# --- the causal mask -------------------------------------------------------------------------------------------------


@mask
@pytest.mark.parametrize("length", [1, 2, 5, 77])
def test_causal_mask(stage, length):
    wanted = torch.tensor([[0.0 if j <= i else -math.inf for j in range(length)] for i in range(length)])
    check(
        stage, f"causal_mask({length})", wanted,
        hint="row i: 0 in the columns up to i, the diagonal included, and -inf to the right (0 * inf is nan).",
    )


# --- one layer -------------------------------------------------------------------------------------------------------

CONFIGS = {
    "small": reference.SMALL_CLIP,
    "one layer": CLIPConfig(vocab_size=50, width=12, hidden_width=20, num_layers=1, num_heads=2, max_length=9),
    "five layers": CLIPConfig(vocab_size=40, width=16, hidden_width=16, num_layers=5, num_heads=8, max_length=20),
}
SMALL, ONE_LAYER, FIVE_LAYERS = CONFIGS.values()
RULES = {r"^model\.": ""} | renaming.CLIP
ROUGH = 1e-3  # for tests of the order of things; an eps that is wrong is the matter of a test of its own


class LastHiddenState(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, tokens):
        return self.model(tokens).last_hidden_state


@functools.cache
def theirs(config):
    return LastHiddenState(reference.clip(config))


def their_layer(config):
    return theirs(config).model.encoder.layers[0]


def altered(module, **factors):
    """A copy whose parameters with one of these words in their names are multiplied."""
    module = copy.deepcopy(module)
    for name, parameter in module.named_parameters():
        for word, factor in factors.items():
            parameter.data *= factor if word in name else 1
    return module


def text_of(config):
    return f"CLIPConfig(width={config.width}, num_heads={config.num_heads}, num_layers={config.num_layers})"


def causal(length):
    return torch.full((length, length), -math.inf, dtype=torch.float64).triu(1)


def check_layer(stage, config, theirs, x, mask, **kwargs):
    check_block(stage, "CLIPLayer(config)", theirs, RULES, names={"config": config}, x=x, mask=mask, **kwargs)


X, NO_MASK, CAUSAL, NUMBERS = rand(2, 5, SMALL.width), rand(5, 5, scale=0.0), causal(5), rand(5, 5, seed=1)
NUMBERS[1:, 0] = -math.inf
LAYER_CASES = {  # factors of parameters; x; mask; tolerance; about the call; what a difference means
    "the feed-forward part": (
        {"self_attn": 0}, X, NO_MASK, ROUGH, "with zeros for the attention's weights",
        "x itself comes through the first line; the second is x + fc2(quick_gelu(fc1(norm2(x))))."),
    "the attention part": (
        {"fc2": 0}, X, NO_MASK, ROUGH, "with zeros for fc2 and for the mask",
        "x + attention(norm1(x)): norm first, config.num_heads heads, then the sum."),
    "the mask reaches the attention": (
        {}, X, CAUSAL, ROUGH, "with a causal mask",
        "the first token sees only itself: is the mask passed on, and as the mask (not as the context)?"),
    "the mask is the one given": (
        {}, X, NUMBERS, ROUGH, "with a mask of ordinary numbers and a few -inf",
        "the layer takes the mask as it comes and makes none of its own."),
    "eps of norm1": (
        {"fc2": 0}, 0.005 * X, CAUSAL, TOLERANCE, "with a nearly flat x and zeros for fc2",
        "nn.LayerNorm's default eps, 1e-5, is the right one for norm1."),
    "eps of norm2": (
        {"self_attn": 0}, 0.005 * X, CAUSAL, TOLERANCE, "with a nearly flat x and zeros for the attention",
        "nn.LayerNorm's default eps, 1e-5, is the right one for norm2."),
}


@layer
@pytest.mark.parametrize(
    ("factors", "x", "mask", "tolerance", "about", "hint"), LAYER_CASES.values(), ids=LAYER_CASES.keys()
)
def test_layer_in_parts(stage, factors, x, mask, tolerance, about, hint):
    altered_layer = altered(their_layer(SMALL), **factors)
    check_layer(stage, SMALL, altered_layer, x, mask, tolerance=tolerance, about=about, hint=hint)


@layer
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_layer(stage, config):
    check_layer(
        stage, config, their_layer(config), rand(3, 7, config.width), causal(7), gradients=True, tolerance=1e-9,
        about=f"with {text_of(config)}",
    )


@layer
def test_layer_not_contiguous(stage):
    x = rand(2, SMALL.width, 5).transpose(1, 2)
    hint = "reshape works where view refuses."
    check_layer(stage, SMALL, their_layer(SMALL), x, CAUSAL, about="with x a transposed view", hint=hint)


# --- the text encoder ------------------------------------------------------------------------------------------------


def tokens_of(config, batch=2, length=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, config.vocab_size, (batch, length or config.max_length), generator=generator)


def prompts_of(config):
    """Rows as the tokenizer makes them: begin mark, tokens, and end marks up to the end."""
    tokens = torch.full((3, config.max_length), config.vocab_size - 1)
    tokens[:, 0] = config.vocab_size - 2
    for row, count in enumerate((0, 3, config.max_length - 2)):
        tokens[row, 1 : 1 + count] = tokens_of(config, 1, count or 1, seed=row)[0, :count]
    return tokens


def arguments(part, inputs):
    """Our layers and attentions take a causal mask where theirs may be told in another way."""
    kind = type(part).__name__
    if kind not in ("CLIPLayer", "MultiHeadAttention"):
        return inputs
    x = inputs[0]
    return [x, causal(x.shape[1])] if kind == "CLIPLayer" else [x, None, causal(x.shape[1])]


def make_encoder(module, config):
    weights = renaming.our_weights(theirs(config), RULES)
    return make_block(module, "CLIPTextEncoder(config)", weights, {"config": config})


def check_encoder(stage, config, tokens, model=None, tolerance=1e-9, **kwargs):
    check_block(
        stage, "CLIPTextEncoder(config)", model or theirs(config), RULES, names={"config": config}, tokens=tokens,
        tolerance=tolerance, **kwargs,
    )


def explain_encoder(config, tokens):
    def explain(module):
        model, ours = theirs(config).model, make_encoder(module, config)
        return first_divergence(model, lambda: model(tokens), ours, lambda: ours(tokens), CLIP_PARTS, arguments)

    return explain


@encoder
@pytest.mark.parametrize(
    ("scale", "tolerance", "about", "hint"),
    [
        (1.0, ROUGH, "with layers that add nothing",
         "the embedding of the token plus that of its position, 0, 1, 2, ...; final_norm at the very end."),
        (0.01, TOLERANCE, "with layers that add nothing and small embeddings",
         "nn.LayerNorm's default eps, 1e-5, is the right one for final_norm."),
    ],
    ids=["tokens, positions and final_norm", "eps of final_norm"],
)
def test_embeddings(stage, scale, tolerance, about, hint):
    model = altered(theirs(ONE_LAYER), self_attn=0, fc2=0, embedding=scale)
    check_encoder(stage, ONE_LAYER, tokens_of(ONE_LAYER), model, tolerance, about=about, hint=hint)


@encoder
def test_the_first_vector_depends_on_the_first_token_only(stage):
    tokens = tokens_of(ONE_LAYER)
    check(
        stage, lambda m: make_encoder(m, ONE_LAYER)(tokens)[:, :1], theirs(ONE_LAYER)(tokens[:, :1]),
        "CLIPTextEncoder(config)(tokens)[:, :1]", tolerance=1e-9, inputs={"tokens": tokens},
        hint="the causal mask: token 0 sees only itself, in every layer.",
    )


EVERY_LAYER = "every layer once, one after the other, each with the mask; then final_norm."
ENCODER_CASES = {
    "fewer tokens than positions": (
        ONE_LAYER, tokens_of(ONE_LAYER, length=4), "with 4 tokens, where max_length is 9",
        "take only the first positions, and a mask for as many tokens as there are."),
    "real prompts": (
        SMALL, prompts_of(SMALL), "with three padded prompts",
        "every layer in turn, with the mask. All 77 rows count: the padding is not masked."),
} | {
    name: (config, tokens_of(config, batch=3, seed=1), f"with {text_of(config)}", EVERY_LAYER)
    for name, config in CONFIGS.items()
}


@encoder
@pytest.mark.parametrize(("config", "tokens", "about", "hint"), ENCODER_CASES.values(), ids=ENCODER_CASES.keys())
def test_encoder(stage, config, tokens, about, hint):
    check_encoder(stage, config, tokens, about=about, hint=hint, explain=explain_encoder(config, tokens))


@encoder
@pytest.mark.parametrize("config", [ONE_LAYER, FIVE_LAYERS], ids=["one layer", "five layers"])
def test_encoder_gradients(stage, config):
    check_encoder(
        stage, config, tokens_of(config), gradients=True, about=f"with {text_of(config)}",
        hint="both embeddings are trained, too: does anything cut the graph (no_grad, detach, .data)?",
    )


@encoder
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=name_of)
def test_the_encoder_has_the_dtype_of_its_parameters(stage, dtype):
    check_dtype_of_encoder(stage, ONE_LAYER, dtype, "causal_mask gives float32: bring it to the dtype of x.")


def check_dtype_of_encoder(stage, config, dtype, hint):
    tokens = tokens_of(config)
    check(
        stage, lambda m: make_encoder(m, config).to(dtype)(tokens).detach(), theirs(config)(tokens).to(dtype),
        f"CLIPTextEncoder(config).to({dtype})(tokens) with {tokens.shape[1]} tokens",
        tolerance=10 * torch.finfo(dtype).eps,  # weights and results of all layers are rounded: 1 to 2 in all
        hint=hint,
    )


@encoder
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=name_of)
def test_three_hundred_positions(stage, dtype):
    config = CLIPConfig(vocab_size=40, width=8, hidden_width=8, num_layers=1, num_heads=2, max_length=300)
    hint = "positions are whole numbers: bfloat16 makes 256 of 257, and int8 ends at 127."
    if dtype == torch.float64:
        check_encoder(stage, config, tokens_of(config), about="with 300 tokens", hint=hint)
    else:
        check_dtype_of_encoder(stage, config, dtype, hint)


@encoder
@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(1, 77), st.integers(0, 2**31))
def test_any_tokens(stage, batch, length, seed):
    tokens = tokens_of(SMALL, batch, length, seed)
    about = f"with tokens of shape {tuple(tokens.shape)}"
    check_encoder(stage, SMALL, tokens, about=about, explain=explain_encoder(SMALL, tokens))


# --- one call after another ------------------------------------------------------------------------------------------


def check_tokenizer_in_turn(stage, method, wanted, texts):
    def make(module):
        return getattr(module.Tokenizer(**learned()), method)

    calls = [{"text": text} for text in [*texts, texts[0]]]
    check_in_turn(stage, f"Tokenizer(vocab, merges).{method}, called several times in turn", make, wanted, calls)


@bpe
def test_bpe_called_again(stage):
    words = ["carpet", "carpenter", "car", "house", "houses", "ho", "cartoon"]
    merges, alphabet = learned()["merges"], sorted(ByteLevel.alphabet())
    check_tokenizer_in_turn(stage, "bpe", lambda word: their_bpe(word, merges, alphabet), words)


@tokenize
def test_tokenize_called_again(stage):
    texts = ["a red house", "a red horse", "", "a RED house!", "the cat sat on the carpet", "a red"]
    check_tokenizer_in_turn(stage, "tokenize", their_ids, texts)


@rows
def test_tokenizer_called_again(stage):
    texts = [["a red house"], ["a red horse", "a cat"], "the cat", ["a " * 90], [""], ["a cat " * 3] * 3]
    check_tokenizer_in_turn(stage, "__call__", their_rows, texts)


@mask
def test_causal_mask_called_again(stage):
    theirs = SimpleNamespace(causal_mask=lambda length: causal(length).float())
    check_function_in_turn(stage, "causal_mask(length)", theirs, [{"length": length} for length in (5, 77, 3, 1)])


@layer
@each_way
def test_layer_called_again(stage, way):
    masks = [(2, CAUSAL), (2, NUMBERS), (3, causal(7)), (1, NO_MASK)]
    calls = [
        {"x": rand(batch, len(mask), SMALL.width, seed=i), "mask": mask} for i, (batch, mask) in enumerate(masks)
    ]
    wanted = their_layer(SMALL)
    weights = renaming.our_weights(wanted, RULES)
    check_block_in_turn(stage, "CLIPLayer(config)", wanted, weights, calls, way, names={"config": SMALL})


@encoder
@each_way
def test_encoder_called_again(stage, way):
    """Several lengths within one: 5, 4, 9 and 1 tokens."""
    calls = [
        {"tokens": tokens_of(ONE_LAYER, batch, length, seed)}
        for seed, (batch, length) in enumerate([(2, 5), (2, 5), (2, 4), (3, 9), (1, 1)])
    ]
    wanted, weights = theirs(ONE_LAYER), renaming.our_weights(theirs(ONE_LAYER), RULES)
    names = {"config": ONE_LAYER}
    check_block_in_turn(stage, "CLIPTextEncoder(config)", wanted, weights, calls, way, names=names, tolerance=1e-9)


# --- by name, and on a GPU ------------------------------------------------------------------------------------------

TOKENIZER = "Tokenizer(vocab=vocab, merges=merges, max_length=9)"


@bpe
def test_bpe_by_name(stage):
    wanted = their_bpe("cat", [("c", "a")], "abct")
    check(
        stage, f"list({TOKENIZER}.bpe(word='cat'))", wanted, vocab=vocabulary_of([("c", "a")], "abct"),
        merges=[("c", "a")],
    )


@tokenize
def test_tokenize_by_name(stage):
    check(stage, f"list({TOKENIZER}.tokenize(text='a red house'))", their_ids("a red house"), **learned())


@rows
@pytest.mark.parametrize("prompts", ["a red house", ["a", ""], ("a red", "house")], ids=str)
def test_prompts_by_name(stage, prompts):
    check(stage, f"{TOKENIZER}(prompts=prompts)", their_rows(prompts, 9), prompts=prompts, **learned())


@mask
def test_length_by_name(stage):
    check(stage, "causal_mask(length=4)", causal(4).float())


@layer
def test_every_argument_of_a_layer_by_its_name(stage):
    config = ONE_LAYER
    check_block(
        stage, "CLIPLayer(config=config)", their_layer(config), RULES, names={"config": config}, by_name=True,
        x=rand(2, 5, config.width), mask=CAUSAL,
    )


@encoder
def test_every_argument_of_the_encoder_by_its_name(stage):
    config = ONE_LAYER
    check_block(
        stage, "CLIPTextEncoder(config=config)", theirs(config), RULES, names={"config": config}, by_name=True,
        tolerance=1e-9, tokens=tokens_of(config),
    )


@layer
def test_default_dtype_of_a_layer(stage):
    check_default_dtype(stage, "CLIPLayer(config)", config=ONE_LAYER)


@encoder
def test_default_dtype_of_the_encoder(stage):
    check_default_dtype(stage, "CLIPTextEncoder(config)", config=ONE_LAYER)


@layer
def test_a_layer_on_a_gpu(stage):
    config = ONE_LAYER
    check_block_on_gpu(
        stage, "CLIPLayer(config)", their_layer(config), RULES, {"config": config}, x=rand(2, 5, config.width),
        mask=CAUSAL,
    )


@encoder
def test_the_encoder_on_a_gpu(stage):
    check_block_on_gpu(
        stage, "CLIPTextEncoder(config)", theirs(ONE_LAYER), RULES, {"config": ONE_LAYER}, tokens=tokens_of(ONE_LAYER)
    )


# --- all of it -------------------------------------------------------------------------------------------------------


@pytest.mark.exercise("6.1", "6.2", "6.3", "6.4", "6.5", "6.6")
@each_drawing("text to image", "image to image", "into a mask")
def test_what_make_generate_draws(stage, checkpoint_folder, drawing):
    check_drawing(stage, drawing, checkpoint_folder)
