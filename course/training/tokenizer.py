"""Training of the tokenizer: byte-pair encoding in the format of CLIP's vocab.json and merges.txt.

Ids are those of CLIP: 256 byte symbols, the same 256 with `</w>`, one token for each merge, and the two marks last.
CLIP made 48,894 merges; the captions of small scenes need but a few hundred. What is left over goes to common English
words, so that prompts in a learner's own words become readable tokens too, even if the model has never seen what they
mean.

Source: Sennrich et al., 2016, arXiv:1508.07909, algorithm 1.
"""

import json
from collections import Counter
from pathlib import Path

from course.core.writing import whole_file
from course.draw.checkpoint import read_tokenizer
from course.scenes.captions import all_words
from solutions.stage06_clip import BEGIN, END, CLIPConfig, Tokenizer, byte_alphabet, words

LARGEST = 1024  # tokens; the words here do not give many more
CAPTION_WEIGHT = 10000  # how often a word of the captions counts; a common word counts as often as words follow it

# In the order of their use for describing pictures.
COMMON_WORDS = """
the of with and under over near behind above two three black brown gray grey gold golden silver light dark bright
small little tiny old new tall long beautiful cute happy pretty dog bird horse cow sheep rabbit bear fox lion owl duck
frog mouse mountain hill river lake forest beach garden field road bridge tower village window door roof sun moon star
cloud rain rainbow storm fog wind morning evening noon dawn sunrise winter summer spring autumn sky water ice fire
sand stone wood glass island palm leaf grass ship train plane bicycle bus person people man woman girl boy child king
queen dragon ghost pirate wizard cake apple ball hat book chair table lamp photo painting style detailed soft warm
cold quiet one four five many no not is are it its a about across after again all also always an animal any around art
as at away back bed bee before below beside between blossom bottle bottom box bread bug building butterfly by can
candle church clean clear clock cloudy cup day deep down dream drawing dress earth egg elephant empty eye face fall
family farm fast father few fine floor fly foggy food fresh friend from fruit full glow good ground hair hand head
heart here high his her hot in inside into jungle kitchen land large leaves left lighthouse like lonely look low made
magic me meadow middle mirror mist mood more mother music my next nice night north off on open or other our out
outside palace paper park path peaceful pen piano picture pig pine place plain plant play pond portrait rainy rock
room rose round sad school sea season seven shadow shell shine shoe shop shore short side simple sing six sleep slow
smile smoke some sound space square stand starry station stormy street strong sunny
""".split()


def spelled(word: str) -> tuple[str, ...]:
    """A word as byte symbols, the last one closed by </w>."""
    alphabet = byte_alphabet()
    symbols = [alphabet[byte] for byte in word.encode("utf-8")]
    return (*symbols[:-1], symbols[-1] + "</w>")


def count_words() -> Counter[str]:
    """How often each word counts: the captions' words first, common words behind them."""
    counts = Counter({word: len(COMMON_WORDS) - i for i, word in enumerate(COMMON_WORDS)})
    for phrase in all_words():
        counts.update(dict.fromkeys(words(phrase.lower()), CAPTION_WEIGHT))
    return counts


def join(symbols: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """The symbols with the pair joined wherever it stands, from left to right."""
    joined: list[str] = []
    i = 0
    while i < len(symbols):
        if symbols[i : i + 2] == pair:
            joined.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            joined.append(symbols[i])
            i += 1
    return tuple(joined)


def learn_merges(counts: Counter[str], number: int) -> list[tuple[str, str]]:
    """Joins the most frequent pair of neighbours, `number` times. Ties go to the pair that comes first alphabetically.

    Raises:
        ValueError: if the words have too few different pairs.
    """
    counted = {spelled(word): count for word, count in counts.items()}
    merges: list[tuple[str, str]] = []
    while len(merges) < number:
        pairs: Counter[tuple[str, str]] = Counter()
        for symbols, count in counted.items():
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] += count
        if not pairs:
            raise ValueError(f"only {len(merges)} of {number} merges: more words are needed")
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        counted = {join(symbols, best): count for symbols, count in counted.items()}
    return merges


def train_tokenizer(vocab_size: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges, the same at every call. What is larger than LARGEST is filled up with unused tokens."""
    symbols = list(byte_alphabet().values())
    tokens = symbols + [symbol + "</w>" for symbol in symbols]
    merges = learn_merges(count_words(), min(vocab_size, LARGEST) - len(tokens) - 2)
    tokens += ["".join(pair) for pair in merges]
    tokens += [f"<|unused{i}|>" for i in range(vocab_size - LARGEST)] + [BEGIN, END]
    if len(set(tokens)) != vocab_size:
        raise ValueError("two merges give the same token")
    return {token: i for i, token in enumerate(tokens)}, merges


def write_tokenizer(folder: Path, vocab: dict[str, int], merges: list[tuple[str, str]]) -> None:
    """Writes vocab.json and merges.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["#version: 0.2", *(f"{first} {second}" for first, second in merges)]
    texts = {"vocab.json": json.dumps(vocab, ensure_ascii=False, indent=0), "merges.txt": "\n".join(lines)}
    for name, text in texts.items():
        with whole_file(folder / name) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")


def tokenizer_of(out: Path, config: CLIPConfig) -> Tokenizer:
    """The tokenizer of a run: the one in its folder, or else one that is trained now and written there.

    It stays the same for the whole run, and for one that goes on from a model file, even when captions get new words:
    with other token ids, weights that are already trained would be worth nothing.
    """
    folder = out / "tokenizer"
    if not folder.exists():
        write_tokenizer(folder, *train_tokenizer(config.vocab_size))
    return Tokenizer(*read_tokenizer(folder), config.max_length)
