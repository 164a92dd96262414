"""What has been computed is kept, under all that it depends on: words, rows, masks."""

import functools


class Tokenizer(Tokenizer):
    def __init__(self, vocab, merges, max_length=77):
        super().__init__(vocab, merges, max_length)
        self.symbols = {}

    def bpe(self, word):
        if word not in self.symbols:
            self.symbols[word] = tuple(super().bpe(word))
        return list(self.symbols[word])

    @functools.lru_cache(maxsize=100)  # noqa: B019 (tokenizers live as long as the program)
    def row(self, prompt):
        ids = (self.begin, *self.tokenize(prompt)[: self.max_length - 2], self.end)
        return ids + (self.end,) * (self.max_length - len(ids))

    def __call__(self, prompts):
        prompts = (prompts,) if isinstance(prompts, str) else prompts
        return torch.tensor([self.row(prompt) for prompt in prompts], dtype=torch.int64)


@functools.cache
def causal_mask(length):
    place = torch.arange(length)
    return torch.zeros(length, length).masked_fill(place[None] > place[:, None], float("-inf"))


class CLIPTextEncoder(CLIPTextEncoder):
    def __init__(self, config):
        super().__init__(config)
        self.register_buffer("mask", causal_mask(config.max_length), persistent=False)
        self.register_buffer("positions", torch.arange(config.max_length), persistent=False)

    def forward(self, tokens):
        length = tokens.shape[-1]
        x = self.token_embedding(tokens) + self.position_embedding(self.positions[:length])
        for layer in self.layers:
            x = layer(x, self.mask[:length, :length])
        return self.final_norm(x)
