"""Stage 6 against transformers' CLIPTokenizer and CLIPTextModel."""

import functools
import math
import random
import unicodedata
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from torch import nn
from torch.nn.functional import layer_norm
from transformers import CLIPTokenizer

from course.core.config import CLIPConfig
from course.feedback import renaming
from course.feedback.compare import check, give_weights, rand, results_and_gradients
from course.feedback.divergence import CLIP_PARTS, first_divergence
from tests.stages import reference

bpe = pytest.mark.exercise("6.1")
tokenize = pytest.mark.exercise("6.2")
rows = pytest.mark.exercise("6.3")
mask = pytest.mark.exercise("6.4")
layer = pytest.mark.exercise("6.5")
encoder = pytest.mark.exercise("6.6")

BEGIN, END = "<|startoftext|>", "<|endoftext|>"

# --- byte-pair encoding ----------------------------------------------------------------------------------------------


def vocabulary_of(merges, alphabet):
    """As in CLIP: every symbol, every symbol at the end of a word, one token per merge, the two marks."""
    tokens = [*alphabet, *(f"{symbol}</w>" for symbol in alphabet), *("".join(pair) for pair in merges), BEGIN, END]
    return {token: i for i, token in enumerate(dict.fromkeys(tokens))}


def their_bpe(word, merges, alphabet):
    model = BPE(vocab=vocabulary_of(merges, alphabet), merges=list(merges), end_of_word_suffix="</w>", fuse_unk=False)
    return [token.value for token in model.tokenize(word)]


def check_bpe(stage, word, merges, hint="", alphabet="abcdefghijklmnopqrstuvwxyz"):
    vocab = vocabulary_of(merges, alphabet)
    check(
        stage, lambda m: list(m.Tokenizer(vocab, merges).bpe(word)), their_bpe(word, merges, alphabet),
        f"Tokenizer(vocab, merges={shortened(merges)}).bpe({word!r})", hint=hint,
    )


def shortened(merges):
    return str(merges) if len(merges) <= 6 else f"[{', '.join(map(str, merges[:6]))}, ...]"


@bpe
@pytest.mark.parametrize("word", ["a", "ab", "carpet"])
def test_without_merges_every_character_is_a_symbol(stage, word):
    check_bpe(stage, word, [], hint="the last symbol, and only that, ends with </w>.")


@bpe
def test_one_merge(stage):
    check_bpe(stage, "cat", [("c", "a")], hint="neighbours that the merge list knows become one symbol.")


@bpe
def test_the_end_of_a_word_is_part_of_the_last_symbol(stage):
    check_bpe(stage, "at", [("a", "t")], hint="('a', 't') is not ('a', 't</w>'): add </w> before you merge.")


@bpe
@pytest.mark.parametrize("word", ["car", "carpet", "scar"])
def test_car_is_not_carpet(stage, word):
    check_bpe(
        stage, word, [("c", "a"), ("ca", "r</w>"), ("ca", "r"), ("p", "e"), ("pe", "t</w>")],
        hint="a merged symbol can be merged again; </w> tells a whole word from the beginning of a longer one.",
    )


@bpe
def test_the_lowest_rank_goes_first(stage):
    check_bpe(
        stage, "abc", [("b", "c</w>"), ("a", "b")],
        hint="not from left to right: of all pairs in the word, the one that comes first in the merge list.",
    )


@bpe
def test_the_ranks_are_compared_again_after_each_merge(stage):
    check_bpe(
        stage, "abcd", [("a", "b"), ("c", "d</w>"), ("b", "c"), ("ab", "cd</w>")],
        hint="one pass through the merge list, or through the word, is not enough in general.",
    )


@bpe
def test_a_pair_is_joined_wherever_it_stands(stage):
    check_bpe(
        stage, "abxabyab", [("a", "b"), ("ab", "x")],
        hint="join all places before you look for the next pair; 'b</w>' at the end is another symbol.",
    )


@bpe
@pytest.mark.parametrize("word", ["aaa", "aaaa", "aaaaa", "aaaaaa"])
def test_overlapping_pairs_are_joined_from_the_left(stage, word):
    check_bpe(stage, word, [("a", "a"), ("aa", "aa"), ("aa", "a</w>")], hint="go on behind the pair that was joined.")


@bpe
def test_a_pair_whose_symbols_look_alike(stage):
    check_bpe(
        stage, "abab", [("a", "b"), ("b", "a")], hint="compare whole symbols; do not replace text inside of them."
    )


@bpe
@given(st.integers(1, 12), st.text("abc", min_size=1, max_size=12), st.integers(0, 2**31))
def test_any_merge_list(stage, count, word, seed):
    check_bpe(stage, word, random_merges(count, seed), alphabet="abc")


@bpe
def test_a_very_long_word(stage):
    check_bpe(
        stage, "abc" * 100, [("a", "b"), ("c", "ab")],
        hint="numbers are compared with < or ==; `is` asks whether they are one object, which only small ones are.",
    )


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
    """(vocab, merges): a few hundred merges out of TEXT, with the byte alphabet below them."""
    byte_level = ByteLevel(add_prefix_space=False, use_regex=False)
    words = Counter()
    for word in TEXT.split():
        (spelled, _), = byte_level.pre_tokenize_str(word)
        words[(*spelled[:-1], f"{spelled[-1]}</w>")] += 1
    merges = []
    while len(merges) < 300:
        counts = Counter()
        for word, count in words.items():
            for pair in zip(word, word[1:]):
                counts[pair] += count
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        words = Counter({joined(word, best): count for word, count in words.items()})
    return vocabulary_of(merges, sorted(ByteLevel.alphabet())), merges


def joined(word, pair):
    symbols = []
    for symbol in word:
        if symbols and (symbols[-1], symbol) == pair:
            symbols[-1] += symbol
        else:
            symbols.append(symbol)
    return tuple(symbols)


@functools.cache
def their_tokenizer(max_length=77):
    vocab, merges = learned()
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=max_length)


def their_ids(text):
    return their_tokenizer()(text, add_special_tokens=False)["input_ids"]


def their_rows(prompts, max_length=77):
    return their_tokenizer(max_length)(prompts, padding="max_length", truncation=True, return_tensors="pt")["input_ids"]


@functools.cache
def make_tokenizer(module, *args):
    vocab, merges = learned()
    return module.Tokenizer(vocab, merges, *args)


@functools.cache
def names_of_ids():
    return {i: token for token, i in learned()[0].items()}


def token_names(ids):
    return [names_of_ids().get(int(i), i) for i in ids]


def check_tokens(stage, text, hint=""):
    """Compares tokens rather than ids, for a message that can be read."""

    def run(module):
        return token_names(make_tokenizer(module).tokenize(text))

    def ids(module):
        return list(make_tokenizer(module).tokenize(text))

    call = f"Tokenizer(vocab, merges).tokenize({text!r})"
    check(stage, run, token_names(their_ids(text)), f"the tokens of {call}", hint=hint)
    check(stage, ids, their_ids(text), call, hint="ids are ints.")


@tokenize
def test_a_word(stage):
    check_tokens(stage, "house", hint="find the words, split each with bpe, and look the tokens up in self.vocab.")


@tokenize
def test_words(stage):
    hint = "words(self.clean(part)) gives the words; spaces are no tokens."
    check_tokens(stage, "a red house on a green hill", hint=hint)


@tokenize
@pytest.mark.parametrize("text", ["", " ", "\t\n", "\u3000"])
def test_nothing_at_all(stage, text):
    check_tokens(stage, text, hint="no words give no tokens: an empty list.")


@tokenize
def test_capital_letters(stage):
    check_tokens(stage, "A Red HOUSE", hint="self.clean makes them lower case.")


@tokenize
@pytest.mark.parametrize(
    "text", ["a  red \t\n house ", "a\u00a0red\u3000house", "a\x85red\u2028house"]
)
def test_white_space(stage, text):
    check_tokens(stage, text, hint="any white space, however much of it, only separates words.")


@tokenize
@pytest.mark.parametrize("text", ["cat,", "house!!!", "(masterpiece:1.2)", "a.b", "-- a --", "f/1.8"])
def test_punctuation_is_a_word_of_its_own(stage, text):
    check_tokens(stage, text, hint="let `words` cut the text; splitting at spaces leaves the comma at the cat.")


@tokenize
@pytest.mark.parametrize("text", ["4k", "1999", "35mm", "a1b2"])
def test_every_digit_is_a_word_of_its_own(stage, text):
    check_tokens(stage, text, hint="`words` takes digits one by one.")


@tokenize
@pytest.mark.parametrize("text", ["it's", "don't we're they've i'm she'll he'd", "IT'S", "'sun", "rock'n'roll", "''s"])
def test_contractions(stage, text):
    check_tokens(stage, text, hint="`words` cuts 's, 't, 're, 've, 'm, 'll and 'd off.")


@tokenize
@pytest.mark.parametrize("text", ["café", "straße", "москва", "東京", "빨간 집", "naïve señor"])
def test_letters_beyond_ascii_are_spelled_in_bytes(stage, text):
    check_tokens(stage, text, hint="encode the word as UTF-8, then write each byte as self.alphabet[byte].")


@tokenize
@pytest.mark.parametrize("text", ["Ⅻ", "½²", "٣٤"])
def test_digits_beyond_ascii(stage, text):
    check_tokens(stage, text, hint="`words` knows them: each is a word of its own.")


@tokenize
@pytest.mark.parametrize("text", ["🏠", "a 🌲 and a 🐈", "🔥🔥", "👩‍🚀", "❤️"])
def test_emoji_are_spelled_in_bytes(stage, text):
    check_tokens(stage, text, hint="an emoji is four bytes of UTF-8; some are several characters.")


@tokenize
@pytest.mark.parametrize("text", ["a\x1cb", "a\u200bb", "\ufeffa", "a\x00b"])
def test_what_cannot_be_seen_need_not_be_white_space(stage, text):
    check_tokens(stage, text, hint="leave it to `words` to say what is white space; str.split differs.")


@tokenize
@pytest.mark.parametrize(
    "text", ["cafe\u0301", "caf\u00e9", "\u1112\u1161\u11ab", "a\u030angstro\u0308m", "\u212b"]
)
def test_accents_may_be_characters_of_their_own(stage, text):
    check_tokens(stage, text, hint="self.clean composes them (normal form C).")


@tokenize
@pytest.mark.parametrize("text", ["ΣΟΦΌΣ", "İstanbul", "ẞ STRASSE", "ǅ", "'ſ", "K", "ͅ"])
def test_odd_capital_letters(stage, text):
    check_tokens(stage, text, hint="self.clean makes every character lower case by itself.")


@tokenize
@pytest.mark.parametrize(
    "text",
    [
        END, f"a {BEGIN} red", f"a cat.{END}house", f"{END}{END}", f"{BEGIN}a red house{END}", "<|endoftext", "|>",
        f"e\u0301{END}\u0301", f"x {END.upper()}", "<|EndOfText|>",
    ],
)
def test_marks_written_in_the_prompt(stage, text):
    check_tokens(
        stage, text, hint="cut the text with MARK.split before anything else; only what is exactly a mark is one token."
    )


@tokenize
def test_a_token_that_the_vocabulary_lacks(stage):
    vocab = {"a": 0, "a</w>": 1, "b": 2, BEGIN: 3, END: 4}
    wanted = CLIPTokenizer(vocab=vocab, merges=[])("b ba", add_special_tokens=False)["input_ids"]
    check(
        stage, lambda m: list(m.Tokenizer(vocab, []).tokenize("b ba")), wanted,
        f"Tokenizer({vocab}, merges=[]).tokenize('b ba')", hint="there is no 'b</w>': it becomes self.end.",
    )


@tokenize
def test_long_texts_are_not_cut_here(stage):
    text = "a red house on a green hill " * 30
    check(
        stage, lambda m: len(make_tokenizer(m).tokenize(text)), len(their_ids(text)),
        "len(Tokenizer(vocab, merges).tokenize(text)) with 210 words", hint="__call__ cuts; tokenize gives all tokens.",
    )


# --- rows of ids -----------------------------------------------------------------------------------------------------


@tokenize
@pytest.mark.parametrize("text, wanted", [("a red  House, 42!", "a red house , 4 2 !"), ("Straße 🏠", "straße 🏠"), ("", "")])
def test_ids_read_back(stage, text, wanted):
    """Given, but it leans on the ids."""
    check(
        stage, lambda m: make_tokenizer(m).decode(make_tokenizer(m)(text)[0]), wanted,
        f"tokenizer.decode(tokenizer({text!r})[0])", hint="decode itself is given: the ids are to be looked at.",
    )


@tokenize
def test_the_byte_alphabet_is_complete(stage):
    """Given: one character for each byte, those that the tokenizers library uses."""
    alphabet = stage.byte_alphabet()
    assert sorted(alphabet) == list(range(256)) and set(alphabet.values()) == set(ByteLevel.alphabet())


def check_rows(stage, prompts, call, hint="", max_length=77):
    args = () if max_length == 77 else (max_length,)
    check(stage, lambda m: make_tokenizer(m, *args)(prompts), their_rows(prompts, max_length), call, hint=hint)


@rows
def test_one_prompt_in_a_list(stage):
    check_rows(
        stage, ["a red house"], "Tokenizer(vocab, merges)(['a red house'])",
        hint="begin mark, tokens, end mark, and end marks up to 77 in all.",
    )


@rows
def test_a_prompt_without_a_list(stage):
    prompt = "a red house"
    check(
        stage, lambda m: make_tokenizer(m)(prompt), their_rows([prompt]), "Tokenizer(vocab, merges)('a red house')",
        hint="one prompt is one row: (1, 77). A str is a sequence too, of its characters.",
    )


@rows
def test_several_prompts(stage):
    prompts = ["a red house", "", "the cat sat on the carpet"]
    check_rows(stage, prompts, f"Tokenizer(vocab, merges)({prompts})", hint="all rows have 77 ids, so they fit.")
    check(stage, lambda m: make_tokenizer(m)(tuple(prompts)), their_rows(prompts), "the same with a tuple of prompts")


@rows
def test_the_empty_prompt(stage):
    check_rows(stage, [""], "Tokenizer(vocab, merges)([''])", hint="a begin mark and 76 end marks.")


@rows
@pytest.mark.parametrize("words", [74, 75, 76, 77, 200])
def test_long_prompts_keep_the_end_mark(stage, words):
    prompt = " ".join(random.Random(words).choices("a b c d e".split(), k=words))
    check_rows(
        stage, [prompt], f"Tokenizer(vocab, merges)([prompt]) with a prompt of {words} tokens",
        hint="cut the tokens to 75 first; then add the marks. 75 tokens are not too many.",
    )


@rows
@pytest.mark.parametrize("max_length", [3, 8, 100])
def test_other_lengths(stage, max_length):
    prompts = ["a red house on a green hill with a tree", "a", ""]
    check_rows(
        stage, prompts, f"Tokenizer(vocab, merges, max_length={max_length})({prompts})", max_length=max_length,
        hint="self.max_length instead of 77.",
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
    prompts = list(generated_prompts(1200))
    tokenizer = make_tokenizer(stage)
    for prompt, ids in zip(prompts, their_ids(prompts)):
        if list(tokenizer.tokenize(prompt)) != ids:
            check_tokens(stage, prompt)
    check_rows(stage, prompts, "Tokenizer(vocab, merges)(prompts) with 1200 odd prompts")


@rows
@settings(max_examples=100)
@given(st.text(alphabet_of_prompts(), max_size=40))
def test_any_prompt(stage, prompt):
    check_rows(stage, [prompt], f"Tokenizer(vocab, merges)([{prompt!r}])")


# --- the causal mask -------------------------------------------------------------------------------------------------


@mask
@pytest.mark.parametrize("length", [1, 2, 5, 77])
def test_causal_mask(stage, length):
    rows_and_columns = range(length)
    wanted = torch.tensor([[0.0 if j <= i else -math.inf for j in rows_and_columns] for i in rows_and_columns])
    check(
        stage, lambda m: m.causal_mask(length), wanted, f"causal_mask({length})",
        hint="row i: 0 in the columns up to i, the diagonal included, and -inf to the right (0 * inf is nan).",
    )


# --- one layer -------------------------------------------------------------------------------------------------------

CONFIGS = {
    "small": reference.SMALL_CLIP,
    "one layer": CLIPConfig(vocab_size=50, width=12, hidden_width=20, num_layers=1, num_heads=2, max_length=9),
    "five layers": CLIPConfig(vocab_size=40, width=16, hidden_width=16, num_layers=5, num_heads=8, max_length=20),
}
SMALL, ONE_LAYER = CONFIGS["small"], CONFIGS["one layer"]
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
either_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
LAYER = "encoder.layers.0."
ROUGH = 1e-3  # for tests of the order of things; an eps that is wrong is the matter of a test of its own


@functools.cache
def theirs(config):
    return reference.clip(config)


def their_layer(config):
    return theirs(config).encoder.layers[0]


@functools.cache
def weights_of(config):
    return reference.our_weights(theirs(config), renaming.CLIP)


def layer_weights(config):
    names = (name for name in weights_of(config) if name.startswith("layers.0."))
    return {name.removeprefix("layers.0."): weights_of(config)[name] for name in names}


def layer_names(config):
    return {
        name: renaming.our_name(LAYER + name, renaming.CLIP).removeprefix("layers.0.")
        for name, _ in their_layer(config).named_parameters()
    }


def make_layer(module, config, weights=None):
    return give_weights(module.CLIPLayer(config), weights or layer_weights(config), "CLIPLayer(config)")


def make_encoder(module, config, weights=None):
    return give_weights(module.CLIPTextEncoder(config), weights or weights_of(config), "CLIPTextEncoder(config)")


def shapes(tensors):
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def text_of(config):
    return f"CLIPConfig(width={config.width}, num_heads={config.num_heads}, num_layers={config.num_layers})"


def causal(length):
    return torch.full((length, length), -math.inf, dtype=torch.float64).triu(1)


def no_mask(length):
    return torch.zeros(length, length, dtype=torch.float64)


class TheirLayer(nn.Module):
    """Takes a mask like ours."""

    def __init__(self, config):
        super().__init__()
        self.layer = their_layer(config)

    def forward(self, x, mask):
        return self.layer(x, attention_mask=mask[None, None].expand(x.shape[0], -1, -1, -1))


def without(weights, *layers):
    """The same weights, with zeros for some layers: what they add is then nothing."""
    return {name: tensor * (not name.startswith(layers)) for name, tensor in weights.items()}


def their_layer_with(config, weights):
    wrapped = TheirLayer(config)
    wrapped.layer = reference.clip(config).encoder.layers[0]
    wrapped.layer.load_state_dict({name: weights[own] for name, own in layer_names(config).items()})
    return wrapped


@layer
@every_config
def test_layer_parameters(stage, config):
    check(
        stage, lambda m: shapes(dict(make_layer(m, config).named_parameters())), shapes(layer_weights(config)),
        f"the parameters of CLIPLayer({text_of(config)})",
    )


@layer
def test_the_feed_forward_part(stage):
    weights = without(layer_weights(SMALL), "attention")
    x = rand(2, 5, SMALL.width)
    with torch.no_grad():
        check(
            stage, lambda m: make_layer(m, SMALL, weights)(x, no_mask(5)),
            their_layer_with(SMALL, weights)(x, no_mask(5)),
            "CLIPLayer(config)(x, mask) with zeros for the attention's weights", inputs={"x": x}, tolerance=ROUGH,
            hint="x + fc2(quick_gelu(fc1(norm2(x)))): norm first, quick_gelu between the layers, then the sum.",
        )


@layer
def test_the_attention_part(stage):
    weights = without(layer_weights(SMALL), "fc2")
    x = rand(2, 5, SMALL.width)
    with torch.no_grad():
        check(
            stage, lambda m: make_layer(m, SMALL, weights)(x, no_mask(5)),
            their_layer_with(SMALL, weights)(x, no_mask(5)),
            "CLIPLayer(config)(x, mask) with zeros for fc2 and for the mask", inputs={"x": x}, tolerance=ROUGH,
            hint="x + attention(norm1(x)): norm first, config.num_heads heads, then the sum.",
        )


@layer
def test_the_mask_reaches_the_attention(stage):
    x = rand(2, 5, SMALL.width)
    with torch.no_grad():
        check(
            stage, lambda m: make_layer(m, SMALL)(x, causal(5))[:, :1], TheirLayer(SMALL)(x[:, :1], no_mask(1)),
            "CLIPLayer(config)(x, causal_mask)[:, :1]", tolerance=ROUGH,
            hint="the first token sees only itself: is the mask passed on, and as the mask (not as the context)?",
        )


@layer
def test_the_mask_is_the_one_given(stage):
    x, numbers = rand(2, 5, SMALL.width), rand(5, 5, seed=1)
    numbers[1:, 0] = -math.inf
    with torch.no_grad():
        check(
            stage, lambda m: make_layer(m, SMALL)(x, numbers), TheirLayer(SMALL)(x, numbers),
            "CLIPLayer(config)(x, mask) with a mask of ordinary numbers and a few -inf",
            inputs={"x": x, "mask": numbers}, tolerance=ROUGH,
            hint="the layer takes the mask as it comes and makes none of its own.",
        )


@layer
@pytest.mark.parametrize(("norm", "silent"), [("norm1", "fc2"), ("norm2", "attention")], ids=["norm1", "norm2"])
def test_layer_eps(stage, norm, silent):
    weights = without(layer_weights(SMALL), silent)
    x = rand(2, 5, SMALL.width, scale=0.005)
    with torch.no_grad():
        check(
            stage, lambda m: make_layer(m, SMALL, weights)(x, causal(5)),
            their_layer_with(SMALL, weights)(x, causal(5)),
            f"CLIPLayer(config)(x, mask) with a nearly flat x and zeros for {silent}",
            hint=f"nn.LayerNorm's default eps, 1e-5, is the right one for {norm}.",
        )


@layer
@every_config
def test_layer(stage, config):
    x, causal_mask = rand(3, 7, config.width), causal(7)
    wanted = results_and_gradients(
        TheirLayer(config), x, causal_mask, names={f"layer.{name}": own for name, own in layer_names(config).items()}
    )
    check(
        stage, lambda m: results_and_gradients(make_layer(m, config), x, causal_mask), wanted,
        f"CLIPLayer({text_of(config)})(x, mask) and its gradients", tolerance=1e-9,
    )


@layer
def test_layer_not_contiguous(stage):
    x = rand(2, SMALL.width, 5).transpose(1, 2)
    with torch.no_grad():
        check(
            stage, lambda m: make_layer(m, SMALL)(x, causal(5)), TheirLayer(SMALL)(x, causal(5)),
            "CLIPLayer(config)(x, mask) with x a transposed view", hint="reshape works where view refuses.",
        )


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


def their_output(config, tokens):
    with torch.no_grad():
        return theirs(config)(tokens).last_hidden_state


def arguments(part, inputs):
    """Our layers and attentions take a causal mask where theirs may be told in another way."""
    kind = type(part).__name__
    if kind not in ("CLIPLayer", "MultiHeadAttention"):
        return inputs
    x = inputs[0]
    return [x, causal(x.shape[1])] if kind == "CLIPLayer" else [x, None, causal(x.shape[1])]


def explain_encoder(config, tokens):
    def explain(module):
        ours = make_encoder(module, config)
        return first_divergence(
            theirs(config), lambda: theirs(config)(tokens), ours, lambda: ours(tokens), CLIP_PARTS, arguments
        )

    return explain


def check_encoder(stage, config, tokens, call, **kwargs):
    with torch.no_grad():
        check(
            stage, lambda m: make_encoder(m, config)(tokens), their_output(config, tokens), call, tolerance=1e-9,
            explain=explain_encoder(config, tokens), inputs={"tokens": tokens}, **kwargs,
        )


@encoder
@every_config
def test_encoder_parameters(stage, config):
    check(
        stage, lambda m: shapes(dict(make_encoder(m, config).named_parameters())), shapes(weights_of(config)),
        f"the parameters of CLIPTextEncoder({text_of(config)})",
    )


def check_embeddings(stage, scale, call, **kwargs):
    """Layers that add nothing: what is left are the embeddings, and final_norm."""
    weights = without(weights_of(ONE_LAYER), "layers.0.attention", "layers.0.fc2")
    weights |= {name: tensor * scale for name, tensor in weights.items() if "embedding" in name}
    tokens = tokens_of(ONE_LAYER)
    embedded = weights["token_embedding.weight"][tokens] + weights["position_embedding.weight"]
    wanted = layer_norm(embedded, (12,), weights["final_norm.weight"], weights["final_norm.bias"], eps=1e-5)
    with torch.no_grad():
        check(
            stage, lambda m: make_encoder(m, ONE_LAYER, weights)(tokens), wanted, call, inputs={"tokens": tokens},
            **kwargs,
        )


@encoder
def test_tokens_positions_and_final_norm(stage):
    check_embeddings(
        stage, 1.0, "CLIPTextEncoder(config)(tokens) with layers that add nothing", tolerance=ROUGH,
        hint="the embedding of the token plus that of its position, 0, 1, 2, ...; final_norm at the very end.",
    )


@encoder
def test_final_norm_eps(stage):
    check_embeddings(
        stage, 0.01, "CLIPTextEncoder(config)(tokens) with layers that add nothing and small embeddings",
        hint="nn.LayerNorm's default eps, 1e-5, is the right one for final_norm.",
    )


@encoder
def test_fewer_tokens_than_positions(stage):
    tokens = tokens_of(ONE_LAYER, length=4)
    check_encoder(
        stage, ONE_LAYER, tokens, "CLIPTextEncoder(config)(tokens) with 4 tokens, where max_length is 9",
        hint="take only the first positions, and a mask for as many tokens as there are.",
    )


@encoder
def test_the_first_vector_depends_on_the_first_token_only(stage):
    tokens = tokens_of(ONE_LAYER)
    with torch.no_grad():
        check(
            stage, lambda m: make_encoder(m, ONE_LAYER)(tokens)[:, :1], their_output(ONE_LAYER, tokens[:, :1]),
            "CLIPTextEncoder(config)(tokens)[:, :1]", tolerance=1e-9,
            hint="the causal mask: token 0 sees only itself, in every layer.",
        )


@encoder
def test_all_vectors_of_real_prompts(stage):
    check_encoder(
        stage, SMALL, prompts_of(SMALL), "CLIPTextEncoder(config)(tokens) with three padded prompts",
        hint="every layer in turn, with the mask. All 77 rows count: the padding is not masked.",
    )


@encoder
@every_config
def test_encoder(stage, config):
    check_encoder(
        stage, config, tokens_of(config, batch=3, seed=1), f"CLIPTextEncoder({text_of(config)})(tokens)",
        hint="every layer once, one after the other, each with the mask; then final_norm.",
    )


class LastHiddenState(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, tokens):
        return self.model(tokens).last_hidden_state


@encoder
@pytest.mark.parametrize("config", [ONE_LAYER, CONFIGS["five layers"]], ids=["one layer", "five layers"])
def test_encoder_gradients(stage, config):
    tokens = tokens_of(config)
    names = {f"model.{name}": own for name, own in reference.our_names(theirs(config), renaming.CLIP).items()}
    check(
        stage, lambda m: results_and_gradients(make_encoder(m, config), tokens),
        results_and_gradients(LastHiddenState(theirs(config)), tokens, names=names),
        f"CLIPTextEncoder({text_of(config)})(tokens) and its gradients", tolerance=1e-9,
        hint="both embeddings are trained, too: does anything cut the graph (no_grad, detach, .data)?",
    )


@encoder
@either_dtype
def test_the_encoder_has_the_dtype_of_its_parameters(stage, dtype):
    tokens = tokens_of(ONE_LAYER)
    check(
        stage, lambda m: make_encoder(m, ONE_LAYER).to(dtype)(tokens).detach(),
        their_output(ONE_LAYER, tokens).to(dtype),
        f"CLIPTextEncoder(config).to({dtype})(tokens)",
        tolerance=10 * torch.finfo(dtype).eps,  # weights and results of all layers are rounded: 1 to 2 in all
        hint="causal_mask gives float32: bring it to the dtype of x.",
    )


@encoder
@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(1, 77), st.integers(0, 2**31))
def test_any_tokens(stage, batch, length, seed):
    tokens = tokens_of(SMALL, batch, length, seed)
    check_encoder(stage, SMALL, tokens, f"CLIPTextEncoder(config)(tokens) with tokens of shape {tuple(tokens.shape)}")
