"""Chat templates of our own in the style of the families in use, with small tokenizers."""

from typing import NamedTuple

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

_HEAD = "{% if messages[0]['role'] == 'system' %}"
_ALTERNATE = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}{% endfor %}"
)
_GENERATION = "{% if add_generation_prompt %}"


class Family(NamedTuple):
    """A template, the tokens it needs, and what it should make of "Hi." and "Yes."."""

    template: str
    special: tuple[str, ...]
    eos: str
    prompt: str
    response: str
    added: tuple[str, ...] = ()  # not special, as think marks are in some families
    system: bool = True  # whether it takes a system role
    closes: str = ""  # what an answer must hold because the prompt has opened it


FAMILIES = {
    "chatml": Family(
        _HEAD + "{% else %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
        "{% endfor %}" + _GENERATION + "<|im_start|>assistant\n{% endif %}",
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        "<|im_end|>",
        "<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\nHi.<|im_end|>\n"
        "<|im_start|>assistant\n",
        "Yes.<|im_end|>",
    ),
    "headers": Family(  # the end of a turn is not the end of text
        "<|begin|>{% for m in messages %}<|h|>{{ m['role'] }}<|/h|>\n\n{{ m['content'] | trim }}"
        "<|eot|>{% endfor %}" + _GENERATION + "<|h|>assistant<|/h|>\n\n{% endif %}",
        ("<|begin|>", "<|end|>", "<|h|>", "<|/h|>", "<|eot|>"),
        "<|end|>",
        "<|begin|><|h|>user<|/h|>\n\nHi.<|eot|><|h|>assistant<|/h|>\n\n",
        "Yes.<|eot|>",
    ),
    "turns": Family(  # neither a system role nor two users
        "<bos>" + _HEAD + "{{ raise_exception('System role not supported') }}{% endif %}"
        + _ALTERNATE + "{% for m in messages %}<start_of_turn>"
        "{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] | trim }}"
        "<end_of_turn>\n{% endfor %}" + _GENERATION + "<start_of_turn>model\n{% endif %}",
        ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
        "<eos>",
        "<bos><start_of_turn>user\nHi.<end_of_turn>\n<start_of_turn>model\n",
        "Yes.<end_of_turn>",
        system=False,
    ),
    "instructions": Family(  # no generation prompt; marks that are text
        "<s>{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
        "{% elif m['role'] == 'assistant' %} {{ m['content'] }}</s>"
        "{% else %}{{ raise_exception('Only user and assistant roles') }}{% endif %}{% endfor %}",
        ("<s>", "</s>"),
        "</s>",
        "<s>[INST] Hi. [/INST]",
        " Yes.</s>",
        system=False,
    ),
    "thinking": Family(  # an empty think block before the last answer, or that answer's own
        "{% for m in messages %}{% if m['role'] == 'assistant' %}{% set c = m['content'] %}"
        "{% set r = '' %}{% if '</think>' in c %}{% set r = c.split('</think>')[0]"
        ".split('<think>')[-1].strip('\\n') %}{% set c = c.split('</think>')[-1].lstrip('\\n') %}"
        "{% endif %}<|im_start|>assistant\n{% if loop.last %}<think>\n{{ r }}\n</think>\n\n"
        "{% endif %}{{ c }}<|im_end|>\n{% else %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}"
        "<|im_end|>\n{% endif %}{% endfor %}" + _GENERATION + "<|im_start|>assistant\n"
        "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
        "{% endif %}{% endif %}",
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        "<|im_end|>",
        "<|im_start|>user\nHi.<|im_end|>\n<|im_start|>assistant\n",
        "<think>\n\n</think>\n\nYes.<|im_end|>",
        added=("<think>", "</think>"),
    ),
    "thinks always": Family(  # the generation prompt opens the block, the template closes it
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
        "<think>\n\n</think>\n\n{% endif %}{{ m['content'] }}<|im_end|>\n{% endfor %}"
        + _GENERATION + "<|im_start|>assistant\n<think>\n{% endif %}",
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        "<|im_end|>",
        "<|im_start|>user\nHi.<|im_end|>\n<|im_start|>assistant\n<think>\n",
        "\n</think>\n\nYes.<|im_end|>",
        added=("<think>", "</think>"),
    ),
    "reasoning": Family(  # the generation prompt opens the block, and answers are shown without
        "<|bos|>{% for m in messages %}{% if m['role'] == 'user' %}<|User|>{{ m['content'] }}"
        "{% elif m['role'] == 'assistant' %}<|Assistant|>"
        "{{ m['content'].split('</think>')[-1] }}<|eos|>{% else %}{{ m['content'] }}{% endif %}"
        "{% endfor %}" + _GENERATION + "<|Assistant|><think>\n{% endif %}",
        ("<|bos|>", "<|eos|>", "<|User|>", "<|Assistant|>"),
        "<|eos|>",
        "<|bos|><|User|>Hi.<|Assistant|><think>\n",
        "Yes.<|eos|>",
        added=("<think>", "</think>"),
        closes="</think>",
    ),
    "channels": Family(  # the answer stands in a channel of its own
        "{% for m in messages %}<|start|>{{ m['role'] }}"
        "{% if m['role'] == 'assistant' %}<|channel|>final{% endif %}<|message|>{{ m['content'] }}"
        "{% if m['role'] == 'assistant' and loop.last %}<|return|>{% else %}<|end|>{% endif %}"
        "{% endfor %}" + _GENERATION + "<|start|>assistant{% endif %}",
        ("<|endoftext|>", "<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>"),
        "<|return|>",
        "<|start|>user<|message|>Hi.<|end|><|start|>assistant",
        "<|channel|>final<|message|>Yes.<|return|>",
    ),
    "no generation prompt": Family(  # the answer's header is a part of the prompt all the same
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
        "{% endfor %}",
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        "<|endoftext|>",
        "<|im_start|>user\nHi.<|im_end|>\n<|im_start|>assistant\n",
        "Yes.<|im_end|>",
    ),
    "no end mark": Family(  # nothing special behind the answer: EOS
        "{% for m in messages %}{{ m['role'] | upper }}: {{ m['content'] }}\n{% endfor %}"
        + _GENERATION + "ASSISTANT: {% endif %}",
        ("<s>", "</s>"),
        "</s>",
        "USER: Hi.\nASSISTANT: ",
        "Yes.</s>",
    ),
}  # fmt: skip


def make_family(name: str, **settings: str) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes with a family's template and tokens."""
    family = FAMILIES[name]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    bos = family.special[0] if family.prompt.startswith(family.special[0]) else None
    bos = None if bos == "<|start|>" else bos
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=family.eos, bos_token=bos, **settings
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(family.special)})
    tokenizer.add_tokens([AddedToken(mark, special=False) for mark in family.added])
    tokenizer.chat_template = family.template
    return tokenizer
