"""Mistakes of stage 6."""

from course.feedback.mistakes import Mistake

MERGE = """\
            best = min(zip(symbols, symbols[1:]), key=lambda pair: self.rank.get(pair, math.inf))
            if best not in self.rank:
                break
"""

MISTAKES = [
    Mistake(
        "tokens-not-cleared",
        "        ids = []\n        for part in MARK.split(text):",
        '        ids = self.__dict__.setdefault("ids", [])\n        for part in MARK.split(text):',
        "the list of ids is an attribute that is never emptied. A text then gets the ids of the texts before it, too.",
    ),
    Mistake(
        "rows-not-cleared",
        "        rows = []\n",
        '        rows = self.__dict__.setdefault("rows", [])\n',
        "the list of rows is an attribute that is never emptied. A call then gives the rows of earlier calls, too.",
    ),
    Mistake(
        "merges-used-up",
        "            merged = []\n            i = 0\n",
        "            if len(symbols) > 2:\n                self.rank = {pair: rank for pair, rank in "
        "self.rank.items() if pair != best}\n"
        "            merged = []\n            i = 0\n",
        "a pair that has been joined is taken off the merge list. The next word needs it again.",
    ),
    Mistake(
        "layer-with-dropout",
        "x = x + self.fc2(quick_gelu(self.fc1(self.norm2(x))))",
        "x = x + nn.functional.dropout(self.fc2(quick_gelu(self.fc1(self.norm2(x)))), 0.1, self.training)",
        "there is a dropout of 0.1 after fc2. It acts in training mode only; there is none here.",
    ),
    Mistake(
        "mask-of-the-first-call",
        "        mask = causal_mask(length).to(device=x.device, dtype=x.dtype)\n",
        """\
        if not hasattr(self, "mask"):
            self.mask = causal_mask(length).to(device=x.device, dtype=x.dtype)
        mask = self.mask
""",
        "the encoder keeps the mask of its first call. Another length or dtype needs another one.",
    ),
    Mistake(
        "embeddings-of-the-first-call",
        "        x = self.token_embedding(tokens) + self.position_embedding.weight[:length]\n",
        """\
        if not hasattr(self, "kept") or self.kept.shape[:2] != tokens.shape:
            self.kept = self.token_embedding(tokens) + self.position_embedding.weight[:length]
        x = self.kept
""",
        "the embeddings are kept for the next tokens of the same shape. Another prompt has others.",
    ),
    Mistake(
        "positions-in-the-dtype-of-x",
        "        x = self.token_embedding(tokens) + self.position_embedding.weight[:length]\n",
        """\
        x = self.token_embedding(tokens)
        x = x + self.position_embedding(torch.arange(length).to(x.dtype).long())
""",
        "the positions are numbers of the dtype of x. bfloat16 makes 256 of 257; positions are whole numbers.",
    ),
    Mistake(
        "embeddings-with-dropout",
        "        mask = causal_mask(length).to(device=x.device, dtype=x.dtype)\n",
        """\
        x = nn.functional.dropout(x, 0.1, self.training)
        mask = causal_mask(length).to(device=x.device, dtype=x.dtype)
""",
        "there is a dropout of 0.1 after the embeddings. It acts in training mode only; there is none here.",
    ),
    Mistake(
        "end-of-word-forgotten",
        'symbols = [*word[:-1], word[-1] + "</w>"]',
        "symbols = [*word]",
        "`</w>` is not appended. The merge list tells the end of a word from its middle by it.",
    ),
    Mistake(
        "end-of-word-as-a-symbol",
        'symbols = [*word[:-1], word[-1] + "</w>"]',
        'symbols = [*word, "</w>"]',
        "`</w>` is a symbol of its own. It is appended to the last character.",
    ),
    Mistake(
        "end-of-word-on-every-character",
        'symbols = [*word[:-1], word[-1] + "</w>"]',
        'symbols = [character + "</w>" for character in word]',
        "every character gets a `</w>`. Only the last one does.",
    ),
    Mistake(
        "merged-from-left-to-right",
        MERGE,
        """\
            best = next((pair for pair in zip(symbols, symbols[1:]) if pair in self.rank), None)
            if best is None:
                break
""",
        "the first pair that the list knows is merged. The pair with the lowest rank comes first, wherever it stands.",
    ),
    Mistake(
        "merged-from-right-to-left",
        MERGE,
        """\
            best = next((pair for pair in [*zip(symbols, symbols[1:])][::-1] if pair in self.rank), None)
            if best is None:
                break
""",
        "the last pair that the list knows is merged. The pair with the lowest rank comes first, wherever it stands.",
    ),
    Mistake(
        "highest-rank-first",
        "best = min(zip(symbols, symbols[1:]), key=lambda pair: self.rank.get(pair, math.inf))",
        "best = max(zip(symbols, symbols[1:]), key=lambda pair: self.rank.get(pair, -math.inf))",
        "the pair with the highest rank is merged first. The lowest rank was the most frequent pair.",
    ),
    Mistake(
        "longest-pair-first",
        "best = min(zip(symbols, symbols[1:]), key=lambda pair: self.rank.get(pair, math.inf))",
        "best = min(zip(symbols, symbols[1:]), key=lambda pair: (pair not in self.rank, -len(pair[0] + pair[1])))",
        "the longest pair is merged first. The pair with the lowest rank is.",
    ),
    Mistake(
        "unknown-pairs-merged",
        MERGE,
        """\
            best = min(zip(symbols, symbols[1:]), key=lambda pair: self.rank.get(pair, math.inf))
""",
        "pairs are merged until one symbol is left. Merging ends when none of the pairs is in the list.",
    ),
    Mistake(
        "one-merge-only",
        "        while len(symbols) > 1:",
        "        if len(symbols) > 1:\n          for _ in range(1):",
        "only one pair is merged. It goes on as long as the list knows a pair.",
    ),
    Mistake(
        "first-occurrence-only",
        "if tuple(symbols[i : i + 2]) == best:",
        "if tuple(symbols[i : i + 2]) == best and best[0] + best[1] not in merged:",
        "the pair is joined only where it first stands. It is joined wherever it stands in the word.",
    ),
    Mistake(
        "single-characters-without-end-of-word",
        'symbols = [*word[:-1], word[-1] + "</w>"]',
        'symbols = [*word[:-1], word[-1] + "</w>"] if len(word) > 1 else [word]',
        "a word of one character gets no `</w>`. Its only character is its last one too.",
    ),
    Mistake(
        "two-symbols-never-merged",
        "        while len(symbols) > 1:",
        "        while len(symbols) > 2:",
        "merging ends when two symbols are left. They may make a pair too.",
    ),
    Mistake(
        "step-of-one-after-a-merge",
        "                    i += 2\n",
        "                    i += 1\n",
        "the second symbol of a merged pair is looked at again. It is part of the new symbol; go on behind it.",
    ),
    Mistake(
        "marks-as-text",
        "        for part in MARK.split(text):",
        "        for part in [text]:",
        "marks in the text are taken apart like words. The text is cut at them first.",
    ),
    Mistake(
        "marks-left-out",
        "                ids.append(self.vocab[part])\n",
        "",
        "marks in the text are left out. Each is a token.",
    ),
    Mistake(
        "both-marks-as-end",
        "ids.append(self.vocab[part])",
        "ids.append(self.end)",
        "every mark in the text becomes the end mark. Each has its own id.",
    ),
    Mistake(
        "text-not-cleaned",
        "words(self.clean(part))",
        "words(part)",
        "the text is not cleaned. The merge list was learned from cleaned text.",
    ),
    Mistake(
        "text-only-lowered",
        "words(self.clean(part))",
        "words(part.lower())",
        "the text is lowered but not cleaned. An accent can be written in two ways; clean makes them one.",
    ),
    Mistake(
        "split-at-blanks",
        "words(self.clean(part))",
        "self.clean(part).split()",
        "the text is split at white space. Punctuation, digits and contractions are words of their own: see `words`.",
    ),
    Mistake(
        "letters-and-digits-together",
        "words(self.clean(part))",
        're.findall(r"\\w+|[^\\w\\s]+", self.clean(part))',
        "letters and digits make a word together. Every digit is a word of its own: see `words`.",
    ),
    Mistake(
        "no-byte-alphabet",
        'spelled = "".join(self.alphabet[byte] for byte in word.encode("utf-8"))',
        "spelled = word",
        "words are not spelled in the byte alphabet. Its characters stand for bytes, and é is two bytes in UTF-8.",
    ),
    Mistake(
        "characters-in-place-of-bytes",
        'self.alphabet[byte] for byte in word.encode("utf-8")',
        "self.alphabet.get(ord(c), c) for c in word",
        "the alphabet is looked up with characters. It has one entry per byte; a character beyond ASCII is several.",
    ),
    Mistake(
        "bytes-as-numbers-of-characters",
        'self.alphabet[byte] for byte in word.encode("utf-8")',
        'chr(byte) for byte in word.encode("utf-8")',
        "each byte is written as the character of its number. The byte alphabet writes 68 of the 256 differently.",
    ),
    Mistake(
        "latin-1",
        'word.encode("utf-8")',
        'word.encode("latin-1", "replace")',
        "the words are encoded as Latin-1. The byte alphabet spells UTF-8.",
    ),
    Mistake(
        "utf-16",
        'word.encode("utf-8")',
        'word.encode("utf-16-le")',
        "the words are encoded as UTF-16. UTF-8 is meant.",
    ),
    Mistake(
        "unknown-tokens-left-out",
        "ids.extend(self.vocab.get(token, self.end) for token in self.bpe(spelled))",
        "ids.extend(self.vocab[token] for token in self.bpe(spelled) if token in self.vocab)",
        "tokens that the vocabulary lacks are left out. They become the end mark.",
    ),
    Mistake(
        "unknown-tokens-are-an-error",
        "self.vocab.get(token, self.end) for token",
        "self.vocab[token] for token",
        "a token that the vocabulary lacks is an error. It becomes the end mark.",
    ),
    Mistake(
        "unknown-tokens-are-0",
        "self.vocab.get(token, self.end)",
        "self.vocab.get(token, 0)",
        "tokens that the vocabulary lacks become 0. They become the end mark.",
    ),
    Mistake(
        "bpe-over-the-whole-text",
        "for word in words(self.clean(part)):",
        'for word in ["".join(words(self.clean(part)))] if self.clean(part).strip() else []:',
        "all words are split together as one. Each word ends with its own `</w>`.",
    ),
    Mistake(
        "one-prompt-as-a-list-of-letters",
        """\
        if isinstance(prompts, str):
            prompts = [prompts]
""",
        "",
        "a single prompt is taken for a list of prompts, one per letter. A string alone is one prompt.",
    ),
    Mistake(
        "no-begin-mark",
        "ids = [self.begin, *self.tokenize(prompt)[: self.max_length - 2], self.end]",
        "ids = [*self.tokenize(prompt)[: self.max_length - 1], self.end]",
        "the begin mark is missing. Every row starts with it.",
    ),
    Mistake(
        "no-end-mark",
        "ids = [self.begin, *self.tokenize(prompt)[: self.max_length - 2], self.end]",
        "ids = [self.begin, *self.tokenize(prompt)[: self.max_length - 1]]",
        "the end mark is not put in before the padding. A prompt that fills the row then has none.",
    ),
    Mistake(
        "begin-and-end-exchanged",
        "ids = [self.begin, *self.tokenize(prompt)[: self.max_length - 2], self.end]",
        "ids = [self.end, *self.tokenize(prompt)[: self.max_length - 2], self.begin]",
        "begin mark and end mark change places.",
    ),
    Mistake(
        "end-mark-cut-off",
        "ids = [self.begin, *self.tokenize(prompt)[: self.max_length - 2], self.end]",
        "ids = [self.begin, *self.tokenize(prompt), self.end][: self.max_length]",
        "a prompt that is too long loses its end mark. It loses its last tokens; the end mark stays.",
    ),
    Mistake(
        "one-token-too-few",
        "[: self.max_length - 2]",
        "[: self.max_length - 3]",
        "one token fewer than possible is kept. Two places go to the marks.",
    ),
    Mistake(
        "characters-cut-for-tokens",
        "self.tokenize(prompt)[: self.max_length - 2]",
        "self.tokenize(prompt[: self.max_length - 2])",
        "the prompt is cut to max_length - 2 characters. Tokens are cut, and a token can have many characters.",
    ),
    Mistake(
        "long-prompts-not-cut",
        "*self.tokenize(prompt)[: self.max_length - 2]",
        "*self.tokenize(prompt)",
        "long prompts are not cut. Every row has max_length ids.",
    ),
    Mistake(
        "first-tokens-lost",
        "*self.tokenize(prompt)[: self.max_length - 2]",
        "*self.tokenize(prompt)[-(self.max_length - 2) :]",
        "a prompt that is too long loses its first tokens. It loses its last ones.",
    ),
    Mistake(
        "first-prompt-only",
        "            rows.append(ids + [self.end] * (self.max_length - len(ids)))\n",
        "            rows.append(ids + [self.end] * (self.max_length - len(ids)))\n            break\n",
        "only the first prompt gets a row.",
    ),
    Mistake(
        "padded-with-zeros",
        "ids + [self.end] * (self.max_length - len(ids))",
        "ids + [0] * (self.max_length - len(ids))",
        "the padding is zeros. Stable Diffusion pads with end marks.",
    ),
    Mistake(
        "padded-with-begin-marks",
        "ids + [self.end] * (self.max_length - len(ids))",
        "ids + [self.begin] * (self.max_length - len(ids))",
        "the padding is begin marks. Stable Diffusion pads with end marks.",
    ),
    Mistake(
        "padded-in-front",
        "ids + [self.end] * (self.max_length - len(ids))",
        "[self.end] * (self.max_length - len(ids)) + ids",
        "the padding comes first. It comes last.",
    ),
    Mistake(
        "padded-to-the-longest",
        "rows.append(ids + [self.end] * (self.max_length - len(ids)))",
        "rows.append(ids + [self.end] * (max(len(self.tokenize(p)) + 2 for p in prompts) - len(ids)))",
        "rows are padded to the longest prompt. They are padded to max_length.",
    ),
    Mistake(
        "rows-of-77",
        "ids + [self.end] * (self.max_length - len(ids))",
        "ids + [self.end] * (77 - len(ids))",
        "rows always have 77 ids. Their length is self.max_length.",
    ),
    Mistake(
        "ids-as-floats",
        "torch.tensor(rows, dtype=torch.long)",
        "torch.tensor(rows, dtype=torch.float32)",
        "the ids are floats. An embedding is looked up with whole numbers.",
    ),
    Mistake(
        "ids-as-int32",
        "torch.tensor(rows, dtype=torch.long)",
        "torch.tensor(rows, dtype=torch.int32)",
        "the ids are int32. They are int64.",
    ),
    Mistake(
        "mask-with-the-diagonal",
        "-math.inf).triu(diagonal=1)",
        "-math.inf).triu(diagonal=0)",
        "a token may not look at itself. The first one may look at nothing then, and its softmax is nan.",
    ),
    Mistake(
        "mask-one-token-ahead",
        "-math.inf).triu(diagonal=1)",
        "-math.inf).triu(diagonal=2)",
        "a token may look at the next one too. It looks at itself and at what stands before it.",
    ),
    Mistake(
        "mask-transposed",
        "-math.inf).triu(diagonal=1)",
        "-math.inf).tril(diagonal=-1)",
        "a token may look only at itself and at what follows. It looks at itself and at what stands before it.",
    ),
    Mistake(
        "mask-of-zeros",
        "torch.full((length, length), -math.inf).triu(diagonal=1)",
        "torch.zeros(length, length)",
        "nothing is masked. A token must not see what follows it.",
    ),
    Mistake(
        "mask-of-ones-and-zeros",
        "torch.full((length, length), -math.inf).triu(diagonal=1)",
        "torch.ones(length, length).tril()",
        "the mask holds 1 where a token may look, and 0 elsewhere. It is added to the scores: 0 and -inf.",
    ),
    Mistake(
        "mask-of-booleans",
        "torch.full((length, length), -math.inf).triu(diagonal=1)",
        "torch.ones(length, length, dtype=torch.bool).tril()",
        "the mask holds booleans. It is added to the scores: 0 and -inf, as float32.",
    ),
    Mistake(
        "mask-times-infinity",
        "torch.full((length, length), -math.inf).triu(diagonal=1)",
        "torch.ones(length, length).triu(diagonal=1) * -math.inf",
        "zeros are multiplied by infinity. Zero times infinity is nan.",
    ),
    Mistake(
        "mask-of-large-numbers",
        "torch.full((length, length), -math.inf)",
        "torch.full((length, length), -10000.0)",
        "the mask is -10000 where it should be -inf.",
    ),
    Mistake(
        "exact-gelu",
        "self.fc2(quick_gelu(self.fc1(self.norm2(x))))",
        "self.fc2(nn.functional.gelu(self.fc1(self.norm2(x))))",
        "the activation is the exact GELU. CLIP was trained with the quick one, and its weights expect it.",
    ),
    Mistake(
        "silu-for-quick-gelu",
        "self.fc2(quick_gelu(self.fc1(self.norm2(x))))",
        "self.fc2(nn.functional.silu(self.fc1(self.norm2(x))))",
        "the activation is SiLU. Quick GELU has a factor of 1.702 inside of the sigmoid.",
    ),
    Mistake(
        "no-activation",
        "self.fc2(quick_gelu(self.fc1(self.norm2(x))))",
        "self.fc2(self.fc1(self.norm2(x)))",
        "there is no activation between fc1 and fc2. Without it they make a single linear layer.",
    ),
    Mistake(
        "activation-before-fc1",
        "self.fc2(quick_gelu(self.fc1(self.norm2(x))))",
        "self.fc2(self.fc1(quick_gelu(self.norm2(x))))",
        "the activation comes before fc1. It comes between fc1 and fc2.",
    ),
    Mistake(
        "activation-after-fc2",
        "self.fc2(quick_gelu(self.fc1(self.norm2(x))))",
        "quick_gelu(self.fc2(self.fc1(self.norm2(x))))",
        "the activation comes after fc2. It comes between fc1 and fc2.",
    ),
    Mistake(
        "layer-without-mask",
        "self.attention(self.norm1(x), mask=mask)",
        "self.attention(self.norm1(x))",
        "the layer does not hand the mask to its attention.",
    ),
    Mistake(
        "mask-as-the-context",
        "self.attention(self.norm1(x), mask=mask)",
        "self.attention(self.norm1(x), mask)",
        "the mask is given in the place of the context, the second argument of MultiHeadAttention.forward. Name it: "
        "mask=mask.",
    ),
    Mistake(
        "layer-without-norm1",
        "self.attention(self.norm1(x), mask=mask)",
        "self.attention(x, mask=mask)",
        "norm1 is not used. Both parts of a layer read a normalised x.",
    ),
    Mistake(
        "layer-without-norm2",
        "self.fc1(self.norm2(x))",
        "self.fc1(x)",
        "norm2 is not used. Both parts of a layer read a normalised x.",
    ),
    Mistake(
        "layer-without-attention-shortcut",
        "x = x + self.attention(self.norm1(x), mask=mask)",
        "x = self.attention(self.norm1(x), mask=mask)",
        "the layer does not add x after attention. Both of its parts are corrections.",
    ),
    Mistake(
        "layer-without-mlp-shortcut",
        "x = x + self.fc2(quick_gelu(self.fc1(self.norm2(x))))",
        "x = self.fc2(quick_gelu(self.fc1(self.norm2(x))))",
        "the layer does not add x after fc2. Both of its parts are corrections.",
    ),
    Mistake(
        "layer-attention-shortcut-after-norm1",
        "        x = x + self.attention(self.norm1(x), mask=mask)\n",
        "        x = self.norm1(x)\n        x = x + self.attention(x, mask=mask)\n",
        "the attention's shortcut adds norm1(x). It adds x as it came.",
    ),
    Mistake(
        "layer-mlp-shortcut-after-norm2",
        "        x = x + self.fc2(quick_gelu(self.fc1(self.norm2(x))))\n",
        "        x = self.norm2(x)\n        x = x + self.fc2(quick_gelu(self.fc1(x)))\n",
        "the shortcut of the feed-forward part adds norm2(x). It adds x as it came.",
    ),
    Mistake(
        "layer-post-norm",
        """\
        x = x + self.attention(self.norm1(x), mask=mask)
        x = x + self.fc2(quick_gelu(self.fc1(self.norm2(x))))
""",
        """\
        x = self.norm1(x + self.attention(x, mask=mask))
        x = self.norm2(x + self.fc2(quick_gelu(self.fc1(x))))
""",
        "the layer normalises after each sum. CLIP's layers normalise before each part.",
    ),
    Mistake(
        "layer-parts-side-by-side",
        """\
        x = x + self.attention(self.norm1(x), mask=mask)
        x = x + self.fc2(quick_gelu(self.fc1(self.norm2(x))))
""",
        """\
        x = x + self.attention(self.norm1(x), mask=mask) + self.fc2(quick_gelu(self.fc1(self.norm2(x))))
""",
        "both parts of a layer read the same x. The second reads what attention has made.",
    ),
    Mistake(
        "layer-parts-exchanged",
        """\
        x = x + self.attention(self.norm1(x), mask=mask)
        x = x + self.fc2(quick_gelu(self.fc1(self.norm2(x))))
""",
        """\
        x = x + self.fc2(quick_gelu(self.fc1(self.norm2(x))))
        x = x + self.attention(self.norm1(x), mask=mask)
""",
        "attention comes last in a layer. It comes first.",
    ),
    Mistake(
        "layer-norms-exchanged",
        """\
        x = x + self.attention(self.norm1(x), mask=mask)
        x = x + self.fc2(quick_gelu(self.fc1(self.norm2(x))))
""",
        """\
        x = x + self.attention(self.norm2(x), mask=mask)
        x = x + self.fc2(quick_gelu(self.fc1(self.norm1(x))))
""",
        "norm1 and norm2 change places.",
    ),
    Mistake(
        "attention-without-biases",
        "config.num_heads, qkv_bias=True)",
        "config.num_heads)",
        "the attention's to_q, to_k and to_v have no biases. CLIP's do.",
    ),
    Mistake(
        "attention-with-one-head",
        "MultiHeadAttention(config.width, config.num_heads,",
        "MultiHeadAttention(config.width, 1,",
        "the attention has a single head. It has config.num_heads.",
    ),
    Mistake(
        "layer-norm-eps",
        "self.norm2 = nn.LayerNorm(config.width)",
        "self.norm2 = nn.LayerNorm(config.width, eps=1e-6)",
        "norm2 has eps=1e-6. CLIP's layer norms have 1e-5.",
    ),
    Mistake(
        "positions-forgotten",
        "self.token_embedding(tokens) + self.position_embedding.weight[:length]",
        "self.token_embedding(tokens)",
        "the position embedding is not added. Without it the order of the words makes almost no difference.",
    ),
    Mistake(
        "positions-from-one",
        "self.position_embedding.weight[:length]",
        "self.position_embedding.weight.roll(-1, 0)[:length]",
        "positions are counted from 1. The first token is at position 0.",
    ),
    Mistake(
        "positions-reversed",
        "self.position_embedding.weight[:length]",
        "self.position_embedding.weight[:length].flip(0)",
        "positions are counted from the end.",
    ),
    Mistake(
        "positions-multiplied",
        "self.token_embedding(tokens) + self.position",
        "self.token_embedding(tokens) * self.position",
        "token and position embedding are multiplied. They are added.",
    ),
    Mistake(
        "embedding-scaled",
        "self.token_embedding(tokens) +",
        "self.token_embedding(tokens) * self.token_embedding.embedding_dim**0.5 +",
        "the token embedding is multiplied by the square root of its width. The first transformer did that; CLIP does "
        "not.",
    ),
    Mistake(
        "all-positions-always",
        "self.position_embedding.weight[:length]",
        "self.position_embedding.weight",
        "all positions are added, however many tokens there are. Only the first ones are needed for fewer tokens.",
    ),
    Mistake(
        "no-causal-mask",
        "mask = causal_mask(length).to(device=x.device, dtype=x.dtype)",
        "mask = torch.zeros(length, length, dtype=x.dtype)",
        "the text encoder has no causal mask. A token must not see what follows it.",
    ),
    Mistake(
        "padding-masked",
        "            x = layer(x, mask)\n",
        """\
            end = tokens.max()
            padding = ((tokens == end).cumsum(dim=1) > 1)[:, None, None, :]
            x = layer(x, mask.masked_fill(padding, -math.inf) + torch.where(padding, -math.inf, 0.0).to(x.dtype))
""",
        "the padding is masked. Stable Diffusion was trained without masking it.",
    ),
    Mistake(
        "final-norm-forgotten",
        "return self.final_norm(x)",
        "return x",
        "final_norm is not used. It follows the last layer.",
    ),
    Mistake(
        "penultimate-layer",
        "for layer in self.layers:",
        "for layer in self.layers[:-1]:",
        "the last layer is left out. Stable Diffusion 2 does that; version 1 uses all layers.",
    ),
    Mistake(
        "results-of-the-layers-dropped",
        "x = layer(x, mask)",
        "layer(x, mask)",
        "the layers are called, but what they return is not kept: x stays what it was before them.",
    ),
    Mistake(
        "return-inside-the-loop",
        "            x = layer(x, mask)\n        return self.final_norm(x)",
        "            x = layer(x, mask)\n            return self.final_norm(x)\n        return self.final_norm(x)",
        "the encoder returns after its first layer: the return stands inside of the loop.",
    ),
    Mistake(
        "first-layer-for-all",
        "x = layer(x, mask)",
        "x = self.layers[0](x, mask)",
        "the first layer runs again and again. Each layer has its turn.",
    ),
    Mistake(
        "layers-reversed",
        "for layer in self.layers:",
        "for layer in reversed(self.layers):",
        "the layers run from the last to the first.",
    ),
    Mistake(
        "final-norm-after-every-layer",
        "x = layer(x, mask)",
        "x = self.final_norm(layer(x, mask)) if layer is not self.layers[-1] else layer(x, mask)",
        "final_norm follows every layer. It follows the last one only.",
    ),
    Mistake(
        "summary-vector-only",
        "return self.final_norm(x)",
        "return self.final_norm(x)[torch.arange(len(tokens)), tokens.argmax(dim=-1)]",
        "only the end mark's vector is returned. Stable Diffusion takes the vectors of all tokens.",
    ),
    Mistake(
        "ids-are-an-iterator",
        """\
ids.extend(self.vocab.get(token, self.end) for token in self.bpe(spelled))
        return ids""",
        """\
ids.extend(self.vocab.get(token, self.end) for token in self.bpe(spelled))
        return iter(ids)""",
        "tokenize returns an iterator. A list can be counted and cut, and be gone through more than once.",
    ),
    Mistake(
        "mask-stays-on-the-processor",
        "mask = causal_mask(length).to(device=x.device, dtype=x.dtype)",
        "mask = causal_mask(length).to(dtype=x.dtype)",
        "the causal mask stays on the processor. On a GPU it does not go together with the scores.",
    ),
    Mistake(
        "positions-on-the-processor",
        "self.position_embedding.weight[:length]",
        "self.position_embedding(torch.arange(length))",
        "the positions 0, 1, 2, ... are made on the processor. On a GPU the embedding does not take them.",
    ),
]
