"""A model of transformers in a folder, small enough to make in every test."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def make_tokenizer(chat=True):
    """Bytes, with a chat template whose end of turn is not ``eos_token``."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|stop|>")
    if chat:
        names = ["<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
        tokenizer.add_special_tokens({"additional_special_tokens": names})
        tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_folder(path, chat=True):
    """Save a small Llama with a tokenizer of bytes; return the path."""
    return save_llama(path, make_tokenizer(chat), context=96)


def save_llama(path, tokenizer, context, vocab=None):
    """Save a Llama of a few thousand random weights with a tokenizer; return the path."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab or len(tokenizer),
        max_position_embeddings=context,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
